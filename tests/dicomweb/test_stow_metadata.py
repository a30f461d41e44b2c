# SPDX-License-Identifier: Apache-2.0
"""Store of metadata and bulk data: what we give out can be stored again, from parts."""

import copy
import io
import json
import tracemalloc

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import dcmread

from dicomweb import native_xml_reader, stow_metadata
from dicomweb.app import create_app
from dicomweb.multipart import closing, part_head
from dicomweb.native_xml import native_dicom_model
from dicomweb.settings import WebSettings
from tests.dicomweb import samples
from tests.dicomweb.conftest import ANNOTATIONS, LABEL, LEVEL, REVERSIBLE, WEB, open_archive, parts_of
from tests.dicomweb.test_stow import references, sequence

JSON = "application/dicom+json"
XML = "application/dicom+xml"
HEADERS = {"Accept": JSON}


def body_of(kind, metadata, *bulk, metadata_last=False):
    """A multipart body; ``bulk`` are (Content-Location, Content-Type, bytes)."""
    documents = [json.dumps(metadata).encode()] if kind == JSON else list(map(native_dicom_model, metadata))
    parts = [part_head("x-y", [("Content-Type", kind)]) + document + b"\r\n" for document in documents]
    values = [
        part_head("x-y", [("Content-Type", content_type), ("Content-Location", location)]) + data + b"\r\n"
        for location, content_type, data in bulk
    ]
    return b"".join([*values, *parts] if metadata_last else [*parts, *values]) + closing("x-y")


def send(client, body, *, kind=JSON, study="", accept=JSON):
    return client.post(
        f"{WEB}/studies/{study}".rstrip("/"),
        data=body,
        headers={"Accept": accept},
        content_type=f'multipart/related; type="{kind}"; boundary=x-y',
    )


def taken_apart(reader, instance):
    """Metadata and bulk of an instance as the archive gives them: (JSON object, bulk)."""
    (model,) = reader.get(f"{instance}/metadata", headers=HEADERS).get_json(force=True)
    bulk = []

    def collect(data_set):
        for attribute in data_set.values():
            if "BulkDataURI" in attribute:
                uri = attribute["BulkDataURI"]
                got = reader.get(uri.removeprefix("http://localhost"),
                                 headers={"Accept": "application/octet-stream"})  # fmt: skip
                bulk.append((uri, "application/octet-stream", got.get_data()))
            for item in attribute.get("Value", []) if attribute["vr"] == "SQ" else []:
                collect(item)

    collect(model)
    frames = []
    if "00280010" in model:
        numbers = ",".join(map(str, range(1, int(model.get("00280008", {"Value": [1]})["Value"][0]) + 1)))
        accept = {"Accept": 'multipart/related; type="*/*"; transfer-syntax=*'}
        answer = reader.get(f"{instance}/frames/{numbers}", headers=accept)
        frames = [("px", part.headers["content-type"], part.data) for part in parts_of(answer)]
        model["7FE00010"] = {"vr": "OB", "BulkDataURI": "px"}
    return model, [*frames, *bulk]


@pytest.mark.parametrize("kind", [JSON, XML])
@pytest.mark.parametrize("instance", [LEVEL, REVERSIBLE, LABEL, ANNOTATIONS])
def test_an_instance_taken_apart_is_stored_as_it_was(client, reader, instance, kind):
    model, bulk = taken_apart(reader, instance)
    response = send(client, body_of(kind, [model], *bulk), kind=kind)
    assert response.status_code == 200, response.get_data()
    whole = {"Accept": "application/dicom; transfer-syntax=*"}
    ours, theirs = (dcmread(io.BytesIO(c.get(instance, headers=whole).get_data())) for c in (client, reader))
    assert ours.file_meta.TransferSyntaxUID == theirs.file_meta.TransferSyntaxUID
    assert ours == theirs


def test_several_data_sets_in_one_request_are_answered_one_by_one(client, reader):
    (first, first_bulk), (second, second_bulk) = (taken_apart(reader, i) for i in (LEVEL, LABEL))
    renamed = [("other", *part[1:]) if part[0] == "px" else part for part in second_bulk]
    second["7FE00010"]["BulkDataURI"] = "other"
    broken = copy.deepcopy(first)
    broken["00080018"]["Value"] = ["1.2.3.4"]
    broken["7FE00010"]["BulkDataURI"] = "not-here"
    nameless = {"00080060": {"vr": "CS", "Value": ["SM"]}}
    response = send(client, body_of(JSON, [first, broken, nameless, second], *first_bulk, *renamed))
    assert response.status_code == 202
    assert references(response, "00081199") == [f"{samples.SERIES}.1", f"{samples.SERIES}.3"]
    (failed,) = sequence(response, "00081198")
    assert failed["00081155"]["Value"] == ["1.2.3.4"]
    assert failed["00081197"]["Value"] == [0xC000]
    assert [item["00081197"]["Value"] for item in sequence(response, "0008119A")] == [[0xC000]]


def test_bulk_parts_may_come_before_the_metadata(client, reader):
    model, bulk = taken_apart(reader, LABEL)
    assert send(client, body_of(JSON, [model], *bulk, metadata_last=True)).status_code == 200


@pytest.mark.parametrize("foreign", ["http://evil.example/value", "file:///etc/passwd", "//evil.example/x"])
def test_a_foreign_bulk_data_uri_is_refused_and_never_fetched(client, reader, foreign, monkeypatch):
    import socket

    def never(*args, **kwargs):
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", never)
    model, _ = taken_apart(reader, LABEL)
    model["7FE00010"]["BulkDataURI"] = foreign
    response = send(client, body_of(JSON, [model]))
    assert response.status_code == 400
    assert references(response, "00081198") == [f"{samples.SERIES}.3"]
    assert [item["00081197"]["Value"] for item in sequence(response, "00081198")] == [[0xC000]]


def test_names_match_however_they_are_written(client, reader):
    model, bulk = taken_apart(reader, LABEL)
    model["7FE00010"]["BulkDataURI"] = f"http://localhost{WEB}/studies/px"
    bulk = [("px", *part[1:]) if part[0] == "px" else part for part in bulk]
    assert send(client, body_of(JSON, [model], *bulk)).status_code == 200


def test_a_part_that_nothing_refers_to_is_answered_as_failed(client, reader):
    model, bulk = taken_apart(reader, LABEL)
    response = send(client, body_of(JSON, [model], *bulk, ("extra", "application/octet-stream", b"x")))
    assert response.status_code == 202
    assert [item["00081197"]["Value"] for item in sequence(response, "0008119A")] == [[0xC000]]


def test_the_transfer_syntax_is_that_of_the_codestream_where_the_type_leaves_it_open(client, reader):
    model, bulk = taken_apart(reader, LEVEL)
    bare = [("px", "image/jpeg", part[2]) if part[0] == "px" else part for part in bulk]
    assert send(client, body_of(JSON, [model], *bare)).status_code == 200
    whole = client.get(LEVEL, headers={"Accept": "application/dicom; transfer-syntax=*"}).get_data()
    assert dcmread(io.BytesIO(whole)).file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.4.50"


def test_a_wrong_transfer_syntax_is_corrected_with_a_warning(client, reader):
    model, bulk = taken_apart(reader, LEVEL)
    wrong = "image/jpeg; transfer-syntax=1.2.840.10008.1.2.4.70"
    bare = [("px", wrong, part[2]) if part[0] == "px" else part for part in bulk]
    response = send(client, body_of(JSON, [model], *bare))
    assert response.status_code == 202
    assert [item["00081196"]["Value"] for item in sequence(response, "00081199")] == [[0xB000]]


def test_what_a_codestream_says_of_itself_need_not_be_in_the_metadata(client, reader):
    model, bulk = taken_apart(reader, LEVEL)
    for tag in ("00280002", "00280006", "00280008", "00280010", "00280011", "00280100", "00280101",
                "00280102", "00280103", "00280004"):  # fmt: skip
        del model[tag]
    response = send(client, body_of(JSON, [model], *bulk))
    assert response.status_code == 202
    assert [item["00081196"]["Value"] for item in sequence(response, "00081199")] == [[0xB000]]
    (found,) = client.get(f"{LEVEL}/metadata", headers=HEADERS).get_json(force=True)
    assert found["00280010"]["Value"] == [samples.TILE]
    assert found["00280008"]["Value"] == [6]


@pytest.mark.parametrize("content_type", ["image/png", "image/gif", "image/jpeg"])
def test_pixels_of_no_transfer_syntax_are_c122(client, reader, content_type):
    model, _ = taken_apart(reader, LABEL)
    response = send(client, body_of(JSON, [model], ("px", content_type, b"\x89PNG" + b"x" * 64)))
    assert response.status_code == 409
    assert [item["00081197"]["Value"] for item in sequence(response, "00081198")] == [[0xC122]]


def test_a_study_that_the_url_does_not_name_is_a900(client, reader):
    model, bulk = taken_apart(reader, LABEL)
    response = send(client, body_of(JSON, [model], *bulk), study="1.2.3")
    assert response.status_code == 409
    assert [item["00081197"]["Value"] for item in sequence(response, "00081198")] == [[0xA900]]


@pytest.mark.parametrize("kind", [JSON, XML])
@pytest.mark.parametrize("document", [b"", b"{", b"[1]", b"[[]]", b"<a>", b"[" * 100_000, b"\xff\xfe"])
def test_metadata_that_are_none_are_400(client, kind, document):
    body = part_head("x-y", [("Content-Type", kind)]) + document + b"\r\n" + closing("x-y")
    response = send(client, body, kind=kind)
    assert response.status_code == 400, response.get_data()
    assert [item["00081197"]["Value"] for item in sequence(response, "0008119A")] == [[0xC000]]


def test_a_body_cut_off_in_a_bulk_part_is_told(client, reader):
    model, bulk = taken_apart(reader, LABEL)
    response = send(client, body_of(JSON, [model], *bulk)[:-100])
    assert response.status_code == 400
    assert references(response, "00081198") == [f"{samples.SERIES}.3"]


def test_a_bulk_part_without_a_name_is_told(client, reader):
    model, _ = taken_apart(reader, ANNOTATIONS)
    body = body_of(JSON, [model]).removesuffix(closing("x-y"))
    body += part_head("x-y", [("Content-Type", "application/octet-stream")]) + b"x\r\n" + closing("x-y")
    response = send(client, body)
    assert response.status_code == 400
    assert len(sequence(response, "0008119A")) == 1


def test_the_report_is_xml_on_request(client, reader):
    model, bulk = taken_apart(reader, LABEL)
    response = send(client, body_of(JSON, [model], *bulk), accept=XML)
    assert response.status_code == 200
    assert b'keyword="ReferencedSOPSequence"' in response.get_data()


def test_more_metadata_than_the_limit_are_413(client, monkeypatch):
    monkeypatch.setattr("dicomweb.stow_metadata.METADATA_BYTES", 1000)
    assert send(client, body_of(JSON, [{"00080005": {"vr": "CS", "Value": ["x" * 2000]}}])).status_code == 413


def test_a_bomb_of_empty_items_is_refused_before_it_is_read(client, monkeypatch):
    monkeypatch.setattr("dicomweb.stow_metadata._VALUES", 1000)
    bomb = {"00082218": {"vr": "SQ", "Value": [{}] * 2000}}
    assert send(client, body_of(JSON, [bomb])).status_code == 413


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["px", "\ud800"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
TAGS = st.sampled_from(
    ["00080005", "00080016", "00080018", "0020000D", "0020000E", "00100010", "00280008", "00280010",
     "00082218", "00091001", "00420011", "7FE00010", "7FE00001", "FFFEE000", "FFFFFFFF"]
)  # fmt: skip
ATTRIBUTES = st.dictionaries(
    st.sampled_from(["vr", "Value", "BulkDataURI", "InlineBinary"]),
    VALUES | st.sampled_from(["PN", "SQ", "OB", "UI", "US", "px", "AAAA", ["1.2.3"], [{"00080018": {}}]]),
)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.dictionaries(TAGS, ATTRIBUTES | VALUES, max_size=8) | VALUES)
def test_no_metadata_are_answered_with_500(client, metadata):
    response = send(client, body_of(JSON, [metadata], ("px", "image/jpeg", samples.tile(1))))
    assert response.status_code in (400, 409), response.get_data()


def test_nothing_stays_in_the_spool(client, reader, tmp_path):
    model, bulk = taken_apart(reader, LABEL)
    send(client, body_of(JSON, [model], *bulk))
    send(client, body_of(JSON, [{}], *bulk))
    assert list((tmp_path / "data" / "spool").iterdir()) == []


class Long(io.RawIOBase):
    """A body of metadata and one value of ``size`` bytes, made while it is read."""

    def __init__(self, head, size):
        self._left = [head, *[b"\0" * 65_536] * (size // 65_536), b"\r\n" + closing("x-y")]
        self._left.reverse()

    def readable(self):
        return True

    def tell(self):
        return 0

    def seek(self, offset, whence=0):
        return 0

    def read(self, size=-1):
        return self._left.pop() if self._left else b""


def test_memory_does_not_grow_with_a_bulk_value(tmp_path, codec):
    model = json.loads(json.dumps(dcmread(io.BytesIO(samples.label())).to_json_dict()))
    del model["7FE00010"]
    model["00420011"] = {"vr": "OB", "BulkDataURI": "v"}
    head = body_of(JSON, [model], ("v", "application/octet-stream", b"")).removesuffix(
        b"\r\n" + closing("x-y")
    )
    archive = open_archive(tmp_path / "data", codec)
    client = create_app(archive, WebSettings()).test_client()
    tracemalloc.start()
    try:
        response = client.post(
            f"{WEB}/studies",
            input_stream=Long(head, 64 << 20),
            headers={**HEADERS, "Transfer-Encoding": "chunked"},
            content_type=f'multipart/related; type="{JSON}"; boundary=x-y',
            environ_overrides={"wsgi.input_terminated": True},
        )
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        archive.close()
    assert response.status_code == 200, response.get_data()
    assert peak < 20 << 20


def test_more_data_sets_than_a_request_may_hold_are_413_and_told_once(tmp_path):
    archive = open_archive(tmp_path / "data")
    client = create_app(archive, WebSettings(parts_per_request=3)).test_client()
    few, many = (send(client, body_of(JSON, [{}] * count)) for count in (3, 4))
    archive.close()
    assert (few.status_code, len(sequence(few, "0008119A"))) == (400, 3)
    assert (many.status_code, len(sequence(many, "0008119A"))) == (413, 1)


def frames(count):
    """Per-frame groups as a sparse level has them."""
    return [
        {
            "00209111": {"vr": "SQ", "Value": [{"00209157": {"vr": "UL", "Value": [1, n]}}]},
            "0048021A": {"vr": "SQ", "Value": [{
                "0040072A": {"vr": "DS", "Value": [1.25 * n]}, "0040073A": {"vr": "DS", "Value": [2.5 * n]},
                "0040074A": {"vr": "DS", "Value": [0.0]}, "0048021E": {"vr": "SL", "Value": [n]},
                "0048021F": {"vr": "SL", "Value": [n]},
            }]},
        }
        for n in range(count)
    ]  # fmt: skip


def test_the_positions_of_20_000_frames_are_within_the_limits(client):
    frame = json.dumps(frames(1)[0], indent=4).encode()
    assert 20_000 * len(frame) < stow_metadata.METADATA_BYTES
    assert 20_000 * sum(map(frame.count, (b"{", b"[", b","))) < stow_metadata._VALUES


SHAPES = {
    "frames": lambda count: json.dumps({"52009230": {"vr": "SQ", "Value": frames(count // 40)}}).encode(),
    "attributes": lambda count: json.dumps(
        {f"{n:08X}": {"vr": "LO", "Value": ["ab"]} for n in range(count // 5)}
    ).encode(),
    "objects": lambda count: b"[" + b",".join([b"{}"] * (count // 2)) + b"]",
    "full objects": lambda count: b"[" + b",".join([b'{"a":0}'] * (count // 2)) + b"]",
    "arrays": lambda count: b"[" + b",".join([b"[" * 90 + b"]" * 90] * (count // 91)) + b"]",
    "texts": lambda count: json.dumps([f"{n:06}" for n in range(count - 2)]).encode(),
    "a wide text": lambda count: json.dumps(
        ["a" * (24 * count // 12) + "\U0001f52c"], ensure_ascii=False
    ).encode(),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_memory_for_metadata_is_bounded_whatever_they_hold(client, monkeypatch, shape):
    """A twelfth of the limits, and so of the memory: all of it takes the time of a coffee."""
    part = 12
    count = stow_metadata._VALUES // part
    monkeypatch.setattr(stow_metadata, "METADATA_BYTES", stow_metadata.METADATA_BYTES // part)
    monkeypatch.setattr(stow_metadata, "_VALUES", count)
    metadata = SHAPES[shape](count)
    assert len(metadata) <= stow_metadata.METADATA_BYTES
    assert peak_of(client, JSON, metadata) < (160 << 20) // part


def test_memory_for_metadata_in_xml_is_bounded_too(client, monkeypatch):
    part = 12
    monkeypatch.setattr(native_xml_reader, "_MAX_NODES", native_xml_reader._MAX_NODES // part)
    metadata = native_dicom_model(
        {"52009230": {"vr": "SQ", "Value": frames(native_xml_reader._MAX_NODES // 24)}}
    )
    assert peak_of(client, XML, metadata) < (160 << 20) // part
    more = native_dicom_model({"52009230": {"vr": "SQ", "Value": frames(native_xml_reader._MAX_NODES // 16)}})
    assert send(client, body_with(XML, more), kind=XML).status_code == 413


def body_with(kind, metadata):
    return part_head("x-y", [("Content-Type", kind)]) + metadata + b"\r\n" + closing("x-y")


def peak_of(client, kind, metadata):
    """Most octets in use while metadata are refused."""
    send(client, body_of(JSON, [{}]))  # what is imported and opened once
    tracemalloc.start()
    try:
        response = send(client, body_with(kind, metadata), kind=kind)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert response.status_code in (400, 409) or b"0008119A" in response.get_data()
    return peak
