// SPDX-License-Identifier: Apache-2.0
// @ts-check
/**
 * A pyramid as an OpenLayers tile source. Beyond what OpenLayers does by itself: tiles
 * panned or zoomed away are aborted at once, and tiles that failed are marked and counted.
 */

const ol = /** @type {any} */ (globalThis).ol;

/** @typedef {import("./slide.js").Pyramid} Pyramid */
/** @typedef {import("./frames.js").FrameSource} FrameSource */

/** How far a level may be enlarged before the next finer one is loaded. */
const MAX_ENLARGEMENT = 1.35;
const CACHE_BYTES = 192 * 1024 * 1024; // decoded tiles kept, four bytes a pixel
const TILE_IDLE = 0; // ol/TileState

/** @param {Pyramid} pyramid @returns {any} an ol.tilegrid.TileGrid in base pixels, y upwards from 0 to -rows */
export function tileGrid(pyramid) {
  const coarseFirst = [...pyramid.levels].reverse();
  class SharpGrid extends /** @type {new (options: any) => any} */ (ol.tilegrid.TileGrid) {
    /** The coarsest level that is sharp enough for the screen's own pixels. @param {number} resolution */
    getZForResolution(resolution) {
      const wanted = (resolution / (globalThis.devicePixelRatio || 1)) * MAX_ENLARGEMENT;
      const found = coarseFirst.findIndex((level) => level.resolution <= wanted + 1e-9);
      return found < 0 ? coarseFirst.length - 1 : found;
    }
  }
  return new SharpGrid({
    extent: [0, -pyramid.rows, pyramid.columns, 0],
    origin: [0, 0],
    resolutions: coarseFirst.map((level) => level.resolution),
    tileSizes: coarseFirst.map((level) => [level.tileColumns, level.tileRows]),
    sizes: coarseFirst.map((level) => [level.tilesAcross, level.tilesDown]),
  });
}

export class PyramidTiles {
  /**
   * @param {Pyramid} pyramid
   * @param {FrameSource} frames
   * @param {any} projection ol.proj.Projection
   * @param {{onChange: (state: {loading: number, loaded: number, failed: number, error: unknown}) => void}} hooks
   */
  constructor(pyramid, frames, projection, { onChange }) {
    this.pyramid = pyramid;
    this.frames = frames;
    this.onChange = onChange;
    this.coarseFirst = [...pyramid.levels].reverse();
    this.opticalPath = [...pyramid.base.opticalPaths.keys()][0];
    this.plane = 0;
    this.version = 0;
    /** @type {Map<string, AbortController>} requests under way, by tile key as OpenLayers builds it */
    this.running = new Map();
    /** @type {Set<string>} tiles whose request we ended ourselves */
    this.aborted = new Set();
    /** @type {Map<string, {tile: any, error: unknown}>} */
    this.failed = new Map();
    this.loaded = 0;
    this.abortedCount = 0;

    this.grid = tileGrid(pyramid);
    this.source = new ol.source.ImageTile({
      loader: (/** @type {number} */ z, /** @type {number} */ x, /** @type {number} */ y, /** @type {{signal: AbortSignal}} */ options) =>
        this.load(z, x, y, options.signal),
      tileGrid: this.grid,
      projection,
      wrapX: false,
      transition: 120,
      interpolate: true,
    });
    this.source.setKey("0");
    this.source.on("tileloaderror", (/** @type {any} */ event) => this.onTileError(event.tile));

    const extent = [0, -pyramid.rows, pyramid.columns, 0];
    const largest = Math.max(...pyramid.levels.map((level) => level.tileColumns * level.tileRows));
    this.layer = new ol.layer.Tile({
      source: this.source,
      extent, // cuts the padding of the last column and row
      cacheSize: Math.max(48, Math.min(1024, Math.round(CACHE_BYTES / (largest * 4)))),
    });
    this.ground = new ol.layer.Vector({
      source: new ol.source.Vector({ features: [new ol.Feature(ol.geom.Polygon.fromExtent(extent))] }),
      style: new ol.style.Style({
        fill: new ol.style.Fill({ color: pyramid.bright ? "#eff0f2" : "#05070a" }),
      }),
    });
    this.marks = new ol.layer.Vector({
      source: new ol.source.Vector(),
      style: (/** @type {any} */ feature, /** @type {number} */ resolution) =>
        feature.get("z") === this.grid.getZForResolution(resolution) ? markStyle() : null,
    });
  }

  get layers() {
    return [this.ground, this.layer, this.marks];
  }

  /** @param {number} z @param {number} x @param {number} y */
  keyOf(z, x, y) {
    return `${this.source.getKey()}/${z},${x},${y}`;
  }

  /** @param {number} z @param {number} x @param {number} y @param {AbortSignal} disposed */
  async load(z, x, y, disposed) {
    const level = this.coarseFirst[z];
    const frame = level.frameAt(x, y, this.opticalPath, this.plane);
    if (!frame) return emptyTile();
    const key = this.keyOf(z, x, y);
    const controller = new AbortController();
    const end = () => controller.abort();
    disposed.addEventListener("abort", end, { once: true });
    if (disposed.aborted) end();
    this.aborted.delete(key);
    this.running.set(key, controller);
    this.tell();
    try {
      const bitmap = await this.frames.bitmap(frame, this.opticalPath, controller.signal, this.pyramid);
      this.loaded += 1;
      this.forgetFailure(key);
      return bitmap;
    } catch (error) {
      if (controller.signal.aborted) this.aborted.add(key);
      else this.failed.set(key, { tile: null, error });
      throw error;
    } finally {
      disposed.removeEventListener("abort", end);
      if (this.running.get(key) === controller) this.running.delete(key);
      this.tell();
    }
  }

  /** @param {any} tile that became ERROR */
  onTileError(tile) {
    const key = tile.getKey();
    if (this.aborted.delete(key)) {
      // Back to IDLE, so that it is asked for again when it comes into view; not inside this
      // event, since the tile queue still has to see the error to free its slot.
      queueMicrotask(() => {
        tile.setState(TILE_IDLE);
        this.layer.changed();
      });
      return;
    }
    const failure = this.failed.get(key);
    if (!failure) return;
    failure.tile = tile;
    const feature = new ol.Feature(ol.geom.Polygon.fromExtent(this.grid.getTileCoordExtent(tile.tileCoord)));
    feature.setId(key);
    feature.set("z", tile.tileCoord[0]);
    this.marks.getSource().addFeature(feature);
    this.tell();
  }

  /** @param {string} key */
  forgetFailure(key) {
    this.failed.delete(key);
    const source = this.marks.getSource();
    const feature = source.getFeatureById(key);
    if (feature) source.removeFeature(feature);
  }

  /** Ask again for every tile that failed. */
  retry() {
    for (const [key, { tile }] of [...this.failed]) {
      this.forgetFailure(key);
      tile?.setState(TILE_IDLE);
    }
    this.tell();
    this.layer.changed();
  }

  /**
   * End the requests of tiles that the frame just drawn does not want.
   * @param {any} frameState of the map's postrender event
   */
  abortUnwanted(frameState) {
    const wanted = frameState?.wantedTiles[ol.util.getUid(this.source)];
    if (!wanted) return;
    for (const [key, controller] of this.running) {
      if (!wanted[key]) {
        this.abortedCount += 1;
        controller.abort();
      }
    }
  }

  /** Everything is drawn anew: other colours, another optical path or focal plane. */
  refresh() {
    for (const controller of this.running.values()) controller.abort();
    this.running.clear();
    this.failed.clear();
    this.marks.getSource().clear();
    this.version += 1;
    this.source.setKey(String(this.version)); // the old tiles stay until the new ones are there
    this.tell();
  }

  tell() {
    const first = this.failed.values().next().value;
    this.onChange({
      loading: this.running.size,
      loaded: this.loaded,
      failed: this.failed.size,
      error: first?.error ?? null,
    });
  }

  dispose() {
    for (const controller of this.running.values()) controller.abort();
    for (const layer of this.layers) layer.dispose();
    this.source.dispose();
  }
}

/** @returns {HTMLCanvasElement} nothing: the ground shows where a sparse level has no frame */
function emptyTile() {
  const canvas = document.createElement("canvas");
  canvas.width = 1;
  canvas.height = 1;
  return canvas;
}

/** @type {any} */
let mark = null;

/** Hatching over a tile that could not be loaded; what a coarser level shows stays visible below. */
function markStyle() {
  if (mark) return mark;
  const canvas = document.createElement("canvas");
  canvas.width = 16;
  canvas.height = 16;
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  context.fillStyle = "rgb(168 32 26 / 10%)";
  context.fillRect(0, 0, 16, 16);
  context.strokeStyle = "rgb(168 32 26 / 55%)";
  context.lineWidth = 2;
  for (const shift of [-16, 0, 16]) {
    context.beginPath();
    context.moveTo(shift, 16);
    context.lineTo(shift + 16, 0);
    context.stroke();
  }
  mark = new ol.style.Style({
    fill: new ol.style.Fill({ color: context.createPattern(canvas, "repeat") }),
    stroke: new ol.style.Stroke({ color: "rgb(168 32 26 / 80%)", width: 1 }),
  });
  return mark;
}
