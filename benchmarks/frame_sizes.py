# SPDX-License-Identifier: Apache-2.0
"""Latency of a frame by the size of its file and by its number; memory after browsing.

Slides of 1, 100 and 1000 MB, one of 100,000 frames (small ones), and one of 4 GB that takes
100 MB: the frames of an ingested one moved apart in its file, with holes between. Of each a process that
has just started, its files not in the page cache, gives the last frame first; then frames
here and there, still cold; then the first, the middle and the last hundred, all cached.
The goal is flat: each within a factor of two of the smallest slide's, or half a
millisecond; and at most 150 MB for a process that has browsed. A slide takes twice its size
in the temporary folder: ``--sizes-mb 1,100,1000,4096`` needs 9 GB there (TMPDIR).
"""

import argparse
import os
import platform
import random
import shutil
import statistics
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from archive.part10.frame_table import MAGIC, FrameTable, encode_direct
from benchmarks.frames_http import ACCEPT, MEMORY_MB, Viewer, served, web_memory_mb
from tests.support.make_slide import big_svs
from tests.support.server import running_server

COLD = 40
BROWSED = 3000
MANY_FRAMES = 100_000
SPARSE_BYTES = 4 << 30


def forget(folder: Path) -> None:
    """Have the kernel drop these files from the page cache."""
    os.sync()
    for path in folder.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(descriptor)


def spread(store: Path, size_bytes: int) -> None:
    """Move the frames of the largest instance apart until its file is so large, with holes
    between them, and write its frame table anew to match."""
    blob = max((path for path in store.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    best: tuple[int, Path, int] = (0, blob, 0)
    for record in store.rglob("*"):
        if record.is_file() and record != blob:
            data = record.read_bytes()
            place = data.find(MAGIC)
            while place >= 0:
                count = int.from_bytes(data[place + 8 : place + 16], "little")
                best = max(best, (count, record, place))
                place = data.find(MAGIC, place + 1)
    count, record, place = best
    raw = record.read_bytes()[place:]
    heap_offset, heap_length = (int.from_bytes(raw[n : n + 8], "little") for n in (24, 32))
    length = heap_offset + heap_length
    table = FrameTable.from_bytes(raw[:length])
    entries = table.direct_entries()
    step = size_bytes // count
    offsets = [number * step for number in range(1, count + 1)]
    made = encode_direct(
        offsets, entries["length"], blob_index=entries["blob"], prefixes=table.prefixes,
        prefix_ids=entries["prefix"], skips=entries["skip"],
    )  # fmt: skip
    if len(made) != length:
        raise RuntimeError("the table has another size")
    blob.chmod(0o600)
    record.chmod(0o600)
    with blob.open("r+b") as file:
        frames = [os.pread(file.fileno(), int(entry["length"]), int(entry["offset"])) for entry in entries]
        file.truncate(0)
        file.truncate(size_bytes + (1 << 20))
        for offset, frame in zip(offsets, frames, strict=True):
            os.pwrite(file.fileno(), frame, offset)
    with record.open("r+b") as file:
        os.pwrite(file.fileno(), made, place)


def measure(data: Path, slide: Path, kind: str, sparse_bytes: int = 0) -> tuple[dict[str, float], int]:
    """Milliseconds by what was asked, and the megabytes of the largest web process."""
    arguments = ("--set", f"http.server={kind}")
    with running_server(data, *arguments) as server:
        path = served(server, data, slide)
        level = server.json(f"{path}/metadata", "application/dicom+json")[0]
        count = level["00280008"]["Value"][0]
    if sparse_bytes:
        spread(data / "store", sparse_bytes)
    forget(data / "store")
    chance = random.Random(1)
    found: dict[str, float] = {"frames": count}
    with running_server(data, *arguments) as server:
        viewer = Viewer(server, path)
        found["new process, cold"] = viewer.ms(str(count))
        if not server.get(f"{path}/frames/{count}", ACCEPT).startswith(b"\xff\xd8"):
            raise RuntimeError("the last frame is none")
        forget(data / "store")
        scattered = [chance.randrange(1, count + 1) for _ in range(COLD)]
        found["cold"] = statistics.median(viewer.ms(str(number)) for number in scattered)
        some = min(100, count)
        for name, first in (("first", 1), ("middle", max(1, count // 2)), ("last", count - some + 1)):
            numbers = [str(min(count, first + n)) for n in range(some)]
            for number in numbers:
                viewer.ms(number)
            found[name] = statistics.median(viewer.ms(number) for number in numbers)
        for _ in range(BROWSED):
            viewer.ms(str(chance.randrange(1, count + 1)))
        viewer.close()
        return found, web_memory_mb(server.process.pid)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--sizes-mb", default="1,100,1000")
    parser.add_argument("--server", default="gunicorn", choices=("gunicorn", "granian"))
    chosen = parser.parse_args()
    print(f"{platform.platform()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, {chosen.server}")
    rows: dict[str, dict[str, float]] = {}
    memory = 0
    plans = [(f"{size} MB", int(size) << 20, 256, 0) for size in chosen.sizes_mb.split(",")]
    plans += [(f"{MANY_FRAMES:,} frames", 0, 64, 0), ("4 GB with holes", 100 << 20, 256, SPARSE_BYTES)]
    for label, size, tile, sparse in plans:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            slide = big_svs(folder / "slide.svs", size or bytes_of(folder, tile), tile=tile)
            rows[label], used = measure(folder / "site", slide, chosen.server, sparse)
            memory = max(memory, used)
            shutil.rmtree(folder / "site")
        text = ", ".join(f"{what} {value:.2f}" for what, value in rows[label].items() if what != "frames")
        print(f"{label:>15} ({rows[label]['frames']:.0f} frames), ms: {text}; {used} MB", flush=True)
    flat = all(
        row[what] <= max(2 * least[what], least[what] + 0.5)
        for least in [next(iter(rows.values()))]
        for row in rows.values()
        for what in ("first", "middle", "last")
    )
    print(
        f"cached frames flat: {'yes' if flat else 'NO'}; largest web process {memory} MB (goal {MEMORY_MB})"
    )
    print(f"load at the end {os.getloadavg()[0]:.1f}")
    return 0 if flat and memory <= MEMORY_MB else 1


def bytes_of(folder: Path, tile: int) -> int:
    """How large a slide must be to have ``MANY_FRAMES`` of this size on its finest level."""
    small = folder / "small.svs"
    big_svs(small, 1 << 20, tile=tile)
    from benchmarks.frames_http import slide_of

    lengths = slide_of(small).lengths
    small.unlink()
    return MANY_FRAMES * sum(lengths) // len(lengths)


if __name__ == "__main__":
    sys.exit(main())
