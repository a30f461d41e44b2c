# SPDX-License-Identifier: Apache-2.0
"""Two at once: what one does must hold for the other."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from archive import prepare, rows
from archive.errors import Busy, Damaged, Gone, LeaseLost
from archive.service import Archive
from archive.values import Outcome
from tests.support.archives import ASK, open_archive, store_bytes
from tests.support.faults import flip_bit
from tests.support.instances import make_instance


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    opened = open_archive(tmp_path)
    yield opened
    opened.close()


def test_a_delete_between_looking_and_keeping_is_not_served_from_the_cache(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = store_bytes(archive, make_instance())
    uids = (stored.study_instance_uid, stored.series_instance_uid, stored.sop_instance_uid)
    archive._retriever.handles.clear()
    other = open_archive(tmp_path)
    from archive import retrieve

    found = rows.find_row

    def look_then_others_act(core, sop):  # type: ignore[no-untyped-def]
        row = found(core, sop)
        monkeypatch.setattr(retrieve, "find_row", found)
        other.delete(stored.study_instance_uid, reason="r", **ASK)
        archive._retriever.handles.get("1.2.3")  # another request sees the change first
        return row

    monkeypatch.setattr(retrieve, "find_row", look_then_others_act)
    archive._retriever.handles.get(stored.sop_instance_uid)
    other.close()
    with pytest.raises(Gone):
        archive.instance(*uids, **ASK)


def test_the_same_large_instance_from_two_senders_is_stored_once_and_both_are_told(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepare, "EAGER_PIXEL_DIGEST_BYTES", 0)
    data = make_instance()
    answers: list[object] = []
    ready = threading.Barrier(4)

    def send() -> None:
        ready.wait()
        try:
            answers.append(store_bytes(archive, data).outcome)
        except Exception as error:
            answers.append(error)

    senders = [threading.Thread(target=send) for _ in range(4)]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()
    assert sorted(map(str, answers)) == [Outcome.ALREADY] * 3 + [Outcome.STORED]
    assert list(archive.verify(**ASK)) == []


def test_a_correction_on_top_of_another_is_refused_and_leaves_nothing(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from archive import lifecycle

    stored = store_bytes(archive, make_instance())
    other = open_archive(tmp_path)
    revise = lifecycle.revise

    def revise_late(*arguments):  # type: ignore[no-untyped-def]
        monkeypatch.setattr(lifecycle, "revise", revise)
        other.correct(stored.study_instance_uid, {"PatientID": "first"}, reason="r", **ASK)
        return revise(*arguments)

    monkeypatch.setattr(lifecycle, "revise", revise_late)
    with pytest.raises(Busy):
        archive.correct(stored.study_instance_uid, {"PatientID": "second"}, reason="r", **ASK)
    other.close()
    assert archive.slides(**ASK)[0].patient_id == "first"
    assert archive.reindex(**ASK) == 1
    assert archive.slides(**ASK)[0].patient_id == "first"
    assert list(archive.verify(**ASK)) == []


def test_a_worker_whose_lease_ran_out_cannot_end_the_job_of_another(archive: Archive) -> None:
    job = archive.enqueue("ingest", {}, **ASK)
    first = archive.claim(["ingest"], lease_s=-1, owner="a")
    second = archive.claim(["ingest"], owner="b")
    assert first is not None
    assert second is not None
    for call in (
        lambda: archive.report(job, progress=0.5, attempt=first.attempts),
        lambda: archive.finish(job, attempt=first.attempts),
        lambda: archive.fail(job, "m", retry=False, attempt=first.attempts),
    ):
        with pytest.raises(LeaseLost):
            call()
    archive.finish(job, attempt=second.attempts)
    assert archive.jobs(**ASK)[0].state == "done"


def test_an_acknowledgement_never_rests_on_a_damaged_copy(archive: Archive, tmp_path: Path) -> None:
    data = make_instance()
    stored = store_bytes(archive, data)
    archive.delete(stored.study_instance_uid, reason="r", **ASK)
    (blob,) = (p for p in (tmp_path / "store" / "blob").rglob("*") if p.is_file())
    flip_bit(blob, blob.stat().st_size // 2)
    with pytest.raises(Damaged):
        store_bytes(archive, data)
    assert archive.slides(**ASK) == []


def test_a_check_tells_a_damaged_instance(archive: Archive, tmp_path: Path) -> None:
    stored = store_bytes(archive, make_instance())
    uids = (stored.study_instance_uid, stored.series_instance_uid, stored.sop_instance_uid)
    archive.check(archive.instance(*uids, **ASK), **ASK)
    (blob,) = (p for p in (tmp_path / "store" / "blob").rglob("*") if p.is_file())
    flip_bit(blob, blob.stat().st_size // 2)
    with pytest.raises(Damaged):
        archive.check(archive.instance(*uids, **ASK), **ASK)
