# SPDX-License-Identifier: Apache-2.0
"""Reindex, garbage collection, backup of what was said, access lines."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from archive.access import EVERYTHING, Principal
from archive.errors import StoreTooNew
from archive.index.database import Index
from archive.service import Archive
from tests.support.archives import ASK, open_archive, store_bytes
from tests.support.instances import jpeg_tile, make_instance

# What is told anew at a reindex, or is not storage's to tell.
VOLATILE = {"id", "created", "updated", "stored", "time", "study", "series", "instance", "blob", "original"}
VOLATILE |= {"place", "series_id"}  # made of ids


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    opened = open_archive(tmp_path)
    yield opened
    opened.close()


def contents(archive: Archive) -> dict[str, list[Any]]:
    """The index as values, without row numbers and times of indexing."""
    index = archive._core.index
    models = index.models
    tables = (
        models.Study,
        models.Series,
        models.Instance,
        models.HeaderRevision,
        models.Attribute,
        models.Original,
        models.Tombstone,
    )
    with index.read():
        found = {
            model.__name__: sorted(
                json.dumps({k: v for k, v in row.items() if k not in VOLATILE}, default=str, sort_keys=True)
                for row in model.select().dicts()
            )
            for model in tables
        }
        found["BlobRef"] = sorted(
            (bytes(row.blob.digest).hex(), row.owner_kind)
            for row in models.BlobRef.select(models.BlobRef, models.Blob).join(models.Blob)
        )
    return found


def filled(archive: Archive) -> None:
    """Stored, corrected twice, replaced, deleted, deleted and stored again."""
    kept = store_bytes(archive, make_instance(study="1.2.1", series="1.2.1.1"))
    store_bytes(archive, make_instance(study="1.2.1", series="1.2.1.2", number=2))
    archive.correct(kept.study_instance_uid, {"PatientName": "One^Two"}, reason="a", **ASK)
    archive.correct(kept.study_instance_uid, {"PatientID": "P9"}, reason="b", **ASK)
    uids = {"study": "1.2.3", "series": "1.2.4", "sop": "1.2.5"}
    store_bytes(archive, make_instance(**uids))
    store_bytes(archive, make_instance(**uids, tiles=[jpeg_tile(9)] * 4), replace=True)
    store_bytes(archive, make_instance(study="1.2.6"))
    archive.delete("1.2.6", reason="mistake", **ASK)
    again = make_instance(study="1.2.7")
    store_bytes(archive, again)
    archive.delete("1.2.7", reason="mistake", **ASK)
    store_bytes(archive, again)


def test_reindex_gives_the_index_that_was_there(archive: Archive) -> None:
    filled(archive)
    before = contents(archive)
    assert len(before["Instance"]) == 4
    assert archive.reindex(**ASK) == 4
    assert contents(archive) == before
    assert list(archive.verify(**ASK)) == []


def test_a_lost_database_is_rebuilt_from_storage(archive: Archive, tmp_path: Path) -> None:
    filled(archive)
    before = contents(archive)
    archive.close()
    for path in tmp_path.glob("coverslip.db*"):
        path.unlink()
    rebuilt = open_archive(tmp_path)
    assert rebuilt.slides(**ASK) == []
    rebuilt.reindex(**ASK)
    assert contents(rebuilt) == before
    assert list(rebuilt.verify(**ASK)) == []
    rebuilt.close()


def test_blobs_nobody_keeps_are_removed_after_a_day_and_not_before(archive: Archive, tmp_path: Path) -> None:
    stored = store_bytes(archive, make_instance())
    archive.delete(stored.study_instance_uid, reason="r", **ASK)
    assert archive.collect_garbage(**ASK) == 0
    later = datetime.now(UTC) + timedelta(hours=25)
    archive._core.clock = lambda: later
    assert archive.collect_garbage(**ASK) == 1
    assert not [p for p in (tmp_path / "store" / "blob").rglob("*") if p.is_file()]
    assert list(archive.verify(**ASK)) == []


def test_equal_content_revives_a_condemned_blob(archive: Archive) -> None:
    data = make_instance()
    stored = store_bytes(archive, data)
    archive.delete(stored.study_instance_uid, reason="r", **ASK)
    store_bytes(archive, data)
    later = datetime.now(UTC) + timedelta(hours=25)
    archive._core.clock = lambda: later
    assert archive.collect_garbage(**ASK) == 0
    assert list(archive.verify(**ASK)) == []


def test_garbage_collection_leaves_young_blobs_of_others_alone(archive: Archive) -> None:
    archive._core.storage.put_bytes("blob/ab/cd/" + "ab" * 32, b"being ingested")
    assert archive.collect_garbage(**ASK) == 0
    later = datetime.now(UTC) + timedelta(hours=25)
    archive._core.clock = lambda: later
    assert {f.kind for f in archive.verify(**ASK)} == {"orphan blob"}
    assert archive.collect_garbage(**ASK) == 1


def test_a_store_of_a_newer_release_is_refused(tmp_path: Path) -> None:
    open_archive(tmp_path).close()
    path = tmp_path / "store" / "store.json"
    path.chmod(0o600)
    path.write_text('{"store": 2}')
    with pytest.raises(StoreTooNew):
        open_archive(tmp_path)


def events(index: Index, code: str) -> list[dict[str, Any]]:
    with index.read():
        model = index.models.AuditEvent
        return [json.loads(e.event) for e in model.select().where(model.code == code).order_by(model.seq)]


def test_many_frame_reads_fold_to_one_event_a_window(archive: Archive) -> None:
    stored = store_bytes(archive, make_instance())
    uids = (stored.study_instance_uid, stored.series_instance_uid, stored.sop_instance_uid)
    for actor in ("anna", "bert"):
        ask = {"principal": Principal(actor, "dicomweb", "127.0.0.1"), "scope": EVERYTHING}
        instance = archive.instance(*uids, **ask)  # type: ignore[arg-type]
        for number in (1, 2, 3):
            archive.frame(instance, number, **ask)  # type: ignore[arg-type]
    assert archive.fold_access() == 0  # the window is not over
    archive._core.clock = lambda: datetime.now(UTC) + timedelta(minutes=10)
    assert archive.fold_access() == 2
    assert archive.fold_access() == 0
    folded = events(archive._core.index, "110103")
    assert [(e["actor"], e["study"], e["detail"]["count"]) for e in folded] == [
        ("anna", uids[0], 3), ("bert", uids[0], 3),
    ]  # fmt: skip


def test_a_closed_access_file_leaves_its_digest_in_the_trail(archive: Archive) -> None:
    stored = store_bytes(archive, make_instance())
    archive.metadata(
        archive.instance(
            stored.study_instance_uid, stored.series_instance_uid, stored.sop_instance_uid, **ASK
        ),
        **ASK,
    )
    archive._core.clock = lambda: datetime.now(UTC) + timedelta(hours=2)
    archive.fold_access()
    archive.fold_access()
    closed = [e for e in events(archive._core.index, "110100") if "access_file" in e.get("detail", {})]
    assert len(closed) == 1
    assert len(closed[0]["detail"]["sha256"]) == 64


def test_every_change_has_exactly_one_event(archive: Archive) -> None:
    filled(archive)
    index = archive._core.index
    with index.read():
        actions = [json.loads(e.event)["action"] for e in index.models.AuditEvent.select()]
        seqs = [e.seq for e in index.models.AuditEvent.select().order_by(index.models.AuditEvent.seq)]
    assert seqs == list(range(1, len(actions) + 1))
    # 6 stored first and 1 stored again, 1 replaced and 2 corrected, 2 deleted
    assert {a: actions.count(a) for a in set(actions)} == {"C": 6, "U": 3, "D": 2}
