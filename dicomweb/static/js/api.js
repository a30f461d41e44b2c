// SPDX-License-Identifier: Apache-2.0
// @ts-check
/**
 * Requests to the server this page came from. Every address is relative to the folder
 * above `static/`, so the whole works below a path prefix of a proxy too.
 */

export const ROOT = new URL("../../", import.meta.url);

/** A request that did not give what was asked; `message` is fit to be shown. */
export class RequestFailed extends Error {
  /**
   * @param {string} what what was asked for, "the work list"
   * @param {number} status HTTP status, 0 when no answer came
   * @param {string} detail the server's own words, may be ""
   */
  constructor(what, status, detail) {
    super(explain(what, status, detail));
    this.name = "RequestFailed";
    this.what = what;
    this.status = status;
    this.detail = detail;
  }
}

/** @param {string} what @param {number} status @param {string} detail */
function explain(what, status, detail) {
  const subject = what.charAt(0).toUpperCase() + what.slice(1);
  if (status === 0) return `${subject} could not be loaded: the server does not answer.`;
  const reasons = /** @type {Record<number, string>} */ ({
    401: "sign-in is required",
    403: "you are not allowed to see it",
    404: "it is not in this archive",
    406: "the server cannot give it in a form this page can show",
    410: "it was removed from the archive",
    413: "it is too large",
    503: "the server is busy",
  });
  const reason = detail || reasons[status] || "";
  return `${subject} could not be loaded (HTTP ${status}${reason ? `: ${reason}` : ""}).`;
}

/**
 * @param {string | URL} path relative to the root, or absolute
 * @returns {URL}
 */
export function address(path) {
  return path instanceof URL ? path : new URL(path.replace(/^\/+/, ""), ROOT);
}

/**
 * @param {string | URL} path
 * @param {{what: string, accept?: string, signal?: AbortSignal, cache?: RequestCache}} options
 * @returns {Promise<Response>} an answer with a success status
 * @throws {RequestFailed} otherwise; an AbortError passes through
 */
export async function request(path, { what, accept = "*/*", signal, cache }) {
  let response;
  try {
    response = await fetch(address(path), { headers: { Accept: accept }, signal, cache, credentials: "same-origin" });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new RequestFailed(what, 0, "");
  }
  if (!response.ok) throw new RequestFailed(what, response.status, await detailOf(response));
  return response;
}

/**
 * @template T
 * @param {string | URL} path
 * @param {{what: string, accept?: string, signal?: AbortSignal}} options
 * @returns {Promise<T>} the parsed body; an empty answer (204) gives null
 */
export async function getJson(path, options) {
  const response = await request(path, { accept: "application/json", ...options });
  if (response.status === 204) return /** @type {T} */ (/** @type {unknown} */ (null));
  try {
    return await response.json();
  } catch (error) {
    if (options.signal?.aborted) throw error;
    throw new RequestFailed(options.what, response.status, "the answer is not valid JSON");
  }
}

/** @param {Response} response @returns {Promise<string>} the server's own reason, one short line */
async function detailOf(response) {
  const type = response.headers.get("Content-Type") ?? "";
  try {
    if (type.includes("json")) {
      const body = await response.json();
      const said = body?.detail ?? body?.message ?? body?.error ?? body?.title;
      return typeof said === "string" ? oneLine(said) : oneLine(said?.message ?? "");
    }
    if (type.startsWith("text/plain")) return oneLine(await response.text());
  } catch {
    // the body adds to the status; without it the status has to do
  }
  return "";
}

/** @param {string} value */
function oneLine(value) {
  const line = String(value).replace(/\s+/g, " ").trim().replace(/\.$/, "");
  return line.length > 200 ? `${line.slice(0, 199)}…` : line;
}

/** @param {unknown} error @returns {boolean} whether we ended the request ourselves */
export function isAbort(error) {
  return error instanceof DOMException && error.name === "AbortError";
}
