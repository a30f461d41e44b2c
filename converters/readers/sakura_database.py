# SPDX-License-Identifier: Apache-2.0
"""The SQLite database of an SVSLIDE, read with budgets: nothing is written, no schema of the
file's is trusted, and a query that goes on without end is stopped."""

import re
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from converters.errors import DamagedSlide, UnsupportedPixels

MAX_BLOB_BYTES = 64 << 20
MAX_NAMES = 30_000_000  # rows of the table of blobs
MAX_STEPS = 4000  # of a million instructions of SQLite's machine each, for a query
MAX_TEXT = 65536
MAX_DOWNSAMPLE = 1 << 20
TILE = re.compile(r"T;(0|[1-9]\d{0,9})\|(0|[1-9]\d{0,9});([1-9]\d{0,6});([012]);(0|[1-9]\d{0,3})")
MAGIC = "SVGigaPixelImage"


@dataclass(frozen=True)
class Row:
    """A row of a table, by column; what the table does not have is absent."""

    values: Mapping[str, Any]

    def text(self, column: str) -> str:
        value = self.values.get(column)
        if value is None or isinstance(value, bytes):
            return ""
        return str(value).strip()[:MAX_TEXT]

    def number(self, column: str) -> float | None:
        value = self.values.get(column)
        return float(value) if isinstance(value, int | float) else None

    def integer(self, column: str) -> int | None:
        value = self.values.get(column)
        return value if isinstance(value, int) else None

    def blob(self, column: str) -> bytes:
        value = self.values.get(column)
        return value if isinstance(value, bytes) else b""


@dataclass(frozen=True, eq=False)
class Tiles:
    """Every channel of a tile, as (x, y, downsample, colour, plane, bytes) in columns."""

    table: NDArray[np.int64]

    @property
    def downsamples(self) -> Sequence[int]:
        """Finest first."""
        return [int(value) for value in np.unique(self.table[:, 2])]

    @property
    def planes(self) -> Sequence[int]:
        return [int(value) for value in np.unique(self.table[:, 4])]

    def size_bytes(self, downsample: int, planes: Sequence[int]) -> int:
        chosen = (self.table[:, 2] == downsample) & np.isin(self.table[:, 4], planes)
        return int(self.table[chosen, 5].sum())

    def present(
        self, downsample: int, planes: Sequence[int], tile: int, grid: tuple[int, int]
    ) -> NDArray[np.bool_]:
        """Which tiles of a level are there, plane after plane, in rows. Raises DamagedSlide
        for one that stands between the others, or lacks a channel."""
        found = np.zeros((len(planes), *grid), np.uint8)
        for number, plane in enumerate(planes):
            chosen = self.table[(self.table[:, 2] == downsample) & (self.table[:, 4] == plane)]
            step = tile * downsample
            if (chosen[:, :2] % step).any():
                raise DamagedSlide("a tile stands between the places of the grid")
            column, row = chosen[:, 0] // step, chosen[:, 1] // step
            inside = (row < grid[0]) & (column < grid[1])
            bits = (1 << chosen[:, 3]).astype(np.uint8)
            np.bitwise_or.at(found[number], (row[inside], column[inside]), bits[inside])
        if ((found != 0) & (found != 7)).any():
            raise DamagedSlide("a tile lacks one of its three colour channels")
        result: NDArray[np.bool_] = (found == 7).ravel()
        return result


class Database:
    """An open database. Raises DamagedSlide, as all methods do. Use from one thread."""

    def __init__(self, path: Path) -> None:
        self._steps = 0
        try:
            address = f"file:{quote(str(path.absolute()))}?mode=ro&immutable=1"
            self._db = sqlite3.connect(address, uri=True, check_same_thread=False)
        except sqlite3.Error as error:
            raise DamagedSlide("the database cannot be opened") from error
        try:
            self._db.text_factory = lambda content: content.decode("utf-8", "replace")
            self._db.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_BLOB_BYTES)
            self._db.set_progress_handler(self._step, 1_000_000)
            self._query("pragma trusted_schema = off")
            self._tables = self._table_names()
            self._unique = self._unique_table()
            if self.text("++MagicBytes") != MAGIC:
                raise DamagedSlide("the database is none of a slide")
        except Exception:
            self._db.close()
            raise

    def close(self) -> None:
        self._db.close()

    def blob(self, name: str) -> bytes:
        """A named blob. Raises DamagedSlide where there is none."""
        found = self._query(f"select data from {self._unique} where id = ? limit 1", name)
        if not found or not isinstance(found[0][0], bytes):
            raise DamagedSlide("the database lacks a part of the slide")
        content: bytes = found[0][0]
        return content

    def text(self, name: str) -> str:
        """A named blob that is text; "" where there is none."""
        found = self._query(f"select data from {self._unique} where id = ? limit 1", name)
        if not found:
            return ""
        content = found[0][0]
        return (content.decode("utf-8", "replace") if isinstance(content, bytes) else str(content))[:MAX_TEXT]

    def row(self, table: str, columns: Sequence[str]) -> Row:
        """The one row of a table. Raises UnsupportedPixels where there are several."""
        if table not in self._tables:
            return Row({})
        there = {name for _, name, *_ in self._query(f"pragma table_info({table})")}
        chosen = [column for column in columns if column in there]
        if not chosen:
            return Row({})
        found = self._query(f"select {', '.join(chosen)} from {table} limit 2")
        if len(found) > 1:
            raise UnsupportedPixels("the file holds several slides or scans")
        return Row(dict(zip(chosen, found[0], strict=True)) if found else {})

    def scanned_image(self, number: int) -> bytes:
        """A label's or overview's picture; b"" where there is none."""
        if "SVScannedImageDataXPO" not in self._tables:
            return b""
        found = self._query("select Image from SVScannedImageDataXPO where OID = ? limit 1", number)
        return found[0][0] if found and isinstance(found[0][0], bytes) else b""

    def tiles(self) -> Tiles:
        """Every tile's channels. Raises UnsupportedPixels for a tile of another kind."""
        found: list[tuple[int, ...]] = []
        for name, size in self._rows(f"select id, size from {self._unique} where id like 'T;%'"):
            if not isinstance(name, str) or name.endswith("#"):
                continue
            match = TILE.fullmatch(name)
            if match is None or int(match[3]) > MAX_DOWNSAMPLE:
                raise UnsupportedPixels("a tile has a name of an unknown form")
            found.append((*map(int, match.groups()), size if isinstance(size, int) and size > 0 else 0))
            if len(found) > MAX_NAMES:
                raise DamagedSlide("the database has more tiles than any slide")
        return Tiles(np.array(found, np.int64).reshape(-1, 6))

    def _table_names(self) -> frozenset[str]:
        found = self._query("select name from sqlite_master where type = 'table' limit 1000")
        return frozenset(str(name) for (name,) in found)

    def _unique_table(self) -> str:
        if "DataManagerSQLiteConfigXPO" not in self._tables:
            raise DamagedSlide("the database is none of a slide")
        found = self._query("select TableName from DataManagerSQLiteConfigXPO limit 2")
        if len(found) != 1 or found[0][0] not in self._tables:
            raise DamagedSlide("the database does not name its table of tiles")
        return '"' + str(found[0][0]).replace('"', '""') + '"'

    def _query(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        return list(self._rows(sql, *values))

    def _rows(self, sql: str, *values: object) -> Iterator[tuple[Any, ...]]:
        self._steps = 0
        try:
            yield from self._db.execute(sql, values)
        except (sqlite3.Error, OverflowError, MemoryError, UnicodeError) as error:
            # UnicodeError: of a damaged name in a message of sqlite3's own
            raise DamagedSlide("the database is damaged") from error

    def _step(self) -> bool:
        """Whether to stop."""
        self._steps += 1
        return self._steps > MAX_STEPS
