# SPDX-License-Identifier: Apache-2.0
"""Verify: everything in storage against its digest, and the index against storage."""

import hashlib
from collections.abc import Callable, Iterator, Mapping

from archive import non_patient_recovery
from archive.access import EVERYTHING, Principal, Scope
from archive.audit import APPLICATION_ACTIVITY, AuditRecord
from archive.blobs import open_packed
from archive.core import Core
from archive.errors import ArchiveError, Damaged
from archive.garbage import orphan_blobs
from archive.history import Journal
from archive.indexing import execute, extract
from archive.journal import TOMBSTONED
from archive.part10.dataset import read_header
from archive.part10.errors import Part10Error
from archive.part10.frame_table import FrameTable
from archive.record import Record, blob_key, made_base_digest, read_record, record_key
from archive.recovery import unindexed
from archive.retrieve import digest_of
from archive.rows import Row, all_rows, find_row, rows_below
from archive.values import Finding


def verify(core: Core, *, principal: Principal, scope: Scope, repair: bool) -> Iterator[Finding]:
    """See ``Archive.verify``."""
    core.operate(principal, scope, "verify")

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
            yield from _verify_recompressed(core, row, record)
        yield from _verify_columns(core, row)
    yield from _verify_studies(core)
    journal = Journal(core)
    yield from journal.findings()
    yield from _verify_tombstones(core, journal)
    yield from _verify_moves(core, journal)
    yield from unindexed(core, journal, repair=repair)
    yield from _verify_readmitted(core, journal)
    yield from non_patient_recovery.verify(core, journal)
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


def _verify_recompressed(core: Core, row: Row, record: Record) -> Iterator[Finding]:
    """The blobs that an instance came with, rebuilt from what holds them now."""
    recorded = next((i for i in record.instances if i.sop_instance_uid == row.sop_instance_uid), None)
    for position, first in enumerate(row.unpacked):
        if first is None:
            continue
        if recorded is None or recorded.blobs[position : position + 1] != (first,):
            yield Finding("recompressed", row.sop_instance_uid, "stands for a blob that its record lacks")
            continue
        try:
            if digest_of(open_packed(core, row, position).chunks_ahead()) != first.digest:
                yield Finding("recompressed", row.sop_instance_uid, "the base does not come back as it came")
        except ArchiveError as error:
            yield Finding("recompressed", row.sop_instance_uid, str(error))


def _verify_columns(core: Core, row: Row) -> Iterator[Finding]:
    """The index' row of an instance against its current header, and its revisions."""
    key, offset, length = row.header
    try:
        with core.storage.open(key) as file:
            expected = extract(
                read_header(file.pread(offset, length)), has_pixel_data=row.has_pixel_data
            ).instance
    except (ArchiveError, Part10Error) as error:
        yield Finding("header", row.sop_instance_uid, str(error))
        return
    with core.index.read():
        model = core.index.models.Instance
        (actual,) = model.select().where(model.id == row.id).dicts()
        chain = execute(
            core, "SELECT count(*), max(revision) FROM header_revision WHERE instance_id = ?", row.id
        ).fetchone()
    differing = sorted(name for name, value in expected.items() if actual[name] != value)
    if differing:
        yield Finding("index", row.sop_instance_uid, f"differs from the header in {', '.join(differing)}")
    if tuple(chain) != (row.revision + 1, row.revision):
        yield Finding("index", row.sop_instance_uid, "its header revisions are not complete")


def _verify_studies(core: Core) -> Iterator[Finding]:
    """A study's columns are those of one of its instances' headers."""
    study, last = core.index.models.Study, 0
    while True:
        with core.index.read():
            page = list(study.select().where(study.id > last).order_by(study.id).limit(200).dicts())
        if not page:
            return
        for actual in page:
            last = actual["id"]
            uid = actual["study_instance_uid"]
            rows = (row for rows in rows_below(core, uid, "", EVERYTHING) for row in rows)
            if not any(_explains(core, row, actual) for row in rows):
                yield Finding("index", uid, "the study's attributes are those of none of its instances")


def _explains(core: Core, row: Row, study: Mapping[str, object]) -> bool:
    key, offset, length = row.header
    try:
        with core.storage.open(key) as file:
            found = extract(read_header(file.pread(offset, length)), has_pixel_data=row.has_pixel_data).study
    except (ArchiveError, Part10Error):
        return True  # told where the instance itself is checked
    return all(study[name] == value for name, value in found.items())


def _verify_tombstones(core: Core, journal: Journal) -> Iterator[Finding]:
    """What the index says was deleted, the journal must say too."""
    told = {t.sop_instance_uid for e in journal.entries if e.action in TOMBSTONED for t in e.targets}
    stone = core.index.models.Tombstone
    with core.index.read():
        deleted = [r[0] for r in stone.select(stone.sop_instance_uid).tuples()]
    for sop in deleted:
        if sop not in told:
            yield Finding("journal", sop, "was deleted, but no entry of the journal says so")


def _verify_readmitted(core: Core, journal: Journal) -> Iterator[Finding]:
    """What the journal says was taken back, the index must have."""
    for _, sop in sorted(journal.readmitted):
        if find_row(core, sop) is None:
            yield Finding("journal", sop, "was readmitted, but is not in the index")


def _verify_moves(core: Core, journal: Journal) -> Iterator[Finding]:
    """What the index says is stored recompressed, the journal must say too."""
    with core.index.read():
        rows = execute(
            core,
            "SELECT i.base_record_key, i.sop_instance_uid, l.position, b.digest FROM instance_blob l "
            "JOIN instance i ON i.id = l.instance_id JOIN blob b ON b.id = l.blob_id "
            "WHERE l.unpacked_digest IS NOT NULL ORDER BY i.id",
        ).fetchall()
    for record, sop, position, digest in rows:
        told = journal.moves.get(record, {}).get((sop, position))
        if told is None or told[1].packed.digest != bytes(digest):
            yield Finding("journal", sop, "is stored recompressed, but no entry of the journal says so")


def _orphans(core: Core) -> Iterator[Finding]:
    for key in orphan_blobs(core):
        yield Finding("orphan blob", key.rpartition("/")[2], "nothing refers to it; removed after a day")
