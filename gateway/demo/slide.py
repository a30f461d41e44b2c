# SPDX-License-Identifier: Apache-2.0
"""``coverslip demo-data``: a drawn H&E slide, written as a scanner would write it.

The picture is made tile row by tile row in child processes, so that memory stays small
however large the slide. The same seed and the same library versions give the same file.
"""

import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
from PIL import Image

from converters.isolation.child import die_with
from gateway.demo.label import draw_label, draw_macro
from gateway.demo.paint import BLOCK_COLUMNS, GLASS, Painter
from gateway.demo.svs import YCBCR, Pixels, Scan, SvsWriter, TileFormat, encode_tile

TILE = 256
STEP = 4
"""Each level is a quarter, each way, of the one above it."""

FORM = TileFormat(photometric=YCBCR, subsampling="422", quality=80)
MICRONS_PER_PIXEL = 0.5
LEFT_MM, TOP_MM = 34.0, 8.5

SEED = 2026
BARCODE = "CS26-000123;A1;1"

MAX_PROCESSES = 4


@dataclass(frozen=True, slots=True)
class Band:
    """One row of tiles of full resolution, encoded, and its part of the next level."""

    tiles: list[bytes]
    quarter: Pixels


class _Artist:
    """Paints bands; one in each process."""

    def __init__(self, rows: int, columns: int, seed: int) -> None:
        self._painter = Painter(rows, columns, seed)
        self._columns = columns
        self._glass = np.full((TILE, TILE, 3), GLASS, np.uint8)
        self._glass_tile = encode_tile(self._glass, FORM)

    def band(self, number: int) -> Band:
        tiles: list[bytes] = []
        strips: list[Pixels] = []
        width = -(-self._columns // TILE) * TILE
        for left in range(0, width, BLOCK_COLUMNS):
            columns = min(BLOCK_COLUMNS, width - left)
            if self._painter.has_tissue(number * TILE, left, TILE, columns):
                pixels = self._painter.block(number * TILE, left, TILE, columns)
                for start in range(0, columns, TILE):
                    tiles.append(self._encode(np.ascontiguousarray(pixels[:, start : start + TILE])))
                strips.append(reduced(pixels))
            else:
                tiles += [self._glass_tile] * (columns // TILE)
                strips.append(np.full((TILE // STEP, columns // STEP, 3), GLASS, np.uint8))
        return Band(tiles, np.concatenate(strips, axis=1))

    def _encode(self, tile: Pixels) -> bytes:
        return self._glass_tile if np.array_equal(tile, self._glass) else encode_tile(tile, FORM)


_artist: _Artist | None = None


def _prepare(rows: int, columns: int, seed: int) -> None:
    """Make this process's artist; it ends with the process that asked for it."""
    global _artist
    if multiprocessing.parent_process() is not None:
        die_with(os.getppid())
    _artist = _Artist(rows, columns, seed)


def _paint(number: int) -> Band:
    assert _artist is not None
    return _artist.band(number)


@contextmanager
def _bands(rows: int, columns: int, seed: int, processes: int) -> Iterator[Iterator[Band]]:
    """The bands of a slide from top to bottom, painted ahead by ``processes``."""
    count = -(-rows // TILE)
    if processes <= 1:
        artist = _Artist(rows, columns, seed)
        yield map(artist.band, range(count))
        return
    # not fork: the caller may have threads
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, context, _prepare, (rows, columns, seed)) as executor:
        try:
            yield executor.map(_paint, range(count))
        finally:
            executor.shutdown(wait=False, cancel_futures=True)


def write_demo_slide(
    path: Path,
    *,
    rows: int = 15_360,
    columns: int = 20_480,
    seed: int = SEED,
    barcode: str = BARCODE,
    scanned: datetime = datetime(2026, 3, 14, 9, 26, 53),
    progress: Callable[[int, int], None] | None = None,
    processes: int | None = None,
) -> Path:
    """Draw a slide of (rows, columns) pixels of half a micron and write it as Aperio SVS.

    Levels of 1/4 and so on down to a few tiles, a label with ``barcode`` as Data
    Matrix, a macro. ``progress`` is told (bands done, bands in all). ``processes`` None
    takes one for each processor, four at most, and none for small slides. The file gets
    its name when it is complete.
    """
    bands = -(-rows // TILE)
    if processes is None:
        usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        processes = min(MAX_PROCESSES, usable) if rows * columns > 20_000_000 else 1
    scan = Scan(
        microns_per_pixel=MICRONS_PER_PIXEL,
        scanscope_id="CSDEMO1",
        scanned=scanned,
        left_mm=LEFT_MM,
        top_mm=TOP_MM,
        barcode=barcode,
        file_name=path.stem,
        title="Coverslip demo slide, drawn",
    )
    partial = path.with_name(f".{path.name}.partial")
    quarter = np.empty((bands * TILE // STEP, -(-columns // TILE) * TILE // STEP, 3), np.uint8)

    def tiles(source: Iterator[Band]) -> Iterator[bytes]:
        for number, band in enumerate(source):
            quarter[number * TILE // STEP : (number + 1) * TILE // STEP] = band.quarter
            yield from band.tiles
            if progress is not None:
                progress(number + 1, bands)

    try:
        with SvsWriter(partial, scan, bigtiff=rows * columns > 4_000_000_000) as svs:
            with _bands(rows, columns, seed, processes) as source:
                svs.level(rows, columns, TILE, FORM, tiles(source))
            levels = list(_pyramid(quarter[: rows // STEP, : columns // STEP]))
            overview = levels[-1]
            svs.thumbnail(_fitted(overview, 1024))
            for level in levels:
                svs.level(level.shape[0], level.shape[1], TILE, FORM, _encoded(level))
            label = draw_label(
                barcode, (barcode.split(";")[0], f"Block {_block(barcode)}", f"{scanned:%Y-%m-%d}")
            )
            svs.label(label)
            size_mm = (columns * MICRONS_PER_PIXEL / 1000, rows * MICRONS_PER_PIXEL / 1000)
            svs.macro(
                draw_macro(
                    label, overview, left_mm=LEFT_MM, top_mm=TOP_MM, width_mm=size_mm[0], height_mm=size_mm[1]
                )
            )
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def _block(barcode: str) -> str:
    parts = barcode.split(";")
    return parts[1] if len(parts) > 1 else "A1"


def reduced(pixels: Pixels) -> Pixels:
    """A quarter of the size, each way, averaged by area."""
    return np.asarray(Image.fromarray(pixels).reduce(STEP), dtype=np.uint8)


def _pyramid(level: Pixels) -> Iterator[Pixels]:
    """This level and coarser ones, until one fits in a few tiles."""
    yield level
    while min(level.shape[:2]) >= TILE * 4:
        rows, columns = level.shape[0] // STEP * STEP, level.shape[1] // STEP * STEP
        strips = [
            reduced(np.ascontiguousarray(level[top : min(top + TILE, rows), :columns]))
            for top in range(0, rows, TILE)
        ]
        level = np.concatenate(strips)
        yield level


def _fitted(pixels: Pixels, edge: int) -> Pixels:
    scale = min(1.0, edge / max(pixels.shape[:2]))
    size = (max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale)))
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BOX), dtype=np.uint8)


def _encoded(level: Pixels) -> Iterator[bytes]:
    """The tiles of a level, row by row, filled up with glass."""
    rows, columns = level.shape[:2]
    for top in range(0, rows, TILE):
        for left in range(0, columns, TILE):
            tile = np.full((TILE, TILE, 3), GLASS, np.uint8)
            part = level[top : top + TILE, left : left + TILE]
            tile[: part.shape[0], : part.shape[1]] = part
            yield encode_tile(tile, FORM)
