# SPDX-License-Identifier: Apache-2.0
"""One passage over a slide's files: read once, hashed, and shown to all who look on."""

import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

from converters.errors import DamagedSlide
from converters.slide import Slide
from converters.writer.following import MOST_TILE_BYTES

WINDOW_BYTES = 2 << 20
_BUFFERS = 3


class Onlooker(Protocol):
    """Who wants to see bytes of files as they pass."""

    def see(self, source: int, position: int, data: memoryview) -> int:
        """Bytes of the file of this number from ``position`` on, gone after the call;
        returns from where on the next call's must begin."""


def pass_by(
    slide: Slide, onlookers: Sequence[Onlooker], report: Callable[[int], None] | None = None
) -> list[tuple[str, int, bytes]]:
    """Each file of the slide from its first byte to its last: name as scanned, size and
    SHA-256. ``report`` gets the bytes that passed. Raises OSError; DamagedSlide where an
    onlooker wants more kept than a file's window holds."""
    passed = 0
    digests = []
    with ThreadPoolExecutor(1, "sha256") as beside:
        buffers = [bytearray(WINDOW_BYTES) for _ in range(_BUFFERS)]
        for number, source in enumerate(slide.sources):
            size, digest = _pass_file(source.path, number, onlookers, buffers, beside, report, passed)
            digests.append((source.relative_name, size, digest))
            passed += size
    return digests


def _pass_file(
    path: Path,
    number: int,
    onlookers: Sequence[Onlooker],
    buffers: list[bytearray],
    beside: ThreadPoolExecutor,
    report: Callable[[int], None] | None,
    passed: int,
) -> tuple[int, bytes]:
    digest = hashlib.sha256()
    hashing: list[Future[None] | None] = [None] * len(buffers)
    kept = memoryview(b"")  # the end of the last window, which somebody wants to see again
    turn = position = 0
    with path.open("rb", buffering=0) as file:
        if hasattr(os, "posix_fadvise"):  # not on macOS
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
        while True:
            at = turn % len(buffers)
            turn += 1
            waiting = hashing[at]
            if waiting is not None:
                waiting.result()
            if len(buffers[at]) < len(kept) + WINDOW_BYTES:
                buffers[at] = bytearray(len(kept) + WINDOW_BYTES)
            window = memoryview(buffers[at])
            window[: len(kept)] = kept
            count = file.readinto(window[len(kept) : len(kept) + WINDOW_BYTES])
            if not count:
                break
            fresh = window[len(kept) : len(kept) + count]
            hashing[at] = beside.submit(digest.update, fresh)
            data, start = window[: len(kept) + count], position - len(kept)
            position += count
            needed = min((onlooker.see(number, start, data) for onlooker in onlookers), default=position)
            if not start <= needed <= position or position - needed > 2 * MOST_TILE_BYTES:
                raise DamagedSlide("tiles lie over each other")
            kept = data[needed - start :]
            if report is not None:
                report(passed + position)
    for waiting in hashing:
        if waiting is not None:
            waiting.result()
    return position, digest.digest()


def digest_of(files: Sequence[tuple[str, int, bytes]]) -> bytes:
    """SHA-256 of a slide of one file; of several, of the sorted manifest of name, size and
    SHA-256 (DESIGN 4), one ``name\\0size\\0hex\\n`` each."""
    if len(files) == 1:
        return files[0][2]
    lines = sorted(f"{name}\0{size}\0{digest.hex()}\n" for name, size, digest in files)
    return hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).digest()
