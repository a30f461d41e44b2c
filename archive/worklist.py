# SPDX-License-Identifier: Apache-2.0
"""Scheduling: what is to be scanned, for whom, and how far it is (PS3.4 Annex K).

An item is added or changed under its identifier; each change keeps the former value
(``worklist_revision``), leaves an audit event 110109 and a line in the change feed.
"""

import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from archive.access import Action, Principal, Scope
from archive.audit import ORDER_RECORD, AuditRecord
from archive.core import Core
from archive.errors import NoSuchOrder, NotAllowed
from archive.index.worklist import ACTIVE, PAGE, WorklistQuery, iterate
from archive.indexing import execute
from archive.rows import moment
from archive.worklist_items import (
    CANCELED,
    SCHEDULED,
    Prepared,
    prepare,
    unpack,
    with_start_of,
    with_status,
    with_study,
)

BATCH = 200  # items of one transaction: others wait for it
_DAY = 1 << 36  # of a place


@dataclass(frozen=True, slots=True)
class NewItem:
    """An item to be scheduled. ``content``: see :mod:`archive.worklist_items`; without
    ``identifier`` it is made of the case and the step's or container's identifier."""

    content: dict[str, Any]
    identifier: str = ""
    protocol_study_id: int | None = None
    sensitivity: int = 0


@dataclass(frozen=True, slots=True)
class Scheduled:
    """What became of it: ``outcome`` is ``added``, ``changed`` or ``unchanged``."""

    identifier: str
    outcome: str
    study_instance_uid: str
    revision: int


@dataclass(frozen=True, slots=True)
class WorklistItem:
    """An item as it is now; ``content`` with its status, in the DICOM JSON model."""

    identifier: str
    status: str
    study_instance_uid: str
    source: str
    revision: int
    updated: datetime
    content: dict[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True)
class FormerValue:
    """What an item was, and until when."""

    revision: int
    status: str
    source: str
    until: datetime
    content: dict[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Row:
    """What a change needs to know of an item."""

    item_id: int
    place: int
    status: str
    study_instance_uid: str
    revision: int
    content: bytes
    source: str
    protocol_study_id: int | None
    sensitivity: int


_ROW = "item_id, place, status, study_instance_uid, revision, content, source, protocol_study_id, sensitivity"


def schedule(
    core: Core, items: Sequence[NewItem], *, source: str, principal: Principal, scope: Scope
) -> list[Scheduled]:
    """See ``Archive.schedule``."""
    _may(core, principal, scope, "scheduling")
    now = core.clock()
    prepared = [(item, prepare(item.content, identifier=item.identifier, now=now)) for item in items]
    done: list[Scheduled] = []
    for start in range(0, len(prepared), BATCH):
        part = prepared[start : start + BATCH]

        def commit(part: list[tuple[NewItem, Prepared]] = part) -> list[Scheduled]:
            return [_schedule(core, item, found, source, principal) for item, found in part]

        done += core.index.write(commit)
    return done


def _schedule(core: Core, item: NewItem, new: Prepared, source: str, principal: Principal) -> Scheduled:
    row = find(core, "identifier = ?", new.identifier)
    if row and not new.dated:
        new = with_start_of(new, unpack(bytes(row.content)))
    study = new.columns["study_instance_uid"]
    if not study:
        study = row.study_instance_uid if row else _study_of_case(core, new) or f"2.25.{uuid.uuid4().int}"
        new = with_study(new, study)
    packed = new.packed
    if row is None:
        add(core, item, new, source)
        note(core, "C", "scheduled", study, new.identifier, 0, source, principal)
        return Scheduled(new.identifier, "added", study, 0)
    status = new.status or (SCHEDULED if row.status == CANCELED else row.status)
    home = (item.protocol_study_id, item.sensitivity)
    is_same = packed == bytes(row.content) and status == row.status
    if is_same and home == (row.protocol_study_id, row.sensitivity):
        return Scheduled(new.identifier, "unchanged", study, row.revision)
    keep(core, row)
    _forget_keys(core, row.place)
    place = _place(new, row.item_id)
    active = int(status in ACTIVE)
    columns = {
        **new.columns, "place": place, "active": active, "status": status, "source": source,
        "protocol_study_id": item.protocol_study_id, "sensitivity": item.sensitivity,
        "revision": row.revision + 1, "content": packed, "updated": core.now_us(),
    }  # fmt: skip
    assigned = ", ".join(f"{name} = ?" for name in columns)
    execute(core, f"UPDATE worklist_item SET {assigned} WHERE item_id = ?", *columns.values(), row.item_id)
    _add_keys(core, new, place, active)
    note(core, "U", "scheduled", study, new.identifier, row.revision + 1, source, principal)
    return Scheduled(new.identifier, "changed", study, row.revision + 1)


def add(core: Core, item: NewItem, new: Prepared, source: str) -> None:
    """Insert an item that is not there yet; within a verb."""
    if core.index.dialect == "sqlite":
        number = "SELECT coalesce(max(item_id), 0) + 1 FROM worklist_item"
    else:
        number = "SELECT nextval(pg_get_serial_sequence('worklist_item', 'item_id'))"
    item_id = int(execute(core, number).fetchone()[0])
    status = new.status or SCHEDULED
    place, active, now = _place(new, item_id), int(status in ACTIVE), core.now_us()
    columns = {
        **new.columns, "item_id": item_id, "place": place, "active": active, "identifier": new.identifier,
        "status": status, "protocol_study_id": item.protocol_study_id, "sensitivity": item.sensitivity,
        "source": source, "revision": 0, "content": new.packed, "created": now, "updated": now,
    }  # fmt: skip
    marks = ", ".join("?" * len(columns))
    execute(core, f"INSERT INTO worklist_item ({', '.join(columns)}) VALUES ({marks})", *columns.values())
    _add_keys(core, new, place, active)


def _place(item: Prepared, item_id: int) -> int:
    return int(item.columns["start_date"]) * _DAY + item_id


def _study_of_case(core: Core, item: Prepared) -> str:
    """The study of other items of the same patient's same accession."""
    if not item.columns["accession_number"]:
        return ""
    row = execute(
        core,
        "SELECT study_instance_uid FROM worklist_item "
        "WHERE accession_number = ? AND patient_id = ? AND issuer_of_patient_id = ? LIMIT 1",
        *(item.columns[name] for name in ("accession_number", "patient_id", "issuer_of_patient_id")),
    ).fetchone()
    return str(row[0]) if row else ""


def _add_keys(core: Core, item: Prepared, place: int, active: int) -> None:
    mark = core.index.database.param
    core.index.database.connection().cursor().executemany(
        f"INSERT INTO worklist_key (path, folded, active, place, position) VALUES ({', '.join([mark] * 5)})",
        [(path, text, active, place, position) for path, text, position in sorted(item.keys)],
    )


def _forget_keys(core: Core, place: int) -> None:
    execute(core, "DELETE FROM worklist_key WHERE place = ?", place)


def find(core: Core, condition: str, *parameters: object) -> Row | None:
    """The first item that fulfils an SQL condition."""
    row = execute(core, f"SELECT {_ROW} FROM worklist_item WHERE {condition} LIMIT 1", *parameters).fetchone()
    return None if row is None else Row(*row)


def find_all(core: Core, condition: str, *parameters: object, limit: int) -> list[Row]:
    """Likewise, up to ``limit``."""
    cursor = execute(
        core,
        f"SELECT {_ROW} FROM worklist_item WHERE {condition} ORDER BY item_id LIMIT {limit:d}",
        *parameters,
    )
    return [Row(*row) for row in cursor.fetchall()]


def keep(core: Core, row: Row) -> None:
    """Write down what an item was, before it is changed; within a verb."""
    execute(
        core,
        "INSERT INTO worklist_revision (item_id, revision, status, content, source, until) "
        "VALUES (?, ?, ?, ?, ?, ?)",
        row.item_id, row.revision, row.status, row.content, row.source, core.now_us(),
    )  # fmt: skip


def set_status(
    core: Core, row: Row, status: str, source: str, principal: Principal, reason: str = ""
) -> None:
    """Move an item to another state; within a verb."""
    if row.status == status:
        return
    keep(core, row)
    active = int(status in ACTIVE)
    execute(
        core,
        "UPDATE worklist_item SET status = ?, active = ?, source = ?, revision = ?, updated = ? "
        "WHERE item_id = ?",
        status, active, source, row.revision + 1, core.now_us(), row.item_id,
    )  # fmt: skip
    execute(core, "UPDATE worklist_key SET active = ? WHERE place = ?", active, row.place)
    note(
        core, "U", status.lower(), row.study_instance_uid, "", row.revision + 1, source, principal, reason,
        item_id=row.item_id,
    )  # fmt: skip


def note(
    core: Core,
    action: str,
    change: str,
    study: str,
    identifier: str,
    revision: int,
    source: str,
    principal: Principal,
    reason: str = "",
    *,
    item_id: int = 0,
) -> None:
    """Audit a change of an order and tell the change feed; within a verb."""
    if not item_id:
        found = execute(core, "SELECT item_id FROM worklist_item WHERE identifier = ?", identifier).fetchone()
        item_id = int(found[0])
    detail: dict[str, object] = {
        "worklist_item": item_id, "change": change, "revision": revision, "source": source,
    }  # fmt: skip
    if reason:
        detail["reason"] = reason
    core.add_audit(AuditRecord(ORDER_RECORD, action, principal, 0, study, detail=detail))
    core.add_change(f"order-{change}", study)


def unschedule(
    core: Core, identifier: str, *, reason: str, source: str, principal: Principal, scope: Scope
) -> None:
    """See ``Archive.unschedule``."""
    _may(core, principal, scope, "scheduling")

    def commit() -> None:
        row = find(core, "identifier = ?", identifier)
        if row is None:
            raise NoSuchOrder()
        set_status(core, row, CANCELED, source, principal, reason)

    core.index.write(commit)


def search(core: Core, query: WorklistQuery, *, principal: Principal, scope: Scope) -> Iterator[WorklistItem]:
    """See ``Archive.worklist``."""
    core.check(principal, Action.SEARCH)
    keys = ",".join(sorted({match.path for match in query.matches}))
    core.access.note("query", principal, "", "", 1, f"WORKLIST:{keys}")
    return _pages(core, query, scope)


def _pages(core: Core, query: WorklistQuery, scope: Scope) -> Iterator[WorklistItem]:
    after, size = 0, PAGE
    while size == PAGE:
        with core.index.read() as database:
            rows = list(iterate(database, core.index.dialect, query, scope, after))
        for row in rows:
            yield _item(row)
        size = len(rows)
        after = rows[-1]["place"] if rows else after


def _item(row: dict[str, Any]) -> WorklistItem:
    content = with_status(unpack(bytes(row["content"])), row["status"])
    return WorklistItem(
        row["identifier"], row["status"], row["study_instance_uid"], row["source"], row["revision"],
        moment(row["updated"]), content,
    )  # fmt: skip


def history(core: Core, identifier: str, *, principal: Principal, scope: Scope) -> list[FormerValue]:
    """See ``Archive.order_history``."""
    _may(core, principal, scope, "the history of an order", Action.SEARCH)
    with core.index.read():
        rows = execute(
            core,
            "SELECT r.revision, r.status, r.source, r.until, r.content FROM worklist_revision r "
            "JOIN worklist_item i ON i.item_id = r.item_id WHERE i.identifier = ? ORDER BY r.revision",
            identifier,
        ).fetchall()
        if not rows and find(core, "identifier = ?", identifier) is None:
            raise NoSuchOrder()
    return [
        FormerValue(revision, status, source, moment(until), with_status(unpack(bytes(content)), status))
        for revision, status, source, until, content in rows
    ]


def _may(core: Core, principal: Principal, scope: Scope, what: str, action: Action = Action.SCHEDULE) -> None:
    core.check(principal, action)
    if not scope.is_everything:
        core.refuse(principal, f"{what} from a limited scope")
        raise NotAllowed(str(action))
