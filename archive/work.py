# SPDX-License-Identifier: Apache-2.0
"""Jobs by lease, quarantine, and what watched folders brought."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from archive.access import Action, Principal, Scope
from archive.audit import APPLICATION_ACTIVITY, IMPORT, AuditRecord
from archive.core import Core
from archive.errors import LeaseLost, NoSuchJob, NotAllowed, NotFound
from archive.indexing import refer, release
from archive.record import BlobRef, blob_key
from archive.rows import moment
from archive.values import ByteStream, Job, JobState, Quarantined, StagedFile

RETRY_S = (5, 30, 120, 600)


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
        core.add_audit(AuditRecord(APPLICATION_ACTIVITY, "E", principal, 0, detail={"job": kind}))
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


def _update(core: Core, job_id: int, attempt: int | None, **changes: Any) -> None:
    """Of a job that is still ours: each claim counts as an attempt."""
    model = core.index.models.Job

    def commit() -> None:
        row = model.get_or_none(model.id == job_id)
        if row is None:
            raise NoSuchJob(job_id)
        if attempt is not None and (row.state != "running" or row.attempts != attempt):
            raise LeaseLost(job_id)
        model.update(updated=core.now_us(), **changes).where(model.id == job_id).execute()

    core.index.write(commit)


def report(
    core: Core, job_id: int, *, progress: float, message: str, lease_s: float, attempt: int | None
) -> None:
    """See ``Archive.report``."""
    until = core.now_us() + int(lease_s * 1e6)
    _update(core, job_id, attempt, progress=progress, message=message, lease_until=until)


def finish(core: Core, job_id: int, message: str, *, attempt: int | None) -> None:
    _update(core, job_id, attempt, state="done", progress=1.0, message=message, lease_until=0)


def fail(core: Core, job_id: int, message: str, *, retry: bool, attempt: int | None) -> None:
    """See ``Archive.fail``."""
    model = core.index.models.Job
    with core.index.read():
        row = model.get_or_none(model.id == job_id)
    if row is None:
        raise NoSuchJob(job_id)
    if retry:
        wait = RETRY_S[min(row.attempts, len(RETRY_S)) - 1]
        _update(
            core,
            job_id,
            attempt,
            state="waiting",
            message=message,
            lease_until=0,
            not_before=core.now_us() + wait * 1_000_000,
        )
    else:
        _update(core, job_id, attempt, state="failed", message=message, lease_until=0)


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
    ref = BlobRef(staged.sha256, staged.size_bytes)
    try:
        core.check(principal, Action.STORE)
        if not scope.is_everything:
            core.refuse(principal, "quarantine from a limited scope")
            raise NotAllowed(str(Action.STORE))
        core.storage.put_file(blob_key(ref.digest), staged.path, sha256=ref.digest)
        detail: dict[str, object] = {"quarantined": ref.digest.hex(), "source": source}
        event = AuditRecord(IMPORT, "C", principal, 4, detail=detail)

        def commit() -> int:
            core.add_audit(event)
            return add_quarantine(core, name=name, reason=reason, source=source, blob=ref, sop="")

        return core.index.write(commit)
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


def resolve(core: Core, entry: int, *, reason: str, principal: Principal, scope: Scope) -> None:
    """See ``Archive.resolve``."""
    core.operate(principal, scope, "resolve")
    model = core.index.models.Quarantine

    def commit() -> None:
        row = model.get_or_none((model.id == entry) & model.resolved.is_null())
        if row is None:
            raise NotFound(f"nothing in quarantine has the number {entry}")
        model.update(resolved=core.now_us()).where(model.id == entry).execute()
        release(core, "quarantine", entry, core.clock())
        detail: dict[str, object] = {"resolved": entry, "reason": reason}
        core.add_audit(
            AuditRecord(
                APPLICATION_ACTIVITY, "D", principal, 0, sop_instance_uid=row.sop_instance_uid, detail=detail
            )
        )

    core.index.write(commit)


def resolve_stored(core: Core, digests: Sequence[bytes], *, principal: Principal, scope: Scope) -> int:
    """See ``Archive.resolve_stored``."""
    core.check(principal, Action.STORE)
    if not scope.is_everything:
        return 0
    model = core.index.models.Quarantine
    # an entry with a UID is an instance that differs from the stored one: a person decides
    same = model.digest.in_(list(digests)) & (model.sop_instance_uid == "") & model.resolved.is_null()
    with core.index.read():
        if not model.select().where(same).exists():
            return 0

    def commit() -> int:
        rows = list(model.select().where(same))
        for row in rows:
            model.update(resolved=core.now_us()).where(model.id == row.id).execute()
            release(core, "quarantine", row.id, core.clock())
            detail: dict[str, object] = {"resolved": row.id, "reason": "the same file was stored later"}
            core.add_audit(AuditRecord(APPLICATION_ACTIVITY, "D", principal, 0, detail=detail))
        return len(rows)

    return core.index.write(commit)


def quarantined_bytes(
    core: Core, entry: int, *, principal: Principal, scope: Scope
) -> tuple[str, ByteStream]:
    """See ``Archive.quarantined_bytes``."""
    core.operate(principal, scope, "read from quarantine")
    model = core.index.models.Quarantine
    with core.index.read():
        row = model.get_or_none((model.id == entry) & model.resolved.is_null())
    if row is None:
        raise NotFound(f"nothing in quarantine has the number {entry}")
    file = core.files.get(row.file)
    core.access.note("bulk", principal, "", row.sop_instance_uid, 1, f"quarantine {entry}")
    return row.name, ByteStream(file.size, file.chunks(0, file.size))


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
