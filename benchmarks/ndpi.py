# SPDX-License-Identifier: Apache-2.0
"""An NDPI of about 226 MB to DICOM files: restart intervals put together, nothing decoded.

Target: at most 5 s for the whole process, interpreter and imports included. Besides: how
long the reader needs for the places of 500,000 intervals (target 2 s).
"""

import argparse
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

RUNS = 3
TARGET_S, OPEN_TARGET_S = 5.0, 2.0


def make_slides(wide: Path, narrow: Path) -> None:
    """Child: the slides, whose making takes memory that would be counted below."""
    from tests.support.slides.ndpi import big_ndpi

    big_ndpi(wide)
    big_ndpi(narrow, edge=96 * 512, interval_columns=512)


def convert_one(slide: Path, folder: Path) -> None:
    """Child: one conversion; prints its peak memory in MB."""
    from converters.convert import ConvertOptions, convert

    convert([slide], folder, ConvertOptions())
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10)


def seconds_to_open(slide: Path) -> tuple[float, int]:
    """Seconds, and number of pieces of the finest level."""
    from converters.registry import open_slide
    from converters.slide import GatherMap

    begun = time.monotonic()
    with open_slide(slide) as opened:
        tiles = opened.scenes[0].levels[0].tiles
        taken = time.monotonic() - begun
    assert isinstance(tiles, GatherMap)
    return taken, len(tiles.offsets)


def child(verb: str, *paths: Path) -> str:
    command = [sys.executable, __file__, "--child", verb, *map(str, paths)]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout


def main(runs: int) -> int:
    print(f"{platform.platform()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        slide, narrow = folder / "big.ndpi", folder / "narrow.ndpi"
        child("make", slide, narrow)
        size_mb = slide.stat().st_size / 1e6
        opening, pieces = seconds_to_open(narrow)
        narrow.unlink()
        times, peaks = [], []
        for run in range(runs):
            os.sync()
            begun = time.monotonic()
            peaks.append(int(child("convert", slide, folder / f"out{run}")))
            times.append(time.monotonic() - begun)
            shutil.rmtree(folder / f"out{run}")
        taken = statistics.median(times)
    print(f"{size_mb:.0f} MB converted in {taken:.2f} s, {size_mb / taken:.0f} MB/s, peak {max(peaks)} MB")
    print(f"{pieces // 2} intervals found and placed in {opening:.2f} s")
    return 0 if taken <= TARGET_S and opening <= OPEN_TARGET_S else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--child", nargs=3, metavar=("VERB", "PATH", "PATH"))
    arguments = parser.parse_args()
    if arguments.child:
        verb, first, second = arguments.child
        {"make": make_slides, "convert": convert_one}[verb](Path(first), Path(second))
    else:
        sys.exit(main(arguments.runs))
