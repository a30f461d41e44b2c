# SPDX-License-Identifier: Apache-2.0
"""The values that cross the archive's door: what edges give and what they get."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from archive.errors import StoreWarning


@dataclass(frozen=True, slots=True)
class Sender:
    """Where bytes came from: kept with the record, never in a header."""

    via: str  # "dimse", "dicomweb", "ingest", "cli"
    name: str = ""  # calling AE title, user, or watched folder's name
    address: str = ""


class Outcome(StrEnum):
    """What storing the same SOP Instance UID did (DESIGN 4)."""

    STORED = "stored"
    ALREADY = "already"  # equal content: success, the first stays
    KEPT_FIRST = "kept_first"  # pixels equal, header differs: success, queued for an operator
    REPLACED = "replaced"


@dataclass(frozen=True, slots=True)
class Stored:
    """One instance that is durable, indexed and findable."""

    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    sop_class_uid: str
    outcome: Outcome
    warning: StoreWarning | None = None


@dataclass(frozen=True, slots=True)
class BlobRange:
    """``length`` bytes at ``offset`` of blob number ``blob_index`` of an instance."""

    blob_index: int
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class NewInstance:
    """An instance that we made: a header over blobs (born DICOM) or a whole Part 10 file.

    ``header`` is a Part 10 byte string (preamble, group 2, data set in Explicit VR LE)
    without pixel data, ``frame_table`` an encoded frame table whose blob index counts
    in ``blobs``. With ``part10`` set, the other two are empty and the file is scanned.
    """

    sop_instance_uid: str
    header: bytes = b""
    frame_table: bytes = b""
    blobs: Sequence["NewBlob"] = ()
    part10: bytes | Path | None = None
    absent_tiles: bytes = b""  # bitmap, frame index order, most significant bit first


@dataclass(frozen=True, slots=True)
class NewBlob:
    """Bytes to keep: a staged file (moved), or a small byte string."""

    source: "StagedFile | bytes"


class StagedFile(Protocol):
    """A file in the spool, on the store's file system, complete."""

    @property
    def path(self) -> Path: ...

    @property
    def size_bytes(self) -> int: ...

    @property
    def sha256(self) -> bytes: ...


@dataclass(frozen=True, slots=True)
class NewOriginal:
    """A scanner's own file (or files), kept bit for bit. ``digest`` is the file's
    SHA-256, or that of the sorted manifest of name, size, SHA-256 when several."""

    digest: bytes
    files: Sequence[tuple[str, "StagedFile"]]  # (name as scanned, staged file)
    format: str  # the reader's name, "aperio-svs"
    description: str = ""  # the vendor's own text, verbatim: index only


@dataclass(frozen=True, slots=True)
class NewSlide:
    """What one scanner file became; stored in one transaction, all or nothing."""

    original: NewOriginal
    instances: Sequence[NewInstance]
    container_identifier: str
    unmatched: bool = True
    study_status: str = "own"  # the Study UID is ours until an order gives one


@dataclass(frozen=True, slots=True)
class Instance:
    """The descriptor of one stored instance at its current header revision.

    ``etag`` covers base digest, revision and transfer syntax: it is that of the
    instance and its metadata. Handles are the service's; treat ``row`` as opaque.
    """

    row: int
    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    number_of_frames: int
    rows: int
    columns: int
    samples_per_pixel: int
    bits_allocated: int
    bits_stored: int
    pixel_representation: int
    photometric_interpretation: str
    lossy: bool
    revision: int
    base_digest: bytes
    size_bytes: int  # of the Part 10 stream at this revision
    modality: str
    image_type: tuple[str, ...]
    has_pixel_data: bool
    total_pixel_matrix_columns: int = 0
    total_pixel_matrix_rows: int = 0

    @property
    def etag(self) -> str:
        return f'"{self.base_digest.hex()[:32]}-{self.revision}"'


@dataclass(frozen=True, slots=True)
class ByteStream:
    """Bytes whose length is known before the first is read. Iterate once, or close."""

    length: int
    chunks: Iterator[bytes]
    content_type: str = "application/octet-stream"
    etag: str = ""
    section: Callable[[int, int], Iterator[bytes]] | None = None
    """``(offset, length)`` of it without reading what lies before; None where the bytes
    have to be made one after the other."""


@dataclass(frozen=True, slots=True)
class Deflated:
    """Bytes in compressed form: blocks of RFC 1951 that end on a byte, none the last one,
    and refer to nothing before them. Pieces may be joined, ``length`` and ``crc32`` are
    those of what they inflate to."""

    data: bytes
    length: int
    crc32: int


@dataclass(frozen=True, slots=True)
class PixelDescription:
    """What a decoder must know of a frame (PS3.3 C.7.6.3)."""

    transfer_syntax_uid: str
    rows: int
    columns: int
    samples_per_pixel: int
    bits_allocated: int
    bits_stored: int
    pixel_representation: int
    photometric_interpretation: str
    planar_configuration: int = 0
    icc_profile: bytes = b""
    palette: bytes = b""  # of PALETTE COLOR: red, green, blue of each entry
    palette_first: int = 0  # the pixel value that has the first entry


class Fit(StrEnum):
    """What the rows and columns of a rendering mean."""

    SHRINK = "shrink"  # bounds; nothing is enlarged
    CONTAIN = "contain"  # bounds, filled as far as the aspect allows
    EXACT = "exact"  # the size itself, whatever becomes of the aspect


@dataclass(frozen=True, slots=True)
class Rendering:
    """How to show pixels: PS3.18 8.3.5, and what viewers of slides need beyond it.

    ``region`` is (row, column, rows, columns) of the source, in its pixels, within it.
    After scaling the picture is flipped, then turned by ``rotation`` degrees clockwise
    (0, 90, 180, 270). ``tone``: "colour", "grey" or "bitonal". ``optical_path`` is an
    identifier ("" for all or the first), ``focal_plane`` counts from 1, the lowest (0
    for the middle one).
    """

    media_type: str = "image/jpeg"
    quality: int = 85
    rows: int = 0  # 0: as large as the source
    columns: int = 0
    icc_profile: str = "no"
    window: tuple[float, float, str] | None = None
    region: tuple[float, float, float, float] | None = None
    fit: Fit = Fit.SHRINK
    flip_rows: bool = False
    flip_columns: bool = False
    rotation: int = 0
    tone: str = "colour"
    optical_path: str = ""
    focal_plane: int = 0


@dataclass(frozen=True, slots=True)
class Layer:
    """One optical path of a picture: how many of its tiles, in order, are this path's;
    the colour that stands for it (None: grey, and the only one); between which stored
    values it is shown (None: the window of the rendering, or as they are)."""

    tiles: int
    colour: tuple[int, int, int] | None = None
    limits: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class PyramidLevel:
    """One resolution of a slide: an instance, or the instances of a concatenation."""

    sop_instance_uid: str  # of the first
    rows: int  # of the total pixel matrix
    columns: int
    tile_rows: int
    tile_columns: int


@dataclass(frozen=True, slots=True)
class Pyramid:
    """The levels of one image of a slide, finest first; they show the same rectangle.
    ``etag`` changes with any of them."""

    study_instance_uid: str
    series_instance_uid: str
    levels: tuple[PyramidLevel, ...]
    imaged_volume_mm: tuple[float, float]  # height, width; 0 where it is not known
    optical_paths: tuple[str, ...]
    focal_planes: int
    etag: str


class FrameCodec(Protocol):
    """Decodes and encodes frames, outside of the caller's process. Composition injects
    it. Raises ``CannotDecode``, ``CannotTranscode``, ``Busy``."""

    def transcode(self, frame: bytes, source: PixelDescription, transfer_syntax_uid: str) -> bytes:
        """The frame in another transfer syntax; lossless, or decoded to native."""

    def render(
        self,
        tiles: Sequence[tuple[int, int, bytes]],
        source: PixelDescription,
        rendering: Rendering,
        canvas: tuple[int, int],
        layers: Sequence[Layer] = (),
    ) -> bytes:
        """Tiles at (row, column) of a canvas of (rows, columns) pixels, decoded, put
        together, scaled and encoded as ``rendering.media_type``. The rendering's source
        is the canvas. Of several ``layers`` each has the next of the tiles."""

    def value_limits(
        self, tiles: Sequence[tuple[int, int, bytes]], source: PixelDescription, canvas: tuple[int, int]
    ) -> tuple[float, float]:
        """Between which stored values nearly all pixels of the tiles on the canvas lie."""

    def can_transcode(self, source: PixelDescription, transfer_syntax_uid: str) -> bool:
        """Whether :meth:`transcode` would try."""


@dataclass(frozen=True, slots=True)
class Change:
    """One line of the change feed; consumers read by ``seq`` only."""

    seq: int
    time: datetime
    action: str  # "stored", "deleted", "replaced", "corrected", "recompressed", "expanded"
    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str


class JobState(StrEnum):
    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Job:
    """A piece of work that survives restarts; claimed by lease, retried with back-off."""

    id: int
    kind: str
    payload: Mapping[str, object]
    state: JobState
    attempts: int
    progress: float  # 0 to 1
    message: str
    created: datetime
    updated: datetime


class DutyState(StrEnum):
    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"  # given up
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class Duty:
    """What we owe to a receiver (an AE title or another name); kept in the outbox until it
    is done. ``attempts`` counts turns, this one included; it says whose turn it is."""

    id: int
    receiver: str
    kind: str
    key: str
    payload: Mapping[str, object]
    state: DutyState
    attempts: int
    progress: Mapping[str, object]
    message: str
    not_before: datetime | None
    created: datetime
    updated: datetime


@dataclass(frozen=True, slots=True)
class Promise:
    """A duty that is to be: see ``Archive.promise``."""

    receiver: str
    kind: str
    payload: Mapping[str, object]
    key: str = ""
    delay_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Commitment:
    """What became of a request for storage commitment; nothing while ``done`` is False.
    Instances by SOP class and instance UID, failed ones with their Failure Reason;
    ``places``: study and series by SOP Instance UID, of those that were asked for with them."""

    done: bool
    committed: tuple[tuple[str, str], ...] = ()
    failed: tuple[tuple[str, str, int], ...] = ()
    places: Mapping[str, tuple[str, str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Quarantined:
    """What could not be stored: the bytes are kept, the reason is shown."""

    id: int
    name: str  # shown to operators on the page, never logged
    reason: str
    source: str
    size_bytes: int
    created: datetime
    sop_instance_uid: str = ""


@dataclass(frozen=True, slots=True)
class SlideSummary:
    """One line of the work list: one series of one scan."""

    study_instance_uid: str
    series_instance_uid: str
    container_identifier: str
    patient_name: str
    patient_id: str
    accession_number: str
    study_date: str
    modality: str
    series_description: str
    manufacturer: str
    format: str  # of the original, "" when DICOM was received
    file_name: str  # of the original as the scanner named it: patient data like the rest
    number_of_instances: int
    size_bytes: int
    total_pixel_matrix_rows: int
    total_pixel_matrix_columns: int
    stored: datetime
    unmatched: bool
    cursor: str  # pass as ``after`` to go on


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that ``verify`` found wrong. ``subject`` is a UID or digest."""

    kind: str
    subject: str
    detail: str
    repaired: bool = False


class Recompression(StrEnum):
    """What became of one instance."""

    RECOMPRESSED = "recompressed"
    EXPANDED = "expanded"
    ALREADY = "already"
    LEFT = "left"  # nothing to gain, or not to be touched
    FAILED = "failed"  # nothing was changed


@dataclass(frozen=True, slots=True)
class Recompressed:
    """One instance; sizes are those of all its blobs as stored."""

    series_instance_uid: str
    sop_instance_uid: str
    outcome: Recompression
    size_before_bytes: int
    size_after_bytes: int
    reason: str = ""  # of LEFT and FAILED


@dataclass(frozen=True, slots=True)
class Page:
    """Rows of a query as DICOM JSON objects, and how many are left (None: unknown)."""

    rows: list[dict[str, object]] = field(default_factory=list)
    remaining: int | None = None
