# SPDX-License-Identifier: Apache-2.0
"""A slide as every reader gives it, whatever the scanner: ``Slide > Scene > Level``.

Sizes are (rows, columns). A level's tiles are addressed (optical path, focal plane,
row, column), each counted from 0. Where each tile lies in the source files is kept in
arrays, so that a level of 100,000 tiles costs two megabytes and no objects.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8] | NDArray[np.uint16]
Offsets = NDArray[np.uint64]


class Coding(StrEnum):
    """How a level's tiles are encoded in the scanner's file."""

    JPEG = "JPEG"
    JPEG_2000 = "JPEG 2000"
    JPEG_2000_YCBCR = "JPEG 2000 of YCbCr samples"  # no component transform: not legal in DICOM


class Role(StrEnum):
    """Image Type value 3 (PS3.3 C.8.12.4.1.1)."""

    VOLUME = "VOLUME"
    LABEL = "LABEL"
    OVERVIEW = "OVERVIEW"
    THUMBNAIL = "THUMBNAIL"


@dataclass(frozen=True, slots=True)
class PixelType:
    """The samples of a pixel (PS3.3 C.7.6.3)."""

    samples_per_pixel: int = 3
    bits_allocated: int = 8
    bits_stored: int = 8


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file of the slide. Readers may move it (``path``) but never change it."""

    path: Path
    size_bytes: int
    modified: float  # seconds since the epoch


@dataclass(frozen=True, eq=False)
class TileMap:
    """Where the encoded tiles lie: index is the frame index (see :func:`frame_index`).

    A length of 0 means that the scanner left the tile out. ``source`` is the number of
    the file in :attr:`Slide.sources`. Every range lies within that file: readers check.
    """

    offsets: Offsets
    lengths: Offsets
    source: int = 0
    jpeg_tables: bytes = b""

    def __len__(self) -> int:
        return len(self.offsets)

    @cached_property
    def absent(self) -> NDArray[np.bool_]:
        """True where the scanner left the tile out."""
        result: NDArray[np.bool_] = self.lengths == 0
        return result

    @cached_property
    def size_bytes(self) -> int:
        return int(self.lengths.sum())


@dataclass(frozen=True, eq=False)
class Level:
    """One resolution of a scene, as the scanner wrote it.

    ``downsample`` is 1.0 for the finest level; ``resampled`` says that the scanner
    computed it. ``overlap`` is how many (rows, columns) neighbouring tiles share.
    ``container_rgb`` is what the file says of its colours (None: nothing): it decides
    for a JPEG without an Adobe or JFIF marker. ``reference`` decodes the tile of a frame
    index the reader's own way, to prove by; None where its colours would not be RGB.
    """

    index: int
    rows: int
    columns: int
    tile_rows: int
    tile_columns: int
    coding: Coding
    tiles: TileMap
    pixel_type: PixelType = PixelType()
    pixel_spacing_mm: tuple[float, float] | None = None  # (between rows, between columns)
    downsample: float = 1.0
    container_rgb: bool | None = None
    optical_paths: int = 1
    focal_planes: int = 1
    overlap: tuple[int, int] = (0, 0)
    reference: Callable[[int], NDArray[np.uint8]] | None = None
    history: str = ""  # the vendor's words for how it was compressed: index only

    @property
    def resampled(self) -> bool:
        return self.index > 0

    @property
    def tiles_down(self) -> int:
        return -(-self.rows // self.tile_rows)

    @property
    def tiles_across(self) -> int:
        return -(-self.columns // self.tile_columns)

    @property
    def number_of_frames(self) -> int:
        return self.tiles_down * self.tiles_across * self.focal_planes * self.optical_paths

    def frame_index(self, optical_path: int, focal_plane: int, row: int, column: int) -> int:
        """Index of a tile in a TILED_FULL image and in ``tiles``, from 0.

        Columns vary fastest, then rows, focal planes, optical paths (PS3.3 C.7.6.17.3).
        Raises IndexError outside of the level.
        """
        place = (optical_path, focal_plane, row, column)
        extent = (self.optical_paths, self.focal_planes, self.tiles_down, self.tiles_across)
        if any(not 0 <= at < size for at, size in zip(place, extent, strict=True)):
            raise IndexError(f"no tile {place} in a level of {extent}")
        return int(np.ravel_multi_index(place, extent))

    def frame_number(self, optical_path: int, focal_plane: int, row: int, column: int) -> int:
        """:meth:`frame_index`, counted from 1 as frames are."""
        return self.frame_index(optical_path, focal_plane, row, column) + 1


@dataclass(frozen=True, slots=True)
class OpticalPath:
    """PS3.3 C.8.12.5. ``objective_power`` as the scanner says (AppMag)."""

    identifier: str = "1"
    description: str = ""
    objective_power: float | None = None
    numerical_aperture: float | None = None
    icc_profile: bytes = b""


@dataclass(frozen=True, eq=False)
class Scene:
    """One region of the glass, scanned as one pyramid; levels from finest to coarsest.

    ``origin_mm`` is the corner of pixel (1, 1) in slide coordinates (X, Y), None when
    unknown.
    """

    index: int
    levels: Sequence[Level]
    optical_paths: Sequence[OpticalPath] = (OpticalPath(),)
    origin_mm: tuple[float, float] | None = None


@dataclass(frozen=True, eq=False)
class AssociatedImage:
    """Label, overview (macro) or thumbnail. ``read`` decodes it to RGB or grey pixels of
    (rows, columns, samples); it may raise DamagedSlide.

    ``compression`` is the file's word for it, ``lossy_method`` DICOM's ("" when it is
    lossless), ``encoded_bytes`` how long it is in the file.
    """

    role: Role
    rows: int
    columns: int
    read: Callable[[], NDArray[np.uint8]]
    compression: str
    lossy_method: str = ""
    encoded_bytes: int = 0
    scene: int = 0


@dataclass(frozen=True)
class Scan:
    """What the file says about itself. Empty means: it does not say.

    ``acquired`` has a zone only if the file states one. ``description`` is the vendor's
    text verbatim: it may hold names, so it goes to the index, never into a header.
    """

    manufacturer: str = ""
    model_name: str = ""
    device_serial_number: str = ""
    software_versions: tuple[str, ...] = ()
    acquired: datetime | None = None
    barcode: str = ""
    label_text: str = ""
    description: str = ""
    properties: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Slide:
    """One scan of one container. Close it, or use it as a context manager."""

    format: str
    sources: Sequence[SourceFile]
    scenes: Sequence[Scene]
    associated: Sequence[AssociatedImage]
    scan: Scan
    closer: Callable[[], None] = lambda: None
    findings: Sequence[str] = ()  # oddities that do not stop a conversion

    def close(self) -> None:
        self.closer()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def associated_image(self, role: Role) -> AssociatedImage | None:
        return next((image for image in self.associated if image.role is role), None)


class Progress(Protocol):
    """Called with bytes done and bytes in all, now and then."""

    def __call__(self, done: int, total: int) -> None: ...
