// SPDX-License-Identifier: Apache-2.0
// @ts-check
/** The slide view: reads the address, loads the slide, ties map, panels and keys together. */

import { getJson, RequestFailed } from "./api.js";
import { $, banner, element } from "./dom.js";
import { stated } from "./format.js";
import { FrameSource } from "./frames.js";
import { PRESETS, makePresets, showView } from "./hud.js";
import { listenToKeys } from "./keyboard.js";
import { formatPlace, parsePlace } from "./link.js";
import { MiniMap } from "./minimap.js";
import { showDetails, showPictures, showTray } from "./panels.js";
import { iccProfile, Slide, UnusableSlide } from "./slide.js";
import { SlideMap } from "./slide-map.js";

const UID = /^[0-9.]{1,64}$/;

const stage = $("#stage");
const banners = $("#banners");
const query = new URLSearchParams(location.search);
const study = query.get("study") ?? "";
const series = query.get("series") ?? "";

/** Choices that outlive the page; without storage (private windows) they last as long as it. */
const preferences = {
  /** @param {string} name @param {boolean} fallback */
  get(name, fallback) {
    try {
      const value = localStorage.getItem(`coverslip.${name}`);
      return value === null ? fallback : value === "yes";
    } catch {
      return fallback;
    }
  },
  /** @param {string} name @param {boolean} value */
  set(name, value) {
    try {
      localStorage.setItem(`coverslip.${name}`, value ? "yes" : "no");
    } catch {
      // not kept
    }
  },
};

const frames = new FrameSource(study, series);
/** @type {SlideMap | null} */
let slideMap = null;
/** @type {MiniMap | null} */
let miniMap = null;
/** @type {Slide | null} */
let slide = null;
/** @type {ReturnType<typeof showPictures> | null} */
let pictures = null;
let pyramidIndex = 0;

// --- opening ---------------------------------------------------------------------------

async function open() {
  stage.dataset.state = "loading";
  $("#message").hidden = true;
  $("#opening").hidden = false;
  try {
    if (!UID.test(study) || !UID.test(series)) {
      throw new UnusableSlide("The address names no slide. Open one from the list.");
    }
    const metadata = await getJson(`dicom-web/studies/${study}/series/${series}/metadata`, {
      what: "the slide",
      accept: "application/dicom+json",
    });
    slide = new Slide(/** @type {import("./dicomjson.js").Dataset[]} */ (metadata ?? []));
    show(slide);
  } catch (error) {
    fail(error);
  }
}

/** @param {unknown} error */
function fail(error) {
  stage.dataset.state = "error";
  $("#opening").hidden = true;
  $("#message").hidden = false;
  const known = error instanceof RequestFailed || error instanceof UnusableSlide;
  const missing = error instanceof RequestFailed && [404, 410].includes(error.status);
  $("#message-title").textContent = missing ? "This slide is not here" : "This slide could not be opened";
  $("#message-text").textContent = known
    ? /** @type {Error} */ (error).message
    : `The viewer met something unexpected: ${error instanceof Error ? error.message : String(error)}`;
  $("#message-retry").focus();
  if (!known) console.error(error);
}

/** @param {Slide} opened */
function show(opened) {
  const name = opened.containerIdentifier || opened.text("SeriesDescription") || "Slide without identifier";
  document.title = `${name} · Coverslip`;
  $("#identity").textContent = name;
  const person = [opened.patientName, stated(opened.patientId)].filter(Boolean).join(" · ");
  $("#case").textContent = [person || "Patient not known", opened.accessionNumber].filter(Boolean).join(" · ");
  setPanel("info", preferences.get("info", window.innerWidth > 860));
  pictures = showPictures(study, series, opened);
  void showTray(study, series, (found) => {
    $("#toggle-tray").hidden = !found;
    if (found) setPanel("tray", preferences.get("tray", window.innerWidth > 1100));
  });
  if (!opened.pyramids.length) {
    showDetails(opened, null);
    throw new UnusableSlide("The series has a label or an overview, but no scanned level.");
  }
  fillChoices(opened);
  const place = parsePlace(location.hash);
  openPyramid(Math.min(place?.p ?? 0, opened.pyramids.length - 1), place);
  $("#opening").hidden = true;
  stage.dataset.state = "ready";
}

/** @param {number} index @param {import("./link.js").Place | null} place */
function openPyramid(index, place) {
  if (!slide) return;
  miniMap?.dispose();
  slideMap?.dispose();
  pyramidIndex = index;
  const pyramid = slide.pyramids[index];
  const made = new SlideMap($("#map"), pyramid, frames, {
    onView: scheduleView,
    onSettled: updateLink,
    onTiles: showTiles,
  });
  slideMap = made;
  if (place) {
    if (pyramid.base.opticalPaths.has(place.o)) made.tiles.opticalPath = place.o;
    made.tiles.plane = Math.min(place.f, pyramid.base.focalPlanes - 1);
    made.goTo(place);
  }
  miniMap = new MiniMap(/** @type {HTMLCanvasElement} */ ($("#minimap-canvas")), made, frames);
  setPanel("map", preferences.get("map", true));
  makePresets(made, choose);
  showDetails(slide, pyramid);
  fillPaths(pyramid, made);
  for (const id of ["scale", "zoomer"]) $(`#${id}`).hidden = false;
  const profiled = pyramid.levels.some((level) => level.parts.some((part) => iccProfile(part, made.tiles.opticalPath)));
  const colour = /** @type {HTMLButtonElement} */ ($("#colour"));
  colour.disabled = !profiled;
  colour.title = profiled
    ? "Colour management by the scanner's ICC profile (C)"
    : "Colours as stored: this slide has no ICC profile";
  colour.setAttribute("aria-pressed", String(profiled && frames.colourManaged));
  banner(
    banners,
    "anisotropic",
    pyramid.anisotropic ? "Rows and columns of this scan have different spacing: the scale bar is approximate." : null,
    { tone: "warning" },
  );
  scheduleView();
}

/** @param {Slide} opened */
function fillChoices(opened) {
  const choice = /** @type {HTMLSelectElement} */ ($("#pyramid"));
  choice.hidden = opened.pyramids.length < 2;
  choice.replaceChildren(
    ...opened.pyramids.map((pyramid, index) =>
      element("option", { value: index }, `${pyramid.label || `Region ${index + 1}`}, ${pyramid.columns} × ${pyramid.rows}`),
    ),
  );
  choice.onchange = () => openPyramid(Number(choice.value), null);
}

/** @param {import("./slide.js").Pyramid} pyramid @param {SlideMap} made */
function fillPaths(pyramid, made) {
  /** @type {HTMLSelectElement} */ ($("#pyramid")).value = String(pyramidIndex);
  const choice = /** @type {HTMLSelectElement} */ ($("#path"));
  const paths = [...pyramid.base.opticalPaths];
  choice.hidden = paths.length < 2;
  choice.replaceChildren(...paths.map(([id, name]) => element("option", { value: id }, name)));
  choice.value = made.tiles.opticalPath;
  choice.onchange = () => {
    made.tiles.opticalPath = choice.value;
    drawAnew();
  };
  const planes = pyramid.base.focalPlanes;
  const plane = /** @type {HTMLInputElement} */ ($("#plane"));
  $("#focus").hidden = planes < 2;
  plane.max = String(planes - 1);
  plane.value = String(made.tiles.plane);
  $("#plane-text").textContent = `${made.tiles.plane + 1}/${planes}`;
  plane.oninput = () => {
    made.tiles.plane = Number(plane.value);
    $("#plane-text").textContent = `${made.tiles.plane + 1}/${planes}`;
    drawAnew();
  };
}

function drawAnew() {
  slideMap?.tiles.refresh();
  miniMap?.reload();
  updateLink();
}

/** @param {number} step */
function changePlane(step) {
  const plane = /** @type {HTMLInputElement} */ ($("#plane"));
  if ($("#focus").hidden) return;
  plane.value = String(Number(plane.value) + step);
  plane.dispatchEvent(new Event("input"));
}

// --- keeping things in line with the view --------------------------------------------------

let viewScheduled = false;

function scheduleView() {
  if (viewScheduled) return;
  viewScheduled = true;
  requestAnimationFrame(() => {
    viewScheduled = false;
    if (!slideMap) return;
    showView(slideMap);
    if (!$("#minimap").hidden) miniMap?.draw();
    const place = slideMap.place;
    stage.dataset.scale = String(place.z);
    stage.dataset.rotation = String(place.r);
  });
}

/** @type {number | undefined} */
let linkTimer;

function updateLink() {
  clearTimeout(linkTimer);
  linkTimer = window.setTimeout(() => {
    if (!slideMap || !slide) return;
    const paths = [...slideMap.pyramid.base.opticalPaths.keys()];
    const { opticalPath, plane } = slideMap.tiles;
    const hash = formatPlace({
      ...slideMap.place,
      p: pyramidIndex,
      o: opticalPath === paths[0] ? "" : opticalPath,
      f: plane,
    });
    if (hash !== location.hash) history.replaceState(history.state, "", hash);
  }, 120);
}

window.addEventListener("hashchange", () => {
  const place = parsePlace(location.hash);
  if (!place || !slideMap || !slide) return;
  const index = Math.min(place.p, slide.pyramids.length - 1);
  if (index !== pyramidIndex) openPyramid(index, place);
  else slideMap.goTo(place);
});

/** @param {{loading: number, loaded: number, failed: number, error: unknown}} state */
function showTiles({ loading, loaded, failed, error }) {
  $("#progress").classList.toggle("on", loading > 0);
  stage.dataset.tilesLoading = String(loading);
  stage.dataset.tilesLoaded = String(loaded);
  stage.dataset.tilesFailed = String(failed);
  stage.dataset.tilesAborted = String(slideMap?.tiles.abortedCount ?? 0);
  if (!failed) {
    banner(banners, "tiles", null);
    return;
  }
  const reason = error instanceof RequestFailed ? cause(error) : error instanceof Error ? error.message : "";
  const some = failed === 1 ? "1 tile could not be loaded and is hatched" : `${failed} tiles could not be loaded and are hatched`;
  banner(banners, "tiles", `${some}${reason ? ` (${reason})` : ""}.`, {
    action: "Try again",
    onAction: () => slideMap?.tiles.retry(),
  });
}

/** @param {RequestFailed} error */
function cause(error) {
  if (error.status === 0) return "the server does not answer";
  if (error.status === 200) return error.detail;
  return `HTTP ${error.status}${error.detail ? `: ${error.detail}` : ""}`;
}

frames.onProfileFailure = (error) => {
  const reason = error instanceof RequestFailed ? cause(error) : error instanceof Error ? error.message : "";
  banner(
    banners,
    "profile",
    `The slide's colour profile could not be applied${reason ? ` (${reason})` : ""}: colours are shown as stored.`,
    {
      tone: "warning",
      action: "Try again",
      onAction: () => {
        banner(banners, "profile", null);
        frames.forgetProfiles();
        drawAnew();
      },
    },
  );
};

// --- commands ------------------------------------------------------------------------------

/** @param {number | "fit" | "full"} preset */
function choose(preset) {
  if (preset === "fit") slideMap?.fit();
  else if (preset === "full") slideMap?.fullResolution();
  else slideMap?.magnify(preset);
}

/** @param {"info" | "map" | "tray"} name @param {boolean} shown */
function setPanel(name, shown) {
  $(name === "map" ? "#minimap" : `#${name}`).hidden = !shown;
  $(`#toggle-${name}`).setAttribute("aria-pressed", String(shown));
  if (name === "map") miniMap?.draw();
  else slideMap?.map.updateSize();
}

/** @param {"info" | "map" | "tray"} name */
function togglePanel(name) {
  if ($(`#toggle-${name}`).hidden) return;
  const shown = $(`#toggle-${name}`).getAttribute("aria-pressed") !== "true";
  preferences.set(name, shown);
  setPanel(name, shown);
}

function toggleColour() {
  const button = /** @type {HTMLButtonElement} */ ($("#colour"));
  if (button.disabled) return;
  frames.colourManaged = !frames.colourManaged;
  button.setAttribute("aria-pressed", String(frames.colourManaged));
  drawAnew();
}

async function toggleFullScreen() {
  try {
    if (document.fullscreenElement) await document.exitFullscreen();
    else await document.documentElement.requestFullscreen();
  } catch {
    banner(banners, "full", "This browser does not allow full screen here.", { tone: "warning" });
  }
}

const help = /** @type {HTMLDialogElement} */ ($("#help"));

listenToKeys({
  panStart: (key, fast) => slideMap?.startPan(key, fast),
  panStop: (key) => slideMap?.stopPan(key),
  panStopAll: () => slideMap?.stopAllPans(),
  keys: {
    ...Object.fromEntries(PRESETS.map((preset, index) => [String(index + 1), () => choose(preset)])),
    0: () => choose("fit"),
    Home: () => choose("fit"),
    "+": () => slideMap?.zoom(Math.SQRT2),
    "=": () => slideMap?.zoom(Math.SQRT2),
    "-": () => slideMap?.zoom(Math.SQRT1_2),
    _: () => slideMap?.zoom(Math.SQRT1_2),
    r: (event) => slideMap?.rotate(event.shiftKey ? -90 : 90),
    n: () => slideMap?.upright(),
    c: toggleColour,
    l: () => pictures?.label.rotate(),
    i: () => togglePanel("info"),
    m: () => togglePanel("map"),
    t: () => togglePanel("tray"),
    f: () => void toggleFullScreen(),
    "[": () => changePlane(-1),
    "]": () => changePlane(1),
    "?": () => help.showModal(),
  },
});

$("#rotate").addEventListener("click", (event) => slideMap?.rotate(event.shiftKey ? -90 : 90));
$("#north").addEventListener("click", () => slideMap?.upright());
$("#colour").addEventListener("click", toggleColour);
$("#toggle-info").addEventListener("click", () => togglePanel("info"));
$("#toggle-map").addEventListener("click", () => togglePanel("map"));
$("#toggle-tray").addEventListener("click", () => togglePanel("tray"));
$("#full").addEventListener("click", () => void toggleFullScreen());
$("#help-open").addEventListener("click", () => help.showModal());
$("#zoom-in").addEventListener("click", () => slideMap?.zoom(2));
$("#zoom-out").addEventListener("click", () => slideMap?.zoom(0.5));
$("#label-rotate").addEventListener("click", () => pictures?.label.rotate());
$("#message-retry").addEventListener("click", () => void open());
// back to the list as it was left: search and scroll position are the browser's to restore
$("#back").addEventListener("click", (event) => {
  if (!document.referrer || history.length < 2) return;
  const from = new URL(document.referrer);
  if (from.origin !== location.origin || from.pathname === location.pathname) return; // came from another slide
  event.preventDefault();
  history.back();
});

void open();
