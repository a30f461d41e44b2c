# SPDX-License-Identifier: Apache-2.0
"""Storage commitment: a promise only after every byte was read again."""

import json

import pytest

from archive.access import EVERYTHING, Scope
from dicomweb.app import create_app
from dicomweb.multipart import closing, part_head
from dicomweb.native_xml import native_dicom_model
from dicomweb.settings import WebSettings
from gateway.ingest.worker import Worker
from gateway.settings import WorkerSettings
from tests.dicomweb import samples
from tests.dicomweb.conftest import WEB, store

URL = f"{WEB}/commitment-requests/2.25.1"
JSON = {"Accept": "application/dicom+json"}
WSI = "1.2.840.10008.5.1.4.1.1.77.1.6"
LEVEL = (WSI, f"{samples.SERIES}.1")
LABEL = (WSI, f"{samples.SERIES}.3")


def wanted(*pairs):
    items = [
        {"00081150": {"vr": "UI", "Value": [c]}, "00081155": {"vr": "UI", "Value": [i]}} for c, i in pairs
    ]
    return {"00081199": {"vr": "SQ", "Value": items}}


def ask(client, *pairs, url=URL):
    return client.post(
        url, data=json.dumps(wanted(*pairs)), headers=JSON, content_type="application/dicom+json"
    )


def work(archive):
    worker = Worker(archive, WorkerSettings(), b"secret")
    while worker.run_one():
        pass


def result(client, url=URL):
    response = client.get(url, headers=JSON)
    assert response.status_code == 200, response.get_data()
    found = response.get_json(force=True)

    def pairs(tag):
        return [
            tuple(item[t]["Value"][0] for t in ("00081150", "00081155", "00081197") if t in item)
            for item in found.get(tag, {}).get("Value", [])
        ]

    return pairs("00081199"), pairs("00081198")


def test_what_is_stored_and_whole_is_committed_once_it_was_read(client, archive):
    store(client, samples.volume(), samples.label())
    asked = ask(client, LEVEL, LABEL)
    assert (asked.status_code, asked.get_data()) == (202, b"")
    assert int(asked.headers["Retry-After"]) > 0
    early = client.get(URL, headers=JSON)
    assert (early.status_code, early.get_data()) == (202, b"")
    assert "Retry-After" in early.headers
    work(archive)
    assert result(client) == ([LEVEL, LABEL], [])


def test_one_flipped_bit_is_not_committed_and_the_rest_is(client, archive, tmp_path):
    store(client, samples.volume(), samples.label())
    blob = max(
        (tmp_path / "data" / "store" / "blob").rglob("*"), key=lambda p: p.is_file() and p.stat().st_size
    )
    blob.chmod(0o600)
    data = bytearray(blob.read_bytes())
    data[len(data) // 2] ^= 1
    blob.write_bytes(data)
    ask(client, LEVEL, LABEL)
    work(archive)
    assert result(client) == ([LABEL], [(*LEVEL, 0x0110)])


def test_what_is_not_here_or_of_another_class_is_told_so(client, archive):
    store(client, samples.volume())
    strange = (WSI, "1.2.3.4")
    other = ("1.2.840.10008.5.1.4.1.1.7", LEVEL[1])
    ask(client, strange)
    ask(client, other, url=f"{WEB}/commitment-requests/2.25.2")
    work(archive)
    assert result(client) == ([], [(*strange, 0x0112)])
    assert result(client, f"{WEB}/commitment-requests/2.25.2") == ([], [(*other, 0x0119)])


def test_a_deleted_instance_is_committed_no_more(client, archive):
    store(client, samples.volume())
    client.delete(f"{WEB}/studies/{samples.STUDY}")
    ask(client, LEVEL)
    work(archive)
    assert result(client) == ([], [(*LEVEL, 0x0112)])


def test_what_the_asker_may_not_see_is_not_here(client, archive, monkeypatch):
    store(client, samples.volume())
    ask(client, LEVEL)
    nothing = Scope("study.study_instance_uid = ?", ("9",))
    monkeypatch.setattr(
        type(archive.policy), "scope", lambda self, who: EVERYTHING if who.via == "worker" else nothing
    )
    work(archive)
    monkeypatch.undo()
    assert result(client) == ([], [(*LEVEL, 0x0112)])


def test_a_transaction_uid_is_used_once_even_when_it_is_done(client, archive):
    store(client, samples.volume())
    assert ask(client, LEVEL).status_code == 202
    assert ask(client, LEVEL).status_code == 409
    work(archive)
    assert ask(client, LABEL).status_code == 409
    assert result(client) == ([LEVEL], [])


def test_a_result_is_for_who_asked(client, archive):
    store(client, samples.volume())
    ask(client, LEVEL)
    other = create_app(archive, WebSettings(), authenticate=lambda environ: "somebody else").test_client()
    assert other.get(URL, headers=JSON).status_code == 404
    assert client.get(f"{WEB}/commitment-requests/2.25.9", headers=JSON).status_code == 404


@pytest.mark.parametrize("multipart", [False, True])
def test_request_and_result_may_be_xml(client, archive, multipart):
    store(client, samples.volume())
    document = native_dicom_model(wanted(LEVEL))
    content_type = "application/dicom+xml"
    if multipart:
        document = part_head("x-y", [("Content-Type", content_type)]) + document + b"\r\n" + closing("x-y")
        content_type = f'multipart/related; type="{content_type}"; boundary=x-y'
    asked = client.post(URL, data=document, headers=JSON, content_type=content_type)
    assert asked.status_code == 202, asked.get_data()
    work(archive)
    accept = 'multipart/related; type="application/dicom+xml"' if multipart else "application/dicom+xml"
    response = client.get(URL, headers={"Accept": accept})
    assert response.status_code == 200
    assert response.headers["Content-Type"].startswith(accept)
    assert LEVEL[1].encode() in response.get_data()


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        (b"{}", "application/dicom+json", 400),
        (b"[]", "application/dicom+json", 400),
        (b"{", "application/dicom+json", 400),
        (b'{"00081199":{"vr":"SQ","Value":[{}]}}', "application/dicom+json", 400),
        (b'{"00081199":{"vr":"SQ","Value":[]}}', "application/dicom+json", 400),
        (b'{"00081199":{"vr":"SQ","Value":[1]}}', "application/dicom+json", 400),
        (b"<a/>", "application/dicom+xml", 400),
        (b"x", "text/plain", 415),
        (b"x", 'multipart/related; type="application/dicom+xml"', 400),
        (b" " * ((8 << 20) + 1), "application/dicom+json", 413),
        (b"[" + b"[]," * 300_000 + b"[]]", "application/dicom+json", 413),
    ],
)
def test_a_body_that_asks_for_nothing_is_refused(client, body, content_type, status):
    response = client.post(URL, data=body, headers=JSON, content_type=content_type)
    assert response.status_code == status, response.get_data()
    assert client.get(URL, headers=JSON).status_code == 404


def by_study(*pairs, study=samples.STUDY, series=samples.SERIES):
    classes = [
        {
            "00081150": {"vr": "UI", "Value": [sop_class]},
            "0008114A": {"vr": "SQ", "Value": [{"00081155": {"vr": "UI", "Value": [sop]}}]},
        }
        for sop_class, sop in pairs
    ]
    inner = {"0020000E": {"vr": "UI", "Value": [series]}, "00081112": {"vr": "SQ", "Value": classes}}
    outer = {"0020000D": {"vr": "UI", "Value": [study]}, "00081115": {"vr": "SQ", "Value": [inner]}}
    return {"00081110": {"vr": "SQ", "Value": [outer]}}


def listed(found, tag):
    """(study, series, class, instance, failure reason or None) of a sequence of studies."""
    return [
        (
            study["0020000D"]["Value"][0], series["0020000E"]["Value"][0], of["00081150"]["Value"][0],
            item["00081155"]["Value"][0], item.get("00081197", {}).get("Value", [None])[0],
        )
        for study in found.get(tag, {}).get("Value", [])
        for series in study["00081115"]["Value"]
        for of in series["00081112"]["Value"]
        for item in of["0008114A"]["Value"]
    ]  # fmt: skip


def asked(client, body):
    response = client.post(URL, data=json.dumps(body), headers=JSON, content_type="application/dicom+json")
    assert response.status_code == 202, response.get_data()


def test_what_is_asked_for_by_study_is_answered_by_study(client, archive):
    store(client, samples.volume(), samples.label())
    gone = (WSI, f"{samples.SERIES}.9")
    asked(client, by_study(LEVEL, LABEL, gone))
    work(archive)
    found = client.get(URL, headers=JSON).get_json(force=True)
    place = (samples.STUDY, samples.SERIES)
    assert listed(found, "00081110") == [(*place, *LEVEL, None), (*place, *LABEL, None)]
    assert listed(found, "0008119B") == [(*place, *gone, 0x0112)]
    assert found.keys() == {"00081110", "0008119B"}


def test_an_instance_that_is_in_another_series_is_not_there(client, archive):
    store(client, samples.volume())
    asked(client, by_study(LEVEL, series="1.2.3"))
    work(archive)
    found = client.get(URL, headers=JSON).get_json(force=True)
    assert listed(found, "0008119B") == [(samples.STUDY, "1.2.3", *LEVEL, 0x0112)]


def test_both_kinds_of_reference_are_answered_each_in_its_own(client, archive):
    store(client, samples.volume(), samples.label())
    asked(client, {**wanted(LABEL), **by_study(LEVEL)})
    work(archive)
    found = client.get(URL, headers=JSON).get_json(force=True)
    assert [item["00081155"]["Value"] for item in found["00081199"]["Value"]] == [[LABEL[1]]]
    assert [entry[3] for entry in listed(found, "00081110")] == [LEVEL[1]]


@pytest.mark.parametrize(
    "body",
    [
        {}, {"00081110": {"vr": "SQ"}}, {"00081110": {"vr": "SQ", "Value": [1]}}, {"00081110": 7},
        by_study(), by_study(("", "")), {"00081110": {"vr": "SQ", "Value": [{"00081115": {"Value": "x"}}]}},
    ],
)  # fmt: skip
def test_a_request_by_study_that_names_nothing_is_refused(client, body):
    response = client.post(URL, data=json.dumps(body), headers=JSON, content_type="application/dicom+json")
    assert response.status_code == 400


def test_a_result_is_gone_when_its_time_is_over_and_its_uid_stays_in_use(client, archive):
    store(client, samples.volume())
    ask(client, LEVEL)
    work(archive)
    assert archive.expire_commitments() == 0
    assert result(client) == ([LEVEL], [])
    core = archive._core
    later, clock = core.now_us() + 91 * 86_400 * 1_000_000, core.clock
    core.clock = lambda: clock().fromtimestamp(later / 1e6, tz=clock().tzinfo)
    for _ in range(2):  # before it was forgotten, and after
        response = client.get(URL, headers=JSON)
        assert (response.status_code, response.get_json(force=True)["error"]["kind"]) == (
            410, "TransactionExpired",
        )  # fmt: skip
        archive.expire_commitments()
    assert archive.expire_commitments() == 0
    assert ask(client, LEVEL).status_code == 409
    kept = archive._core.setting("commitment/2.25.1")
    assert "references" not in kept


def test_one_that_was_never_run_does_not_expire(client, archive):
    store(client, samples.volume())
    ask(client, LEVEL)
    core = archive._core
    later, clock = core.now_us() + 91 * 86_400 * 1_000_000, core.clock
    core.clock = lambda: clock().fromtimestamp(later / 1e6, tz=clock().tzinfo)
    assert archive.expire_commitments() == 0
    assert client.get(URL, headers=JSON).status_code == 202
