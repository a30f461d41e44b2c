# SPDX-License-Identifier: Apache-2.0
"""Records into index rows: one place for storing, recovering and reindexing.

All of this is called inside ``Index.write``.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from pydicom.dataset import Dataset

from archive.core import Core
from archive.errors import ArchiveError
from archive.index import attributes
from archive.journal import Revision
from archive.part10.digest import content_digest
from archive.record import BlobRef, Record, RecordedInstance, RecordedOriginal, blob_key
from archive.rows import Row, microseconds


class MissingBlob(ArchiveError):
    """A blob went (garbage collection) between being found and being referred to."""


def index_record(core: Core, key: str, record: Record, datasets: Sequence[Dataset], time: datetime) -> None:
    """Insert everything that a record brought; its blobs must be there already."""
    original_id = None
    if record.original is not None:
        original_id = add_original(core, record.original, time)
    for recorded, dataset in zip(record.instances, datasets, strict=True):
        add_instance(core, key, recorded, dataset, record.original, original_id, time)


def add_original(core: Core, original: RecordedOriginal, time: datetime) -> int:
    model = core.index.models.Original
    row = model.get_or_none(model.digest == original.digest)
    if row is None:
        row = model.create(
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
            refer(core, ref, "original", row.id, time)
    return int(row.id)


def add_instance(
    core: Core,
    key: str,
    recorded: RecordedInstance,
    dataset: Dataset,
    original: RecordedOriginal | None,
    original_id: int | None,
    time: datetime,
) -> int:
    """One instance with its study and series, revision 0."""
    models = core.index.models
    now = microseconds(time)
    unmatched = original is not None and original.unmatched
    columns = attributes.instance_columns(dataset, has_pixel_data=bool(recorded.table[1]))
    size = recorded.size_bytes
    study, new_study = _upsert(models.Study, "study_instance_uid", attributes.study_columns(dataset), now)
    if new_study and original is not None:
        models.Study.update(uid_status="own", unmatched=unmatched).where(models.Study.id == study).execute()
    series_columns = {**attributes.series_columns(dataset), "study": study}
    series, new_series = _upsert(models.Series, "series_instance_uid", series_columns, now)
    if original is not None:
        models.Series.update(original=original_id, unmatched=unmatched).where(
            models.Series.id == series
        ).execute()
    bulk = json.dumps([list(b) for b in recorded.bulk])
    places = {
        "record_key": key,
        "header_offset": recorded.header[0],
        "header_length": recorded.header[1],
        "json_offset": recorded.json[0],
        "json_length": recorded.json[1],
        "bulk": bulk,
    }
    pixel = recorded.pixel_digest or b""
    instance = models.Instance.create(
        **{
            **columns,
            "study": study,
            "series": series,
            "sop_instance_uid": recorded.sop_instance_uid,
            "sop_class_uid": recorded.sop_class_uid,
            "transfer_syntax_uid": recorded.transfer_syntax_uid,
            "has_pixel_data": bool(recorded.table[1]),
            "size_bytes": size,
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
    ).id
    models.HeaderRevision.create(
        instance=instance,
        revision=0,
        digest=recorded.base_digest,
        dataset_digest=recorded.dataset_digest,
        reason="",
        time=now,
        **places,
    )
    for position, ref in enumerate(recorded.blobs):
        blob = refer(core, ref, "instance", instance, time)
        models.InstanceBlob.create(instance=instance, position=position, blob=blob)
    _index_attributes(core, instance, dataset)
    stone = models.Tombstone
    stone.delete().where(stone.sop_instance_uid == recorded.sop_instance_uid).execute()
    _count(core, study, series, now, instances=1, series_count=1 if new_series else 0, size=size)
    return int(instance)


def _origin(base: str, original: RecordedOriginal | None) -> str:
    if base == "file":
        return "received" if original is None else "converted"
    return "born" if base == "made" else "bare"


def whole_digest(dataset_digest: bytes, pixel_digest: bytes, has_pixels: bool) -> bytes:
    """The content digest (DESIGN 4), b"" while the pixel digest is not known."""
    if has_pixels and not pixel_digest:
        return b""
    return hashlib.sha256(b"coverslip-content-1" + dataset_digest + pixel_digest).digest()


def _upsert(model: Any, key: str, columns: Mapping[str, object], now: int) -> tuple[int, bool]:
    """The row with this UID; the first instance of a study or series fills its columns."""
    row = model.select(model.id).where(getattr(model, key) == columns[key]).first()
    if row is not None:
        return int(row.id), False
    return int(model.create(**columns, created=now, updated=now).id), True


def _index_attributes(core: Core, instance: int, dataset: Dataset) -> None:
    rows = [{"instance": instance, **row._asdict()} for row in attributes.extract(dataset)]
    model = core.index.models.Attribute
    for start in range(0, len(rows), 200):
        model.insert_many(rows[start : start + 200]).execute()


def refer(core: Core, ref: BlobRef, owner_kind: str, owner_id: int, time: datetime) -> int:
    """Note that ``owner`` keeps a blob, reviving it if it was condemned. Raises
    MissingBlob when its bytes are not there (any more)."""
    models = core.index.models
    blob = models.Blob.get_or_none(models.Blob.digest == ref.digest)
    if (blob is None or blob.state != "live") and core.storage.stat(blob_key(ref.digest)) != ref.size_bytes:
        raise MissingBlob(f"blob {ref.digest.hex()[:16]} is missing")
    if blob is None:
        blob = models.Blob.create(digest=ref.digest, size_bytes=ref.size_bytes, created=microseconds(time))
    elif blob.state != "live":
        models.Blob.update(state="live", condemned_at=None).where(models.Blob.id == blob.id).execute()
    link = models.BlobRef
    if (
        not link.select()
        .where((link.blob == blob.id) & (link.owner_kind == owner_kind) & (link.owner_id == owner_id))
        .exists()
    ):
        link.create(blob=blob.id, owner_kind=owner_kind, owner_id=owner_id)
    return int(blob.id)


def release(core: Core, owner_kind: str, owner_id: int, time: datetime) -> None:
    """Drop an owner's references; blobs that nobody keeps are condemned."""
    models = core.index.models
    link, blob = models.BlobRef, models.Blob
    ids = [
        r[0]
        for r in link.select(link.blob)
        .where((link.owner_kind == owner_kind) & (link.owner_id == owner_id))
        .tuples()
    ]
    link.delete().where((link.owner_kind == owner_kind) & (link.owner_id == owner_id)).execute()
    for blob_id in ids:
        if not link.select().where(link.blob == blob_id).exists():
            blob.update(state="condemned", condemned_at=microseconds(time)).where(
                blob.id == blob_id
            ).execute()


def remove_instance(core: Core, row: Row, *, tombstone: bool, time: datetime, reason: str = "") -> None:
    """Take an instance out of the index; its blobs are condemned if nobody else keeps
    them, its study and series go with their last instance."""
    models = core.index.models
    if tombstone:
        study = models.Study.get_by_id(row.study_id)
        models.Tombstone.create(
            level="instance",
            study_instance_uid=row.study_instance_uid,
            series_instance_uid=row.series_instance_uid,
            sop_instance_uid=row.sop_instance_uid,
            protocol_study_id=study.protocol_study,
            sensitivity=study.sensitivity,
            reason=reason,
            time=microseconds(time),
        )
    for model in (models.Attribute, models.InstanceBlob, models.HeaderRevision):
        model.delete().where(model.instance == row.id).execute()
    release(core, "instance", row.id, time)
    models.Instance.delete().where(models.Instance.id == row.id).execute()
    size = row.size_bytes
    _count(core, row.study_id, row.series_id, microseconds(time), instances=-1, series_count=0, size=-size)
    instance, series, study_model = models.Instance, models.Series, models.Study
    if not instance.select().where(instance.series == row.series_id).exists():
        derived = models.Derivative
        for made in list(derived.select(derived.id).where(derived.series == row.series_id).tuples()):
            release(core, "derivative", made[0], time)
        derived.delete().where(derived.series == row.series_id).execute()
        series.delete().where(series.id == row.series_id).execute()
        study_model.update(number_of_series=study_model.number_of_series - 1).where(
            study_model.id == row.study_id
        ).execute()
    if not instance.select().where(instance.study == row.study_id).exists():
        study_model.delete().where(study_model.id == row.study_id).execute()
    if (
        row.original_id is not None
        and not instance.select().where(instance.original == row.original_id).exists()
    ):
        release(core, "original", row.original_id, time)
        models.Original.delete().where(models.Original.id == row.original_id).execute()


def add_revision(
    core: Core, row: Row, revision: Revision, dataset: Dataset, *, reason: str, time: datetime
) -> None:
    """A new current header of an instance; columns and matching keys follow it."""
    models = core.index.models
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
        dataset_digest=content_digest(dataset, b"", bulk_digests(core, row)),
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
    _count(core, row.study_id, row.series_id, microseconds(time), instances=0, series_count=0, size=change)
    models.Attribute.delete().where(models.Attribute.instance == row.id).execute()
    _index_attributes(core, row.id, dataset)
    study = {k: v for k, v in attributes.study_columns(dataset).items() if k != "study_instance_uid"}
    series = {k: v for k, v in attributes.series_columns(dataset).items() if k != "series_instance_uid"}
    now = microseconds(time)
    models.Study.update(updated=now, **study).where(models.Study.id == row.study_id).execute()
    models.Series.update(updated=now, **series).where(models.Series.id == row.series_id).execute()


def bulk_digests(core: Core, row: Row) -> dict[str, bytes]:
    """Path -> SHA-256 of an instance's large values that are not pixel data."""
    digests = {}
    for value in row.bulk:
        if value.is_pixel_data:
            continue
        digest = hashlib.sha256()
        for piece in core.files.get(row.blob_keys[0]).chunks(value.offset, value.length):
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


def _count(
    core: Core, study: int, series: int, now: int, *, instances: int, series_count: int, size: int
) -> None:
    models = core.index.models
    for model, row_id in ((models.Study, study), (models.Series, series)):
        changes = {
            "number_of_instances": model.number_of_instances + instances,
            "size_bytes": model.size_bytes + size,
            "updated": now,
        }
        if model is models.Study:
            changes["number_of_series"] = model.number_of_series + series_count
        model.update(**changes).where(model.id == row_id).execute()
    modality = models.Series.select(models.Series.modality).where(models.Series.study == study).distinct()
    found = "\\".join(sorted({m for (m,) in modality.tuples() if m}))
    models.Study.update(modalities=found).where(models.Study.id == study).execute()
    if instances > 0:
        instance = models.Instance
        largest = (
            instance.select(instance.total_pixel_matrix_rows, instance.total_pixel_matrix_columns)
            .where(instance.series == series)
            .order_by(instance.total_pixel_matrix_columns.desc())
            .limit(1)
            .tuples()
        )
        for rows, columns in largest:
            models.Series.update(total_pixel_matrix_rows=rows, total_pixel_matrix_columns=columns).where(
                models.Series.id == series
            ).execute()
