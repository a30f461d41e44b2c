# SPDX-License-Identifier: Apache-2.0
"""Rejection notes (IHE IOCM) by STOW: the note stays, what it names is gone."""

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, KeyObjectSelectionDocumentStorage

from archive.access import EVERYTHING, Action, OpenPolicy, Principal
from dicomweb.app import create_app
from dicomweb.settings import WebSettings
from tests.dicomweb import samples
from tests.dicomweb.conftest import LABEL, LEVEL, WEB, open_archive, store
from tests.dicomweb.test_stow import references, sequence

WSI = "1.2.840.10008.5.1.4.1.1.77.1.6"
STUDY = f"{WEB}/studies/{samples.STUDY}"
NOTE = f"{STUDY}/series/{samples.ROOT}.1.7/instances/{samples.ROOT}.1.7.1"
ANY = {"Accept": "*/*"}
JSON = {"Accept": "application/dicom+json"}
ASK = {"principal": Principal("tester", "cli"), "scope": EVERYTHING}


def note(code, *numbers, scheme="DCM", sop_class=WSI, series=samples.SERIES, sop=1):
    full = samples.header(1)
    made = Dataset()
    text = (
        "SpecificCharacterSet StudyDate StudyTime AccessionNumber PatientName PatientID "
        "StudyInstanceUID StudyID"
    )
    for keyword in text.split():
        setattr(made, keyword, full[keyword].value)
    made.SOPClassUID, made.Modality = KeyObjectSelectionDocumentStorage, "KO"
    made.SeriesInstanceUID, made.SOPInstanceUID = f"{samples.ROOT}.1.7", f"{samples.ROOT}.1.7.{sop}"
    made.SeriesNumber, made.InstanceNumber = 7, sop
    title = Dataset()
    title.CodeValue, title.CodingSchemeDesignator, title.CodeMeaning = code, scheme, "reason"
    made.ConceptNameCodeSequence = [title]
    items = []
    for number in numbers:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, f"{samples.SERIES}.{number}"
        items.append(item)
    inner, evidence = Dataset(), Dataset()
    inner.SeriesInstanceUID, inner.ReferencedSOPSequence = series, items
    evidence.StudyInstanceUID, evidence.ReferencedSeriesSequence = samples.STUDY, [inner]
    made.CurrentRequestedProcedureEvidenceSequence = [evidence]
    return samples.written(made, ExplicitVRLittleEndian)


def found(client):
    response = client.get(f"{WEB}/instances", headers=JSON)
    return sorted(item["00080018"]["Value"][0] for item in response.get_json(force=True))


def blobs(folder):
    return sum(path.is_file() for path in (folder / "data" / "store" / "blob").rglob("*"))


def a_day_later(archive):
    core = archive._core
    later = core.now_us() + 25 * 3600 * 1_000_000
    clock = core.clock
    core.clock = lambda: clock().fromtimestamp(later / 1e6, tz=clock().tzinfo)


@pytest.mark.parametrize("code", ["113001", "113037", "113038", "113039"])
def test_what_a_note_names_is_410_and_the_note_and_the_others_are_there(client, code):
    store(client, samples.volume(), samples.label())
    assert client.get(f"{LEVEL}/frames/1", headers=ANY).status_code == 200
    response = store(client, note(code, 1))
    assert response.status_code == 200, response.get_data()
    for resource in ("", "/metadata", "/frames/1", "/rendered"):
        assert client.get(f"{LEVEL}{resource}", headers=ANY).status_code == 410
    assert client.get(f"{NOTE}/metadata", headers=JSON).status_code == 200
    assert client.get(f"{LABEL}/metadata", headers=JSON).status_code == 200
    assert found(client) == [f"{samples.SERIES}.3", f"{samples.ROOT}.1.7.1"]


def test_a_note_of_another_title_rejects_nothing(client):
    store(client, samples.volume())
    for code, scheme in (("113000", "DCM"), ("113001", "99ACME")):
        assert store(client, note(code, 1, scheme=scheme, sop=int(code[-1]) + 5)).status_code == 200
    assert client.get(f"{LEVEL}/metadata", headers=JSON).status_code == 200


@pytest.mark.parametrize("code", ["113001", "113037", "113038"])
def test_what_was_rejected_cannot_come_again(client, code):
    store(client, samples.volume())
    store(client, note(code, 1))
    response = store(client, samples.volume())
    assert response.status_code == 409
    assert references(response, "00081198") == [f"{samples.SERIES}.1"]
    assert [item["00081197"]["Value"] for item in sequence(response, "00081198")] == [[0x0124]]
    assert client.get(LEVEL, headers=ANY).status_code == 410


def test_what_went_because_its_time_was_over_may_come_again(client):
    store(client, samples.volume())
    store(client, note("113039", 1))
    assert store(client, samples.volume()).status_code == 200
    assert client.get(f"{LEVEL}/metadata", headers=JSON).status_code == 200


@pytest.mark.parametrize(("code", "stays"), [("113001", 2), ("113037", 2), ("113039", 1)])
def test_bytes_go_only_with_the_retention_period(client, archive, tmp_path, code, stays):
    store(client, samples.volume())
    store(client, note(code, 1))
    a_day_later(archive)
    archive.collect_garbage(**ASK)
    assert blobs(tmp_path) == stays
    assert [f.detail for f in archive.verify(**ASK)] == []


def test_a_rebuilt_index_remembers_and_keeps_the_bytes(client, archive, tmp_path):
    store(client, samples.volume(), samples.label())
    store(client, note("113001", 1))
    archive.reindex(**ASK)
    a_day_later(archive)
    archive.collect_garbage(**ASK)
    assert blobs(tmp_path) == 3
    assert client.get(LEVEL, headers=ANY).status_code == 410
    assert store(client, samples.volume()).status_code == 409
    assert found(client) == [f"{samples.SERIES}.3", f"{samples.ROOT}.1.7.1"]
    assert [f.detail for f in archive.verify(**ASK)] == []


def test_a_note_sent_again_is_success(client):
    store(client, samples.volume())
    assert store(client, note("113001", 1)).status_code == 200
    assert store(client, note("113001", 1)).status_code == 200


def test_a_note_cut_off_before_its_effect_is_completed_when_it_comes_again(client, archive, monkeypatch):
    store(client, samples.volume())

    def killed(*args, **kwargs):
        raise RuntimeError("killed")

    with monkeypatch.context() as patch:
        patch.setattr("archive.lifecycle.remove", killed)
        assert store(client, note("113001", 1)).status_code == 500
    assert client.get(f"{LEVEL}/metadata", headers=JSON).status_code == 200
    assert store(client, note("113001", 1)).status_code == 200
    assert client.get(LEVEL, headers=ANY).status_code == 410


@pytest.mark.parametrize(
    "wrong",
    [
        note("113001", 1, 9),
        note("113001"),
        note("113001", 1, sop_class="1.2.840.10008.5.1.4.1.1.7"),
        note("113001", 1, series="1.2.3"),
    ],
)
def test_a_note_that_names_something_else_is_refused_as_a_whole(client, wrong):
    store(client, samples.volume())
    response = store(client, wrong)
    assert response.status_code == 409
    assert [item["00081197"]["Value"] for item in sequence(response, "00081198")] == [[0xA900]]
    assert client.get(f"{LEVEL}/metadata", headers=JSON).status_code == 200
    assert client.get(f"{NOTE}/metadata", headers=JSON).status_code == 404


class Keeper(OpenPolicy):
    def allows(self, principal, action):
        return action is not Action.DELETE


def test_rejecting_needs_the_right_to_delete(tmp_path):
    archive = open_archive(tmp_path / "data", policy=Keeper())
    client = create_app(archive, WebSettings()).test_client()
    store(client, samples.volume())
    assert store(client, note("113001", 1)).status_code == 403
    assert client.get(f"{LEVEL}/metadata", headers=JSON).status_code == 200
    archive.close()
