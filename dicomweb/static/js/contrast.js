// SPDX-License-Identifier: Apache-2.0
// @ts-check
/**
 * One window for each channel of an image with more than 8 bits. Fluorescence uses little
 * of its range, so values are stretched; by one window for all tiles, since tiles that are
 * stretched each by itself do not match their neighbours.
 */

/** @typedef {import("./slide.js").Pyramid} Pyramid */
/** @typedef {import("./slide.js").FrameAddress} FrameAddress */

const MOST_FRAMES = 4; // of a plane of the coarsest level, which is one tile where we made it
const SHARE_CUT = 0.001; // of the pixels, at each end: dust and dead pixels must not set the contrast

/**
 * The frames of the coarsest level to look at: few, spread over the image, all of one path,
 * of the lowest, the middle and the highest focal plane.
 * @param {Pyramid} pyramid @param {string} opticalPath identifier
 * @returns {FrameAddress[]}
 */
export function sampledFrames(pyramid, opticalPath) {
  const level = /** @type {import("./slide.js").Level} */ (pyramid.levels.at(-1));
  const highest = level.focalPlanes - 1;
  const places = level.tilesAcross * level.tilesDown;
  const step = Math.max(1, Math.floor(places / 256)); // a foreign pyramid may end early
  return [...new Set([0, Math.floor(highest / 2), highest])].flatMap((plane) => {
    /** @type {FrameAddress[]} */
    const found = [];
    for (let at = 0; at < places; at += step) {
      const frame = level.frameAt(at % level.tilesAcross, Math.floor(at / level.tilesAcross), opticalPath, plane);
      if (frame) found.push(frame);
    }
    const wanted = Math.min(MOST_FRAMES, found.length);
    return Array.from({ length: wanted }, (_, n) => found[Math.floor(((n + 0.5) * found.length) / wanted)]);
  });
}

/**
 * @param {ArrayBuffer} bytes stored values, little endian
 * @param {number} bitsAllocated 16 or 32
 * @param {boolean} signed
 */
export function storedValues(bytes, bitsAllocated, signed) {
  if (bitsAllocated === 32) return signed ? new Int32Array(bytes) : new Uint32Array(bytes);
  return signed ? new Int16Array(bytes) : new Uint16Array(bytes);
}

/**
 * @param {ArrayLike<number>[]} samples stored values of some frames
 * @returns {string | null} centre, width and function as PS3.18 8.3.5.1.4 has them; null without values
 */
export function windowOver(samples) {
  const total = samples.reduce((sum, values) => sum + values.length, 0);
  const all = new Float64Array(total);
  let filled = 0;
  for (const values of samples) {
    all.set(values, filled);
    filled += values.length;
  }
  if (!total) return null;
  all.sort();
  const cut = Math.floor(total * SHARE_CUT);
  const [least, greatest] = [all[cut], all[total - 1 - cut]];
  const width = Math.max(1, greatest - least);
  return `${least + width / 2},${width},linear-exact`;
}
