# SPDX-License-Identifier: Apache-2.0
"""Storing: blobs, then the record, then one transaction, then the answer.

DESIGN 1.2 and 4. What happens when the same SOP Instance UID comes again is decided by
:func:`decide`; the bytes are not compared, since senders rewrite them.
"""

import contextlib
import hashlib
import json
import logging
import os
import uuid
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path

from pydicom.dataset import Dataset

from archive import prepare, work
from archive.access import Action, Principal, Scope
from archive.audit import IMPORT, INSTANCES_TRANSFERRED, SECURITY_ALERT, AuditRecord
from archive.blobs import open_blobs
from archive.core import Core
from archive.errors import (
    ArchiveError,
    Busy,
    DuplicateInstance,
    NotAllowed,
    Rejected,
    StorageFull,
    StoreTooNew,
    StoreWarning,
    StudyMismatch,
)
from archive.indexing import (
    MissingBlob,
    execute,
    extracts,
    index_record,
    keep_pixel_digest,
    remove_instance,
    took_effect,
)
from archive.journal import Target, encode_entry, new_entry
from archive.part10.digest import pixel_digest
from archive.part10.frame_table import FrameTable
from archive.part10.scan import OTHER_SOP_CLASS
from archive.prepare import Prepared, frame_pieces
from archive.record import (
    BlobRef,
    Record,
    RecordedInstance,
    RecordedOriginal,
    blob_key,
    encode_record,
    record_key,
)
from archive.rejected import rejected_before
from archive.rows import Row, find_row, rows_of_original, study_visible
from archive.storage.base import Storage
from archive.values import NewSlide, Outcome, Sender, StagedFile, Stored

log = logging.getLogger(__name__)


class _Again(Exception):
    """Something moved between looking and committing: look again."""


def store_file(
    core: Core,
    staged: StagedFile,
    *,
    principal: Principal,
    scope: Scope,
    sender: Sender,
    study_instance_uid: str = "",
    replace: bool = False,
    look: Callable[[Dataset], None] | None = None,
) -> Stored:
    """See ``Archive.store_file``. ``look`` sees the data set before anything of it is
    stored, and may refuse it."""
    prepared: Prepared | None = None
    try:
        core.check(principal, Action.REPLACE if replace else Action.STORE)
        prepared = prepare.from_file(staged, core.spool, core.limits.parse)
        found = prepared.recorded
        if study_instance_uid and found.study_instance_uid != study_instance_uid:
            raise StudyMismatch(study_instance_uid, found.study_instance_uid)
        if look is not None:
            look(prepared.dataset)
        return _store(core, [prepared], None, principal, scope, sender, replace)[0]
    except NotAllowed:
        raise  # audited where it was decided
    except ArchiveError as error:
        core.refuse(principal, f"{type(error).__name__} at store")
        raise
    finally:
        staged.path.unlink(missing_ok=True)
        _discard([] if prepared is None else [prepared])


def store_slide(
    core: Core, slide: NewSlide, *, principal: Principal, scope: Scope, sender: Sender
) -> list[Stored]:
    """See ``Archive.store_slide``."""
    prepared: list[Prepared] = []
    try:
        core.check(principal, Action.STORE)
        prepared.extend(prepare.made(i, core.spool, core.limits.parse) for i in slide.instances)
        return _store(core, prepared, slide, principal, scope, sender, False)
    finally:
        for _, staged in slide.original.files:
            staged.path.unlink(missing_ok=True)
        _discard(prepared)


def _discard(prepared: Sequence[Prepared]) -> None:
    """Remove what is still in the spool: nothing of it was stored, or all of it was."""
    for item in prepared:
        for _, source in item.blobs:
            if not isinstance(source, bytes):
                source.path.unlink(missing_ok=True)


def _store(
    core: Core,
    prepared: Sequence[Prepared],
    slide: NewSlide | None,
    principal: Principal,
    scope: Scope,
    sender: Sender,
    replace: bool,
) -> list[Stored]:
    for item in prepared:
        if not study_visible(core, item.dataset, scope):
            core.refuse(principal, "store into a hidden study")
            raise NotAllowed("store into this study")
    for _ in range(5):
        try:
            return _try_store(core, prepared, slide, principal, sender, scope, replace)
        except _Again:
            continue
    raise Busy("the same instance is being stored by others; try again")


def _try_store(
    core: Core,
    prepared: Sequence[Prepared],
    slide: NewSlide | None,
    principal: Principal,
    sender: Sender,
    scope: Scope,
    replace: bool,
) -> list[Stored]:
    now = core.clock()
    answers: dict[str, Outcome] = {}
    replaced: list[Row] = []
    keep: list[Prepared] = []
    for item in prepared:
        uid = item.recorded.sop_instance_uid
        row = find_row(core, uid)
        if row is None:
            if reason := rejected_before(core, uid):
                raise Rejected(uid, reason)
            answers[uid] = Outcome.STORED
        elif not study_visible(core, item.dataset, scope, row=row):
            core.refuse(principal, "store over an instance of a hidden study")
            raise NotAllowed("store over an instance of another study")
        elif replace:
            replaced.append(row)
            answers[uid] = Outcome.REPLACED
        else:
            answers[uid] = decide(core, row, item, sender)
        if answers[uid] in (Outcome.STORED, Outcome.REPLACED):
            keep.append(item)
        elif answers[uid] is Outcome.KEPT_FIRST:
            _keep_for_operator(core, item, "same pixels, other header: the first is kept", sender)
    if not keep:
        core.index.write(lambda: _note_again(core, principal, prepared, answers))
        return [_stored(i.recorded, answers[i.recorded.sop_instance_uid]) for i in prepared]

    for ref, source in _blobs(keep, slide):
        put_blob(core, ref, source)
    data, record = _record(keep, slide, sender, now)
    key = record_key(hashlib.sha256(data).digest())
    core.storage.put_bytes(key, data)
    entry = None
    if replaced:
        entry = new_entry(
            "replace",
            principal.actor,
            "replaced",
            targets=[Target(r.record_key, r.sop_instance_uid) for r in replaced],
            time=core.journal_time(),
        )
        core.storage.put_bytes(entry.key, encode_entry(entry))

    found = extracts(core, record, [item.dataset for item in keep])

    def commit() -> None:
        for row in replaced:
            if execute(core, "SELECT 1 FROM instance WHERE id = ?", row.id).fetchone() is None:
                raise _Again
            remove_instance(core, row, tombstone=False, time=now)
        for item in keep:
            uid = item.recorded.sop_instance_uid
            known = execute(core, "SELECT 1 FROM instance WHERE sop_instance_uid = ?", uid).fetchone()
            if known or rejected_before(core, uid):  # by others, since it was looked for
                raise _Again
        if entry is not None:
            core.note_journal_time(entry.time)
        index_record(core, key, record, found, now)
        for item in keep:
            uid = item.recorded.sop_instance_uid
            core.add_change(
                "replaced" if answers[uid] is Outcome.REPLACED else "stored",
                item.recorded.study_instance_uid,
                item.recorded.series_instance_uid,
                uid,
            )
        for study in sorted({i.recorded.study_instance_uid for i in keep}):
            members = [i for i in keep if i.recorded.study_instance_uid == study]
            detail: dict[str, object] = {
                "number_of_instances": len(members),
                "sop_classes": sorted({i.recorded.sop_class_uid for i in members}),
                "sender": sender.name,
                "digests": [i.recorded.base_digest.hex() for i in members],
            }
            if slide is not None:
                detail["original"] = slide.original.digest.hex()
            core.add_audit(
                AuditRecord(
                    IMPORT if slide is not None else INSTANCES_TRANSFERRED,
                    "U" if replace else "C",
                    principal,
                    0,
                    study,
                    "",
                    detail,
                )
            )

    try:
        core.index.write(commit)
    except Exception as error:  # whatever it is: what no commit followed is taken back
        if entry is not None and not took_effect(core, entry):
            core.storage.delete(entry.key)
        core.index.exclusively(partial(_withdraw, core, key))
        if isinstance(error, _Again | MissingBlob):
            raise _Again from None
        raise
    return [_stored(i.recorded, answers[i.recorded.sop_instance_uid]) for i in prepared]


def _withdraw(core: Core, key: str) -> None:
    """Remove a record whose commit failed, unless recovery has indexed it meanwhile."""
    if execute(core, "SELECT 1 FROM instance WHERE base_record_key = ?", key).fetchone() is None:
        core.storage.delete(key)


def decide(core: Core, row: Row, item: Prepared, sender: Sender) -> Outcome:
    """What to do with an instance whose UID is stored already (DESIGN 4).

    Raises DuplicateInstance, after keeping the bytes in quarantine, when pixels differ.
    """
    stored = row.dataset_digests
    if _pixels_of(core, item) != pixels_of_row(core, row):
        _keep_for_operator(core, item, "the same SOP Instance UID with other pixels", sender)
        raise DuplicateInstance(row.sop_instance_uid)
    if item.recorded.dataset_digest in stored:
        return Outcome.ALREADY
    return Outcome.KEPT_FIRST


def _pixels_of(core: Core, item: Prepared) -> bytes:
    known = item.recorded.pixel_digest
    if known is not None:
        return known
    if not item.sections.table:
        return b""
    with contextlib.ExitStack() as stack:

        def reader(ref: BlobRef, source: StagedFile | bytes) -> Callable[[int, int], bytes]:
            if isinstance(source, bytes):
                return lambda offset, length: source[offset : offset + length]
            try:
                file = stack.enter_context(source.path.open("rb", buffering=0))
            except FileNotFoundError:  # an earlier try has moved it into the store
                return core.files.get(blob_key(ref.digest)).pread
            return lambda offset, length: os.pread(file.fileno(), length, offset)

        readers = [reader(ref, source) for ref, source in item.blobs]
        table = FrameTable.from_bytes(item.sections.table)
        return pixel_digest(frame_pieces(table, lambda r: readers[r.blob_index](r.offset, r.length)))


def pixels_of_row(core: Core, row: Row) -> bytes:
    """The stored instance's pixel digest, computed now if it never was."""
    if row.pixel_digest is not None:
        return row.pixel_digest
    if not row.has_pixel_data:
        return b""
    record = core.files.get(row.record_key)
    table = FrameTable.open(record.fileno(), *row.table)
    blobs = open_blobs(core, row)
    digest = pixel_digest(frame_pieces(table, lambda r: blobs[r.blob_index].pread(r.offset, r.length)))
    core.index.write(lambda: keep_pixel_digest(core, row, digest))
    return digest


def _keep_for_operator(core: Core, item: Prepared, reason: str, sender: Sender) -> None:
    """Keep what was not stored, durable, where an operator finds it."""
    ref, source = item.blobs[0]
    if isinstance(source, bytes) or item.recorded.base == "made":
        return  # made by us from an original that is kept
    put_blob(core, ref, source)
    recorded = item.recorded

    def note() -> None:
        work.add_quarantine(
            core,
            name=f"{recorded.sop_instance_uid}.dcm",
            reason=reason,
            source=" ".join(filter(None, (sender.via, sender.name, sender.address))),
            blob=ref,
            sop=recorded.sop_instance_uid,
        )
        core.add_audit(
            AuditRecord(
                SECURITY_ALERT,
                "E",
                Principal("coverslip", "archive"),
                4,
                recorded.study_instance_uid,
                recorded.sop_instance_uid,
                {"reason": reason},
            )
        )

    core.index.write(note)


def _note_again(
    core: Core, principal: Principal, prepared: Sequence[Prepared], answers: dict[str, Outcome]
) -> None:
    for item in prepared:
        uid = item.recorded.sop_instance_uid
        core.add_audit(
            AuditRecord(
                INSTANCES_TRANSFERRED,
                "C",
                principal,
                0,
                item.recorded.study_instance_uid,
                uid,
                {"outcome": str(answers[uid])},
            )
        )


def _blobs(keep: Sequence[Prepared], slide: NewSlide | None) -> list[tuple[BlobRef, StagedFile | bytes]]:
    """Every blob once, the original's files among them."""
    every: dict[bytes, tuple[BlobRef, StagedFile | bytes]] = {}
    for item in keep:
        for ref, source in item.blobs:
            every.setdefault(ref.digest, (ref, source))
    if slide is not None:
        for _, staged in slide.original.files:
            every.setdefault(staged.sha256, (BlobRef(staged.sha256, staged.size_bytes), staged))
    return list(every.values())


def put_blob(core: Core, ref: BlobRef, source: StagedFile | bytes) -> None:
    """Durable under its digest; harmless when it is there already."""
    key = blob_key(ref.digest)
    if isinstance(source, bytes):
        core.storage.put_bytes(key, source)
    elif source.path.exists() or core.storage.stat(key) != ref.size_bytes:
        core.storage.put_file(key, _second_name(core, source.path), sha256=ref.digest)
    # else an earlier try of this ingest has moved it there


def _second_name(core: Core, path: Path) -> Path:
    """The store takes this name and leaves the other, so that a blob that goes before the
    commit can be put again; the file itself where there are no hard links."""
    other = core.spool.new_path()
    try:
        os.link(path, other)
    except OSError:
        return path
    return other


def _record(
    keep: Sequence[Prepared], slide: NewSlide | None, sender: Sender, now: datetime
) -> tuple[bytes, Record]:
    original = None
    if slide is not None:
        source = slide.original
        original = RecordedOriginal(
            source.digest,
            source.format,
            source.description,
            slide.unmatched,
            slide.container_identifier,
            tuple((name, BlobRef(f.sha256, f.size_bytes)) for name, f in source.files),
        )
    record = Record(
        uuid.uuid4().hex,
        now.isoformat(timespec="microseconds"),
        {"via": sender.via, "name": sender.name, "address": sender.address},
        original,
        tuple(i.recorded for i in keep),
    )
    return encode_record(record, [i.sections for i in keep])


def _stored(recorded: RecordedInstance, outcome: Outcome) -> Stored:
    return Stored(
        recorded.study_instance_uid,
        recorded.series_instance_uid,
        recorded.sop_instance_uid,
        recorded.sop_class_uid,
        outcome,
        _warning(recorded, outcome),
    )


def _warning(recorded: RecordedInstance, outcome: Outcome) -> StoreWarning | None:
    """What the sender should know of an instance that is stored (PS3.4 Table B.2-1)."""
    if outcome is Outcome.KEPT_FIRST:
        return StoreWarning.ELEMENTS_DISCARDED
    if OTHER_SOP_CLASS in recorded.findings:
        return StoreWarning.DATA_SET_MISMATCH
    return None


def original_of(core: Core, digest: bytes, *, principal: Principal, scope: Scope) -> list[Stored]:
    """See ``Archive.original_of``."""
    core.check(principal, Action.READ)
    return [
        Stored(
            r.study_instance_uid, r.series_instance_uid, r.sop_instance_uid, r.sop_class_uid, Outcome.ALREADY
        )
        for r in rows_of_original(core, digest, scope)
    ]


def full(free_bytes: int) -> StorageFull:
    """The refusal of a store without its reserve."""
    return StorageFull(f"no space left in the store: {free_bytes >> 20} MiB are free")


def check_store_version(storage: Storage, version: bytes) -> None:
    """Write ``store.json`` at the first start; refuse a newer store (StoreTooNew)."""
    if storage.stat("store.json") is None:
        storage.put_bytes("store.json", version)
        return
    with storage.open("store.json") as file:
        found = json.loads(file.pread(0, file.size))["store"]
    if found > json.loads(version)["store"]:
        raise StoreTooNew(f"the store has version {found}; this release knows {json.loads(version)['store']}")
