# SPDX-License-Identifier: Apache-2.0
"""One query, whoever asked: values, and their SQL for both databases.

A statement first finds the identifiers of a page, from the index of one key or in the
order of the result (:mod:`archive.index.plan`), and then their columns. A scope's
predicate always has its row of ``study``. Keys of a deeper level than the result's: one
series, one instance must fulfil them all. Order is by study date, newest first, then
by identifier (``place``); it is total, so pages do not overlap.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from archive.access import Scope
from archive.errors import BadQuery
from archive.index.columns import COLUMNS, COMBINED, Level, selected, supported
from archive.index.conditions import EACH, Sql, adapted, on_attribute, on_column, on_modalities
from archive.index.matching import Kind, Match, parse_match
from archive.index.plan import Seek, seeks

__all__ = ["Cursor", "Kind", "Level", "Match", "Query", "compile", "compile_count", "parse_match"]

MAX_OFFSET = 1_000_000
MAX_LIMIT = 10_000

# (place of the study[, series id[, instance id]]) of the last row of a page.
Cursor = tuple[int, ...]

_TABLES = {Level.STUDY: "study", Level.SERIES: "series", Level.INSTANCE: "instance"}
_KEYS = ("place", "series_id", "instance_id")
_DAY = 1 << 36  # of a place


@dataclass(frozen=True, slots=True)
class Query:
    """What to find. Keys that are not supported are ignored (``columns.supported``).

    ``include``: dotted tag paths to return besides the required ones, or ``all``; they
    do not change what is found. ``limit`` None means all there are. A UID constraint
    that is empty does not constrain. ``combined``: a range of dates and one of times
    are one range of instants (PS3.4 C.2.2.2.5.4)."""

    level: Level
    matches: tuple[Match, ...] = ()
    include: tuple[str, ...] = ()
    limit: int | None = None
    offset: int = 0
    study_instance_uid: str = ""
    series_instance_uid: str = ""
    combined: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.offset <= MAX_OFFSET:
            raise BadQuery(f"offset must be from 0 to {MAX_OFFSET}")
        if self.limit is not None and self.limit < 0:
            raise BadQuery("limit must not be negative")

    @property
    def constrains(self) -> bool:
        """Whether any key or UID narrows the result, beside the scope."""
        return bool(self.study_instance_uid or self.series_instance_uid or self.matches)

    def with_keys(self, keys: Mapping[str, str]) -> "Query":
        """The same without keys that do not narrow, or are not among ``keys``."""
        kept = tuple(m for m in self.matches if m.kind != Kind.UNIVERSAL and supported(m.path, keys))
        return replace(self, matches=kept)

    @property
    def all_matches(self) -> tuple[Match, ...]:
        """The keys one by one, those of the resource's path included."""
        uids = (("0020000D", self.study_instance_uid), ("0020000E", self.series_instance_uid))
        return (
            *(one for match in self.matches for one in match.each),
            *(Match(path, "UI", Kind.VALUES, (uid,)) for path, uid in uids if uid),
        )


def ways(query: Query, scope: Scope, dialect: str) -> list[Seek]:
    """Where :func:`compile` may start."""
    return list(seeks(query.all_matches, scope, dialect))


def repeats(query: Query, seek: Seek | None) -> bool:
    """Whether several rows to start from may name the same result."""
    return seek is not None and (seek.level > query.level or not seek.distinct)


def compile(
    query: Query,
    scope: Scope,
    dialect: str,
    *,
    seek: Seek | None = None,
    after: Cursor | None = None,
    limit: int | None = None,
) -> tuple[str, list[object]]:
    """The statement that gives a page of rows, and its parameters.

    ``after`` continues behind a row and makes ``query.offset`` void; ``limit`` takes
    the place of the query's. Keys without a column are taken to be in ``attribute``."""
    page = _Page(query, scope, dialect, seek)
    if after is not None:
        page.behind(after)
    keys = _KEYS[: query.level]
    wanted = query.limit if limit is None else limit
    inner = f"{page.select()} ORDER BY place DESC{''.join(f', {key}' for key in keys[1:])}"
    inner += f" LIMIT {MAX_LIMIT if wanted is None else min(wanted, MAX_LIMIT + 1):d}"
    if after is None and query.offset:
        inner += f" OFFSET {query.offset:d}"
    join = page.join
    tables = "study ON study.place = page.place"
    if query.level >= Level.SERIES:
        tables += f"{join}series ON series.id = page.series_id"
    if query.level == Level.INSTANCE:
        tables += f"{join}instance ON instance.id = page.instance_id"
    columns = ", ".join(f'{name} AS "{name}"' for name in selected(query.level))
    order = ", ".join(("page.place DESC", "page.series_id", "page.instance_id")[: query.level])
    statement = f"SELECT {columns} FROM ({inner}) AS page{join}{tables} ORDER BY {order}"
    return adapted(statement, dialect), page.sql.parameters


def compile_count(
    query: Query, scope: Scope, dialect: str, *, cap: int, seek: Seek | None = None
) -> tuple[str, list[object]]:
    """The statement that counts all matches, up to ``cap``; from the kept counters
    when nothing but the scope narrows them."""
    if not query.constrains and query.level != Level.STUDY:
        counter = "number_of_series" if query.level == Level.SERIES else "number_of_instances"
        statement = f"SELECT coalesce(sum(study.{counter}), 0) FROM study WHERE {scope.sql}"
        return adapted(statement, dialect), list(scope.parameters)
    page = _Page(query, scope, dialect, seek)
    statement = f"SELECT count(*) FROM ({page.select()} LIMIT {cap:d}) AS counted"
    return adapted(statement, dialect), page.sql.parameters


def compile_by_patient(
    query: Query,
    scope: Scope,
    dialect: str,
    *,
    seek: Seek | None,
    after: tuple[str, str, int] | None,
    limit: int,
) -> tuple[str, list[object]]:
    """The studies that match in the order of Patient ID, its issuer and ``place``, from
    behind ``after``; those without a Patient ID are of no patient. Rows as of
    :func:`compile` at the level of studies."""
    sql = Sql(dialect)
    sql.add("study.patient_id <> ''")
    if query.constrains:
        page = _Page(query, scope, dialect, seek)
        sql.parameters += page.sql.parameters
        tables = f"({page.select()}) AS page{page.join}study ON study.place = page.place"
    else:
        tables = "study"
        sql.add(f"({scope.sql})", *scope.parameters)
    if after is not None:
        sql.add("study.patient_id >= ?", after[0])
        sql.add("(study.patient_id, study.issuer_of_patient_id, study.place) > (?, ?, ?)", *after)
    columns = ", ".join(f'{name} AS "{name}"' for name in selected(Level.STUDY))
    statement = (
        f"SELECT {columns} FROM {tables} WHERE {sql.where} "
        f"ORDER BY study.patient_id, study.issuer_of_patient_id, study.place LIMIT {limit:d}"
    )
    return adapted(statement, dialect), sql.parameters


class _Page:
    """The identifiers of a query's matches: tables, conditions, expressions of the keys."""

    def __init__(self, query: Query, scope: Scope, dialect: str, seek: Seek | None) -> None:
        self.sql = Sql(dialect)
        # On SQLite a CROSS JOIN keeps the planner from starting elsewhere.
        self.join = " CROSS JOIN " if dialect == "sqlite" else " JOIN "
        self._level = query.level
        self._distinct = repeats(query, seek)
        self._sorts = seek is not None and not seek.ordered
        matches = list(query.all_matches)
        if seek is not None:
            self.sql.add(seek.where, *seek.parameters)
            # The date of a pair (COMBINED) stays: what it means depends on the other.
            if seek.match is not None and seek.match.path not in COMBINED:
                matches.remove(seek.match)
        self._start(matches, scope, seek)
        if query.combined:
            matches = self._combine(matches)
        if not scope.is_everything and (seek is None or seek.match is not None):
            self._need("study")
            self.sql.add(f"({scope.sql})", *scope.parameters)
        deeper = [m for m in matches if _level_of(m) > query.level]
        for match in matches:
            if match not in deeper:
                self._condition(match)
        if deeper and self._seek_level > query.level:  # what the rows name fulfils them all
            for match in deeper:
                self._condition(match)
        elif deeper:
            self._exists(deeper)
        self._keys = [self._place, self._series, self._instance][: query.level]

    def select(self) -> str:
        # A sum is in no index: few rows are sorted, not met by walking all of the order.
        first = f"{self._place} + 0" if self._sorts else self._place
        named = zip([first, *self._keys[1:]], _KEYS, strict=False)
        keys = ", ".join(f"{key} AS {name}" for key, name in named)
        distinct = "DISTINCT " if self._distinct else ""
        return f"SELECT {distinct}{keys} FROM {self._tables} WHERE {self.sql.where}"

    def behind(self, after: Cursor) -> None:
        """Only rows behind the one with these order keys."""
        place, *deeper = after
        if not deeper:
            self.sql.add(f"{self._place} < ?", place)
            return
        marks = ", ".join("?" * len(deeper))
        keys = ", ".join(self._keys[1:])
        self.sql.add(f"{self._place} <= ?", place)
        self.sql.add(f"({self._place} < ? OR ({keys}) > ({marks}))", place, *deeper)

    def _start(self, matches: list[Match], scope: Scope, seek: Seek | None) -> None:
        if seek is None:
            levels = [_level_of(m) for m in matches if m.path not in ("00080020", "00080061")]
            first = min([self._level, *levels, *([] if scope.is_everything else [Level.STUDY])])
            self._seek_level = first
            self._tables = _TABLES[first]
            self._there = {self._tables}
            self._place = f"{self._tables}.place"
            self._series = {1: "", 2: "series.id", 3: "instance.series_id"}[first]
            self._instance = "instance.id" if first == Level.INSTANCE else ""
        else:
            self._seek_level = seek.level
            self._tables = seek.source
            self._there = {seek.table} - {""}
            self._place, self._series, self._instance = seek.place, seek.series, seek.instance
        if self._level == Level.SERIES and not self._series:
            self._need("series")
        if self._level == Level.INSTANCE and not self._instance:
            self._need("instance")

    def _need(self, table: str) -> None:
        """Join a table, by what is known of its row."""
        if table in self._there:
            return
        if table == "study":
            on = f"study.place = {self._place}"
        elif table == "series":
            on = f"series.id = {self._series}" if self._series else f"series.place = {self._place}"
            self._series = self._series or "series.id"
        else:
            if self._instance:
                on = f"instance.id = {self._instance}"
            elif self._series:
                on = f"instance.series_id = {self._series}"
            else:
                on = f"instance.place = {self._place}"
            self._series = self._series or "instance.series_id"
            self._instance = self._instance or "instance.id"
        self._there.add(table)
        self._tables += f"{self.join}{table} ON {on}"

    def _condition(self, match: Match) -> None:
        if match.path == "00080061":
            on_modalities(self.sql, match, self._place)
        elif match.path == "00080020" and match.kind in (Kind.RANGE, Kind.DATES):
            self.sql.any_of(_days(self._place, low, high) for low, high in match.spans)
        elif (column := COLUMNS.get(match.path)) is None:
            if not self._instance:
                self._need("instance")
            on_attribute(self.sql, match, self._place, self._instance)
        else:
            self._need(_TABLES[column.level])
            on_column(self.sql, match, _TABLES[column.level])

    def _exists(self, matches: list[Match]) -> None:
        """Keys of deeper levels: some series, and some instance of it, fulfils all."""
        inner = self.sql.new()
        series = instance = False
        for match in matches:
            if (column := COLUMNS.get(match.path)) is None:
                instance = True
                on_attribute(inner, match, "i.place", "i.id")
            else:
                series |= column.level == Level.SERIES
                instance |= column.level == Level.INSTANCE
                on_column(inner, match, "e" if column.level == Level.SERIES else "i")
        if self._level == Level.SERIES:
            source, link = "instance i", f"i.series_id = {self._series}"
        elif series and instance:
            source, link = "series e JOIN instance i ON i.series_id = e.id", f"e.place = {self._place}"
        else:
            alias = "e" if series else "i"
            source = "series e" if series else "instance i"
            link = f"{alias}.place = {self._place}"
        self.sql.add(
            f"EXISTS (SELECT 1 FROM {source} WHERE {link} AND {inner.where} {EACH})", *inner.parameters
        )

    def _combine(self, matches: list[Match]) -> list[Match]:
        """Turn pairs of a date range and a time range into one condition; the rest stays."""
        ranges = {match.path: match for match in matches if match.kind == Kind.RANGE}
        rest = list(matches)
        for date_path, time_path in COMBINED.items():
            date, time = ranges.get(date_path), ranges.get(time_path)
            if date is None or time is None or COLUMNS[date_path].level > self._level:
                continue
            ((first_day, last_day),), ((first_time, last_time),) = date.spans, time.spans
            self._need(_TABLES[COLUMNS[date_path].level])
            day, clock = COLUMNS[date_path].name, COLUMNS[time_path].compared[0]
            instant = f"({day} || {clock})"
            if first_day:
                self.sql.add(f"{day} >= ? AND {instant} >= ?", first_day, first_day + first_time)
            if last_day:
                end = last_day[:-1] + (last_time or "~")
                self.sql.add(f"{day} <> '' AND {day} <= ? AND {instant} <= ?", last_day, end)
            rest.remove(time)
            if date_path == "00080020":
                continue  # the days bound the place as well
            rest.remove(date)
        return rest


def _days(place: str, low: str, high: str) -> tuple[str, tuple[object, ...]]:
    """Study dates as a range of places; an absent date is in none."""
    first = int(low) * _DAY if low else _DAY
    if not high:
        return f"{place} >= ?", (first,)
    return f"({place} >= ? AND {place} < ?)", (first, (int(high[:-1]) + 1) * _DAY)


def _level_of(match: Match) -> Level:
    column = COLUMNS.get(match.path)
    return Level.INSTANCE if column is None else column.level
