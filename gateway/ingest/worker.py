# SPDX-License-Identifier: Apache-2.0
"""Does the jobs that wait: conversions and thumbnails.

A job is claimed by a lease that a heartbeat renews; when a worker dies, another takes the
job over once the lease has run out. What a job does may be done twice without harm: a
file is known by its digest, a thumbnail is kept once.
"""

import logging
import os
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from archive.access import Principal, Scope
from archive.errors import ArchiveError, Busy, DuplicateInstance, SourceChanged, StorageFailed, StorageFull
from archive.spool import hash_file
from archive.values import Job, Outcome, Sender
from converters.errors import ConversionError
from gateway.ingest.convert import sweep_scratch
from gateway.ingest.pipeline import Ingested, ingest_file
from gateway.ingest.settling import Seen, shown
from gateway.logs import hashed
from gateway.settings import WorkerSettings

if TYPE_CHECKING:
    from archive.service import Archive

log = logging.getLogger(__name__)

INGEST = "ingest"
DERIVATIVES = "derivatives"
KINDS = (INGEST, DERIVATIVES)

STORED = "stored"
REFUSED = "refused"
_TRANSIENT = (StorageFull, StorageFailed, Busy)
_HEARTBEATS_PER_LEASE = 3


@dataclass(frozen=True, slots=True)
class IngestJob:
    """Payload of an ``ingest`` job.

    ``name`` is what operators see (it may hold patient data: never logged). ``folder``
    and ``identity`` are the watcher's; empty for files that came another way, then a
    file that changes meanwhile is tried again.
    """

    path: str
    name: str = ""
    folder: str = ""
    identity: str = ""
    delete_source: bool = False

    def payload(self) -> dict[str, object]:
        return asdict(self)

    @classmethod
    def of(cls, payload: Mapping[str, object]) -> "IngestJob":
        """Raises ValueError when the payload has no path or values of other types."""
        known = {item.name: payload[item.name] for item in fields(cls) if item.name in payload}
        job = cls(**known)  # type: ignore[arg-type]
        texts = (job.path, job.name, job.folder, job.identity)
        if not job.path or not all(isinstance(text, str) for text in texts):
            raise ValueError("not the payload of an ingest job")
        return job


class Worker:
    """Claims and runs one job at a time."""

    def __init__(self, archive: "Archive", settings: WorkerSettings, secret: bytes) -> None:
        self._archive = archive
        self._settings = settings
        self._secret = secret
        self._owner = f"{socket.gethostname()}-{os.getpid()}"
        self._principal = Principal("worker", "worker")

    @property
    def _scope(self) -> Scope:
        return self._archive.policy.scope(self._principal)

    def run_one(self) -> bool:
        """Claim and run the next job; False when none is due."""
        job = self._archive.claim(KINDS, lease_s=self._settings.lease_s, owner=self._owner)
        if job is None:
            return False
        with self._heartbeat(job) as progress:
            try:
                self._run(job, progress)
            except _TRANSIENT as error:
                self._again(job, str(error))
            except OSError as error:
                self._again(job, f"input or output error: {os.strerror(error.errno or 0)}")
            except Exception as error:  # a fault of ours: the job must not take the worker with it
                log.exception("job %d failed", job.id)
                self._again(job, f"internal error ({type(error).__name__})")
        return True

    def _run(self, job: Job, progress: Callable[[float], None]) -> None:
        if job.kind == INGEST:
            self._ingest(job, progress)
        else:
            self._derive(job)

    def _ingest(self, job: Job, progress: Callable[[float], None]) -> None:
        try:
            task = IngestJob.of(job.payload)
        except (TypeError, ValueError):
            self._archive.fail(job.id, "the job's payload is not understood", retry=False)
            return
        path = Path(task.path)
        if job.attempts > self._settings.attempts:
            # Its worker died each time: the file must not kill them forever.
            self._refuse(job, task, f"given up: {job.attempts - 1} workers died of it")
            return
        if task.identity and not _is_unchanged(path, task):
            self._archive.finish(job.id, "the file changed or is gone; a new one is taken once it is quiet")
            return
        sender = Sender("ingest", task.folder)
        try:
            taken = ingest_file(
                self._archive, path, principal=self._principal, scope=self._scope,
                secret=self._secret, sender=sender, progress=progress,
            )  # fmt: skip
        except SourceChanged as error:
            if task.identity:
                self._archive.finish(job.id, f"{error}; it is taken again once it is quiet")
            else:
                self._again(job, str(error))
            return
        except _TRANSIENT:
            raise
        except (ArchiveError, ConversionError) as refusal:
            self._refuse(job, task, str(refusal), keep=not isinstance(refusal, DuplicateInstance))
            return
        outcomes = sorted({str(one.outcome) for one in taken.stored})
        message = f"{len(taken.stored)} instances: {', '.join(outcomes)}"
        if task.identity:
            self._archive.note_watched(task.folder, task.identity, outcome=STORED, digest=taken.digest)
        made = {(one.study_instance_uid, one.series_instance_uid) for one in taken.stored}
        for study, series in sorted(made):
            self._archive.enqueue(
                DERIVATIVES, {"study": study, "series": series},
                principal=self._principal, scope=self._scope, key=series,
            )  # fmt: skip
        if task.delete_source:
            message += self._delete_source(path, task, taken)
        self._archive.finish(job.id, message)
        log.info("job %d: %s", job.id, message)

    def _derive(self, job: Job) -> None:
        """The series' thumbnail, made before somebody waits for it."""
        study, series = (str(job.payload.get(key, "")) for key in ("study", "series"))
        try:
            self._archive.thumbnail(study, series, principal=self._principal, scope=self._scope)
        except _TRANSIENT:
            raise
        except ArchiveError as refusal:  # no picture can be made of it, now or later
            self._archive.fail(job.id, str(refusal), retry=False)
            return
        self._archive.finish(job.id, "")

    def _again(self, job: Job, reason: str) -> None:
        """Put it back with back-off; after too many attempts it has failed for good."""
        if job.attempts < self._settings.attempts:
            self._archive.fail(job.id, reason, retry=True)
            log.warning("job %d, attempt %d: %s", job.id, job.attempts, reason)
            return
        if job.kind == INGEST:
            self._refuse(job, IngestJob.of(job.payload), reason)
        else:
            self._archive.fail(job.id, reason, retry=False)

    def _refuse(self, job: Job, task: IngestJob, reason: str, *, keep: bool = True) -> None:
        """Fail for good, with the bytes in quarantine and the reason where operators look.

        ``keep`` is False where the archive has put them there itself.
        """
        name = task.name or shown(Path(task.path).name)
        log.warning("job %d: %s refused: %s", job.id, hashed(name), reason)
        if keep:
            self._quarantine(task, name, reason)
        if task.identity:
            self._archive.note_watched(task.folder, task.identity, outcome=REFUSED, reason=reason)
        self._archive.fail(job.id, reason, retry=False)

    def _quarantine(self, task: IngestJob, name: str, reason: str) -> None:
        try:
            staged = self._archive.stage_copy(Path(task.path))
            self._archive.quarantine(
                staged, name, reason, principal=self._principal, scope=self._scope, source=task.folder
            )
        except (ArchiveError, OSError) as error:
            # The source is left where it is, and the job says why it failed.
            log.warning("%s could not be kept in quarantine: %s", hashed(name), type(error).__name__)

    def _delete_source(self, path: Path, task: IngestJob, taken: Ingested) -> str:
        """Remove the file from its folder if it still is, byte for byte, what was stored."""
        if any(one.outcome is Outcome.KEPT_FIRST for one in taken.stored):
            return "; the source was left: an operator must look at it"
        try:
            if not _is_unchanged(path, task) or hash_file(path) != taken.digest:
                return "; the source changed meanwhile and was left"
            path.unlink()
        except OSError as error:
            log.warning("%s could not be deleted: %s", hashed(task.name), os.strerror(error.errno or 0))
            return "; the source could not be deleted"
        return "; source deleted"

    @contextmanager
    def _heartbeat(self, job: Job) -> Iterator[Callable[[float], None]]:
        """Renew the lease while the block runs; gives what to report progress to."""
        share = 0.0
        ended = threading.Event()

        def progress(done: float) -> None:
            nonlocal share
            share = done

        def beat() -> None:
            while not ended.wait(self._settings.lease_s / _HEARTBEATS_PER_LEASE):
                try:
                    self._archive.report(job.id, progress=share, lease_s=self._settings.lease_s)
                except Exception:  # the next beat may reach the database again
                    log.exception("the lease of job %d could not be renewed", job.id)

        beating = threading.Thread(target=beat, name=f"job-{job.id}", daemon=True)
        beating.start()
        try:
            yield progress
        finally:
            ended.set()
            beating.join()


def _is_unchanged(path: Path, task: IngestJob) -> bool:
    """Whether the file still is the one that the watcher saw."""
    try:
        status = path.stat()
    except OSError:
        return False
    seen = Seen(task.name, status.st_ino, status.st_size, status.st_mtime_ns)
    return seen.identity == task.identity


def work(
    archive: "Archive",
    settings: WorkerSettings,
    secret: bytes,
    ready: Callable[[], None],
    stop: threading.Event,
) -> None:
    """Run jobs until ``stop`` is set; the one that runs then is finished first."""
    worker = Worker(archive, settings, secret)
    sweep_scratch(archive.spool_path().parent)
    ready()
    while not stop.is_set():
        try:
            ran = worker.run_one()
        except Exception:  # the database is away: jobs wait for it, and so do we
            log.exception("no job could be claimed")
            ran = False
        if not ran:
            stop.wait(settings.poll_s)
