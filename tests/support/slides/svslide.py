# SPDX-License-Identifier: Apache-2.0
"""Sakura SVSLIDE slides for tests: an SQLite database of grey JPEGs, one for each colour
channel of each tile (openslide.org/formats/sakura)."""

import io
import sqlite3
import struct
import uuid
from collections.abc import Collection, Sequence
from contextlib import closing
from hashlib import md5
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tests.support.make_slide import fit, picture, shrink

Pixels = NDArray[np.uint8]
UNIQUE = f"SVGigaPixelImage_{uuid.UUID(int=7).hex}"

TABLES = f"""
create table DataManagerSQLiteConfigXPO(OID integer primary key, TableName text);
create table SVSlideDataXPO(
    OID integer primary key, m_labelScan integer, m_overviewScan integer, SlideId text, Date text,
    Description text, Creator text, DiagnosisCode text, HRScanCount integer, Keywords text,
    TotalDataSizeBytes integer);
create table SVHRScanDataXPO(
    OID integer primary key, ParentSlide integer, ScanId text, Date text, Description text, Name text,
    PosOnSlideMm blob, ResolutionMmPerPix real, NominalLensMagnification real, ThumbnailImage blob,
    TotalDataSizeBytes integer, FocussingMethod integer, FocusStack blob);
create table SVScannedImageDataXPO(
    OID integer primary key, Id text, PosOnSlideMm blob, ScanCenterPosMm blob, ResolutionMmPerPix real,
    Image blob, ThumbnailImage blob);
create table tile(
    TILEID text, PYRAMIDLEVEL integer, COLUMNINDEX integer, ROWINDEX integer, COLORINDEX integer);
create table "{UNIQUE}"(id text primary key, size integer, data blob);
"""


def write_svslide(
    folder: Path,
    *,
    rows: int = 900,
    columns: int = 1300,
    tile: int = 256,
    downsamples: Sequence[int] = (1, 2, 4),
    missing: Collection[tuple[int, int]] = (),
    heights: Sequence[float] = (0.0,),
    associated: bool = True,
    tile_table: bool = True,
    scanned: str = "2014-03-05 11:12:13",
    seed: int = 7,
) -> Path:
    """Write the slide and return its path. ``missing`` are tiles (row, column) of the
    finest level that were not scanned; ``heights`` fill the focus stack (millimetres, as
    float64), one for each focal plane."""
    path = folder / "scan.svslide"
    with closing(sqlite3.connect(path)) as database:
        database.executescript(TABLES)
        database.execute("insert into DataManagerSQLiteConfigXPO values(1, ?)", (UNIQUE,))
        put(database, "++MagicBytes", b"SVGigaPixelImage")
        put(database, "++VersionBytes", b"1.0.0")
        numbers = (tile, columns, rows, 8, len(heights), 3, 1)
        put(database, "Header", struct.pack("<7IH6I", *numbers, 256, 1, 2, 3, 4, 5, 6))
        total = sum(
            _tiles(database, plane_of(rows, columns, seed, plane), tile, downsamples, plane, missing)
            for plane in range(len(heights))
        )
        database.execute(f'insert into "{UNIQUE}" values(?, ?, ?)', ("TOTAL_SIZE", total, b""))
        if not tile_table:
            database.execute("drop table tile")
        base = plane_of(rows, columns, seed, 0)
        stack = struct.pack(f"<{len(heights)}d", *heights)
        database.execute(
            "insert into SVHRScanDataXPO values(1, 1, ?, ?, '', 'scan', ?, 0.00046, 20.0, ?, ?, 1, ?)",
            (str(uuid.UUID(int=11)), scanned, bytes(16), jpeg(fit(base, 160)), total, stack),
        )
        pictures = (picture(90, 120, seed + 1), fit(base, 200)) if associated else ()
        for number, pixels in enumerate(pictures, 1):
            database.execute(
                "insert into SVScannedImageDataXPO values(?, ?, ?, ?, 0.05, ?, ?)",
                (
                    number,
                    str(uuid.UUID(int=number)),
                    bytes(16),
                    bytes(16),
                    jpeg(pixels),
                    jpeg(fit(pixels, 40)),
                ),
            )
        database.execute(
            "insert into SVSlideDataXPO values(1, 1, 2, ?, ?, 'Synthetic', 'SYN', '0', 1, 'kidney', ?)",
            (str(uuid.UUID(int=10)), scanned, total),
        )
        database.commit()
    return path


def plane_of(rows: int, columns: int, seed: int = 7, plane: int = 0) -> Pixels:
    """What the finest level of a focal plane shows, before its JPEG coding."""
    return picture(rows, columns, seed + 100 * plane)


def put(database: sqlite3.Connection, name: str, content: bytes) -> int:
    database.execute(f'insert into "{UNIQUE}" values(?, ?, ?)', (name, len(content), content))
    return len(content)


def jpeg(pixels: Pixels) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(out, "JPEG", quality=85)
    return out.getvalue()


def _tiles(
    database: sqlite3.Connection,
    base: Pixels,
    tile: int,
    downsamples: Sequence[int],
    plane: int,
    missing: Collection[tuple[int, int]],
) -> int:
    """Bytes written."""
    total = 0
    for factor in downsamples:
        level = base if factor == 1 else shrink(base, factor)
        for row in range(-(-level.shape[0] // tile)):
            for column in range(-(-level.shape[1] // tile)):
                if factor == 1 and (row, column) in missing:
                    continue
                part = level[row * tile : (row + 1) * tile, column * tile : (column + 1) * tile]
                padding = ((0, tile - part.shape[0]), (0, tile - part.shape[1]), (0, 0))
                part = np.pad(part, padding, mode="edge")
                x, y = column * tile * factor, row * tile * factor
                for colour in range(3):
                    name, content = f"T;{x}|{y};{factor};{colour};{plane}", jpeg(part[..., colour])
                    total += put(database, name, content) + put(database, f"{name}#", md5(content).digest())
                    database.execute("insert into tile values(?, ?, ?, ?, ?)", (name, factor, x, y, colour))
    return total
