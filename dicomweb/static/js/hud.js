// SPDX-License-Identifier: Apache-2.0
// @ts-check
/** What lies over the slide: magnification, scale bar, presets, rotation. */

import { $, element } from "./dom.js";
import { length, magnification } from "./format.js";

/** @typedef {import("./slide-map.js").SlideMap} SlideMap */

export const PRESETS = [1, 2, 5, 10, 20, 40];
const LARGEST_ENLARGEMENT = 4.01; // presets further beyond the scan's own resolution are not offered
const BAR_MAX = 168; // screen pixels

/**
 * The round length (1, 2 or 5 times a power of ten) whose bar fits.
 * @param {number} micrometresPerPixel of the screen
 * @returns {{micrometres: number, pixels: number}}
 */
export function scaleBar(micrometresPerPixel) {
  const largest = BAR_MAX * micrometresPerPixel;
  const power = 10 ** Math.floor(Math.log10(largest));
  const step = [5, 2, 1].find((value) => value * power <= largest) ?? 1;
  const micrometres = step * power;
  return { micrometres, pixels: micrometres / micrometresPerPixel };
}

/** @param {SlideMap} slideMap @param {(preset: number | "fit" | "full") => void} choose */
export function makePresets(slideMap, choose) {
  const host = $("#presets");
  const native = slideMap.pyramid.nativeMagnification;
  /** @type {HTMLElement[]} */
  const buttons = [];
  /** @param {string} text @param {string} title @param {() => void} act @param {Record<string, string>} extra */
  const add = (text, title, act, extra = {}) => {
    const button = element("button", { type: "button", title, "aria-pressed": "false", ...extra }, text);
    button.addEventListener("click", act);
    buttons.push(button);
  };
  add("Fit", "Whole slide (0)", () => choose("fit"), { "data-preset": "fit" });
  const useful = native === null ? [] : PRESETS.filter((preset) => preset <= native * LARGEST_ENLARGEMENT);
  if (native === null || !useful.length) {
    add("1:1", "Full resolution: one image pixel per screen pixel", () => choose("full"), { "data-preset": "full" });
  } else {
    useful.forEach((preset) => {
      const digital = preset > native * 1.01;
      add(`${preset}×`, `${preset}× (key ${PRESETS.indexOf(preset) + 1})${digital ? ", beyond scan resolution" : ""}`, () => choose(preset), {
        "data-preset": String(preset),
        ...(digital ? { class: "digital" } : {}),
      });
    });
  }
  host.replaceChildren(...buttons);
  host.hidden = false;
}

/** Bring everything in line with the view. @param {SlideMap} slideMap */
export function showView(slideMap) {
  const shown = slideMap.magnification;
  const power = $("#power");
  power.textContent = shown === null ? `${Number((100 / slideMap.resolution).toPrecision(3))}%` : magnification(shown);
  power.title = shown === null ? "Screen pixels per image pixel" : "Magnification";
  $("#beyond").hidden = slideMap.resolution >= 0.995;

  const spacing = slideMap.micrometresPerScreenPixel;
  $("#rule").hidden = spacing === null;
  $("#unscaled").hidden = spacing !== null;
  if (spacing !== null) {
    const bar = scaleBar(spacing);
    $("#rule-bar").style.width = `${bar.pixels.toFixed(1)}px`;
    const text = length(bar.micrometres);
    if ($("#rule-text").textContent !== text) {
      $("#rule-text").textContent = text;
      $("#rule").setAttribute("aria-label", `Scale bar: ${text}`);
    }
  }

  const fit = slideMap.fitResolution();
  for (const button of $("#presets").querySelectorAll("button")) {
    const preset = button.dataset.preset;
    const target =
      preset === "fit" ? fit : preset === "full" ? 1 : (slideMap.pyramid.nativeMagnification ?? 1) / Number(preset);
    button.setAttribute("aria-pressed", String(Math.abs(slideMap.resolution / target - 1) < 0.01));
  }

  const degrees = slideMap.degrees;
  $("#north").hidden = degrees === 0;
  $("#angle").textContent = `${Math.round(degrees)}°`;
  $("#needle").style.transform = `rotate(${degrees}deg)`;
}
