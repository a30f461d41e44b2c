# SPDX-License-Identifier: Apache-2.0
"""The worklist's keys as SQL: the same matching as everywhere (PS3.4 C.2.2, K.2.2.1).

A key is a column of ``worklist_item``, or rows of ``worklist_key``. Keys inside
ScheduledSpecimenSequence must be fulfilled by one of its items: their rows share a
``position``. A page starts from the key with the fewest rows, or in the order of the
result, as :mod:`archive.index.plan` does it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from archive.access import Scope
from archive.errors import BadQuery
from archive.index.columns import Level
from archive.index.conditions import EACH, Sql, adapted, attribute_rows, on_columns
from archive.index.matching import Kind, Match
from archive.index.plan import Seek, choose

PAGE = 500
STATION = "00400100.00400001"
STATUS = "00400100.00400020"
SPECIMENS = "00400500"
_START_DATE, _START_TIME = "00400100.00400002", "00400100.00400003"

ACTIVE = frozenset(("SCHEDULED", "ARRIVED", "READY", "STARTED", "DEPARTED"))
"""States of a step that is still to be done (PS3.3 C.4.10)."""

COLUMNS: dict[str, tuple[str, tuple[str, ...]]] = {
    "00080050": ("SH", ("accession_number",)),
    "00100010": ("PN", ("patient_name_folded", "patient_name_ideographic", "patient_name_phonetic")),
    "00100020": ("LO", ("patient_id",)),
    "00100021": ("LO", ("issuer_of_patient_id",)),
    "00100030": ("DA", ("patient_birth_date",)),
    "00100040": ("CS", ("patient_sex",)),
    "0020000D": ("UI", ("study_instance_uid",)),
    "00401001": ("SH", ("requested_procedure_id",)),
    "00400100.00080060": ("CS", ("modality",)),
    _START_DATE: ("DA", ("start_date",)),
    _START_TIME: ("TM", ("start_time",)),
    "00400100.00400009": ("SH", ("scheduled_procedure_step_id",)),
    STATUS: ("CS", ("status",)),
}
"""VR and columns by path; a name matches by any of its groups."""

KEYS: dict[str, str] = {
    STATION: "AE",
    "00400100.00400006": "PN",  # ScheduledPerformingPhysicianName
    "00400100.00400007": "LO",  # ScheduledProcedureStepDescription
    "00400100.00400008.00080100": "SH",  # ScheduledProtocolCodeSequence > CodeValue
    "00400100.00400010": "SH",  # ScheduledStationName
    "00400100.00400011": "SH",  # ScheduledProcedureStepLocation
    "00080090": "PN",  # ReferringPhysicianName
    "00101002.00100020": "LO",  # OtherPatientIDsSequence > PatientID
    "00120020": "LO",  # ClinicalTrialProtocolID
    "00321032": "PN",  # RequestingPhysician
    "00321060": "LO",  # RequestedProcedureDescription
    "00321064.00080100": "SH",  # RequestedProcedureCodeSequence > CodeValue
    "00380010": "LO",  # AdmissionID
    "00402016": "LO",  # PlacerOrderNumberImagingServiceRequest
    "00402017": "LO",  # FillerOrderNumberImagingServiceRequest
    "22000005": "LT",  # BarcodeValue
    "00400500.00400512": "LO",  # ScheduledSpecimenSequence > ContainerIdentifier
    "00400500.00400518.00080100": "SH",  # … > ContainerTypeCodeSequence > CodeValue
    "00400500.00400560.00400551": "LO",  # … > SpecimenDescriptionSequence > SpecimenIdentifier
    "00400500.00400560.00400554": "UI",  # … > SpecimenUID
}
"""VR by path of what is kept in ``worklist_key``."""

_INDEXED = frozenset(COLUMNS) - {"00100021", "00100040", _START_DATE, _START_TIME}
_DAY = 1 << 36  # of a place
_SELECTED = (
    "place", "item_id", "identifier", "status", "study_instance_uid", "source", "revision",
    "protocol_study_id", "sensitivity", "content", "created", "updated",
)  # fmt: skip


def vr_of_key(path: str) -> str | None:
    """The VR of what can be matched on; None for all other attributes."""
    return COLUMNS[path][0] if path in COLUMNS else KEYS.get(path)


@dataclass(frozen=True, slots=True)
class WorklistQuery:
    """What to find. ``matches``: paths of :data:`COLUMNS` and :data:`KEYS`. ``stations``:
    AE titles of which the asker sees the items, and those for no station in particular;
    None: all. Without a key on the status, steps that are over are left out, unless
    ``all_states``."""

    matches: tuple[Match, ...] = ()
    stations: tuple[str, ...] | None = None
    all_states: bool = False

    def __post_init__(self) -> None:
        for match in self.matches:
            if vr_of_key(match.path) is None:
                raise BadQuery(f"the worklist cannot be searched by {match.path}")

    @property
    def only_active(self) -> bool:
        if self.all_states:
            return False
        asked = [m for m in self.matches if m.path == STATUS and m.kind != Kind.UNIVERSAL]
        return all(m.kind == Kind.VALUES and ACTIVE.issuperset(m.values) for m in asked)


def iterate(database: Any, dialect: str, query: WorklistQuery, scope: Scope, after: int) -> Iterator[Any]:
    """One page of rows (by name) behind the place ``after``, in the order of places."""
    matches = tuple(
        _with_unassigned(one) for match in query.matches for one in match.each if one.kind != Kind.UNIVERSAL
    )
    seek = _choose(database, dialect, matches, query.only_active)
    statement, parameters = _compile(dialect, matches, query, scope, seek, after)
    cursor = database.execute_sql(adapted(statement, dialect), parameters)
    for values in cursor.fetchall():
        yield dict(zip(_SELECTED, values, strict=True))


def _with_unassigned(match: Match) -> Match:
    """A step for no station in particular is for the one that asks."""
    if match.path == STATION and match.kind in (Kind.VALUES, Kind.PATTERNS):
        return replace(match, values=(*match.values, ""))
    return match


def _choose(database: Any, dialect: str, matches: tuple[Match, ...], only_active: bool) -> Seek | None:
    found = list(_seeks(matches, dialect, only_active))
    if len(found) == 1 and found[0].ordered:
        return found[0]
    counts = []
    for seek in found:
        sql, parameters = seek.probe()
        counts.append(int(database.execute_sql(adapted(sql, dialect), parameters).fetchone()[0]))
    return choose(found, counts)


def _seeks(matches: tuple[Match, ...], dialect: str, only_active: bool) -> Iterator[Seek]:
    for match in matches:
        if match.kind not in (Kind.VALUES, Kind.PATTERNS, Kind.NAMES, Kind.DATES):
            continue
        if any(value[:1] in ("*", "?") for value in match.values):
            continue
        inner = Sql(dialect)
        is_single = len(match.values) == 1 and not any(c in match.values[0] for c in "*?")
        if match.path in KEYS:
            if match.kind == Kind.NAMES and len(match.values) > 1:
                continue
            inner = attribute_rows(inner, match, "k")
            source, alias, level = "worklist_key k", "k", Level.SERIES
        elif match.path in _INDEXED:
            on_columns(inner, match, _names(match.path))
            source, alias, level = "worklist_item w", "w", Level.STUDY
            is_single = is_single and match.kind != Kind.NAMES
        else:
            continue
        if only_active:
            inner.add(f"{alias}.active = 1")
        for dates in _dates(matches):  # of a station's rows those of the day
            inner.any_of(_days_between(f"{alias}.place", low, high) for low, high in dates.spans)
        yield Seek(
            level, match, source, inner.where, tuple(inner.parameters), f"{alias}.place",
            ordered=is_single and only_active, distinct=alias == "w",
        )  # fmt: skip


def _dates(matches: tuple[Match, ...] | list[Match]) -> list[Match]:
    return [m for m in matches if m.path == _START_DATE and m.kind in (Kind.RANGE, Kind.DATES)]


def _names(path: str) -> tuple[str, ...]:
    return tuple(f"w.{name}" for name in COLUMNS[path][1])


def _compile(
    dialect: str,
    matches: tuple[Match, ...],
    query: WorklistQuery,
    scope: Scope,
    seek: Seek | None,
    after: int,
) -> tuple[str, list[object]]:
    sql = Sql(dialect)
    join = " CROSS JOIN " if dialect == "sqlite" else " JOIN "
    source, place = "worklist_item w", "w.place"
    if seek is not None:
        source, place = seek.source, seek.place
        sql.add(seek.where, *seek.parameters)
    left = [m for m in matches if seek is None or m is not seek.match]
    if seek is not None and seek.match is not None and seek.match.path.startswith(SPECIMENS):
        left.append(seek.match)  # with the others of its sequence
    sql.add(f"{place} > ?", after)
    left = _days(sql, left, place)
    needs_item = query.only_active and seek is None
    for match in left:
        if match.path in COLUMNS:
            needs_item = True
            on_columns(sql, match, _names(match.path))
        elif not match.path.startswith(SPECIMENS):
            _on_keys(sql, [match], place)
    if specimens := [m for m in left if m.path.startswith(SPECIMENS)]:
        _on_keys(sql, specimens, place)
    if query.stations is not None:
        _on_keys(sql, [Match(STATION, "AE", Kind.VALUES, (*query.stations, ""))], place)
    if not scope.is_everything:
        # The predicate is over columns of ``study``, which the worklist has by the same names.
        sql.add(
            "EXISTS (SELECT 1 FROM worklist_item study "
            f"WHERE study.place = {place} AND ({scope.sql}) {EACH})",
            *scope.parameters,
        )
    if needs_item and place != "w.place":
        source += f"{join}worklist_item w ON w.place = {place}"
    if query.only_active and seek is None:
        sql.add("w.active = 1")
    distinct = "DISTINCT " if seek is not None and not seek.distinct else ""
    # A sum is in no index: few rows are sorted, not met by walking all of the order.
    first = place if seek is None or seek.ordered else f"{place} + 0"
    inner = f"SELECT {distinct}{first} AS place FROM {source} WHERE {sql.where} ORDER BY 1 LIMIT {PAGE}"
    columns = ", ".join(f"r.{name}" for name in _SELECTED)
    statement = (
        f"SELECT {columns} FROM ({inner}) AS page{join}worklist_item r ON r.place = page.place "
        "ORDER BY page.place"
    )
    return statement, sql.parameters


def _days(sql: Sql, matches: list[Match], place: str) -> list[Match]:
    """Start dates as ranges of places; a range of dates and one of times are one range of
    instants (PS3.4 Table K.6-1). The matches that are left."""
    rest = list(matches)
    dates = _dates(matches)
    times = [m for m in matches if m.path == _START_TIME and m.kind == Kind.RANGE]
    for match in dates:
        rest.remove(match)
        sql.any_of(_days_between(place, low, high) for low, high in match.spans)
    if len(dates) == 1 and len(times) == 1 and dates[0].kind == Kind.RANGE:
        ((first_day, last_day),), ((first_time, last_time),) = dates[0].spans, times[0].spans
        rest.remove(times[0])
        instant = "(i.start_date || i.start_time)"
        where = sql.new()
        if first_day:
            where.add(f"{instant} >= ?", first_day + first_time)
        if last_day:
            where.add(f"{instant} <= ?", last_day[:-1] + (last_time or "~"))
        sql.add(
            f"EXISTS (SELECT 1 FROM worklist_item i WHERE i.place = {place} AND {where.where} {EACH})",
            *where.parameters,
        )
    return rest


def _days_between(place: str, low: str, high: str) -> tuple[str, tuple[object, ...]]:
    first = int(low) * _DAY if low else _DAY
    if not high:
        return f"{place} >= ?", (first,)
    return f"({place} >= ? AND {place} < ?)", (first, (int(high[:-1]) + 1) * _DAY)


def _on_keys(sql: Sql, matches: list[Match], place: str) -> None:
    """Keys that rows of one ``position`` fulfil together."""
    present = [m for m in matches if m.kind != Kind.EMPTY]
    for match in matches:
        if match.kind == Kind.EMPTY:
            sql.add(
                f"NOT EXISTS (SELECT 1 FROM worklist_key a WHERE a.place = {place} AND a.path = ? "
                f"AND a.folded <> '' {EACH})",
                match.path,
            )
    if not present:
        return
    singly = [one for match in present for one in _singly(match)]
    tables, where = [], sql.new()
    for number, match in enumerate(singly):
        alias = f"a{number}"
        tables.append(f"worklist_key {alias}")
        where.add(f"{alias}.place = {place}")
        _on_key(where, match, alias)
        if number and match.path.startswith(SPECIMENS):
            where.add(f"{alias}.position = a0.position")
    sql.add(f"EXISTS (SELECT 1 FROM {', '.join(tables)} WHERE {where.where} {EACH})", *where.parameters)


def _on_key(sql: Sql, match: Match, alias: str) -> None:
    if match.kind == Kind.ANY:
        found = []
        for one in match.alternatives:
            inner = sql.new()
            _on_key(inner, one, alias)
            found.append((f"({inner.where})", tuple(inner.parameters)))
        sql.any_of(found)
        return
    inner = attribute_rows(sql, match, alias)
    sql.add(inner.where, *inner.parameters)


def _singly(match: Match) -> list[Match]:
    if match.kind == Kind.NAMES:
        return [replace(match, values=(value,)) for value in match.values]
    return [match]
