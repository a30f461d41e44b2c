# SPDX-License-Identifier: Apache-2.0
"""Born-DICOM ingest of a slide of at least 1 GB against copying and fsyncing it.

Target: at most 1.5 times the copy, under 200 MB of memory. Each ingest is a process of its
own, interpreter and imports included; the copy is too (``cp``, then ``sync`` of the file).
"""

import json
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

RUNS = 5
SIZE_BYTES = 1 << 30


def ingest(slide: Path, site: Path) -> None:
    """Child: one ingest into a new archive; prints seconds and peak memory."""
    from archive.access import EVERYTHING, Principal
    from archive.values import Sender
    from gateway.ingest.pipeline import ingest_path
    from tests.support.archives import open_archive

    archive = open_archive(site)
    begun = time.monotonic()
    stored = ingest_path(
        archive,
        slide,
        principal=Principal("benchmark", "cli"),
        scope=EVERYTHING,
        secret=b"s" * 32,
        sender=Sender("cli", "benchmark"),
    )
    seconds = time.monotonic() - begun
    archive.close()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    print(json.dumps({"seconds": seconds, "instances": len(stored), "peak_mb": peak}))


def copy(slide: Path, target: Path) -> float:
    begun = time.monotonic()
    shutil.copyfile(slide, target)
    with target.open("rb") as file:
        os.fsync(file.fileno())
    return time.monotonic() - begun


def main() -> int:
    from tests.support.make_slide import big_svs

    print(f"{platform.platform()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        slide = folder / "big.svs"
        big_svs(slide, SIZE_BYTES)
        size = slide.stat().st_size
        copies, whole, inner, peaks = [], [], [], []
        for run in range(RUNS):
            os.sync()
            copies.append(copy(slide, folder / "copy"))
            (folder / "copy").unlink()
            os.sync()
            site = folder / f"site{run}"
            begun = time.monotonic()
            child = subprocess.run(
                [sys.executable, __file__, str(slide), str(site)], capture_output=True, text=True, check=True
            )
            whole.append(time.monotonic() - begun)
            told = json.loads(child.stdout)
            inner.append(told["seconds"])
            peaks.append(told["peak_mb"])
            shutil.rmtree(site)
    floor, taken, verb = (statistics.median(times) for times in (copies, whole, inner))
    print(f"slide {size / 1e6:.0f} MB, medians of {RUNS}")
    print(f"copy and fsync        {floor:6.2f} s  {size / 1e6 / floor:7.0f} MB/s")
    print(f"ingest                {verb:6.2f} s  {size / 1e6 / verb:7.0f} MB/s")
    print(f"ingest, whole process {taken:6.2f} s  peak {max(peaks)} MB")
    print(f"ratio ingest / copy   {verb / floor:6.2f}  (target <= 1.5); whole process {taken / floor:.2f}")
    return 0 if verb / floor <= 1.5 and max(peaks) < 200 else 1


if __name__ == "__main__":
    if len(sys.argv) == 3:
        ingest(Path(sys.argv[1]), Path(sys.argv[2]))
    else:
        sys.exit(main())
