# SPDX-License-Identifier: Apache-2.0
"""One query, whoever asked: values, and their SQL for both databases.

The statement joins ``study``, ``series`` and ``instance`` down to the level asked, so
that a scope's predicate over ``study`` always has its row. Keys of a deeper level are
matched by a subquery: one series, one instance must fulfil them all. Order is by study
date, newest first, then by identifier; it is total, so pages do not overlap.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from archive.access import Scope
from archive.errors import BadQuery
from archive.index.attributes import EXTRACTED, SELECTIVE
from archive.index.columns import COLUMNS, COMBINED, Level, selected, supported
from archive.index.matching import Kind, Match, parse_match

__all__ = ["Cursor", "Kind", "Level", "Match", "Query", "compile", "compile_count", "parse_match"]

MAX_OFFSET = 1_000_000
MAX_LIMIT = 10_000

_ENOUGH_LETTERS = 3  # of a pattern on an identifier

# (study date, study id[, series id[, instance id]]) of the last row of a page.
Cursor = tuple[str | int, ...]

# In the order of the result: newest study first, so that a page needs no sorting. On
# SQLite a CROSS JOIN keeps the planner from starting with the largest table.
_TABLES = ("study", "series ON series.study_id = study.id", "instance ON instance.series_id = series.id")
_ORDER = ("study.study_date DESC", "study.id DESC", "series.id", "instance.id")
_UIDS = ("0020000E", "00080018")  # below a study: a query starts from their index


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
        return bool(self.study_instance_uid or self.series_instance_uid) or any(
            match.kind != Kind.UNIVERSAL and supported(match.path) for match in self.matches
        )


@dataclass(slots=True)
class _Sql:
    """Conditions with their parameters, joined by AND; ``?`` marks a parameter."""

    dialect: str
    parts: list[str] = field(default_factory=list)
    parameters: list[object] = field(default_factory=list)
    selective: bool = False  # few series or instances can match: start from them

    def add(self, sql: str, *parameters: object) -> None:
        self.parts.append(sql)
        self.parameters += parameters

    def any_of(self, alternatives: Iterable[tuple[str, tuple[object, ...]]]) -> None:
        found = list(alternatives)
        self.add(
            "(" + " OR ".join(sql for sql, _ in found) + ")", *(one for _, some in found for one in some)
        )

    def new(self) -> "_Sql":
        return _Sql(self.dialect)

    @property
    def where(self) -> str:
        return " AND ".join(self.parts) or "1 = 1"


def compile(
    query: Query, scope: Scope, dialect: str, *, after: Cursor | None = None, limit: int | None = None
) -> tuple[str, list[object]]:
    """The statement that gives a page of rows, and its parameters.

    ``after`` continues behind a row and makes ``query.offset`` void; ``limit`` takes
    the place of the query's."""
    sql = _conditions(query, scope, dialect)
    if after is not None:
        _continue(sql, after)
    columns = ", ".join(f'{name} AS "{name}"' for name in selected(query.level))
    order = ", ".join(_ORDER[: query.level + 1])
    statement = f"SELECT {columns} FROM {_tables(query.level, sql)} WHERE {sql.where} ORDER BY {order}"
    wanted = query.limit if limit is None else limit
    statement += " LIMIT ?"
    sql.parameters.append(MAX_LIMIT if wanted is None else min(wanted, MAX_LIMIT + 1))
    if after is None and query.offset:
        statement += " OFFSET ?"
        sql.parameters.append(query.offset)
    return _adapted(statement, dialect), sql.parameters


def compile_count(query: Query, scope: Scope, dialect: str, *, cap: int) -> tuple[str, list[object]]:
    """The statement that counts all matches, up to ``cap``; from the kept counters
    when nothing but the scope narrows them."""
    sql = _conditions(query, scope, dialect)
    if not query.constrains and query.level != Level.STUDY:
        counter = "number_of_series" if query.level == Level.SERIES else "number_of_instances"
        statement = f"SELECT coalesce(sum(study.{counter}), 0) FROM study WHERE {sql.where}"
    else:
        inner = f"SELECT 1 AS one FROM {_tables(query.level, sql)} WHERE {sql.where} LIMIT {cap:d}"
        statement = f"SELECT count(*) FROM ({inner}) AS counted"
    return _adapted(statement, dialect), sql.parameters


def _tables(level: Level, sql: _Sql) -> str:
    join = " CROSS JOIN " if sql.dialect == "sqlite" and not sql.selective else " JOIN "
    return join.join(_TABLES[:level])


def _adapted(statement: str, dialect: str) -> str:
    """Parameters as the driver marks them."""
    return statement if dialect == "sqlite" else statement.replace("%", "%%").replace("?", "%s")


def _conditions(query: Query, scope: Scope, dialect: str) -> _Sql:
    sql = _Sql(dialect)
    sql.add(f"({scope.sql})", *scope.parameters)
    matches = [match for match in query.matches if match.kind != Kind.UNIVERSAL and supported(match.path)]
    if query.study_instance_uid:
        matches.append(Match("0020000D", "UI", Kind.VALUES, (query.study_instance_uid,)))
    if query.series_instance_uid:
        matches.append(Match("0020000E", "UI", Kind.VALUES, (query.series_instance_uid,)))
    if query.combined:
        matches = _combine(sql, query.level, matches)
    deeper: list[Match] = []
    for match in matches:
        column = COLUMNS.get(match.path)
        if match.path == "00080061":
            _modalities_in_study(sql, match)
        elif column is not None and column.level <= query.level:
            _on_columns(sql, column.compared, match)
            sql.selective |= match.kind == Kind.VALUES and match.path in _UIDS
        elif column is None and query.level == Level.INSTANCE:
            sql.selective |= _on_attribute(sql, "instance.id", match)
        else:
            deeper.append(match)
    if deeper:
        _deeper(sql, query.level, deeper)
    return sql


def _combine(sql: _Sql, level: Level, matches: list[Match]) -> list[Match]:
    """Turn pairs of a date range and a time range into one condition; the rest stays."""
    ranges = {match.path: match for match in matches if match.kind == Kind.RANGE}
    rest = list(matches)
    for date_path, time_path in COMBINED.items():
        date, time = ranges.get(date_path), ranges.get(time_path)
        if date is None or time is None or COLUMNS[date_path].level > level:
            continue
        ((first_day, last_day),), ((first_time, last_time),) = date.spans, time.spans
        day, clock = COLUMNS[date_path].name, COLUMNS[time_path].compared[0]
        instant = f"({day} || {clock})"
        if first_day:
            sql.add(f"{day} >= ? AND {instant} >= ?", first_day, first_day + first_time)
        if last_day:
            end = last_day[:-1] + (last_time or "~")
            sql.add(f"{day} <> '' AND {day} <= ? AND {instant} <= ?", last_day, end)
        rest.remove(time)
        rest.remove(date)
    return rest


def _modalities_in_study(sql: _Sql, match: Match) -> None:
    inner = sql.new()
    _on_columns(inner, ("m.modality",), match)
    sql.add(
        f"EXISTS (SELECT 1 FROM series m WHERE m.study_id = study.id AND {inner.where})", *inner.parameters
    )


def _deeper(sql: _Sql, level: Level, matches: list[Match]) -> None:
    """Keys of deeper levels: some series, and some instance of it, fulfils all."""
    inner = sql.new()
    tables = {"e"} if level == Level.STUDY else {"i"}
    selective = False
    for match in matches:
        column = COLUMNS.get(match.path)
        exact = match.kind == Kind.VALUES
        if column is None:
            tables.add("i")
            selective |= _on_attribute(inner, "i.id", match)
        else:
            alias = "e" if column.level == Level.SERIES else "i"
            tables.add(alias)
            selective |= exact and match.path in _UIDS
            _on_columns(inner, tuple(f"{alias}.{_name(key)}" for key in column.compared), match)
    if "i" not in tables:
        source, link = "series e", "e.study_id"
    elif level == Level.SERIES:
        source, link = "instance i", "i.series_id"
    elif tables == {"i"} or not any(_is_series(match) for match in matches):
        source, link = "instance i", "i.study_id"
    else:
        source, link = "series e JOIN instance i ON i.series_id = e.id", "e.study_id"
    outer = "study.id" if level == Level.STUDY else "series.id"
    if selective:  # few rows: found once, from their index
        sql.selective = True
        sql.add(f"{outer} IN (SELECT {link} FROM {source} WHERE {inner.where})", *inner.parameters)
    else:  # many rows: asked for each candidate, until the page is full
        sql.add(
            f"EXISTS (SELECT 1 FROM {source} WHERE {link} = {outer} AND {inner.where})", *inner.parameters
        )


def _is_series(match: Match) -> bool:
    column = COLUMNS.get(match.path)
    return column is not None and column.level == Level.SERIES


def _name(column: str) -> str:
    return column.partition(".")[2]


def _on_attribute(sql: _Sql, instance: str, match: Match) -> bool:
    """A key that is kept in ``attribute``; returns whether few instances can match."""
    if EXTRACTED[match.path] == "PN" and len(match.values) > 1:
        for value in match.values:  # each may be fulfilled by another group's row
            _on_attribute(sql, instance, Match(match.path, match.vr, match.kind, (value,)))
        return False
    inner = sql.new()
    inner.add("a.path = ?", match.path)
    _on_columns(inner, ("a.folded",), match, number="a.num", date="a.date")
    selective = match.path in SELECTIVE and _names_few(match)
    if selective:
        sql.add(
            f"{instance} IN (SELECT a.instance_id FROM attribute a WHERE {inner.where})", *inner.parameters
        )
    else:
        sql.add(
            f"EXISTS (SELECT 1 FROM attribute a WHERE a.instance_id = {instance} AND {inner.where})",
            *inner.parameters,
        )
    return selective


def _names_few(match: Match) -> bool:
    """Whether a key on an identifier is precise: whole values, or enough of each."""
    literal = [len(value) - value.count("*") - value.count("?") for value in match.values]
    return match.kind == Kind.VALUES or (match.kind == Kind.PATTERNS and min(literal) >= _ENOUGH_LETTERS)


def _on_columns(
    sql: _Sql, columns: tuple[str, ...], match: Match, *, number: str = "", date: str = ""
) -> None:
    """One key against the column that holds it (a name: any of its groups')."""
    column = columns[0]
    if match.kind == Kind.VALUES:
        marks = ", ".join("?" * len(match.values))
        sql.add(f"{column} = ?" if len(match.values) == 1 else f"{column} IN ({marks})", *match.values)
    elif match.kind == Kind.PATTERNS:
        sql.any_of(_like(sql.dialect, column, value) for value in match.values)
    elif match.kind == Kind.NAMES:
        for value in match.values:
            forms = [value, value[:-2]] if value.endswith("^*") and len(value) > 2 else [value]
            sql.any_of(_like(sql.dialect, name, form) for name in columns for form in forms)
    elif match.kind == Kind.NUMBERS:
        sql.any_of((f"{number or column} = ?", (one,)) for one in match.numbers)
    elif match.kind == Kind.INSTANTS:
        first, last = match.instants
        _between(sql, number or column, first, last)
    else:
        sql.any_of(_within(date or column, low, high) for low, high in match.spans)


def _between(sql: _Sql, column: str, first: float | None, last: float | None) -> None:
    if first is not None:
        sql.add(f"{column} >= ?", first)
    if last is not None:
        sql.add(f"{column} <= ?", last)


def _within(column: str, low: str, high: str) -> tuple[str, tuple[object, ...]]:
    conditions = [f"{column} >= ?", f"{column} <= ?"]
    if not low:
        conditions[0] = f"{column} <> ''"  # an absent date is before none
    elif not high:
        conditions.pop()
    return "(" + " AND ".join(conditions) + ")", tuple(side for side in (low, high) if side)


def _like(dialect: str, column: str, pattern: str) -> tuple[str, tuple[object, ...]]:
    """Wildcard matching. What stands before the first wildcard is also a range, which
    an index serves whatever the database makes of LIKE."""
    if "*" not in pattern and "?" not in pattern:
        return f"{column} = ?", (pattern,)
    prefix = pattern[: min(found for found in map(pattern.find, "*?") if found >= 0)]
    conditions: list[str] = []
    parameters: list[object] = []
    if prefix:
        conditions.append(f"{column} >= ? AND {column} < ?")
        parameters += [prefix, prefix + "\U0010ffff"]
    if pattern != prefix + "*" or not prefix:
        if dialect == "sqlite":
            conditions.append(f"{column} GLOB ?")
            parameters.append(pattern.replace("[", "[[]"))
        else:
            for character in "\\%_":
                pattern = pattern.replace(character, "\\" + character)
            conditions.append(f"{column} LIKE ?")
            parameters.append(pattern.replace("*", "%").replace("?", "_"))
    return "(" + " AND ".join(conditions) + ")", tuple(parameters)


def _continue(sql: _Sql, after: Cursor) -> None:
    """Only rows behind the one with these order keys."""
    date, study, *deeper = after
    if not deeper:
        sql.add("(study.study_date, study.id) < (?, ?)", date, study)
        return
    behind = "(series.id > ?)" if len(deeper) == 1 else "((series.id, instance.id) > (?, ?))"
    sql.add("study.study_date <= ?", date)
    sql.add(
        f"((study.study_date, study.id) < (?, ?) OR (study.id = ? AND {behind}))",
        date, study, study, *deeper,
    )  # fmt: skip
