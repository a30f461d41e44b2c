# SPDX-License-Identifier: Apache-2.0
"""Verify, recover, reindex, collect garbage (DESIGN 1.2, 4 Deletion)."""

import dataclasses
import hashlib
import os
from collections.abc import Callable, Iterator
from datetime import datetime
from functools import partial
from pathlib import Path

from pydicom.dataset import Dataset

from archive.access import Action, Principal, Scope
from archive.audit import (
    APPLICATION_ACTIVITY,
    AuditRecord,
)
from archive.core import LEASE_S, Core
from archive.errors import ArchiveError, Damaged, NotAllowed
from archive.indexing import MissingBlob, add_revision, extracts, index_record, remove_instance
from archive.journal import Entry, decode_entry
from archive.part10.dataset import read_header
from archive.part10.errors import Part10Error
from archive.part10.frame_table import FrameTable
from archive.prepare import describe_header
from archive.record import Record, blob_key, made_base_digest, read_record, record_key
from archive.retrieve import bulk_values
from archive.rows import Row, all_rows, find_row, microseconds
from archive.values import Finding

RECOVERY = Principal("coverslip", "recover")


def _system(core: Core, principal: Principal, scope: Scope, what: str) -> None:
    """These verbs touch everything, so they need the right and the whole scope."""
    core.check(principal, Action.OPERATE)
    if not scope.is_everything:
        core.refuse(principal, f"{what} from a limited scope")
        raise NotAllowed(what)


# ---- verify -------------------------------------------------------------------------


def verify(core: Core, *, principal: Principal, scope: Scope, repair: bool) -> Iterator[Finding]:
    """See ``Archive.verify``."""
    _system(core, principal, scope, "verify")

    def walk() -> Iterator[Finding]:
        found = 0
        for finding in _all_findings(core, repair):
            found += 1
            yield finding
        record = AuditRecord(
            APPLICATION_ACTIVITY,
            "E",
            principal,
            4 if found else 0,
            detail={"verify": True, "findings": found},
        )
        core.index.write(lambda: core.add_audit(record))

    return walk()


def _all_findings(core: Core, repair: bool) -> Iterator[Finding]:
    yield from _verify_blobs(core)
    records: dict[str, Record | None] = {}
    for row in all_rows(core):
        if row.record_key not in records:
            records.clear()  # rows come in the order they were stored: one record at a time
            try:
                records[row.record_key] = _checked_record(core, row.record_key)
            except ArchiveError as error:
                records[row.record_key] = None
                yield Finding("record", row.record_key, str(error))
        record = records[row.record_key]
        if record is not None:
            yield from _verify_row(core, row, record)
    yield from _unindexed(core, repair)
    yield from _orphans(core)


def _verify_blobs(core: Core) -> Iterator[Finding]:
    model, last = core.index.models.Blob, 0
    while True:
        with core.index.read():
            page = list(
                model.select(model.id, model.digest, model.size_bytes)
                .where((model.id > last) & (model.state != "gone"))
                .order_by(model.id)
                .limit(500)
                .tuples()
            )
        if not page:
            return
        for last, digest, size in page:  # noqa: B007 - the last id is where the next page begins
            name = bytes(digest).hex()
            try:
                with core.storage.open(blob_key(bytes(digest))) as file:
                    if file.size != size:
                        yield Finding("blob", name, f"{file.size} bytes instead of {size}")
                    elif _hash(file.pread, size) != bytes(digest):
                        yield Finding("blob", name, "the bytes differ from their digest")
            except ArchiveError as error:
                yield Finding("blob", name, str(error))


def _hash(pread: Callable[[int, int], bytes], size: int) -> bytes:
    digest, position = hashlib.sha256(), 0
    while position < size:
        piece = pread(position, min(1 << 20, size - position))
        if not piece:
            break
        digest.update(piece)
        position += len(piece)
    return digest.digest()


def _checked_record(core: Core, key: str) -> Record:
    with core.storage.open(key) as file:
        if record_key(_hash(file.pread, file.size)) != key:
            raise Damaged("the record differs from its digest")
        return read_record(file)


def _verify_row(core: Core, row: Row, record: Record) -> Iterator[Finding]:
    recorded = next((i for i in record.instances if i.sop_instance_uid == row.sop_instance_uid), None)
    if recorded is None:
        yield Finding("instance", row.sop_instance_uid, "its record does not name it")
        return
    if recorded.base_digest != row.base_digest:
        yield Finding("instance", row.sop_instance_uid, "the index has another base digest than the record")
    if recorded.table[1]:
        with core.storage.open(row.record_key) as file:
            table = file.pread(recorded.table[0], recorded.table[1])
            header = file.pread(recorded.header[0], recorded.header[1])
        try:
            FrameTable.from_bytes(table)
        except Part10Error as error:
            yield Finding("frame table", row.sop_instance_uid, str(error))
        if (
            recorded.base != "file"
            and made_base_digest(header, table, recorded.blobs) != recorded.base_digest
        ):
            yield Finding("instance", row.sop_instance_uid, "the base differs from its digest")
    for text in recorded.findings:
        yield Finding("as received", row.sop_instance_uid, text)


def _unindexed(core: Core, repair: bool) -> Iterator[Finding]:
    """Records that the index does not know: left by a kill before the commit."""
    journal = _Journal(core)
    for key in _unknown_records(core):
        try:
            pending = _pending(core, key, journal)
        except ArchiveError as error:
            yield Finding("record", key, str(error))
            continue
        if pending is not None:
            repaired = repair and _complete(core, key, *pending)
            yield Finding("unindexed record", key, "durable, but not in the index", repaired)


def _orphans(core: Core) -> Iterator[Finding]:
    for key in _orphan_blobs(core):
        yield Finding("orphan blob", key.rpartition("/")[2], "nothing refers to it; removed after a day")


# ---- recover ------------------------------------------------------------------------


def writer_mark(run_dir: Path) -> Path:
    """A file per process that may write, removed when it ends in order: what a killed
    one leaves tells the next start to look for unfinished ingests."""
    folder = run_dir / "writers"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{os.getpid()}-{process_start(os.getpid())}"
    path.touch()
    return path


def process_start(pid: int) -> str:
    """When a process began, in the kernel's ticks: tells a reused id from the old one."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return "0"


def _alive(name: str) -> bool:
    pid, _, start = name.partition("-")
    return pid.isdigit() and Path(f"/proc/{pid}").exists() and process_start(int(pid)) == start


def recover(core: Core, *, everything: bool = False) -> list[Finding]:
    """See ``Archive.recover``."""
    folder = core.run_dir / "writers"
    stale = [p for p in folder.iterdir() if not _alive(p.name)] if folder.is_dir() else []
    findings: list[Finding] = []
    core.index.sequence()
    core.spool.sweep(lambda pid: Path(f"/proc/{pid}").exists())
    if stale or everything:
        # The journal first: what gave way to a replacement makes room for it.
        findings.extend(_replay_journal(core))
        journal = _Journal(core)
        for key in list(_unknown_records(core)):
            try:
                pending = _pending(core, key, journal)
                if pending is not None:
                    done = _complete(core, key, *pending)
                    findings.append(
                        Finding("unindexed record", key, "left by a process that was killed", done)
                    )
            except ArchiveError as error:
                findings.append(Finding("record", key, str(error)))
    for path in stale:
        path.unlink(missing_ok=True)
    return findings


class _Journal:
    """All entries, read once. ``ended``: (record, SOP Instance UID) -> the entry that
    deleted or replaced it."""

    def __init__(self, core: Core) -> None:
        self.entries: list[Entry] = []
        for key in core.storage.keys("journal/"):
            with core.storage.open(key) as file:
                self.entries.append(decode_entry(file.pread(0, file.size)))
        self.ended = {
            (target.record, target.sop_instance_uid): entry
            for entry in self.entries
            for target in entry.targets
        }


def _pending(core: Core, key: str, journal: _Journal) -> tuple[Record, list[Dataset]] | None:
    """What of a record should be in the index and is not; None if nothing is missing."""
    with core.storage.open(key) as file:
        record = read_record(file)
        keep = tuple(
            i
            for i in record.instances
            if (key, i.sop_instance_uid) not in journal.ended and find_row(core, i.sop_instance_uid) is None
        )
        datasets = [_dataset(file.pread(*i.header)) for i in keep]
    return (dataclasses.replace(record, instances=keep), datasets) if keep else None


def _complete(core: Core, key: str, record: Record, datasets: list[Dataset]) -> bool:
    """Index a durable record that no commit followed; False if a blob of it is missing."""
    found = extracts(record, datasets)

    def commit() -> None:
        index_record(core, key, record, found, datetime.fromisoformat(record.time))
        for item in record.instances:
            core.add_change(
                "stored", item.study_instance_uid, item.series_instance_uid, item.sop_instance_uid
            )
        detail: dict[str, object] = {"recovered": len(record.instances), "record": key}
        study = record.instances[0].study_instance_uid
        core.add_audit(AuditRecord(APPLICATION_ACTIVITY, "E", RECOVERY, 0, study, detail=detail))

    try:
        core.index.write(commit)
    except MissingBlob:
        return False
    return True


def _dataset(header: bytes) -> Dataset:
    return read_header(header)


def _unknown_records(core: Core) -> Iterator[str]:
    """Keys of records that no instance in the index comes from."""
    instance = core.index.models.Instance
    with core.index.read():
        known = {r[0] for r in instance.select(instance.base_record_key).distinct().tuples()}
    return (key for key in core.storage.keys("record/") if key not in known)


def _replay_journal(core: Core) -> Iterator[Finding]:
    """Carry out entries that no commit followed."""
    for entry in _Journal(core).entries:
        if apply_entry(core, entry):
            yield Finding("journal", entry.key, f"{entry.action} completed", True)


def apply_entry(core: Core, entry: Entry) -> bool:
    """Bring the index to what an entry says; False when it is there already."""
    rows: list[Row] = []
    for target in entry.targets:
        row = find_row(core, target.sop_instance_uid)
        if row is not None and row.record_key == target.record:
            rows.append(row)
    revisions = []
    for revision in entry.revisions:
        row = find_row(core, revision.target.sop_instance_uid)
        if row is not None and row.record_key == revision.target.record and row.revision < revision.revision:
            with core.storage.open(blob_key(revision.blob.digest)) as file:
                header = file.pread(0, revision.header_length)
            revisions.append((row, revision, describe_header(header, core.limits.parse, bulk_values(row))))
    if not rows and not revisions:
        return False

    def commit() -> None:
        for row in rows:
            remove_instance(
                core, row, tombstone=entry.action == "delete", time=entry.time, reason=entry.reason
            )
            if entry.action == "delete":
                core.add_change(
                    "deleted", row.study_instance_uid, row.series_instance_uid, row.sop_instance_uid
                )
        for row, revision, described in revisions:
            add_revision(core, row, revision, described, reason=entry.reason, time=entry.time)
            core.add_change(
                "corrected", row.study_instance_uid, row.series_instance_uid, row.sop_instance_uid
            )

    core.index.write(commit)
    return True


# ---- reindex ------------------------------------------------------------------------


def reindex(core: Core, *, principal: Principal, scope: Scope) -> int:
    """See ``Archive.reindex``."""
    _system(core, principal, scope, "reindex")
    core.index.write(lambda: _empty(core))
    journal = _Journal(core)
    records = []
    for key in core.storage.keys("record/"):
        with core.storage.open(key) as file:
            records.append((read_record(file).time, key))
    stored = 0
    for time, key in sorted(records):
        pending = _pending(core, key, journal)
        if pending is not None:
            record, datasets = pending
            found = extracts(record, datasets)
            core.index.write(partial(index_record, core, key, record, found, datetime.fromisoformat(time)))
            stored += len(datasets)
        _tombstones(core, key, journal)
    for entry in journal.entries:
        if entry.action == "correct":
            apply_entry(core, entry)
    detail: dict[str, object] = {"reindex": True, "instances": stored}
    core.index.write(
        lambda: core.add_audit(AuditRecord(APPLICATION_ACTIVITY, "E", principal, 0, detail=detail))
    )
    return stored


def _tombstones(core: Core, key: str, journal: _Journal) -> None:
    """Remember what of a record was deleted, unless it was stored again since."""
    with core.storage.open(key) as file:
        record = read_record(file)
    for item in record.instances:
        entry = journal.ended.get((key, item.sop_instance_uid))
        if entry is None or entry.action != "delete":
            continue
        core.index.write(
            partial(
                core.index.models.Tombstone.create,
                level="instance",
                study_instance_uid=item.study_instance_uid,
                series_instance_uid=item.series_instance_uid,
                sop_instance_uid=item.sop_instance_uid,
                reason=entry.reason,
                time=microseconds(entry.time),
            )
        )


def _empty(core: Core) -> None:
    """Forget what storage can tell again."""
    m = core.index.models
    for model in (
        m.Attribute,
        m.InstanceBlob,
        m.HeaderRevision,
        m.Derivative,
        m.Instance,
        m.Series,
        m.Study,
        m.Original,
        m.Tombstone,
    ):
        model.delete().execute()
    m.BlobRef.delete().where(m.BlobRef.owner_kind != "quarantine").execute()


# ---- garbage ------------------------------------------------------------------------


def collect_garbage(core: Core, *, principal: Principal, scope: Scope) -> int:
    """See ``Archive.collect_garbage``."""
    _system(core, principal, scope, "collect garbage")
    model = core.index.models.Blob
    before = core.now_us() - LEASE_S * 1_000_000
    removed = 0
    while True:

        def commit() -> int:
            # Under the write lock: nobody can revive a blob between the look and the removal.
            rows = list(
                model.select().where((model.state == "condemned") & (model.condemned_at < before)).limit(50)
            )
            for row in rows:
                core.storage.delete(blob_key(bytes(row.digest)))
                model.update(state="gone").where(model.id == row.id).execute()
            return len(rows)

        count = core.index.write(commit)
        removed += count
        if count == 0:
            break
    for key in list(_orphan_blobs(core)):

        def remove(key: str = key) -> int:
            digest = bytes.fromhex(key.rpartition("/")[2])
            if model.select().where((model.digest == digest) & (model.state != "gone")).exists():
                return 0
            core.storage.delete(key)
            return 1

        removed += core.index.write(remove)
    if removed:
        record = AuditRecord(APPLICATION_ACTIVITY, "D", principal, 0, detail={"blobs_removed": removed})
        core.index.write(lambda: core.add_audit(record))
    return removed


def _orphan_blobs(core: Core) -> Iterator[str]:
    """Blobs older than the lease that the index does not know."""
    model = core.index.models.Blob
    limit = core.clock().timestamp() - LEASE_S
    for key in core.storage.keys("blob/"):
        digest = bytes.fromhex(key.rpartition("/")[2])
        with core.index.read():
            known = model.select().where((model.digest == digest) & (model.state != "gone")).exists()
        if not known and core.storage.modified(key) < limit:
            yield key
