# SPDX-License-Identifier: Apache-2.0
"""Slides whose tiles must be made again: conversion against what decodes them.

MRXS (photos that overlap, stitched), CZI (zstd, overlapping), ND2 and VSI (raw, 16 bits),
drawn with grain. Printed for each lossless coding are megapixels per second of a whole
conversion, all levels and fsync included, on all cores, counted in pixels of the levels that
the scanner wrote; and its ratio to the rate at which the format's own reader (openslide,
pylibCZIrw, nd2, slideio) decodes the finest level on one core. Target: 0.5 with encoding.
The reader's rate of raw pixels is that of copying memory, which no encoder comes near.
"""

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

RUNS = 3
EDGE = 6144
TILE = 512
TARGET = 0.5


def grainy(rows: int, columns: int, seed: int = 7) -> "object":
    """As ``make_slide.picture``, with the grain of a camera."""
    import numpy as np

    from tests.support.make_slide import picture

    generator = np.random.default_rng(seed)
    pixels = picture(rows, columns, seed)
    grain = generator.integers(-5, 6, (1024, 1024, 1), dtype=np.int8)
    for top in range(0, rows, 1024):
        for left in range(0, columns, 1024):
            part = pixels[top : top + 1024, left : left + 1024].astype(np.int16)
            part += grain[: part.shape[0], : part.shape[1]]
            pixels[top : top + 1024, left : left + 1024] = np.clip(part, 0, 255)
    return pixels


def write_mrxs(folder: Path) -> Path:
    from tests.support.slides import mrxs

    fields = (EDGE // 964, EDGE // 964)
    with mock.patch.object(mrxs, "picture", grainy):
        return mrxs.write_mrxs(
            folder, fields=fields, divisions=4, image=(256, 256), overlap=(60, 60), positions="stitching",
            origin=(60, 90), jitter=5, levels=4,
        )  # fmt: skip


def write_czi(folder: Path) -> Path:
    from tests.support.slides import czi_writer

    pixels = grainy(EDGE, EDGE)
    writer = czi_writer.CziWriter()
    step = TILE * 2 - 64
    for number, (top, left) in enumerate(
        (top, left) for top in range(0, EDGE - 64, step) for left in range(0, EDGE - 64, step)
    ):
        tile = pixels[top : top + TILE * 2, left : left + TILE * 2]  # type: ignore[index]
        writer.add(tile, left, top, compression=czi_writer.ZSTD_1, C=0, S=0, M=number)
    return writer.save(folder / "slide.czi", czi_writer.metadata_xml())


def write_nd2(folder: Path) -> Path:
    from tests.support.slides import nikon_nd2

    with mock.patch.object(nikon_nd2, "picture", grainy):
        return nikon_nd2.write_nikon_nd2(folder, channels=2, rows=EDGE // 2, columns=EDGE, bits=12)


def write_vsi(folder: Path) -> Path:
    from tests.support.slides import olympus_stacks, olympus_vsi

    channels = (("DAPI", 455.0), ("FITC", 518.0))
    stack = olympus_stacks.DrawnStack(
        rows=EDGE // 2, columns=EDGE, tile=TILE, levels=3, coding="raw", channels=channels, bits=16, axes="c"
    )
    with mock.patch.object(olympus_stacks, "picture", grainy):
        return olympus_vsi.write_olympus_vsi(folder, (stack,))


def read_mrxs(path: Path) -> int:
    import openslide

    with openslide.OpenSlide(str(path)) as slide:
        columns, rows = slide.dimensions
        for top in range(0, rows, 2 * TILE):
            slide.read_region((0, top), 0, (columns, min(2 * TILE, rows - top)))
    return int(rows * columns)


def read_czi(path: Path) -> int:
    from pylibCZIrw import czi

    with czi.open_czi(str(path)) as document:
        box = document.total_bounding_rectangle
        for top in range(box.y, box.y + box.h, 2 * TILE):
            height = min(2 * TILE, box.y + box.h - top)
            document.read(roi=(box.x, top, box.w, height), plane={"C": 0})
    return int(box.w * box.h)


def read_nd2(path: Path) -> int:
    import nd2
    import numpy as np

    with nd2.ND2File(path) as file:
        frame = np.array(file.read_frame(0))  # out of the mapped file
    return frame.size


def read_vsi(path: Path) -> int:
    import slideio

    scene = slideio.open_slide(str(path), "VSI").get_scene(0)
    columns, rows = scene.size
    for top in range(0, rows, 2 * TILE):
        scene.read_block((0, top, columns, min(2 * TILE, rows - top)))
    return int(columns * rows * scene.num_channels)


FORMATS: dict[str, tuple[Callable[[Path], Path], Callable[[Path], int], str]] = {
    "mrxs": (write_mrxs, read_mrxs, "openslide"),
    "czi": (write_czi, read_czi, "pylibCZIrw"),
    "nd2": (write_nd2, read_nd2, "nd2"),
    "vsi": (write_vsi, read_vsi, "slideio"),
}


def decode(name: str, path: Path) -> None:
    """Child, on one core: the reader's megapixels per second."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    rates = []
    for _ in range(RUNS):
        begun = time.perf_counter()
        pixels = FORMATS[name][1](path)
        rates.append(pixels / 1e6 / (time.perf_counter() - begun))
    print(statistics.median(rates))


def child(*arguments: object) -> str:
    command = [sys.executable, __file__, "--child", *map(str, arguments)]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout


def scanned_pixels(path: Path) -> int:
    """Samples of a pixel count once, optical paths and focal planes each."""
    from converters.workshop import Workshop

    with Workshop() as workshop, workshop.open(path) as opened:
        return sum(
            level.rows * level.columns * level.optical_paths * level.focal_planes
            for scene in opened.slide.scenes
            for level in scene.levels
        )


def convert(name: str, folder: Path, coding: str) -> float:
    """Seconds, with children that have started, as a worker's have."""
    from converters.convert import ConvertOptions
    from converters.convert import convert as convert_slides
    from converters.workshop import Workshop
    from converters.writer.coding import CodingChoice

    with Workshop() as workshop:
        workshop.start()
        time.sleep(1)
        begun = time.perf_counter()
        options = ConvertOptions(coding=CodingChoice(coding))
        convert_slides([Path(name)], folder, options, workshop=workshop)
        return time.perf_counter() - begun


def main(runs: int, names: list[str]) -> int:
    import shutil

    from converters.writer.coding import DEFAULT_LOSSLESS, LOSSLESS

    print(f"{platform.platform()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    met: dict[str, list[str]] = {coding: [] for coding in LOSSLESS}
    for name in names:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            path = Path(child("write", name, folder).strip())
            reader = float(child("decode", name, path))
            pixels = scanned_pixels(path)
            print(f"{name}: {pixels / 1e6:.0f} Mpixel; {FORMATS[name][2]} {reader:.0f} Mpixel/s on one core")
            for coding in LOSSLESS:
                times = []
                for _ in range(runs):
                    os.sync()
                    times.append(convert(str(path), folder / "out", coding))
                    shutil.rmtree(folder / "out")
                rate = pixels / 1e6 / statistics.median(times)
                if rate / reader >= TARGET:
                    met[coding].append(name)
                print(f"  {coding:<9} {rate:7.1f} Mpixel/s  ratio {rate / reader:5.2f}")
    for coding, formats in met.items():
        print(f"{TARGET:g} is met with {coding}: {', '.join(formats) or 'never'}")
    return 0 if set(met[DEFAULT_LOSSLESS]) == set(names) else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--format", action="append", choices=FORMATS)
    parser.add_argument("--child", nargs=3, metavar=("VERB", "FORMAT", "PATH"))
    arguments = parser.parse_args()
    if arguments.child:
        verb, kind, where = arguments.child
        if verb == "write":
            print(FORMATS[kind][0](Path(where)))
        else:
            decode(kind, Path(where))
    else:
        sys.exit(main(arguments.runs, arguments.format or list(FORMATS)))
