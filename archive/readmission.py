# SPDX-License-Identifier: Apache-2.0
"""Taking a rejection back: what a note took out is there again, as it was last.

Bytes of what was rejected are kept (except of what went because its time was over), so the
record, its corrections and its blobs give the instance again. A note of which nothing is
left to reject is deleted.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from datetime import datetime
from functools import partial

from archive import lifecycle
from archive.access import Action, Principal, Scope
from archive.audit import APPLICATION_ACTIVITY, INSTANCES_ACCESSED, AuditRecord
from archive.core import Core
from archive.errors import Changed, NoSuchInstance, NoSuchSeries, NoSuchStudy
from archive.history import RECOVERY, Journal
from archive.indexing import MissingBlob, add_revision, execute, extracts, index_record
from archive.journal import READMIT, REJECT, Revision, Target, new_entry
from archive.part10.dataset import read_header
from archive.prepare import Described, describe_header
from archive.record import Record, blob_key, read_record
from archive.rejected import KEPT, note_of
from archive.rejection import header_of, is_note
from archive.rows import find_row, rows_below
from archive.values import Finding

_Corrections = list[tuple[Revision, str, datetime, Described]]


def readmit(
    core: Core, study: str, series: str, sop: str, *, reason: str, principal: Principal, scope: Scope
) -> int:
    """See ``Archive.readmit``."""
    core.check(principal, Action.DELETE)
    count = lifecycle.settled(partial(_readmit, core, study, series, sop, reason, principal, scope))
    lifecycle.settled(partial(_drop_empty_notes, core, study, scope, principal))
    return count


def _readmit(
    core: Core, study: str, series: str, sop: str, reason: str, principal: Principal, scope: Scope
) -> int:
    journal = Journal(core)
    targets = _rejected(core, journal, study, series, sop) if scope.is_everything else []
    if not targets:
        # As for every verb, hidden looks like absent; so does what was not rejected.
        raise NoSuchInstance(sop) if sop else NoSuchSeries(series) if series else NoSuchStudy(study)
    entry = new_entry(READMIT, principal.actor, reason, targets=targets, time=core.journal_time())
    detail: dict[str, object] = {"readmitted": len(targets), "reason": reason}
    record = AuditRecord(INSTANCES_ACCESSED, "U", principal, 0, study, sop, detail)
    prepared = [_Returning(core, journal, key, sops) for key, sops in _by_record(targets).items()]

    def commit() -> None:
        for returning in prepared:
            returning.index()
        core.add_audit(record)

    lifecycle.journalled(core, entry, commit, last=True)
    return len(targets)


def complete(core: Core, journal: Journal) -> Iterator[Finding]:
    """What the journal says was readmitted, and a kill kept out of the index. Raises Changed."""
    missing = [
        Target(record, sop) for record, sop in sorted(journal.readmitted) if find_row(core, sop) is None
    ]
    for key, sops in _by_record(missing).items():
        returning = _Returning(core, journal, key, sops)
        audit = AuditRecord(APPLICATION_ACTIVITY, "E", RECOVERY, 0, detail={"recovered": len(sops)})

        def commit(returning: "_Returning" = returning, audit: AuditRecord = audit) -> None:
            journal.still_holds(core)
            returning.index()
            core.add_audit(audit)

        try:
            core.index.write(commit)
        except MissingBlob as error:
            yield Finding("journal", key, f"{READMIT} cannot be completed: {error}")
        else:
            yield Finding("journal", key, f"{READMIT} completed", True)


def _rejected(core: Core, journal: Journal, study: str, series: str, sop: str) -> list[Target]:
    """What of a study, a series or one instance is rejected now, and may come back."""
    with core.index.read():
        stones = execute(
            core,
            "SELECT series_instance_uid, sop_instance_uid, reason FROM tombstone "
            "WHERE study_instance_uid = ? ORDER BY id",
            study,
        ).fetchall()
    wanted = {one for of, one, why in stones if why in KEPT and series in ("", of) and sop in ("", one)}
    return [
        Target(record, one)
        for (record, one), entry in journal.ended.items()
        if entry.action == REJECT and one in wanted and find_row(core, one) is None
    ]


def _by_record(targets: Sequence[Target]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for target in targets:
        found.setdefault(target.record, set()).add(target.sop_instance_uid)
    return found


class _Returning:
    """Instances of one record, read and described before the turn to write."""

    def __init__(self, core: Core, journal: Journal, key: str, sops: set[str]) -> None:
        self._core, self._key = core, key
        with core.storage.open(key) as file:
            record = read_record(file)
            mine = tuple(i for i in record.instances if i.sop_instance_uid in sops)
            datasets = [read_header(file.pread(*i.header), budget=core.limits.parse) for i in mine]
        self._record: Record = dataclasses.replace(record, instances=mine)
        self._extracts = extracts(core, self._record, datasets)
        self._packed = journal.packed(core, key)
        self._corrections: _Corrections = []
        bulk = {i.sop_instance_uid: [b for b in i.bulk if not b.is_pixel_data] for i in mine}
        for uid, values in bulk.items():
            for entry, revision in journal.revisions.get((key, uid), ()):
                with core.storage.open(blob_key(revision.blob.digest)) as file:
                    header = file.pread(0, revision.header_length)
                described = describe_header(header, core.limits.parse, values)
                self._corrections.append((revision, entry.reason, entry.time, described))

    def index(self) -> None:
        """Call inside ``index.write``. Raises MissingBlob, and Changed for what is here again."""
        core = self._core
        for item in self._record.instances:
            if find_row(core, item.sop_instance_uid) is not None:
                raise Changed
        homes = {i.study_instance_uid: self._home(i.sop_instance_uid) for i in self._record.instances}
        time = datetime.fromisoformat(self._record.time)
        index_record(core, self._key, self._record, self._extracts, time, self._packed)
        for revision, reason, when, described in self._corrections:
            row = find_row(core, revision.target.sop_instance_uid)
            if row is not None and row.revision < revision.revision:
                add_revision(core, row, revision, described, reason=reason, time=when)
        for item in self._record.instances:
            core.add_change(
                "stored", item.study_instance_uid, item.series_instance_uid, item.sop_instance_uid
            )
        for study, home in homes.items():
            if home is not None:
                execute(
                    core,
                    "UPDATE study SET protocol_study_id = ?, sensitivity = ? "
                    "WHERE study_instance_uid = ? AND protocol_study_id IS NULL",
                    *home, study,
                )  # fmt: skip

    def _home(self, sop: str) -> tuple[int | None, int] | None:
        """Protocol study and sensitivity that its study had: the study's row may have gone."""
        row = execute(
            self._core, "SELECT protocol_study_id, sensitivity FROM tombstone WHERE sop_instance_uid = ?", sop
        ).fetchone()
        return None if row is None else (row[0], int(row[1]))


def _drop_empty_notes(core: Core, study: str, scope: Scope, principal: Principal) -> None:
    """Delete the study's notes all of whose instances are here again."""
    rows = [row for page in rows_below(core, study, "", scope) for row in page if is_note(core, row)]
    for row in rows:
        note = note_of(header_of(core, row))
        if note is not None and all(find_row(core, sop) is not None for *_, sop in note.references):
            remove = partial(lifecycle.remove, reason="the rejection was taken back", principal=principal)
            remove(core, [row], "delete")
