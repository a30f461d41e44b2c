# SPDX-License-Identifier: Apache-2.0
"""Jobs by lease, quarantine, and what watched folders brought."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from archive.access import Action, Principal, Scope
from archive.core import Core
from archive.errors import NoSuchJob, NotAllowed
from archive.indexing import refer
from archive.record import BlobRef, blob_key
from archive.rows import moment
from archive.values import Job, JobState, Quarantined, StagedFile

RETRY_S = (5, 30, 120, 600, 3600)
MAX_ATTEMPTS = 20


def enqueue(
    core: Core, kind: str, payload: Mapping[str, object], *, principal: Principal, scope: Scope, key: str
) -> int:
    """See ``Archive.enqueue``."""
    core.check(principal, Action.OPERATE)
    if not scope.is_everything:
        core.refuse(principal, "job from a limited scope")
        raise NotAllowed(str(Action.OPERATE))
    model = core.index.models.Job

    def commit() -> int:
        if key:
            waiting = (
                model.select()
                .where((model.kind == kind) & (model.key == key) & model.state.in_(["waiting", "running"]))
                .first()
            )
            if waiting is not None:
                return int(waiting.id)
        now = core.now_us()
        return int(model.create(kind=kind, key=key, payload=json.dumps(payload), created=now, updated=now).id)

    return core.index.write(commit)


def claim(core: Core, kinds: Sequence[str], *, lease_s: float, owner: str) -> Job | None:
    """See ``Archive.claim``. A job whose lease ran out is claimed again."""
    model = core.index.models.Job
    now = core.now_us()
    due = model.kind.in_(list(kinds)) & (
        ((model.state == "waiting") & (model.not_before <= now))
        | ((model.state == "running") & (model.lease_until < now))
    )
    with core.index.read():
        if not model.select().where(due).exists():
            return None

    def commit() -> Job | None:
        query = model.select().where(due).order_by(model.id).limit(1)
        if core.index.dialect == "postgresql":
            query = query.for_update("FOR UPDATE SKIP LOCKED")
        row = query.first()
        if row is None:
            return None
        model.update(
            state="running",
            lease_owner=owner,
            lease_until=now + int(lease_s * 1e6),
            attempts=model.attempts + 1,
            updated=now,
        ).where(model.id == row.id).execute()
        return _job(model.get_by_id(row.id))

    return core.index.write(commit)


def _update(core: Core, job_id: int, **changes: Any) -> None:
    model = core.index.models.Job

    def commit() -> None:
        if not model.update(updated=core.now_us(), **changes).where(model.id == job_id).execute():
            raise NoSuchJob(job_id)

    core.index.write(commit)


def report(core: Core, job_id: int, *, progress: float, message: str, lease_s: float) -> None:
    """See ``Archive.report``."""
    _update(core, job_id, progress=progress, message=message, lease_until=core.now_us() + int(lease_s * 1e6))


def finish(core: Core, job_id: int, message: str) -> None:
    _update(core, job_id, state="done", progress=1.0, message=message, lease_until=0)


def fail(core: Core, job_id: int, message: str, *, retry: bool) -> None:
    """See ``Archive.fail``."""
    model = core.index.models.Job
    with core.index.read():
        row = model.get_or_none(model.id == job_id)
    if row is None:
        raise NoSuchJob(job_id)
    if retry and row.attempts < MAX_ATTEMPTS:
        wait = RETRY_S[min(row.attempts, len(RETRY_S)) - 1]
        _update(
            core,
            job_id,
            state="waiting",
            message=message,
            lease_until=0,
            not_before=core.now_us() + wait * 1_000_000,
        )
    else:
        _update(core, job_id, state="failed", message=message, lease_until=0)


def jobs(core: Core, *, principal: Principal, scope: Scope, limit: int) -> list[Job]:
    """See ``Archive.jobs``."""
    core.check(principal, Action.OPERATE)
    if not scope.is_everything:
        return []
    model = core.index.models.Job
    with core.index.read():
        return [_job(row) for row in model.select().order_by(model.id.desc()).limit(limit)]


def _job(row: Any) -> Job:
    return Job(
        row.id,
        row.kind,
        json.loads(row.payload),
        JobState(row.state),
        row.attempts,
        row.progress,
        row.message,
        moment(row.created),
        moment(row.updated),
    )


# ---- quarantine ---------------------------------------------------------------------


def quarantine(
    core: Core, staged: StagedFile, name: str, reason: str, *, principal: Principal, scope: Scope, source: str
) -> int:
    """See ``Archive.quarantine``."""
    core.check(principal, Action.STORE)
    if not scope.is_everything:
        raise NotAllowed(str(Action.STORE))
    ref = BlobRef(staged.sha256, staged.size_bytes)
    try:
        core.storage.put_file(blob_key(ref.digest), staged.path, sha256=ref.digest)
        return core.index.write(
            lambda: add_quarantine(core, name=name, reason=reason, source=source, blob=ref, sop="")
        )
    finally:
        staged.path.unlink(missing_ok=True)


def add_quarantine(core: Core, *, name: str, reason: str, source: str, blob: BlobRef, sop: str) -> int:
    """Call inside ``index.write``; the same bytes for the same reason are one entry."""
    model = core.index.models.Quarantine
    same = (
        model.select()
        .where((model.digest == blob.digest) & (model.reason == reason) & model.resolved.is_null())
        .first()
    )
    if same is not None:
        return int(same.id)
    row = model.create(
        name=name,
        reason=reason,
        source=source,
        size_bytes=blob.size_bytes,
        digest=blob.digest,
        file=blob_key(blob.digest),
        sop_instance_uid=sop,
        created=core.now_us(),
    )
    refer(core, blob, "quarantine", row.id, core.clock())
    return int(row.id)


def quarantined(core: Core, *, principal: Principal, scope: Scope, limit: int) -> list[Quarantined]:
    """See ``Archive.quarantined``."""
    core.check(principal, Action.OPERATE)
    if not scope.is_everything:
        return []
    model = core.index.models.Quarantine
    with core.index.read():
        return [
            Quarantined(
                row.id,
                row.name,
                row.reason,
                row.source,
                row.size_bytes,
                moment(row.created),
                row.sop_instance_uid,
            )
            for row in model.select().where(model.resolved.is_null()).order_by(model.id.desc()).limit(limit)
        ]


# ---- watched folders ------------------------------------------------------------------


def watched(core: Core, folder: str, identity: str) -> str | None:
    """See ``Archive.watched``."""
    model = core.index.models.WatchedFile
    with core.index.read():
        row = model.get_or_none((model.folder == folder) & (model.identity == identity))
    return None if row is None else str(row.outcome)


def note_watched(
    core: Core, folder: str, identity: str, *, outcome: str, reason: str, digest: bytes | None
) -> None:
    """See ``Archive.note_watched``."""
    model = core.index.models.WatchedFile

    def commit() -> None:
        changes = {"outcome": outcome, "reason": reason, "digest": digest, "time": core.now_us()}
        found = (model.folder == folder) & (model.identity == identity)
        if not model.update(**changes).where(found).execute():
            model.create(folder=folder, identity=identity, **changes)

    core.index.write(commit)
