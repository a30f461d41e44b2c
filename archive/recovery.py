# SPDX-License-Identifier: Apache-2.0
"""The index from storage: finishing what a killed process left, or all of it anew.

Records say what came, the journal what was done to it afterwards
(docs/storage-format.md).
"""

import contextlib
import dataclasses
import logging
import time as clock
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from functools import partial

from pydicom.dataset import Dataset

from archive import non_patient_recovery
from archive.access import Principal, Scope
from archive.audit import APPLICATION_ACTIVITY, AuditRecord
from archive.core import LEASE_S, Core
from archive.errors import ArchiveError, Changed
from archive.history import RECOVERY, Journal
from archive.indexing import (
    MissingBlob,
    add_revision,
    execute,
    extracts,
    index_record,
    refer,
    remove_instance,
)
from archive.journal import RECOMPRESS, REJECT, TOMBSTONED, Entry, Move
from archive.moving import held, move_blob
from archive.part10.dataset import read_header
from archive.prepare import describe_header
from archive.processes import is_gone, stale_marks
from archive.readmission import complete as complete_readmissions
from archive.record import BlobRef, Record, RecordedInstance, blob_key, read_record
from archive.retrieve import bulk_values
from archive.rows import Row, find_row, microseconds
from archive.values import Finding

_TRIES = 5
REINDEXING = "reindexing"  # setting: a reindex began and has not ended

log = logging.getLogger(__name__)


# ---- recover ------------------------------------------------------------------------


def recover(core: Core, *, everything: bool) -> list[Finding]:
    """See ``Archive.recover``."""
    findings: list[Finding] = []
    core.index.sequence()
    _sweep(core)
    if core.setting(REINDEXING):
        count = rebuild(core, RECOVERY)
        return [Finding("index", "reindex", f"was killed and has been done again: {count} instances", True)]
    stale = stale_marks(core.run_dir)
    done = not (stale or everything)
    for _ in range(0 if done else _TRIES):
        journal = Journal(core)
        try:
            findings.extend(f for f in journal.findings() if f not in findings)
            for finding in _completed(core, journal):
                findings.append(finding)
            done = True
            break
        except Changed:  # others have written to the journal: what it says now
            continue
    if not done:
        log.warning("the journal changes too fast to be gone through; what was left is seen to later")
    for path in stale if done else ():
        if is_gone(path.name) or path.stat().st_mtime < clock.time() - LEASE_S:
            path.unlink(missing_ok=True)
    return findings


def _completed(core: Core, journal: Journal) -> Iterator[Finding]:
    """What was left undone, as it is done. Raises Changed."""
    # The journal first: what gave way to a replacement makes room for it.
    for entry in journal.entries:
        if apply_entry(core, entry, journal):
            yield Finding("journal", entry.key, f"{entry.action} completed", True)
    yield from _complete_moves(core, journal)
    yield from complete_readmissions(core, journal)
    yield from non_patient_recovery.complete(core, journal)
    yield from unindexed(core, journal, repair=True)


def _sweep(core: Core) -> None:
    """Remove spool files and unfinished objects of processes that are gone; of those in
    another name space only what is older than a lease."""
    old = clock.time() - LEASE_S
    for path in core.spool.folder.iterdir():
        if path.is_file() and (is_gone(path.name) or path.stat().st_mtime < old):
            path.unlink(missing_ok=True)
    core.storage.sweep(LEASE_S)


def unindexed(core: Core, journal: Journal, *, repair: bool) -> Iterator[Finding]:
    """Durable records that the index does not know: left by a kill before the commit."""
    instance = core.index.models.Instance
    with core.index.read():
        known = {r[0] for r in instance.select(instance.base_record_key).distinct().tuples()}
    for key in core.storage.keys("record/"):
        if key in known:
            continue
        try:
            pending = _pending(core, key, journal, deleted_here=True)
            if pending is None:
                continue
            if journal.broken:
                yield Finding("unindexed record", key, "left alone: an entry of the journal is broken")
                continue
            repaired = repair and _complete(core, key, *pending, journal.packed(core, key))
            yield Finding("unindexed record", key, "durable, but not in the index", repaired)
        except ArchiveError as error:
            yield Finding("record", key, str(error))


def _pending(
    core: Core, key: str, journal: Journal, *, deleted_here: bool
) -> tuple[Record, list[Dataset]] | None:
    """What of a record should be in the index and is not; None if nothing is missing.
    ``deleted_here``: the index' own tombstones count too."""
    with core.storage.open(key) as file:
        record = read_record(file)
        keep = tuple(
            i
            for i in record.instances
            if (key, i.sop_instance_uid) not in journal.ended
            and find_row(core, i.sop_instance_uid) is None
            and not (deleted_here and _tombstoned(core, i.sop_instance_uid, record.time))
        )
        datasets = [read_header(file.pread(*i.header)) for i in keep]
    return (dataclasses.replace(record, instances=keep), datasets) if keep else None


def _tombstoned(core: Core, sop: str, stored: str) -> bool:
    """Whether the index says that it was deleted after it was stored."""
    since = microseconds(datetime.fromisoformat(stored))
    with core.index.read():
        found = execute(core, "SELECT 1 FROM tombstone WHERE sop_instance_uid = ? AND time >= ?", sop, since)
        return found.fetchone() is not None


def _complete(
    core: Core,
    key: str,
    record: Record,
    datasets: list[Dataset],
    packed: Mapping[tuple[str, int], BlobRef],
) -> bool:
    """Index a durable record that no commit followed; False if a blob of it is missing."""
    found = extracts(core, record, datasets)

    def commit() -> None:
        index_record(core, key, record, found, datetime.fromisoformat(record.time), packed)
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


def apply_entry(core: Core, entry: Entry, journal: Journal) -> bool:
    """Bring the index to what an entry says, unless a later one says otherwise; False when
    it is there already. Raises Changed."""
    rows: list[Row] = []
    for target in entry.targets:
        if journal.ended.get((target.record, target.sop_instance_uid)) is not entry:
            continue
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
        if rows:
            journal.still_holds(core)
        for row in rows:
            remove_instance(
                core,
                row,
                tombstone=entry.action in TOMBSTONED,
                time=entry.time,
                reason=entry.reason,
                keep=entry.action == REJECT,
                pointer=entry.pointer,
            )
            if entry.action in TOMBSTONED:
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


def _complete_moves(core: Core, journal: Journal) -> Iterator[Finding]:
    """Bring instances to the form of their blobs that the journal says last."""
    for record, places in journal.moves.items():
        for (sop, position), (entry, move) in places.items():
            row = find_row(core, sop)
            pack = entry.action == RECOMPRESS
            there = move.blob if pack else move.packed
            if (
                row is None
                or row.record_key != record
                or row.blob_keys[position : position + 1] != (blob_key(there.digest),)
            ):
                continue
            try:
                done = core.index.write(partial(_move, core, row, entry, move))
            except MissingBlob as error:
                yield Finding("journal", entry.key, f"{entry.action} cannot be completed: {error}")
                continue
            if done:
                yield Finding("journal", entry.key, f"{entry.action} completed", True)


def _move(core: Core, row: Row, entry: Entry, move: Move) -> bool:
    pack = entry.action == RECOMPRESS
    if pack and held(core, row.id):
        return False
    move_blob(core, row.id, move, pack=pack, time=entry.time)
    core.add_change(
        "recompressed" if pack else "expanded",
        row.study_instance_uid,
        row.series_instance_uid,
        row.sop_instance_uid,
    )
    detail: dict[str, object] = {"recovered": 1, "action": entry.action}
    core.add_audit(AuditRecord(APPLICATION_ACTIVITY, "E", RECOVERY, 0, row.study_instance_uid, detail=detail))
    return True


# ---- reindex ------------------------------------------------------------------------


def reindex(core: Core, *, principal: Principal, scope: Scope) -> int:
    """See ``Archive.reindex``."""
    core.operate(principal, scope, "reindex")
    return rebuild(core, principal)


def rebuild(core: Core, principal: Principal) -> int:
    """Forget the index and read it from storage; killed, it is begun anew by recover."""
    journal = Journal(core)
    for key, reason in journal.broken.items():
        log.error("%s: %s", key, reason)

    def begin() -> None:
        core.put_setting(REINDEXING, True)
        _empty(core)

    core.index.write(begin)
    records = []
    for key in core.storage.keys("record/"):
        with core.storage.open(key) as file:
            records.append((read_record(file).time, key))
    stored = 0
    for time, key in sorted(records):
        pending = _pending(core, key, journal, deleted_here=False)
        if pending is not None:
            record, datasets = pending
            found = extracts(core, record, datasets)
            packed, when = journal.packed(core, key), datetime.fromisoformat(time)
            core.index.write(partial(index_record, core, key, record, found, when, packed))
            stored += len(datasets)
        _tombstones(core, key, journal)
    for entry in journal.entries:
        if entry.action == "correct":
            apply_entry(core, entry, journal)
    for finding in non_patient_recovery.complete(core, journal):
        if not finding.repaired:
            log.error("%s: %s", finding.subject, finding.detail)

    latest = max((entry.time for entry in journal.entries), default=None)

    def end() -> None:
        if latest is not None:
            core.note_journal_time(latest)
        execute(
            core,
            "UPDATE blob SET state = 'condemned', condemned_at = ? WHERE state = 'live' "
            "AND NOT EXISTS (SELECT 1 FROM blob_ref r WHERE r.blob_id = blob.id)",
            core.now_us(),
        )
        core.put_setting(REINDEXING, False)
        core.put_setting("matching_keys", dict(core.index.wanted_keys))
        detail: dict[str, object] = {"reindex": True, "instances": stored}
        core.add_audit(AuditRecord(APPLICATION_ACTIVITY, "E", principal, 0, detail=detail))

    core.index.write(end)
    return stored


def _tombstones(core: Core, key: str, journal: Journal) -> None:
    """Remember what of a record was deleted, unless it was stored again since."""
    with core.storage.open(key) as file:
        record = read_record(file)
    for item in record.instances:
        entry = journal.ended.get((key, item.sop_instance_uid))
        if entry is None or entry.action not in TOMBSTONED:
            continue
        kept = _kept(core, journal, key, record, item) if entry.action == REJECT else []
        core.index.write(partial(_tombstone, core, item, entry, kept))


def _kept(core: Core, journal: Journal, key: str, record: Record, item: RecordedInstance) -> list[BlobRef]:
    """All blobs that a rejected instance would need to come back."""
    packed = journal.packed(core, key)
    uid = item.sop_instance_uid
    found = [packed.get((uid, position), ref) for position, ref in enumerate(item.blobs)]
    if record.original is not None:
        found += [ref for _, ref in record.original.files]
    return found + [revision.blob for _, revision in journal.revisions.get((key, uid), ())]


def _tombstone(core: Core, item: RecordedInstance, entry: Entry, kept: Iterable[BlobRef]) -> None:
    stone = core.index.models.Tombstone.create(
        level="instance",
        study_instance_uid=item.study_instance_uid,
        series_instance_uid=item.series_instance_uid,
        sop_instance_uid=item.sop_instance_uid,
        pointer=entry.pointer,
        reason=entry.reason,
        time=microseconds(entry.time),
    )
    for ref in kept:
        with contextlib.suppress(MissingBlob):  # verify tells of it
            refer(core, ref, "tombstone", stone.id, entry.time)


def _empty(core: Core) -> None:
    """Forget what storage can tell again."""
    m = core.index.models
    for model in (
        m.Attribute,
        m.NameSound,
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
    non_patient_recovery.forget_all(core)
    m.BlobRef.delete().where(m.BlobRef.owner_kind != "quarantine").execute()
