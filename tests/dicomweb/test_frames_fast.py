# SPDX-License-Identifier: Apache-2.0
"""The short way for frames gives what the long way gives, for every request it takes."""

import pytest

from dicomweb import frames_fast
from tests.dicomweb import samples
from tests.dicomweb.conftest import ANNOTATIONS, LABEL, LEVEL, REVERSIBLE
from tests.dicomweb.test_media import FRAMES, IMG_TAG, OHIF

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
    assert taken == [3] * 5


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/frames/1,2", {}),
        ("/frames/1?accept=image/jpeg", {}),
        ("/frames/1", {"Range": "bytes=0-3", "Accept": "image/jpeg"}),
        ("/frames/1", {"Origin": "http://localhost"}),
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
