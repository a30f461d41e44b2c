# SPDX-License-Identifier: Apache-2.0
"""Inserting rows without building the statement anew each time.

Whoever holds the write turn keeps all others waiting. peewee takes 300 µs to make the
same INSERT again and again; here it is made once for a model.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from archive.index.attributes import AttributeRow
from archive.index.sounds import name_sounds


class Inserter:
    """The INSERT statements of one database."""

    def __init__(self, database: Any, dialect: str) -> None:
        self._database = database
        self._returning = " RETURNING id" if dialect == "postgresql" else ""
        self._known: dict[Any, _Statement] = {}

    def insert(self, model: Any, values: dict[str, object]) -> int:
        """Insert one row with the model's defaults; its ``id``, 0 in a table without."""
        statement = self._known.get(model)
        if statement is None:
            statement = self._known[model] = _Statement(model, self._database.param, self._returning)
        cursor = self._database.execute_sql(statement.sql, statement.parameters(values))
        if not statement.has_id:
            return 0
        return int(cursor.fetchone()[0] if self._returning else cursor.lastrowid)

    def attributes(self, instance_id: int, rows: Iterable[AttributeRow]) -> None:
        """Insert an instance's ``attribute`` rows at once, where its row says it belongs."""
        mark = self._database.param
        place, series = self._database.execute_sql(
            f"SELECT place, series_id FROM instance WHERE id = {mark}", (instance_id,)
        ).fetchone()
        self._database.connection().cursor().executemany(
            "INSERT INTO attribute (instance_id, place, series_id, path, folded, num, date)"
            f" VALUES ({', '.join([mark] * 7)})",
            [(instance_id, place, series, *row) for row in rows],
        )

    def name_sounds(self, study_id: int, names: Mapping[str, str], *, replace: bool) -> None:
        """How a study's names sound; ``names``: by the path of the attribute."""
        mark = self._database.param
        if replace:
            self._database.execute_sql(f"DELETE FROM name_sound WHERE study_id = {mark}", (study_id,))
        self._database.connection().cursor().executemany(
            f"INSERT INTO name_sound (study_id, path, sound) VALUES ({mark}, {mark}, {mark})",
            [(study_id, path, key) for path, name in names.items() for key in name_sounds(name)],
        )


class _Statement:
    def __init__(self, model: Any, mark: str, returning: str) -> None:
        fields = [field for field in model._meta.sorted_fields if field.name != "id"]
        self.has_id = "id" in model._meta.fields
        self._table = model._meta.table_name
        self._defaults: dict[str, Callable[[], object] | None] = {
            field.name: _default(field) for field in fields
        }
        # A link may be given by its name or its column's: ``study`` or ``study_id``.
        self._aliases = {field.column_name: field.name for field in fields}
        columns = ", ".join(f'"{field.column_name}"' for field in fields)
        marks = ", ".join([mark] * len(fields))
        self.sql = f'INSERT INTO "{self._table}" ({columns}) VALUES ({marks})'
        if self.has_id:
            self.sql += returning

    def parameters(self, values: dict[str, object]) -> list[object]:
        given = {self._aliases.get(name, name): value for name, value in values.items()}
        if unknown := given.keys() - self._defaults.keys():
            raise TypeError(f"{self._table} has no column {min(unknown)}")
        return [
            given[name] if name in given else default() if default is not None else None
            for name, default in self._defaults.items()
        ]


def _default(field: Any) -> Callable[[], object] | None:
    default = field.default
    if default is None or callable(default):
        return default  # type: ignore[no-any-return] # peewee's, or now_us and the like
    return lambda: default
