// SPDX-License-Identifier: Apache-2.0
// @ts-check
/** Values as people read them. Dates are ISO, so that nobody takes the month for the day. */

const GROUPED = new Intl.NumberFormat("en-GB");

/** @param {number} value @returns {string} 46,000 */
export function grouped(value) {
  return GROUPED.format(value);
}

/** @param {string} value a DICOM DA, "20260102" @returns {string} "2026-01-02", or the text as it is */
export function dicomDate(value) {
  const match = /^(\d{4})(\d{2})(\d{2})$/.exec(value ?? "");
  return match ? `${match[1]}-${match[2]}-${match[3]}` : (value ?? "");
}

/** @param {string} value a DICOM DT or DA+TM, "20260102131415.000" @returns {string} "2026-01-02 13:14" */
export function dicomDateTime(value) {
  const match = /^(\d{4})(\d{2})(\d{2})(\d{2})(\d{2})/.exec(value ?? "");
  return match ? `${match[1]}-${match[2]}-${match[3]} ${match[4]}:${match[5]}` : dicomDate((value ?? "").slice(0, 8));
}

/** @param {number} value @returns {string} decimal units: "1.4 GB" */
export function bytes(value) {
  if (!Number.isFinite(value) || value < 0) return "";
  if (value < 1000) return `${value} B`;
  const units = ["kB", "MB", "GB", "TB", "PB"];
  let amount = value;
  let unit = -1;
  do {
    amount /= 1000;
    unit += 1;
  } while (amount >= 999.5 && unit < units.length - 1);
  return `${amount < 10 ? amount.toFixed(1) : Math.round(amount)} ${units[unit]}`;
}

/** @param {string} iso RFC 3339 @returns {string} local "2026-01-02 13:14" */
export function localTime(iso) {
  const time = new Date(iso);
  if (Number.isNaN(time.getTime())) return "";
  const two = (/** @type {number} */ n) => String(n).padStart(2, "0");
  return (
    `${time.getFullYear()}-${two(time.getMonth() + 1)}-${two(time.getDate())} ` +
    `${two(time.getHours())}:${two(time.getMinutes())}`
  );
}

/** @param {string} iso RFC 3339 @param {number} [now] ms @returns {string} "3 min ago"; the date after a week */
export function ago(iso, now = Date.now()) {
  const time = new Date(iso).getTime();
  if (Number.isNaN(time)) return "";
  const seconds = Math.max(0, (now - time) / 1000);
  if (seconds < 45) return "just now";
  if (seconds < 3600) return `${Math.max(1, Math.round(seconds / 60))} min ago`;
  if (seconds < 86400) return `${Math.round(seconds / 3600)} h ago`;
  if (seconds < 7 * 86400) {
    const days = Math.round(seconds / 86400);
    return days === 1 ? "yesterday" : `${days} days ago`;
  }
  return localTime(iso).slice(0, 10);
}

/** @param {number} micrometres @returns {string} "250 µm", "2 mm", "800 nm" */
export function length(micrometres) {
  const tidy = (/** @type {number} */ n) => String(Number(n.toPrecision(3)));
  if (micrometres >= 10000) return `${tidy(micrometres / 10000)} cm`;
  if (micrometres >= 1000) return `${tidy(micrometres / 1000)} mm`;
  if (micrometres < 1) return `${tidy(micrometres * 1000)} nm`;
  return `${tidy(micrometres)} µm`;
}

/** @param {number} value @returns {string} "40×", "2.5×", "0.31×" */
export function magnification(value) {
  const digits = value >= 9.95 ? 0 : value >= 0.995 ? 1 : 2;
  return `${Number(value.toFixed(digits))}×`;
}

/** The name of a scanner's file format, from the reader's name.
 * @param {string} format @returns {string} */
export function formatName(format) {
  /** @type {Record<string, string>} */
  const known = {
    "3dhistech-mrxs": "3DHISTECH MRXS",
    "akoya-qptiff": "Akoya QPTIFF",
    "aperio-svs": "Aperio SVS",
    "generic-tiff": "Tiled TIFF",
    "hamamatsu-ndpi": "Hamamatsu NDPI",
    "hamamatsu-ndpis": "Hamamatsu NDPIS",
    "hamamatsu-vms": "Hamamatsu VMS",
    "leica-scn": "Leica SCN",
    "motic-mds": "Motic MDS",
    "motic-mdsx": "Motic MDSX",
    "motic-tiff": "Motic TIFF",
    "nikon-nd2": "Nikon ND2",
    "olympus-vsi": "Olympus VSI",
    "ome-tiff": "OME-TIFF",
    "philips-isyntax": "Philips iSyntax",
    "philips-tiff": "Philips TIFF",
    "sakura-svslide": "Sakura SVSLIDE",
    trestle: "Trestle TIFF",
    "ventana-bif": "Ventana BIF",
    "zeiss-czi": "Zeiss CZI",
    "": "DICOM",
  };
  return known[format ?? ""] ?? format;
}

/**
 * @param {string} identifier
 * @returns {string} "" for the placeholder of an identifier that nobody has given yet
 */
export function stated(identifier) {
  return identifier.startsWith("UNKNOWN-") ? "" : identifier;
}
