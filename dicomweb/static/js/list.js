// SPDX-License-Identifier: Apache-2.0
// @ts-check
/** The work list: slides with search and paging, running jobs, quarantine; refreshes itself. */

import { getJson, isAbort, RequestFailed } from "./api.js";
import { startActivity } from "./activity.js";
import { $, banner, element } from "./dom.js";
import { ago, grouped } from "./format.js";
import { SlideRow } from "./slide-row.js";
import { Poller } from "./poll.js";

/** @typedef {import("./slide-row.js").SlideSummary} SlideSummary */
/** @typedef {{slides: SlideSummary[], next: string | null}} SlidesPage */
/** @typedef {{seq: number, action: string, series_instance_uid?: string}} Change */

const PAGE = 50;
const MAX_REFRESH = 200; // rows asked again when something changed; those below keep their state

const banners = $("#banners");
const rows = $("#rows");
const table = $("#slides");
const search = /** @type {HTMLInputElement} */ ($("#search"));
const foot = $("#foot");
const count = $("#count");

/** @type {Map<string, SlideRow>} by series, in the order shown */
const shown = new Map();
/** @type {string | null} */
let next = null;
let loaded = false;
let term = new URLSearchParams(location.search).get("search") ?? "";
/** @type {AbortController | null} */
let running = null;
let loadingMore = false;

/** @param {string} after @param {number} limit @param {AbortSignal} signal @returns {Promise<SlidesPage>} */
function fetchSlides(after, limit, signal) {
  const query = new URLSearchParams({ limit: String(limit) });
  if (term) query.set("search", term);
  if (after) query.set("after", after);
  return getJson(`api/slides?${query}`, { what: "the work list", signal });
}

/** Show the first page anew. @param {{quiet?: boolean}} [options] quiet: a refresh, new rows are marked */
async function load({ quiet = false } = {}) {
  running?.abort();
  running = new AbortController();
  const { signal } = running;
  if (!quiet) {
    table.setAttribute("aria-busy", "true");
    if (!loaded) {
      $("#empty").hidden = true;
      table.hidden = false;
      showSkeleton();
    }
  }
  try {
    const wanted = quiet ? Math.min(MAX_REFRESH, Math.max(PAGE, shown.size)) : PAGE;
    const page = await fetchSlides("", wanted, signal);
    place(page, quiet);
    banner(banners, "list", null);
  } catch (error) {
    if (isAbort(error) || signal.aborted) return;
    if (!loaded) rows.replaceChildren();
    banner(banners, "list", messageOf(error), { action: "Try again", onAction: () => void load() });
    if (!loaded) {
      count.textContent = "";
      table.hidden = true;
      $("#empty").hidden = false;
      $("#empty-title").textContent = "The list is not available";
      $("#empty-text").textContent = "It is shown as soon as the server can be reached again.";
    }
  } finally {
    if (!signal.aborted) table.setAttribute("aria-busy", "false");
  }
}

/** @param {SlidesPage} page @param {boolean} quiet */
function place(page, quiet) {
  const beyond = quiet && shown.size > page.slides.length && page.next !== null;
  const fresh = new Set(page.slides.map((slide) => slide.series_instance_uid));
  const kept = [...shown.keys()];
  if (!loaded) rows.replaceChildren();
  if (!beyond) {
    for (const key of kept) if (!fresh.has(key)) remove(key);
    next = page.next;
  }
  let before = rows.firstElementChild;
  const order = new Map();
  for (const slide of page.slides) {
    const key = slide.series_instance_uid;
    let row = shown.get(key);
    if (row) row.update(slide);
    else row = new SlideRow(slide, quiet && loaded);
    order.set(key, row);
    if (row.element === before) before = before.nextElementSibling;
    else rows.insertBefore(row.element, before);
  }
  for (const [key, row] of shown) if (!order.has(key)) order.set(key, row);
  shown.clear();
  for (const [key, row] of order) shown.set(key, row);
  loaded = true;
  settle();
}

/** @param {string} key a Series Instance UID */
function remove(key) {
  shown.get(key)?.element.remove();
  shown.delete(key);
}

/** Bring count, empty state and the foot in line with what is shown. */
function settle() {
  const none = shown.size === 0;
  table.hidden = none;
  $("#empty").hidden = !none;
  $("#empty-title").textContent = term ? "No slide matches" : "No slides yet";
  $("#empty-text").textContent = term
    ? `Nothing was found for “${term}”. The search looks at slide identifier, patient and accession number.`
    : "Copy a scanner file into the watched folder, or send DICOM to this archive. Slides appear here by themselves.";
  $("#empty-path").hidden = Boolean(term);
  count.textContent = none ? "" : `${grouped(shown.size)}${next ? "+" : ""} ${term ? "found" : "in the archive"}`;
  foot.replaceChildren();
  if (next) {
    const button = element("button", { type: "button", class: "more" }, "Show more");
    button.addEventListener("click", () => void loadMore());
    foot.append(button);
    watcher.observe(button);
  }
}

async function loadMore() {
  if (!next || loadingMore) return;
  loadingMore = true;
  const asked = term;
  foot.replaceChildren("Loading…");
  try {
    const page = await fetchSlides(next, PAGE, new AbortController().signal);
    if (asked !== term) return;
    for (const slide of page.slides) {
      const known = shown.get(slide.series_instance_uid);
      if (known) {
        known.update(slide);
        continue;
      }
      const row = new SlideRow(slide, false);
      shown.set(slide.series_instance_uid, row);
      rows.append(row.element);
    }
    next = page.next;
    banner(banners, "more", null);
    loadingMore = false;
    settle();
  } catch (error) {
    banner(banners, "more", messageOf(error), { action: "Try again", onAction: () => void loadMore() });
    const button = element("button", { type: "button", class: "more" }, "Show more");
    button.addEventListener("click", () => void loadMore());
    foot.replaceChildren(button);
  } finally {
    loadingMore = false;
  }
}

const watcher = new IntersectionObserver(
  (entries) => {
    if (entries.some((entry) => entry.isIntersecting)) void loadMore();
  },
  { rootMargin: "400px" },
);

function showSkeleton() {
  const line = (/** @type {string} */ size) => {
    const bone = element("span", { class: "bone" });
    bone.style.width = size;
    return bone;
  };
  rows.replaceChildren(
    ...Array.from({ length: 5 }, () =>
      element(
        "tr",
        { class: "skeleton", "aria-hidden": true },
        element("td", { class: "preview" }, element("span", { class: "bone box" })),
        element("td", {}, line("60%")),
        element("td", {}, line("70%")),
        element("td", {}, line("50%")),
        element("td", { class: "col-scanner" }, line("70%")),
        element("td", { class: "col-image" }, line("80%")),
        element("td", { class: "col-stored" }, line("60%")),
      ),
    ),
  );
}

/** @param {unknown} error */
function messageOf(error) {
  return error instanceof Error ? error.message : String(error);
}

// --- search --------------------------------------------------------------------------

/** @type {number | undefined} */
let typing;

function applySearch() {
  const wanted = search.value.trim();
  $("#search-form").classList.toggle("filled", search.value !== "");
  if (wanted === term) return;
  term = wanted;
  const query = new URLSearchParams(location.search);
  if (term) query.set("search", term);
  else query.delete("search");
  history.replaceState(null, "", query.size ? `?${query}` : location.pathname);
  void load();
}

search.value = term;
search.addEventListener("input", () => {
  $("#search-form").classList.toggle("filled", search.value !== "");
  clearTimeout(typing);
  typing = window.setTimeout(applySearch, 220);
});
$("#search-form").classList.toggle("filled", term !== "");
$("#search-form").addEventListener("submit", (event) => {
  event.preventDefault();
  clearTimeout(typing);
  applySearch();
});
$("#clear").addEventListener("click", () => {
  search.value = "";
  applySearch();
  search.focus();
});

// --- keyboard: "/" to search, arrows from slide to slide -----------------------------

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const inSearch = document.activeElement === search;
  if (event.key === "/" && !inSearch) {
    event.preventDefault();
    search.focus();
    search.select();
  } else if (event.key === "Escape" && inSearch) {
    search.value = "";
    applySearch();
    search.blur();
  } else if (event.key === "ArrowDown" || event.key === "ArrowUp") {
    const links = [...shown.values()].map((row) => row.link);
    const at = links.indexOf(/** @type {HTMLAnchorElement} */ (document.activeElement));
    if (at < 0 && !inSearch) return;
    const to = event.key === "ArrowDown" ? at + 1 : at - 1;
    if (to < 0) search.focus();
    else links[Math.min(to, links.length - 1)]?.focus();
    event.preventDefault();
  }
});

// --- staying up to date ----------------------------------------------------------------

/** @typedef {{changes: Change[], last: number}} Feed */

const FEED_PAGE = 1000;
const TIP = "coverslip.changes";
let lastSeq = -1;

/** @param {number} after @param {number} limit @param {AbortSignal} signal @returns {Promise<Feed>} */
function fetchChanges(after, limit, signal) {
  return getJson(`api/changes?after=${after}&limit=${limit}`, { what: "the change feed", signal });
}

/**
 * Somewhere below the end of the feed, near it: the history itself is of no interest here,
 * so it is leapt over instead of read.
 * @param {AbortSignal} signal
 */
async function nearTheEnd(signal) {
  let low = Number(sessionStorage.getItem(TIP) ?? 0) || 0;
  if (low > 0 && (await fetchChanges(low - 1, 1, signal)).changes[0]?.seq !== low) low = 0; // another archive's
  for (let step = 4 * FEED_PAGE; step >= FEED_PAGE; ) {
    const [change] = (await fetchChanges(low + step, 1, signal)).changes;
    if (change) low = change.seq;
    step = change ? step * 4 : step / 4;
  }
  return low;
}

/** Ask the change feed what happened since; anything new refreshes the list. */
async function followChanges(/** @type {AbortSignal} */ signal) {
  const first = lastSeq < 0;
  if (first) lastSeq = await nearTheEnd(signal);
  let touched = false;
  for (;;) {
    const { changes } = await fetchChanges(lastSeq, FEED_PAGE, signal);
    lastSeq = changes.at(-1)?.seq ?? lastSeq;
    touched ||= changes.length > 0;
    if (changes.length < FEED_PAGE) break;
  }
  sessionStorage.setItem(TIP, String(lastSeq));
  if (touched && !first) await load({ quiet: true });
}

const live = $("#live");

/** @param {"live" | "lost"} state @param {unknown} [error] */
function showConnection(state, error) {
  if (live.dataset.state !== state) {
    live.dataset.state = state;
    $("#live-text").textContent = state === "live" ? "Up to date" : "Not connected";
  }
  if (state === "live") {
    banner(banners, "connection", null);
    return;
  }
  const status = error instanceof RequestFailed ? error.status : 0;
  const text =
    status === 0
      ? "The connection to the server is lost. What is shown may be out of date; trying again…"
      : `The list could not be refreshed (HTTP ${status}). What is shown may be out of date; trying again…`;
  banner(banners, "connection", text, { tone: "warning" });
}

new Poller(2000, {
  poll: followChanges,
  onSuccess: () => {
    const wasLost = live.dataset.state === "lost";
    showConnection("live");
    if (wasLost) void load({ quiet: loaded });
  },
  onFailure: (error) => showConnection("lost", error),
}).start();

setInterval(() => {
  const now = Date.now();
  for (const row of shown.values()) row.showAge(now);
}, 30000);

startActivity(ago);
void load();
