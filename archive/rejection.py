# SPDX-License-Identifier: Apache-2.0
"""Storing rejection notes (IHE IOCM), others' and our own: the note is kept, what it names
is gone for every door. The bytes go only when the retention period was the reason.
"""

from functools import partial

from pydicom.dataset import Dataset

from archive import ingest, lifecycle
from archive.access import Action, Principal, Scope
from archive.core import Core
from archive.errors import BadQuery, RejectionRefused
from archive.journal import REJECT
from archive.part10.dataset import read_header
from archive.rejected import CODES, EXPIRED, KEY_OBJECT_SELECTION, Note, note_of
from archive.rejection_note import write_note
from archive.rows import Row, find_row, is_tombstoned, visible
from archive.values import Sender, StagedFile, Stored

REASON_CHARACTERS = 1024


def store_file(
    core: Core,
    staged: StagedFile,
    *,
    principal: Principal,
    scope: Scope,
    sender: Sender,
    study_instance_uid: str = "",
    replace: bool = False,
) -> Stored:
    """See ``Archive.store_file``."""
    found: list[Note] = []

    def look(dataset: Dataset) -> None:
        note = note_of(dataset)
        if note is not None:
            core.check(principal, Action.DELETE)
            _named(core, note, scope)
            found.append(note)

    stored = ingest.store_file(
        core,
        staged,
        principal=principal,
        scope=scope,
        sender=sender,
        study_instance_uid=study_instance_uid,
        replace=replace,
        look=look,
    )
    # After the note is durable and before it is acknowledged: who was cut off sends it again.
    for note in found:
        lifecycle.settled(partial(_apply, core, note, stored.sop_instance_uid, principal, scope))
    return stored


def _apply(core: Core, note: Note, pointer: str, principal: Principal, scope: Scope) -> None:
    rows = _named(core, note, scope)
    if rows:
        action = "delete" if note.code == EXPIRED else REJECT
        lifecycle.remove(core, rows, action, reason=note.reason, principal=principal, pointer=pointer)


def reject(
    core: Core,
    study: str,
    series: str,
    sop: str,
    *,
    code: str,
    reason: str,
    principal: Principal,
    scope: Scope,
) -> tuple[Stored, int]:
    """See ``Archive.reject``."""
    core.check(principal, Action.DELETE)
    if code not in CODES:
        raise BadQuery(f"the code of a rejection is one of {', '.join(sorted(CODES))}")
    if len(reason) > REASON_CHARACTERS or not reason.isprintable():
        raise BadQuery(f"a reason has up to {REASON_CHARACTERS} printable characters")
    rows = lifecycle.named(core, study, series, sop, scope)
    if not sop:  # the note of an earlier rejection stays what it is
        rows = [row for row in rows if not is_note(core, row)]
    if not rows:
        raise RejectionRefused("would name nothing but rejection notes")
    implementation = lifecycle.IMPLEMENTATION_VERSION
    data = write_note(header_of(core, rows[0]), rows, code, reason, core.clock(), implementation)
    with core.spool.stage(len(data)) as staging:
        staging.write(data)
        staged = staging.finish()
    sender = Sender(principal.via, principal.actor, principal.address)
    stored = store_file(core, staged, principal=principal, scope=scope, sender=sender)
    return stored, len(rows)


def header_of(core: Core, row: Row) -> Dataset:
    """The current header of an instance."""
    key, offset, length = row.header
    return read_header(core.files.get(key).pread(offset, length), budget=core.limits.parse)


def is_note(core: Core, row: Row) -> bool:
    """Whether an instance is a rejection note."""
    return row.sop_class_uid == KEY_OBJECT_SELECTION and note_of(header_of(core, row)) is not None


def _named(core: Core, note: Note, scope: Scope) -> list[Row]:
    """The instances that a note names and that are still here. Raises RejectionRefused for
    a note that names something else than what is stored: nothing of it is done then."""
    if not note.references:
        raise RejectionRefused("names no instance")
    rows: dict[int, Row] = {}
    for study, series, sop_class, sop in note.references:
        row = find_row(core, sop)
        if row is None or not (scope.is_everything or visible(core, row.study_id, scope)):
            if not is_tombstoned(core, study, series, sop, scope):
                raise RejectionRefused(f"names {sop}, which is not here")
            continue
        if (row.study_instance_uid, row.series_instance_uid, row.sop_class_uid) != (study, series, sop_class):
            raise RejectionRefused(f"names {sop} under another study, series or SOP class")
        rows[row.id] = row
    if note.code == EXPIRED:
        lifecycle.refuse_part_of_slide(core, list(rows.values()))
    return list(rows.values())
