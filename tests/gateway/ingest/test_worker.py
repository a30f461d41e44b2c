# SPDX-License-Identifier: Apache-2.0
"""Jobs: leases, retries, and failures that are shown."""

import errno
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import peewee
import pytest

from archive.errors import Busy, LeaseLost, SourceChanged, StorageFailed, StorageFull, Unreadable
from archive.index.query import Level, Query
from archive.service import Archive
from archive.values import Job, JobState
from gateway.ingest import worker as module
from gateway.ingest.settling import Seen
from gateway.ingest.worker import DERIVATIVES, INGEST, IngestJob, Worker
from gateway.settings import WorkerSettings
from tests.support.archives import ASK, open_archive
from tests.support.damaged_label import damage_label
from tests.support.instances import make_instance
from tests.support.make_slide import make_svs
from tests.support.require import ROOT

SECRET = bytes(range(32))


def make_worker(archive: Archive, **settings: object) -> Worker:
    return Worker(archive, WorkerSettings(**settings), SECRET)  # type: ignore[arg-type]


def enqueue(archive: Archive, path: Path) -> int:
    return archive.enqueue(INGEST, IngestJob(str(path), path.name).payload(), key=str(path), **ASK)


def job_of(archive: Archive, job_id: int) -> Job:
    return next(job for job in archive.jobs(**ASK) if job.id == job_id)


def instances(archive: Archive) -> int:
    return len(archive.find(Query(Level.INSTANCE), **ASK).rows)


def test_no_job_is_no_work(archive: Archive) -> None:
    assert not make_worker(archive).run_one()


def test_a_job_without_a_watcher_is_done_as_well(archive: Archive, folder: Path) -> None:
    path = folder / "level.dcm"
    path.write_bytes(make_instance())
    job_id = enqueue(archive, path)
    assert make_worker(archive).run_one()
    assert job_of(archive, job_id).state is JobState.DONE
    assert instances(archive) == 1


def test_a_payload_that_is_not_understood_fails_for_good(archive: Archive) -> None:
    job_id = archive.enqueue(INGEST, {"something": 1}, **ASK)
    assert make_worker(archive).run_one()
    assert job_of(archive, job_id).state is JobState.FAILED


def test_a_full_disk_is_tried_again_later(
    archive: Archive, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = folder / "level.dcm"
    path.write_bytes(make_instance())
    job_id = enqueue(archive, path)

    def full(*arguments: object, **options: object) -> object:
        raise StorageFull("no space left in the store")

    with monkeypatch.context() as patch:
        patch.setattr(module, "ingest_file", full)
        assert make_worker(archive).run_one()
    job = job_of(archive, job_id)
    assert job.state is JobState.WAITING
    assert job.message == "no space left in the store"
    assert not make_worker(archive).run_one()  # not before its pause is over


def enqueue_watched(archive: Archive, path: Path) -> tuple[int, IngestJob]:
    status = path.stat()
    seen = Seen(path.name, status.st_ino, status.st_size, status.st_mtime_ns)
    task = IngestJob(str(path), path.name, str(path.parent), seen.identity)
    return archive.enqueue(INGEST, task.payload(), key=seen.identity, **ASK), task


def make_due(archive: Archive) -> None:
    """Every pause is over."""
    index = archive._core.index
    index.write(lambda: index.models.Job.update(not_before=0).execute())


def unreadable_medium() -> Unreadable:
    refusal = Unreadable("the file cannot be opened: Input/output error")
    refusal.__cause__ = OSError(errno.EIO, "Input/output error")
    return refusal


@pytest.mark.parametrize(
    "error",
    [
        StorageFull("no space left in the store"), StorageFailed("the store cannot be written"),
        Busy("too many"), OSError(errno.EIO, "Input/output error"), OSError(errno.EMFILE, "Too many files"),
        PermissionError(errno.EACCES, "Permission denied"), peewee.OperationalError("connection refused"),
        unreadable_medium(),
    ],
    ids=lambda error: f"{type(error).__name__}-{getattr(error, 'errno', None)}",
)  # fmt: skip
def test_what_passes_by_itself_never_makes_a_file_refused(
    error: Exception, archive: Archive, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = folder / "level.dcm"
    path.write_bytes(make_instance())
    job_id, task = enqueue_watched(archive, path)

    def hindered(*arguments: object, **options: object) -> object:
        raise error

    worker = make_worker(archive, attempts=2)
    with monkeypatch.context() as patch:
        patch.setattr(module, "ingest_file", hindered)
        for _ in range(7):
            assert worker.run_one()
            assert job_of(archive, job_id).state is JobState.WAITING
            make_due(archive)
    assert archive.watched(task.folder, task.identity) is None
    assert archive.quarantined(**ASK) == []
    assert worker.run_one()
    assert job_of(archive, job_id).state is JobState.DONE
    assert archive.watched(task.folder, task.identity) == module.STORED


def test_a_refusal_waits_until_quarantine_can_keep_the_bytes(
    archive: Archive, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = folder / "bad.dcm"
    path.write_bytes(b"\0" * 128 + b"DICM" + b"\xff" * 50)
    job_id, task = enqueue_watched(archive, path)

    def full(*arguments: object, **options: object) -> object:
        raise StorageFull("no space left in the store")

    with monkeypatch.context() as patch:
        patch.setattr(archive, "quarantine", full)
        assert make_worker(archive).run_one()
    assert job_of(archive, job_id).state is JobState.WAITING
    assert archive.watched(task.folder, task.identity) is None
    make_due(archive)
    assert make_worker(archive).run_one()
    assert job_of(archive, job_id).state is JobState.FAILED
    assert archive.watched(task.folder, task.identity) == module.REFUSED
    assert len(archive.quarantined(**ASK)) == 1


def test_a_database_that_was_away_hears_later_that_the_job_waits(
    archive: Archive, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = folder / "level.dcm"
    path.write_bytes(make_instance())
    job_id = enqueue(archive, path)

    def away(*arguments: object, **options: object) -> object:
        raise peewee.OperationalError("connection refused")

    worker = make_worker(archive, attempts=1)
    with monkeypatch.context() as patch:
        patch.setattr(module, "ingest_file", away)
        patch.setattr(archive, "fail", away)
        assert worker.run_one()
        with pytest.raises(peewee.OperationalError):
            worker.run_one()
    assert not worker.run_one()  # it is told now, and its pause has begun
    assert job_of(archive, job_id).state is JobState.WAITING
    make_due(archive)
    assert worker.run_one()
    assert job_of(archive, job_id).state is JobState.DONE


def test_pauses_do_not_hide_that_a_job_kills_its_workers(
    archive: Archive, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = folder / "level.dcm"
    path.write_bytes(make_instance())
    job_id = enqueue(archive, path)

    class Killed(BaseException):
        pass

    def run(error: BaseException) -> None:
        def ending(*arguments: object, **options: object) -> object:
            raise error

        with monkeypatch.context() as patch:
            patch.setattr(module, "ingest_file", ending)
            if isinstance(error, Killed):
                with pytest.raises(Killed):
                    make_worker(archive, attempts=3, lease_s=0.001).run_one()
            else:
                make_worker(archive, attempts=3).run_one()
        make_due(archive)

    for _ in range(4):
        run(Busy("later"))
    for _ in range(2):
        run(Killed())
    assert job_of(archive, job_id).message == "at work (went wrong 1 time in a row)"
    run(RuntimeError("a fault of ours"))
    job = job_of(archive, job_id)
    assert (job.state, job.message) == (JobState.FAILED, "internal error (RuntimeError)")


def test_a_worker_that_lost_its_lease_leaves_the_job_to_the_other(
    archive: Archive, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = folder / "level.dcm"
    path.write_bytes(make_instance())
    job_id = enqueue(archive, path)
    ingest_file = module.ingest_file

    def overtaken(*arguments: object, **options: object) -> object:
        taken = ingest_file(*arguments, **options)  # type: ignore[arg-type]
        index = archive._core.index
        index.write(lambda: index.models.Job.update(lease_until=0).execute())
        assert archive.claim([INGEST], lease_s=60, owner="other") is not None
        archive.report(job_id, progress=0.5, message="the other's")
        return taken

    monkeypatch.setattr(module, "ingest_file", overtaken)
    assert make_worker(archive).run_one()
    job = job_of(archive, job_id)
    assert (job.state, job.attempts, job.message) == (JobState.RUNNING, 2, "the other's")


def test_a_lost_lease_stops_the_work_at_its_next_step(
    archive: Archive, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = folder / "level.dcm"
    path.write_bytes(make_instance())
    job_id = enqueue(archive, path)
    refused = threading.Event()
    report = archive.report

    def observed(*arguments: object, **options: object) -> None:
        try:
            report(*arguments, **options)  # type: ignore[arg-type]
        except LeaseLost:
            refused.set()
            raise

    def overtaken(*arguments: object, progress, **options: object) -> object:  # type: ignore[no-untyped-def]
        index = archive._core.index
        index.write(lambda: index.models.Job.update(lease_until=0).execute())
        assert archive.claim([INGEST], lease_s=60, owner="other") is not None
        assert refused.wait(20)
        while True:  # the beat sets its mark a moment after the refusal
            progress(0.5)

    monkeypatch.setattr(archive, "report", observed)
    monkeypatch.setattr(module, "ingest_file", overtaken)
    assert make_worker(archive, lease_s=1).run_one()
    assert refused.is_set()
    job = job_of(archive, job_id)
    assert (job.state, job.attempts) == (JobState.RUNNING, 2)
    assert job.message.startswith(module.AT_WORK)  # nothing was said after the loss


def test_a_file_whose_share_is_away_is_not_taken_for_gone(
    archive: Archive, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = folder / "level.dcm"
    path.write_bytes(make_instance())
    job_id, _ = enqueue_watched(archive, path)

    stat = Path.stat

    def stale(asked: Path, **options: bool) -> os.stat_result:
        if asked == path:
            raise OSError(errno.ESTALE, "Stale file handle")
        return stat(asked, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "stat", stale)
        assert make_worker(archive).run_one()
    assert job_of(archive, job_id).state is JobState.WAITING


def test_a_file_that_is_gone_is_not_tried_again(archive: Archive, folder: Path) -> None:
    job_id = enqueue(archive, folder / "absent.dcm")
    assert make_worker(archive).run_one()
    job = job_of(archive, job_id)
    assert (job.state, job.message) == (JobState.FAILED, "the file is gone")


def test_a_file_that_came_by_itself_and_changed_is_copied_again(
    archive: Archive, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = folder / "level.dcm"
    path.write_bytes(make_instance())
    job_id = enqueue(archive, path)

    def changing(*arguments: object, **options: object) -> object:
        raise SourceChanged("the file changed while it was copied")

    monkeypatch.setattr(module, "ingest_file", changing)
    worker = make_worker(archive, attempts=1)
    for _ in range(3):
        assert worker.run_one()
        make_due(archive)
    assert job_of(archive, job_id).state is JobState.WAITING


def test_after_the_last_attempt_it_has_failed_and_is_in_quarantine(
    archive: Archive, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = folder / "level.dcm"
    path.write_bytes(make_instance())
    job_id = enqueue(archive, path)

    def broken(*arguments: object, **options: object) -> object:
        raise RuntimeError("a fault of ours, with a PATIENT^NAME in it")

    monkeypatch.setattr(module, "ingest_file", broken)
    assert make_worker(archive, attempts=1).run_one()
    job = job_of(archive, job_id)
    assert (job.state, job.message) == (JobState.FAILED, "internal error (RuntimeError)")
    assert [one.reason for one in archive.quarantined(**ASK)] == ["internal error (RuntimeError)"]


def test_a_job_that_kills_its_workers_is_given_up(archive: Archive, folder: Path) -> None:
    path = folder / "level.dcm"
    path.write_bytes(make_instance())
    job_id = enqueue(archive, path)
    for _ in range(2):  # workers that die without a word
        assert archive.claim([INGEST], lease_s=-1, owner="dead") is not None
    assert make_worker(archive, attempts=2).run_one()
    job = job_of(archive, job_id)
    assert job.state is JobState.FAILED
    assert "workers died" in job.message
    assert len(archive.quarantined(**ASK)) == 1


def test_the_lease_is_renewed_for_as_long_as_the_job_runs(
    archive: Archive, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = folder / "level.dcm"
    path.write_bytes(make_instance())
    enqueue(archive, path)
    renewed, beats = threading.Event(), 0
    report, ingest_file = archive.report, module.ingest_file

    def counted(*arguments: object, **options: object) -> None:
        nonlocal beats
        report(*arguments, **options)  # type: ignore[arg-type]
        beats += 1
        if beats == 8:
            renewed.set()

    def slow(*arguments: object, **options: object) -> object:
        assert renewed.wait(20)  # well beyond the lease
        assert archive.claim([INGEST], lease_s=60, owner="thief") is None
        return ingest_file(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(archive, "report", counted)
    monkeypatch.setattr(module, "ingest_file", slow)
    assert make_worker(archive, lease_s=1).run_one()
    assert instances(archive) == 1


def test_a_converted_slide_gets_its_thumbnail_made(archive: Archive, folder: Path) -> None:
    make_svs(folder / "slide.svs")
    enqueue(archive, folder / "slide.svs")
    worker = make_worker(archive)
    assert worker.run_one()
    assert [job.kind for job in archive.jobs(**ASK) if job.state is JobState.WAITING] == [DERIVATIVES]


def test_a_thumbnail_that_cannot_be_made_is_a_failed_job_and_no_more(archive: Archive) -> None:
    job_id = archive.enqueue(DERIVATIVES, {"study": "1.2", "series": "1.3"}, **ASK)
    assert make_worker(archive).run_one()
    assert job_of(archive, job_id).state is JobState.FAILED


DYING_WORKER = """
import sys
from pathlib import Path
from gateway.ingest import worker as module
from gateway.settings import WorkerSettings
from tests.support.archives import open_archive

def wait_forever(*arguments, **options):
    print("running", flush=True)
    sys.stdin.read()

module.ingest_file = wait_forever
archive = open_archive(Path(sys.argv[1]))
module.Worker(archive, WorkerSettings(lease_s=1), bytes(32)).run_one()
"""


def test_the_job_of_a_killed_worker_is_taken_over_after_its_lease(tmp_path: Path, folder: Path) -> None:
    archive = open_archive(tmp_path / "data")
    path = folder / "level.dcm"
    path.write_bytes(make_instance())
    job_id = enqueue(archive, path)
    with subprocess.Popen(
        [sys.executable, "-c", DYING_WORKER, str(tmp_path / "data")], cwd=ROOT,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == b"running\n"
        os.kill(process.pid, signal.SIGKILL)
    assert job_of(archive, job_id).state is JobState.RUNNING
    stop = threading.Event()
    done = archive.finish

    def observed(finished: int, message: str = "", *, attempt: int | None = None) -> None:
        done(finished, message, attempt=attempt)
        stop.set()

    archive.finish = observed  # type: ignore[method-assign]
    survivor = threading.Thread(
        target=module.work, args=(archive, WorkerSettings(poll_s=0.05), SECRET, lambda: None, stop)
    )
    survivor.start()
    survivor.join(30)
    assert not survivor.is_alive()
    assert job_of(archive, job_id).state is JobState.DONE
    assert instances(archive) == 1
    archive.close()


def test_what_was_left_out_of_a_slide_stands_in_its_job(archive: Archive, folder: Path) -> None:
    slide = damage_label(make_svs(folder / "slide.svs"))
    job_id = enqueue(archive, slide)
    assert Worker(archive, WorkerSettings(), SECRET).run_one()
    job = job_of(archive, job_id)
    assert job.state is JobState.DONE
    assert "the label image is left out: LZW data begin with an impossible code" in job.message
