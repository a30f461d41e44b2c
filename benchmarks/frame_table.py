# SPDX-License-Identifier: Apache-2.0
"""Frame table of a slide level against pydicom: ``python -m benchmarks.frame_table``.

Makes a file of 19,200 JPEG-sized frames (330 MB) in a temporary folder, then times, in
turns, ``scan_file`` (whole: header, checks and table) and ``dcmread`` with
``generate_frames``. Prints medians of CPU and wall seconds and their ratio; exits 1 if
the ratio of CPU is below the goal. Frame lengths are equal or it fails.
"""

import os
import platform
import random
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
from pydicom import dcmread
from pydicom.encaps import generate_frames

from archive.part10.frame_table import FrameTable, Range, encode_direct
from archive.part10.meta import encode_meta
from archive.part10.normal_form import (
    element_header,
)
from archive.part10.scan import scan_file
from archive.part10.stream import Part10Stream

FRAMES = 19_200
MEAN_BYTES = 17_200
GOAL = 5.0
SOP_CLASS = "1.2.840.10008.5.1.4.1.1.77.1.6"
JPEG_BASELINE = "1.2.840.10008.1.2.4.50"


def hardware() -> str:
    """Processor, cores and memory, one line."""
    model = platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    load = os.getloadavg()[0]
    return (
        f"{model}, {os.cpu_count()} cores, {memory:.0f} GiB, load {load:.1f}, "
        f"Python {platform.python_version()}"
    )


def make_header() -> bytes:
    """A data set with what frames need."""
    elements = [
        (0x00080016, b"UI", SOP_CLASS.encode()),
        (0x00080018, b"UI", b"2.25.1"),
        (0x0020000D, b"UI", b"2.25.2"),
        (0x0020000E, b"UI", b"2.25.3"),
        (0x00280002, b"US", b"\x03\x00"),
        (0x00280004, b"CS", b"YBR_FULL_422"),
        (0x00280008, b"IS", b"%d" % FRAMES),
        (0x00280010, b"US", b"\x00\x01"),
        (0x00280011, b"US", b"\x00\x01"),
        (0x00280100, b"US", b"\x08\x00"),
    ]
    header = encode_meta(SOP_CLASS, "2.25.1", JPEG_BASELINE)
    for tag, vr, value in elements:
        value += b"\x00" * (len(value) % 2)
        header += element_header(tag, vr, len(value)) + value
    return header


def make_file(path: Path) -> None:
    """Encapsulated frames of random bytes between SOI and EOI, and no offset table of
    use to pydicom but the basic one that the stream writer makes."""
    rng = random.Random(1)
    lengths = np.array([rng.randrange(MEAN_BYTES // 2, MEAN_BYTES * 3 // 2) for _ in range(FRAMES)])
    table = FrameTable.from_bytes(encode_direct(np.zeros(FRAMES, dtype=np.uint64), lengths))
    noise = b"\xff\xd8" + rng.randbytes(MEAN_BYTES * 3 // 2)
    with path.open("wb") as file:
        for part in Part10Stream(make_header(), JPEG_BASELINE, table).parts():
            file.write(noise[: part.length - 2] + b"\xff\xd9" if isinstance(part, Range) else part)


def ours(path: Path) -> list[int]:
    return list(FrameTable.from_bytes(scan_file(path).frame_table).lengths())


def pydicoms(path: Path) -> list[int]:
    dataset = dcmread(path)
    return [len(frame) for frame in generate_frames(dataset.PixelData, number_of_frames=FRAMES)]


def timed(function: Callable[[Path], list[int]], path: Path) -> tuple[float, float, list[int]]:
    """CPU seconds, wall seconds, result."""
    cpu, wall = time.process_time(), time.perf_counter()
    result = function(path)
    return time.process_time() - cpu, time.perf_counter() - wall, result


def main() -> int:
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "level.dcm"
        make_file(path)
        print(hardware())
        print(f"{FRAMES} frames, {path.stat().st_size / 1e6:.0f} MB, page cache warm, medians of 5")
        runs: dict[str, list[tuple[float, float, list[int]]]] = {"scan_file": [], "dcmread": []}
        for _ in range(5):
            runs["scan_file"].append(timed(ours, path))
            runs["dcmread"].append(timed(pydicoms, path))
    if any(run[2] != runs["dcmread"][0][2] for run in runs["scan_file"]):
        print("the frames differ")
        return 1
    medians = {
        name: [statistics.median(run[n] for run in results) for n in (0, 1)] for name, results in runs.items()
    }
    for name, (cpu, wall) in medians.items():
        print(f"{name:<36} CPU {cpu:.4f} s  wall {wall:.4f} s")
    cpu_ratio, wall_ratio = (medians["dcmread"][n] / medians["scan_file"][n] for n in (0, 1))
    print(f"{'ratio (goal ' + format(GOAL, '.0f') + ')':<36} CPU {cpu_ratio:.1f}      wall {wall_ratio:.1f}")
    return 0 if cpu_ratio >= GOAL else 1


if __name__ == "__main__":
    sys.exit(main())
