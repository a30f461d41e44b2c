# SPDX-License-Identifier: Apache-2.0
"""A matching key as SQL over the column, or the rows of ``attribute``, that hold it."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from archive.index.attributes import NUMBERS
from archive.index.columns import COLUMNS, Column
from archive.index.matching import Kind, Match

Part = tuple[str, tuple[object, ...]]

# Ends a subquery that is to be asked for each row: with an offset PostgreSQL does not make
# a join of it, which would read all rows of a common value for the sake of few.
EACH = "LIMIT 1 OFFSET 0"

# Numbers of which 0 is a value: absent is NULL. In other columns an absent number is 0.
_NULLABLE = ("00200011", "00200013")


@dataclass(slots=True)
class Sql:
    """Conditions with their parameters, joined by AND; ``?`` marks a parameter."""

    dialect: str
    parts: list[str] = field(default_factory=list)
    parameters: list[object] = field(default_factory=list)

    def add(self, sql: str, *parameters: object) -> None:
        self.parts.append(sql)
        self.parameters += parameters

    def any_of(self, alternatives: Iterable[Part]) -> None:
        found = list(alternatives)
        self.add(
            "(" + " OR ".join(sql for sql, _ in found) + ")", *(one for _, some in found for one in some)
        )

    def new(self) -> "Sql":
        return Sql(self.dialect)

    @property
    def where(self) -> str:
        return " AND ".join(self.parts) or "1 = 1"


def adapted(statement: str, dialect: str) -> str:
    """Parameters as the driver marks them."""
    return statement if dialect == "sqlite" else statement.replace("%", "%%").replace("?", "%s")


def on_column(sql: Sql, match: Match, alias: str) -> None:
    """A key of :data:`COLUMNS` against the row ``alias``."""
    column = COLUMNS[match.path]
    names = tuple(f"{alias}.{name.partition('.')[2]}" for name in column.compared)
    if match.kind == Kind.ANY:
        _either(sql, match, lambda one, inner: on_column(inner, one, alias))
    elif match.kind == Kind.EMPTY:
        value = f"{alias}.{column.name.partition('.')[2]}"
        if match.path in _NULLABLE:
            sql.add(f"{value} IS NULL")
        else:
            sql.add(f"{value} = 0" if column.vr in NUMBERS else f"{value} = ''")
    elif match.kind == Kind.SOUNDS:
        _sounds(sql, match, column, f"{alias}.id")
    else:
        _compare(sql, match, names)


def on_columns(sql: Sql, match: Match, names: tuple[str, ...]) -> None:
    """A key against columns of text, whatever their table; of a name, any of its groups'."""
    if match.kind == Kind.ANY:
        _either(sql, match, lambda one, inner: on_columns(inner, one, names))
    elif match.kind == Kind.EMPTY:
        for name in names:
            sql.add(f"{name} = ''")
    else:
        _compare(sql, match, names)


def on_attribute(sql: Sql, match: Match, place: str, instance: str) -> None:
    """A key that is kept in ``attribute``, of the instance with these place and id."""
    if match.kind == Kind.ANY:
        _either(sql, match, lambda one, inner: on_attribute(inner, one, place, instance))
    elif match.kind == Kind.EMPTY:
        sql.add(
            f"NOT EXISTS (SELECT 1 FROM attribute a WHERE a.instance_id = {instance} AND a.path = ?)",
            match.path,
        )
    else:
        # Of a name, each group asked for may be fulfilled by another group's row. The place
        # is told too: a planner without statistics would read all rows of the value.
        for one in _singly(match):
            inner = attribute_rows(sql, one, "a")
            sql.add(
                f"EXISTS (SELECT 1 FROM attribute a WHERE {inner.where}"
                f" AND a.place = {place} AND a.instance_id = {instance} {EACH})",
                *inner.parameters,
            )


def attribute_rows(sql: Sql, match: Match, alias: str) -> Sql:
    """The condition on rows of ``attribute`` that hold a value of this key."""
    inner = sql.new()
    inner.add(f"{alias}.path = ?", match.path)
    _compare(inner, match, (f"{alias}.folded",), number=f"{alias}.num", date=f"{alias}.date")
    return inner


def on_modalities(sql: Sql, match: Match, place: str) -> None:
    """ModalitiesInStudy of the study at ``place``: the modality of any of its series."""
    if match.kind == Kind.ANY:
        _either(sql, match, lambda one, inner: on_modalities(inner, one, place))
        return
    if match.kind == Kind.EMPTY:
        sql.add(f"NOT EXISTS (SELECT 1 FROM series m WHERE m.place = {place} AND m.modality <> '')")
        return
    inner = sql.new()
    _compare(inner, match, ("m.modality",))
    sql.add(
        f"EXISTS (SELECT 1 FROM series m WHERE m.place = {place} AND {inner.where} {EACH})", *inner.parameters
    )


def modality_rows(sql: Sql, match: Match) -> Sql:
    """The same as a condition on rows of ``series m``."""
    inner = sql.new()
    _compare(inner, match, ("m.modality",))
    return inner


def _either(sql: Sql, match: Match, one_of: Callable[[Match, Sql], None]) -> None:
    found = []
    for alternative in match.alternatives:
        inner = sql.new()
        one_of(alternative, inner)
        found.append((f"({inner.where})", tuple(inner.parameters)))
    sql.any_of(found)


def _singly(match: Match) -> list[Match]:
    if match.kind != Kind.NAMES or len(match.values) == 1:
        return [match]
    return [Match(match.path, match.vr, match.kind, (value,)) for value in match.values]


def _compare(sql: Sql, match: Match, columns: tuple[str, ...], *, number: str = "", date: str = "") -> None:
    """One key against the column that holds it (a name: any of its groups')."""
    column = columns[0]
    if match.kind == Kind.VALUES:
        marks = ", ".join("?" * len(match.values))
        sql.add(f"{column} = ?" if len(match.values) == 1 else f"{column} IN ({marks})", *match.values)
    elif match.kind == Kind.PATTERNS:
        sql.any_of(_like(sql.dialect, column, value) for value in match.values)
    elif match.kind in (Kind.NAMES, Kind.SOUNDS):
        for value in match.values:
            forms = [value, value[:-2]] if value.endswith("^*") and len(value) > 2 else [value]
            sql.any_of(_like(sql.dialect, name, form) for name in columns for form in forms)
    elif match.kind == Kind.NUMBERS:
        sql.any_of(_equal(number, column, one) for one in match.numbers)
    elif match.kind == Kind.INSTANTS:
        first, last = match.instants
        if first is not None:
            sql.add(f"{number or column} >= ?", first)
        if last is not None:
            sql.add(f"{number or column} <= ?", last)
    else:
        sql.any_of(_within(date or column, low, high) for low, high in match.spans)


def _sounds(sql: Sql, match: Match, column: Column, study: str) -> None:
    """Every word asked for sounds like one of the name's; or the name matches as it is."""
    heard = ""
    parameters: list[object] = []
    # The longest is the rarest, mostly; the others are looked up for those that have it.
    for value in sorted(match.sounds, key=len, reverse=True):
        row = "m" if heard else "n"
        condition, some = _like(sql.dialect, f"{row}.sound", value)
        condition = f"{row}.path = ? AND {condition}"
        if heard:
            heard += f" AND EXISTS (SELECT 1 FROM name_sound m WHERE m.study_id = n.study_id AND {condition})"
        else:
            heard = f"SELECT n.study_id FROM name_sound n WHERE {condition}"
        parameters += [match.path, *some]
    literal = sql.new()
    _compare(literal, match, tuple(f"l.{name.partition('.')[2]}" for name in column.compared))
    written = f"SELECT l.id FROM study l WHERE {literal.where}"
    found = " UNION ".join(filter(None, (heard, written)))
    sql.add(f"{study} IN ({found})", *parameters, *literal.parameters)


def _equal(number: str, column: str, value: float) -> Part:
    """Columns of ``attribute`` hold any number, others whole ones; PostgreSQL's index of
    whole numbers is of no use to others."""
    if number:
        return f"{number} = ?", (value,)
    return (f"{column} = ?", (int(value),)) if abs(value) < 2**63 and value.is_integer() else ("1 = 0", ())


def _within(column: str, low: str, high: str) -> Part:
    conditions = [f"{column} >= ?", f"{column} <= ?"]
    if not low:
        conditions[0] = f"{column} <> ''"  # an absent date is before none
    elif not high:
        conditions.pop()
    return "(" + " AND ".join(conditions) + ")", tuple(side for side in (low, high) if side)


def _like(dialect: str, column: str, pattern: str) -> Part:
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
