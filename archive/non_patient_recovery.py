# SPDX-License-Identifier: Apache-2.0
"""Non-patient instances after a kill, after the loss of the index, and under ``verify``."""

from collections.abc import Iterator
from functools import partial

from archive import non_patient_index as rows
from archive.audit import APPLICATION_ACTIVITY, AuditRecord
from archive.core import Core
from archive.errors import ArchiveError, Changed
from archive.history import RECOVERY, Journal
from archive.indexing import execute
from archive.journal import Entry, KeptObject
from archive.non_patient_index import Described, NonPatientInstance
from archive.values import Finding


def complete(core: Core, journal: Journal) -> Iterator[Finding]:
    """Bring the index to what the journal says last of each. Raises Changed when others write
    to it meanwhile: what they stored is not to be taken for a leftover."""
    for uid, (entry, kept) in list(journal.kept.items()):
        found = rows.instance_of(core, uid)
        if found is not None and found.digest == kept.blob.digest:
            continue
        try:
            described = _describe(core, kept)
            core.index.write(partial(_put, core, journal, found, kept, described, entry))
            yield Finding("journal", entry.key, f"{entry.action} completed", True)
        except Changed:
            raise
        except ArchiveError as error:
            yield Finding("journal", entry.key, f"{entry.action} cannot be completed: {error}")
    for found in list(rows.all_instances(core)):
        if found.sop_instance_uid not in journal.kept and not journal.broken:
            core.index.write(partial(_drop, core, journal, found))
            yield Finding("journal", found.sop_instance_uid, "forget completed", True)


def _drop(core: Core, journal: Journal, found: NonPatientInstance) -> None:
    journal.still_holds(core)
    rows.remove(core, found, core.clock())


def _put(
    core: Core,
    journal: Journal,
    found: NonPatientInstance | None,
    kept: KeptObject,
    described: Described,
    entry: Entry,
) -> None:
    journal.still_holds(core)
    if found is not None:
        rows.remove(core, found, entry.time)
    rows.add(core, kept, described, entry.time)
    detail: dict[str, object] = {"recovered": 1}
    core.add_audit(AuditRecord(APPLICATION_ACTIVITY, "E", RECOVERY, 0, "", kept.sop_instance_uid, detail))


def _describe(core: Core, kept: KeptObject) -> Described:
    data = rows.read_blob(core, kept.blob.digest, kept.blob.size_bytes)
    return rows.describe(rows.scan_bytes(core, data), data)


def forget_all(core: Core) -> None:
    """For ``reindex``; call inside ``index.write``. References of blobs are the caller's."""
    execute(core, "DELETE FROM non_patient_key")
    execute(core, "DELETE FROM non_patient")


def verify(core: Core, journal: Journal) -> Iterator[Finding]:
    """Index, journal and files against each other; blobs are hashed elsewhere."""
    seen = set()
    for found in rows.all_instances(core):
        seen.add(found.sop_instance_uid)
        told = journal.kept.get(found.sop_instance_uid)
        if told is None or told[1] != rows.kept_of(found):
            yield Finding("journal", found.sop_instance_uid, "is stored, but no entry of the journal says so")
        try:
            described = _describe(core, rows.kept_of(found))
        except ArchiveError as error:
            yield Finding("non-patient instance", found.sop_instance_uid, str(error))
            continue
        actual = (found.transfer_syntax_uid, found.content_digest, rows.summary_of(core, found.id))
        if actual != (described.transfer_syntax_uid, described.content_digest, described.summary):
            yield Finding("index", found.sop_instance_uid, "differs from the file")
    for uid in journal.kept.keys() - seen:
        yield Finding("journal", uid, "was stored, but is not in the index")
