# SPDX-License-Identifier: Apache-2.0
"""Watched folders: from a file that appears to the archive, once."""

import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from archive.index.query import Level, Query
from archive.service import Archive
from archive.values import Job, JobState
from gateway.ingest import worker
from gateway.ingest.watch import PATIENCE, Watcher, watch
from gateway.ingest.worker import Worker, work
from gateway.settings import WatchSettings, WorkerSettings
from tests.support.archives import ASK
from tests.support.instances import make_instance
from tests.support.make_slide import make_svs
from tests.support.slides.mrxs import write_mrxs
from tests.support.slides.olympus_vsi import write_brightfield
from tests.support.slides.ome_tiff import write_ome_files
from tests.support.slides.vms import write_vms

SECRET = bytes(range(32))


class Clock:
    """Looks of a watcher, a second apart."""

    def __init__(self, archive: Archive, folder: Path, **settings: object) -> None:
        values = {"folders": (str(folder),), "settle_s": 1.0, **settings}
        self.watcher = Watcher(archive, WatchSettings(**values))  # type: ignore[arg-type]
        self.now = 0.0

    def looks(self, number: int) -> int:
        """How many jobs that many looks made."""
        made = 0
        for _ in range(number):
            made += self.watcher.look(self.now)
            self.now += 1.0
        return made


def run_jobs(archive: Archive, **settings: object) -> int:
    one = Worker(archive, WorkerSettings(**settings), SECRET)  # type: ignore[arg-type]
    count = 0
    while one.run_one():
        count += 1
    return count


def instances(archive: Archive) -> int:
    return len(archive.find(Query(Level.INSTANCE), **ASK).rows)


def ingest_jobs(archive: Archive) -> list[Job]:
    return [job for job in archive.jobs(**ASK) if job.kind == "ingest"]


def test_a_dicom_file_that_appears_is_stored(archive: Archive, folder: Path) -> None:
    (folder / "level.dcm").write_bytes(make_instance())
    assert Clock(archive, folder).looks(3) == 1
    run_jobs(archive)
    assert instances(archive) == 1
    (job,) = ingest_jobs(archive)
    assert job.state is JobState.DONE
    assert (folder / "level.dcm").exists()


def test_a_slide_that_appears_becomes_dicom(archive: Archive, folder: Path) -> None:
    make_svs(folder / "slide.svs")
    assert Clock(archive, folder).looks(3) == 1
    run_jobs(archive)
    (line,) = archive.slides(**ASK)
    assert line.format == "aperio-svs"
    assert line.unmatched
    assert instances(archive) >= 2


def test_nothing_is_taken_twice_not_even_after_a_restart(archive: Archive, folder: Path) -> None:
    make_svs(folder / "slide.svs")
    assert Clock(archive, folder).looks(10) == 1
    run_jobs(archive)
    before = instances(archive)
    assert Clock(archive, folder).looks(10) == 0
    assert run_jobs(archive) == 0
    assert instances(archive) == before


def test_a_restart_before_the_job_ran_makes_no_second_job(archive: Archive, folder: Path) -> None:
    make_svs(folder / "slide.svs")
    Clock(archive, folder).looks(3)
    Clock(archive, folder).looks(3)
    assert len(ingest_jobs(archive)) == 1


def test_a_copy_under_another_name_is_recognised_by_its_bytes(archive: Archive, folder: Path) -> None:
    make_svs(folder / "slide.svs")
    clock = Clock(archive, folder)
    clock.looks(3)
    run_jobs(archive)
    before = instances(archive)
    (folder / "again.svs").write_bytes((folder / "slide.svs").read_bytes())
    assert clock.looks(5) == 1
    run_jobs(archive)
    assert instances(archive) == before
    assert len(archive.slides(**ASK)) == 1


def test_a_growing_file_is_not_taken(archive: Archive, folder: Path) -> None:
    data = make_instance()
    clock = Clock(archive, folder)
    with (folder / "level.dcm").open("wb") as file:
        for start in range(0, len(data), 1000):
            file.write(data[start : start + 1000])
            file.flush()
            assert clock.looks(1) == 0
    assert clock.looks(3) == 1


def test_a_stalled_copy_is_waited_for_and_taken_when_it_is_complete(archive: Archive, folder: Path) -> None:
    data = make_instance(frames=16)
    path = folder / "level.dcm"
    path.write_bytes(data[: len(data) // 2])
    clock = Clock(archive, folder)
    assert clock.looks(PATIENCE // 2) == 0
    path.write_bytes(data)
    assert clock.looks(3) == 1
    run_jobs(archive)
    assert instances(archive) == 1
    assert archive.quarantined(**ASK) == []


def test_a_file_that_stays_incomplete_goes_to_quarantine_with_its_reason(
    archive: Archive, folder: Path
) -> None:
    data = make_instance(frames=16)
    (folder / "cut.dcm").write_bytes(data[: len(data) // 2])
    assert Clock(archive, folder).looks(PATIENCE + 3) == 1
    run_jobs(archive)
    (kept,) = archive.quarantined(**ASK)
    assert kept.name == "cut.dcm"
    assert kept.size_bytes == len(data) // 2
    (job,) = ingest_jobs(archive)
    assert job.state is JobState.FAILED
    assert job.message == kept.reason
    assert (folder / "cut.dcm").exists()


@pytest.mark.parametrize(
    ("name", "content"),
    [("notes.svs", b"this is no slide"), ("empty.svs", b""), ("garbage.dcm", bytes(range(256)) * 40)],
)
def test_what_is_no_slide_goes_to_quarantine_once(
    archive: Archive, folder: Path, name: str, content: bytes
) -> None:
    (folder / name).write_bytes(content)
    assert Clock(archive, folder).looks(PATIENCE + 5) == 1
    run_jobs(archive)
    (kept,) = archive.quarantined(**ASK)
    assert kept.name == name
    assert kept.reason
    assert Clock(archive, folder).looks(PATIENCE + 5) == 0
    assert instances(archive) == 0


def test_names_of_refused_files_are_not_logged(
    archive: Archive, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="gateway")
    caplog.set_level(logging.WARNING)  # as gateway.logs sets it for libraries
    (folder / "MUELLER_Hans_1950.svs").write_bytes(b"this is no slide")
    (folder / "MUELLER").mkdir()
    make_svs(folder / "MUELLER" / "MUELLER.svs")
    Clock(archive, folder).looks(5)
    run_jobs(archive)
    assert "refused" in caplog.text
    assert "MUELLER" not in caplog.text


def test_the_same_uid_with_other_pixels_is_in_quarantine_once(archive: Archive, folder: Path) -> None:
    identity = {"study": "2.25.1", "series": "2.25.2", "sop": "2.25.3"}
    (folder / "a.dcm").write_bytes(make_instance(frames=4, **identity))
    (folder / "b.dcm").write_bytes(make_instance(frames=9, **identity))
    Clock(archive, folder).looks(3)
    run_jobs(archive)
    assert len(archive.quarantined(**ASK)) == 1
    assert instances(archive) == 1


def test_the_source_is_deleted_only_when_the_setting_says_so(archive: Archive, folder: Path) -> None:
    make_svs(folder / "slide.svs")
    Clock(archive, folder, delete_source=True).looks(3)
    assert (folder / "slide.svs").exists()
    run_jobs(archive)
    assert not (folder / "slide.svs").exists()
    assert len(archive.slides(**ASK)) == 1


def test_the_source_stays_where_the_setting_does_not_say_so(archive: Archive, folder: Path) -> None:
    make_svs(folder / "slide.svs")
    Clock(archive, folder).looks(3)
    run_jobs(archive)
    assert len(archive.slides(**ASK)) == 1
    assert (folder / "slide.svs").exists()


def test_a_source_that_is_not_what_was_stored_any_more_is_not_deleted(
    archive: Archive, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = folder / "level.dcm"
    path.write_bytes(make_instance())
    Clock(archive, folder, delete_source=True).looks(3)
    ingest_file = worker.ingest_file

    def then_rewritten(*arguments: object, **options: object) -> object:
        taken = ingest_file(*arguments, **options)  # type: ignore[arg-type]
        times = path.stat().st_atime_ns, path.stat().st_mtime_ns
        with path.open("r+b") as file:
            file.write(b"other")  # same length, and the time is put back
        os.utime(path, ns=times)
        return taken

    monkeypatch.setattr(worker, "ingest_file", then_rewritten)
    run_jobs(archive)
    assert path.exists()
    (job,) = ingest_jobs(archive)
    assert "was left" in job.message


def test_a_refused_file_is_never_deleted(archive: Archive, folder: Path) -> None:
    (folder / "notes.svs").write_bytes(b"this is no slide")
    Clock(archive, folder, delete_source=True).looks(3)
    run_jobs(archive)
    assert (folder / "notes.svs").exists()


def test_a_file_that_changed_after_it_was_seen_is_taken_in_its_new_form_only(
    archive: Archive, folder: Path
) -> None:
    path = folder / "level.dcm"
    path.write_bytes(make_instance(sop="2.25.1"))
    clock = Clock(archive, folder)
    assert clock.looks(3) == 1
    path.write_bytes(make_instance(sop="2.25.2", frames=9))
    run_jobs(archive)
    assert instances(archive) == 0
    assert clock.looks(3) == 1
    run_jobs(archive)
    (row,) = archive.find(Query(Level.INSTANCE), **ASK).rows
    assert row["00080018"]["Value"] == ["2.25.2"]  # type: ignore[index]


def test_a_file_that_vanished_is_no_failure(archive: Archive, folder: Path) -> None:
    (folder / "level.dcm").write_bytes(make_instance())
    Clock(archive, folder).looks(3)
    (folder / "level.dcm").unlink()
    run_jobs(archive)
    (job,) = ingest_jobs(archive)
    assert job.state is JobState.DONE
    assert archive.quarantined(**ASK) == []


@pytest.mark.parametrize("make", [make_svs, lambda path: path.write_bytes(b"this is no slide")])
def test_a_name_that_is_no_utf_8_is_taken_like_any_other(
    archive: Archive, folder: Path, make: Callable[[Path], object]
) -> None:
    for name in (os.fsdecode(b"Pr\xe4parat \xff.svs"), "Präparat 切片 \N{MICROSCOPE}.svs"):
        make(folder / "plain.svs")
        (folder / "plain.svs").rename(folder / name)
    clock = Clock(archive, folder)
    assert clock.looks(5) == 2
    run_jobs(archive)
    outcomes = {job.state for job in ingest_jobs(archive)}
    assert len(outcomes) == 1
    assert outcomes <= {JobState.DONE, JobState.FAILED}
    assert clock.looks(5) == 0
    assert Clock(archive, folder).looks(5) == 0


def test_an_absent_folder_is_an_error_in_the_log_now_and_then_and_is_used_once_it_is_there(
    archive: Archive, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    share = tmp_path / "share"
    clock = Clock(archive, share)
    clock.looks(120)
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(errors) == 2
    assert "No such file or directory" in errors[0].getMessage()
    share.mkdir()
    (share / "level.dcm").write_bytes(make_instance())
    assert clock.looks(3) == 1


def test_a_busy_archive_delays_a_file_and_loses_none(
    archive: Archive, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "level.dcm").write_bytes(make_instance())
    clock = Clock(archive, folder)

    def busy(*arguments: object, **options: object) -> int:
        raise OSError("the database is away")

    with monkeypatch.context() as patch:
        patch.setattr(archive, "enqueue", busy)
        assert clock.looks(5) == 0
    assert clock.looks(3) == 1


def test_watcher_and_worker_run_until_they_are_told_to_stop(archive: Archive, folder: Path) -> None:
    stop, watching, working = threading.Event(), threading.Event(), threading.Event()
    settings = WatchSettings(folders=(str(folder),), settle_s=0.05, poll_s=0.05)
    threads = [
        threading.Thread(target=watch, args=(archive, settings, SECRET, watching.set, stop)),
        threading.Thread(target=work, args=(archive, WorkerSettings(poll_s=0.05), SECRET, working.set, stop)),
    ]
    for thread in threads:
        thread.start()
    assert watching.wait(10)
    assert working.wait(10)
    stored = threading.Event()
    finish = archive.finish

    def observed(job_id: int, message: str = "", **options: int | None) -> None:
        finish(job_id, message, **options)
        stored.set()

    archive.finish = observed  # type: ignore[method-assign]
    temporary = folder / ".level.dcm.tmp"
    temporary.write_bytes(make_instance())
    os.rename(temporary, folder / "level.dcm")
    assert stored.wait(20)
    stop.set()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    assert instances(archive) == 1


def test_a_slide_is_waited_for_as_long_as_its_other_files_arrive(archive: Archive, folder: Path) -> None:
    main = write_mrxs(folder)
    last = folder / "scan" / "Data0001.dat"
    kept = last.read_bytes()
    last.unlink()
    clock = Clock(archive, folder)
    for size_bytes in range(2 * PATIENCE):
        (folder / "scan" / "Data0001.dat.copying").write_bytes(bytes(size_bytes))
        assert clock.looks(1) == 0
    (folder / "scan" / "Data0001.dat.copying").unlink()
    last.write_bytes(kept)
    for file in (main, *(folder / "scan").iterdir()):
        os.utime(file, (1, 1))
    assert clock.looks(4) == 1
    run_jobs(archive)
    assert instances(archive) > 0
    assert archive.quarantined(**ASK) == []


def test_files_of_a_slide_that_come_before_its_main_file_are_no_slides(
    archive: Archive, folder: Path
) -> None:
    main = write_mrxs(folder)
    kept = main.read_bytes()
    main.unlink()
    clock = Clock(archive, folder)
    assert clock.looks(PATIENCE // 2) == 0
    main.write_bytes(kept)
    for file in (main, *(folder / "scan").iterdir()):
        os.utime(file, (1, 1))
    assert clock.looks(4) == 1
    run_jobs(archive)
    assert archive.quarantined(**ASK) == []


def test_files_that_name_each_other_are_taken_as_one_slide(archive: Archive, folder: Path) -> None:
    write_ome_files(folder)
    for file in folder.iterdir():
        os.utime(file, (1, 1))
    assert Clock(archive, folder).looks(4) == 1
    run_jobs(archive)
    assert instances(archive) > 0


def test_of_a_slide_that_was_stored_no_folder_stays(archive: Archive, folder: Path) -> None:
    write_brightfield(folder)
    for file in folder.rglob("*"):
        os.utime(file, (1, 1))
    Clock(archive, folder, delete_source=True).looks(4)
    run_jobs(archive)
    assert instances(archive) > 0
    assert list(folder.iterdir()) == []


def _refused_without(archive: Archive, folder: Path, absent: Path) -> tuple[Clock, bytes]:
    """The watcher of a slide whose file ``absent`` did not come in time, and what it holds."""
    kept = absent.read_bytes()
    absent.unlink()
    _make_old(folder)
    clock = Clock(archive, folder)
    assert clock.looks(2 * PATIENCE) >= 1
    run_jobs(archive)
    assert instances(archive) == 0
    assert archive.quarantined(**ASK)
    return clock, kept


def _make_old(folder: Path) -> None:
    for file in folder.rglob("*"):
        os.utime(file, (1, 1))


@pytest.mark.parametrize("is_restarted", [False, True])
@pytest.mark.parametrize("write", [write_vms, write_mrxs, write_brightfield, write_ome_files])
def test_a_slide_refused_for_a_missing_file_is_taken_once_that_file_arrives(
    archive: Archive, folder: Path, write: Callable[[Path], Path], is_restarted: bool
) -> None:
    main = write(folder)
    absent = max(
        (one for one in folder.rglob("*") if one.is_file() and one != main), key=lambda one: one.name
    )
    clock, kept = _refused_without(archive, folder, absent)
    absent.write_bytes(kept)
    _make_old(folder)
    if is_restarted:
        clock = Clock(archive, folder)
    assert clock.looks(2 * PATIENCE) == 1
    run_jobs(archive)
    assert instances(archive) > 0
    assert archive.quarantined(**ASK) == []
    assert clock.looks(2 * PATIENCE) == 0


def test_a_slide_of_which_a_file_stays_missing_is_not_tried_again(archive: Archive, folder: Path) -> None:
    write_mrxs(folder)
    clock, _ = _refused_without(archive, folder, folder / "scan" / "Data0001.dat")
    assert clock.looks(3 * PATIENCE) == 0
    assert Clock(archive, folder).looks(3 * PATIENCE) == 0


def test_a_slide_refused_for_a_damaged_file_is_taken_once_a_good_one_replaces_it(
    archive: Archive, folder: Path
) -> None:
    write_mrxs(folder)
    damaged = folder / "scan" / "Slidedat.ini"
    kept = damaged.read_bytes()
    damaged.write_bytes(kept[: len(kept) // 3])
    _make_old(folder)
    clock = Clock(archive, folder)
    assert clock.looks(2 * PATIENCE) == 1
    run_jobs(archive)
    assert instances(archive) == 0
    damaged.write_bytes(kept)
    os.utime(damaged, (2, 2))
    assert clock.looks(5) == 1
    run_jobs(archive)
    assert instances(archive) > 0
    assert archive.quarantined(**ASK) == []


def test_the_entry_of_another_file_in_quarantine_stays(archive: Archive, folder: Path) -> None:
    (folder / "notes.svs").write_bytes(b"this is no slide")
    make_svs(folder / "slide.svs")
    Clock(archive, folder).looks(5)
    run_jobs(archive)
    assert [kept.name for kept in archive.quarantined(**ASK)] == ["notes.svs"]
