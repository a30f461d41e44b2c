# SPDX-License-Identifier: Apache-2.0
"""Writing Aperio SVS files as a ScanScope does: for the demo scanner and for tests.

Page order is Aperio's: full resolution, thumbnail (strips), reduced levels, label
(LZW), macro (JPEG strips). Tiles share their page's JPEGTables, and carry no APP
segments, so that only PhotometricInterpretation tells RGB from YCbCr.
Source: https://openslide.org/formats/aperio/ and the tags of real slides.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Self

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gateway.demo.tiff import Page, TiffWriter

Pixels = NDArray[np.uint8]

LZW, JPEG = 5, 7
JPEG2000_YCBCR, JPEG2000_RGB = 33003, 33005
RGB, YCBCR = 2, 6
LABEL_SUBFILE, MACRO_SUBFILE = 1, 9

STRIP_ROWS = 16
"""Rows of a thumbnail's or macro's strip, as Aperio writes them: one MCU row of 4:2:0."""

LIBRARY = "Aperio Image Library v12.0.15 "


@dataclass(frozen=True, slots=True)
class Scan:
    """What the scanner says of itself and of the scan, in the description of level 0.

    ``microns_per_pixel`` None leaves MPP out, as some exports do. ``left_mm`` and
    ``top_mm`` place the scan area on the glass. ``scanned`` may carry a UTC offset,
    which becomes "Time Zone". ``extra`` adds keys verbatim.
    """

    microns_per_pixel: float | None = 0.5
    magnification: float = 20
    scanscope_id: str = "SS7777"
    scanned: datetime | None = datetime(2026, 3, 14, 9, 26, 53)
    left_mm: float | None = 23.5
    top_mm: float | None = 15.25
    barcode: str = ""
    file_name: str = ""
    image_id: str = ""
    user: str = ""
    title: str = ""
    extra: Sequence[tuple[str, str]] = ()

    def properties(self) -> list[tuple[str, str]]:
        """Keys and values in Aperio's order and spelling."""
        found = [("AppMag", f"{self.magnification:g}"), ("StripeWidth", "2040")]
        if self.scanscope_id:
            found.append(("ScanScope ID", self.scanscope_id))
        if self.file_name:
            found.append(("Filename", self.file_name))
        if self.title:
            found.append(("Title", self.title))
        if self.scanned is not None:
            found.append(("Date", self.scanned.strftime("%m/%d/%y")))
            found.append(("Time", self.scanned.strftime("%H:%M:%S")))
            if self.scanned.tzinfo is not None:
                zone = self.scanned.strftime("%z")
                found.append(("Time Zone", f"GMT{zone[:3]}:{zone[3:5]}"))
        if self.user:
            found.append(("User", self.user))
        if self.microns_per_pixel is not None:
            found.append(("MPP", f"{self.microns_per_pixel:.4f}"))
        if self.left_mm is not None:
            found.append(("Left", f"{self.left_mm:.6f}"))
        if self.top_mm is not None:
            found.append(("Top", f"{self.top_mm:.6f}"))
        if self.image_id:
            found.append(("ImageID", self.image_id))
        if self.barcode:
            found.append(("Barcode", self.barcode))
        return [*found, *self.extra]


@dataclass(frozen=True, slots=True)
class TileFormat:
    """How the tiles of a level are coded. ``photometric`` is TIFF's (RGB or YCBCR) and
    counts for JPEG only; ``subsampling`` is "444", "422" or "420"."""

    compression: int = JPEG
    photometric: int = RGB
    subsampling: str = "444"
    quality: int = 75

    @property
    def tiff_subsampling(self) -> tuple[int, int]:
        if self.compression != JPEG:
            return 1, 1
        return {"444": (1, 1), "422": (2, 1), "420": (2, 2)}[self.subsampling]

    @property
    def tiff_photometric(self) -> int:
        if self.compression == JPEG:
            return self.photometric
        return YCBCR if self.compression == JPEG2000_YCBCR else RGB


def split_jpeg(stream: bytes) -> tuple[bytes, bytes]:
    """A JPEG as (tables-only stream, abbreviated stream without APP segments).

    Component identifiers become 0, 1, 2, as Aperio numbers them: they then say
    nothing about the colours (libjpeg would guess RGB from the letters R, G, B).
    """
    tables, rest = bytearray(), bytearray(stream[:2])
    at = 2
    while True:
        marker = stream[at + 1]
        length = 2 + int.from_bytes(stream[at + 2 : at + 4], "big")
        segment = bytearray(stream[at : at + length])
        at += length
        if marker in (0xDB, 0xC4):
            tables += segment
        elif 0xE0 <= marker <= 0xEF or marker == 0xFE:
            continue
        elif marker == 0xDA:
            for index in range(segment[4]):
                segment[5 + 2 * index] = index
            rest += segment + stream[at:]
            break
        else:
            if marker == 0xC0:
                for index in range(segment[9]):
                    segment[10 + 3 * index] = index
            rest += segment
    return b"\xff\xd8" + bytes(tables) + b"\xff\xd9", bytes(rest)


def encode_jpeg(pixels: Pixels, form: TileFormat) -> tuple[bytes, bytes]:
    """(JPEGTables, abbreviated stream) of an RGB picture of (rows, columns, 3). The
    tables depend on the form only, so that a page's tiles can share them."""
    stream = imagecodecs.jpeg8_encode(
        pixels,
        level=form.quality,
        colorspace="RGB",
        outcolorspace="RGB" if form.photometric == RGB else "YCBCR",
        subsampling="444" if form.photometric == RGB else form.subsampling,
    )
    return split_jpeg(bytes(stream))


def encode_tile(pixels: Pixels, form: TileFormat) -> bytes:
    """One tile's bytes; for JPEG without the tables (:func:`jpeg_tables`)."""
    if form.compression == JPEG:
        return encode_jpeg(pixels, form)[1]
    rgb = form.compression == JPEG2000_RGB
    data = pixels if rgb else rgb_to_ycbcr(pixels)
    return bytes(
        imagecodecs.jpeg2k_encode(
            data,
            level=form.quality,
            codecformat="j2k",
            reversible=False,
            mct=rgb,
            resolutions=3,
            numthreads=1,
        ),
    )


def jpeg_tables(form: TileFormat) -> bytes:
    """The shared JPEGTables of a page in this form, b"" where it needs none."""
    if form.compression != JPEG:
        return b""
    return encode_jpeg(np.zeros((16, 16, 3), np.uint8), form)[0]


def rgb_to_ycbcr(pixels: Pixels) -> Pixels:
    """JFIF's YCbCr of RGB, rounded."""
    return np.asarray(Image.fromarray(pixels).convert("YCbCr"), dtype=np.uint8)


class SvsWriter:
    """The pages of an SVS in the order they are written: :meth:`level`, then
    :meth:`thumbnail`, further levels, :meth:`label`, :meth:`macro`."""

    def __init__(self, path: Path, scan: Scan, *, bigtiff: bool = False, icc_profile: bytes = b"") -> None:
        self._tiff = TiffWriter(path, bigtiff=bigtiff)
        self._scan = scan
        self._icc_profile = icc_profile
        self._size: tuple[int, int] = (0, 0)
        self._head = self._tail = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._tiff.close()

    def level(
        self,
        rows: int,
        columns: int,
        tile: int,
        form: TileFormat,
        tiles: Iterable[bytes],
        *,
        describe: bool = True,
    ) -> None:
        """A level of square tiles, row by row; b"" for a tile left out. The first call
        is full resolution. ``describe`` False leaves a reduced level's description
        empty, as GT450 scanners may."""
        first = not self._head
        codec = "JPEG/RGB" if form.compression == JPEG else f"J2K/{form.compression}"
        here = f"({tile}x{tile}) {codec} Q={form.quality}"
        if first:
            self._size = (rows, columns)
            area = f"{columns}x{rows} [0,0 {columns}x{rows}]"
            properties = [
                *self._scan.properties(),
                ("OriginalWidth", str(columns)),
                ("OriginalHeight", str(rows)),
                ("Filtered", "5"),
            ]
            if self._icc_profile:
                properties.append(("ICC Profile", "ScanScope v1"))
            self._head = f"{LIBRARY}\r\n{area}"
            self._tail = "|" + "|".join(f"{key} = {value}" for key, value in properties)
            description = f"{self._head} {here}{self._tail}"
        else:
            description = f"{self._head} {here} -> {columns}x{rows} {codec} Q={form.quality}{self._tail}"
        self._tiff.write_page(
            Page(
                rows,
                columns,
                form.compression,
                form.tiff_photometric,
                description if first or describe else "",
                tile=(tile, tile),
                jpeg_tables=jpeg_tables(form),
                icc_profile=self._icc_profile,
                subsampling=form.tiff_subsampling if form.tiff_photometric == YCBCR else None,
            ),
            tiles,
        )

    def thumbnail(self, pixels: Pixels) -> None:
        rows, columns = pixels.shape[:2]
        text = f"{LIBRARY}\r\n{self._size[1]}x{self._size[0]} -> {columns}x{rows} - {self._tail}"
        self._strips(pixels, text, subfile_type=0, icc_profile=self._icc_profile)

    def macro(self, pixels: Pixels) -> None:
        rows, columns = pixels.shape[:2]
        self._strips(pixels, f"{LIBRARY}\r\nmacro {columns}x{rows}", subfile_type=MACRO_SUBFILE)

    def label(self, pixels: Pixels) -> None:
        """The label, LZW with horizontal differencing: lossless."""
        rows, columns = pixels.shape[:2]
        height = max(1, 8192 // (columns * 3))
        page = Page(
            rows,
            columns,
            LZW,
            RGB,
            f"{LIBRARY}\r\nlabel {columns}x{rows}",
            rows_per_strip=height,
            subfile_type=LABEL_SUBFILE,
            predictor=2,
        )
        strips = (pixels[top : top + height] for top in range(0, rows, height))
        self._tiff.write_page(page, (lzw_strip(strip) for strip in strips))

    def _strips(
        self, pixels: Pixels, description: str, *, subfile_type: int, icc_profile: bytes = b""
    ) -> None:
        rows, columns = pixels.shape[:2]
        form = TileFormat(photometric=RGB, quality=80)
        page = Page(
            rows,
            columns,
            JPEG,
            RGB,
            description,
            rows_per_strip=STRIP_ROWS,
            subfile_type=subfile_type,
            jpeg_tables=jpeg_tables(form),
            icc_profile=icc_profile,
        )
        strips = (pixels[top : top + STRIP_ROWS] for top in range(0, rows, STRIP_ROWS))
        self._tiff.write_page(page, (encode_jpeg(np.ascontiguousarray(s), form)[1] for s in strips))


def lzw_strip(pixels: Pixels) -> bytes:
    """A strip under TIFF's LZW with Predictor 2 (differences along the row)."""
    differences = pixels.copy()
    differences[:, 1:] -= pixels[:, :-1]
    return bytes(imagecodecs.lzw_encode(differences.tobytes()))
