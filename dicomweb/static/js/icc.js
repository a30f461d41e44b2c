// SPDX-License-Identifier: Apache-2.0
// @ts-check
/**
 * Colour management by the browser: a tile's JPEG gets the slide's ICC profile as APP2
 * segments (ICC.1:2022 B.4) and the browser's own decoder does the rest.
 */

const IDENTIFIER = new TextEncoder().encode("ICC_PROFILE\0");
const MAX_CHUNK = 0xffff - 2 - IDENTIFIER.length - 2; // segment length counts itself
const SIGNATURE_AT = 36; // "acsp" in every profile (ICC.1:2022 7.2)

/**
 * @param {ArrayBuffer} bytes a profile, possibly padded
 * @returns {Uint8Array<ArrayBuffer>} the profile without padding
 * @throws {Error} when it is none
 */
export function checkedProfile(bytes) {
  const view = new DataView(bytes);
  const size = bytes.byteLength >= 128 ? view.getUint32(0) : 0;
  if (size < 128 || size > bytes.byteLength || view.getUint32(SIGNATURE_AT) !== 0x61637370) {
    throw new Error("the stored ICC profile is damaged");
  }
  return new Uint8Array(bytes, 0, size);
}

/**
 * @param {Uint8Array} profile
 * @returns {Uint8Array<ArrayBuffer>} the APP2 segments that carry it
 */
export function app2Segments(profile) {
  const count = Math.ceil(profile.length / MAX_CHUNK);
  if (count > 255) throw new Error("the stored ICC profile is too large for JPEG");
  const result = new Uint8Array(profile.length + count * (4 + IDENTIFIER.length + 2));
  let at = 0;
  for (let chunk = 0; chunk < count; chunk += 1) {
    const data = profile.subarray(chunk * MAX_CHUNK, (chunk + 1) * MAX_CHUNK);
    const length = 2 + IDENTIFIER.length + 2 + data.length;
    result.set([0xff, 0xe2, length >> 8, length & 0xff], at);
    result.set(IDENTIFIER, at + 4);
    result.set([chunk + 1, count], at + 4 + IDENTIFIER.length);
    result.set(data, at + 4 + IDENTIFIER.length + 2);
    at += 2 + length;
  }
  return result;
}

/**
 * @param {Uint8Array<ArrayBuffer>} jpeg
 * @param {Uint8Array<ArrayBuffer>} segments from {@link app2Segments}
 * @returns {BlobPart[]} the JPEG with the segments behind SOI and APP0; as it was if it
 *   is no JPEG or has a profile of its own
 */
export function splice(jpeg, segments) {
  if (jpeg[0] !== 0xff || jpeg[1] !== 0xd8) return [jpeg];
  let at = 2;
  let place = 2;
  while (at + 4 <= jpeg.length && jpeg[at] === 0xff) {
    const marker = jpeg[at + 1];
    if (marker === 0xff) {
      at += 1; // fill byte
      continue;
    }
    if (marker === 0xda || marker === 0xd9) break;
    const next = at + 2 + ((jpeg[at + 2] << 8) | jpeg[at + 3]);
    if (marker === 0xe0 && at === place) place = next;
    if (marker === 0xe2 && IDENTIFIER.every((byte, index) => jpeg[at + 4 + index] === byte)) return [jpeg];
    at = next;
  }
  return [jpeg.subarray(0, place), segments, jpeg.subarray(place)];
}
