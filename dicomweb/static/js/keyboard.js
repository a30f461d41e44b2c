// SPDX-License-Identifier: Apache-2.0
// @ts-check
/** One table of keys. Keys typed into a field or with Ctrl, Alt or Meta are left alone. */

/**
 * @typedef {object} Commands
 * @property {(key: string, fast: boolean) => void} panStart
 * @property {(key: string) => void} panStop
 * @property {() => void} panStopAll
 * @property {Record<string, (event: KeyboardEvent) => void>} keys by `event.key`, letters in lower case
 */

/** @param {Commands} commands */
export function listenToKeys({ panStart, panStop, panStopAll, keys }) {
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || isField(event.target)) return;
    if (document.querySelector("dialog[open]")) return;
    if (event.key.startsWith("Arrow")) {
      event.preventDefault();
      panStart(event.key, event.shiftKey);
      return;
    }
    const command = keys[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!command) return;
    event.preventDefault();
    if (event.repeat && !"+=-_".includes(event.key)) return;
    command(event);
  });
  document.addEventListener("keyup", (event) => panStop(event.key));
  window.addEventListener("blur", panStopAll);
}

/** @param {EventTarget | null} target */
function isField(target) {
  return target instanceof HTMLElement && target.matches("input:not([type=range]), select, textarea");
}
