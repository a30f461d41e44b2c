// SPDX-License-Identifier: Apache-2.0
// @ts-check
/**
 * What a series' metadata says about a slide: pyramids of levels, where each frame of a
 * level is, label and overview, spacing and magnification. Pure: no request is made here.
 *
 * Tags by keyword, so that the code below reads like PS3.3.
 */

import { items, number, numbers, personName, text, values } from "./dicomjson.js";

/** @typedef {import("./dicomjson.js").Dataset} Dataset */

const TAG = {
  ImageType: "00080008",
  SOPClassUID: "00080016",
  SOPInstanceUID: "00080018",
  PyramidUID: "00080019",
  StudyDate: "00080020",
  AcquisitionDateTime: "0008002A",
  AccessionNumber: "00080050",
  Manufacturer: "00080070",
  CodeMeaning: "00080104",
  StudyDescription: "00081030",
  SeriesDescription: "0008103E",
  ManufacturerModelName: "00081090",
  AvailableTransferSyntaxUID: "00083002",
  PatientName: "00100010",
  PatientID: "00100020",
  PatientBirthDate: "00100030",
  PatientSex: "00100040",
  DeviceSerialNumber: "00181000",
  SoftwareVersions: "00181020",
  TransferSyntaxUID: "00020010",
  InConcatenationNumber: "00209162",
  ConcatenationUID: "00209161",
  ConcatenationFrameOffsetNumber: "00209228",
  DimensionOrganizationType: "00209311",
  AcquisitionNumber: "00200012",
  PyramidLabel: "00200027",
  FrameOfReferenceUID: "00200052",
  IlluminationTypeCodeSequence: "00220016",
  SamplesPerPixel: "00280002",
  PhotometricInterpretation: "00280004",
  NumberOfFrames: "00280008",
  Rows: "00280010",
  Columns: "00280011",
  PixelSpacing: "00280030",
  BitsAllocated: "00280100",
  PixelRepresentation: "00280103",
  ICCProfile: "00282000",
  LossyImageCompression: "00282110",
  LossyImageCompressionRatio: "00282112",
  LossyImageCompressionMethod: "00282114",
  ContainerIdentifier: "00400512",
  SpecimenDescriptionSequence: "00400560",
  SpecimenIdentifier: "00400551",
  SpecimenShortDescription: "00400600",
  XOffsetInSlideCoordinateSystem: "0040072A",
  YOffsetInSlideCoordinateSystem: "0040073A",
  ZOffsetInSlideCoordinateSystem: "0040074A",
  LabelText: "22000002",
  BarcodeValue: "22000005",
  TotalPixelMatrixColumns: "00480006",
  TotalPixelMatrixRows: "00480007",
  OpticalPathSequence: "00480105",
  OpticalPathIdentifier: "00480106",
  OpticalPathDescription: "00480107",
  ObjectiveLensPower: "00480112",
  OpticalPathIdentificationSequence: "00480207",
  PlanePositionSlideSequence: "0048021A",
  ColumnPositionInTotalImagePixelMatrix: "0048021E",
  RowPositionInTotalImagePixelMatrix: "0048021F",
  TotalPixelMatrixFocalPlanes: "00480303",
  PixelMeasuresSequence: "00289110",
  SharedFunctionalGroupsSequence: "52009229",
  PerFrameFunctionalGroupsSequence: "52009230",
};

export const JPEG_BASELINE = "1.2.840.10008.1.2.4.50";
const WHOLE_SLIDE_MICROSCOPY = "1.2.840.10008.5.1.4.1.1.77.1.6";

/**
 * Where the bytes of one tile are. Frame numbers count from 1.
 * @typedef {{sopInstanceUid: string, frameNumber: number, instance: LevelInstance}} FrameAddress
 */

/**
 * One instance (or part of a concatenation) of a level.
 * @typedef {object} LevelInstance
 * @property {string} sopInstanceUid
 * @property {Dataset} dataset
 * @property {number} frames
 * @property {number} offset frames of the concatenation before this instance
 * @property {"jpeg" | "rendered" | "unknown"} delivery how tiles come; "unknown" until asked once
 * @property {number} samples
 * @property {number} bitsAllocated of a sample
 * @property {boolean} signed
 */

export class UnusableSlide extends Error {}

/** One resolution of a pyramid. All counts are in this level's own pixels and tiles. */
export class Level {
  /** @param {LevelInstance[]} parts instances of equal size: optical paths, focal planes, concatenation parts */
  constructor(parts) {
    const first = parts[0].dataset;
    this.parts = parts;
    this.columns = /** @type {number} */ (number(first, TAG.TotalPixelMatrixColumns));
    this.rows = /** @type {number} */ (number(first, TAG.TotalPixelMatrixRows));
    this.tileColumns = number(first, TAG.Columns) ?? 0;
    this.tileRows = number(first, TAG.Rows) ?? 0;
    this.tilesAcross = Math.ceil(this.columns / this.tileColumns);
    this.tilesDown = Math.ceil(this.rows / this.tileRows);
    /** base pixels per pixel of this level; set by the pyramid */
    this.resolution = 1;
    /** @type {Map<string, FrameAddress> | null} frames of sparse instances by place, made when first needed */
    this.index = null;
    this.planes = 1;
  }

  /** Pixel spacing as (row, column) in mm (0028,0030), null where the header has none. */
  get spacingMm() {
    const shared = items(this.parts[0].dataset, TAG.SharedFunctionalGroupsSequence)[0];
    const perFrame = items(this.parts[0].dataset, TAG.PerFrameFunctionalGroupsSequence)[0];
    for (const group of [shared, perFrame, this.parts[0].dataset]) {
      const measures = items(group, TAG.PixelMeasuresSequence)[0] ?? group;
      const spacing = numbers(measures, TAG.PixelSpacing);
      if (spacing.length === 2 && spacing.every((value) => value > 0)) return spacing;
    }
    return null;
  }

  /** Identifiers of the optical paths, in the order of the sequence. */
  get opticalPaths() {
    const found = new Map();
    for (const part of this.parts) {
      for (const item of items(part.dataset, TAG.OpticalPathSequence)) {
        const id = text(item, TAG.OpticalPathIdentifier) || "1";
        if (!found.has(id)) found.set(id, text(item, TAG.OpticalPathDescription) || illumination(item) || `Path ${id}`);
      }
    }
    return found.size ? found : new Map([["1", "Path 1"]]);
  }

  /** Focal planes: how many, counted from the slide up. */
  get focalPlanes() {
    this.index ??= buildIndex(this);
    return this.planes;
  }

  /**
   * The frame that holds a tile; null where a sparse level has none.
   * @param {number} tileColumn from 0
   * @param {number} tileRow from 0
   * @param {string} opticalPath identifier
   * @param {number} plane from 0
   * @returns {FrameAddress | null}
   */
  frameAt(tileColumn, tileRow, opticalPath, plane) {
    this.index ??= buildIndex(this);
    const key = `${opticalPath}/${plane}/${tileRow}/${tileColumn}`;
    const listed = this.index.get(key);
    if (listed) return listed;
    for (const part of this.parts) {
      if (isSparse(part.dataset)) continue;
      const number = fullFrameNumber(this, part, tileColumn, tileRow, opticalPath, plane);
      if (number !== null) return { sopInstanceUid: part.sopInstanceUid, frameNumber: number, instance: part };
    }
    return null;
  }
}

/**
 * C.7.6.17.3: without explicit positions, frames go along the rows of tiles, then down the
 * columns, then through the focal planes, then through the optical paths.
 * @param {Level} level @param {LevelInstance} part
 * @param {number} tileColumn @param {number} tileRow @param {string} opticalPath @param {number} plane
 * @returns {number | null} frame number in this instance from 1; null when it is in another one
 */
function fullFrameNumber(level, part, tileColumn, tileRow, opticalPath, plane) {
  const paths = items(part.dataset, TAG.OpticalPathSequence).map((item) => text(item, TAG.OpticalPathIdentifier) || "1");
  const path = paths.length ? paths.indexOf(opticalPath) : 0;
  const planes = number(part.dataset, TAG.TotalPixelMatrixFocalPlanes) ?? 1;
  if (path < 0 || plane >= planes) return null;
  if (tileColumn >= level.tilesAcross || tileRow >= level.tilesDown) return null;
  const perPlane = level.tilesAcross * level.tilesDown;
  const index = (path * planes + plane) * perPlane + tileRow * level.tilesAcross + tileColumn - part.offset;
  return index >= 0 && index < part.frames ? index + 1 : null;
}

/** @param {Dataset} dataset @returns {boolean} whether each frame states its own position */
function isSparse(dataset) {
  const organization = text(dataset, TAG.DimensionOrganizationType);
  if (organization) return organization !== "TILED_FULL";
  const first = items(dataset, TAG.PerFrameFunctionalGroupsSequence)[0];
  return items(first, TAG.PlanePositionSlideSequence).length > 0;
}

/**
 * Frames of the sparse instances of a level by place. Also finds how many focal planes there are.
 * @param {Level} level
 * @returns {Map<string, FrameAddress>}
 */
function buildIndex(level) {
  /** @type {{z: number, path: string, row: number, column: number, address: FrameAddress}[]} */
  const found = [];
  let planes = 1;
  for (const part of level.parts) {
    if (!isSparse(part.dataset)) {
      planes = Math.max(planes, number(part.dataset, TAG.TotalPixelMatrixFocalPlanes) ?? 1);
      continue;
    }
    const shared = items(part.dataset, TAG.SharedFunctionalGroupsSequence)[0];
    const only = items(part.dataset, TAG.OpticalPathSequence)[0];
    const groups = items(part.dataset, TAG.PerFrameFunctionalGroupsSequence);
    groups.forEach((group, index) => {
      const position = (
        items(group, TAG.PlanePositionSlideSequence)[0] ?? items(shared, TAG.PlanePositionSlideSequence)[0]
      );
      const column = number(position, TAG.ColumnPositionInTotalImagePixelMatrix);
      const row = number(position, TAG.RowPositionInTotalImagePixelMatrix);
      if (column === null || row === null) return;
      const path =
        items(group, TAG.OpticalPathIdentificationSequence)[0] ??
        items(shared, TAG.OpticalPathIdentificationSequence)[0] ??
        only;
      found.push({
        z: number(position, TAG.ZOffsetInSlideCoordinateSystem) ?? 0,
        path: text(path, TAG.OpticalPathIdentifier) || "1",
        // positions count from 1 in the total pixel matrix
        row: Math.round((row - 1) / level.tileRows),
        column: Math.round((column - 1) / level.tileColumns),
        address: { sopInstanceUid: part.sopInstanceUid, frameNumber: index + 1, instance: part },
      });
    });
  }
  const depths = [...new Set(found.map((frame) => frame.z))].sort((a, b) => a - b);
  // a z that varies with the place is a curved single plane, not a stack
  const places = new Set(found.map((frame) => `${frame.path}/${frame.row}/${frame.column}`));
  const stacked = found.length > places.size;
  level.planes = Math.max(planes, stacked ? depths.length : 1);
  const index = new Map();
  for (const frame of found) {
    const plane = stacked ? depths.indexOf(frame.z) : 0;
    index.set(`${frame.path}/${plane}/${frame.row}/${frame.column}`, frame.address);
  }
  return index;
}

/** @param {Dataset} opticalPath */
function illumination(opticalPath) {
  return text(items(opticalPath, TAG.IlluminationTypeCodeSequence)[0], TAG.CodeMeaning);
}

/** Levels that share a coordinate system, finest first. */
export class Pyramid {
  /** @param {string} uid @param {LevelInstance[]} parts */
  constructor(uid, parts) {
    this.uid = uid;
    /** @type {Map<string, LevelInstance[]>} */
    const sizes = new Map();
    for (const part of parts) {
      const key = [TAG.TotalPixelMatrixColumns, TAG.TotalPixelMatrixRows, TAG.Columns, TAG.Rows]
        .map((tag) => number(part.dataset, tag))
        .join("x");
      sizes.set(key, [...(sizes.get(key) ?? []), part]);
    }
    const levels = [...sizes.values()].map((same) => new Level(same)).sort((a, b) => b.columns - a.columns);
    this.base = levels[0];
    /** @type {Level[]} */
    this.levels = [];
    for (const level of levels) {
      level.resolution = this.base.columns / level.columns;
      // the same width twice (other tile size): one is enough, and the view needs distinct resolutions
      if (this.levels.at(-1)?.columns !== level.columns) this.levels.push(level);
    }
  }

  get columns() {
    return this.base.columns;
  }

  get rows() {
    return this.base.rows;
  }

  /** What the scanner calls this region, "" when it has no name. */
  get label() {
    return text(this.base.parts[0].dataset, TAG.PyramidLabel);
  }

  /** Regions of one slide are numbered in the order of their scans. */
  get acquisition() {
    return number(this.base.parts[0].dataset, TAG.AcquisitionNumber) ?? 0;
  }

  /** Micrometres per pixel of the finest level, null when the header does not say. */
  get micrometresPerPixel() {
    for (const level of this.levels) {
      const spacing = level.spacingMm;
      if (spacing) return ((spacing[0] + spacing[1]) / 2 / level.resolution) * 1000;
    }
    return null;
  }

  /** Whether rows and columns have different spacing: lengths then depend on direction. */
  get anisotropic() {
    const spacing = this.base.spacingMm;
    return spacing !== null && Math.abs(spacing[0] / spacing[1] - 1) > 0.01;
  }

  /** The objective of the scanner as stored, null when unknown. */
  get objectivePower() {
    const path = items(this.base.parts[0].dataset, TAG.OpticalPathSequence)[0];
    const power = number(path, TAG.ObjectiveLensPower);
    return power && power > 0 ? power : null;
  }

  /**
   * Magnification that one image pixel per screen pixel stands for. 10 µm per pixel is 1×
   * by convention; the objective's own number is taken where it agrees within a quarter,
   * since people know the slide as "40×" and not as "39.6×".
   */
  get nativeMagnification() {
    const spacing = this.micrometresPerPixel;
    const power = this.objectivePower;
    if (spacing === null) return power;
    const computed = 10 / spacing;
    return power && Math.abs(computed / power - 1) <= 0.25 ? power : computed;
  }

  /** Whether tiles are light on a light ground, as with transmitted light. */
  get bright() {
    const base = this.base.parts[0];
    return base.samples === 3 && !/fluorescence/i.test([...this.base.opticalPaths.values()].join(" "));
  }
}

/** A slide as one series holds it. */
export class Slide {
  /** @param {Dataset[]} metadata of all instances of the series */
  constructor(metadata) {
    if (!metadata.length) throw new UnusableSlide("The series holds no instance.");
    this.instances = metadata;
    const volumes = metadata.filter((dataset) => kindOf(dataset) === "VOLUME" && isTiled(dataset));
    /** @type {Map<string, LevelInstance[]>} */
    const groups = new Map();
    for (const dataset of volumes) {
      const key = text(dataset, TAG.PyramidUID) || text(dataset, TAG.FrameOfReferenceUID) || "only";
      groups.set(key, [...(groups.get(key) ?? []), levelInstance(dataset)]);
    }
    this.pyramids = [...groups]
      .map(([uid, parts]) => new Pyramid(uid, parts))
      .sort((a, b) => b.columns * b.rows - a.columns * a.rows || a.acquisition - b.acquisition);
    this.label = metadata.find((dataset) => kindOf(dataset) === "LABEL") ?? null;
    this.overview = metadata.find((dataset) => kindOf(dataset) === "OVERVIEW") ?? null;
    if (!this.pyramids.length && !this.label && !this.overview) {
      const classes = new Set(metadata.map((dataset) => text(dataset, TAG.SOPClassUID)));
      throw new UnusableSlide(
        classes.has(WHOLE_SLIDE_MICROSCOPY)
          ? "The series has no level that can be shown: the size of the image is missing."
          : "The series holds no whole slide image.",
      );
    }
  }

  get first() {
    return this.pyramids[0]?.base.parts[0].dataset ?? this.instances[0];
  }

  get containerIdentifier() {
    return text(this.first, TAG.ContainerIdentifier);
  }

  get patientName() {
    return personName(values(this.first, TAG.PatientName)[0]);
  }

  get patientId() {
    return text(this.first, TAG.PatientID);
  }

  get accessionNumber() {
    return text(this.first, TAG.AccessionNumber);
  }

  /** @param {keyof typeof TAG} keyword @returns {string} of the finest level's header */
  text(keyword) {
    return text(this.first, TAG[keyword]);
  }

  get specimens() {
    return items(this.first, TAG.SpecimenDescriptionSequence)
      .map((item) =>
        [text(item, TAG.SpecimenIdentifier), text(item, TAG.SpecimenShortDescription)].filter(Boolean).join(", "),
      )
      .filter(Boolean);
  }

  get barcode() {
    for (const dataset of this.instances) {
      const value = text(dataset, TAG.BarcodeValue);
      if (value) return value;
    }
    return "";
  }

  /** How the finest level is compressed, as a phrase. */
  get compression() {
    if (text(this.first, TAG.LossyImageCompression) !== "01") return "Lossless";
    const methods = /** @type {Record<string, string>} */ ({
      ISO_10918_1: "JPEG",
      ISO_15444_1: "JPEG 2000",
      ISO_14495_1: "JPEG-LS",
      ISO_15444_15: "HTJ2K",
      ISO_18181_1: "JPEG XL",
    });
    const method = text(this.first, TAG.LossyImageCompressionMethod);
    const ratio = number(this.first, TAG.LossyImageCompressionRatio);
    return `Lossy${method ? ` ${methods[method] ?? method}` : ""}${ratio ? `, ${Number(ratio.toFixed(1))} : 1` : ""}`;
  }
}

/** @param {Dataset} dataset @returns {string} Image Type value 3; a tiled image without one is a VOLUME */
function kindOf(dataset) {
  const kind = String(values(dataset, TAG.ImageType)[2] ?? "").toUpperCase();
  if (["VOLUME", "LABEL", "OVERVIEW", "THUMBNAIL"].includes(kind)) return kind;
  return isTiled(dataset) ? "VOLUME" : "";
}

/** @param {Dataset} dataset */
function isTiled(dataset) {
  return [TAG.TotalPixelMatrixColumns, TAG.TotalPixelMatrixRows, TAG.Columns, TAG.Rows].every(
    (tag) => (number(dataset, tag) ?? 0) > 0,
  );
}

/** @param {Dataset} dataset @returns {LevelInstance} */
function levelInstance(dataset) {
  const syntax = text(dataset, TAG.TransferSyntaxUID);
  const available = values(dataset, TAG.AvailableTransferSyntaxUID);
  const methods = values(dataset, TAG.LossyImageCompressionMethod);
  const bitsAllocated = number(dataset, TAG.BitsAllocated) ?? 8;
  /** @type {LevelInstance["delivery"]} */
  let delivery = "unknown";
  if (bitsAllocated !== 8) delivery = "rendered";
  else if (syntax) delivery = syntax === JPEG_BASELINE ? "jpeg" : "rendered";
  else if (available.length) delivery = available.includes(JPEG_BASELINE) ? "jpeg" : "rendered";
  else if (text(dataset, TAG.LossyImageCompression) === "00") delivery = "rendered";
  else if (methods.length) delivery = methods.at(-1) === "ISO_10918_1" ? "jpeg" : "rendered"; // the last is the stored one
  return {
    sopInstanceUid: text(dataset, TAG.SOPInstanceUID),
    dataset,
    frames: number(dataset, TAG.NumberOfFrames) ?? 1,
    offset: number(dataset, TAG.ConcatenationFrameOffsetNumber) ?? 0,
    delivery,
    samples: number(dataset, TAG.SamplesPerPixel) ?? 1,
    bitsAllocated,
    signed: number(dataset, TAG.PixelRepresentation) === 1,
  };
}

/** @param {Dataset} dataset @returns {string} */
export function sopInstanceUid(dataset) {
  return text(dataset, TAG.SOPInstanceUID);
}

/**
 * Where the ICC profile of an optical path is.
 * @param {LevelInstance} part
 * @param {string} opticalPath identifier
 * @returns {{inline: string} | {uri: string, item: number} | null} null: the header has none
 */
export function iccProfile(part, opticalPath) {
  const paths = items(part.dataset, TAG.OpticalPathSequence);
  const at = Math.max(
    0,
    paths.findIndex((item) => (text(item, TAG.OpticalPathIdentifier) || "1") === opticalPath),
  );
  const attribute = paths[at]?.[TAG.ICCProfile];
  if (attribute?.InlineBinary) return { inline: attribute.InlineBinary };
  if (attribute?.BulkDataURI) return { uri: attribute.BulkDataURI, item: at };
  return null;
}
