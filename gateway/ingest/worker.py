# SPDX-License-Identifier: Apache-2.0
"""Does the jobs that wait: conversions and thumbnails.

A job is claimed by a lease that a heartbeat renews; when a worker dies, another takes the
job over once the lease has run out. What a job does may be done twice without harm: a
file is known by its digest, a thumbnail is kept once.

How an attempt may end: it is done; the file is refused, for good; something is in the way
that passes (a full disk, a database that is down), and the job waits, however often; or it
goes wrong by a fault of ours, or the worker dies of it, which is tried ``worker.attempts``
times in a row. That count is kept in the job's message, where operators see it too.
"""

import logging
import os
import re
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from archive.access import Principal, Scope
from archive.errors import ArchiveError, DuplicateInstance, LeaseLost, NoSuchJob, SourceChanged
from archive.matching_keys import MATCHING_KEYS
from archive.spool import hash_file
from archive.values import Job, Outcome, Sender
from converters.errors import ConversionError
from gateway.ingest.convert import Converter, sweep_scratch
from gateway.ingest.pipeline import Ingested, ingest_file
from gateway.ingest.settling import Seen, shown
from gateway.ingest.transient import is_transient, reason_of
from gateway.logs import hashed
from gateway.settings import WorkerSettings

if TYPE_CHECKING:
    from archive.service import Archive

log = logging.getLogger(__name__)

INGEST = "ingest"
DERIVATIVES = "derivatives"
KINDS = (INGEST, DERIVATIVES, MATCHING_KEYS)

STORED = "stored"
REFUSED = "refused"
COMMITMENT = "commitment"
AT_WORK = "at work"
_TALLY = re.compile(r" \(went wrong (\d+) times? in a row\)$")
_HEARTBEATS_PER_LEASE = 3
_MESSAGE_CHARACTERS = 500


@dataclass(frozen=True, slots=True)
class IngestJob:
    """Payload of an ``ingest`` job.

    ``name`` is what operators see (it may hold patient data: never logged). ``folder``
    and ``identity`` are the watcher's; empty for files that came another way, then a
    file that changes meanwhile is tried again. ``others``: the state of the other files of
    its slide when the watcher saw it; a refusal holds for this state only.
    """

    path: str
    name: str = ""
    folder: str = ""
    identity: str = ""
    delete_source: bool = False
    others: str = ""

    def payload(self) -> dict[str, object]:
        return asdict(self)

    @classmethod
    def of(cls, payload: Mapping[str, object]) -> "IngestJob":
        """Raises ValueError when the payload has no path or values of other types."""
        known = {item.name: payload[item.name] for item in fields(cls) if item.name in payload}
        job = cls(**known)  # type: ignore[arg-type]
        texts = (job.path, job.name, job.folder, job.identity, job.others)
        if not job.path or not all(isinstance(text, str) for text in texts):
            raise ValueError("not the payload of an ingest job")
        return job


class Worker:
    """Claims and runs one job at a time."""

    def __init__(
        self,
        archive: "Archive",
        settings: WorkerSettings,
        secret: bytes,
        converter: Converter | None = None,
    ) -> None:
        self._converter = converter
        self._archive = archive
        self._settings = settings
        self._secret = secret
        self._owner = f"{socket.gethostname()}-{os.getpid()}"
        self._principal = Principal("worker", "worker")
        self._unsaid: dict[int, tuple[Job, str]] = {}  # what the database was too far away to hear

    @property
    def _scope(self) -> Scope:
        return self._archive.policy.scope(self._principal)

    def run_one(self) -> bool:
        """Claim and run the next job; False when none is due. Raises what the database
        raises while it cannot be reached."""
        for unsaid, reason in list(self._unsaid.values()):
            with suppress(LeaseLost, NoSuchJob):
                self._archive.fail(unsaid.id, reason, retry=True, attempt=unsaid.attempts)
            del self._unsaid[unsaid.id]
        job = self._archive.claim((*KINDS, COMMITMENT), lease_s=self._settings.lease_s, owner=self._owner)
        if job is None:
            return False
        try:
            self._attempt(job)
        except LeaseLost:
            log.warning("job %d is somebody else's by now", job.id)
        except Exception as error:
            if not is_transient(error):
                raise
            self._later(job, reason_of(error))
        return True

    def _attempt(self, job: Job) -> None:
        """Raises what passes by itself, and LeaseLost."""
        wrong = went_wrong(job)
        if wrong >= self._settings.attempts:
            # Its worker died each time: the job must not kill them forever.
            self._give_up(job, f"given up: {wrong} workers died of it", wrong)
            return
        self._report(job, 0.0, tallied(AT_WORK, wrong))
        try:
            with self._heartbeat(job, wrong) as (progress, say):
                if job.kind == COMMITMENT:
                    self._commit_storage(job, progress)
                elif job.kind == INGEST:
                    self._ingest(job, progress, say)
                elif job.kind == MATCHING_KEYS:
                    count = self._archive.index_keys(progress, principal=self._principal, scope=self._scope)
                    self._finish(job, f"{count} instances read")
                else:
                    self._derive(job)
        except LeaseLost:
            raise
        except Exception as error:  # a fault of ours: the job must not take the worker with it
            if is_transient(error):
                raise
            log.exception("job %d failed", job.id)
            reason = f"internal error ({type(error).__name__})"
            if wrong + 1 < self._settings.attempts:
                self._later(job, reason, wrong + 1)
            else:
                self._give_up(job, reason, wrong + 1)

    def _ingest(self, job: Job, progress: Callable[[float], None], say: Callable[[str], None]) -> None:
        try:
            task = IngestJob.of(job.payload)
        except (TypeError, ValueError):
            self._fail(job, "the job's payload is not understood")
            return
        path = Path(task.path)
        if task.identity and not _is_unchanged(path, task):
            self._finish(job, "the file changed or is gone; a new one is taken once it is quiet")
            return
        sender = Sender("ingest", task.folder)
        again: list[str] = []

        def told(text: str) -> None:
            again.append(text)
            say(text)

        try:
            taken = ingest_file(
                self._archive, path, principal=self._principal, scope=self._scope,
                secret=self._secret, sender=sender, progress=progress, converter=self._converter,
                say=told,
            )  # fmt: skip
        except SourceChanged as error:
            if not task.identity:
                raise
            self._finish(job, f"{error}; it is taken again once it is quiet")
            return
        except FileNotFoundError:
            if path.exists():
                raise
            self._fail(job, "the file is gone")
            return
        except LeaseLost:
            raise
        except (ArchiveError, ConversionError) as refusal:
            if is_transient(refusal):
                raise
            self._refuse(job, task, str(refusal), keep=not isinstance(refusal, DuplicateInstance))
            return
        outcomes = sorted({str(one.outcome) for one in taken.stored})
        message = f"{len(taken.stored)} instances: {', '.join(outcomes)}"
        if again:
            message = f"{message}; {'; '.join(again)}"[:_MESSAGE_CHARACTERS]
        if task.identity:
            self._archive.note_watched(task.folder, task.identity, outcome=STORED, digest=taken.digest)
        made = {(one.study_instance_uid, one.series_instance_uid) for one in taken.stored} - {("", "")}
        for study, series in sorted(made):
            self._archive.enqueue(
                DERIVATIVES, {"study": study, "series": series},
                principal=self._principal, scope=self._scope, key=series,
            )  # fmt: skip
        if task.delete_source:
            message += self._delete_source(path, task, taken)
        self._finish(job, message)
        log.info("job %d: %s", job.id, message)

    def _derive(self, job: Job) -> None:
        """The series' thumbnail, made before somebody waits for it."""
        study, series = (str(job.payload.get(key, "")) for key in ("study", "series"))
        try:
            self._archive.thumbnail(study, series, principal=self._principal, scope=self._scope)
        except ArchiveError as refusal:
            if is_transient(refusal):
                raise
            self._fail(job, str(refusal))  # no picture can be made of it, now or later
            return
        self._finish(job, "")

    def _commit_storage(self, job: Job, progress: Callable[[float], None]) -> None:
        """Read every byte that somebody asked us to answer for (PS3.4 Annex J)."""
        try:
            asked, failed = self._archive.run_commitment(str(job.payload.get("transaction", "")), progress)
        except ArchiveError as refusal:
            if is_transient(refusal):
                raise
            self._fail(job, str(refusal))
            return
        self._finish(job, f"{asked - failed} of {asked} instances committed")

    # ---- how it ended -----------------------------------------------------------------
    def _report(self, job: Job, share: float, message: str) -> None:
        self._archive.report(
            job.id, progress=share, message=message, lease_s=self._settings.lease_s, attempt=job.attempts
        )

    def _finish(self, job: Job, message: str) -> None:
        self._archive.finish(job.id, message, attempt=job.attempts)

    def _fail(self, job: Job, reason: str) -> None:
        self._archive.fail(job.id, reason, retry=False, attempt=job.attempts)

    def _later(self, job: Job, reason: str, wrong: int = 0) -> None:
        """Put it back, with pauses that grow to ten minutes. Where the database cannot be
        told, it is once it is back."""
        log.warning("job %d, attempt %d: %s", job.id, job.attempts, reason)
        message = tallied(reason, wrong)
        try:
            self._archive.fail(job.id, message, retry=True, attempt=job.attempts)
        except LeaseLost:
            log.warning("job %d is somebody else's by now", job.id)
        except Exception:
            log.exception("job %d could not be put back yet", job.id)
            self._unsaid[job.id] = (job, message)

    def _give_up(self, job: Job, reason: str, wrong: int) -> None:
        """After too many attempts that went wrong it has failed for good."""
        try:
            if job.kind == INGEST:
                self._refuse(job, IngestJob.of(job.payload), reason)
            else:
                self._fail(job, reason)
        except LeaseLost:
            raise
        except (TypeError, ValueError):
            self._fail(job, reason)  # its payload names no file
        except Exception as error:
            if not is_transient(error):
                raise
            self._later(job, reason_of(error), wrong)  # the count stays: it is not run again

    def _refuse(self, job: Job, task: IngestJob, reason: str, *, keep: bool = True) -> None:
        """Fail for good, with the bytes in quarantine and the reason where operators look.

        ``keep`` is False where the archive has put them there itself. Raises what passes by
        itself: then nothing is final, and the job is tried again.
        """
        name = task.name or shown(Path(task.path).name)
        if keep:
            self._quarantine(task, name, reason)
        log.warning("job %d: %s refused: %s", job.id, hashed(name), reason)
        if task.identity:
            known_as = with_others(task.identity, task.others)
            self._archive.note_watched(task.folder, known_as, outcome=REFUSED, reason=reason)
        self._fail(job, reason)

    def _quarantine(self, task: IngestJob, name: str, reason: str) -> None:
        try:
            staged = self._archive.stage_copy(Path(task.path))
            self._archive.quarantine(
                staged, name, reason, principal=self._principal, scope=self._scope, source=task.folder
            )
        except (ArchiveError, OSError) as error:
            if is_transient(error):
                raise
            # The source is left where it is, and the job says why it failed.
            log.warning("%s could not be kept in quarantine: %s", hashed(name), type(error).__name__)

    def _delete_source(self, path: Path, task: IngestJob, taken: Ingested) -> str:
        """Remove the file from its folder if it still is, byte for byte, what was stored."""
        if any(one.outcome is Outcome.KEPT_FIRST for one in taken.stored):
            return "; the source was left: an operator must look at it"
        try:
            sources = [(path.parent / name, digest) for name, digest in taken.files]
            if not _is_unchanged(path, task) or any(hash_file(one) != digest for one, digest in sources):
                return "; the source changed meanwhile and was left"
            for one, _ in reversed(sources):  # the main file last: without it nobody knows the others
                one.unlink()
                for folder in one.relative_to(path.parent).parents[:-1]:
                    with suppress(OSError):  # it holds something else
                        (path.parent / folder).rmdir()
        except OSError as error:
            log.warning("%s could not be deleted: %s", hashed(task.name), os.strerror(error.errno or 0))
            return "; the source could not be deleted"
        return "; source deleted"

    @contextmanager
    def _heartbeat(
        self, job: Job, wrong: int
    ) -> Iterator[tuple[Callable[[float], None], Callable[[str], None]]]:
        """Renew the lease while the block runs; gives what to report progress to, which
        raises LeaseLost once somebody else has the job, and what to tell people with."""
        share, said = 0.0, AT_WORK
        ended, lost = threading.Event(), threading.Event()

        def progress(done: float) -> None:
            nonlocal share
            share = done
            if lost.is_set():
                raise LeaseLost(job.id)

        def say(text: str) -> None:
            nonlocal said
            said = f"{AT_WORK}: {text}"[:_MESSAGE_CHARACTERS]
            self._report(job, share, tallied(said, wrong))

        def beat() -> None:
            while not ended.wait(self._settings.lease_s / _HEARTBEATS_PER_LEASE):
                try:
                    self._report(job, share, tallied(said, wrong))
                except LeaseLost:
                    lost.set()
                    return
                except Exception:  # the next beat may reach the database again
                    log.exception("the lease of job %d could not be renewed", job.id)

        beating = threading.Thread(target=beat, name=f"job-{job.id}", daemon=True)
        beating.start()
        try:
            yield progress, say
        finally:
            ended.set()
            beating.join()


def with_others(identity: str, others: str) -> str:
    """What a refusal is remembered by: the file, and what there was of its slide beside it."""
    return f"{identity} {others}" if others else identity


def tallied(message: str, wrong: int) -> str:
    """The message, with how often in a row the job went wrong."""
    return f"{message} (went wrong {wrong} time{'s' * (wrong > 1)} in a row)" if wrong else message


def went_wrong(job: Job) -> int:
    """How often in a row the job of a new claim went wrong: what its last worker left in the
    message says so. No message at all: none came as far as that."""
    if not job.message:
        return job.attempts - 1
    tally = _TALLY.search(job.message)
    return int(tally[1] if tally else 0) + job.message.startswith(AT_WORK)


def _is_unchanged(path: Path, task: IngestJob) -> bool:
    """Whether the file still is the one that the watcher saw. Raises OSError where that
    cannot be known now (a share that is away)."""
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    seen = Seen(task.name, status.st_ino, status.st_size, status.st_mtime_ns)
    return seen.identity == task.identity


def work(
    archive: "Archive",
    settings: WorkerSettings,
    secret: bytes,
    ready: Callable[[], None],
    stop: threading.Event,
    converter: Converter | None = None,
) -> None:
    """Run jobs until ``stop`` is set; the one that runs then is finished first."""
    worker = Worker(archive, settings, secret, converter)
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
