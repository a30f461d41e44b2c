# SPDX-License-Identifier: Apache-2.0
"""Levels: which instances of a series show the same rectangle of a slide, and how finely.

Kept per process, by digest and header revision, so that a tile costs no parsing; the
list of a series is asked again once anything was stored anywhere.
"""

import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from archive.core import Core
from archive.errors import CannotTranscode, NoSuchInstance
from archive.handle import Handle
from archive.indexing import execute
from archive.matrix import Matrix, describe
from archive.retrieve import Retriever

T = TypeVar("T")

_KEPT = 512  # matrices and series
_MOST_INSTANCES = 1000  # of a series that are looked at
_MOST_PIXELS_OFF = 1.5  # scanners round the sizes of their levels down, up, or to the nearest
_HIDDEN = frozenset({"LABEL", "OVERVIEW"})
_LEVELS = frozenset({"VOLUME", "THUMBNAIL"})


class Recent:
    """The values used last, by key; thread-safe. Two threads may both make one."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._lock = threading.Lock()
        self._values: OrderedDict[object, object] = OrderedDict()

    def get(self, key: object, make: Callable[[], T]) -> T:
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
                return self._values[key]  # type: ignore[return-value]
        value = make()
        with self._lock:
            self._values[key] = value
            while len(self._values) > self._capacity:
                self._values.popitem(last=False)
        return value


@dataclass(frozen=True, slots=True)
class Level:
    """One resolution: an instance, or the parts of a concatenation in order."""

    parts: tuple[tuple[str, Matrix], ...]  # SOP Instance UID, its frames
    etag: str
    kind: str  # Image Type, value 3

    @property
    def matrix(self) -> Matrix:
        return self.parts[0][1]

    @property
    def sop_instance_uid(self) -> str:
        return self.parts[0][0]

    @property
    def rows(self) -> int:
        return self.matrix.rows

    @property
    def columns(self) -> int:
        return self.matrix.columns

    def tiles(
        self, channel: int, plane: int, area: tuple[int, int, int, int]
    ) -> Iterator[tuple[str, int, int, int]]:
        """SOP Instance UID, frame index, row and column, as ``Matrix.tiles``."""
        for sop, matrix in self.parts:
            for index, row, column in matrix.tiles(channel, plane, area):
                yield sop, index, row, column


class Pyramids:
    """The levels of what one archive stores."""

    def __init__(self, core: Core, retriever: Retriever) -> None:
        self._core = core
        self._retriever = retriever
        self._matrices = Recent(_KEPT)
        self._series = Recent(_KEPT)

    def matrix(self, handle: Handle) -> Matrix:
        """The frames of an instance. Raises CannotTranscode where their places are unknown."""
        row = handle.row
        count = handle.table.count if handle.table is not None else 0
        return self._matrices.get(
            (row.sop_instance_uid, handle.instance.etag),
            lambda: describe(self._retriever.header(handle), count, row.rows, row.columns),
        )

    def level(self, handle: Handle) -> Level:
        """An instance as a level; with the rest of its concatenation, if it is of one."""
        matrix = self.matrix(handle)
        if "ConcatenationUID" in matrix.head:
            for level in self._levels(handle.row.series_instance_uid):
                if any(sop == handle.row.sop_instance_uid for sop, _ in level.parts):
                    return level
        return _level([(handle, matrix)])

    def coarser(self, handle: Handle) -> tuple[Level, ...]:
        """The instance, and the levels of its pyramid that are coarser, finest first."""
        own = self.level(handle)
        if own.kind not in _LEVELS:
            return (own,)
        others = (
            level
            for level in self._levels(handle.row.series_instance_uid)
            if level.columns < own.columns and same_image(own, level)
        )
        return (own, *sorted(others, key=lambda level: -level.columns))

    def of_series(self, series: str) -> tuple[tuple[Level, ...], ...]:
        """The pyramids of a series, the largest first; never a label or an overview."""
        left = sorted(
            (level for level in self._levels(series) if level.kind not in _HIDDEN),
            key=lambda level: (level.kind == "THUMBNAIL", -level.rows * level.columns),
        )
        found = []
        while left:
            first = left[0]
            members = [first, *(level for level in left[1:] if same_image(first, level))]
            left = [level for level in left if level not in members]
            widths = {level.columns: level for level in reversed(members)}  # of one size, the first
            found.append(tuple(widths[width] for width in sorted(widths, reverse=True)))
        return tuple(found)

    def _levels(self, series: str) -> tuple[Level, ...]:
        version = self._core.index.data_version()
        return self._series.get((series, version), lambda: tuple(self._read(series)))

    def _read(self, series: str) -> Iterator[Level]:
        sql = (
            "SELECT i.sop_instance_uid FROM instance i JOIN series s ON s.id = i.series_id "
            "WHERE s.series_instance_uid = ? ORDER BY i.instance_number, i.id LIMIT ?"
        )
        with self._core.index.read():
            found = execute(self._core, sql, series, _MOST_INSTANCES).fetchall()
        parts: dict[str, list[tuple[Handle, Matrix]]] = {}
        for (sop,) in found:
            handle = self._retriever.handles.get(sop)
            if handle is None or handle.table is None or not handle.table.count:
                continue
            try:
                matrix = self.matrix(handle)
            except CannotTranscode:
                continue  # it is no mosaic that we can put together, so no level
            name = str(matrix.head.get("ConcatenationUID") or sop)
            parts.setdefault(name, []).append((handle, matrix))
        for members in parts.values():
            yield _level(members)

    def handle(self, sop: str) -> Handle:
        """Of a part; NoSuchInstance once it was deleted."""
        handle = self._retriever.handles.get(sop)
        if handle is None:
            raise NoSuchInstance(sop)
        return handle


def _level(members: Iterable[tuple[Handle, Matrix]]) -> Level:
    ordered = sorted(members, key=lambda member: member[1].first_frame)
    kinds = ordered[0][0].row.image_type[2:3]
    return Level(
        tuple((handle.row.sop_instance_uid, matrix) for handle, matrix in ordered),
        "+".join(handle.instance.etag.strip('"') for handle, _ in ordered),
        kinds[0] if kinds else "",
    )


def same_image(one: Level, other: Level) -> bool:
    """Whether two levels show the same rectangle in the same way: samples, optical paths and
    focal planes; the pyramid's name, or frame of reference and size; and the aspect."""
    a, b = one.matrix, other.matrix
    if not {one.kind, other.kind} <= _LEVELS or (a.planes, len(a.channels)) != (b.planes, len(b.channels)):
        return False
    if any(a.head.get(name) != b.head.get(name) for name in ("SamplesPerPixel", "BitsAllocated")):
        return False
    names = [m.head.get("PyramidUID") for m in (a, b)]
    if all(names):
        if names[0] != names[1]:
            return False
    elif a.head.get("FrameOfReferenceUID") != b.head.get("FrameOfReferenceUID") or not _same_place(a, b):
        return False
    scale = a.columns / b.columns
    return abs(a.rows / scale - b.rows) <= _MOST_PIXELS_OFF * max(1.0, 1 / scale)


def _same_place(a: Matrix, b: Matrix) -> bool:
    """Sizes in millimetres within 1 %, and corners within as much, where they are stated."""
    for one, other in zip(imaged_volume_mm(a), imaged_volume_mm(b), strict=True):
        if one and other and not math.isclose(one, other, rel_tol=0.01):
            return False
    first, second = _corner(a), _corner(b)
    if first is None or second is None:
        return True
    tolerance = 0.01 * max(*imaged_volume_mm(a), 1.0)
    return all(abs(one - other) <= tolerance for one, other in zip(first, second, strict=True))


def imaged_volume_mm(matrix: Matrix) -> tuple[float, float]:
    """Height and width of what is imaged; 0 where it is not stated."""
    found = []
    for keyword in ("ImagedVolumeHeight", "ImagedVolumeWidth"):
        try:
            value = float(matrix.head.get(keyword) or 0)
        except (TypeError, ValueError):
            value = 0.0
        found.append(value if math.isfinite(value) and value > 0 else 0.0)
    return found[0], found[1]


def _corner(matrix: Matrix) -> tuple[float, float] | None:
    item = (matrix.head.get("TotalPixelMatrixOriginSequence") or [None])[0]
    try:
        return float(item.XOffsetInSlideCoordinateSystem), float(item.YOffsetInSlideCoordinateSystem)
    except (AttributeError, TypeError, ValueError):
        return None
