# SPDX-License-Identifier: Apache-2.0
"""The outbox: what we owe to receivers, kept until it is done (DESIGN, idea 6).

A *lane* is one receiver's duties of one kind. In a lane duties go in the order in which
they were promised, one at a time: a receiver that is down holds up its own only, and one
that refuses this thing but not that is not held up by it. Turns are leases, as for jobs.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from archive.access import Action, Principal, Scope
from archive.audit import APPLICATION_ACTIVITY, AuditRecord
from archive.core import Core
from archive.errors import BadQuery, LeaseLost, NoSuchDuty
from archive.rows import moment
from archive.values import Duty as Duty
from archive.values import DutyState, Promise

OPEN = (DutyState.WAITING.value, DutyState.RUNNING.value)
_MESSAGE_CHARACTERS = 500
_LANES = 1000
_UIDS_AT_ONCE = 500


def add(
    core: Core,
    receiver: str,
    kind: str,
    payload: Mapping[str, object],
    key: str = "",
    *,
    delay_s: float = 0.0,
) -> int:
    """Owe something to a receiver from ``delay_s`` seconds on; call inside ``index.write``.

    Where a duty of the same ``key`` waits, that one it is, and lists of its payload take up
    what is new. One that runs may have passed this by: it will run again. Returns the
    duty's number.
    """
    model = core.index.models.Duty
    if key:
        same = (model.receiver == receiver) & (model.kind == kind) & (model.key == key)
        found = model.select().where(same & model.state.in_(OPEN)).first()
        if found is not None:
            before = json.loads(found.payload)
            joined = _joined(before, payload)
            changes = {"payload": json.dumps(joined), "again": int(found.state == "running")}
            if joined != before:  # what is new has all its days yet
                changes["created"] = core.now_us()
            model.update(**changes).where(model.id == found.id).execute()
            return int(found.id)
    now = core.now_us()
    return core.index.insert(
        model,
        receiver=receiver,
        kind=kind,
        key=key,
        payload=json.dumps(payload),
        # What is only put off holds nobody up until its time has come.
        holds=int(delay_s <= 0),
        not_before=now + int(delay_s * 1e6) if delay_s > 0 else 0,
        created=now,
        updated=now,
    )


def _joined(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    joined = dict(new)
    for name, value in new.items():
        if isinstance(value, list) and isinstance(old.get(name), list):
            joined[name] = list(dict.fromkeys([*old[name], *value]))
    return joined


def promise(
    core: Core,
    receiver: str,
    kind: str,
    payload: Mapping[str, object],
    *,
    key: str,
    delay_s: float,
    principal: Principal,
    scope: Scope,
) -> int:
    """See ``Archive.promise``."""
    core.operate(principal, scope, "promise")

    def commit() -> int:
        detail: dict[str, object] = {"duty": kind, "receiver": receiver}
        core.add_audit(AuditRecord(APPLICATION_ACTIVITY, "E", principal, 0, detail=detail))
        return add(core, receiver, kind, payload, key, delay_s=delay_s)

    return core.index.write(commit)


def followed(core: Core, follower: str) -> int | None:
    """See ``Archive.followed``."""
    found = core.setting(f"followed/{follower}")
    return found if isinstance(found, int) else None


def promise_following(
    core: Core,
    follower: str,
    before: int | None,
    after: int,
    promises: Sequence[Promise],
    *,
    principal: Principal,
    scope: Scope,
) -> bool:
    """See ``Archive.promise_following``."""
    core.operate(principal, scope, "promise")

    def commit() -> bool:
        if followed(core, follower) != before:
            return False
        for one in promises:
            add(core, one.receiver, one.kind, one.payload, one.key, delay_s=one.delay_s)
        if promises:
            made = Counter((one.kind, one.receiver) for one in promises)
            detail: dict[str, object] = {
                "follower": follower,
                "promises": [[kind, receiver, number] for (kind, receiver), number in sorted(made.items())],
            }
            core.add_audit(AuditRecord(APPLICATION_ACTIVITY, "E", principal, 0, detail=detail))
        core.put_setting(f"followed/{follower}", after)
        return True

    return core.index.write(commit)


def claim(core: Core, kinds: Sequence[str], *, lease_s: float, owner: str) -> Duty | None:
    """See ``Archive.claim_duty``."""
    with core.index.read():
        if _next(core, kinds) is None:
            return None
    model = core.index.models.Duty

    def commit() -> Duty | None:
        row = _next(core, kinds)
        if row is None:
            return None
        now = core.now_us()
        model.update(
            state="running",
            holds=1,
            again=0,
            lease_owner=owner,
            lease_until=now + int(lease_s * 1e6),
            attempts=model.attempts + 1,
            updated=now,
        ).where(model.id == row.id).execute()
        return _duty(model.get_by_id(row.id))

    return core.index.write(commit)


def _next(core: Core, kinds: Sequence[str]) -> Any | None:
    """The duty that has waited longest of those whose turn it is."""
    model = core.index.models.Duty
    now = core.now_us()
    best = None
    for receiver, kind in _lanes(core, kinds):
        lane = (model.receiver == receiver) & (model.kind == kind) & model.state.in_(OPEN)
        if model.select().where(lane & (model.state == "running") & (model.lease_until >= now)).exists():
            continue
        due = lane & (
            ((model.state == "waiting") & (model.not_before <= now))
            | ((model.state == "running") & (model.lease_until < now))
        )
        holding = model.select(model.id).where(lane & (model.holds == 1)).order_by(model.id).limit(1).scalar()
        if holding is not None:
            due &= model.id <= holding
        row = model.select().where(due).order_by(model.id).limit(1).first()
        if row is not None and (best is None or _since(row) < _since(best)):
            best = row
    return best


def _since(row: Any) -> tuple[int, int]:
    return max(int(row.created), int(row.not_before)), int(row.id)


def _lanes(core: Core, kinds: Sequence[str]) -> list[tuple[str, str]]:
    """Lanes with something open, by a look for the next one each: a receiver that has been
    down for days has very many duties."""
    model = core.index.models.Duty
    found: list[tuple[str, str]] = []
    here = ("", "")
    while len(found) < _LANES:
        behind = (model.receiver > here[0]) | ((model.receiver == here[0]) & (model.kind > here[1]))
        row = (
            model.select(model.receiver, model.kind)
            .where(model.state.in_(OPEN) & (model.receiver >= here[0]) & behind)
            .order_by(model.receiver, model.kind)
            .limit(1)
            .first()
        )
        if row is None:
            break
        here = (row.receiver, row.kind)
        if row.kind in kinds:
            found.append(here)
    return found


def report(
    core: Core,
    duty_id: int,
    *,
    progress: Mapping[str, object] | None,
    message: str,
    lease_s: float,
    attempt: int,
) -> None:
    """See ``Archive.report_duty``."""
    changes: dict[str, object] = {"lease_until": core.now_us() + int(lease_s * 1e6)}
    if progress is not None:
        changes["progress"] = json.dumps(progress)
    if message:
        changes["message"] = message[:_MESSAGE_CHARACTERS]
    _ours(core, duty_id, attempt, lambda row: changes)


def finish(core: Core, duty_id: int, message: str, *, attempt: int) -> None:
    """See ``Archive.finish_duty``."""

    def changes(row: Any) -> dict[str, object]:
        state = "waiting" if row.again else "done"
        return {"state": state, "message": message[:_MESSAGE_CHARACTERS], "lease_until": 0, "not_before": 0}

    _ours(core, duty_id, attempt, changes)


def fail(
    core: Core, duty_id: int, message: str, retry_in_s: float | None, *, attempt: int, holds: bool
) -> None:
    """See ``Archive.fail_duty``."""
    changes: dict[str, object] = {"message": message[:_MESSAGE_CHARACTERS], "lease_until": 0}
    if retry_in_s is None:
        changes["state"] = "failed"
    else:
        changes |= {
            "state": "waiting",
            "holds": int(holds),
            "not_before": core.now_us() + int(retry_in_s * 1e6),
        }
    # What it took up while it ran was not tried yet: that is not given up with the rest.
    anew = {**changes, "state": "waiting", "not_before": 0}
    _ours(core, duty_id, attempt, lambda row: anew if row.again and retry_in_s is None else changes)


def _ours(core: Core, duty_id: int, attempt: int, changes: Callable[[Any], Mapping[str, object]]) -> None:
    """Of a duty that is still ours: each claim counts as an attempt."""
    model = core.index.models.Duty

    def commit() -> None:
        row = model.get_or_none(model.id == duty_id)
        if row is None:
            raise NoSuchDuty(duty_id)
        if row.state != "running" or row.attempts != attempt:
            raise LeaseLost(duty_id)
        model.update(updated=core.now_us(), **changes(row)).where(model.id == duty_id).execute()

    core.index.write(commit)


# ---- what operators see and do ----------------------------------------------------------


def duties(
    core: Core, *, receiver: str, kind: str, state: str, limit: int, principal: Principal, scope: Scope
) -> list[Duty]:
    """See ``Archive.duties``."""
    core.check(principal, Action.OPERATE)
    if not scope.is_everything:
        return []
    if state and state not in set(DutyState):
        raise BadQuery(f"{state[:64]!r} is no state of a duty")
    model = core.index.models.Duty
    query = model.select().order_by(model.id.desc()).limit(limit)
    for column, value in ((model.receiver, receiver), (model.kind, kind), (model.state, state)):
        if value:
            query = query.where(column == value)
    with core.index.read():
        return [_duty(row) for row in query]


def counts(core: Core) -> dict[str, int]:
    """See ``Archive.duty_counts``."""
    model = core.index.models.Duty
    with core.index.read() as database:
        table = model._meta.table_name
        rows = database.execute_sql(f"SELECT state, COUNT(*) FROM {table} GROUP BY state").fetchall()
    return {str(state): 0 for state in DutyState} | {str(state): int(number) for state, number in rows}


def retry(core: Core, duty_id: int, *, principal: Principal, scope: Scope) -> None:
    """See ``Archive.retry_duty``."""
    now = core.now_us()
    changes = {"state": "waiting", "not_before": 0, "holds": 1, "lease_until": 0, "created": now}
    _decide(core, duty_id, ("waiting", "failed", "cancelled"), changes, "retry", "", principal, scope)


def cancel(core: Core, duty_id: int, reason: str, *, principal: Principal, scope: Scope) -> None:
    """See ``Archive.cancel_duty``."""
    changes = {
        "state": "cancelled",
        "message": f"cancelled: {reason}"[:_MESSAGE_CHARACTERS],
        "lease_until": 0,
    }
    states = ("waiting", "running", "failed")
    _decide(core, duty_id, states, changes, "cancel", reason, principal, scope)


def _decide(
    core: Core,
    duty_id: int,
    states: Sequence[str],
    changes: Mapping[str, object],
    what: str,
    reason: str,
    principal: Principal,
    scope: Scope,
) -> None:
    core.operate(principal, scope, what)
    model = core.index.models.Duty

    def commit() -> None:
        row = model.get_or_none(model.id == duty_id)
        if row is None:
            raise NoSuchDuty(duty_id)
        if row.state not in states:
            raise BadQuery(f"duty {duty_id} is {row.state}")
        same = (model.receiver == row.receiver) & (model.kind == row.kind) & (model.key == row.key)
        if row.key and row.state not in OPEN and what == "retry":
            other = model.select().where(same & model.state.in_(OPEN)).first()
            if other is not None:
                raise BadQuery(f"duty {other.id} does the same already")
        model.update(updated=core.now_us(), **changes).where(model.id == duty_id).execute()
        detail: dict[str, object] = {"duty": duty_id, "kind": row.kind, what: reason or True}
        core.add_audit(AuditRecord(APPLICATION_ACTIVITY, "U", principal, 0, detail=detail))

    core.index.write(commit)


def forget(core: Core, older_than_s: float) -> int:
    """See ``Archive.forget_duties``."""
    model = core.index.models.Duty
    before = core.now_us() - int(older_than_s * 1e6)
    over = model.state.in_(["done", "cancelled"]) & (model.updated < before)
    with core.index.read():
        if not model.select().where(over).exists():
            return 0
    return core.index.write(lambda: int(model.delete().where(over).execute()))


# ---- what receivers have ------------------------------------------------------------------


def confirm(core: Core, receiver: str, instances: Iterable[tuple[str, int]]) -> None:
    """See ``Archive.confirm_delivered``."""
    model = core.index.models.Delivered
    kept = dict(instances)

    def commit() -> None:
        now = core.now_us()
        for sop, revision in kept.items():
            model.insert(receiver=receiver, sop_instance_uid=sop, revision=revision, time=now).on_conflict(
                conflict_target=[model.receiver, model.sop_instance_uid],
                update={model.revision: revision, model.time: now},
            ).execute()

    if kept:
        core.index.write(commit)


def delivered(core: Core, receiver: str, sops: Sequence[str]) -> dict[str, int]:
    """See ``Archive.delivered``."""
    model = core.index.models.Delivered
    found: dict[str, int] = {}
    with core.index.read():
        for start in range(0, len(sops), _UIDS_AT_ONCE):
            some = list(sops[start : start + _UIDS_AT_ONCE])
            query = model.select(model.sop_instance_uid, model.revision).where(
                (model.receiver == receiver) & model.sop_instance_uid.in_(some)
            )
            found |= {row.sop_instance_uid: int(row.revision) for row in query}
    return found


def _duty(row: Any) -> Duty:
    return Duty(
        id=int(row.id),
        receiver=row.receiver,
        kind=row.kind,
        key=row.key,
        payload=json.loads(row.payload),
        state=DutyState(row.state),
        attempts=row.attempts,
        progress=json.loads(row.progress),
        message=row.message,
        not_before=moment(row.not_before) if row.not_before else None,
        created=moment(row.created),
        updated=moment(row.updated),
    )
