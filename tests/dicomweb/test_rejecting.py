# SPDX-License-Identifier: Apache-2.0
"""Rejection notes of our own, and taking a rejection back."""

import io
from datetime import timedelta

import pytest
from pydicom import dcmread

from archive.access import EVERYTHING, NOTHING, Action, OpenPolicy, Principal
from archive.errors import BadQuery, Gone, NoSuchStudy, NotAllowed, RejectionRefused
from archive.index.attributes import study_columns
from archive.values import NewInstance, NewOriginal, NewSlide, Sender
from dicomweb.app import create_app
from dicomweb.settings import WebSettings
from tests.dicomweb import samples
from tests.dicomweb.conftest import LABEL, LEVEL, WEB, open_archive, store
from tests.dicomweb.test_rejection import ANY, ASK, JSON, a_day_later, found, note

STUDY, SERIES = samples.STUDY, samples.SERIES
FIRST, THIRD = f"{SERIES}.1", f"{SERIES}.3"


def reject(archive, *names, code="113001", **given):
    return archive.reject(STUDY, *names, code=code, **{"reason": "focus lost", **ASK, **given})


def readmit(archive, *names, **given):
    return archive.readmit(STUDY, *names, **{"reason": "by mistake", **ASK, **given})


def frame(client):
    response = client.get(f"{LEVEL}/frames/1", headers=ANY)
    return response.status_code, response.get_data()


def note_of(client, stored):
    place = f"{WEB}/studies/{STUDY}/series/{stored.series_instance_uid}/instances/{stored.sop_instance_uid}"
    response = client.get(place, headers={"Accept": "application/dicom"})
    assert response.status_code == 200
    return dcmread(io.BytesIO(response.get_data()))


def test_a_note_of_ours_says_who_what_and_why_and_takes_it_out(client, archive):
    store(client, samples.volume(), samples.label())
    stored, count = reject(archive, SERIES, FIRST, code="113037")
    assert count == 1
    assert client.get(LEVEL, headers=ANY).status_code == 410
    assert client.get(f"{LABEL}/metadata", headers=JSON).status_code == 200
    made, patient = note_of(client, stored), samples.header(1)
    assert (made.PatientID, made.PatientName, made.Modality) == (patient.PatientID, patient.PatientName, "KO")
    assert study_columns(made) == study_columns(patient)
    title = made.ConceptNameCodeSequence[0]
    assert (title.CodeValue, title.CodingSchemeDesignator) == ("113037", "DCM")
    (study,) = made.CurrentRequestedProcedureEvidenceSequence
    (series,) = study.ReferencedSeriesSequence
    assert [item.ReferencedSOPInstanceUID for item in series.ReferencedSOPSequence] == [FIRST]
    assert [item.get("TextValue") for item in made.ContentSequence] == ["focus lost", None]
    assert store(client, samples.volume()).status_code == 409


@pytest.mark.parametrize("rebuilt", [False, True])
def test_410_says_why_and_where_the_note_is(client, archive, rebuilt):
    store(client, samples.volume(), samples.label())
    stored, _ = reject(archive, SERIES, FIRST)
    if rebuilt:
        archive.reindex(**ASK)
    for resource in (LEVEL, f"{LEVEL}/metadata"):
        gone = client.get(resource, headers=ANY)
        error = gone.get_json(force=True)["error"]
        assert (gone.status_code, error["message"]) == (
            410, f"{FIRST} was rejected: 113001 Rejected for Quality Reasons",
        )  # fmt: skip
        assert gone.headers["Link"] == f'<{error["describedby"]}>; rel="describedby"'
        there = client.get(error["describedby"], headers={"Accept": "application/dicom"})
        assert dcmread(io.BytesIO(there.get_data())).SOPInstanceUID == stored.sop_instance_uid
    archive.delete(STUDY, stored.series_instance_uid, reason="r", **ASK)
    gone = client.get(LEVEL, headers=ANY)
    assert (gone.status_code, "Link" in gone.headers) == (410, False)


def test_a_rejected_study_keeps_its_notes_and_nothing_else(client, archive):
    store(client, samples.volume(), samples.label())
    first, _ = reject(archive, SERIES, FIRST)
    second, count = reject(archive)
    assert count == 1
    assert found(client) == sorted([first.sop_instance_uid, second.sop_instance_uid])
    with pytest.raises(RejectionRefused):
        reject(archive)
    with pytest.raises(Gone):
        reject(archive, SERIES, FIRST)


def test_a_rejection_is_taken_back_with_its_note(client, archive, tmp_path):
    store(client, samples.volume(), samples.label())
    before = frame(client)
    reject(archive)
    assert frame(client)[0] == 410
    a_day_later(archive)
    archive.collect_garbage(**ASK)
    assert readmit(archive) == 2
    assert frame(client) == before
    assert found(client) == [FIRST, THIRD]
    assert [f.detail for f in archive.verify(**ASK)] == []
    assert store(client, samples.volume()).status_code == 200


def test_a_note_stays_while_something_of_it_is_rejected(client, archive):
    store(client, samples.volume(), samples.label())
    stored, _ = reject(archive)
    assert readmit(archive, SERIES, THIRD) == 1
    assert found(client) == sorted([THIRD, stored.sop_instance_uid])
    assert readmit(archive) == 1
    assert found(client) == [FIRST, THIRD]


def test_a_delete_with_a_code_is_a_rejection(client, archive):
    store(client, samples.volume(), samples.label())
    for wrong in ("113000", "x", "113001&reason=" + "x" * 257):
        assert client.delete(f"{LEVEL}?code={wrong}").status_code == 400
    response = client.delete(f"{LEVEL}?code=113037&reason=glass+broken")
    assert (response.status_code, response.get_data()) == (204, b"")
    there = client.get(response.headers["Location"], headers={"Accept": "application/dicom"})
    made = dcmread(io.BytesIO(there.get_data()))
    assert made.ConceptNameCodeSequence[0].CodeValue == "113037"
    assert made.ContentSequence[0].TextValue == "glass broken"
    assert client.get(LEVEL, headers=ANY).status_code == 410
    assert client.get(f"{LABEL}/metadata", headers=JSON).status_code == 200
    assert readmit(archive) == 1


def test_a_foreign_note_can_be_taken_back_as_well(client, archive):
    store(client, samples.volume())
    store(client, note("113001", 1))
    assert readmit(archive) == 1
    assert found(client) == [FIRST]


def test_a_corrected_instance_comes_back_corrected(client, archive):
    store(client, samples.volume(), samples.label())
    archive.correct(STUDY, {"PatientID": "RIGHT"}, reason="wrong", **ASK)
    for rebuilt in (False, True):
        reject(archive, SERIES, FIRST)
        if rebuilt:
            archive.reindex(**ASK)
            a_day_later(archive)
            archive.collect_garbage(**ASK)
        readmit(archive)
        response = client.get(f"{LEVEL}/metadata", headers=JSON)
        assert response.get_json(force=True)[0]["00100020"]["Value"] == ["RIGHT"]
        assert [f.detail for f in archive.verify(**ASK)] == []


def test_a_rebuilt_index_and_recovery_know_what_was_taken_back(client, archive, tmp_path):
    store(client, samples.volume(), samples.label())
    reject(archive, SERIES, FIRST)
    readmit(archive)
    assert archive.recover(everything=True) == []
    archive.reindex(**ASK)
    assert found(client) == [FIRST, THIRD]
    reject(archive, SERIES, FIRST)
    archive.reindex(**ASK)
    assert frame(client)[0] == 410
    assert [f.detail for f in archive.verify(**ASK)] == []


def test_a_readmission_cut_off_before_its_effect_is_completed(client, archive, monkeypatch):
    store(client, samples.volume(), samples.label())
    archive.correct(STUDY, {"PatientID": "RIGHT"}, reason="wrong", **ASK)
    reject(archive, SERIES, FIRST)

    class Killed(BaseException):
        pass

    def killed(*args, **kwargs):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("archive.readmission._Returning.index", killed)
        with pytest.raises(Killed):
            readmit(archive)
    assert frame(client)[0] == 410
    assert [f.detail for f in archive.verify(**ASK)] == ["was readmitted, but is not in the index"]
    done = [f.detail for f in archive.recover(everything=True)]
    assert done == ["readmit completed"]
    response = client.get(f"{LEVEL}/metadata", headers=JSON)
    assert response.get_json(force=True)[0]["00100020"]["Value"] == ["RIGHT"]


def test_what_went_because_its_time_was_over_does_not_come_back(client, archive):
    store(client, samples.volume())
    reject(archive, code="113039")
    with pytest.raises(NoSuchStudy):
        readmit(archive)


def test_what_was_deleted_does_not_come_back(client, archive):
    store(client, samples.volume())
    archive.delete(STUDY, reason="r", **ASK)
    with pytest.raises(NoSuchStudy):
        readmit(archive)


def test_a_clock_that_was_set_back_does_not_turn_the_order_round(client, archive):
    store(client, samples.volume())
    core = archive._core
    clock, steps = core.clock, iter(range(1, 100))
    core.clock = lambda: clock() - timedelta(minutes=next(steps))
    for _ in range(3):
        reject(archive)
        archive.reindex(**ASK)
        assert frame(client)[0] == 410
        readmit(archive)
        archive.reindex(**ASK)
        assert frame(client)[0] == 200


def test_rejecting_and_taking_back_leave_traces(client, archive):
    store(client, samples.volume())
    reject(archive)
    readmit(archive)
    events = [str(row.event) for row in archive._core.index.models.AuditEvent.select()]
    assert any('"readmitted":1' in event and "by mistake" in event for event in events)
    assert any("113001 Rejected for Quality Reasons" in event for event in events)
    actions = [(c.action, c.sop_instance_uid) for c in archive.changes(0, **ASK)]
    assert [a for a, sop in actions if sop == FIRST] == ["stored", "deleted", "stored"]


@pytest.mark.parametrize("wrong", [{"code": "113000"}, {"reason": "x" * 1025}, {"reason": "a\nb"}])
def test_a_code_or_reason_out_of_form_is_refused(client, archive, wrong):
    store(client, samples.volume())
    with pytest.raises(BadQuery):
        reject(archive, **wrong)
    assert found(client) == [FIRST]


def test_who_sees_nothing_rejects_and_takes_back_nothing(client, archive):
    stranger = {"principal": Principal("stranger", "cli"), "scope": NOTHING}
    store(client, samples.volume())
    with pytest.raises(NoSuchStudy):
        reject(archive, **stranger)
    reject(archive)
    with pytest.raises(NoSuchStudy):
        readmit(archive, **stranger)
    assert frame(client)[0] == 410


class Keeper(OpenPolicy):
    def allows(self, principal, action):
        return action is not Action.DELETE


def test_both_need_the_right_to_delete(tmp_path):
    archive = open_archive(tmp_path / "data", policy=Keeper())
    client = create_app(archive, WebSettings()).test_client()
    store(client, samples.volume())
    ask = {"principal": Principal("tester", "cli"), "scope": EVERYTHING}
    for verb in (lambda: archive.reject(STUDY, code="113001", **ask), lambda: readmit(archive)):
        with pytest.raises(NotAllowed):
            verb()
    assert found(client) == [FIRST]
    archive.close()


def test_the_original_of_a_rejected_slide_stays_and_comes_back_with_it(archive, client, tmp_path):
    with archive.stage() as staging:
        staging.write(b"the scanner's own file")
        scanned = staging.finish()
    original = NewOriginal(scanned.sha256, [("a.svs", scanned)], "aperio-svs")
    slide = NewSlide(original, [NewInstance("", part10=samples.volume())], "S1")
    archive.store_slide(slide, sender=Sender("ingest", "tester"), **ASK)
    for _ in range(2):
        reject(archive)
        a_day_later(archive)
        archive.collect_garbage(**ASK)
        archive.reindex(**ASK)
        a_day_later(archive)
        archive.collect_garbage(**ASK)
        readmit(archive)
        ((name, stream),) = archive.original(SERIES, **ASK)
        assert (name, b"".join(stream.chunks)) == ("a.svs", b"the scanner's own file")
