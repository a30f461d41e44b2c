# SPDX-License-Identifier: Apache-2.0
"""Recompression of one received instance: ``python benchmarks/recompress.py [SLIDE.svs]``.

The frames are tissue-like tiles, or those of the first level of an SVS (JPEG in RGB or
YCbCr). Printed are the share that is saved and rates in MB of JPEG per second: packing
(with its proof), the way back, and the whole instance read before and after; then the
ratio of packing over the bare codec (encode, decode, one thread) in the same run. Goals:
15 % saved, ratio at most 1.5.
"""

import io
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

RUNS = 3
FRAMES, TILE, QUALITY = 256, 256, 80
GOAL_SAVED, GOAL_RATIO = 0.15, 1.5


def made_tiles() -> list[bytes]:
    import numpy as np
    from PIL import Image

    from tests.support.make_slide import noisy_tile

    tiles = []
    for seed in range(FRAMES):
        out = io.BytesIO()
        Image.fromarray(noisy_tile(np.random.default_rng(seed), TILE)).save(out, "JPEG", quality=QUALITY)
        tiles.append(out.getvalue())
    return tiles


def tiles_of(path: Path) -> tuple[list[bytes], int]:
    """Complete JPEGs of a slide's first level, and their edge in pixels."""
    import tifffile

    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[0]
        tables = page.jpegtables or b""
        tiles = []
        for offset, length in zip(page.dataoffsets, page.databytecounts, strict=True):
            tiff.filehandle.seek(offset)
            tile = tiff.filehandle.read(length)
            tiles.append(tile[:2] + tables[2:-2] + tile[2:])
        return tiles, page.tilewidth


def bare(tiles: list[bytes]) -> None:
    """The codec alone, as packing uses it."""
    import imagecodecs

    for tile in tiles:
        packed = imagecodecs.jpegxl_encode_jpeg(tile, numthreads=1)
        if bytes(imagecodecs.jpegxl_decode_jpeg(packed, numthreads=1)) != tile:
            raise SystemExit("a tile does not come back")


def seconds(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def main() -> int:
    from gateway.codec_pool import CodecPool
    from tests.support.archives import ASK, open_archive, store_bytes
    from tests.support.instances import make_instance

    tiles, edge = tiles_of(Path(sys.argv[1])) if len(sys.argv) > 1 else (made_tiles(), TILE)
    data = make_instance(tiles=tiles, tile=edge, frames=len(tiles))
    size = sum(map(len, tiles))
    times: dict[str, list[float]] = {
        name: [] for name in ("read before", "recompress", "read after", "undo", "bare codec")
    }
    saved = 0.0
    with tempfile.TemporaryDirectory() as folder, CodecPool(2, 2 << 30, 60) as pool:
        archive = open_archive(Path(folder), codec=pool)
        stored = store_bytes(archive, data)
        study, series, sop = stored.study_instance_uid, stored.series_instance_uid, stored.sop_instance_uid
        instance = archive.instance(study, series, sop, **ASK)
        pool.start()

        def read() -> None:
            if b"".join(archive.open(instance, **ASK).chunks) != data:
                raise SystemExit("the instance reads differently")

        def change(*, undo: bool) -> None:
            nonlocal saved
            (one,) = archive.recompress(study, reason="benchmark", undo=undo, **ASK)
            if not undo:
                saved = 1 - one.size_after_bytes / one.size_before_bytes

        for _ in range(RUNS):
            times["read before"].append(seconds(read))
            times["recompress"].append(seconds(lambda: change(undo=False)))
            times["read after"].append(seconds(read))
            times["undo"].append(seconds(lambda: change(undo=True)))
            times["bare codec"].append(seconds(lambda: bare(tiles)))
        archive.close()
    median = {name: statistics.median(found) for name, found in times.items()}
    print(f"{len(tiles)} frames, {size / 1e6:.1f} MB, load {os.getloadavg()[0]:.1f}, medians of {RUNS}")
    for name, taken in median.items():
        rate, each_ms = size / 1e6 / taken, taken / len(tiles) * 1e3
        print(f"{name:<14} {taken:8.3f} s {rate:8.1f} MB/s {each_ms:7.2f} ms a frame")
    ratio = median["recompress"] / median["bare codec"]
    print(f"saved {saved:.1%} (goal {GOAL_SAVED:.0%}), ratio {ratio:.2f} (goal {GOAL_RATIO})")
    return 0 if saved >= GOAL_SAVED and ratio <= GOAL_RATIO else 1


if __name__ == "__main__":
    sys.exit(main())
