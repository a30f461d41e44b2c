// SPDX-License-Identifier: Apache-2.0
// @ts-check
/** One line of the work list. */

import { address } from "./api.js";
import { element, icon } from "./dom.js";
import { ago, bytes, dicomDate, formatName, grouped, localTime, stated } from "./format.js";
import { personName } from "./dicomjson.js";

/**
 * @typedef {object} SlideSummary
 * @property {string} study_instance_uid
 * @property {string} series_instance_uid
 * @property {string} container_identifier
 * @property {string} file_name
 * @property {string} patient_name
 * @property {string} patient_id
 * @property {string} accession_number
 * @property {string} study_date
 * @property {string} modality
 * @property {string} series_description
 * @property {string} manufacturer
 * @property {string} format
 * @property {number} number_of_instances
 * @property {number} size_bytes
 * @property {number} total_pixel_matrix_rows
 * @property {number} total_pixel_matrix_columns
 * @property {string} stored
 * @property {boolean} unmatched
 * @property {string} thumbnail
 */

/** Waits before a missing thumbnail is asked for again: it is made by a job after the slide is stored. */
const THUMBNAIL_RETRY_MS = [1500, 2500, 4000, 6000, 10000, 15000, 30000];

export class SlideRow {
  /** @param {SlideSummary} slide @param {boolean} fresh whether it has just arrived */
  constructor(slide, fresh) {
    this.slide = slide;
    this.element = element("tr", fresh ? { class: "fresh" } : {});
    this.link = /** @type {HTMLAnchorElement} */ (element("a", { class: "slide-link" }));
    this.image = /** @type {HTMLImageElement} */ (element("img", { alt: "", loading: "lazy", decoding: "async" }));
    this.thumb = element("div", { class: "thumb" }, icon("slide"), this.image);
    this.stored = element("time", { class: "primary" });
    this.attempt = 0;
    this.image.addEventListener("load", () => this.image.classList.add("shown"));
    this.image.addEventListener("error", () => this.retryThumbnail());
    this.fill();
    this.image.src = this.thumbnailAddress();
  }

  /** @param {SlideSummary} slide */
  update(slide) {
    const same = JSON.stringify(slide) === JSON.stringify(this.slide);
    const moved = slide.thumbnail !== this.slide.thumbnail;
    this.slide = slide;
    if (!same) this.fill();
    if (moved || (!same && !this.image.classList.contains("shown"))) {
      this.attempt = 0;
      this.image.src = this.thumbnailAddress();
    }
  }

  thumbnailAddress() {
    const { thumbnail, study_instance_uid: study, series_instance_uid: series } = this.slide;
    return address(thumbnail || `dicom-web/studies/${study}/series/${series}/thumbnail`).href;
  }

  retryThumbnail() {
    this.image.classList.remove("shown");
    const wait = THUMBNAIL_RETRY_MS[this.attempt];
    this.attempt += 1;
    if (wait === undefined) return;
    setTimeout(() => {
      this.image.src = this.thumbnailAddress();
    }, wait);
  }

  /** @param {number} [now] ms */
  showAge(now) {
    this.stored.textContent = ago(this.slide.stored, now);
  }

  fill() {
    const slide = this.slide;
    const name = slide.container_identifier || "Without identifier";
    const query = new URLSearchParams({ study: slide.study_instance_uid, series: slide.series_instance_uid });
    this.link.href = address(`viewer/?${query}`).href;
    this.link.textContent = name;
    this.link.setAttribute("aria-label", `Open slide ${name}`);
    this.stored.setAttribute("datetime", slide.stored);
    this.stored.setAttribute("title", localTime(slide.stored));
    this.showAge();

    const columns = slide.total_pixel_matrix_columns;
    const size = columns
      ? `${grouped(columns)} × ${grouped(slide.total_pixel_matrix_rows)} px`
      : "Without pixels";
    const amount = `${bytes(slide.size_bytes)} · ${count(slide.number_of_instances, "instance")}`;
    const patient = personName(slide.patient_name);
    const names = element("div", { class: "names" }, this.link);
    if (slide.unmatched) {
      names.append(
        element("span", { class: "badge badge-warn", title: "No order matches this slide yet" }, "Unmatched"),
      );
    }
    const kind = slide.series_description || (slide.modality === "SM" ? "Slide microscopy" : slide.modality);
    const described = slide.file_name ? `${slide.file_name} · ${kind}` : kind;

    this.element.replaceChildren(
      element("td", { class: "preview" }, this.thumb),
      element(
        "td",
        {},
        names,
        element("div", { class: "sub" }, described),
        element("div", { class: "sub narrow-only" }, size),
      ),
      element("td", {}, ...pair(patient, stated(slide.patient_id))),
      element("td", { class: "nowrap" }, ...pair(stated(slide.accession_number), dicomDate(slide.study_date))),
      element("td", { class: "col-scanner" }, ...pair(slide.manufacturer, formatName(slide.format))),
      element("td", { class: "col-image nowrap" }, ...pair(size, amount)),
      element(
        "td",
        { class: "col-stored nowrap" },
        this.stored,
        element("div", { class: "sub" }, localTime(slide.stored).slice(0, 10)),
      ),
    );
  }
}

/** @param {string} first @param {string} second @returns {Node[]} two lines; what is unknown is said, not left blank */
function pair(first, second) {
  return [
    first ? element("div", { class: "primary" }, first) : element("div", { class: "none" }, "Not known"),
    element("div", { class: "sub" }, second || ""),
  ];
}

/** @param {number} number @param {string} word */
function count(number, word) {
  return `${grouped(number)} ${word}${number === 1 ? "" : "s"}`;
}
