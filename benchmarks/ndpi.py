# SPDX-License-Identifier: Apache-2.0
"""An NDPI of about 226 MB to DICOM files: restart intervals put together, nothing decoded.

Target: at most 5 s for the whole process, interpreter and imports included, and at least
twice as fast as wsidicomizer 0.26.1 with tiles of 512 pixels, in turns, on an NDPI of the
same size whose intervals are 512 pixels wide: with wider ones its tiles become sixteen times
as large, and it needs minutes. Besides: how long the reader needs for the places of 500,000
intervals (target 2 s).
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

from benchmarks import peer

RUNS = 5
TARGET_S, OPEN_TARGET_S, PEER_TARGET = 5.0, 2.0, 2.0
PEER_RUNS = 3


def make_slides(wide: Path, narrow: Path) -> None:
    """Child: the slides, whose making takes memory that would be counted below."""
    from tests.support.slides.ndpi import big_ndpi

    big_ndpi(wide)
    big_ndpi(narrow, edge=96 * 512, interval_columns=512)


def make_for_peer(slide: Path, _: Path) -> None:
    """Child: what wsidicomizer takes as well."""
    from tests.support.slides.ndpi import big_ndpi

    big_ndpi(slide, interval_columns=512)


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


def timed(slide: Path, folder: Path) -> tuple[float, int]:
    """Seconds of a whole conversion into ``folder``, removed again; MB of its process."""
    os.sync()
    begun = time.monotonic()
    peak = int(child("convert", slide, folder))
    taken = time.monotonic() - begun
    shutil.rmtree(folder)
    return taken, peak


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
            seconds, peak = timed(slide, folder / f"out{run}")
            times.append(seconds)
            peaks.append(peak)
        program = peer.wsidicomizer()
        ours, theirs = [], []
        if isinstance(program, Path):
            child("peer", slide, slide)
            for _ in range(min(runs, PEER_RUNS)):
                ours.append(timed(slide, folder / "ours")[0])
                theirs.append(peer.convert(program, slide, folder / "theirs", "-t", "512")[0])
                shutil.rmtree(folder / "theirs")
        taken = statistics.median(times)
    print(f"{size_mb:.0f} MB converted in {taken:.2f} s, {size_mb / taken:.0f} MB/s, peak {max(peaks)} MB")
    print(f"{pieces // 2} intervals found and placed in {opening:.2f} s")
    met = taken <= TARGET_S and opening <= OPEN_TARGET_S
    if isinstance(program, str):
        print(f"skipped: {program}")
    else:
        slower = statistics.median(theirs)
        ratio = slower / statistics.median(ours)
        print(f"of 512 columns: ours {statistics.median(ours):.2f} s, wsidicomizer {slower:.2f} s")
        print(f"wsidicomizer / ours {ratio:.2f} (target >= {PEER_TARGET:g})")
        met = met and ratio >= PEER_TARGET
    return 0 if met else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--child", nargs=3, metavar=("VERB", "PATH", "PATH"))
    arguments = parser.parse_args()
    if arguments.child:
        verb, first, second = arguments.child
        {"make": make_slides, "peer": make_for_peer, "convert": convert_one}[verb](Path(first), Path(second))
    else:
        sys.exit(main(arguments.runs))
