// SPDX-License-Identifier: Apache-2.0
// @ts-check
/** Beside the list: running and failed jobs, what was refused and why, where to put files. */

import { getJson } from "./api.js";
import { $, element, icon } from "./dom.js";
import { bytes, localTime } from "./format.js";
import { Poller } from "./poll.js";

/**
 * @typedef {object} Job
 * @property {number} id
 * @property {string} kind
 * @property {string} name
 * @property {string} state waiting, running, done or failed
 * @property {number} progress 0 to 1
 * @property {string} message
 * @property {string} created
 * @property {string} updated
 */
/** @typedef {{id: number, name: string, reason: string, source: string, size_bytes: number, created: string}} Quarantined */

const DONE_SHOWN_MS = 60000;
const ORDER = { running: 0, waiting: 1, failed: 2, done: 3 };
const STATES = /** @type {Record<string, string>} */ ({ waiting: "Waiting", running: "Running", done: "Done", failed: "Failed" });
const KINDS = /** @type {Record<string, string>} */ ({
  ingest: "Importing",
  ingest_slide: "Importing",
  convert: "Converting",
  thumbnail: "Making the preview",
  barcode: "Reading the barcode",
  derivatives: "Making previews",
});

/** @param {(iso: string, now?: number) => string} ago */
export function startActivity(ago) {
  new Poller(2000, {
    poll: async (signal) => {
      const [jobs, quarantine] = await Promise.all([
        getJson("api/jobs", { what: "the running jobs", signal }),
        getJson("api/quarantine", { what: "the quarantine", signal }),
      ]);
      const { quarantined } = /** @type {{quarantined: Quarantined[]}} */ (quarantine);
      showJobs(/** @type {{jobs: Job[]}} */ (jobs).jobs, quarantined, ago);
      showQuarantine(quarantined, ago);
    },
    onFailure: (error) => {
      $("#jobs").hidden = true;
      $("#jobs-count").hidden = true;
      $("#jobs-quiet").hidden = false;
      $("#jobs-quiet").textContent = error instanceof Error ? error.message : String(error);
    },
  }).start();

  new Poller(60000, {
    poll: async (signal) => {
      /** @type {{version: string, watch_folders: string[], auth_mode: string}} */
      const system = await getJson("api/system", { what: "the system's state", signal });
      $("#version").textContent = system.version ? `Version ${system.version}` : "";
      showFolders(system.watch_folders ?? []);
    },
  }).start();
}

/** @type {Map<HTMLElement, string>} what each list shows, so that nothing is drawn anew without a change */
const drawn = new Map();

/** @param {HTMLElement} list @param {unknown} data @param {() => HTMLElement[]} make */
function redraw(list, data, make) {
  const state = JSON.stringify(data);
  if (drawn.get(list) === state) return;
  drawn.set(list, state);
  list.replaceChildren(...make());
}

/**
 * Running and waiting jobs, failures, and for a minute the files just taken in. Jobs without
 * a name are our own housekeeping, and a refused file is told of once, under the quarantine.
 * @param {Job[]} jobs @param {Quarantined[]} quarantined @param {(iso: string, now?: number) => string} ago
 */
function showJobs(jobs, quarantined, ago) {
  const now = Date.now();
  const refused = new Set(quarantined.map((entry) => `${entry.name}\n${entry.reason}`));
  const wanted = jobs
    .filter((job) => {
      if (job.state === "done") return job.name && now - new Date(job.updated).getTime() < DONE_SHOWN_MS;
      return job.state !== "failed" || !refused.has(`${job.name}\n${job.message}`);
    })
    .sort((a, b) => rank(a) - rank(b) || b.id - a.id)
    .slice(0, 60);
  const active = wanted.filter((job) => job.state === "running" || job.state === "waiting").length;
  $("#jobs").hidden = wanted.length === 0;
  $("#jobs-quiet").hidden = wanted.length !== 0;
  $("#jobs-quiet").textContent = "Nothing is running.";
  $("#jobs-count").hidden = active === 0;
  $("#jobs-count").textContent = String(active);
  redraw($("#jobs"), wanted, () => wanted.map((job) => jobItem(job, ago)));
}

/** @param {Job} job */
function rank(job) {
  return /** @type {Record<string, number>} */ (ORDER)[job.state] ?? 4;
}

/** @param {Job} job @param {(iso: string, now?: number) => string} ago */
function jobItem(job, ago) {
  const kind = KINDS[job.kind] ?? sentence(job.kind);
  const percent = Math.round((job.progress ?? 0) * 100);
  const state = job.state === "running" && percent > 0 ? `${percent}%` : (STATES[job.state] ?? job.state);
  const item = element(
    "li",
    { class: job.state },
    element(
      "div",
      { class: "job-name" },
      element("span", { title: job.name || kind }, job.name || kind),
      element("span", { class: "state", title: localTime(job.updated) }, state),
    ),
  );
  if (job.state === "running") {
    const bar = element("progress", { max: 1, "aria-label": `${kind} ${job.name}` });
    if (job.progress > 0) bar.setAttribute("value", String(job.progress));
    item.append(bar);
  }
  const note = [job.name ? kind : "", job.message, job.state === "failed" ? ago(job.updated) : ""];
  const text = note.filter(Boolean).join(" · ");
  if (text) item.append(element("div", { class: "job-note" }, text));
  return item;
}

/** @param {Quarantined[]} quarantined @param {(iso: string, now?: number) => string} ago */
function showQuarantine(quarantined, ago) {
  $("#quarantine-card").hidden = quarantined.length === 0;
  $("#quarantine-count").textContent = String(quarantined.length);
  redraw($("#quarantine"), quarantined, () =>
    quarantined.slice(0, 60).map((entry) =>
      element(
        "li",
        { class: "failed" },
        element(
          "div",
          { class: "job-name" },
          element("span", { title: entry.name }, entry.name || "Unnamed file"),
          element("time", { datetime: entry.created, title: localTime(entry.created) }, ago(entry.created)),
        ),
        element("div", { class: "job-note" }, entry.reason),
        element("div", { class: "job-note" }, [entry.source, bytes(entry.size_bytes)].filter(Boolean).join(" · ")),
      ),
    ),
  );
}

/** @param {string[]} folders */
function showFolders(folders) {
  $("#drop").hidden = folders.length === 0;
  redraw($("#paths"), folders, () => folders.map(path));
  redraw($("#empty-path"), folders, () => folders.slice(0, 1).map(path));
}

/** @param {string} folder @returns {HTMLElement} the folder with a button that copies it */
function path(folder) {
  const button = element("button", { type: "button", "aria-label": `Copy ${folder}`, title: "Copy" }, icon("copy"));
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(folder);
      button.replaceChildren(icon("check"));
    } catch {
      const range = document.createRange();
      range.selectNodeContents(/** @type {Node} */ (button.previousElementSibling));
      getSelection()?.removeAllRanges();
      getSelection()?.addRange(range); // no clipboard (plain HTTP): selected, ready for Ctrl+C
      return;
    }
    setTimeout(() => button.replaceChildren(icon("copy")), 1500);
  });
  return element("div", { class: "path" }, element("code", {}, folder), button);
}

/** @param {string} kind */
function sentence(kind) {
  const words = kind.replaceAll("_", " ").replaceAll("-", " ");
  return words.charAt(0).toUpperCase() + words.slice(1);
}
