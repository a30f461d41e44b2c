// SPDX-License-Identifier: Apache-2.0
// @ts-check
/**
 * The map of one pyramid: view, movement, magnification. Coordinates are pixels of the
 * finest level, x to the right from 0, y *upwards* (OpenLayers), so rows are negative y.
 */

import { PyramidTiles } from "./tiles.js";

const ol = /** @type {any} */ (globalThis).ol;

/** @typedef {import("./slide.js").Pyramid} Pyramid */
/** @typedef {import("./frames.js").FrameSource} FrameSource */
/** @typedef {{x: number, y: number, z: number, r: number}} ViewPlace see link.js */

const CLOSEST = 0.25; // base pixels per screen pixel: four times enlarged
const PAN_SPEED = 1000; // screen pixels per second while an arrow key is down
const PAN_TAP = 90; // screen pixels that a short tap moves

export class SlideMap {
  /**
   * @param {HTMLElement} target
   * @param {Pyramid} pyramid
   * @param {FrameSource} frames
   * @param {{onView: () => void, onSettled: () => void, onTiles: (state: any) => void}} hooks
   */
  constructor(target, pyramid, frames, { onView, onSettled, onTiles }) {
    this.pyramid = pyramid;
    this.target = target;
    const { columns, rows } = pyramid;
    const spacing = pyramid.micrometresPerPixel;
    this.extent = [0, -rows, columns, 0];
    this.projection = new ol.proj.Projection({
      code: "slide",
      units: "pixels",
      extent: this.extent,
      ...(spacing ? { metersPerUnit: spacing * 1e-6 } : {}),
    });
    this.tiles = new PyramidTiles(pyramid, frames, this.projection, { onChange: onTiles });
    const fit = this.fitResolution();
    this.view = new ol.View({
      projection: this.projection,
      extent: this.extent,
      constrainOnlyCenter: true,
      smoothExtentConstraint: true,
      smoothResolutionConstraint: true,
      constrainRotation: false,
      center: [columns / 2, -rows / 2],
      resolution: fit,
      minResolution: Math.min(CLOSEST, fit / 4),
      maxResolution: Math.max(fit * 2, 1),
      showFullExtent: true,
      multiWorld: true,
    });
    this.map = new ol.Map({
      target,
      layers: this.tiles.layers,
      view: this.view,
      controls: [],
      interactions: [
        new ol.interaction.DragRotate(),
        new ol.interaction.DragPan({ kinetic: new ol.Kinetic(-0.005, 0.05, 100) }),
        new ol.interaction.PinchRotate(),
        new ol.interaction.PinchZoom(),
        new ol.interaction.MouseWheelZoom({ maxDelta: 1, duration: 160 }),
        new ol.interaction.DoubleClickZoom({ duration: 220 }),
        new ol.interaction.DragZoom(),
      ],
      maxTilesLoading: 12,
      moveTolerance: 2,
    });
    this.map.on("postrender", (/** @type {any} */ event) => {
      if (event.frameState) this.tiles.abortUnwanted(event.frameState);
    });
    this.map.on("moveend", onSettled);
    this.map.on("change:size", onView);
    this.view.on(["change:center", "change:resolution", "change:rotation"], onView);
    /** @type {Map<string, [number, number]>} arrow keys held down, as screen directions */
    this.held = new Map();
    this.panned = 0;
    this.panFrame = 0;
  }

  /** Base pixels per screen pixel at which the whole slide is in view. */
  fitResolution() {
    const width = Math.max(64, this.target.clientWidth - 48);
    const height = Math.max(64, this.target.clientHeight - 48);
    return Math.max(this.pyramid.columns / width, this.pyramid.rows / height);
  }

  get resolution() {
    return this.view.getResolution() ?? 1;
  }

  /** Magnification shown, null when neither spacing nor objective is known. */
  get magnification() {
    const native = this.pyramid.nativeMagnification;
    return native === null ? null : native / this.resolution;
  }

  /** Micrometres per screen pixel, null when the spacing is not known. */
  get micrometresPerScreenPixel() {
    const spacing = this.pyramid.micrometresPerPixel;
    return spacing === null ? null : spacing * this.resolution;
  }

  /** Clockwise, in degrees, 0 to below 360. */
  get degrees() {
    const degrees = ((this.view.getRotation() ?? 0) * 180) / Math.PI;
    return (((Math.round(degrees * 10) / 10) % 360) + 360) % 360;
  }

  /** @returns {ViewPlace} */
  get place() {
    const [x, y] = this.view.getCenter() ?? [0, 0];
    return { x, y: -y, z: 1 / this.resolution, r: this.degrees };
  }

  /** @param {ViewPlace} place */
  goTo({ x, y, z, r }) {
    this.view.cancelAnimations();
    this.view.setRotation((r * Math.PI) / 180);
    this.view.setResolution(1 / z);
    this.view.setCenter([x, -y]);
  }

  fit() {
    this.animate({ center: [this.pyramid.columns / 2, -this.pyramid.rows / 2], resolution: this.fitResolution() });
  }

  /** @param {number} magnification */
  magnify(magnification) {
    const native = this.pyramid.nativeMagnification;
    if (native !== null) this.animate({ resolution: native / magnification });
  }

  fullResolution() {
    this.animate({ resolution: 1 });
  }

  /** @param {number} factor above 1: closer */
  zoom(factor) {
    const target = (this.aim ?? this.resolution) / factor;
    this.animate({ resolution: target });
  }

  /** @param {number} degrees clockwise */
  rotate(degrees) {
    const now = this.turn ?? this.view.getRotation() ?? 0;
    const step = Math.PI / 2;
    const aligned = Math.abs(degrees) === 90 ? Math.round((now + (degrees * Math.PI) / 180) / step) * step : now + (degrees * Math.PI) / 180;
    this.animate({ rotation: aligned });
  }

  upright() {
    const now = this.view.getRotation() ?? 0;
    this.animate({ rotation: Math.round(now / (2 * Math.PI)) * 2 * Math.PI });
  }

  /** @param {{center?: number[], resolution?: number, rotation?: number}} to */
  animate(to) {
    const target = { ...to };
    if (target.resolution !== undefined) {
      const low = this.view.getMinResolution();
      const high = this.view.getMaxResolution();
      target.resolution = Math.min(high, Math.max(low, target.resolution));
      this.aim = target.resolution; // so that quick presses add up
    }
    if (target.rotation !== undefined) this.turn = target.rotation;
    const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
    this.view.animate({ ...target, duration: still ? 0 : 200, easing: ol.easing.easeOut }, (/** @type {boolean} */ done) => {
      if (!done) return;
      this.aim = undefined;
      this.turn = undefined;
    });
  }

  /** @param {number[]} coordinate base pixels */
  centreOn(coordinate) {
    this.view.cancelAnimations();
    this.view.setCenter(coordinate);
  }

  /** Corners of what is in view, clockwise from the upper left, in base pixels; null before the first frame. */
  corners() {
    const size = this.map.getSize();
    if (!size) return null;
    const resolution = this.resolution;
    const rotation = this.view.getRotation() ?? 0;
    const [x, y] = this.view.getCenter() ?? [0, 0];
    const [cos, sin] = [Math.cos(rotation), Math.sin(rotation)];
    return [[-1, 1], [1, 1], [1, -1], [-1, -1]].map(([right, up]) => {
      const dx = (right * size[0] * resolution) / 2;
      const dy = (up * size[1] * resolution) / 2;
      return [x + dx * cos - dy * sin, y + dx * sin + dy * cos];
    });
  }

  /** An arrow key went down. @param {string} key @param {boolean} fast */
  startPan(key, fast) {
    const directions = /** @type {Record<string, [number, number]>} */ ({
      ArrowLeft: [-1, 0],
      ArrowRight: [1, 0],
      ArrowUp: [0, 1],
      ArrowDown: [0, -1],
    });
    this.fast = fast;
    if (this.held.has(key)) return;
    this.held.set(key, directions[key]);
    this.panned = 0;
    if (!this.panFrame) {
      this.view.cancelAnimations();
      let last = performance.now();
      const step = (/** @type {number} */ now) => {
        const distance = (Math.min(50, now - last) / 1000) * PAN_SPEED * (this.fast ? 2.5 : 1);
        last = now;
        this.panned += distance;
        this.panBy(...this.direction(), distance);
        this.panFrame = this.held.size ? requestAnimationFrame(step) : 0;
      };
      this.panFrame = requestAnimationFrame(step);
    }
  }

  /** @param {string} key */
  stopPan(key) {
    const direction = this.held.get(key);
    if (!direction) return;
    this.held.delete(key);
    if (this.held.size) return;
    cancelAnimationFrame(this.panFrame);
    this.panFrame = 0;
    const rest = PAN_TAP * (this.fast ? 2.5 : 1) - this.panned;
    if (rest > 0) {
      const [x, y] = this.view.getCenter();
      const [dx, dy] = this.onSlide(direction[0] * rest, direction[1] * rest);
      this.view.animate({ center: [x + dx, y + dy], duration: 90, easing: ol.easing.linear });
    }
  }

  stopAllPans() {
    for (const key of [...this.held.keys()]) this.stopPan(key);
  }

  /** @returns {[number, number]} the sum of the arrow keys held */
  direction() {
    let [x, y] = [0, 0];
    for (const [dx, dy] of this.held.values()) {
      x += dx;
      y += dy;
    }
    return [x, y];
  }

  /** @param {number} right @param {number} up @param {number} distance screen pixels */
  panBy(right, up, distance) {
    const [x, y] = this.view.getCenter();
    const [dx, dy] = this.onSlide(right * distance, up * distance);
    this.view.setCenter([x + dx, y + dy]);
  }

  /** A move on the screen as a move on the slide. @param {number} right @param {number} up */
  onSlide(right, up) {
    const rotation = this.view.getRotation() ?? 0;
    const resolution = this.resolution;
    return [
      (right * Math.cos(rotation) - up * Math.sin(rotation)) * resolution,
      (right * Math.sin(rotation) + up * Math.cos(rotation)) * resolution,
    ];
  }

  dispose() {
    cancelAnimationFrame(this.panFrame);
    this.tiles.dispose();
    this.map.setTarget(null);
    this.map.dispose();
  }
}
