// SPDX-License-Identifier: Apache-2.0
// @ts-check
/** Small helpers to make elements. Text goes in as text nodes only, never as markup. */

/**
 * @template {HTMLElement} [T=HTMLElement]
 * @param {string} selector
 * @returns {T} the element; the page's own markup guarantees it
 */
export function $(selector) {
  const found = document.querySelector(selector);
  if (!found) throw new Error(`no element ${selector}`);
  return /** @type {T} */ (found);
}

/**
 * @param {string} tag
 * @param {Record<string, string | number | boolean | null | undefined>} [attributes] null, undefined and false are left out
 * @param {...(Node | string | null | undefined)} children
 * @returns {HTMLElement}
 */
export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    made.setAttribute(name, value === true ? "" : String(value));
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

const SVG = "http://www.w3.org/2000/svg";

/**
 * @param {string} name of a symbol in the page, without "i-"
 * @returns {SVGSVGElement}
 */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `#i-${name}`);
  svg.append(use);
  return svg;
}

/**
 * Show, replace or (with `message` null) remove a banner in `host`.
 * @param {HTMLElement} host
 * @param {string} key one banner per key
 * @param {string | null} message
 * @param {{action?: string, onAction?: () => void, tone?: "error" | "warning"}} [options]
 */
export function banner(host, key, message, { action, onAction, tone = "error" } = {}) {
  const known = host.querySelector(`[data-key="${CSS.escape(key)}"]`);
  if (message === null) {
    known?.remove();
    return;
  }
  const spoken = known?.querySelector(".banner-text");
  if (known && spoken && spoken.textContent === message) return;
  const made = element(
    "div",
    { class: `banner banner-${tone}`, "data-key": key, role: tone === "error" ? "alert" : "status" },
    icon("alert"),
    element("span", { class: "banner-text" }, message),
  );
  if (action && onAction) {
    const button = element("button", { type: "button", class: "banner-action" }, action);
    button.addEventListener("click", onAction);
    made.append(button);
  }
  const close = element("button", { type: "button", class: "banner-close", "aria-label": "Dismiss" }, icon("close"));
  close.addEventListener("click", () => made.remove());
  made.append(close);
  if (known) known.replaceWith(made);
  else host.append(made);
}
