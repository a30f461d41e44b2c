# SPDX-License-Identifier: Apache-2.0
"""Lists: matching results as DICOM JSON, the work list, the change feed, readiness."""

import base64
import gzip
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from archive.access import Action, Principal, Scope
from archive.core import Core
from archive.errors import ArchiveError, BadQuery
from archive.index.columns import Level, to_json
from archive.index.included import in_header, merge
from archive.index.query import Query
from archive.index.text import fold
from archive.indexing import execute
from archive.rows import last_change, moment
from archive.values import Change, Page, PixelDescription, SlideSummary

_NATIVE = {"1.2.840.10008.1.2", "1.2.840.10008.1.2.1"}
_JPEG_2000 = "1.2.840.10008.1.2.4.90"  # lossless only


def find(core: Core, query: Query, *, principal: Principal, scope: Scope) -> Page:
    """See ``Archive.find``."""
    core.check(principal, Action.SEARCH)
    keys = ",".join(sorted({m.path for m in query.matches}))
    core.access.note("query", principal, "", "", 1, f"{query.level.name}:{keys}")
    found = core.index.find(query, scope)
    return Page([_result(core, query, row) for row in found.rows], found.remaining)


def _result(core: Core, query: Query, row: Mapping[str, Any]) -> dict[str, object]:
    """One match: what its level returns, the parents' where the resource does not name
    them, and what was asked for besides, from the header where no column has it."""
    known = {
        Level.STUDY: True,
        Level.SERIES: bool(query.study_instance_uid),
        Level.INSTANCE: bool(query.series_instance_uid),
    }
    answer, missing = to_json(row, query.level, include=query.include, parents=not known[query.level])
    answer["00080056"] = {"vr": "CS", "Value": ["ONLINE"]}
    if query.level is Level.INSTANCE:
        answer["00020010"] = {"vr": "UI", "Value": [row["instance.transfer_syntax_uid"]]}
        answer["00083002"] = {"vr": "UI", "Value": _available(core, row)}
        if "all" in query.include:
            return dict(sorted({**stored_json(core, row), **answer}.items()))
    else:
        missing = [path for path in missing if in_header(path[:8], query.level)]
    if missing:
        header = stored_json(core, row if query.level is Level.INSTANCE else any_instance(core, row))
        for path in missing:
            merge(answer, header, path.split("."))
    return dict(sorted(answer.items()))


def any_instance(core: Core, row: Mapping[str, Any]) -> Mapping[str, Any]:
    """Where the header of a study's or series' first instance is."""
    series = row.get("series.id")
    condition = "place = ?" if series is None else "series_id = ?"
    names = ("record_key", "json_offset", "json_length")
    with core.index.read():
        found = execute(
            core,
            f"SELECT {', '.join(names)} FROM instance WHERE {condition} ORDER BY series_id, id LIMIT 1",
            row["study.place"] if series is None else series,
        ).fetchone()
    return {} if found is None else {f"instance.{n}": v for n, v in zip(names, found, strict=True)}


def _available(core: Core, row: Mapping[str, Any]) -> list[str]:
    """Transfer syntaxes that an instance's frames are offered in, the stored one first. Of
    native ones JPEG 2000 lossless too: clients ask for it first, and some cannot take
    native frames over HTTP."""
    stored: str = row["instance.transfer_syntax_uid"]
    if stored not in _NATIVE or core.codec is None or not row["instance.has_pixel_data"]:
        return [stored]
    pixels = PixelDescription(
        stored,
        row["instance.rows"],
        row["instance.columns"],
        row["instance.samples_per_pixel"],
        row["instance.bits_allocated"],
        row["instance.bits_stored"],
        row["instance.pixel_representation"],
        row["instance.photometric_interpretation"],
    )
    return [stored, _JPEG_2000] if core.codec.can_transcode(pixels, _JPEG_2000) else [stored]


def stored_json(core: Core, row: Mapping[str, Any]) -> dict[str, object]:
    """The header of the instance of a row, as DICOM JSON; {} for no row."""
    if not row:  # deleted since it was found
        return {}
    file = core.files.get(row["instance.record_key"])
    value = json.loads(gzip.decompress(file.pread(row["instance.json_offset"], row["instance.json_length"])))
    assert isinstance(value, dict)
    return value


# ---- work list ----------------------------------------------------------------------


def _cursor(stored: int, series_id: int) -> str:
    return base64.urlsafe_b64encode(f"{stored}:{series_id}".encode()).decode().rstrip("=")


def _position(cursor: str) -> tuple[int, int]:
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
        stored, series = text.split(":")
        return int(stored), int(series)
    except ValueError as error:
        raise BadQuery("the cursor is not one of ours") from error


_ABOUT_SLIDES = "('ANN', 'SEG', 'SR', 'PR', 'KO')"
"""Modalities of series that say something of a slide and are none."""

_SLIDES = """
SELECT s.id, s.created, study.study_instance_uid, s.series_instance_uid, s.container_identifier,
       study.patient_name, study.patient_id, study.accession_number, study.study_date, s.modality,
       s.series_description, s.manufacturer, o.format, o.name, s.number_of_instances, s.size_bytes,
       s.total_pixel_matrix_rows, s.total_pixel_matrix_columns, s.unmatched
FROM series s JOIN study ON study.id = s.study_id LEFT JOIN original o ON o.id = s.original_id
WHERE ({scope}) {more} AND COALESCE(s.modality, '') NOT IN {about_slides}
ORDER BY s.created DESC, s.id DESC LIMIT ?
"""


def slides(
    core: Core, *, principal: Principal, scope: Scope, text: str, limit: int, after: str
) -> list[SlideSummary]:
    """See ``Archive.slides``."""
    core.check(principal, Action.SEARCH)
    parameters: list[object] = list(scope.parameters)
    more = ""
    for word in fold(text).split()[:8]:
        escaped = word.replace("!", "!!").replace("%", "!%").replace("_", "!_")
        more += " AND s.search_text LIKE ? ESCAPE '!'"
        parameters.append(f"%{escaped}%")
    if after:
        stored, series = _position(after)
        more += " AND (s.created < ? OR (s.created = ? AND s.id < ?))"
        parameters += [stored, stored, series]
    parameters.append(max(1, min(limit, 500)))
    sql = _SLIDES.format(scope=scope.sql, more=more, about_slides=_ABOUT_SLIDES)
    if core.index.dialect != "sqlite":
        sql = sql.replace("%", "%%").replace("?", "%s")
    core.access.note("query", principal, "", "", 1, "slides")
    with core.index.read() as database:
        rows: Sequence[tuple[object, ...]] = database.execute_sql(sql, tuple(parameters)).fetchall()
    return [_summary(row) for row in rows]


def _summary(row: Sequence[object]) -> SlideSummary:
    stored = int(str(row[1]))
    texts = ["" if v is None else str(v) for v in row]
    return SlideSummary(
        study_instance_uid=texts[2],
        series_instance_uid=texts[3],
        container_identifier=texts[4],
        patient_name=texts[5],
        patient_id=texts[6],
        accession_number=texts[7],
        study_date=texts[8],
        modality=texts[9],
        series_description=texts[10],
        manufacturer=texts[11],
        format=texts[12],
        file_name=texts[13],
        number_of_instances=int(texts[14]),
        size_bytes=int(texts[15]),
        total_pixel_matrix_rows=int(texts[16]),
        total_pixel_matrix_columns=int(texts[17]),
        stored=moment(stored),
        unmatched=bool(row[18]),
        cursor=_cursor(stored, int(str(row[0]))),
    )


# ---- change feed ----------------------------------------------------------------------


def changes(core: Core, after: int, limit: int, *, principal: Principal, scope: Scope) -> list[Change]:
    """See ``Archive.changes``. A limited scope sees the changes of studies it sees."""
    core.check(principal, Action.SEARCH)
    more, parameters = "", [after, *scope.parameters, max(1, min(limit, 10_000))]
    if not scope.is_everything:
        more = (
            "AND EXISTS (SELECT 1 FROM study WHERE study.study_instance_uid = c.study_instance_uid "
            f"AND ({scope.sql})) "
        )
    with core.index.read():
        rows = execute(
            core,
            "SELECT c.seq, c.time, c.action, c.study_instance_uid, c.series_instance_uid, c.sop_instance_uid "
            f"FROM change c WHERE c.seq > ? {more}ORDER BY c.seq LIMIT ?",
            *parameters,
        ).fetchall()
    return [Change(row[0], moment(row[1]), *row[2:]) for row in rows]


def ready(core: Core) -> dict[str, str]:
    """See ``Archive.ready``."""
    checks: dict[str, str] = {}
    probes: dict[str, Callable[[], int | None]] = {
        "database": lambda: last_change(core),
        "storage": lambda: core.storage.stat("store.json"),
    }
    for name, probe in probes.items():
        try:
            checks[name] = "ok" if probe() is not None else "the store is gone"
        except ArchiveError as error:
            checks[name] = str(error)
    if checks["database"] == "ok" and core.setting("reindexing"):
        checks["database"] = "the index is being rebuilt"
    free = core.storage.free_bytes()
    enough = free is None or free > core.limits.free_bytes
    checks["disk"] = "ok" if enough else f"only {(free or 0) >> 20} MiB are free"
    return checks
