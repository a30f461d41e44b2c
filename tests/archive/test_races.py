# SPDX-License-Identifier: Apache-2.0
"""Two at once: what one does must hold for the other."""

import hashlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from archive import ingest, lifecycle, non_patient, prepare, readmission, recovery, rows
from archive.errors import Busy, Damaged, Gone, LeaseLost, NoSuchStudy, Rejected
from archive.journal import Entry
from archive.record import blob_key
from archive.service import Archive
from archive.values import Outcome
from tests.support.archives import ASK, open_archive, store_bytes
from tests.support.faults import flip_bit
from tests.support.instances import make_instance
from tests.support.non_patient import palette, written


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


def _come_between(
    monkeypatch: pytest.MonkeyPatch, module: object, name: str, act: Callable[[], object]
) -> None:
    """``act`` happens once, right after ``module`` has looked by ``name``."""
    look = getattr(module, name)

    def look_then_others_act(*arguments: object, **named: object) -> object:
        found = look(*arguments, **named)
        monkeypatch.setattr(module, name, look)
        act()
        return found

    monkeypatch.setattr(module, name, look_then_others_act)


@pytest.mark.parametrize("first", ["delete", "reject"])
def test_a_delete_after_anothers_finds_nothing_and_counts_nothing_twice(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: str
) -> None:
    one = store_bytes(archive, make_instance(study="1.2.3", series="1.2.3.4"))
    store_bytes(archive, make_instance(study="1.2.3", series="1.2.3.4", number=2))
    place = ("1.2.3", "1.2.3.4", one.sop_instance_uid)
    other = open_archive(tmp_path)
    code = {"code": "113001"} if first == "reject" else {}
    _come_between(
        monkeypatch, lifecycle, "named", lambda: getattr(other, first)(*place, reason="r", **code, **ASK)
    )
    with pytest.raises(Gone):
        archive.delete(*place, reason="r", **ASK)
    other.close()
    counts = [slide.number_of_instances for slide in archive.slides(**ASK)]
    archive.reindex(**ASK)
    assert [slide.number_of_instances for slide in archive.slides(**ASK)] == counts
    assert list(archive.verify(**ASK)) == []
    if first == "reject":  # and its bytes are kept: it can be taken back
        assert archive.readmit(*place, reason="r", **ASK) == 1


def test_a_study_deleted_by_two_at_once_is_gone_for_the_second(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store_bytes(archive, make_instance(study="1.2.3"))
    other = open_archive(tmp_path)
    _come_between(monkeypatch, lifecycle, "named", lambda: other.delete("1.2.3", reason="r", **ASK))
    with pytest.raises(Gone):
        archive.delete("1.2.3", reason="r", **ASK)
    other.close()
    assert len(list(archive._core.storage.keys("journal/"))) == 1


def test_a_rejection_rejects_what_took_the_place_of_what_it_saw(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = store_bytes(archive, make_instance(study="1.2.3", series="1.2.3.4", sop="1.2.3.5"))
    again = make_instance(study="1.2.3", series="1.2.3.4", sop="1.2.3.5", patient_id="P2")
    other = open_archive(tmp_path)
    _come_between(monkeypatch, lifecycle, "new_entry", lambda: store_bytes(other, again, replace=True))
    archive.reject("1.2.3", code="113001", reason="r", **ASK)
    other.close()
    with pytest.raises(Gone):
        archive.instance(stored.study_instance_uid, "1.2.3.4", "1.2.3.5", **ASK)
    archive.reindex(**ASK)
    with pytest.raises(Gone):
        archive.instance(stored.study_instance_uid, "1.2.3.4", "1.2.3.5", **ASK)
    assert list(archive.verify(**ASK)) == []


def test_what_was_stored_and_rejected_by_others_meanwhile_is_refused(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = make_instance(study="1.2.3")
    other = open_archive(tmp_path)

    def act() -> None:
        store_bytes(other, data)
        other.reject("1.2.3", code="113001", reason="r", **ASK)

    _come_between(monkeypatch, ingest, "rejected_before", act)
    with pytest.raises(Rejected):
        store_bytes(archive, data)
    other.close()
    assert list(archive.verify(**ASK)) == []


def test_a_rejection_is_taken_back_once(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store_bytes(archive, make_instance(study="1.2.3"))
    archive.reject("1.2.3", code="113001", reason="r", **ASK)
    other = open_archive(tmp_path)
    _come_between(monkeypatch, readmission, "_rejected", lambda: other.readmit("1.2.3", reason="r", **ASK))
    with pytest.raises(NoSuchStudy):
        archive.readmit("1.2.3", reason="r", **ASK)
    other.close()
    assert list(archive.verify(**ASK)) == []


def test_a_non_patient_instance_stays_stored_when_others_deleted_it_meanwhile(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, uid = written(palette()), palette().SOPInstanceUID
    other = open_archive(tmp_path)

    def act() -> None:
        store_bytes(other, data)
        other.delete_non_patient("color-palettes", uid, reason="r", **ASK)

    _come_between(monkeypatch, non_patient, "new_entry", act)
    store_bytes(archive, data)
    other.close()
    archive.reindex(**ASK)
    assert archive.non_patient("color-palettes", uid, **ASK).sop_instance_uid == uid
    assert list(archive.verify(**ASK)) == []


def test_a_non_patient_instance_whose_bytes_garbage_collection_took_is_put_again(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, uid = written(palette()), palette().SOPInstanceUID
    key = blob_key(hashlib.sha256(data).digest())
    _come_between(monkeypatch, non_patient, "put_blob", lambda: archive._core.storage.delete(key))
    store_bytes(archive, data)
    assert archive.open_non_patient("color-palettes", uid, explicit=False, **ASK) == data
    assert list(archive.verify(**ASK)) == []


def test_recovery_takes_nothing_for_a_leftover_that_others_store_meanwhile(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, uid = written(palette()), palette().SOPInstanceUID
    other = open_archive(tmp_path)
    _come_between(monkeypatch, recovery, "Journal", lambda: store_bytes(other, data))
    assert archive.recover(everything=True) == []
    other.close()
    assert archive.non_patient("color-palettes", uid, **ASK).sop_instance_uid == uid
    assert list(archive.verify(**ASK)) == []


def test_recovery_does_not_bring_back_what_others_reject_meanwhile(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store_bytes(archive, make_instance(study="1.2.3", series="1.2.3.4", sop="1.2.3.5"))
    archive.reject("1.2.3", code="113001", reason="r", **ASK)
    archive.readmit("1.2.3", reason="r", **ASK)
    other = open_archive(tmp_path)
    _come_between(
        monkeypatch, recovery, "Journal", lambda: other.reject("1.2.3", code="113001", reason="r", **ASK)
    )
    assert archive.recover(everything=True) == []
    other.close()
    with pytest.raises(Gone):
        archive.instance("1.2.3", "1.2.3.4", "1.2.3.5", **ASK)
    assert list(archive.verify(**ASK)) == []


@pytest.mark.parametrize("code", ["", "113001"])
def test_a_delete_that_recovery_completes_first_stays_in_the_journal(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    store_bytes(archive, make_instance(study="1.2.3", series="1.2.3.4", sop="1.2.3.5"))
    place = ("1.2.3", "1.2.3.4", "1.2.3.5")
    other = open_archive(tmp_path)
    encode = lifecycle.encode_entry

    def durable_then_completed(entry: Entry) -> bytes:
        monkeypatch.setattr(lifecycle, "encode_entry", encode)
        archive._core.storage.put_bytes(entry.key, encode(entry))
        assert [f.repaired for f in other.recover(everything=True)] == [True]
        return encode(entry)

    monkeypatch.setattr(lifecycle, "encode_entry", durable_then_completed)
    if code:
        archive.reject(*place, code=code, reason="r", **ASK)
    else:
        with pytest.raises(Gone):
            archive.delete(*place, reason="r", **ASK)
    other.close()
    for _ in range(2):
        with pytest.raises(Gone):
            archive.instance(*place, **ASK)
        assert list(archive.verify(**ASK)) == []
        archive.reindex(**ASK)
