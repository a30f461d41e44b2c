# SPDX-License-Identifier: Apache-2.0
"""Store: every part answered for itself, statuses by the table, memory that stays flat."""

import io
import tracemalloc
from xml.etree import ElementTree

import pytest
from pydicom import dcmread

from archive.access import Action, OpenPolicy
from archive.errors import StorageFull
from dicomweb.app import create_app
from dicomweb.multipart import closing, part_head
from dicomweb.settings import WebSettings
from dicomweb.stow_report import identify_data_set
from tests.dicomweb import samples
from tests.dicomweb.conftest import LEVEL, WEB, open_archive, store, store_body

MULTIPART = 'multipart/related; type="application/dicom"; boundary=x-y'
JSON = {"Accept": "application/dicom+json"}


def sequence(response, tag):
    return response.get_json(force=True).get(tag, {}).get("Value", [])


def references(response, tag):
    return [item["00081155"]["Value"][0] for item in sequence(response, tag)]


def stored_uids(client):
    response = client.get(f"{WEB}/instances", headers=JSON)
    return [] if response.status_code == 204 else [
        item["00080018"]["Value"][0] for item in response.get_json(force=True)
    ]  # fmt: skip


def test_all_stored_is_200_with_urls_that_answer(client):
    response = store(client, samples.volume(), samples.label())
    assert response.status_code == 200
    assert response.headers["Content-Type"] == "application/dicom+json"
    assert references(response, "00081199") == [f"{samples.SERIES}.1", f"{samples.SERIES}.3"]
    assert response.get_json(force=True)["00081190"]["Value"] == [
        f"http://localhost{WEB}/studies/{samples.STUDY}"
    ]
    for item in sequence(response, "00081199"):
        url = item["00081190"]["Value"][0].removeprefix("http://localhost")
        assert client.get(f"{url}/metadata", headers=JSON).status_code == 200
    assert "00081198" not in response.get_json(force=True)


@pytest.mark.parametrize("accept", [{}, {"Accept": ""}, {"Accept": "*/*"}, {"Accept": "application/*"}])
def test_a_sender_that_names_no_media_type_is_answered_in_json(client, accept):
    response = client.post(
        f"{WEB}/studies", data=store_body(samples.volume()), headers=accept, content_type=MULTIPART
    )
    assert (response.status_code, response.content_type) == (200, "application/dicom+json")
    assert references(response, "00081199") == [f"{samples.SERIES}.1"]


def test_an_answer_that_cannot_be_given_is_said_before_anything_is_stored(client):
    assert store(client, samples.volume(), accept="text/csv").status_code == 406
    assert stored_uids(client) == []


def test_what_was_stored_comes_back(client):
    store(client, samples.volume())
    single = {"Accept": "application/dicom; transfer-syntax=*"}
    assert client.get(LEVEL, headers=single).get_data() == samples.volume()


TIFFS = [b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"]


@pytest.mark.parametrize("magic", [b"MZ\x90\0", b"\x7fELF", b"#!/b", b"\0\0\0\1", *TIFFS])
def test_a_preamble_is_served_only_if_it_is_zeros_or_a_tiff(client, magic):
    sent = magic.ljust(128, b"\1") + samples.volume()[128:]
    assert store(client, sent).status_code == 200
    single = {"Accept": "application/dicom; transfer-syntax=*"}
    served = client.get(LEVEL, headers=single)
    expected = sent if magic in TIFFS else bytes(128) + sent[128:]
    assert served.get_data() == expected
    assert served.content_length == len(sent)
    ranged = client.get(LEVEL, headers={**single, "Range": "bytes=0-3"})
    assert ranged.get_data() == expected[:4]
    assert client.get(f"{LEVEL}?original=true", headers=single).get_data() == sent


def test_another_sop_class_in_group_2_is_stored_with_the_warning_b007(client):
    sent = samples.volume().replace(b"1.2.840.10008.5.1.4.1.1.77.1.6", b"1.2.840.10008.5.1.4.1.1.77.1.4", 1)
    response = store(client, sent)
    assert response.status_code == 202
    assert [item["00081196"]["Value"] for item in sequence(response, "00081199")] == [[0xB007]]


def test_another_header_around_the_same_pixels_is_answered_with_b006(client):
    store(client, samples.volume())
    response = store(client, samples.volume().replace(b"P1", b"P2"))
    assert response.status_code == 202
    assert [item["00081196"]["Value"] for item in sequence(response, "00081199")] == [[0xB006]]


def test_a_sop_class_that_is_none_for_storage_is_0122(client):
    sent = samples.volume().replace(b"1.2.840.10008.5.1.4.1.1.77.1.6", b"1.2.840.10008.1.3.10.4.1.1.771")
    response = store(client, sent)
    assert response.status_code == 409
    assert [item["00081197"]["Value"] for item in sequence(response, "00081198")] == [[0x0122]]


def test_a_transfer_syntax_that_is_none_is_c122(client):
    response = store(client, samples.volume().replace(b"1.2.840.10008.1.2.4.50", b"1.2.840.10008.1.2.4.99"))
    assert response.status_code == 409
    assert [item["00081197"]["Value"] for item in sequence(response, "00081198")] == [[0xC122]]


def test_the_same_again_is_success_and_stored_once(client):
    assert store(client, samples.volume()).status_code == 200
    assert store(client, samples.volume()).status_code == 200
    assert stored_uids(client) == [f"{samples.SERIES}.1"]


def test_one_bad_part_never_loses_the_others(client):
    response = store(client, samples.volume(), b"not DICOM at all", samples.volume(5)[:3000], samples.label())
    assert response.status_code == 202
    assert references(response, "00081199") == [f"{samples.SERIES}.1", f"{samples.SERIES}.3"]
    assert references(response, "00081198") == [f"{samples.SERIES}.5"]
    assert [item["00081197"]["Value"] for item in sequence(response, "0008119A")] == [[0xC000]]
    assert sorted(stored_uids(client)) == [f"{samples.SERIES}.1", f"{samples.SERIES}.3"]


def test_other_pixels_under_a_known_uid_are_409(client):
    store(client, samples.volume())
    response = store(client, samples.volume(first=7))
    assert response.status_code == 409
    (failed,) = sequence(response, "00081198")
    assert failed["00081197"]["Value"] == [0x0111]
    assert failed["00081155"]["Value"] == [f"{samples.SERIES}.1"]
    assert failed["00081150"]["Value"] == ["1.2.840.10008.5.1.4.1.1.77.1.6"]


def test_a_study_that_the_url_does_not_name_is_409(client):
    response = store(client, samples.volume(), study="1.2.3")
    assert response.status_code == 409
    assert [item["00081197"]["Value"] for item in sequence(response, "00081198")] == [[0xA900]]
    assert stored_uids(client) == []
    assert store(client, samples.volume(), study=samples.STUDY).status_code == 200


def test_a_study_mismatch_beside_a_match_is_202(client):
    other = samples.label(study=f"{samples.ROOT}.2", series=f"{samples.ROOT}.2.1")
    response = store(client, samples.volume(), other, study=samples.STUDY)
    assert response.status_code == 202
    assert references(response, "00081198") == [f"{samples.ROOT}.2.1.3"]


def test_a_data_set_without_preamble_is_read_leniently(client):
    response = store(client, samples.label(preamble=False))
    assert response.status_code == 200, response.get_data()
    frame = f"{WEB}/studies/{samples.STUDY}/series/{samples.SERIES}/instances/{samples.SERIES}.3/frames/1"
    accept = {"Accept": "application/octet-stream; transfer-syntax=*"}
    assert client.get(frame, headers=accept).get_data() == bytes(range(256)) * 3


def test_garbage_alone_is_400(client):
    response = store(client, b"garbage")
    assert response.status_code == 400
    assert sequence(response, "0008119A")


@pytest.mark.parametrize(
    "content_type",
    [
        "application/dicom",
        "multipart/form-data; boundary=x-y",
        'multipart/related; type="text/html"; boundary=x-y',
        "",
    ],
)
def test_other_bodies_are_415(client, content_type):
    headers = {**JSON, "Content-Type": content_type}
    response = client.post(f"{WEB}/studies", data=store_body(samples.volume()), headers=headers)
    assert response.status_code == 415
    assert response.get_json()["error"]["kind"] == "UnsupportedMediaType"


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ('multipart/related; type="application/dicom"', b"x"),
        (MULTIPART, b""),
        (MULTIPART, closing("x-y")),
        (MULTIPART, b"--x-y\r\nbad header\r\n\r\nx\r\n--x-y--"),
    ],
)
def test_bodies_that_are_no_multipart_are_400(client, content_type, body):
    response = client.post(f"{WEB}/studies", data=body, headers={**JSON, "Content-Type": content_type})
    assert response.status_code == 400


def test_a_body_cut_off_within_a_part_keeps_the_parts_before_it(client):
    body = store_body(samples.label(), samples.volume())[:-2000]
    response = client.post(f"{WEB}/studies", data=body, headers=JSON, content_type=MULTIPART)
    assert response.status_code == 202
    assert references(response, "00081199") == [f"{samples.SERIES}.3"]
    assert references(response, "00081198") == [f"{samples.SERIES}.1"]
    assert stored_uids(client) == [f"{samples.SERIES}.3"]


def test_quoted_boundaries_and_unquoted_types_are_read(client):
    body = store_body(samples.label(), boundary="0f b:1")
    content_type = 'multipart/related; type=application/dicom; boundary="0f b:1"'
    response = client.post(f"{WEB}/studies", data=body, headers=JSON, content_type=content_type)
    assert response.status_code == 200


def test_a_chunked_body_is_stored_as_one_with_a_length(client):
    response = client.post(
        f"{WEB}/studies",
        input_stream=io.BytesIO(store_body(samples.volume())),
        headers={**JSON, "Transfer-Encoding": "chunked"},
        content_type=MULTIPART,
        environ_overrides={"wsgi.input_terminated": True},
    )
    assert response.status_code == 200


def test_the_report_is_xml_on_request(client):
    response = store(client, samples.volume(), b"x", accept="application/dicom+xml")
    assert response.status_code == 202
    root = ElementTree.fromstring(response.get_data())
    assert {element.get("keyword") for element in root} >= {"ReferencedSOPSequence", "OtherFailuresSequence"}


def test_a_request_that_accepts_no_report_stores_nothing(client):
    response = store(client, samples.volume(), accept="image/png")
    assert response.status_code == 406
    assert stored_uids(client) == []


def test_a_foreign_page_cannot_store(client):
    headers = {**JSON, "Origin": "http://evil.example"}
    response = client.post(
        f"{WEB}/studies", data=store_body(samples.label()), headers=headers, content_type=MULTIPART
    )
    assert response.status_code == 403
    own = {**JSON, "Origin": "http://localhost"}
    assert client.post(
        f"{WEB}/studies", data=store_body(samples.label()), headers=own, content_type=MULTIPART
    ).status_code == 200  # fmt: skip


class Full:
    """A staging file on a medium that is full after ``room`` bytes."""

    def __init__(self, inner, room):
        self._inner, self._room = inner, room

    def __enter__(self):
        self._inner.__enter__()
        return self

    def __exit__(self, *error):
        return self._inner.__exit__(*error)

    def write(self, data):
        self._room -= len(data)
        if self._room < 0:
            raise StorageFull("no space left in the store")
        self._inner.write(data)

    def finish(self):
        return self._inner.finish()


def test_a_full_disk_is_413_and_leaves_nothing(client, archive, monkeypatch, tmp_path):
    stage = archive.stage
    monkeypatch.setattr(archive, "stage", lambda size_hint=0: Full(stage(size_hint), 1000))
    response = store(client, samples.volume())
    assert response.status_code == 413
    assert [item["00081197"]["Value"] for item in sequence(response, "00081198")] == [[0xA700]]
    assert list((tmp_path / "data" / "spool").iterdir()) == []


def test_a_part_refused_before_its_first_byte_is_named_all_the_same(client, archive, monkeypatch):
    def full(size_hint=0):
        raise StorageFull("no space left in the store")

    monkeypatch.setattr(archive, "stage", full)
    response = store(client, samples.volume(), samples.label())
    assert response.status_code == 413
    assert references(response, "00081198") == [f"{samples.SERIES}.1", f"{samples.SERIES}.3"]


def test_a_part_that_the_disk_cannot_hold_does_not_lose_a_smaller_one(client, archive, monkeypatch):
    stage = archive.stage
    monkeypatch.setattr(archive, "stage", lambda size_hint=0: Full(stage(size_hint), 6000))
    assert len(samples.volume(columns=6, rows=4)) > 6000 > len(samples.label())
    response = store(client, samples.volume(columns=6, rows=4), samples.label())
    assert response.status_code == 202
    assert references(response, "00081199") == [f"{samples.SERIES}.3"]


def test_a_fault_of_ours_in_one_part_is_reported_and_the_others_stored(client, archive, monkeypatch):
    store_file = archive.store_file
    calls = []

    def fail_first(staged, **kwargs):
        calls.append(staged)
        if len(calls) == 1:
            raise RuntimeError("PATIENT^NAME")
        return store_file(staged, **kwargs)

    monkeypatch.setattr(archive, "store_file", fail_first)
    response = store(client, samples.volume(), samples.label())
    assert response.status_code == 202
    assert b"PATIENT" not in response.get_data()
    assert [item["00081197"]["Value"] for item in sequence(response, "00081198")] == [[0x0110]]


class ReadOnly(OpenPolicy):
    def allows(self, principal, action):
        return action not in (Action.STORE, Action.REPLACE)


def test_who_may_not_store_gets_403(tmp_path):
    archive = open_archive(tmp_path / "data", policy=ReadOnly())
    client = create_app(archive, WebSettings()).test_client()
    assert store(client, samples.label()).status_code == 403
    assert stored_uids(client) == []
    archive.close()


def test_too_many_parts_stop_at_the_limit(archive):
    app = create_app(archive, WebSettings(parts_per_request=2))
    response = store(app.test_client(), samples.label(), b"x", samples.volume())
    assert response.status_code == 202
    assert stored_uids(app.test_client()) == [f"{samples.SERIES}.3"]


class Endless(io.RawIOBase):
    """A multipart body of one part, made while it is read."""

    def __init__(self, size):
        self._left = [
            part_head("x-y", [("Content-Type", "application/dicom")]),
            *[b"\0" * 65_536] * (size // 65_536),
        ]
        self._left.append(b"\r\n" + closing("x-y"))
        self._left.reverse()

    def readable(self):
        return True

    def tell(self):
        return 0

    def seek(self, offset, whence=0):
        return 0

    def read(self, size=-1):
        return self._left.pop() if self._left else b""


def test_memory_does_not_grow_with_the_body(client):
    body = Endless(64 << 20)
    tracemalloc.start()
    try:
        response = client.post(
            f"{WEB}/studies",
            input_stream=body,
            headers={**JSON, "Transfer-Encoding": "chunked"},
            content_type=MULTIPART,
            environ_overrides={"wsgi.input_terminated": True},
        )
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert response.status_code == 400
    assert peak < 16 << 20


@pytest.mark.parametrize("size", [0, 10, 131, 140, 300, 5000])
def test_a_data_set_cut_anywhere_is_identified_or_not_but_never_an_error(size):
    sop_class, sop_instance = identify_data_set(samples.volume()[:size])
    assert (sop_instance == "") or sop_instance == str(dcmread(io.BytesIO(samples.volume())).SOPInstanceUID)
    assert isinstance(sop_class, str)
    assert identify_data_set(samples.volume()[:5000])[1] == f"{samples.SERIES}.1"
    assert identify_data_set(samples.label(preamble=False)[:800])[1] == f"{samples.SERIES}.3"
