# SPDX-License-Identifier: Apache-2.0
"""Slides whose tiles must be made again: conversion against what decodes them.

MRXS (photos that overlap, stitched), CZI (zstd, overlapping), ND2 and VSI (raw, 16 bits), and VSI as
scanners of stained tissue write it (JPEG: its levels are copied, those it lacks computed), drawn
with grain until they compress as scanned tissue does (JPEG of quality 85 to 1.1 bits a pixel,
JPEG 2000 without loss to 6.5; CMU-1-Small-Region: 1.0 and 6.4).

The reader's own rate is that of the library which users of the format have (openslide,
pylibCZIrw, nd2, slideio), on one core, as none of them uses more. It gives the very pixels that
conversion must encode: all levels that the scanner wrote, tile by tile in rows, each as an array
of RGB or of one channel, with the cache that the library offers; the file is in memory. That rate
of the finest level alone is printed beside it, since a reader that interpolates coarser levels is
slower there.

The rate of conversion is of the same pixels, on all cores, from a file to a durable folder: it
decodes, encodes, computes the levels that are missing, hashes the source, writes, fsyncs. Target:
0.5 of the reader's. "Encoder alone" is what would come of it if all cores did nothing but encode
what is written, at the rate measured here on one (without loss, and with: JPEG of quality 85,
JPEG 2000 for 16 bits): where that is below the target, no
conversion with this encoder can meet it. "By processor time" is the ratio that the processor's time
of both gives, conversion's spread over all cores: what waiting for a disk or for others' work took is not
in it.
"""

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

RUNS = 3
EDGE = 8192
TILE = 512
TARGET = 0.5
ENCODED_TILES = 24
LOSSY = "lossy"
LOSSY_QUALITY = 85


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


def write_vsi_jpeg(folder: Path) -> Path:
    from tests.support.slides import olympus_stacks, olympus_vsi

    stack = olympus_stacks.DrawnStack(rows=EDGE, columns=EDGE, tile=TILE, levels=3)
    with mock.patch.object(olympus_stacks, "picture", grainy):
        return olympus_vsi.write_olympus_vsi(folder, (stack,))


def tiles(rows: int, columns: int) -> Iterator[tuple[int, int, int, int]]:
    """(Top, left, rows, columns) of a level's tiles."""
    for top in range(0, rows, TILE):
        for left in range(0, columns, TILE):
            yield top, left, min(TILE, rows - top), min(TILE, columns - left)


def read_mrxs(path: Path, levels: int) -> int:
    import numpy as np
    import openslide

    count = 0
    with openslide.OpenSlide(str(path)) as slide:
        x, y, columns, rows = (
            int(slide.properties[f"openslide.bounds-{name}"]) for name in ("x", "y", "width", "height")
        )
        for level, scale in list(enumerate(slide.level_downsamples))[:levels]:
            for top, left, down, across in tiles(int(rows / scale), int(columns / scale)):
                corner = x + int(left * scale), y + int(top * scale)
                np.asarray(slide.read_region(corner, level, (across, down)).convert("RGB"))
                count += down * across
    return count


def read_czi(path: Path, _: int) -> int:
    import numpy as np
    from pylibCZIrw import czi

    cache = czi.CacheOptions(
        type=czi.CacheType.Standard, max_memory_usage=512 << 20, max_sub_block_count=10_000
    )
    count = 0
    with czi.open_czi(str(path), cache_options=cache) as document:
        box = document.total_bounding_rectangle
        for top, left, down, across in tiles(box.h, box.w):
            blue_first = document.read(roi=(box.x + left, box.y + top, across, down), plane={"C": 0})
            colours = np.empty_like(blue_first)
            for sample in range(3):  # faster than all at once
                colours[..., sample] = blue_first[..., 2 - sample]
            count += down * across
    return count


def read_nd2(path: Path, _: int) -> int:
    import nd2
    import numpy as np

    count = 0
    with nd2.ND2File(path) as file:
        frame = file.read_frame(0)  # the mapped file: (channels, rows, columns), interleaved
        for channel in frame:
            for top, left, down, across in tiles(*channel.shape):
                count += np.ascontiguousarray(channel[top : top + down, left : left + across]).size
    return count


def read_vsi(path: Path, levels: int) -> int:
    import slideio

    scene = slideio.open_slide(str(path), "VSI").get_scene(0)
    columns, rows = scene.size
    count = 0
    for level in range(min(levels, scene.num_zoom_levels)):
        scale = 1 << level
        for channel in range(scene.num_channels):
            for top, left, down, across in tiles(rows // scale, columns // scale):
                region = left * scale, top * scale, across * scale, down * scale
                size = (across, down) if level else (0, 0)  # as it is, which is much faster
                count += scene.read_block(region, size=size, channel_indices=[channel]).size
    return count


def read_vsi_jpeg(path: Path, levels: int) -> int:
    import slideio

    scene = slideio.open_slide(str(path), "VSI").get_scene(0)
    columns, rows = scene.size
    count = 0
    for level in range(min(levels, scene.num_zoom_levels)):
        scale = 1 << level
        for top, left, down, across in tiles(rows // scale, columns // scale):
            region = left * scale, top * scale, across * scale, down * scale
            scene.read_block(region, size=(across, down) if level else (0, 0))
            count += down * across
    return count


FORMATS: dict[str, tuple[Callable[[Path], Path], Callable[[Path, int], int], str]] = {
    "mrxs": (write_mrxs, read_mrxs, "openslide"),
    "czi": (write_czi, read_czi, "pylibCZIrw"),
    "nd2": (write_nd2, read_nd2, "nd2"),
    "vsi": (write_vsi, read_vsi, "slideio"),
    "vsi-jpeg": (write_vsi_jpeg, read_vsi_jpeg, "slideio"),
}


def decode(name: str, path: Path) -> None:
    """Child, on one core: the reader's megapixels per second, and per second of the processor's
    time; of all levels, then of the finest."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    for levels in (99, 1):
        rates = []
        for _ in range(RUNS):
            begun, used = time.perf_counter(), time.process_time()
            pixels = FORMATS[name][1](path, levels) / 1e6
            rates.append((pixels / (time.perf_counter() - begun), pixels / (time.process_time() - used)))
        print(*map(statistics.median, zip(*rates, strict=True)))


def encode(_: str, path: Path) -> None:
    """Child, on one core: megapixels per second of each coding, of tiles of the finest level."""
    from converters.codecs import encode as encode_tile
    from converters.registry import open_slide
    from converters.writer.coding import LOSSLESS
    from converters.writer.tilework import TileWork

    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    with open_slide(path) as slide:
        work, level = TileWork(slide), slide.scenes[0].levels[0]
        step = max(1, level.number_of_frames // ENCODED_TILES)
        some = [work.pixels(0, 0, index) for index in range(0, level.number_of_frames, step)]
        for coding in (*LOSSLESS, LOSSY):
            form = choice(coding).of(level.pixel_type)
            begun = time.perf_counter()
            for pixels in some:
                encode_tile(
                    pixels,
                    form.transfer_syntax_uid,
                    form.quality or LOSSY_QUALITY,
                    bits_stored=level.pixel_type.bits_allocated,
                )
            seconds = time.perf_counter() - begun
            print(len(some) * level.tile_rows * level.tile_columns / 1e6 / seconds)
        work.close()


def choice(coding: str) -> "object":
    """Lossless, or as most converters do it: JPEG of 8 bits (JPEG 2000 of 16) with loss."""
    from converters.writer.coding import CodingChoice

    return CodingChoice(lossy_quality=LOSSY_QUALITY) if coding == LOSSY else CodingChoice(coding)


def child(*arguments: object) -> str:
    command = [sys.executable, __file__, "--child", *map(str, arguments)]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout


def pixel_counts(path: Path) -> tuple[int, int]:
    """(Of the scanner's levels, of all that are written); of optical paths and focal planes each."""
    from converters.workshop import Workshop
    from converters.writer.born import look_at
    from converters.writer.plan import plan

    with Workshop() as workshop, workshop.open(path) as opened:
        planned = plan(opened.slide, look_at(opened.slide, opened.bench).surveys)
        sizes = [
            (one.rows * one.columns * one.level.optical_paths * one.level.focal_planes, one.computed)
            for one in planned
        ]
    return sum(size for size, computed in sizes if not computed), sum(size for size, _ in sizes)


def processor_seconds() -> float:
    """Of this process and its children, so far."""
    ticks = 0
    for children in Path("/proc/self/task").glob("*/children"):
        for pid in children.read_text().split():
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
    return time.process_time() + ticks / os.sysconf("SC_CLK_TCK")


def convert(name: str, folder: Path, coding: str) -> tuple[float, float]:
    """Seconds, and seconds of processors, with children that have started, as a worker's have."""
    from converters.convert import ConvertOptions
    from converters.convert import convert as convert_slides
    from converters.workshop import Workshop

    with Workshop() as workshop:
        workshop.start()
        time.sleep(1)
        begun, used = time.perf_counter(), processor_seconds()
        options = ConvertOptions(coding=choice(coding))
        convert_slides([Path(name)], folder, options, workshop=workshop)
        return time.perf_counter() - begun, processor_seconds() - used


def main(runs: int, names: list[str]) -> int:
    import shutil

    from converters.writer.coding import DEFAULT_LOSSLESS, LOSSLESS

    cores = len(os.sched_getaffinity(0))
    print(f"{platform.platform()}, {cores} cores, load {os.getloadavg()[0]:.1f}")
    codings = (*LOSSLESS, LOSSY)
    met: dict[str, list[str]] = {coding: [] for coding in codings}
    for name in names:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            path = Path(child("write", name, folder).strip())
            reader, reader_processor, finest, _ = map(float, child("decode", name, path).split())
            encoders = map(float, child("encode", name, path).split())
            scanned, written = pixel_counts(path)
            print(
                f"{name}: {scanned / 1e6:.0f} Mpixel, {written / 1e6:.0f} written; {FORMATS[name][2]} on "
                f"one core {reader:.0f} Mpixel/s, of the finest level {finest:.0f}"
            )
            for coding, encoder in zip(codings, encoders, strict=True):
                times = []
                for _ in range(runs):
                    os.sync()
                    times.append(convert(str(path), folder / "out", coding))
                    shutil.rmtree(folder / "out")
                seconds, processor = map(statistics.median, zip(*times, strict=True))
                rate = scanned / 1e6 / seconds
                by_processor = scanned / 1e6 / (processor / cores) / reader_processor
                alone = encoder * cores * scanned / written
                if rate / reader >= TARGET:
                    met[coding].append(name)
                print(
                    f"  {coding:<9} {rate:7.1f} Mpixel/s  ratio {rate / reader:5.2f}, by processor time "
                    f"{by_processor:5.2f}, to the finest level's {rate / finest:5.2f}; encoder alone "
                    f"{alone:6.0f}, ratio {alone / reader:5.2f}",
                    flush=True,
                )
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
            {"decode": decode, "encode": encode}[verb](kind, Path(where))
    else:
        sys.exit(main(arguments.runs, arguments.format or list(FORMATS)))
