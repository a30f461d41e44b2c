# SPDX-License-Identifier: Apache-2.0
"""Whatever is asked of whatever route: an answer or a clear refusal, never a 500."""

import json
import logging
import re
from collections.abc import Iterator
from urllib.parse import quote

import pytest
from flask import Flask
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from werkzeug.routing import Rule

from archive.service import Archive
from dicomweb.app import create_app
from dicomweb.settings import WebSettings
from gateway.codec_pool import CodecPool
from tests.dicomweb import samples
from tests.dicomweb.conftest import WEB, open_archive, store

STUDY, SERIES = samples.STUDY, samples.SERIES
junk = st.text(max_size=12)


@st.composite
def mostly(draw: st.DrawFn, usual: list[str], odd: list[str]) -> str:
    """One that leads somewhere, now and then one that does not."""
    kind = draw(st.integers(0, 19))
    return draw(junk if kind == 7 else st.sampled_from(odd if kind in (5, 11) else usual))


UIDS = ["1.2.3", "0", "1." * 31 + "1", "1" * 65, "1..2", ".", "../..", "", "%00", "é"]
LISTS = ["0", "7", "-1", "1,", ",", "99999999999", "4294967296", "1;2", "٣", "1" + ",1" * 500]
PATHS = ["7FE00010", "00020010", "00480105", "00480105/9/00282000", "00480105/0", "0048010500282000", "zz"]
OBJECTS = [f"{SERIES}/instances/{SERIES}.{n}" for n in (1, 2, 3)]
OBJECTS.append(f"{samples.ROOT}.1.2/instances/{samples.ROOT}.1.2.1")
VALUES: dict[str, st.SearchStrategy[str]] = {
    "study": mostly([STUDY], UIDS),
    "series": mostly([SERIES], UIDS),
    "instance": mostly([f"{SERIES}.{n}" for n in (1, 2, 3)], UIDS),
    "numbers": mostly(["1", "2", "1,2", "2,1,1", "1,2,3,4,5,6"], LISTS),
    "path": mostly(["00480105/0/00282000", "006A0002/0/00660022", "00100010"], PATHS),
    "level": mostly(["0", "1", "8", "9"], ["-1", "99", "1.5"]),
    "identifier": mostly([SERIES, f"{SERIES}.1"], UIDS),
    "region": mostly(
        ["full", "square", "0,0,16,16", "pct:10,10,50,50"], ["9,9,9", "pct:1e9,0,1,1", "-1,0,1,1"]
    ),
    "size": mostly(
        ["max", "^max", "8,", ",8", "^64,64", "!5,5", "pct:50"], ["0,0", "^99999,1", "pct:nan", ","]
    ),
    "rotation": mostly(["0", "90", "!180", "270.0"], ["45", "361", "-0", "!"]),
    "name": mostly(["default.jpg", "gray.png", "bitonal.gif", "color.webp"], ["default", ".jpg", "x.y.z"]),
    "column": mostly(["0", "1"], ["9", "-1", "99999999999999999999"]),
    "row": mostly(["0", "1"], ["9", "-1", "99999999999999999999"]),
    "form": mostly(["jpg", "png"], ["gif", "jpg.png"]),
}

MEDIA = [
    "*/*", "application/dicom", "application/dicom+json", "application/dicom+xml", "application/octet-stream",
    "image/jpeg", "image/jls", "image/jp2", "image/jxl", "image/jphc", "image/dicom-rle", "image/png",
    "image/gif",
    "image/*", "application/json", "text/html", "application/zip", "video/mp4", "multipart/related", "a/b",
]  # fmt: skip
SLIM = 'multipart/related; type="application/octet-stream"; transfer-syntax=*'
SYNTAXES = [
    "", "*", "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.5", "x",
    '"', "1.2.3",
    *(f"1.2.840.10008.1.2.4.{n}" for n in (50, 51, 57, 70, 80, 81, 90, 91, 92, 100, 110, 111, 112, 201, 202,
    203)),
]  # fmt: skip


@st.composite
def accepts(draw: st.DrawFn) -> str:
    members = []
    for _ in range(draw(st.integers(1, 3))):
        media_type, syntax = draw(st.sampled_from(MEDIA)), draw(st.sampled_from(SYNTAXES))
        quoted = draw(st.sampled_from(['"{}"', "{}", '"{}', "{}\\"]))
        member = draw(
            st.sampled_from(["{}", "multipart/related; type=" + quoted, "multipart/related;TYPE=" + quoted])
        )
        member = member.format(media_type) + (f"; transfer-syntax={syntax}" if syntax else "")
        members.append(member + draw(st.sampled_from(["", ";q=0.5", ";q=0", ";q=x", ";q=-1", ";q=1e9", ";"])))
    return draw(st.sampled_from([", ", ",", ",,", " "])).join(members)


# What a server lets through to the application: visible characters, blanks and octets above 127.
anything = st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=40)


def of_grammar(*pieces: str) -> st.SearchStrategy[str]:
    """Pieces of a header's own grammar in any order, and text that has none."""
    return st.lists(st.sampled_from(pieces), max_size=8).map("".join) | anything


NUMBERS = ["0", "1", "7", "-", "99999999999999999999", "1e3", "٣".encode().decode("latin-1")]
HEADERS: dict[str, st.SearchStrategy[str]] = {
    "Range": st.sampled_from(["bytes=0-0", "bytes=-5", "bytes=5-1", "bytes=99999999-", "bytes=0-1,3-4",
    "items=1", "bytes="]) | of_grammar("bytes", "=", ",", " ", *NUMBERS),
    "If-Range": st.sampled_from(['"x"', "W/", "Tue, 24 Nov 2026 12:00:00 GMT", "*"]) | anything,
    "If-None-Match": st.sampled_from(["*", '"x"', "W/", 'W/"', ",,"]) | of_grammar('"', "W/", "*", ",", "x"),
    "If-Match": of_grammar('"', "W/", "*", ",", "x"),
    "If-Modified-Since": st.sampled_from(["Tue, 24 Nov 2026 12:00:00 GMT", "0"]) | anything,
    "Authorization": st.sampled_from(["Bearer", "Bearer x", "Basic eDp5", "Basic !"]) | anything,
    "Cookie": of_grammar("a", "=", ";", '"', "\\", " ", "session"),
    "Transfer-Encoding": st.sampled_from(["chunked", "gzip", "identity"]),
    "X-Request-Id": anything,
    "X-Forwarded-Host": anything,
    "X-Forwarded-Proto": anything,
    "Forwarded": of_grammar("for", "=", "host", ";", '"', "[", "]", ":", "::1"),
    "Accept-Encoding": st.sampled_from(["gzip", "gzip;q=0", "br", "*", "gzip;q=x", "identity;q=0"]),
    "Accept-Charset": st.sampled_from(["utf-8", "latin-1;q=0"]),
    "Origin": st.sampled_from(["http://evil.example", "null", "http://localhost"]),
    "Access-Control-Request-Method": st.sampled_from(["GET", "DELETE", "x"]),
    "Content-Type": st.sampled_from(
        ["application/json", "application/dicom", 'multipart/related; type="application/dicom"; boundary=b',
         "multipart/related", 'multipart/related; type="application/dicom+json"; boundary=b', "x", ";;;",
         'multipart/related; type="application/dicom+xml"; boundary=b', "application/dicom+json",
         "application/sdp"]
    ) | of_grammar(
        "multipart/related", "application/dicom", "application/json", ";", "=", '"', "type", "boundary", "b",
        "charset", "utf-8", "nonsense", "; boundary=b", '; type="application/dicom+json"', "\\", ",", "*",
    ),
    "Content-Length": st.sampled_from(["-1", "x", "99999999999999999999"]),
    "Host": st.sampled_from(["localhost", "localhost:1", "[::1]", "evil.example", "[", ""]),
    "X-Forwarded-For": st.sampled_from(["::1, x", "unknown", ","]),
}  # fmt: skip

FIRST_LOOKED_AT = ("Host", "Origin", "X-Forwarded-Host", "Forwarded")

NAMES = [
    "viewport", "window", "quality", "iccprofile", "annotation", "accept", "limit", "offset", "includefield",
    "fuzzymatching", "emptyvaluematching", "multiplevaluematching", "StudyDate", "PatientName", "00100020",
    "original",
    "SOPInstanceUID", "OpticalPathSequence.ICCProfile", "SpecimenDescriptionSequence.SpecimenIdentifier",
    "after",
    "search", "requestType", "studyUID", "seriesUID", "objectUID", "contentType", "frameNumber", "rows",
    "columns", "region",
    "transferSyntax", "7FE00010", "StudyTime", "code", "reason", "opticalpath", "focalplane",
]  # fmt: skip
ARGUMENTS = [
    "SM\\ANN", '""', '""\\x', "1.2\\1.3,1.4", "2026010199-", "20260101-20250101", "a*b?c", "=*=", "\ud7ff",
    "5,5,-1", "1,1,0,0,1e-7,1", "\t", "%", "+1", "1_000", "٣", "TRUE", "a" * 2000,
    "", "1", "0", "-1", "1,1", "100,100,0,0,10,10", "100,100,,,,", "10,10,-1,-1,-5,-5", "1e9,1e9",
    "nan,nan,linear",
    "40,400,linear", "40,0,sigmoid", "yes", "srgb", "all", "true", "20260101-", "20260199", "-", "*", "?",
    "*" * 40, "\\",
    "^=\\", "99999999999999999999", "00100010", "GroupLength", "image/png", "2.25.1,2.25.2", "WADO", STUDY,
    SERIES,
    f"{SERIES}.1", "\x00", "é", '"', "''", "1/0", "010203-", "250000", "113001", "113039", "\n",
]  # fmt: skip
BODIES = [
    b"", b"{}", b"[]", b"[[]]", b"\x00" * 200, b"--b\r\n\r\n\r\n--b--\r\n",
    b"--b\r\nContent-Type: application/dicom\r\n\r\nx\r\n--b--\r\n",
    b"--b\r\nContent-Type: application/dicom+json\r\n\r\n[{}]\r\n--b--\r\n",
    b"--b\r\nContent-Type: application/dicom+json\r\n\r\n[" * 3,
    b"--b\r\nContent-Type: application/dicom+xml\r\n\r\n<a>&b;</a>\r\n--b--\r\n", b"null", b'{"reason": 1}',
    b"\xff\xfe", b"[" * 5000,
    json.dumps([{"00080018": {"vr": "UI", "Value": [1]}, "x": 3}]).encode(),
]  # fmt: skip


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, codec: CodecPool) -> Iterator[tuple[Flask, Archive]]:
    """An archive of its own: some requests store, some may delete."""
    archive = open_archive(tmp_path_factory.mktemp("routes") / "data", codec)
    settings = WebSettings(cors_origins=("http://viewer.example",), behind_proxy=("127.0.0.0/8",))
    yield create_app(archive, settings), archive
    archive.close()


def url_of(rule: Rule, draw: st.DrawFn) -> str:
    """The rule with its arguments drawn; what a converter would refuse is asked as well."""

    def value(match: re.Match[str]) -> str:
        return quote(draw(VALUES.get(match[1], junk)), safe="" if draw(st.integers(0, 9)) == 4 else "/,")

    url = re.sub(r"<(?:[^:<>]+:)?([^<>]+)>", value, rule.rule)
    return url.replace(f"{SERIES}/instances/{SERIES}.3", draw(st.sampled_from(OBJECTS)))


@settings(max_examples=800, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_no_request_is_answered_by_an_internal_error(site, caplog, data):
    app, _ = site
    client = app.test_client()
    if client.get(f"{WEB}/studies/{STUDY}", headers={"Accept": "*/*"}).status_code != 200:
        store(client, samples.volume(), samples.lossless(), samples.label(), samples.annotations())
    rules = sorted(app.url_map.iter_rules(), key=lambda rule: (rule.rule, rule.endpoint))
    draw = data.draw
    rule = draw(st.sampled_from(rules))
    methods = sorted(rule.methods or {"GET"})
    method = draw(st.sampled_from([*methods, *(["GET"] * 3 if "GET" in methods else ["POST", "PUT"])]))
    headers = draw(st.fixed_dictionaries({}, optional=HEADERS))
    if draw(st.integers(0, 9)) != 4:  # those are refused before anything else is looked at
        headers = {name: text for name, text in headers.items() if name not in FIRST_LOOKED_AT}
    if draw(st.integers(0, 9)):
        headers["Accept"] = draw(
            st.sampled_from(["*/*", SLIM]) | accepts() | of_grammar(*MEDIA, *';=,*/ "', "q", "0.5")
        )
    query = draw(
        st.lists(st.tuples(st.sampled_from(NAMES) | junk, st.sampled_from(ARGUMENTS) | junk), max_size=3)
    )
    body = draw(st.sampled_from(BODIES)) if method in ("POST", "PUT", "PATCH") else b""
    url = url_of(rule, draw)
    if method == "DELETE":
        url = url.replace(STUDY, "1.2.3")  # what is gone answers no further questions
    if "Transfer-Encoding" in headers and "Content-Length" in headers:
        del headers["Content-Length"]  # servers refuse both
    if "Content-Length" in headers and method not in ("POST", "PUT"):
        del headers["Content-Length"]
    caplog.clear()
    with caplog.at_level(logging.ERROR):
        response = client.open(url, method=method, query_string=query, headers=headers, data=body)
        payload = response.get_data()
    assert response.status_code < 500 or response.status_code in (501, 503), (
        method,
        url,
        query,
        headers,
        payload[:300],
    )
    assert not [record for record in caplog.records if record.exc_info], caplog.text
    if response.status_code >= 400 and method != "HEAD" and payload:
        reported = b"0008119" in payload  # what became of each instance of a store (PS3.18 I.2)
        assert reported or response.content_type == "application/json" or not url.startswith(WEB), (
            url, payload[:200],
        )  # fmt: skip
