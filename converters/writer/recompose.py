# SPDX-License-Identifier: Apache-2.0
"""Levels whose frames are ours: tiles without a legal form in DICOM, encoded again, and
levels that the scanner did not write. Kept in one file each, whole or not at all, so that
a conversion that was killed goes on with the level where it stopped.
"""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from archive.part10.frame_table import encode_direct
from converters.errors import DamagedSlide
from converters.slide import Offsets
from converters.writer.coding import FrameCoding
from converters.writer.plan import PlannedLevel
from converters.writer.tilework import Bench, Half, Quad

PROGRESS_FRAMES = 64
MOST_HALVES_BYTES = 64 << 20  # kept in memory, so that small levels are not decoded for the next


@dataclass(frozen=True, eq=False)
class Recomposed:
    """Frames of all tiles of a level, one after another in ``path``, which is the
    caller's to delete. A length of 0 is a tile that the scanner left out. ``blank`` is
    what stands for it, at the end of the file; b"" where none is absent. ``halves`` of
    all tiles, where they were kept."""

    path: Path
    lengths: Offsets
    blank: bytes
    halves: Sequence[Half] = ()

    @property
    def absent(self) -> NDArray[np.bool_]:
        result: NDArray[np.bool_] = self.lengths == 0
        return result

    @property
    def starts(self) -> Offsets:
        ends: Offsets = np.cumsum(self.lengths, dtype=np.uint64)
        return ends - self.lengths

    @property
    def size_bytes(self) -> int:
        return int(self.lengths.sum())

    def frame_table(self, kept: NDArray[np.int64]) -> bytes:
        """Table of the tiles ``kept`` (by index); absent ones share the blank frame."""
        absent = self.absent[kept]
        starts = np.where(absent, np.uint64(self.size_bytes), self.starts[kept])
        return encode_direct(starts, np.where(absent, np.uint64(len(self.blank)), self.lengths[kept]))


def recompose(
    planned: PlannedLevel,
    coding: FrameCoding,
    bench: Bench,
    scratch: Path,
    name: str,
    finer: Recomposed | None,
    report: Callable[[int], None] | None = None,
) -> Recomposed:
    """The level's frames in ``scratch / name``, made by ``bench`` or found there.

    ``finer`` is the level before, where that was made here too: a computed level comes
    from it. ``report`` gets the number of frames done. Raises DamagedSlide for a tile that
    no decoder takes, UnsupportedCompression for one that none knows; nothing is left then.
    """
    path, done = scratch / f"{name}.frames", scratch / f"{name}.json"
    found = _found(path, done)
    if found is not None:
        return found
    halves: list[Half] | None = [] if _keeps_halves(planned, coding) else None
    if planned.computed:
        frames = _computed(planned, coding, bench, finer, halves)
    else:
        frames = _decoded(planned, coding, bench)
    lengths: list[int] = []
    partial = path.with_suffix(".part")
    try:
        with partial.open("wb") as out:
            for frame in frames:
                out.write(frame)
                lengths.append(len(frame))
                if report is not None and len(lengths) % PROGRESS_FRAMES == 1:
                    report(len(lengths))
            blank = b""
            if 0 in lengths:
                blank = bench.blank(planned.scene.index, planned.level.index, coding)
                out.write(blank)
            out.flush()
            os.fsync(out.fileno())
    except BaseException:
        with suppress(OSError):
            partial.unlink()
        raise
    if len(lengths) != planned.number_of_tiles:
        raise DamagedSlide(f"level {planned.index} gave {len(lengths)} of {planned.number_of_tiles} tiles")
    partial.rename(path)
    done.write_text(json.dumps({"lengths": lengths, "blank": blank.hex()}), encoding="ascii")
    return Recomposed(path, np.array(lengths, dtype=np.uint64), blank, halves or ())


def _keeps_halves(planned: PlannedLevel, coding: FrameCoding) -> bool:
    """Not with loss: a level must be the same where the finer one is read from its file."""
    level = planned.level
    quarter = level.tile_rows * level.tile_columns // 4 * level.pixel_type.samples_per_pixel
    size = planned.number_of_tiles * quarter * level.pixel_type.bits_allocated // 8
    even = level.tile_rows % 2 == level.tile_columns % 2 == 0
    return planned.computed and even and not coding.lossy_method and size <= MOST_HALVES_BYTES


def _found(path: Path, done: Path) -> Recomposed | None:
    """What an earlier run finished: the note is written last, and says how long it is."""
    try:
        note = json.loads(done.read_text(encoding="ascii"))
        lengths = np.array(note["lengths"], dtype=np.uint64)
        blank = bytes.fromhex(note["blank"])
        if path.stat().st_size == int(lengths.sum()) + len(blank):
            return Recomposed(path, lengths, blank)
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return None


def _decoded(planned: PlannedLevel, coding: FrameCoding, bench: Bench) -> Iterator[bytes]:
    return bench.frames(planned.scene.index, planned.level.index, range(planned.number_of_tiles), coding)


def _computed(
    planned: PlannedLevel,
    coding: FrameCoding,
    bench: Bench,
    finer: Recomposed | None,
    halves: list[Half] | None,
) -> Iterator[bytes]:
    """From the finer level's frames where they are ours, else from the scanner's tiles."""
    level = planned.level
    factor = 2 ** (planned.steps - 1)
    rows, columns = -(-level.rows // factor), -(-level.columns // factor)
    down, across = -(-rows // level.tile_rows), -(-columns // level.tile_columns)
    fd = -1 if finer is None else os.open(finer.path, os.O_RDONLY)
    starts = np.zeros(0, np.uint64) if finer is None else finer.starts

    def tile(outer: int, row: int, column: int) -> int | bytes | None:
        if row >= down or column >= across:
            return None
        index = (outer * down + row) * across + column
        if finer is None:
            return None if level.tiles.absent[index] else index
        if finer.halves:
            return finer.halves[index] or None
        return os.pread(fd, int(finer.lengths[index]), int(starts[index])) or None

    def quads() -> Iterator[Quad]:
        outers = level.optical_paths * level.focal_planes
        for outer, row, column in product(
            range(outers), range(planned.tiles_down), range(planned.tiles_across)
        ):
            tiles = tuple(tile(outer, 2 * row + r, 2 * column + c) for r in (0, 1) for c in (0, 1))
            yield Quad(
                tiles,
                min(2 * level.tile_rows, rows - 2 * row * level.tile_rows),
                min(2 * level.tile_columns, columns - 2 * column * level.tile_columns),
            )

    try:
        yield from bench.shrunk(planned.scene.index, level.index, quads(), coding, halves)
    finally:
        if fd >= 0:
            os.close(fd)
