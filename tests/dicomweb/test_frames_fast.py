# SPDX-License-Identifier: Apache-2.0
"""The short way for frames gives what the long way gives, for every request it takes."""

import pytest

from dicomweb import frames_fast
from tests.dicomweb import samples
from tests.dicomweb.conftest import ANNOTATIONS, LABEL, LEVEL, REVERSIBLE
from tests.dicomweb.test_media import FRAMES, IMG_TAG, OHIF
from tests.support.require import absent

ACCEPTS = sorted({row[0] for row in FRAMES} | {OHIF, IMG_TAG, "", "application/octet-stream, image/png"})
ABSENT = f"{samples.SERIES}.99"


@pytest.fixture
def taken(monkeypatch):
    """Whether the short way answered by itself: one entry for each request it did."""
    answered = []
    packed = frames_fast.FrameFastPath._packed
    monkeypatch.setattr(
        frames_fast.FrameFastPath, "_packed", lambda *args: answered.append(args[4]) or packed(*args)
    )
    return answered


@pytest.mark.parametrize("accept", ACCEPTS)
@pytest.mark.parametrize(
    "url", [LEVEL, REVERSIBLE, LABEL, ANNOTATIONS, LEVEL.replace(f"{samples.SERIES}.1", ABSENT)]
)
def test_both_ways_answer_alike(reader, url, accept):
    for number in ("1", "2", "7", "0", "01", "9999999999"):
        headers = {"Accept": accept} if accept else {}
        short = reader.get(f"{url}/frames/{number}", headers=headers)
        long = reader.get(f"{url}/frames/{number}?long=way", headers=headers)
        assert short.status_code == long.status_code
        if short.status_code == 200:
            assert short.get_data() == long.get_data()
            names = {"Content-Type", "Content-Length", "ETag", "Cache-Control", "Vary", "Accept-Ranges"}
            names |= {"X-Content-Type-Options", "Referrer-Policy", "Cross-Origin-Resource-Policy"}
            assert {n: short.headers.get(n) for n in names} == {n: long.headers.get(n) for n in names}
        else:
            ours, theirs = (answer.get_json()["error"] for answer in (short, long))
            assert {**ours, "request_id": ""} == {**theirs, "request_id": ""}
            assert short.headers["Content-Type"] == long.headers["Content-Type"]


def test_what_viewers_ask_for_takes_the_short_way(reader, taken):
    for accept in (
        OHIF,
        IMG_TAG,
        "image/jpeg",
        "*/*",
        'multipart/related; type="image/jpeg"; transfer-syntax=*',
    ):
        assert reader.get(f"{LEVEL}/frames/3", headers={"Accept": accept}).status_code == 200
    page = {"Accept": OHIF, "Origin": "https://viewer.example"}
    assert reader.get(f"{LEVEL}/frames/3", headers=page).status_code == 200
    assert taken == ["3"] * 6


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/frames/1?accept=image/jpeg", {}),
        ("/frames/1", {"Range": "bytes=0-3", "Accept": "image/jpeg"}),
        ("/frames/1/rendered", {}),
    ],
)
def test_everything_else_is_passed_on(reader, taken, path, headers):
    assert reader.get(LEVEL + path, headers={"Accept": "*/*", **headers}).status_code in (200, 206)
    assert taken == []


def test_hosts_and_methods_are_judged_as_everywhere(reader):
    url = f"{LEVEL}/frames/1"
    assert reader.get(url, headers={"Accept": "*/*", "Host": "evil.example"}).status_code == 403
    assert reader.post(url, headers={"Accept": "*/*"}).status_code == 405
    head = reader.head(url, headers={"Accept": "image/jpeg"})
    assert (head.status_code, head.get_data()) == (200, b"")
    assert head.content_length == len(samples.tile(1))


@pytest.mark.parametrize(
    "accept", [OHIF, "*/*", 'multipart/related; type="image/jpeg"', "image/jpeg", "image/gif"]
)
@pytest.mark.parametrize("listed", ["1,2", "3,1,3", "1,0", "1,99", ",".join(["1", "2"] * 40)])
def test_both_ways_answer_alike_for_several_frames(reader, accept, listed, monkeypatch):
    monkeypatch.setattr(frames_fast, "BLOCK_BYTES", 1500)  # several blocks
    short = reader.get(f"{LEVEL}/frames/{listed}", headers={"Accept": accept})
    long = reader.get(f"{LEVEL}/frames/{listed}?long=way", headers={"Accept": accept})
    assert short.status_code == long.status_code
    if short.status_code == 200:
        assert short.get_data() == long.get_data()
        assert short.content_length == len(short.get_data())
        for name in ("Content-Type", "ETag", "Cache-Control", "Vary"):
            assert short.headers[name] == long.headers[name]
        known = {"Accept": accept, "If-None-Match": short.headers["ETag"]}
        assert reader.get(f"{LEVEL}/frames/{listed}", headers=known).status_code == 304
    else:
        assert short.get_json()["error"]["message"] == long.get_json()["error"]["message"]


def test_more_frames_than_a_request_may_ask_for_are_refused(reader):
    listed = ",".join(["1"] * 2001)
    assert reader.get(f"{LEVEL}/frames/{listed}", headers={"Accept": "*/*"}).status_code == 413


def environ(path, **headers):
    return {
        "REQUEST_METHOD": "GET",
        "PATH_INFO": path,
        "QUERY_STRING": "",
        "REMOTE_ADDR": "127.0.0.1",
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "wsgi.url_scheme": "http",
        "HTTP_HOST": "localhost",
        "HTTP_ACCEPT": OHIF,
        **headers,
    }


def test_a_loop_gets_what_can_be_had_at_once_and_it_is_noted(reader):
    now = reader.application.wsgi_app.answer_now
    path = f"{LEVEL}/frames/2"
    usual = reader.get(path, headers={"Accept": OHIF})  # opens the instance
    lines = access_lines(reader)
    found = now(environ(path))
    if found is None:  # a file system without RWF_NOWAIT: memory has no page cache
        absent("this storage cannot say what is in memory")
    status, headers, body = found
    assert (status, body) == ("200 OK", usual.get_data())
    assert {k: v for k, v in headers if k != "X-Request-Id"} == {
        k: v for k, v in usual.headers.items() if k != "X-Request-Id"
    }
    assert access_lines(reader) == lines + 1


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        (f"{LEVEL}/frames/0", {}),
        (f"{LEVEL}/frames/9999", {}),
        (f"{LEVEL}/frames/1,2", {}),
        (f"{ANNOTATIONS}/frames/1", {}),
        (LEVEL.replace(f"{samples.SERIES}.1", ABSENT) + "/frames/1", {}),
        (f"{LEVEL}/frames/1", {"HTTP_HOST": "evil.example"}),
        (f"{LEVEL}/frames/1", {"HTTP_ACCEPT": "image/gif"}),
        (f"{LEVEL}/frames/1", {"HTTP_ACCEPT": ""}),
        (f"{LEVEL}/frames/1", {"HTTP_RANGE": "bytes=0-1"}),
        (f"{LEVEL}/frames/1", {"HTTP_IF_NONE_MATCH": "*"}),
        (f"{LEVEL}/frames/1", {"QUERY_STRING": "a=b"}),
        (f"{LEVEL}/frames/1", {"REQUEST_METHOD": "POST"}),
    ],
)
def test_a_loop_gets_nothing_that_needs_more_than_a_look(reader, path, headers):
    reader.get(f"{LEVEL}/frames/1", headers={"Accept": OHIF})
    lines = access_lines(reader)
    assert reader.application.wsgi_app.answer_now(environ(path, **headers)) is None
    assert access_lines(reader) == lines


def access_lines(reader):
    archive = reader.application.extensions["coverslip"].archive
    return sum(len(file.read_bytes().splitlines()) for file in archive._core.access.files())
