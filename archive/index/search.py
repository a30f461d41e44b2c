# SPDX-License-Identifier: Apache-2.0
"""Running queries: pages, continued by keyset, and how much is left.

Bounded caches, valid for one state of the database: where the next page of a query
begins (so an offset costs what a keyset costs), and how many rows it has in all.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from archive.access import Scope
from archive.index.columns import Level
from archive.index.conditions import adapted
from archive.index.plan import Seek, choose
from archive.index.query import (
    Cursor,
    Query,
    compile,
    compile_by_patient,
    compile_count,
    repeats,
    ways,
)

V = TypeVar("V")
Row = dict[str, Any]

PAGE = 1000  # rows between two fetches of a stream: no cursor outlives a page
COUNT_CAP = 10_000  # beyond, a count says "at least"
REPEATED_COUNT_CAP = 1_000  # the same, where each result has many rows
CACHE_ENTRIES = 512


@dataclass(frozen=True, slots=True)
class Found:
    """A page of result rows, keyed ``table.column``, and how many follow them; with
    ``exact`` False there are at least that many."""

    rows: list[Row]
    remaining: int
    exact: bool = True


class Search:
    """The queries of one index."""

    def __init__(
        self,
        dialect: str,
        read: Callable[[], AbstractContextManager[Any]],
        data_version: Callable[[], str],
        keys: Callable[[], Mapping[str, str]],
    ) -> None:
        """``keys``: VR by path of what every instance has in ``attribute``."""
        self._dialect = dialect
        self._read = read
        self._data_version = data_version
        self._keys = keys
        self._probes: _Versioned[int] = _Versioned()
        self._anchors: _Versioned[Cursor] = _Versioned()
        self._counts: _Versioned[tuple[int, bool]] = _Versioned()

    def find(self, query: Query, scope: Scope) -> Found:
        """One page. Without a limit: at most ``MAX_LIMIT`` rows, see :meth:`iterate`."""
        with self._read():  # one connection for all statements
            return self._find(query.with_keys(self._keys()), scope)

    def _find(self, query: Query, scope: Scope) -> Found:
        limit = query.limit
        version = self._data_version()
        seek = self._seek(query, scope, version)
        if limit == 0:
            total, exact = self._count(query, scope, seek, version, query.offset)
            return Found([], max(0, total - query.offset), exact)
        unpaged = (scope, replace(query, offset=0, limit=None, include=()))
        after = self._anchors.get(version, (*unpaged, query.offset)) if query.offset else None
        with self._read() as database:
            rows = self._fetch(database, query, scope, seek, after, None if limit is None else limit + 1)
        if limit is None or len(rows) <= limit:
            return Found(rows, 0)
        del rows[limit:]
        end = query.offset + len(rows)
        self._anchors.put(version, (*unpaged, end), cursor_of(rows[-1], query.level))
        total, exact = self._count(query, scope, seek, version, end)
        return Found(rows, max(1, total - end), exact)

    def iterate(self, query: Query, scope: Scope) -> Iterator[Row]:
        """All rows, fetched by keyset a page at a time; ``limit`` and ``offset`` hold."""
        query = query.with_keys(self._keys())
        seek = self._seek(query, scope, self._data_version())
        left = query.limit
        after: Cursor | None = None
        while left is None or left > 0:
            size = PAGE if left is None else min(PAGE, left)
            with self._read() as database:
                rows = self._fetch(database, query, scope, seek, after, size)
            yield from rows
            if len(rows) < size:
                return
            after = cursor_of(rows[-1], query.level)
            left = None if left is None else left - len(rows)

    def patients(self, query: Query, scope: Scope) -> Iterator[Row]:
        """The newest matching study of each patient (Patient ID and its issuer), by Patient
        ID; fetched by keyset a page at a time."""
        query = query.with_keys(self._keys())
        seek = self._seek(query, scope, self._data_version())
        after: tuple[str, str, int] | None = None
        newest: Row | None = None
        while True:
            sql, parameters = compile_by_patient(
                query, scope, self._dialect, seek=seek, after=after, limit=PAGE
            )
            with self._read() as database:
                rows = _as_rows(database.execute_sql(sql, parameters))
            for row in rows:
                if newest is not None and _patient(row) != _patient(newest):
                    yield newest
                newest = row
            if len(rows) < PAGE:
                break
            after = (*_patient(rows[-1]), rows[-1]["study.place"])
        if newest is not None:
            yield newest

    def _seek(self, query: Query, scope: Scope, version: str) -> Seek | None:
        """Where to start: of several ways the one with the fewest rows."""
        found = ways(query, scope, self._dialect)
        if not found or (len(found) == 1 and found[0].ordered):
            return found[0] if found else None
        with self._read() as database:
            return choose(found, [self._rows_of(database, seek, version) for seek in found])

    def _rows_of(self, database: Any, seek: Seek, version: str) -> int:
        known = self._probes.get(version, seek)
        if known is None:
            sql, parameters = seek.probe()
            known = int(database.execute_sql(adapted(sql, self._dialect), parameters).fetchone()[0])
            self._probes.put(version, seek, known)
        return known

    def _fetch(
        self,
        database: Any,
        query: Query,
        scope: Scope,
        seek: Seek | None,
        after: Cursor | None,
        limit: int | None,
    ) -> list[Row]:
        sql, parameters = compile(query, scope, self._dialect, seek=seek, after=after, limit=limit)
        return _as_rows(database.execute_sql(sql, parameters))

    def _count(
        self, query: Query, scope: Scope, seek: Seek | None, version: str, end: int
    ) -> tuple[int, bool]:
        """How many rows the whole query has, and whether that is exact; when it is not,
        at least so many, and more than ``end``."""
        key = (scope, replace(query, offset=0, limit=None, include=()))
        known = self._counts.get(version, key)
        if known is None or not (known[1] or known[0] > end):
            cap = max(REPEATED_COUNT_CAP if repeats(query, seek) else COUNT_CAP, end * 2)
            sql, parameters = compile_count(query, scope, self._dialect, cap=cap, seek=seek)
            with self._read() as database:
                total = int(database.execute_sql(sql, parameters).fetchone()[0])
            by_counters = not query.constrains and query.level != Level.STUDY
            known = (total, by_counters or total < cap)
            self._counts.put(version, key, known)
        return known


def _as_rows(cursor: Any) -> list[Row]:
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, values, strict=True)) for values in cursor.fetchall()]


def _patient(row: Row) -> tuple[str, str]:
    return row["study.patient_id"], row["study.issuer_of_patient_id"]


def cursor_of(row: Row, level: Level) -> Cursor:
    """The order keys of a row, to continue behind it."""
    keys = ("study.place", "series.id", "instance.id")
    return tuple(row[key] for key in keys[:level])


class _Versioned(Generic[V]):
    """A small cache, least recently used first out, emptied when the data changed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._version = ""
        self._entries: OrderedDict[object, V] = OrderedDict()

    def get(self, version: str, key: object) -> V | None:
        with self._lock:
            if version != self._version or key not in self._entries:
                return None
            self._entries.move_to_end(key)
            return self._entries[key]

    def put(self, version: str, key: object, value: V) -> None:
        with self._lock:
            if version != self._version:
                self._entries.clear()
                self._version = version
            self._entries[key] = value
            if len(self._entries) > CACHE_ENTRIES:
                self._entries.popitem(last=False)
