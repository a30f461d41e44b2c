# SPDX-License-Identifier: Apache-2.0
"""A slide as every reader gives it, whatever the scanner: ``Slide > Scene > Level``.

Sizes are (rows, columns). A level's tiles are addressed (optical path, focal plane,
row, column), each counted from 0, and come in one of three forms:

* :class:`TileMap`: each tile is one range of a source file, a codestream as it is;
* :class:`GatherMap`: each tile is several ranges and literals joined, still without
  decoding (Hamamatsu's restart intervals);
* :class:`PixelTiles`: tiles that exist only decoded, because the format overlaps them,
  splits their colours or packs them as DICOM cannot.

Where tiles lie is kept in arrays, so that a level of 100,000 tiles costs two megabytes
and no objects. A slide says what the scanner wrote and nothing else: levels that the
scanner left out are computed by the writer.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from pydicom import Dataset

Pixels = NDArray[np.uint8] | NDArray[np.uint16]
Offsets = NDArray[np.uint64]
Colour = int | tuple[int, int, int]
"""A grey value, or (R, G, B)."""

DEFAULT_TILE = 512
"""Edge of the tiles of levels that must be cut by us."""


Orientation = tuple[float, float, float, float, float, float]
"""Image Orientation (Slide) (0048,0102): direction cosines (X, Y, Z) along which columns
are counted, then those along which rows are. X runs along the short side of the glass, Y
along the long side towards the label (PS3.3 C.8.12.2.1.1)."""
LABEL_LEFT: Orientation = (0.0, -1.0, 0.0, -1.0, 0.0, 0.0)
LABEL_TOP: Orientation = (1.0, 0.0, 0.0, 0.0, -1.0, 0.0)


class Role(StrEnum):
    """Image Type value 3 (PS3.3 C.8.12.4.1.1)."""

    VOLUME = "VOLUME"
    LABEL = "LABEL"
    OVERVIEW = "OVERVIEW"
    THUMBNAIL = "THUMBNAIL"


@dataclass(frozen=True, slots=True)
class PixelType:
    """The samples of a pixel (PS3.3 C.7.6.3). ``bits_stored`` is what the scanner's camera
    fills of them."""

    samples_per_pixel: int = 3
    bits_allocated: int = 8
    bits_stored: int = 8

    @property
    def as_stored(self) -> "PixelType":
        """As a whole slide image holds them: Bits Stored is 8 or 16 there (PS3.3 C.8.12.4)."""
        return replace(self, bits_stored=self.bits_allocated)


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file of the slide. Readers may move it (``path``) but never change it."""

    path: Path
    size_bytes: int
    modified: float  # seconds since the epoch
    name: str = ""  # relative to the main file's folder, "/" between; "" is the path's last part

    @property
    def relative_name(self) -> str:
        return self.name or self.path.name


@dataclass(frozen=True, eq=False)
class TileMap:
    """Where the encoded tiles lie: index is the frame index (see :meth:`Level.frame_index`).

    A length of 0 means that the scanner left the tile out. ``source`` is the number of
    the file in :attr:`Slide.sources`, one for all tiles or one for each (uint8). Every
    range lies within its file: readers check.
    """

    offsets: Offsets
    lengths: Offsets
    source: int | NDArray[np.uint8] = 0
    jpeg_tables: bytes = b""

    def __len__(self) -> int:
        return len(self.offsets)

    @cached_property
    def files(self) -> NDArray[np.uint8]:
        """Number of the source file of each tile."""
        return np.broadcast_to(np.asarray(self.source, dtype=np.uint8), self.offsets.shape)

    @cached_property
    def absent(self) -> NDArray[np.bool_]:
        """True where the scanner left the tile out."""
        result: NDArray[np.bool_] = self.lengths == 0
        return result

    @cached_property
    def size_bytes(self) -> int:
        return int(self.lengths.sum())


@dataclass(frozen=True, eq=False)
class GatherMap:
    """Tiles that are pieces joined, nothing decoded: tile n is the pieces
    ``index[n]`` to ``index[n + 1]``, none where the scanner left it out.

    Piece p is ``lengths[p]`` bytes at ``offsets[p]`` of file ``source`` (one number for
    all pieces or one for each, uint8), or of ``literals`` where ``literal[p]``. Every
    range lies within: readers check.
    """

    index: Offsets  # (tiles + 1,), from 0
    offsets: Offsets
    lengths: Offsets
    literal: NDArray[np.bool_]
    literals: bytes
    source: int | NDArray[np.uint8] = 0

    def __len__(self) -> int:
        return len(self.index) - 1

    @cached_property
    def files(self) -> NDArray[np.uint8]:
        """Number of the source file of each piece (of no meaning for literals)."""
        return np.broadcast_to(np.asarray(self.source, dtype=np.uint8), self.offsets.shape)

    @cached_property
    def absent(self) -> NDArray[np.bool_]:
        """True where the scanner left the tile out."""
        result: NDArray[np.bool_] = self.index[1:] == self.index[:-1]
        return result

    @cached_property
    def size_bytes(self) -> int:
        return int(self.lengths.sum())

    def tile_lengths(self) -> Offsets:
        """Bytes of each tile, joined."""
        sums = np.concatenate((np.zeros(1, np.uint64), np.cumsum(self.lengths, dtype=np.uint64)))
        result: Offsets = sums[self.index[1:]] - sums[self.index[:-1]]
        return result


@dataclass(frozen=True, eq=False)
class PixelTiles:
    """Tiles that must be decoded: they are encoded again by the writer.

    ``read(frame_index)`` gives a tile as (tile rows, tile columns, samples) of uint8 or
    uint16 as :attr:`Level.pixel_type` says, RGB or grey, what lies outside of the level
    filled in. It is called in a child process, from one thread at a time, and may raise
    DamagedSlide. ``why`` says why tiles cannot be copied, for people ("tiles overlap").
    ``lossy_method`` is DICOM's name of the scanner's own lossy coding ("" when it is
    lossless), ``size_bytes`` what the level occupies in the file (0: unknown).
    """

    read: Callable[[int], Pixels]
    count: int
    why: str
    lossy_method: str = ""
    size_bytes: int = 0
    missing: NDArray[np.bool_] | None = None

    def __len__(self) -> int:
        return self.count

    @cached_property
    def absent(self) -> NDArray[np.bool_]:
        """True where the scanner left the tile out."""
        return np.zeros(self.count, np.bool_) if self.missing is None else self.missing


Tiles = TileMap | GatherMap | PixelTiles


@dataclass(frozen=True, eq=False)
class Level:
    """One resolution of a scene, as the scanner wrote it.

    ``downsample`` is 1.0 for the finest level. ``container_rgb`` is what the file says of
    its colours (True RGB, False YCbCr, None nothing): it decides for a JPEG without an
    Adobe or JFIF marker, and for JPEG 2000 without a component transformation. ``reference``
    decodes the tile of a frame index the reader's own way, to prove by; None where its colours would not be
    RGB. ``earlier_losses`` are DICOM's method and the ratio of each lossy step before the
    present coding, oldest first. ``absent_colour`` fills tiles that the scanner left out;
    None is white, or black for fluorescence. ``known`` is what a received DICOM header says
    of the image beside all this: the writer takes it over (``converters.writer.known``).
    """

    index: int
    rows: int
    columns: int
    tile_rows: int
    tile_columns: int
    tiles: Tiles
    pixel_type: PixelType = PixelType()
    pixel_spacing_mm: tuple[float, float] | None = None  # (between rows, between columns)
    downsample: float = 1.0
    container_rgb: bool | None = None
    optical_paths: int = 1
    focal_planes: int = 1
    reference: Callable[[int], NDArray[np.uint8]] | None = None
    history: str = ""  # the vendor's words for how it was compressed: index only
    earlier_losses: tuple[tuple[str, float], ...] = ()
    absent_colour: Colour | None = None
    known: "Dataset | None" = None

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


class Illumination(StrEnum):
    """How the tissue was lit (CID 8123)."""

    BRIGHTFIELD = "brightfield"
    EPIFLUORESCENCE = "epifluorescence"
    DARKFIELD = "darkfield"
    PHASE_CONTRAST = "phase contrast"
    DIFFERENTIAL_INTERFERENCE_CONTRAST = "differential interference contrast"


@dataclass(frozen=True, slots=True)
class RealWorldMapping:
    """What stored values mean where the scanner's own were none that DICOM holds
    (floats, signed): scanner's value = ``intercept + slope * stored value``
    (Real World Value Mapping, PS3.3 C.7.6.16.2.11). ``explanation`` says so to people."""

    slope: float
    intercept: float
    explanation: str


@dataclass(frozen=True, slots=True)
class OpticalPath:
    """One channel or the one brightfield path (PS3.3 C.8.12.5). Empty or None: unknown.

    ``identifier`` is unique within the slide, ``description`` the channel's name.
    ``objective_power`` as the scanner says (AppMag). ``display_rgb`` is the colour that
    the scanner's software shows the channel in: no header carries it yet.
    """

    identifier: str = "1"
    description: str = ""
    objective_power: float | None = None
    numerical_aperture: float | None = None
    icc_profile: bytes = b""
    illumination: Illumination = Illumination.BRIGHTFIELD
    excitation_nm: float | None = None
    emission_nm: float | None = None
    exposure_ms: float | None = None
    fluorophore: str = ""
    display_rgb: tuple[int, int, int] | None = None
    real_world: RealWorldMapping | None = None


@dataclass(frozen=True, eq=False)
class Scene:
    """One region of the glass (or one point in time of it), scanned as one pyramid;
    levels from finest to coarsest, all with the same paths and planes.

    ``origin_mm`` is the corner of pixel (1, 1) in slide coordinates (X, Y), None when
    unknown; ``orientation`` is where rows and columns run to there. ``focal_planes_um`` are
    the heights of the planes, lowest first, from the reference surface or else from the
    first; empty where there are several and nobody knows how far they lie apart.
    ``label`` names the region to people.
    """

    index: int
    levels: Sequence[Level]
    optical_paths: Sequence[OpticalPath] = (OpticalPath(),)
    origin_mm: tuple[float, float] | None = None
    focal_planes_um: Sequence[float] = (0.0,)
    label: str = ""
    acquired: datetime | None = None  # where it differs from the scan's
    orientation: Orientation = LABEL_LEFT


@dataclass(frozen=True, eq=False)
class AssociatedImage:
    """Label, overview (macro) or thumbnail. ``read`` decodes it to RGB or grey pixels of
    (rows, columns, samples) in uint8; it is called in a child process, and may raise
    DamagedSlide.

    ``compression`` is the file's word for it, ``lossy_method`` DICOM's ("" when it is
    lossless), ``encoded_bytes`` how long it is in the file. ``codestream`` is the whole
    image as one codestream where the file has it so (a JPEG of label or macro): it is
    copied where that is legal. ``known`` as in :class:`Level`.
    """

    role: Role
    rows: int
    columns: int
    read: Callable[[], NDArray[np.uint8]]
    compression: str
    lossy_method: str = ""
    encoded_bytes: int = 0
    scene: int = 0
    codestream: bytes = b""
    known: "Dataset | None" = None


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


def left_out(role: Role, why: Exception) -> str:
    """The finding of an image that no instance is made of."""
    name = f"the {role.value.lower()} image"
    text = str(why)
    return f"{name} is left out: {'it' + text.removeprefix(name) if text.startswith(name) else text}"


class Progress(Protocol):
    """Called with bytes done and bytes in all, now and then."""

    def __call__(self, done: int, total: int) -> None: ...
