// SPDX-License-Identifier: Apache-2.0
// @ts-check
/** The whole slide, small, with the part in view outlined; press or drag to go there. */

import { request } from "./api.js";

/** @typedef {import("./slide-map.js").SlideMap} SlideMap */
/** @typedef {import("./frames.js").FrameSource} FrameSource */

const LARGEST = 190; // screen pixels, the longer side
const FEW_TILES = 36; // of the coarsest level; with more, the series' thumbnail is tried first
const MANY_TILES = 400; // never fetch more than this for a mini map
const SAME_SHAPE = 0.04; // a thumbnail of another shape shows another area

export class MiniMap {
  /** @param {HTMLCanvasElement} canvas @param {SlideMap} slideMap @param {FrameSource} frames */
  constructor(canvas, slideMap, frames) {
    this.canvas = canvas;
    this.slideMap = slideMap;
    this.frames = frames;
    this.controller = new AbortController();
    const { columns, rows } = slideMap.pyramid;
    const longer = Math.max(columns, rows);
    this.width = Math.max(24, Math.round((columns / longer) * LARGEST));
    this.height = Math.max(24, Math.round((rows / longer) * LARGEST));
    this.scale = Math.max(1, Math.min(3, globalThis.devicePixelRatio || 1));
    canvas.width = this.width * this.scale;
    canvas.height = this.height * this.scale;
    canvas.style.width = `${this.width}px`;
    canvas.style.height = `${this.height}px`;
    this.picture = document.createElement("canvas");
    this.clearPicture();
    const { signal } = this.controller;
    canvas.addEventListener("pointerdown", (event) => this.press(event), { signal });
    canvas.addEventListener("pointermove", (event) => event.buttons === 1 && this.go(event), { signal });
    void this.load();
  }

  clearPicture() {
    this.picture.width = this.canvas.width;
    this.picture.height = this.canvas.height;
    const context = /** @type {CanvasRenderingContext2D} */ (this.picture.getContext("2d"));
    context.fillStyle = this.slideMap.pyramid.bright ? "#eff0f2" : "#05070a";
    context.fillRect(0, 0, this.picture.width, this.picture.height);
  }

  async load() {
    const level = /** @type {import("./slide.js").Level} */ (this.slideMap.pyramid.levels.at(-1));
    const { opticalPath, plane } = this.slideMap.tiles;
    const context = /** @type {CanvasRenderingContext2D} */ (this.picture.getContext("2d"));
    const [across, down] = [this.picture.width / level.columns, this.picture.height / level.rows];
    const { signal } = this.controller;
    const tiles = level.tilesAcross * level.tilesDown;
    if (tiles > FEW_TILES && ((await this.loadThumbnail(context, signal)) || tiles > MANY_TILES)) return;
    const jobs = [];
    for (let row = 0; row < level.tilesDown; row += 1) {
      for (let column = 0; column < level.tilesAcross; column += 1) {
        const frame = level.frameAt(column, row, opticalPath, plane);
        if (!frame) continue;
        jobs.push(
          this.frames.bitmap(frame, opticalPath, signal, this.slideMap.pyramid).then((bitmap) => {
            context.drawImage(
              bitmap,
              column * level.tileColumns * across,
              row * level.tileRows * down,
              level.tileColumns * across,
              level.tileRows * down,
            );
            bitmap.close();
            this.draw();
          }),
        );
      }
    }
    await Promise.allSettled(jobs); // a tile that failed here fails in the main view too, which says so
  }

  /**
   * @param {CanvasRenderingContext2D} context @param {AbortSignal} signal
   * @returns {Promise<boolean>} whether the thumbnail shows the same area and was drawn
   */
  async loadThumbnail(context, signal) {
    try {
      const response = await request(`${this.frames.base}/thumbnail`, { what: "the thumbnail", accept: "image/jpeg", signal });
      const bitmap = await createImageBitmap(await response.blob());
      const shape = (bitmap.width / bitmap.height) * (this.height / this.width);
      if (Math.abs(shape - 1) > SAME_SHAPE) return false;
      context.drawImage(bitmap, 0, 0, this.picture.width, this.picture.height);
      this.draw();
      return true;
    } catch {
      return signal.aborted; // the plain ground with the outline still tells where one is
    }
  }

  /** Draw picture and outline. */
  draw() {
    const context = /** @type {CanvasRenderingContext2D} */ (this.canvas.getContext("2d"));
    context.drawImage(this.picture, 0, 0);
    const corners = this.slideMap.corners();
    if (!corners) return;
    const { columns } = this.slideMap.pyramid;
    const factor = this.canvas.width / columns;
    const points = corners.map(([x, y]) => [x * factor, -y * factor]);
    const inside = points.some(([x, y]) => x > 1 && y > 1 && x < this.canvas.width - 1 && y < this.canvas.height - 1);
    // with the whole slide in view there is nothing to find, and the map would hide tissue
    this.canvas.parentElement?.classList.toggle("idle", !inside);
    if (!inside) return;
    const trace = () => {
      context.beginPath();
      points.forEach(([x, y], index) => (index ? context.lineTo(x, y) : context.moveTo(x, y)));
      context.closePath();
    };
    const [width, height] = [this.canvas.width, this.canvas.height];
    context.fillStyle = "rgb(12 17 22 / 34%)";
    trace();
    context.rect(0, 0, width, height);
    context.fill("evenodd");
    trace();
    context.lineJoin = "round";
    context.lineWidth = 3.5 * this.scale;
    context.strokeStyle = "rgb(255 255 255 / 85%)";
    context.stroke();
    context.lineWidth = 1.75 * this.scale;
    context.strokeStyle = "#0f6073";
    context.stroke();
    // at high power the outline shrinks to a dot: a cross hair keeps it findable
    const spread = Math.max(...points.map(([x]) => x)) - Math.min(...points.map(([x]) => x));
    if (spread < 7 * this.scale) {
      const cx = points.reduce((sum, [x]) => sum + x, 0) / 4;
      const cy = points.reduce((sum, [, y]) => sum + y, 0) / 4;
      context.beginPath();
      context.arc(cx, cy, 7 * this.scale, 0, 2 * Math.PI);
      context.lineWidth = 1.75 * this.scale;
      context.stroke();
    }
  }

  /** @param {PointerEvent} event */
  press(event) {
    event.preventDefault();
    this.canvas.setPointerCapture(event.pointerId);
    this.go(event);
  }

  /** @param {PointerEvent} event */
  go(event) {
    const box = this.canvas.getBoundingClientRect();
    const { columns, rows } = this.slideMap.pyramid;
    this.slideMap.centreOn([
      ((event.clientX - box.left) / box.width) * columns,
      -((event.clientY - box.top) / box.height) * rows,
    ]);
  }

  /** The same slide in other colours, path or plane. */
  reload() {
    void this.load();
  }

  dispose() {
    this.controller.abort();
  }
}
