# SPDX-License-Identifier: Apache-2.0
"""Where a query starts: the key whose rows are fewest, or the order of the result.

A key with one value has its rows in the order of the result already (schema 3), so it
may have any number of them. Other forms (lists, prefixes, ranges) are worth starting from
while their rows are few enough to sort. Without such a key rows are looked at in the
order of the result until the page is full.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from archive.access import Scope
from archive.index.columns import COLUMNS, Level
from archive.index.conditions import Sql, attribute_rows, modality_rows, on_column
from archive.index.matching import Kind, Match

FEW = 2_000  # rows that are looked at in any order without being felt
SORTABLE = 20_000  # rows of one key that are sorted rather than tried one by one

# Columns with an index of (key, place, …).
_INDEXED = frozenset((
    "00100020", "00100030", "00100010", "00080050", "00080090", "00200010", "00081030", "0020000D",
    "00080060", "00200011", "0008103E", "00080021", "00400244", "00180015", "00080070", "00081090",
    "00181000", "00081010", "0020000E", "00080016", "00080018", "00083002", "00020010", "00200013",
    "00080023", "00480006", "00480007", "00280008", "00280004",
))  # fmt: skip
_TABLES = {Level.STUDY: "study", Level.SERIES: "series", Level.INSTANCE: "instance"}


@dataclass(frozen=True, slots=True)
class Seek:
    """Rows to start from. ``level``: what a row names at the deepest; ``match``: the key
    that all of them fulfil, None for the scope. ``place``, ``series``, ``instance``:
    expressions of what a row names, "" for what it does not. ``ordered``: they come in the
    order of a result; ``distinct``: no two name the same."""

    level: Level
    match: Match | None
    source: str
    where: str
    parameters: tuple[object, ...]
    place: str
    series: str = ""
    instance: str = ""
    ordered: bool = False
    distinct: bool = True

    @property
    def table(self) -> str:
        """The table whose name the source's rows may be read by; "" for an alias."""
        return "" if " " in self.source else self.source

    @property
    def enough(self) -> int:
        """How many rows are too many to look at all of them."""
        return FEW if self.ordered or self.match is None else SORTABLE

    def probe(self) -> tuple[str, list[object]]:
        """The statement that counts the rows, up to ``enough``."""
        inner = f"SELECT 1 AS one FROM {self.source} WHERE {self.where} LIMIT {self.enough:d}"
        return f"SELECT count(*) FROM ({inner}) AS counted", list(self.parameters)


def seeks(matches: tuple[Match, ...], scope: Scope, dialect: str) -> Iterator[Seek]:
    """All ways to start, one for each key that an index serves and for a scope."""
    if not scope.is_everything:
        yield Seek(Level.STUDY, None, "study", f"({scope.sql})", scope.parameters, "study.place")
    for match in matches:
        if match.path == "00080061":
            if _starts(match):
                inner = modality_rows(Sql(dialect), match)
                yield Seek(
                    Level.STUDY, match, "series m", inner.where, tuple(inner.parameters),
                    "m.place", ordered=_is_single(match), distinct=False,
                )  # fmt: skip
        elif (column := COLUMNS.get(match.path)) is None:
            # Groups of a name may be fulfilled by several rows: not by one seek.
            if _starts(match) and not (match.kind == Kind.NAMES and len(match.values) > 1):
                inner = attribute_rows(Sql(dialect), match, "k")
                yield Seek(
                    Level.INSTANCE, match, "attribute k", inner.where, tuple(inner.parameters),
                    "k.place", "k.series_id", "k.instance_id", _is_single(match), _is_single(match),
                )  # fmt: skip
        elif match.path in _INDEXED and _starts(match):
            table = _TABLES[column.level]
            inner = Sql(dialect)
            on_column(inner, match, table)
            yield Seek(
                column.level,
                match,
                table,
                inner.where,
                tuple(inner.parameters),
                f"{table}.place",
                {Level.SERIES: "series.id", Level.INSTANCE: "instance.series_id"}.get(column.level, ""),
                "instance.id" if column.level == Level.INSTANCE else "",
                _is_single(match) and len(column.compared) == 1,
            )


def choose(found: list[Seek], counts: list[int]) -> Seek | None:
    """The best of several ways, by the rows that each has; None: the order of the result."""
    few = [(count, n) for n, count in enumerate(counts) if count < found[n].enough]
    if few:
        return found[min(few)[1]]
    return next((seek for seek in found if seek.ordered), None)


def _starts(match: Match) -> bool:
    """Whether an index finds the rows of this key without looking at all."""
    if match.kind in (Kind.PATTERNS, Kind.NAMES):
        return all(value[:1] not in "*?" for value in match.values)
    if match.kind == Kind.SOUNDS:
        return all(value[:1] not in "*?" for value in (*match.values, *match.sounds))
    return match.kind in (Kind.VALUES, Kind.NUMBERS, Kind.DATES, Kind.RANGE, Kind.INSTANTS)


def _is_single(match: Match) -> bool:
    """Whether it is one value: then the index has the order of the result behind it."""
    values = match.values or match.numbers
    plain = not any("*" in str(value) or "?" in str(value) for value in values)
    return match.kind in (Kind.VALUES, Kind.NUMBERS, Kind.NAMES) and len(values) == 1 and plain
