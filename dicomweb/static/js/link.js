// SPDX-License-Identifier: Apache-2.0
// @ts-check
/**
 * A place on a slide in the address: `#x=…&y=…&z=…&r=…`.
 *
 * x, y: the centre, columns and rows of the finest level, from 0 at its upper left corner.
 * z: screen pixels per pixel of the finest level (1: full resolution, 0.25: a quarter).
 * r: clockwise rotation in degrees. p, o, f: pyramid, optical path, focal plane from 0, if not the first.
 */

/** @typedef {{x: number, y: number, z: number, r: number, p: number, o: string, f: number}} Place */

/** @param {string} hash @returns {Place | null} null when the address names no place */
export function parsePlace(hash) {
  const query = new URLSearchParams(hash.replace(/^#/, ""));
  const number = (/** @type {string} */ name) => {
    const value = query.get(name);
    return value === null || value.trim() === "" ? NaN : Number(value);
  };
  const [x, y, z] = [number("x"), number("y"), number("z")];
  if (![x, y, z].every(Number.isFinite) || z <= 0) return null;
  const r = number("r");
  const whole = (/** @type {number} */ value) => (Number.isInteger(value) && value > 0 ? value : 0);
  return {
    x,
    y,
    z,
    r: Number.isFinite(r) ? ((r % 360) + 360) % 360 : 0,
    p: whole(number("p")),
    o: query.get("o") ?? "",
    f: whole(number("f")),
  };
}

/** @param {Place} place @returns {string} with the leading # */
export function formatPlace({ x, y, z, r, p, o, f }) {
  const parts = [`x=${Math.round(x)}`, `y=${Math.round(y)}`, `z=${Number(z.toPrecision(4))}`, `r=${Math.round(r * 10) / 10}`];
  if (p) parts.push(`p=${p}`);
  if (o) parts.push(`o=${encodeURIComponent(o)}`);
  if (f) parts.push(`f=${f}`);
  return `#${parts.join("&")}`;
}
