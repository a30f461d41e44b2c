// SPDX-License-Identifier: Apache-2.0
// @ts-check
/** Getting frames of one series as bitmaps, colour managed, with retries and abort. */

import { RequestFailed, request } from "./api.js";
import { sampledFrames, storedValues, windowOver } from "./contrast.js";
import { app2Segments, checkedProfile, splice } from "./icc.js";
import { JPEG_BASELINE, iccProfile } from "./slide.js";

/** @typedef {import("./slide.js").FrameAddress} FrameAddress */
/** @typedef {import("./slide.js").LevelInstance} LevelInstance */
/** @typedef {import("./slide.js").Pyramid} Pyramid */

const STORED_JPEG = `image/jpeg; transfer-syntax=${JPEG_BASELINE}`;
const STORED_VALUES = "application/octet-stream; transfer-syntax=1.2.840.10008.1.2.1";
const PATIENCE_MS = 30000; // a server that says nothing must not hold the tile queue for ever
const RETRY_MS = [400, 1200]; // waits after "busy" and lost connections, then the tile counts as failed

/** @type {Promise<null>} */
const NO_WINDOW = Promise.resolve(null);

export class FrameSource {
  /** @param {string} study @param {string} series UIDs */
  constructor(study, series) {
    this.base = `dicom-web/studies/${study}/series/${series}`;
    this.colourManaged = true;
    /** @type {Map<string, Promise<Uint8Array<ArrayBuffer> | null>>} APP2 segments by instance-independent profile place */
    this.profiles = new Map();
    /** @type {Map<LevelInstance, Promise<void>>} the first request of an instance whose delivery is not known */
    this.probes = new Map();
    /** @type {Map<string, Promise<string | null>>} windows by pyramid and optical path */
    this.windows = new Map();
    /** @type {(error: unknown) => void} told once when the profile cannot be had */
    this.onProfileFailure = () => {};
  }

  /**
   * @param {FrameAddress} frame
   * @param {string} opticalPath identifier
   * @param {AbortSignal} signal
   * @param {Pyramid} pyramid of the frame
   * @returns {Promise<ImageBitmap>} as large as the stored frame, padding included
   */
  async bitmap(frame, opticalPath, signal, pyramid) {
    const [bytes, segments] = await Promise.all([
      this.bytes(frame, opticalPath, signal, pyramid),
      this.colourManaged ? this.profile(frame.instance, opticalPath) : null,
    ]);
    const blob = new Blob(segments ? splice(bytes, segments) : [bytes], { type: "image/jpeg" });
    try {
      return await createImageBitmap(blob, { colorSpaceConversion: this.colourManaged ? "default" : "none" });
    } catch {
      throw new RequestFailed(`tile ${frame.frameNumber}`, 200, "the picture cannot be decoded");
    }
  }

  /**
   * @param {FrameAddress} frame @param {string} opticalPath identifier
   * @param {AbortSignal} signal @param {Pyramid} pyramid
   * @returns {Promise<Uint8Array<ArrayBuffer>>}
   */
  async bytes(frame, opticalPath, signal, pyramid) {
    const part = frame.instance;
    if (part.delivery === "unknown") {
      let probe = this.probes.get(part);
      if (!probe) {
        probe = this.probe(frame);
        this.probes.set(part, probe);
      }
      await unlessAborted(probe, signal);
    }
    const path = `${this.base}/instances/${frame.sopInstanceUid}/frames/${frame.frameNumber}`;
    const what = `tile ${frame.frameNumber}`;
    if (part.delivery === "jpeg") {
      try {
        return await this.fetchBytes(path, STORED_JPEG, what, signal);
      } catch (error) {
        if (!(error instanceof RequestFailed && error.status === 406)) throw error;
        part.delivery = "rendered"; // stored otherwise than the header said: the server decodes
      }
    }
    const shown = await unlessAborted(this.window(pyramid, opticalPath, part), signal);
    const rendered = `${path}/rendered${shown ? `?window=${encodeURIComponent(shown)}` : ""}`;
    return this.fetchBytes(rendered, "image/jpeg", what, signal);
  }

  /**
   * The window for all tiles of one path of a pyramid; found once, from its coarsest level.
   * @param {Pyramid} pyramid @param {string} opticalPath identifier @param {LevelInstance} part
   * @returns {Promise<string | null>} null where none is needed, or the values cannot be had
   */
  window(pyramid, opticalPath, part) {
    if (part.bitsAllocated <= 8 || part.samples > 1) return NO_WINDOW;
    const key = `${pyramid.uid}/${opticalPath}`;
    let found = this.windows.get(key);
    if (!found) {
      found = this.findWindow(pyramid, opticalPath).catch(() => {
        this.windows.delete(key); // the server stretches this tile by itself; the next one asks again
        return null;
      });
      this.windows.set(key, found);
    }
    return found;
  }

  /** @param {Pyramid} pyramid @param {string} opticalPath */
  async findWindow(pyramid, opticalPath) {
    const { signal } = new AbortController(); // other tiles wait for the same answer
    const samples = sampledFrames(pyramid, opticalPath).map(async ({ sopInstanceUid, frameNumber, instance }) => {
      const path = `${this.base}/instances/${sopInstanceUid}/frames/${frameNumber}`;
      const bytes = await this.fetchBytes(path, STORED_VALUES, `tile ${frameNumber}`, signal);
      return storedValues(bytes.buffer, instance.bitsAllocated, instance.signed);
    });
    return windowOver(await Promise.all(samples));
  }

  /**
   * Ask once whether the stored frames are JPEG that the browser decodes itself.
   * Without the caller's signal: others wait for the same answer.
   * @param {FrameAddress} frame
   */
  async probe(frame) {
    const part = frame.instance;
    const path = `${this.base}/instances/${frame.sopInstanceUid}/frames/${frame.frameNumber}`;
    try {
      await this.fetchBytes(path, STORED_JPEG, `tile ${frame.frameNumber}`, new AbortController().signal);
      part.delivery = "jpeg";
    } catch (error) {
      if (error instanceof RequestFailed && error.status === 406) {
        part.delivery = "rendered";
        return;
      }
      this.probes.delete(part); // no answer about the form: this tile fails, the next one asks again
      throw error;
    }
  }

  /**
   * @param {string} path @param {string} accept @param {string} what @param {AbortSignal} signal
   * @returns {Promise<Uint8Array<ArrayBuffer>>}
   */
  async fetchBytes(path, accept, what, signal) {
    for (let attempt = 0; ; attempt += 1) {
      try {
        return await this.fetchOnce(path, accept, what, signal);
      } catch (error) {
        const again = error instanceof RequestFailed && [0, 429, 502, 503, 504].includes(error.status);
        if (!again || attempt >= RETRY_MS.length || signal.aborted) throw error;
      }
      await new Promise((resolve) => setTimeout(resolve, RETRY_MS[attempt]));
      signal.throwIfAborted();
    }
  }

  /** @param {string} path @param {string} accept @param {string} what @param {AbortSignal} signal */
  async fetchOnce(path, accept, what, signal) {
    const patience = AbortSignal.timeout(PATIENCE_MS);
    try {
      const response = await request(path, { what, accept, signal: AbortSignal.any([signal, patience]) });
      return new Uint8Array(await response.arrayBuffer());
    } catch (error) {
      if (patience.aborted && !signal.aborted) throw new RequestFailed(what, 0, "");
      if (!signal.aborted && !(error instanceof RequestFailed)) throw new RequestFailed(what, 0, ""); // cut off
      throw error;
    }
  }

  /**
   * The profile as APP2 segments, asked once for a slide: levels of one scan share it.
   * @param {LevelInstance} part
   * @param {string} opticalPath
   * @returns {Promise<Uint8Array<ArrayBuffer> | null>} null when there is none or it cannot be had
   */
  profile(part, opticalPath) {
    const known = this.profiles.get(opticalPath);
    if (known) return known;
    const found = this.fetchProfile(part, opticalPath).catch((error) => {
      this.onProfileFailure(error);
      return null;
    });
    this.profiles.set(opticalPath, found);
    return found;
  }

  /** @param {LevelInstance} part @param {string} opticalPath */
  async fetchProfile(part, opticalPath) {
    const place = iccProfile(part, opticalPath);
    if (!place) return null;
    if ("inline" in place) {
      const raw = Uint8Array.from(atob(place.inline), (character) => character.charCodeAt(0));
      return app2Segments(checkedProfile(raw.buffer));
    }
    // The part of the address below the service: the page's own server answers, whatever
    // host name the stored address was made with (and the CSP allows no other).
    const tail = /\/studies\/.*$/.exec(place.uri)?.[0];
    const path = tail
      ? `dicom-web${tail}`
      : `${this.base}/instances/${part.sopInstanceUid}/bulkdata/00480105/${place.item}/00282000`;
    const response = await request(path, { what: "the colour profile", accept: "application/octet-stream" });
    return app2Segments(checkedProfile(await response.arrayBuffer()));
  }

  /** Forget the profiles, so that the next tile asks anew. */
  forgetProfiles() {
    this.profiles.clear();
  }
}

/**
 * @template T
 * @param {Promise<T>} promise that others wait for too
 * @param {AbortSignal} signal of this caller alone
 * @returns {Promise<T>}
 */
function unlessAborted(promise, signal) {
  return new Promise((resolve, reject) => {
    if (signal.aborted) reject(signal.reason);
    signal.addEventListener("abort", () => reject(signal.reason), { once: true });
    promise.then(resolve, reject);
  });
}
