# SPDX-License-Identifier: Apache-2.0
"""A sequential TIFF writer: image data as it comes, each page's directory behind it.

Writes what scanners write and general writers refuse to: abbreviated JPEG streams
under shared JPEGTables, tiles of zero bytes, strips beside tiles. TIFF 6.0, TIFF
Technical Note 2 (JPEG), and the BigTIFF layout for files above 4 GiB.
"""

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

ASCII, SHORT, LONG, UNDEFINED, LONG8 = 2, 3, 4, 7, 16
_SIZE = {ASCII: 1, SHORT: 2, LONG: 4, UNDEFINED: 1, LONG8: 8}
_CODE = {SHORT: "H", LONG: "I", LONG8: "Q"}

NEW_SUBFILE_TYPE, IMAGE_WIDTH, IMAGE_LENGTH, BITS_PER_SAMPLE = 254, 256, 257, 258
COMPRESSION, PHOTOMETRIC, IMAGE_DESCRIPTION = 259, 262, 270
STRIP_OFFSETS, SAMPLES_PER_PIXEL, ROWS_PER_STRIP, STRIP_BYTE_COUNTS = 273, 277, 278, 279
PLANAR_CONFIGURATION, PREDICTOR, TILE_WIDTH, TILE_LENGTH = 284, 317, 322, 323
TILE_OFFSETS, TILE_BYTE_COUNTS, JPEG_TABLES, YCBCR_SUBSAMPLING = 324, 325, 347, 530
IMAGE_DEPTH, ICC_PROFILE = 32997, 34675

CLASSIC_LIMIT = 2**32


class TiffTooLarge(Exception):
    """A classic TIFF would pass 4 GiB; open the writer with ``bigtiff=True``."""


@dataclass(frozen=True, slots=True)
class Page:
    """What a directory says beside where its data lie.

    ``tile`` is (rows, columns) of a tile; None for strips of ``rows_per_strip``.
    ``subsampling`` is (horizontal, vertical) as in YCbCrSubSampling.
    """

    rows: int
    columns: int
    compression: int
    photometric: int
    description: str = ""
    tile: tuple[int, int] | None = None
    rows_per_strip: int = 0
    subfile_type: int = 0
    jpeg_tables: bytes = b""
    icc_profile: bytes = b""
    subsampling: tuple[int, int] | None = None
    predictor: int = 1

    @property
    def number_of_segments(self) -> int:
        """How many tiles or strips the page must be given."""
        if self.tile is not None:
            return -(-self.rows // self.tile[0]) * -(-self.columns // self.tile[1])
        return -(-self.rows // self.rows_per_strip)


class TiffWriter:
    """Little-endian, 8-bit RGB-like pages, one after the other. A context manager;
    an exception inside leaves a file without its last directory, never a wrong one."""

    def __init__(self, path: Path, *, bigtiff: bool = False) -> None:
        self._file: BinaryIO = path.open("wb")
        self._bigtiff = bigtiff
        if bigtiff:
            self._file.write(struct.pack("<2sHHHQ", b"II", 43, 8, 0, 0))
            self._link = 8
        else:
            self._file.write(struct.pack("<2sHI", b"II", 42, 0))
            self._link = 4
        self._position = self._file.tell()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()

    def write_page(self, page: Page, segments: Iterable[bytes]) -> None:
        """Write tiles (or strips) left to right, top to bottom, then the directory.

        An empty segment becomes offset 0, length 0: a tile that the scanner left out.
        ``segments`` is consumed lazily, so a page may be larger than memory. Raises
        ``ValueError`` when their number is not the page's.
        """
        offsets: list[int] = []
        lengths: list[int] = []
        for segment in segments:
            offsets.append(self._position if segment else 0)
            lengths.append(len(segment))
            self._append(segment)
        if len(offsets) != page.number_of_segments:
            raise ValueError(f"page needs {page.number_of_segments} segments, got {len(offsets)}")
        self._write_directory(page, offsets, lengths)

    def _append(self, data: bytes) -> int:
        at = self._position
        if not self._bigtiff and at + len(data) >= CLASSIC_LIMIT:
            raise TiffTooLarge("a classic TIFF cannot pass 4 GiB")
        self._file.write(data)
        self._position += len(data)
        return at

    def _write_directory(self, page: Page, offsets: Sequence[int], lengths: Sequence[int]) -> None:
        wide = LONG8 if self._bigtiff else LONG
        fields: dict[int, tuple[int, bytes | Sequence[int]]] = {
            NEW_SUBFILE_TYPE: (LONG, [page.subfile_type]),
            IMAGE_WIDTH: (LONG, [page.columns]),
            IMAGE_LENGTH: (LONG, [page.rows]),
            BITS_PER_SAMPLE: (SHORT, [8, 8, 8]),
            COMPRESSION: (SHORT, [page.compression]),
            PHOTOMETRIC: (SHORT, [page.photometric]),
            SAMPLES_PER_PIXEL: (SHORT, [3]),
            PLANAR_CONFIGURATION: (SHORT, [1]),
            IMAGE_DEPTH: (LONG, [1]),
        }
        if page.description:
            fields[IMAGE_DESCRIPTION] = (ASCII, page.description.encode("ascii") + b"\0")
        if page.tile is not None:
            fields[TILE_LENGTH] = (SHORT, [page.tile[0]])
            fields[TILE_WIDTH] = (SHORT, [page.tile[1]])
            fields[TILE_OFFSETS] = (wide, offsets)
            fields[TILE_BYTE_COUNTS] = (LONG, lengths)
        else:
            fields[ROWS_PER_STRIP] = (LONG, [page.rows_per_strip])
            fields[STRIP_OFFSETS] = (wide, offsets)
            fields[STRIP_BYTE_COUNTS] = (LONG, lengths)
        if page.jpeg_tables:
            fields[JPEG_TABLES] = (UNDEFINED, page.jpeg_tables)
        if page.icc_profile:
            fields[ICC_PROFILE] = (UNDEFINED, page.icc_profile)
        if page.subsampling is not None:
            fields[YCBCR_SUBSAMPLING] = (SHORT, page.subsampling)
        if page.predictor != 1:
            fields[PREDICTOR] = (SHORT, [page.predictor])
        self._write_fields(fields)

    def _write_fields(self, fields: dict[int, tuple[int, bytes | Sequence[int]]]) -> None:
        inline = 8 if self._bigtiff else 4
        entry = "<HHQ" if self._bigtiff else "<HHI"
        offset_code = "<Q" if self._bigtiff else "<I"
        entries = []
        for tag, (kind, value) in sorted(fields.items()):
            data = value if isinstance(value, bytes) else struct.pack(f"<{len(value)}{_CODE[kind]}", *value)
            count = len(data) // _SIZE[kind]
            if len(data) > inline:
                self._align()
                data = struct.pack(offset_code, self._append(data))
            entries.append(struct.pack(entry, tag, kind, count) + data.ljust(inline, b"\0"))
        self._align()
        number = struct.pack("<Q" if self._bigtiff else "<H", len(entries))
        body = number + b"".join(entries)
        directory = self._append(body + bytes(inline))
        self._file.seek(self._link)
        self._file.write(struct.pack(offset_code, directory))
        self._file.seek(self._position)
        self._link = directory + len(body)

    def _align(self) -> None:
        """TIFF values and directories begin on a word boundary; 16 helps readers that map."""
        self._append(bytes(-self._position % 16))
