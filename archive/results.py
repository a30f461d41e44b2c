# SPDX-License-Identifier: Apache-2.0
"""Results one by one, with nothing but what was asked for (PS3.4 C.4.1.1.3.2)."""

from collections.abc import Iterator, Mapping
from typing import Any

from archive.access import Action, Principal, Scope
from archive.catalogue import any_instance, stored_json
from archive.core import Core
from archive.index.columns import COLUMNS, Level, asked, element
from archive.index.included import in_header, merge
from archive.index.query import Query
from archive.indexing import execute

_UIDS = {Level.STUDY: "0020000D", Level.SERIES: "0020000E", Level.INSTANCE: "00080018"}

PATIENT_COUNTS = ("00201200", "00201202", "00201204")
"""Numbers of a patient's studies, series and instances."""


def find_all(core: Core, query: Query, *, principal: Principal, scope: Scope) -> Iterator[dict[str, object]]:
    """See ``Archive.find_all``."""
    _begin(core, query, query.level.name, principal)
    return _rows(core, query, scope)


def _rows(core: Core, query: Query, scope: Scope) -> Iterator[dict[str, object]]:
    columns, missing = asked(query.include, query.level)
    columns |= {tag: COLUMNS[tag] for level, tag in _UIDS.items() if level <= query.level}
    missing = [path for path in missing if in_header(path[:8], query.level)]
    for row in core.index.iterate(query, scope):
        answer: dict[str, object] = {tag: element(column, row) for tag, column in columns.items()}
        if missing:
            at = row if query.level is Level.INSTANCE else any_instance(core, row)
            _from_header(core, at, missing, answer)
        yield answer


def find_patients(
    core: Core, query: Query, *, principal: Principal, scope: Scope
) -> Iterator[dict[str, object]]:
    """See ``Archive.find_patients``."""
    _begin(core, query, "PATIENT", principal)
    return _patients(core, query, scope)


def _patients(core: Core, query: Query, scope: Scope) -> Iterator[dict[str, object]]:
    columns, missing = asked((path for path in query.include if path.startswith("0010")), Level.STUDY)
    columns["00100020"] = COLUMNS["00100020"]
    counts = [tag for tag in query.include if tag in PATIENT_COUNTS]
    for row in core.index.patients(query, scope):
        answer: dict[str, object] = {tag: element(column, row) for tag, column in columns.items()}
        if missing:
            _from_header(core, any_instance(core, row), missing, answer)
        if counts:
            numbers = _counts(core, row, scope)
            answer |= {tag: {"vr": "IS", "Value": [numbers[tag]]} for tag in counts}
        yield answer


def _begin(core: Core, query: Query, level: str, principal: Principal) -> None:
    core.check(principal, Action.SEARCH)
    keys = ",".join(sorted({match.path for match in query.matches}))
    core.access.note("query", principal, "", "", 1, f"{level}:{keys}")


def _from_header(core: Core, row: Mapping[str, Any], paths: list[str], answer: dict[str, object]) -> None:
    header = stored_json(core, row)
    for path in paths:
        merge(answer, header, path.split("."))


def _counts(core: Core, row: Mapping[str, Any], scope: Scope) -> dict[str, int]:
    """Of all studies of a row's patient, those that were not asked for included."""
    with core.index.read():
        found = execute(
            core,
            "SELECT count(*), coalesce(sum(study.number_of_series), 0), "
            "coalesce(sum(study.number_of_instances), 0) FROM study "
            f"WHERE study.patient_id = ? AND study.issuer_of_patient_id = ? AND ({scope.sql})",
            row["study.patient_id"],
            row["study.issuer_of_patient_id"],
            *scope.parameters,
        ).fetchone()
    return dict(zip(PATIENT_COUNTS, map(int, found), strict=True))
