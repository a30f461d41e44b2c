# SPDX-License-Identifier: Apache-2.0
"""Index rows as values: what an instance is made of, who sees it, what changed.

Functions here only read, and open ``Index.read`` themselves.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pydicom.dataset import Dataset

from archive.access import Scope
from archive.core import Core
from archive.errors import Gone
from archive.index import attributes
from archive.part10.bulk import BulkValue
from archive.record import BlobRef, Section, blob_key
from archive.values import Instance

PAGE_ROWS = 1000
Place = tuple[str, int, int]  # key, offset, length


@dataclass(frozen=True, slots=True)
class Row:
    """One instance as the index has it, and where its parts lie."""

    id: int
    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    study_id: int
    series_id: int
    original_id: int | None
    base: str  # "file", "bare" or "made", see docs/storage-format.md
    record_key: str  # of the base
    header: Place
    json: Place
    base_header: Place
    table: Section
    absent: Section
    bulk: tuple[BulkValue, ...]
    blob_keys: tuple[str, ...]
    unpacked: tuple[BlobRef | None, ...]  # of each: what it holds recompressed
    base_digest: bytes
    dataset_digests: frozenset[bytes]  # of the base and of every revision
    pixel_digest: bytes | None
    revision: int
    number_of_frames: int
    rows: int
    columns: int
    samples_per_pixel: int
    bits_allocated: int
    bits_stored: int
    pixel_representation: int
    photometric_interpretation: str
    lossy: bool
    size_bytes: int
    modality: str
    image_type: tuple[str, ...]
    has_pixel_data: bool
    total_pixel_matrix_rows: int
    total_pixel_matrix_columns: int

    def describe(self) -> Instance:
        """What edges see of it."""
        return Instance(
            row=self.id,
            study_instance_uid=self.study_instance_uid,
            series_instance_uid=self.series_instance_uid,
            sop_instance_uid=self.sop_instance_uid,
            sop_class_uid=self.sop_class_uid,
            transfer_syntax_uid=self.transfer_syntax_uid,
            number_of_frames=self.number_of_frames,
            rows=self.rows,
            columns=self.columns,
            samples_per_pixel=self.samples_per_pixel,
            bits_allocated=self.bits_allocated,
            bits_stored=self.bits_stored,
            pixel_representation=self.pixel_representation,
            photometric_interpretation=self.photometric_interpretation,
            lossy=self.lossy,
            revision=self.revision,
            base_digest=self.base_digest,
            size_bytes=self.size_bytes,
            modality=self.modality,
            image_type=self.image_type,
            has_pixel_data=self.has_pixel_data,
            total_pixel_matrix_columns=self.total_pixel_matrix_columns,
            total_pixel_matrix_rows=self.total_pixel_matrix_rows,
        )


def microseconds(moment: datetime) -> int:
    """Since the epoch, UTC."""
    return int(moment.timestamp() * 1_000_000)


def moment(value: int) -> datetime:
    return datetime.fromtimestamp(value / 1_000_000, UTC)


# ---- scope ---------------------------------------------------------------------


def _sql(core: Core, text: str) -> str:
    return text if core.index.dialect == "sqlite" else text.replace("?", "%s")


def _any(core: Core, text: str, parameters: Sequence[object]) -> bool:
    with core.index.read() as database:
        return database.execute_sql(_sql(core, text), tuple(parameters)).fetchone() is not None


def visible(core: Core, study_id: int, scope: Scope) -> bool:
    """Whether ``scope`` sees a study."""
    return _any(
        core, f"SELECT 1 FROM study WHERE study.id = ? AND ({scope.sql})", (study_id, *scope.parameters)
    )


def study_visible(core: Core, dataset: Dataset, scope: Scope, row: Row | None = None) -> bool:
    """Whether ``scope`` may touch the study that a data set belongs to, new or not, and
    that of the instance it would meet."""
    if scope.is_everything:
        return True
    if row is not None and not visible(core, row.study_id, scope):
        return False
    columns = attributes.study_columns(dataset)
    uid = columns["study_instance_uid"]
    if _any(core, "SELECT 1 FROM study WHERE study_instance_uid = ?", (uid,)):
        return _any(
            core,
            f"SELECT 1 FROM study WHERE study_instance_uid = ? AND ({scope.sql})",
            (uid, *scope.parameters),
        )
    fresh: dict[str, object] = {"id": None, "protocol_study_id": None, "sensitivity": 0, **columns}
    values = ", ".join(f"? AS {name}" for name in fresh)
    return _any(
        core,
        f"SELECT 1 FROM (SELECT {values}) AS study WHERE ({scope.sql})",
        (*fresh.values(), *scope.parameters),
    )


# ---- reading rows ----------------------------------------------------------------


def find_row(core: Core, sop: str) -> Row | None:
    """The instance with this SOP Instance UID, whoever asks."""
    with core.index.read():
        return next(iter(_rows(core, "i.sop_instance_uid = ?", (sop,), 1)), None)


def rows_below(core: Core, study: str, series: str, scope: Scope) -> Iterator[list[Row]]:
    """Pages of a study's (or series') instances that ``scope`` sees, by series and
    instance number; no cursor outlives a page."""
    with core.index.read() as database:
        found = database.execute_sql(
            _sql(
                core,
                "SELECT i.id FROM instance i JOIN series s ON s.id = i.series_id "
                "JOIN study ON study.id = i.study_id WHERE study.study_instance_uid = ? "
                + ("AND s.series_instance_uid = ? " if series else "")
                + f"AND ({scope.sql}) ORDER BY s.id, i.instance_number, i.id",
            ),
            (study, *((series,) if series else ()), *scope.parameters),
        ).fetchall()
    ids = [row[0] for row in found]
    for start in range(0, len(ids), PAGE_ROWS):
        page = ids[start : start + PAGE_ROWS]
        with core.index.read():
            by_id = {row.id: row for row in _rows(core, f"i.id IN ({_marks(page)})", page, PAGE_ROWS)}
        yield [by_id[i] for i in page if i in by_id]


def rows_of_original(core: Core, digest: bytes, scope: Scope) -> list[Row]:
    """What an original became, if ``scope`` sees it."""
    condition = "i.original_id = (SELECT id FROM original WHERE digest = ?)"
    with core.index.read():
        rows = list(_rows(core, condition, (digest,), PAGE_ROWS))
    return [row for row in rows if scope.is_everything or visible(core, row.study_id, scope)]


def all_rows(core: Core) -> Iterator[Row]:
    """Every instance, by id, in pages; for integrity checks."""
    last = 0
    while True:
        if not (page := rows_after(core, last)):
            return
        yield from page
        last = page[-1].id


def rows_after(core: Core, last: int) -> list[Row]:
    """A page of instances with ids above ``last``, by id."""
    with core.index.read():
        return list(_rows(core, "i.id > ?", (last,), PAGE_ROWS))


_SELECT = (
    "SELECT i.*, study.study_instance_uid, s.series_instance_uid FROM instance i "
    "JOIN study ON study.id = i.study_id JOIN series s ON s.id = i.series_id "
    "WHERE {condition} ORDER BY i.id LIMIT {limit}"
)
_BLOBS = (
    "SELECT l.instance_id, b.digest, l.unpacked_digest, l.unpacked_size_bytes "
    "FROM instance_blob l JOIN blob b ON b.id = l.blob_id "
    "WHERE l.instance_id IN ({marks}) ORDER BY l.instance_id, l.position"
)
_REVISIONS = "SELECT * FROM header_revision WHERE instance_id IN ({marks}) ORDER BY instance_id, revision"


def _marks(values: Sequence[object]) -> str:
    return ", ".join("?" * len(values))


def _dicts(core: Core, text: str, parameters: Sequence[object]) -> list[dict[str, Any]]:
    cursor = core.index.database.execute_sql(_sql(core, text), tuple(parameters))
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, values, strict=True)) for values in cursor.fetchall()]


def _rows(core: Core, condition: str, parameters: Sequence[object], limit: int) -> Iterator[Row]:
    """In plain SQL: this is asked for every instance that comes, and for each one that is
    opened the first time."""
    found = _dicts(core, _SELECT.format(condition=condition, limit=limit), parameters)
    if not found:
        return
    ids = [r["id"] for r in found]
    blobs: dict[int, list[tuple[str, BlobRef | None]]] = {i: [] for i in ids}
    revisions: dict[int, list[Mapping[str, Any]]] = {i: [] for i in ids}
    for link in _dicts(core, _BLOBS.format(marks=_marks(ids)), ids):
        first = None
        if link["unpacked_digest"] is not None:
            first = BlobRef(bytes(link["unpacked_digest"]), link["unpacked_size_bytes"])
        blobs[link["instance_id"]].append((blob_key(bytes(link["digest"])), first))
    for revision in _dicts(core, _REVISIONS.format(marks=_marks(ids)), ids):
        revisions[revision["instance_id"]].append(revision)
    for r in found:
        yield _row(r, blobs[r["id"]], revisions[r["id"]])


def _row(
    r: Mapping[str, Any],
    blobs: Sequence[tuple[str, BlobRef | None]],
    revisions: Sequence[Mapping[str, Any]],
) -> Row:
    base = revisions[0] if revisions else r  # a damaged index is for verify to tell
    return Row(
        id=r["id"],
        study_instance_uid=r["study_instance_uid"],
        series_instance_uid=r["series_instance_uid"],
        sop_instance_uid=r["sop_instance_uid"],
        sop_class_uid=r["sop_class_uid"],
        transfer_syntax_uid=r["transfer_syntax_uid"],
        study_id=r["study_id"],
        series_id=r["series_id"],
        original_id=r["original_id"],
        base={"born": "made", "bare": "bare"}.get(r["origin"], "file"),
        record_key=r["base_record_key"],
        header=(r["record_key"], r["header_offset"], r["header_length"]),
        json=(r["record_key"], r["json_offset"], r["json_length"]),
        base_header=(base["record_key"], base["header_offset"], base["header_length"]),
        table=(r["table_offset"], r["table_length"]),
        absent=(r["absent_offset"], r["absent_length"]),
        bulk=tuple(BulkValue(*b) for b in json.loads(r["bulk"])),
        blob_keys=tuple(key for key, _ in blobs),
        unpacked=tuple(first for _, first in blobs),
        base_digest=bytes(r["base_digest"]),
        dataset_digests=frozenset(bytes(v["dataset_digest"]) for v in revisions),
        pixel_digest=bytes(r["pixel_digest"]) or None,
        revision=r["revision"],
        number_of_frames=r["number_of_frames"],
        rows=r["rows"],
        columns=r["columns"],
        samples_per_pixel=r["samples_per_pixel"],
        bits_allocated=r["bits_allocated"],
        bits_stored=r["bits_stored"],
        pixel_representation=r["pixel_representation"],
        photometric_interpretation=r["photometric_interpretation"],
        lossy=bool(r["lossy"]),
        size_bytes=r["size_bytes"],
        modality=r["modality"],
        image_type=tuple(r["image_type"].split("\\")) if r["image_type"] else (),
        has_pixel_data=bool(r["has_pixel_data"]),
        total_pixel_matrix_rows=r["total_pixel_matrix_rows"],
        total_pixel_matrix_columns=r["total_pixel_matrix_columns"],
    )


def is_tombstoned(core: Core, study: str, series: str, sop: str, scope: Scope) -> bool:
    """Whether it was here and was deleted; scopes that are not everything see no
    tombstone of a study that is gone."""
    if not scope.is_everything:
        return False
    stone = core.index.models.Tombstone
    with core.index.read():
        query = stone.select().where(stone.study_instance_uid == study)
        if series:
            query = query.where(stone.series_instance_uid == series)
        if sop:
            query = query.where(stone.sop_instance_uid == sop)
        return bool(query.exists())


def gone_for(core: Core, study: str, series: str, sop: str, scope: Scope) -> Gone | None:
    """The refusal of what was deleted (:func:`is_tombstoned`), with what tells why while that
    is here; None for what never was."""
    if not is_tombstoned(core, study, series, sop, scope):
        return None
    named, stone = sop or series or study, core.index.models.Tombstone
    if not sop:
        return Gone(named)
    with core.index.read():
        stone = stone.select(stone.pointer, stone.reason).where(stone.sop_instance_uid == sop).first()
    if stone is None or not stone.pointer:
        return Gone(named)
    row = find_row(core, stone.pointer)
    if row is None:
        return Gone(named, stone.reason)
    pointer = (row.study_instance_uid, row.series_instance_uid, row.sop_instance_uid)
    return Gone(named, stone.reason, pointer)


def last_change(core: Core) -> int:
    """The highest ``seq`` of the change feed; 0 if there is none."""
    change = core.index.models.Change
    with core.index.read():
        row = change.select(change.seq).where(change.seq.is_null(False)).order_by(change.seq.desc()).first()
        return 0 if row is None else int(row.seq)


def changed_since(core: Core, after: int, limit: int = 500) -> tuple[list[str] | None, int]:
    """SOP Instance UIDs changed after ``after``, and the new position; None for the UIDs
    when there are too many to name."""
    change = core.index.models.Change
    with core.index.read():
        rows = list(
            change.select(change.seq, change.sop_instance_uid)
            .where(change.seq > after)
            .order_by(change.seq)
            .limit(limit)
            .tuples()
        )
    if len(rows) == limit:
        return None, last_change(core)
    return [sop for _, sop in rows], rows[-1][0] if rows else after


def live_siblings(core: Core, row: Row) -> set[int]:
    """The other instances made from the same original."""
    instance = core.index.models.Instance
    with core.index.read():
        found = instance.select(instance.id).where(
            (instance.original == row.original_id) & (instance.id != row.id)
        )
        return {r[0] for r in found.tuples()}
