# SPDX-License-Identifier: Apache-2.0
"""Records into index rows: one place for storing, recovering and reindexing.

All of this is called inside ``Index.write``.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydicom.dataset import Dataset

from archive.blobs import open_blob
from archive.core import Core
from archive.errors import ArchiveError
from archive.index import attributes
from archive.index.attributes import AttributeRow
from archive.index.text import fold
from archive.journal import KEEP, READMIT, RECOMPRESS, REPLACE, TOMBSTONED, Entry, Revision, Target
from archive.part10.digest import content_digest
from archive.prepare import Described
from archive.record import BlobRef, Record, RecordedInstance, RecordedOriginal, blob_key
from archive.rows import Row, microseconds

_NONE: Mapping[tuple[str, int], BlobRef] = {}


class MissingBlob(ArchiveError):
    """A blob went (garbage collection) between being found and being referred to."""


@dataclass(frozen=True, slots=True)
class Extract:
    """What the index keeps of a header; made before the turn to write, not within."""

    study: Mapping[str, Any]
    series: Mapping[str, Any]
    instance: Mapping[str, Any]
    attributes: Sequence[AttributeRow]


def extract(dataset: Dataset, *, has_pixel_data: bool, keys: Mapping[str, str] | None = None) -> Extract:
    """Columns and matching keys of a header without bulk values; ``keys``: as
    :func:`archive.index.attributes.extract` takes them."""
    return Extract(
        attributes.study_columns(dataset),
        attributes.series_columns(dataset),
        attributes.instance_columns(dataset, has_pixel_data=has_pixel_data),
        attributes.extract(dataset, keys),
    )


def extracts(core: Core, record: Record, datasets: Sequence[Dataset]) -> list[Extract]:
    """For :func:`index_record`."""
    return [
        extract(dataset, has_pixel_data=bool(recorded.table[1]), keys=core.index.wanted_keys)
        for recorded, dataset in zip(record.instances, datasets, strict=True)
    ]


def index_record(
    core: Core,
    key: str,
    record: Record,
    found: Sequence[Extract],
    time: datetime,
    packed: Mapping[tuple[str, int], BlobRef] = _NONE,
) -> None:
    """Insert everything that a record brought; its blobs must be there already. ``packed``:
    by SOP Instance UID and position, what blobs are stored in since."""
    now = microseconds(time)
    original_id = None
    if record.original is not None:
        original_id = add_original(core, record.original, time)
    totals: dict[tuple[int, int], list[int]] = {}
    for recorded, extracted in zip(record.instances, found, strict=True):
        study, series = _parents(core, extracted, record.original, original_id, now)
        add_instance(
            core, key, recorded, extracted, (study, series), record.original, original_id, time, packed
        )
        total = totals.setdefault((study, series), [0, 0])
        total[0] += 1
        total[1] += recorded.size_bytes
    for (study, series), (instances, size) in totals.items():
        _count(core, study, series, now, instances=instances, size=size)


def execute(core: Core, sql: str, *parameters: object) -> Any:
    """One statement within a verb; ``?`` marks a parameter on both databases. Statements
    of the ingest path are plain SQL: whoever builds them holds up every other writer."""
    if core.index.dialect != "sqlite":
        sql = sql.replace("?", "%s")
    return core.index.database.execute_sql(sql, parameters)


def add_original(core: Core, original: RecordedOriginal, time: datetime) -> int:
    row = execute(core, "SELECT id FROM original WHERE digest = ?", original.digest).fetchone()
    if row is not None:
        return int(row[0])
    added = core.index.insert(
        core.index.models.Original,
        digest=original.digest,
        name=original.files[0][0] if original.files else "",
        format=original.format,
        description=original.description,
        size_bytes=sum(ref.size_bytes for _, ref in original.files),
        files=json.dumps(
            [{"name": n, "digest": r.digest.hex(), "size": r.size_bytes} for n, r in original.files]
        ),
        unmatched=original.unmatched,
        created=microseconds(time),
    )
    for _, ref in original.files:
        refer(core, ref, "original", added, time)
    return added


def _parents(
    core: Core, extracted: Extract, original: RecordedOriginal | None, original_id: int | None, now: int
) -> tuple[int, int]:
    """The rows of study and series, made by their first instance."""
    models = core.index.models
    unmatched = original is not None and original.unmatched
    uid = extracted.study["study_instance_uid"]
    row = execute(core, "SELECT id FROM study WHERE study_instance_uid = ?", uid).fetchone()
    if row is None:
        status = "received" if original is None else "own"
        study = core.index.insert(
            models.Study, **extracted.study, uid_status=status, unmatched=unmatched, created=now, updated=now
        )
        core.index.insert_name_sounds(study, attributes.study_names(extracted.study))
    else:
        study = int(row[0])
    uid = extracted.series["series_instance_uid"]
    row = execute(core, "SELECT id FROM series WHERE series_instance_uid = ?", uid).fetchone()
    if row is not None:
        return study, int(row[0])
    names = "" if original is None else fold(" ".join(name for name, _ in original.files))
    series = core.index.insert(
        models.Series,
        **{**extracted.series, "search_text": f"{extracted.series['search_text']} {names}".strip()},
        study=study,
        original=original_id,
        unmatched=unmatched,
        created=now,
        updated=now,
    )
    execute(core, "UPDATE study SET number_of_series = number_of_series + 1 WHERE id = ?", study)
    _modalities(core, study)
    return study, series


def add_instance(
    core: Core,
    key: str,
    recorded: RecordedInstance,
    extracted: Extract,
    parents: tuple[int, int],
    original: RecordedOriginal | None,
    original_id: int | None,
    time: datetime,
    packed: Mapping[tuple[str, int], BlobRef] = _NONE,
) -> int:
    """One instance below its study and series, revision 0."""
    models, insert = core.index.models, core.index.insert
    study, series = parents
    now = microseconds(time)
    places = {
        "record_key": key,
        "header_offset": recorded.header[0],
        "header_length": recorded.header[1],
        "json_offset": recorded.json[0],
        "json_length": recorded.json[1],
        "bulk": json.dumps([list(b) for b in recorded.bulk]),
    }
    pixel = recorded.pixel_digest or b""
    place = execute(core, "SELECT place FROM study WHERE id = ?", study).fetchone()[0]
    columns = {
        **extracted.instance,
        "study": study,
        "series": series,
        "place": place,
        "sop_instance_uid": recorded.sop_instance_uid,
        "sop_class_uid": recorded.sop_class_uid,
        "transfer_syntax_uid": recorded.transfer_syntax_uid,
        "has_pixel_data": bool(recorded.table[1]),
        "size_bytes": recorded.size_bytes,
        **places,
        "base_record_key": key,
        "table_offset": recorded.table[0],
        "table_length": recorded.table[1],
        "absent_offset": recorded.absent[0],
        "absent_length": recorded.absent[1],
        "absent_tiles": bool(recorded.absent[1]),
        "base_digest": recorded.base_digest,
        "dataset_digest": recorded.dataset_digest,
        "content_digest": whole_digest(recorded.dataset_digest, pixel, bool(recorded.table[1])),
        "pixel_digest": pixel,
        "origin": _origin(recorded.base, original),
        "original": original_id,
        "stored": now,
    }
    instance = insert(models.Instance, **columns)
    insert(
        models.HeaderRevision,
        instance=instance,
        revision=0,
        digest=recorded.base_digest,
        dataset_digest=recorded.dataset_digest,
        reason="",
        time=now,
        **places,
    )
    for position, ref in enumerate(recorded.blobs):
        holder = packed.get((recorded.sop_instance_uid, position))
        execute(
            core,
            "INSERT INTO instance_blob (instance_id, position, blob_id, unpacked_digest, "
            "unpacked_size_bytes) VALUES (?, ?, ?, ?, ?)",
            instance,
            position,
            refer(core, holder or ref, "instance", instance, time),
            ref.digest if holder else None,
            ref.size_bytes if holder else None,
        )
    core.index.insert_attributes(instance, extracted.attributes)
    uid = recorded.sop_instance_uid
    for (stone,) in execute(core, "SELECT id FROM tombstone WHERE sop_instance_uid = ?", uid).fetchall():
        release(core, "tombstone", stone, time)
        execute(core, "DELETE FROM tombstone WHERE id = ?", stone)
    return instance


def _origin(base: str, original: RecordedOriginal | None) -> str:
    if base == "file":
        return "received" if original is None else "converted"
    return "born" if base == "made" else "bare"


def whole_digest(dataset_digest: bytes, pixel_digest: bytes, has_pixels: bool) -> bytes:
    """The content digest (DESIGN 4), b"" while the pixel digest is not known."""
    if has_pixels and not pixel_digest:
        return b""
    return hashlib.sha256(b"coverslip-content-1" + dataset_digest + pixel_digest).digest()


def refer(core: Core, ref: BlobRef, owner_kind: str, owner_id: int, time: datetime) -> int:
    """Note that ``owner`` keeps a blob, reviving it if it was condemned. Raises
    MissingBlob when its bytes are not there (any more)."""
    core.index.referring()
    row = execute(core, "SELECT id, state FROM blob WHERE digest = ?", ref.digest).fetchone()
    if (row is None or row[1] != "live") and core.storage.stat(blob_key(ref.digest)) != ref.size_bytes:
        raise MissingBlob(f"blob {ref.digest.hex()[:16]} is missing")
    if row is None:
        blob = core.index.insert(
            core.index.models.Blob, digest=ref.digest, size_bytes=ref.size_bytes, created=microseconds(time)
        )
    else:
        blob = int(row[0])
        if row[1] != "live":
            execute(core, "UPDATE blob SET state = 'live', condemned_at = NULL WHERE id = ?", blob)
    execute(
        core,
        "INSERT INTO blob_ref (blob_id, owner_kind, owner_id) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
        blob,
        owner_kind,
        owner_id,
    )
    return blob


def release(core: Core, owner_kind: str, owner_id: int, time: datetime) -> None:
    """Drop an owner's references; blobs that nobody keeps are condemned."""
    link = core.index.models.BlobRef
    ids = [
        r[0]
        for r in link.select(link.blob)
        .where((link.owner_kind == owner_kind) & (link.owner_id == owner_id))
        .tuples()
    ]
    link.delete().where((link.owner_kind == owner_kind) & (link.owner_id == owner_id)).execute()
    for blob_id in ids:
        condemn_if_free(core, blob_id, time)


def condemn_if_free(core: Core, blob_id: int, time: datetime) -> None:
    """To be removed after a day, if nobody keeps it."""
    link, blob = core.index.models.BlobRef, core.index.models.Blob
    if not link.select().where(link.blob == blob_id).exists():
        blob.update(state="condemned", condemned_at=microseconds(time)).where(blob.id == blob_id).execute()


def has_blob(core: Core, record: str, sop: str, position: int, digest: bytes) -> bool:
    """Whether an instance, as one record brought it, has this blob at this position."""
    row = execute(
        core,
        "SELECT b.digest FROM instance i JOIN instance_blob l ON l.instance_id = i.id "
        "JOIN blob b ON b.id = l.blob_id "
        "WHERE i.sop_instance_uid = ? AND i.base_record_key = ? AND l.position = ?",
        sop,
        record,
        position,
    ).fetchone()
    return row is not None and bytes(row[0]) == digest


def remove_instance(
    core: Core,
    row: Row,
    *,
    tombstone: bool,
    time: datetime,
    reason: str = "",
    keep: bool = False,
    pointer: str = "",
) -> None:
    """Take an instance out of the index; its blobs are condemned if nobody else keeps
    them (with ``keep`` the tombstone does), its study and series go with their last
    instance."""
    models = core.index.models
    if tombstone:
        study = models.Study.get_by_id(row.study_id)
        stone = models.Tombstone.create(
            level="instance",
            study_instance_uid=row.study_instance_uid,
            series_instance_uid=row.series_instance_uid,
            sop_instance_uid=row.sop_instance_uid,
            protocol_study_id=study.protocol_study,
            sensitivity=study.sensitivity,
            pointer=pointer,
            reason=reason,
            time=microseconds(time),
        )
        if keep:
            execute(
                core,
                "UPDATE blob_ref SET owner_kind = 'tombstone', owner_id = ? "
                "WHERE owner_kind = 'instance' AND owner_id = ?",
                stone.id,
                row.id,
            )
    for model in (models.Attribute, models.InstanceBlob, models.HeaderRevision):
        model.delete().where(model.instance == row.id).execute()
    release(core, "instance", row.id, time)
    models.Instance.delete().where(models.Instance.id == row.id).execute()
    size = row.size_bytes
    _count(core, row.study_id, row.series_id, microseconds(time), instances=-1, size=-size)
    instance, series, study_model = models.Instance, models.Series, models.Study
    if not instance.select().where(instance.series == row.series_id).exists():
        derived = models.Derivative
        for made in list(derived.select(derived.id).where(derived.series == row.series_id).tuples()):
            release(core, "derivative", made[0], time)
        derived.delete().where(derived.series == row.series_id).execute()
        series.delete().where(series.id == row.series_id).execute()
        _modalities(core, row.study_id)
        study_model.update(number_of_series=study_model.number_of_series - 1).where(
            study_model.id == row.study_id
        ).execute()
    if not instance.select().where(instance.study == row.study_id).exists():
        models.NameSound.delete().where(models.NameSound.study == row.study_id).execute()
        study_model.delete().where(study_model.id == row.study_id).execute()
    if (
        row.original_id is not None
        and not instance.select().where(instance.original == row.original_id).exists()
    ):
        if tombstone and keep:  # with the last instance: what they were made from stays, too
            execute(
                core,
                "INSERT INTO blob_ref (blob_id, owner_kind, owner_id) SELECT r.blob_id, 'tombstone', "
                "CAST(? AS BIGINT) FROM blob_ref r WHERE r.owner_kind = 'original' AND r.owner_id = ? "
                "ON CONFLICT DO NOTHING",
                stone.id,
                row.original_id,
            )
        release(core, "original", row.original_id, time)
        models.Original.delete().where(models.Original.id == row.original_id).execute()


def add_revision(
    core: Core, row: Row, revision: Revision, described: Described, *, reason: str, time: datetime
) -> None:
    """A new current header of an instance; columns and matching keys follow it."""
    models = core.index.models
    dataset = described.dataset
    large = {**bulk_digests(core, row), **described.large}
    key = blob_key(revision.blob.digest)
    places = {
        "record_key": key,
        "header_offset": 0,
        "header_length": revision.header_length,
        "json_offset": revision.header_length,
        "json_length": revision.blob.size_bytes - revision.header_length,
    }
    bulk = core.index.models.Instance.get_by_id(row.id).bulk
    models.HeaderRevision.create(
        instance=row.id,
        revision=revision.revision,
        digest=revision.digest,
        dataset_digest=content_digest(dataset, b"", large),
        reason=reason,
        time=microseconds(time),
        bulk=bulk,
        **places,
    )
    refer(core, revision.blob, "instance", row.id, time)
    columns = {
        k: v
        for k, v in attributes.instance_columns(dataset, has_pixel_data=row.has_pixel_data).items()
        if k in models.Instance._meta.fields and k not in ("study", "series")
    }
    models.Instance.update(
        revision=revision.revision, size_bytes=revision.size_bytes, **places, **columns
    ).where(models.Instance.id == row.id).execute()
    change = revision.size_bytes - row.size_bytes
    _count(core, row.study_id, row.series_id, microseconds(time), instances=0, size=change)
    models.Attribute.delete().where(models.Attribute.instance == row.id).execute()
    core.index.insert_attributes(row.id, attributes.extract(dataset, core.index.wanted_keys))
    study = {k: v for k, v in attributes.study_columns(dataset).items() if k != "study_instance_uid"}
    series = attributes.series_columns(dataset)
    names = fold(_original_names(core, row))
    series["search_text"] = f"{series['search_text']} {names}".strip()
    del series["series_instance_uid"]
    now = microseconds(time)
    models.Study.update(updated=now, **study).where(models.Study.id == row.study_id).execute()
    core.index.insert_name_sounds(row.study_id, attributes.study_names(study), replace=True)
    models.Series.update(updated=now, **series).where(models.Series.id == row.series_id).execute()


def _original_names(core: Core, row: Row) -> str:
    if row.original_id is None:
        return ""
    files = execute(core, "SELECT files FROM original WHERE id = ?", row.original_id).fetchone()[0]
    return " ".join(file["name"] for file in json.loads(files))


def bulk_digests(core: Core, row: Row) -> dict[str, bytes]:
    """Path -> SHA-256 of an instance's large values that are not pixel data."""
    digests = {}
    for value in row.bulk:
        if value.is_pixel_data:
            continue
        digest = hashlib.sha256()
        for piece in open_blob(core, row, 0).chunks(value.offset, value.length):
            digest.update(piece)
        digests[value.path] = digest.digest()
    return digests


def keep_pixel_digest(core: Core, row: Row, digest: bytes) -> None:
    """Remember a pixel digest that was computed late."""
    instance = core.index.models.Instance
    base = instance.get_by_id(row.id).dataset_digest
    instance.update(pixel_digest=digest, content_digest=whole_digest(bytes(base), digest, True)).where(
        instance.id == row.id
    ).execute()


def _count(core: Core, study: int, series: int, now: int, *, instances: int, size: int) -> None:
    """Move the kept counters; a series' matrix is that of its largest instance."""
    for table, row_id in (("study", study), ("series", series)):
        execute(
            core,
            f"UPDATE {table} SET number_of_instances = number_of_instances + ?, size_bytes = size_bytes + ?, "
            "updated = ? WHERE id = ?",
            instances,
            size,
            now,
            row_id,
        )
    if instances:
        execute(
            core,
            "UPDATE series SET (total_pixel_matrix_rows, total_pixel_matrix_columns) = "
            "(SELECT i.total_pixel_matrix_rows, i.total_pixel_matrix_columns FROM instance i "
            "WHERE i.series_id = series.id ORDER BY i.total_pixel_matrix_columns DESC, i.id LIMIT 1) "
            "WHERE id = ? AND number_of_instances > 0",
            series,
        )


def _modalities(core: Core, study: int) -> None:
    found = execute(core, "SELECT DISTINCT modality FROM series WHERE study_id = ?", study).fetchall()
    joined = "\\".join(sorted(row[0] for row in found if row[0]))
    execute(core, "UPDATE study SET modalities = ? WHERE id = ?", joined, study)


def _tombstones(core: Core, sop: str) -> list[tuple[int, str]]:
    """Time and reason of what is told of an instance that went."""
    sql = "SELECT time, reason FROM tombstone WHERE sop_instance_uid = ?"
    return [(int(time), str(reason)) for time, reason in execute(core, sql, sop).fetchall()]


def _is_tombstone_of(core: Core, entry: Entry, target: Target) -> bool:
    """Whether an instance went by this entry, or has come anew since it went."""
    sql = "SELECT base_record_key FROM instance WHERE sop_instance_uid = ?"
    row = execute(core, sql, target.sop_instance_uid).fetchone()
    if row is not None:
        return bool(row[0] != target.record)
    return (microseconds(entry.time), entry.reason) in _tombstones(core, target.sop_instance_uid)


def took_effect(core: Core, entry: Entry) -> bool:
    """Whether the index already shows what a journal entry says. Reads."""
    with core.index.read():
        if entry.action in TOMBSTONED:  # others may have taken the same out, for another reason
            return any(_is_tombstone_of(core, entry, target) for target in entry.targets)
        for target in entry.targets:
            row = execute(
                core,
                "SELECT base_record_key FROM instance WHERE sop_instance_uid = ?",
                target.sop_instance_uid,
            ).fetchone()
            if (row is not None and row[0] == target.record) is not (entry.action == READMIT):
                return False
            if entry.action == REPLACE and row is None and _tombstones(core, target.sop_instance_uid):
                return False
        for kept in entry.objects:
            row = execute(
                core, "SELECT digest FROM non_patient WHERE sop_instance_uid = ?", kept.sop_instance_uid
            ).fetchone()
            there = row is not None and bytes(row[0]) == kept.blob.digest
            if there is not (entry.action == KEEP):
                return False
        for revision in entry.revisions:
            row = execute(
                core,
                "SELECT h.digest FROM header_revision h JOIN instance i ON i.id = h.instance_id "
                "WHERE i.sop_instance_uid = ? AND h.revision = ?",
                revision.target.sop_instance_uid,
                revision.revision,
            ).fetchone()
            if row is None or bytes(row[0]) != revision.digest:
                return False
        for move in entry.moves:
            holder = move.packed if entry.action == RECOMPRESS else move.blob
            if not has_blob(
                core, move.target.record, move.target.sop_instance_uid, move.position, holder.digest
            ):
                return False
    return True
