// SPDX-License-Identifier: Apache-2.0
// @ts-check
/**
 * Reading DICOM JSON (PS3.18 Annex F): every accessor takes a data set and a tag as
 * eight upper-case hexadecimal digits, and gives a plain value or a default.
 */

/** @typedef {{vr?: string, Value?: any[], BulkDataURI?: string, InlineBinary?: string}} Attribute */
/** @typedef {Record<string, Attribute>} Dataset */

/**
 * @param {Dataset | undefined} dataset
 * @param {string} tag
 * @returns {any[]} all values, empty when absent
 */
export function values(dataset, tag) {
  return dataset?.[tag]?.Value ?? [];
}

/**
 * @param {Dataset | undefined} dataset
 * @param {string} tag
 * @returns {string} the first value as text, "" when absent
 */
export function text(dataset, tag) {
  const value = values(dataset, tag)[0];
  if (value === undefined || value === null) return "";
  if (typeof value === "object") return personName(value);
  return String(value).trim();
}

/**
 * @param {Dataset | undefined} dataset
 * @param {string} tag
 * @returns {number | null} the first value as a number, null when absent or not a number
 */
export function number(dataset, tag) {
  const value = values(dataset, tag)[0];
  if (value === undefined || value === null || value === "") return null;
  const result = Number(value);
  return Number.isFinite(result) ? result : null;
}

/**
 * @param {Dataset | undefined} dataset
 * @param {string} tag
 * @returns {number[]} all values that are numbers
 */
export function numbers(dataset, tag) {
  return values(dataset, tag).map(Number).filter(Number.isFinite);
}

/**
 * @param {Dataset | undefined} dataset
 * @param {string} tag
 * @returns {Dataset[]} the items of a sequence
 */
export function items(dataset, tag) {
  return values(dataset, tag).filter((item) => item !== null && typeof item === "object");
}

/**
 * The name as people write it: "Family, Given Middle". Takes a PN component group or
 * the string form with carets; the alphabetic group first, then the ideographic one.
 * @param {any} value
 * @returns {string}
 */
export function personName(value) {
  if (value === null || value === undefined) return "";
  const group =
    typeof value === "object" ? (value.Alphabetic ?? value.Ideographic ?? value.Phonetic ?? "") : String(value);
  const [family = "", given = "", middle = "", prefix = "", suffix = ""] = group
    .split("=")[0]
    .split("^")
    .map((/** @type {string} */ part) => part.trim());
  const rest = [prefix, given, middle].filter(Boolean).join(" ");
  return [family, rest, suffix].filter(Boolean).join(", ");
}
