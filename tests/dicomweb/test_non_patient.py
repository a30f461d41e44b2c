# SPDX-License-Identifier: Apache-2.0
"""Non-Patient Instance Service (PS3.18 Chapter 12)."""

import io
import json
import threading
from functools import partial

import pytest
from pydicom import dcmread
from pydicom.uid import ImplicitVRLittleEndian

from archive.access import EVERYTHING, Action, OpenPolicy, Principal, Scope
from archive.non_patient_classes import CATEGORIES, RETURNED
from dicomweb import stow_metadata
from dicomweb.app import create_app
from dicomweb.settings import WebSettings
from tests.dicomweb import samples
from tests.dicomweb.conftest import WEB, open_archive, parts_of, store, store_body
from tests.support.non_patient import HANGING, PALETTE, ROOT, hanging_protocol, inventory, palette, written

PALETTES, PROTOCOLS = f"{WEB}/color-palettes", f"{WEB}/hanging-protocols"
JSON, DICOM = {"Accept": "application/dicom+json"}, {"Accept": "application/dicom; transfer-syntax=*"}
ASK = {"principal": Principal("tester", "cli"), "scope": EVERYTHING}


def put(client, url, *files, accept="application/dicom+json"):
    return client.post(
        url,
        data=store_body(*files),
        headers={"Accept": accept},
        content_type='multipart/related; type="application/dicom"; boundary=x-y',
    )


def one(client, url, data, content_type="application/dicom"):
    return client.post(url, data=data, headers=JSON, content_type=content_type)


def uids(response):
    assert response.status_code in (200, 204), response.get_data()
    found = response.get_json(force=True) if response.status_code == 200 else []
    return [row["00080018"]["Value"][0] for row in found]


def items(response, tag):
    return response.get_json(force=True).get(tag, {}).get("Value", [])


def reasons(response):
    found = items(response, "00081198") + items(response, "0008119A")
    return [item["00081197"]["Value"][0] for item in found]


def findings(archive):
    return [(f.kind, f.detail) for f in archive.verify(**ASK)]


def test_what_is_stored_is_found_and_comes_back_bit_for_bit(client, archive):
    data = written(palette())
    response = one(client, PALETTES, data)
    assert response.status_code == 200
    (item,) = items(response, "00081199")
    url = item["00081190"]["Value"][0]
    assert url.endswith(f"{PALETTES}/{ROOT}.1")
    assert response.headers["Content-Location"] == url
    back = client.get(f"{PALETTES}/{ROOT}.1", headers=DICOM)
    assert (back.status_code, back.get_data()) == (200, data)
    (row,) = client.get(PALETTES, headers=JSON).get_json(force=True)
    assert row["00700080"]["Value"] == ["HOT_IRON"]
    assert row["00081190"]["Value"] == [url]
    assert "00281201" not in row
    assert findings(archive) == []


def test_attributes_come_as_json_by_default_and_as_xml(client):
    put(client, PALETTES, written(palette()))
    for accept in ("*/*", "application/dicom+json"):
        (found,) = client.get(f"{PALETTES}/{ROOT}.1", headers={"Accept": accept}).get_json(force=True)
        assert found["00700084"]["Value"] == [{"Alphabetic": "Müller^Jörg"}]
        assert len(found["00281201"]["InlineBinary"]) == 684
    accept = 'multipart/related; type="application/dicom+xml"'
    (part,) = parts_of(client.get(f"{PALETTES}/{ROOT}.1", headers={"Accept": accept}))
    assert "Hot, für Wärme" in part.data.decode()
    assert client.get(f"{PALETTES}/{ROOT}.1", headers={"Accept": "image/png"}).status_code == 406
    first = client.get(f"{PALETTES}/{ROOT}.1", headers=JSON)
    again = client.get(f"{PALETTES}/{ROOT}.1", headers={**JSON, "If-None-Match": first.headers["ETag"]})
    assert again.status_code == 304


def test_large_values_are_named_and_can_be_fetched(client):
    made = palette(entries=65536)
    put(client, PALETTES, written(made))
    (found,) = client.get(f"{PALETTES}/{ROOT}.1", headers=JSON).get_json(force=True)
    url = found["00281201"]["BulkDataURI"]
    response = client.get(url, headers={"Accept": "application/octet-stream"})
    assert response.get_data() == made.RedPaletteColorLookupTableData
    known = {"Accept": "application/octet-stream", "If-None-Match": response.headers["ETag"]}
    assert client.get(url, headers=known).status_code == 304
    assert client.get(f"{url[:-1]}9", headers={**known, "If-None-Match": "*"}).status_code == 404
    assert client.get(f"{url[:-1]}9", headers={"Accept": "application/octet-stream"}).status_code == 404


def test_implicit_vr_is_given_as_explicit_unless_any_will_do(client):
    data = written(hanging_protocol(), ImplicitVRLittleEndian)
    assert one(client, PROTOCOLS, data).status_code == 200
    place = f"{PROTOCOLS}/{ROOT}.2"
    assert client.get(place, headers=DICOM).get_data() == data
    made = client.get(place, headers={"Accept": "application/dicom"})
    assert "1.2.840.10008.1.2.1" in made.headers["Content-Type"]
    read = dcmread(io.BytesIO(made.get_data()))
    assert read.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.1"
    assert read.HangingProtocolDefinitionSequence[0].Modality == "SM"
    unsupported = {"Accept": "application/dicom; transfer-syntax=1.2.840.10008.1.2.4.50"}
    assert client.get(place, headers=unsupported).status_code == 406


@pytest.mark.parametrize("content_type", ["application/dicom+json", "application/dicom+xml"])
def test_data_sets_are_stored_as_well_as_files(client, content_type):
    from dicomweb.native_xml import native_dicom_model

    put(client, PALETTES, written(palette()))
    (model,) = client.get(f"{PALETTES}/{ROOT}.1", headers=JSON).get_json(force=True)
    client.delete(f"{PALETTES}/{ROOT}.1")
    body = native_dicom_model(model) if "xml" in content_type else json.dumps([model]).encode()
    response = one(client, PALETTES, body, content_type)
    assert response.status_code == 200, response.get_data()
    assert uids(client.get(PALETTES, headers=JSON)) == [f"{ROOT}.1"]
    in_parts = client.post(
        PALETTES, headers=JSON, data=store_body(body, content_type=content_type),
        content_type=f'multipart/related; type="{content_type}"; boundary=x-y',
    )  # fmt: skip
    assert in_parts.status_code == 200, in_parts.get_data()


def test_a_data_set_without_preamble_is_stored_with_one(client):
    assert one(client, PALETTES, written(palette(), bare=True)).status_code == 200
    back = client.get(f"{PALETTES}/{ROOT}.1", headers=DICOM).get_data()
    assert dcmread(io.BytesIO(back)).ContentLabel == "HOT_IRON"


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("ContentLabel=HOT*", [1]), ("ContentLabel=COOL", [4]), ("ContentLabel=cool", []),
        ("ContentCreatorName=muller*", [1, 4]), ("00080018=" + f"{ROOT}.4", [4]),
        ("InstanceCreationDate=20260101-20260103", [1, 4]), ("InstanceCreationDate=20250101", []),
        ("SOPClassUID=" + PALETTE, [1, 4]), ("HangingProtocolName=X", []),
        ('HangingProtocolName=""&emptyvaluematching=true', [1, 4]),
        ("limit=1&offset=1", [4]), ("offset=2", []), ("NoSuchKeyword=1", [1, 4]),
        (f"SOPInstanceUID={ROOT}.1,{ROOT}.4", [1, 4]),
    ],
)  # fmt: skip
def test_palettes_are_found_by_their_attributes(client, query, expected):
    put(client, PALETTES, written(palette()), written(palette(4, "COOL")))
    found = client.get(f"{PALETTES}?{query}", headers=JSON)
    assert uids(found) == [f"{ROOT}.{number}" for number in expected]
    assert uids(client.get(PROTOCOLS, headers=JSON)) == []


def test_protocols_are_found_within_their_sequences(client):
    put(client, PROTOCOLS, written(hanging_protocol()))
    key = "HangingProtocolDefinitionSequence.Modality"
    assert uids(client.get(f"{PROTOCOLS}?{key}=SM", headers=JSON)) == [f"{ROOT}.2"]
    assert uids(client.get(f"{PROTOCOLS}?{key}=CT", headers=JSON)) == []
    assert uids(client.get(f"{PROTOCOLS}?NumberOfPriorsReferenced=0", headers=JSON)) == [f"{ROOT}.2"]


def test_a_result_has_what_was_asked_for_and_what_is_left_is_announced(client):
    put(client, PALETTES, written(palette()), written(palette(4, "COOL")))
    first = client.get(f"{PALETTES}?limit=1&includefield=RedPaletteColorLookupTableDescriptor", headers=JSON)
    assert first.headers["Warning"].startswith("299 ")
    assert "There are 1 additional results" in first.headers["Warning"]
    (row,) = first.get_json(force=True)
    assert row["00281101"]["Value"] == [256, 0, 16]
    (row,) = client.get(f"{PALETTES}?limit=1&includefield=all", headers=JSON).get_json(force=True)
    assert "00281201" in row
    accept = 'multipart/related; type="application/dicom+xml"'
    assert len(parts_of(client.get(PALETTES, headers={"Accept": accept}))) == 2


def test_the_same_again_is_success_and_other_content_is_refused(client, archive):
    put(client, PALETTES, written(palette()))
    assert put(client, PALETTES, written(palette(), ImplicitVRLittleEndian)).status_code == 200
    refused = put(client, PALETTES, written(palette(label="OTHER")))
    assert (refused.status_code, reasons(refused)) == (409, [0x0111])
    (row,) = client.get(PALETTES, headers=JSON).get_json(force=True)
    assert row["00700080"]["Value"] == ["HOT_IRON"]
    assert findings(archive) == []


def test_what_is_of_another_category_or_uid_or_of_a_patient_is_refused(client):
    wrong = put(client, PALETTES, written(hanging_protocol()))
    assert (wrong.status_code, reasons(wrong)) == (409, [0xA900])
    wrong = one(client, f"{PALETTES}/{ROOT}.9", written(palette()))
    assert (wrong.status_code, reasons(wrong)) == (409, [0xA900])
    wrong = put(client, PALETTES, samples.label())
    assert (wrong.status_code, reasons(wrong)) == (409, [0x0122])
    assert one(client, f"{PALETTES}/{ROOT}.1", written(palette())).status_code == 200
    mixed = put(client, PALETTES, b"no dicom", written(palette(4)))
    assert (mixed.status_code, reasons(mixed)) == (200, [0xC000])


@pytest.mark.parametrize(
    ("data", "content_type", "status"),
    [
        (b"", "application/dicom", 400), (b"x" * 300, "application/dicom", 400),
        (written(palette())[:-40], "application/dicom", 400), (b"[", "application/dicom+json", 400),
        (b"[]", "application/dicom+json", 400), (b"<a/>", "application/dicom+xml", 400),
        (b"x", "text/plain", 415), (b"x", 'multipart/related; type="application/dicom"', 400),
        (b"--x-y\r\n\r\nabc", 'multipart/related; type="application/dicom"; boundary=x-y', 400),
    ],
)  # fmt: skip
def test_what_is_no_instance_is_refused(client, data, content_type, status):
    response = one(client, PALETTES, data, content_type)
    assert response.status_code == status, response.get_data()


def test_one_beyond_the_limit_is_refused_unread(client, monkeypatch):
    monkeypatch.setattr("dicomweb.non_patient.MAX_BYTES", 1000)
    response = one(client, PALETTES, written(palette()))
    assert (response.status_code, reasons(response)) == (413, [0xA700])
    assert put(client, PALETTES, written(palette())).status_code == 413


def test_a_large_data_set_waits_until_another_has_been_read(client, monkeypatch):
    turn = threading.Lock()
    monkeypatch.setattr(stow_metadata, "_SMALL_BYTES", 100)
    monkeypatch.setattr(stow_metadata, "_one_at_a_time", turn)
    read, held = stow_metadata._read, []
    monkeypatch.setattr(stow_metadata, "_read", lambda *given: (held.append(turn.locked()), read(*given))[1])
    body = json.dumps(hanging_protocol().to_json_dict())
    assert one(client, PROTOCOLS, body, "application/dicom+json").status_code == 200
    assert held == [True]


def test_one_among_studies_goes_to_its_own_place(client):
    response = store(client, written(palette()), samples.label())
    assert response.status_code == 200
    places = [item["00081190"]["Value"][0] for item in items(response, "00081199")]
    assert places[0].endswith(f"{PALETTES}/{ROOT}.1")
    assert uids(client.get(PALETTES, headers=JSON)) == [f"{ROOT}.1"]
    assert uids(client.get(f"{WEB}/instances", headers=JSON)) == [f"{samples.SERIES}.3"]
    assert store(client, written(palette(4)), study=samples.STUDY).status_code == 400


def test_a_deleted_one_is_gone_and_its_uid_free(client, archive):
    put(client, PALETTES, written(palette()))
    assert client.delete(f"{PROTOCOLS}/{ROOT}.1").status_code == 404
    assert client.delete(f"{PALETTES}/{ROOT}.1?reason=ugly").status_code == 204
    assert client.get(f"{PALETTES}/{ROOT}.1", headers=JSON).status_code == 404
    assert client.delete(f"{PALETTES}/{ROOT}.1").status_code == 404
    assert findings(archive) == []
    assert put(client, PALETTES, written(palette(label="NEW"))).status_code == 200
    archive.reindex(**ASK)
    (row,) = client.get(PALETTES, headers=JSON).get_json(force=True)
    assert row["00700080"]["Value"] == ["NEW"]
    assert findings(archive) == []


def test_a_rebuilt_index_has_them_all(client, archive):
    put(client, PALETTES, written(palette()), written(palette(4, "COOL")))
    put(client, PROTOCOLS, written(hanging_protocol()))
    client.delete(f"{PALETTES}/{ROOT}.1")
    before = [client.get(url, headers=JSON).get_data() for url in (PALETTES, PROTOCOLS)]
    archive.reindex(**ASK)
    assert [client.get(url, headers=JSON).get_data() for url in (PALETTES, PROTOCOLS)] == before
    assert findings(archive) == []
    assert client.get(f"{PALETTES}?ContentLabel=COOL", headers=JSON).status_code == 200


@pytest.mark.parametrize("verb", ["add", "remove"])
def test_what_a_kill_kept_out_of_the_index_is_completed(client, archive, monkeypatch, verb):
    class Killed(BaseException):
        pass

    def killed(*args, **kwargs):
        raise Killed

    if verb == "remove":
        put(client, PALETTES, written(palette()))
    with monkeypatch.context() as patch:
        patch.setattr(f"archive.non_patient_index.{verb}", killed)
        act = partial(put, client, PALETTES, written(palette()))
        with pytest.raises(Killed):
            act() if verb == "add" else client.delete(f"{PALETTES}/{ROOT}.1")
    assert [kind for kind, _ in findings(archive)][:1] == ["journal"]
    assert [f.repaired for f in archive.recover(everything=True)] == [True]
    assert uids(client.get(PALETTES, headers=JSON)) == ([f"{ROOT}.1"] if verb == "add" else [])
    assert findings(archive) == []


def test_verify_sees_a_flipped_bit_and_a_row_that_the_journal_does_not_know(client, archive, tmp_path):
    put(client, PALETTES, written(palette()))
    (blob,) = [p for p in (tmp_path / "data" / "store" / "blob").rglob("*") if p.is_file()]
    (entry,) = [p for p in (tmp_path / "data" / "store" / "journal").rglob("*") if p.is_file()]
    kept = blob.read_bytes()
    blob.chmod(0o600)
    blob.write_bytes(kept.replace(b"HOT_IRON", b"HOT_IRAN"))
    details = {detail for _, detail in findings(archive)}
    assert {"the bytes differ from their digest", "differs from the file"} <= details
    blob.write_bytes(kept)
    entry.unlink()
    assert findings(archive) == [("journal", "is stored, but no entry of the journal says so")]


def test_every_door_leaves_a_trace(client, archive):
    put(client, PALETTES, written(palette()))
    client.delete(f"{PALETTES}/{ROOT}.1")
    model = archive._core.index.models.AuditEvent
    events = [(row.code, row.action) for row in model.select() if row.sop_instance_uid == f"{ROOT}.1"]
    assert events == [("110104", "C"), ("110103", "D")]


def test_safekeeping_of_one_is_promised_after_it_was_read(client, archive, tmp_path):
    put(client, PALETTES, written(palette()))
    put(client, PROTOCOLS, written(hanging_protocol()))
    names = [(PALETTE, f"{ROOT}.1"), (PALETTE, f"{ROOT}.2"), (HANGING, f"{ROOT}.9")]
    archive.request_commitment("2.25.1", names, **ASK)
    assert archive.run_commitment("2.25.1") == (3, 2)
    found = archive.commitment("2.25.1", **ASK)
    assert found.committed == (names[0],)
    assert [reason for *_, reason in found.failed] == [0x0119, 0x0112]
    for blob in (tmp_path / "data" / "store" / "blob").rglob("*"):
        if blob.is_file():
            blob.chmod(0o600)
            blob.write_bytes(blob.read_bytes().replace(b"HOT_IRON", b"HOT_IRAN"))
    archive.request_commitment("2.25.2", names[:1], **ASK)
    assert archive.run_commitment("2.25.2") == (1, 1)
    assert archive.commitment("2.25.2", **ASK).failed == ((*names[0], 0x0110),)


class Some(OpenPolicy):
    """Sees studies of some patients; may not delete."""

    def scope(self, principal):
        return Scope("study.patient_id = ?", ("A",))

    def allows(self, principal, action):
        return action is not Action.DELETE


def test_who_sees_some_studies_sees_palettes_and_no_inventories(tmp_path):
    archive = open_archive(tmp_path / "data")
    everybody = create_app(archive, WebSettings()).test_client()
    put(everybody, PALETTES, written(palette()))
    put(everybody, f"{WEB}/inventories", written(inventory()))
    assert uids(everybody.get(f"{WEB}/inventories", headers=JSON)) == [f"{ROOT}.3"]
    archive._core.policy = Some()
    some = create_app(archive, WebSettings()).test_client()
    assert uids(some.get(PALETTES, headers=JSON)) == [f"{ROOT}.1"]
    assert uids(some.get(f"{WEB}/inventories", headers=JSON)) == []
    assert some.get(f"{WEB}/inventories/{ROOT}.3", headers=DICOM).status_code == 404
    assert some.delete(f"{PALETTES}/{ROOT}.1").status_code == 403
    archive.close()


def test_every_category_stands_in_the_capabilities(client):
    response = client.options(f"{WEB}/", headers={"Accept": "application/json"})
    found = {r["path"]: r for r in response.get_json()["application"]["resources"]["resource"]}
    for category in CATEGORIES:
        methods = {m["name"]: m for m in found[category]["methods"]}
        assert {"GET", "POST"} <= methods.keys()
        assert "application/dicom" in methods["POST"]["request"]["mediaTypes"]
    assert CATEGORIES.keys() == RETURNED.keys()
    assert HANGING in CATEGORIES["hanging-protocols"]
