# SPDX-License-Identifier: Apache-2.0
"""Non-patient instances: colour palettes, hanging protocols, implant templates, procedure
protocols and inventories (PS3.4 Annex GG, PS3.18 Chapter 12).

They belong to no study, so every scope sees them but the one that sees nothing; except
inventories, which list patients, and are for those who see every study. The Part 10 file is
a blob, an entry of the journal says what it is, and the index is made from both.
"""

import contextlib
import gzip
import hashlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pydicom.datadict import tag_for_keyword

from archive import non_patient_index as rows
from archive.access import NOTHING, Action, Principal, Scope
from archive.audit import INSTANCES_ACCESSED, INSTANCES_TRANSFERRED, AuditRecord
from archive.core import Core
from archive.errors import (
    ArchiveError,
    Changed,
    DuplicateInstance,
    NoSuchBulkData,
    NoSuchInstance,
    NotAllowed,
    StudyMismatch,
    TooLarge,
    Unreadable,
    UnsupportedSopClass,
    UnsupportedTransferSyntax,
)
from archive.index.conditions import Sql, adapted, attribute_rows
from archive.index.included import merge
from archive.index.matching import Kind, Match
from archive.indexing import MissingBlob
from archive.ingest import put_blob
from archive.journal import FORGET, KEEP, KeptObject, new_entry
from archive.lifecycle import journalled, settled
from archive.non_patient_classes import CATEGORIES, CATEGORY_OF, RETURNED
from archive.non_patient_index import MAX_BYTES, Described, NonPatientInstance
from archive.part10.errors import Part10Error, UnknownTransferSyntax
from archive.part10.json_model import to_json
from archive.part10.meta import read_meta
from archive.prepare import has_preamble
from archive.record import BlobRef
from archive.rows import find_row
from archive.values import Outcome, Page, Sender, StagedFile, Stored

_HEAD_BYTES = 1 << 16
_SMALL_BYTES = 1 << 20
_one_at_a_time = threading.Lock()
"""A file is held in memory a few times over while it is stored: of large ones only one is."""


@dataclass(frozen=True, slots=True)
class NonPatientQuery:
    """What to find of a category. ``include``: dotted tag paths besides the usual ones, or
    ``all``. Matches on attributes above 16 KiB find nothing."""

    category: str
    matches: tuple[Match, ...] = ()
    include: tuple[str, ...] = ()
    limit: int = 100
    offset: int = 0


def is_non_patient(path: Path) -> bool:
    """Whether a file says in group 2 that it is of these classes."""
    try:
        with path.open("rb", buffering=0) as file:
            head = file.read(_HEAD_BYTES)
        return read_meta(head, allow_bare=True).sop_class_uid in CATEGORY_OF
    except (Part10Error, OSError):
        return False  # told where it is read as a whole


def store(
    core: Core,
    staged: StagedFile,
    *,
    category: str = "",
    sop_instance_uid: str = "",
    principal: Principal,
    scope: Scope,
    sender: Sender,
) -> Stored:
    """See ``Archive.store_non_patient``."""
    scratch = core.spool.new_path()
    try:
        core.check(principal, Action.STORE)
        if scope == NOTHING:
            core.refuse(principal, "store by who sees nothing")
            raise NotAllowed(str(Action.STORE))
        with _one_at_a_time if staged.size_bytes > _SMALL_BYTES else contextlib.nullcontext():
            kept, described, source = _prepare(core, staged, scratch)
            if category not in ("", kept.category) or sop_instance_uid not in ("", kept.sop_instance_uid):
                expected = sop_instance_uid or category
                found = kept.sop_instance_uid if sop_instance_uid else kept.category
                raise NotOfResource(expected, found)
            return settled(partial(_store, core, kept, described, source, principal, sender))
    except NotAllowed:
        raise  # audited where it was decided
    except ArchiveError as error:
        core.refuse(principal, f"{type(error).__name__} at store")
        raise
    finally:
        staged.path.unlink(missing_ok=True)
        scratch.unlink(missing_ok=True)


class NotOfResource(StudyMismatch):
    """A data set of another category, or of another UID, than the request named."""

    def __init__(self, expected: str, found: str) -> None:
        ArchiveError.__init__(self, f"the request is for {expected}, the data set of {found}")
        self.expected, self.found = expected, found


class OtherContent(DuplicateInstance):
    """The same SOP Instance UID is stored with other content."""

    def __init__(self, sop_instance_uid: str) -> None:
        ArchiveError.__init__(self, f"{sop_instance_uid} is stored already with other content")
        self.sop_instance_uid = sop_instance_uid


def _prepare(core: Core, staged: StagedFile, scratch: Path) -> tuple[KeptObject, Described, bytes]:
    if staged.size_bytes > MAX_BYTES:
        raise TooLarge(f"a non-patient instance of more than {MAX_BYTES >> 20} MiB")
    try:
        scanned = rows.scan_path(core, staged.path, scratch)
    except UnknownTransferSyntax as error:
        raise UnsupportedTransferSyntax(str(error)) from error
    except Part10Error as error:
        raise Unreadable(str(error)) from error
    category = CATEGORY_OF.get(scanned.sop_class_uid)
    if category is None:
        raise UnsupportedSopClass(scanned.sop_class_uid)
    if scanned.reencoded:
        data = scratch.read_bytes()
    elif has_preamble(staged.path):
        data = staged.path.read_bytes()
    else:
        data = rows.explicit(scanned, staged.path.read_bytes())
    if len(data) > MAX_BYTES:
        raise TooLarge(f"a non-patient instance of more than {MAX_BYTES >> 20} MiB")
    scanned = rows.scan_bytes(core, data)
    ref = BlobRef(hashlib.sha256(data).digest(), len(data))
    kept = KeptObject(category, scanned.sop_class_uid, scanned.sop_instance_uid, ref)
    return kept, rows.describe(scanned, data), data


def _store(
    core: Core,
    kept: KeptObject,
    described: Described,
    data: bytes,
    principal: Principal,
    sender: Sender,
) -> Stored:
    uid = kept.sop_instance_uid
    detail: dict[str, object] = {
        "category": kept.category,
        "sop_classes": [kept.sop_class_uid],
        "sender": sender.name,
        "digests": [kept.blob.digest.hex()],
    }
    record = AuditRecord(INSTANCES_TRANSFERRED, "C", principal, 0, "", uid, detail)
    if _known(core, kept, described):
        core.index.write(lambda: core.add_audit(record))
        return Stored("", "", uid, kept.sop_class_uid, Outcome.ALREADY)
    put_blob(core, kept.blob, data)
    now = core.journal_time()
    entry = new_entry(KEEP, principal.actor, "stored", objects=[kept], time=now)

    def commit() -> None:
        if _known(core, kept, described):
            raise Changed
        rows.add(core, kept, described, now)
        core.add_audit(record)

    try:
        journalled(core, entry, commit, last=True)
    except MissingBlob:  # garbage collection came between: it is put again
        raise Changed from None
    return Stored("", "", uid, kept.sop_class_uid, Outcome.STORED)


def _known(core: Core, kept: KeptObject, described: Described) -> bool:
    """Whether it is stored already. Raises OtherContent."""
    found = rows.instance_of(core, kept.sop_instance_uid)
    if found is None and find_row(core, kept.sop_instance_uid) is None:
        return False
    if found is None or found.content_digest != described.content_digest:
        raise OtherContent(kept.sop_instance_uid)
    return True


def get(core: Core, category: str, sop: str, *, principal: Principal, scope: Scope) -> NonPatientInstance:
    """See ``Archive.non_patient``."""
    core.check(principal, Action.READ)
    found = rows.instance_of(core, sop)
    if found is None or found.category != category or not rows.sees(scope, category):
        raise NoSuchInstance(sop)
    return found


def read(core: Core, category: str, sop: str, *, explicit: bool, principal: Principal, scope: Scope) -> bytes:
    """See ``Archive.open_non_patient``."""
    found = get(core, category, sop, principal=principal, scope=scope)
    core.access.note("instance", principal, "", sop)
    data = rows.read_blob(core, found.digest, found.size_bytes)
    return rows.explicit(rows.scan_bytes(core, data), data) if explicit else data


def metadata(core: Core, category: str, sop: str, *, principal: Principal, scope: Scope) -> bytes:
    """See ``Archive.non_patient_metadata``."""
    found = get(core, category, sop, principal=principal, scope=scope)
    core.access.note("metadata", principal, "", sop)
    scanned = rows.scan_bytes(core, rows.read_blob(core, found.digest, found.size_bytes))
    return to_json(scanned.dataset, scanned.bulk)


def bulk(core: Core, category: str, sop: str, path: str, *, principal: Principal, scope: Scope) -> bytes:
    """See ``Archive.non_patient_bulk``."""
    found = get(core, category, sop, principal=principal, scope=scope)
    data = rows.read_blob(core, found.digest, found.size_bytes)
    value = next((b for b in rows.scan_bytes(core, data).bulk if b.path == path.upper()), None)
    if value is None:
        raise NoSuchBulkData(path)
    core.access.note("bulk", principal, "", sop)
    return data[value.offset : value.offset + value.length]


def find(core: Core, query: NonPatientQuery, *, principal: Principal, scope: Scope) -> Page:
    """See ``Archive.find_non_patient``."""
    core.check(principal, Action.SEARCH)
    keys = ",".join(sorted({match.path for match in query.matches}))
    core.access.note("query", principal, "", "", 1, f"{query.category}:{keys}")
    if not rows.sees(scope, query.category) or query.category not in CATEGORIES:
        return Page([], 0)
    sql = Sql(core.index.dialect)
    sql.add("n.category = ?", query.category)
    for match in query.matches:
        for one in match.each:
            _condition(sql, one)
    page = adapted(
        f"SELECT {rows.SELECTED}, n.summary FROM non_patient n WHERE {sql.where} "
        "ORDER BY n.id LIMIT ? OFFSET ?",
        core.index.dialect,
    )
    count = adapted(f"SELECT count(*) FROM non_patient n WHERE {sql.where}", core.index.dialect)
    with core.index.read():
        database = core.index.database
        found = database.execute_sql(page, (*sql.parameters, query.limit, query.offset)).fetchall()
        total = int(database.execute_sql(count, tuple(sql.parameters)).fetchone()[0])
    answers = [_answer(query, rows.from_columns(row), bytes(row[-1])) for row in found]
    return Page(answers, max(0, total - query.offset - len(answers)))


def _condition(sql: Sql, match: Match) -> None:
    """One key against the rows of ``non_patient_key``."""
    if match.kind == Kind.UNIVERSAL:
        return
    if match.kind == Kind.ANY:
        found = []
        for alternative in match.alternatives:
            inner = sql.new()
            _condition(inner, alternative)
            found.append((f"({inner.where})", tuple(inner.parameters)))
        sql.any_of(found)
        return
    among = "SELECT 1 FROM non_patient_key a WHERE a.non_patient_id = n.id AND"
    if match.kind == Kind.EMPTY:
        sql.add(f"NOT EXISTS ({among} a.path = ?)", match.path)
        return
    # Of a name, each group asked for may be fulfilled by another group's row.
    values = match.values if match.kind == Kind.NAMES else ()
    singly = [Match(match.path, match.vr, match.kind, (value,)) for value in values] or [match]
    for one in singly:
        inner = attribute_rows(sql, one, "a")
        sql.add(f"EXISTS ({among} {inner.where})", *inner.parameters)


def _answer(query: NonPatientQuery, found: NonPatientInstance, summary: bytes) -> dict[str, object]:
    header: dict[str, Any] = json.loads(gzip.decompress(summary))
    answer: dict[str, Any] = dict(header) if "all" in query.include else {}
    for path in (*_returned(found.category), *(m.path for m in query.matches), *query.include):
        if path != "all":
            merge(answer, header, path.split("."))
    answer["00080016"] = {"vr": "UI", "Value": [found.sop_class_uid]}
    answer["00080018"] = {"vr": "UI", "Value": [found.sop_instance_uid]}
    answer["00080056"] = {"vr": "CS", "Value": ["ONLINE"]}
    answer["00083002"] = {"vr": "UI", "Value": [found.transfer_syntax_uid]}
    return dict(sorted(answer.items()))


def _returned(category: str) -> Iterator[str]:
    for keyword in RETURNED[category]:
        yield f"{tag_for_keyword(keyword):08X}"


def delete(core: Core, category: str, sop: str, *, reason: str, principal: Principal, scope: Scope) -> None:
    """See ``Archive.delete_non_patient``."""
    core.check(principal, Action.DELETE)
    settled(partial(_delete, core, category, sop, reason, principal, scope))


def _delete(core: Core, category: str, sop: str, reason: str, principal: Principal, scope: Scope) -> None:
    found = rows.instance_of(core, sop)
    if found is None or found.category != category or not rows.sees(scope, category):
        raise NoSuchInstance(sop)
    now = core.journal_time()
    entry = new_entry(FORGET, principal.actor, reason, objects=[rows.kept_of(found)], time=now)
    detail: dict[str, object] = {"category": category, "reason": reason}

    def commit() -> None:
        if rows.instance_of(core, sop) != found:
            raise Changed
        rows.remove(core, found, now)
        core.add_audit(AuditRecord(INSTANCES_ACCESSED, "D", principal, 0, "", sop, detail))

    journalled(core, entry, commit, last=True)
