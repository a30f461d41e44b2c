# SPDX-License-Identifier: Apache-2.0
"""Levels whose frames are ours: tiles without a legal form in DICOM, encoded again, and
levels that the scanner did not write. Kept in one file each, whole or not at all, so that
a conversion that was killed goes on with the level where it stopped.

Frames lie in the order in which they were made: down stripes of some tiles' width, one for each
of those who work, so that what neighbouring tiles share (a photo, a sub-block) is decoded once.
The level that is computed from the scanner's coarsest is made along with that one, while its
pixels are there.
"""

import json
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from itertools import product, tee
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from archive.part10.frame_table import encode_direct
from converters.errors import DamagedSlide
from converters.slide import Level, Offsets
from converters.writer.coding import FrameCoding
from converters.writer.plan import PlannedLevel, computed_levels
from converters.writer.tilework import Bench, Half, Quad, batch_quads

PROGRESS_FRAMES = 64
MOST_HALVES_BYTES = 64 << 20  # kept in memory, so that small levels are not decoded for the next
STRIPE_COLUMNS = 8192  # pixels: so wide that what is shared across it is little, and fits in memory
CHECK_BYTES = 1 << 22


@dataclass(frozen=True, eq=False)
class Recomposed:
    """Frames of all tiles of the level ``place`` (scene and level, by index), each at its start
    in ``path``, which is the caller's to delete.
    A length of 0 is a tile that the scanner left out. ``blank`` is what stands
    for it, at the end of the file; b"" where none is absent. ``halves`` of all tiles, where
    they were kept. ``coarser`` is the next level, where it was made along, not yet taken."""

    place: tuple[int, int]
    path: Path
    starts: Offsets
    lengths: Offsets
    blank: bytes
    halves: Sequence[Half] = ()
    coarser: "Recomposed | None" = None

    @property
    def absent(self) -> NDArray[np.bool_]:
        result: NDArray[np.bool_] = self.lengths == 0
        return result

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
    from it, or was made along with it. ``report`` gets the number of frames done. Raises
    DamagedSlide for a tile that no decoder takes, UnsupportedCompression for one that none
    knows; nothing is left then.
    """
    path = scratch / f"{name}.frames"
    place = planned.scene.index, planned.index
    found = _found(path, place)
    if found is not None:
        return found
    if finer is not None and finer.coarser is not None and finer.coarser.place == place:
        return _taken(finer.coarser, path)
    if planned.steps == 1:
        finer = None  # the scanner's own tiles are nearer to the truth where ours have a loss
    follows = _made_along(planned)
    with ExitStack() as stack:
        file = stack.enter_context(_FramesFile(path, planned, report))
        if follows is None and not planned.computed:
            for quad, made in _decoded(planned, coding, bench):
                file.add_tiles(quad, made)
            return file.finished(bench, coding)
        if follows is None:
            kept = _keeps_halves(planned, coding)
            for quad, frame in _computed(planned, coding, bench, finer, file.halves if kept else None):
                file.add(quad.target, frame)
            return file.finished(bench, coding)
        other = stack.enter_context(_FramesFile(_path_of_coarser(path), follows))
        halves = other.halves if _keeps_halves(follows, coding) else None
        for quad, made in _decoded(planned, coding, bench, halves, coarser=True):
            file.add_tiles(quad, made)
            other.add(quad.target, made[4])
        coarser = other.finished(bench, coding)
        return replace(file.finished(bench, coding), coarser=coarser)


def _made_along(planned: PlannedLevel) -> PlannedLevel | None:
    """The level that is computed from this one of the scanner's, if one is."""
    if planned.computed or planned.level is not planned.scene.levels[-1]:
        return None
    return next(iter(computed_levels(planned.scene, planned.survey, 0)), None)


def _keeps_halves(planned: PlannedLevel, coding: FrameCoding) -> bool:
    """Not with loss: a level must be the same where the finer one is read from its file."""
    level = planned.level
    quarter = level.tile_rows * level.tile_columns // 4 * level.pixel_type.samples_per_pixel
    size = planned.number_of_tiles * quarter * level.pixel_type.bits_allocated // 8
    even = level.tile_rows % 2 == level.tile_columns % 2 == 0
    return even and not coding.lossy_method and size <= MOST_HALVES_BYTES


class _FramesFile:
    """A level's frames as they come, under another name until all are there. With an error,
    nothing is left. ``halves`` are in the order of :meth:`add`."""

    def __init__(
        self, path: Path, planned: PlannedLevel, report: Callable[[int], None] | None = None
    ) -> None:
        self._path, self._planned, self._report = path, planned, report
        self._partial = path.with_suffix(".part")
        self._out = self._partial.open("wb")
        self._starts, self._lengths = (np.zeros(planned.number_of_tiles, np.uint64) for _ in range(2))
        self._order: list[int] = []
        self._size = self._check = 0
        self.halves: list[Half] = []

    def add(self, index: int, frame: bytes) -> None:
        self._out.write(frame)
        self._check = zlib.crc32(frame, self._check)
        self._starts[index], self._lengths[index] = self._size, len(frame)
        self._size += len(frame)
        self._order.append(index)
        if self._report is not None and len(self._order) % PROGRESS_FRAMES == 1:
            self._report(len(self._order))

    def add_tiles(self, quad: "_Place", made: Sequence[bytes]) -> None:
        for index, frame in zip(quad.tiles, made, strict=False):
            if index is not None:
                self.add(index, frame)

    def finished(self, bench: Bench, coding: FrameCoding) -> Recomposed:
        """Give the file its name, and write the note that says so. Not synced, since who takes
        the frames does that: what a loss of power damages does not match the note."""
        planned = self._planned
        if len(self._order) != planned.number_of_tiles:
            raise DamagedSlide(
                f"level {planned.index} gave {len(self._order)} of {planned.number_of_tiles} tiles"
            )
        blank = b""
        if not self._lengths.all():
            blank = bench.blank(planned.scene.index, planned.level.index, coding)
            self._out.write(blank)
            self._check = zlib.crc32(blank, self._check)
        self._out.close()
        self._partial.rename(self._path)
        note = {
            "starts": self._starts.tolist(), "lengths": self._lengths.tolist(), "blank": blank.hex(),
            "crc32": self._check,
        }  # fmt: skip
        _note_of(self._path).write_text(json.dumps(note), encoding="ascii")
        halves: list[Half] = []
        if self.halves:
            places = np.argsort(self._order).tolist()
            halves = [self.halves[at] for at in places]
        place = planned.scene.index, planned.index
        return Recomposed(place, self._path, self._starts, self._lengths, blank, halves)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._out.close()
        with suppress(OSError):
            self._partial.unlink()


def _path_of_coarser(path: Path) -> Path:
    return path.with_name(f"{path.stem}-coarser{path.suffix}")


def _note_of(path: Path) -> Path:
    return path.with_suffix(".json")


def _found(path: Path, place: tuple[int, int]) -> Recomposed | None:
    """What an earlier run finished: the note is written last, and says what is in the file."""
    try:
        note = json.loads(_note_of(path).read_text(encoding="ascii"))
        starts, lengths = (np.array(note[key], dtype=np.uint64) for key in ("starts", "lengths"))
        blank = bytes.fromhex(note["blank"])
        if path.stat().st_size == int(lengths.sum()) + len(blank) and _check(path) == note["crc32"]:
            coarser = _found(_path_of_coarser(path), (place[0], place[1] + 1))
            return Recomposed(place, path, starts, lengths, blank, coarser=coarser)
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return None


def _check(path: Path) -> int:
    result = 0
    with path.open("rb", buffering=0) as file:
        while data := file.read(CHECK_BYTES):
            result = zlib.crc32(data, result)
    return result


def _taken(made: Recomposed, path: Path) -> Recomposed:
    """What was made along, under the name that it is asked for by."""
    made.path.rename(path)
    _note_of(made.path).rename(_note_of(path))
    return replace(made, path=path)


@dataclass(frozen=True, slots=True)
class _Place:
    """A quad of tiles: their indexes, None beyond the level; the index of what they make at half
    the size, and what :class:`Quad` says of size and lane."""

    tiles: tuple[int | None, ...]
    target: int
    rows: int
    columns: int
    lane: int


def _places(level: Level, rows: int, columns: int, lanes: int) -> Iterator[_Place]:
    """All quads of a level of this size, tiled as ``level``: stripe beside stripe, down each."""
    down, across = -(-rows // level.tile_rows), -(-columns // level.tile_columns)
    half_down, half_across = -(-down // 2), -(-across // 2)
    width = max(1, min(-(-half_across // lanes), STRIPE_COLUMNS // (2 * level.tile_columns)))
    chunk = batch_quads(level)

    def place(outer: int, row: int, column: int) -> _Place:
        tiles = tuple(
            (outer * down + at_row) * across + at_column if at_row < down and at_column < across else None
            for at_row in (2 * row, 2 * row + 1)
            for at_column in (2 * column, 2 * column + 1)
        )
        return _Place(
            tiles,
            (outer * half_down + row) * half_across + column,
            min(2 * level.tile_rows, rows - 2 * row * level.tile_rows),
            min(2 * level.tile_columns, columns - 2 * column * level.tile_columns),
            column // width % lanes,
        )

    for outer in range(level.optical_paths * level.focal_planes):
        for left in range(0, half_across, width * lanes):
            right = min(left + width * lanes, half_across)
            for row, at, first in product(
                range(half_down), range(0, width, chunk), range(left, right, width)
            ):
                for column in range(first + at, min(first + at + chunk, first + width, right)):
                    yield place(outer, row, column)


def _decoded(
    planned: PlannedLevel,
    coding: FrameCoding,
    bench: Bench,
    halves: list[Half] | None = None,
    *,
    coarser: bool = False,
) -> Iterator[tuple[_Place, list[bytes]]]:
    """The scanner's tiles, a quad of them at once."""
    level = planned.level
    absent = level.tiles.absent
    places, again = tee(_places(level, level.rows, level.columns, bench.lanes))
    quads = (
        Quad(
            tuple(None if tile is None or absent[tile] else tile for tile in place.tiles),
            place.rows, place.columns, place.lane,
        )
        for place in again
    )  # fmt: skip
    made = bench.frames(planned.scene.index, level.index, quads, coding, halves, coarser=coarser)
    return zip(places, made, strict=True)


def _computed(
    planned: PlannedLevel,
    coding: FrameCoding,
    bench: Bench,
    finer: Recomposed | None,
    halves: list[Half] | None,
) -> Iterator[tuple[_Place, bytes]]:
    """From the finer level's frames where they are ours, else from the scanner's tiles."""
    level = planned.level
    factor = 2 ** (planned.steps - 1)
    rows, columns = -(-level.rows // factor), -(-level.columns // factor)
    fd = -1 if finer is None else os.open(finer.path, os.O_RDONLY)

    def tile(index: int | None) -> int | bytes | None:
        if index is None:
            return None
        if finer is None:
            return None if level.tiles.absent[index] else index
        if finer.halves:
            return finer.halves[index] or None
        return os.pread(fd, int(finer.lengths[index]), int(finer.starts[index])) or None

    places, again = tee(_places(level, rows, columns, bench.lanes))
    quads = (
        Quad(tuple(map(tile, place.tiles)), place.rows, place.columns, place.lane if finer is None else None)
        for place in again
    )
    try:
        made = bench.shrunk(planned.scene.index, level.index, quads, coding, halves)
        yield from zip(places, made, strict=True)
    finally:
        if fd >= 0:
            os.close(fd)
