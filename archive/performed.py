# SPDX-License-Identifier: Apache-2.0
"""Performed procedure steps: what a scanner says that it does and has done (PS3.4 Annex F.7).

A step is IN PROGRESS until it is COMPLETED or DISCONTINUED; then it never changes. It
moves the scheduled steps that it names: STARTED, and with its end to the same end.
"""

import uuid
from collections.abc import Mapping
from typing import Any

from archive import worklist
from archive.access import NOTHING, Action, Principal, Scope
from archive.audit import PROCEDURE_RECORD, AuditRecord
from archive.core import Core
from archive.errors import BadOrder, NotAllowed, StepRefused
from archive.indexing import execute
from archive.part10.meta import is_uid
from archive.worklist_check import DataSet, checked
from archive.worklist_items import COMPLETED, DISCONTINUED, STARTED, STEP, first, pack, unpack

IN_PROGRESS = "IN PROGRESS"
_FINAL = frozenset((COMPLETED, DISCONTINUED))
MOST_STEPS = 100  # scheduled steps that one performed step names

INVALID_VALUE = 0x0106
PROCESSING_FAILURE = 0x0110
DUPLICATE_INSTANCE = 0x0111
NO_SUCH_INSTANCE = 0x0112
MISSING_ATTRIBUTE = 0x0120
MISSING_VALUE = 0x0121
MAY_NO_LONGER_BE_UPDATED = 0xA710
"""Error ID (0000,0903) of PS3.4 Table F.7.2-2."""

STATUS = "00400252"
_STATION_TITLE = "00400001"
_SCHEDULED = "00400270"
# Of type 1 in the request that creates a step, and in its final state (PS3.4 Table F.7.2-1).
_AT_FIRST = ("00080060", "00400241", "00400244", "00400245", STATUS, "00400253", _SCHEDULED)
_AT_LAST = ("00400250", "00400251")
_SERIES = "00400340"
_IN_SERIES = ("00181030", "0020000E")
# What an N-SET may not change (same table): whose step it is, where and when it began.
_FIXED = frozenset((
    "00080060", "00081120", "00100010", "00100020", "00100021", "00100024", "00100030", "00100040",
    "00200010", "00400241", "00400242", "00400243", "00400244", "00400245", "00400253", _SCHEDULED,
))  # fmt: skip


def begin(
    core: Core,
    sop_instance_uid: str,
    attributes: Mapping[str, object],
    *,
    stations: tuple[str, ...] | None,
    principal: Principal,
    scope: Scope,
) -> str:
    """See ``Archive.begin_performed_step``."""
    _may(core, principal, scope, Action.STORE)
    if sop_instance_uid and not is_uid(sop_instance_uid):
        raise StepRefused(INVALID_VALUE, "the SOP Instance UID is none")
    uid = sop_instance_uid or f"2.25.{uuid.uuid4().int}"
    content = _checked(attributes)
    for tag in _AT_FIRST:
        _need(content, tag)
    if first(content, STATUS) != IN_PROGRESS:
        raise StepRefused(INVALID_VALUE, "a performed procedure step begins IN PROGRESS", (STATUS,))
    scheduled = content[_SCHEDULED]["Value"]
    if len(scheduled) > MOST_STEPS:
        raise StepRefused(INVALID_VALUE, f"more than {MOST_STEPS} scheduled steps", (_SCHEDULED,))
    for item in scheduled:
        _need(item, "0020000D")

    def commit() -> None:
        if _find(core, uid) is not None:
            raise StepRefused(DUPLICATE_INSTANCE, "there is a performed procedure step of that UID")
        now = core.now_us()
        execute(
            core,
            "INSERT INTO performed_step (sop_instance_uid, status, actor, content, created, updated) "
            "VALUES (?, ?, ?, ?, ?, ?)",
            uid, IN_PROGRESS, principal.actor, pack(content), now, now,
        )  # fmt: skip
        step_id = int(
            execute(core, "SELECT step_id FROM performed_step WHERE sop_instance_uid = ?", uid).fetchone()[0]
        )
        for row in {row.item_id: row for item in scheduled for row in _items(core, item, stations)}.values():
            execute(
                core, "INSERT INTO performed_step_item (step_id, item_id) VALUES (?, ?)", step_id, row.item_id
            )
            worklist.set_status(core, row, STARTED, "mpps", principal)
        _note(core, "C", uid, content, IN_PROGRESS, principal)

    core.index.write(commit)
    return uid


def update(
    core: Core, sop_instance_uid: str, changes: Mapping[str, object], *, principal: Principal, scope: Scope
) -> tuple[str, ...]:
    """See ``Archive.update_performed_step``."""
    _may(core, principal, scope, Action.STORE)
    changed = _checked(changes)
    ignored = tuple(tag for tag in changed if tag in _FIXED)
    changed = {tag: element for tag, element in changed.items() if tag not in _FIXED}
    wanted = first(changed, STATUS) if STATUS in changed else IN_PROGRESS
    if wanted not in _FINAL | {IN_PROGRESS}:
        raise StepRefused(INVALID_VALUE, "no status of a performed procedure step", (STATUS,))

    def commit() -> None:
        row = _find(core, sop_instance_uid)
        if row is None or _is_others(row, principal):
            raise StepRefused(NO_SUCH_INSTANCE, "no performed procedure step of that UID")
        step_id, status, _, packed = row
        if status in _FINAL:
            raise StepRefused(
                PROCESSING_FAILURE, "Performed Procedure Step Object may no longer be updated",
                error_id=MAY_NO_LONGER_BE_UPDATED,
            )  # fmt: skip
        content = {**unpack(packed), **changed}
        if wanted in _FINAL:
            _check_final(content, wanted)
        execute(
            core,
            "UPDATE performed_step SET status = ?, content = ?, updated = ? WHERE step_id = ?",
            wanted, pack(dict(sorted(content.items()))), core.now_us(), step_id,
        )  # fmt: skip
        if wanted in _FINAL:
            _end(core, step_id, wanted, principal)
        _note(core, "U", sop_instance_uid, content, wanted, principal)

    core.index.write(commit)
    return ignored


def get(core: Core, sop_instance_uid: str, *, principal: Principal, scope: Scope) -> DataSet:
    """See ``Archive.performed_step``."""
    _may(core, principal, scope, Action.SEARCH)
    core.access.note("query", principal, "", sop_instance_uid, 1, "PERFORMED STEP")
    with core.index.read():
        row = _find(core, sop_instance_uid)
    if row is None or _is_others(row, principal):
        raise StepRefused(NO_SUCH_INSTANCE, "no performed procedure step of that UID")
    return unpack(row[3])


def _may(core: Core, principal: Principal, scope: Scope, action: Action) -> None:
    core.check(principal, action)
    if scope == NOTHING:
        core.refuse(principal, "a performed step of who sees nothing")
        raise NotAllowed(str(action))


def _find(core: Core, uid: str) -> tuple[int, str, str, bytes] | None:
    row = execute(
        core, "SELECT step_id, status, actor, content FROM performed_step WHERE sop_instance_uid = ?", uid
    ).fetchone()
    return None if row is None else (int(row[0]), str(row[1]), str(row[2]), bytes(row[3]))


def _is_others(row: tuple[int, str, str, bytes], principal: Principal) -> bool:
    """A scanner's step is that scanner's: another peer is told that there is none."""
    return principal.via == "dimse" and row[2] != principal.actor


def _checked(attributes: Mapping[str, object]) -> DataSet:
    try:
        return checked(attributes)
    except BadOrder as error:
        raise StepRefused(INVALID_VALUE, str(error)) from error


def _need(content: Mapping[str, Any], tag: str) -> None:
    if tag not in content:
        raise StepRefused(MISSING_ATTRIBUTE, f"{tag} is missing", (tag,))
    if not content[tag].get("Value"):
        raise StepRefused(MISSING_VALUE, f"{tag} has no value", (tag,))


def _check_final(content: DataSet, status: str) -> None:
    """What is of type 1 in the final state. A step that was discontinued may have made nothing."""
    for tag in _AT_LAST:
        _need(content, tag)
    if status == COMPLETED:
        _need(content, _SERIES)
    for series in content.get(_SERIES, {}).get("Value", []):
        for tag in _IN_SERIES:
            _need(series, tag)


def _items(core: Core, scheduled: DataSet, stations: tuple[str, ...] | None) -> list[worklist.Row]:
    """The items that an item of ScheduledStepAttributesSequence names, of those that the
    performing station may see."""
    return [row for row in _named(core, scheduled) if stations is None or _is_for(row, stations)]


def _is_for(row: worklist.Row, stations: tuple[str, ...]) -> bool:
    steps = unpack(row.content).get(STEP, {}).get("Value") or [{}]
    own = steps[0].get(_STATION_TITLE, {}).get("Value") or []
    return not any(own) or bool({str(title).strip() for title in own if title} & set(stations))


def _named(core: Core, scheduled: DataSet) -> list[worklist.Row]:
    study, step = first(scheduled, "0020000D"), first(scheduled, "00400009")
    if step:
        return worklist.find_all(
            core, "study_instance_uid = ? AND scheduled_procedure_step_id = ?", study, step, limit=MOST_STEPS
        )
    found = worklist.find_all(core, "study_instance_uid = ?", study, limit=2)
    return found if len(found) == 1 else []


def _end(core: Core, step_id: int, status: str, principal: Principal) -> None:
    """Scheduled steps end as their performed one; one that another step completed, or still
    is at, is not undone by a failed attempt."""
    rows = worklist.find_all(
        core, "item_id IN (SELECT item_id FROM performed_step_item WHERE step_id = ?)", step_id,
        limit=MOST_STEPS * MOST_STEPS,
    )  # fmt: skip
    for row in rows:
        if status == DISCONTINUED and _others(core, row.item_id, step_id):
            continue
        worklist.set_status(core, row, status, "mpps", principal)


def _others(core: Core, item_id: int, step_id: int) -> bool:
    found = execute(
        core,
        "SELECT 1 FROM performed_step_item i JOIN performed_step s ON s.step_id = i.step_id "
        "WHERE i.item_id = ? AND i.step_id <> ? AND s.status <> ? LIMIT 1",
        item_id, step_id, DISCONTINUED,
    ).fetchone()  # fmt: skip
    return found is not None


def _note(core: Core, action: str, uid: str, content: DataSet, status: str, principal: Principal) -> None:
    studies = sorted({first(item, "0020000D") for item in content[_SCHEDULED]["Value"]})
    detail: dict[str, object] = {"performed_step": uid, "status": status, "studies": studies}
    core.add_audit(AuditRecord(PROCEDURE_RECORD, action, principal, 0, studies[0], detail=detail))
    core.add_change(f"step-{status.lower().replace(' ', '-')}", studies[0], "", uid)
