// SPDX-License-Identifier: Apache-2.0
// @ts-check
/** Beside the slide: label, overview, details, and the other slides of the study. */

import { address, getJson, isAbort, request } from "./api.js";
import { $, element, icon } from "./dom.js";
import { dicomDate, dicomDateTime, grouped, magnification, stated } from "./format.js";
import { text } from "./dicomjson.js";
import { sopInstanceUid } from "./slide.js";

/** @typedef {import("./slide.js").Slide} Slide */
/** @typedef {import("./slide.js").Pyramid} Pyramid */
/** @typedef {import("./dicomjson.js").Dataset} Dataset */

const PICTURE_WIDTH = 260; // screen pixels
const LARGEST_PICTURE = 1024;

/** Label and overview, drawn by the server from the instance. */
export class Picture {
  /**
   * @param {HTMLElement} host
   * @param {{what: string, path: string, absent: string}} options path of the instance, "" when there is none
   */
  constructor(host, { what, path, absent }) {
    this.host = host;
    this.what = what;
    this.path = path;
    this.turns = 0;
    if (path) void this.load();
    else host.replaceChildren(element("p", {}, absent));
  }

  async load() {
    this.host.replaceChildren(element("p", {}, "Loading…"));
    const viewport = encodeURIComponent(`${LARGEST_PICTURE},${LARGEST_PICTURE}`);
    try {
      const response = await request(`${this.path}/rendered?viewport=${viewport}`, {
        what: this.what,
        accept: "image/png, image/jpeg;q=0.9",
      });
      const url = URL.createObjectURL(await response.blob());
      const image = /** @type {HTMLImageElement} */ (element("img", { alt: this.what, decoding: "async" }));
      image.src = url;
      try {
        await image.decode();
      } finally {
        URL.revokeObjectURL(url);
      }
      this.image = image;
      this.frame = element("div", { class: "frame" }, image);
      this.host.replaceChildren(this.frame);
      this.arrange();
    } catch (error) {
      if (isAbort(error)) return;
      const button = element("button", { type: "button" }, "Try again");
      button.addEventListener("click", () => void this.load());
      const reason = error instanceof Error && error.name === "RequestFailed" ? error.message : "It cannot be decoded.";
      this.host.replaceChildren(element("p", { role: "alert" }, reason), button);
    }
  }

  /** A quarter turn clockwise. */
  rotate() {
    this.turns = (this.turns + 1) % 4;
    this.arrange();
  }

  arrange() {
    if (!this.image || !this.frame) return;
    const { naturalWidth: width, naturalHeight: height } = this.image;
    const room = this.host.clientWidth || PICTURE_WIDTH;
    const lying = this.turns % 2 === 1;
    const scale = Math.min(room / (lying ? height : width), PICTURE_WIDTH / (lying ? width : height), 4);
    this.image.style.width = `${Math.round(width * scale)}px`;
    this.image.style.maxWidth = "none";
    this.image.style.transform = `rotate(${this.turns * 90}deg)`;
    this.frame.style.height = `${Math.round((lying ? width : height) * scale)}px`;
  }
}

/**
 * What is known of the slide, in groups; an unknown value is left out, unless its absence matters.
 * @param {Slide} slide
 * @param {Pyramid | null} pyramid
 */
export function showDetails(slide, pyramid) {
  /** @type {[string, [string, string][]][]} */
  const groups = [
    [
      "Patient",
      [
        ["Name", slide.patientName || "Not known"],
        ["ID", stated(slide.patientId) || "Not known"],
        ["Born", dicomDate(slide.text("PatientBirthDate"))],
        ["Sex", slide.text("PatientSex")],
      ],
    ],
    [
      "Slide",
      [
        ["Container", slide.containerIdentifier || "Not known"],
        ["Barcode", slide.barcode === slide.containerIdentifier ? "" : slide.barcode],
        ["Accession", slide.accessionNumber || "Not known"],
        ["Study", slide.text("StudyDescription")],
        ["Study date", dicomDate(slide.text("StudyDate"))],
        ["Series", slide.text("SeriesDescription")],
        ["Specimen", slide.specimens.join("; ")],
      ],
    ],
    [
      "Scanner",
      [
        ["Maker", slide.text("Manufacturer")],
        ["Model", slide.text("ManufacturerModelName")],
        ["Serial no.", slide.text("DeviceSerialNumber")],
        ["Software", slide.text("SoftwareVersions")],
        ["Scanned", dicomDateTime(slide.text("AcquisitionDateTime"))],
      ],
    ],
  ];
  if (pyramid) {
    const spacing = pyramid.base.spacingMm;
    const micrometres = (/** @type {number} */ mm) => Number((mm * 1000).toPrecision(4));
    const native = pyramid.nativeMagnification;
    groups.push([
      "Image",
      [
        ["Size", `${grouped(pyramid.columns)} × ${grouped(pyramid.rows)} px`],
        ["Levels", String(pyramid.levels.length)],
        ["Spacing", spacing === null ? "Not known" : spacingText(micrometres(spacing[1]), micrometres(spacing[0]))],
        ["Objective", pyramid.objectivePower ? magnification(pyramid.objectivePower) : ""],
        ["Full view", native === null ? "" : `${magnification(native)} at full resolution`],
        ["Compression", slide.compression],
        ["Optical path", [...pyramid.base.opticalPaths.values()].join(", ").replace(/^Path \S+$/, "")],
      ],
    ]);
  }
  const made = groups.flatMap(([title, rows]) => {
    const known = rows.filter(([, value]) => value);
    if (!known.length) return [];
    return [
      element("h3", {}, title),
      element("dl", {}, ...known.flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)])),
    ];
  });
  $("#details").replaceChildren(...made);
}

/** @param {number} across µm @param {number} down µm */
function spacingText(across, down) {
  return across === down ? `${across} µm/px` : `${across} × ${down} µm/px`;
}

/**
 * The study's slides; nothing is shown when there is only this one.
 * @param {string} study @param {string} series UIDs
 * @param {(found: boolean) => void} onFound
 */
export async function showTray(study, series, onFound) {
  const host = $("#tray-list");
  try {
    // the identifier of the glass is known at the level of instances only
    const fields = "includefield=ContainerIdentifier&includefield=SeriesDescription";
    /** @type {Dataset[] | null} */
    const found = await getJson(`dicom-web/studies/${study}/instances?Modality=SM&${fields}`, {
      what: "the slides of this study",
      accept: "application/dicom+json",
    });
    /** @type {Map<string, Dataset>} one instance of each series */
    const bySeries = new Map();
    for (const instance of found ?? []) {
      const uid = text(instance, "0020000E");
      if (uid && !bySeries.has(uid)) bySeries.set(uid, instance);
    }
    const others = [...bySeries.values()];
    host.replaceChildren(...others.map((item, index) => trayItem(study, item, index, series)));
    onFound(others.length > 1);
  } catch (error) {
    host.replaceChildren(
      element("li", { class: "sub", role: "alert" }, error instanceof Error ? error.message : String(error)),
    );
    onFound(true);
  }
}

/** @param {string} study @param {Dataset} item @param {number} index @param {string} current */
function trayItem(study, item, index, current) {
  const uid = text(item, "0020000E");
  const name = text(item, "00400512") || text(item, "0008103E") || `Slide ${index + 1}`;
  const detail = text(item, "00400512") ? text(item, "0008103E") : "";
  const image = /** @type {HTMLImageElement} */ (element("img", { alt: "", loading: "lazy" }));
  image.addEventListener("error", () => image.remove());
  image.src = address(`dicom-web/studies/${study}/series/${uid}/thumbnail`).href;
  const here = uid === current;
  return element(
    "li",
    {},
    element(
      "a",
      {
        href: `?${new URLSearchParams({ study, series: uid })}`,
        "aria-current": here ? "page" : null,
        "aria-label": here ? `${name}, shown` : `Open ${name}`,
      },
      element("div", { class: "shot" }, icon("slide"), image),
      name,
      detail ? element("div", { class: "sub" }, detail) : null,
    ),
  );
}

/** @param {string} study @param {string} series @param {Slide} slide @returns {{label: Picture, overview: Picture}} */
export function showPictures(study, series, slide) {
  const path = (/** @type {Dataset | null} */ dataset) =>
    dataset ? `dicom-web/studies/${study}/series/${series}/instances/${sopInstanceUid(dataset)}` : "";
  const label = new Picture($("#label-picture"), {
    what: "the label",
    path: path(slide.label),
    absent: "The scan has no label picture.",
  });
  const overview = new Picture($("#overview-picture"), {
    what: "the overview",
    path: path(slide.overview),
    absent: "The scan has no overview picture.",
  });
  $("#label-rotate").hidden = !slide.label;
  return { label, overview };
}
