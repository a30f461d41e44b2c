# SPDX-License-Identifier: Apache-2.0
"""Retrieve as tables: every resource of PS3.18 10.4 by what is accepted, and what comes.

Rows are read off the standard's tables (8.7.3-2 to 8.7.3-5, 10.4.1-1, 10.4.3-1) and docs/conformance.md,
not off the program.
"""

import pytest
from werkzeug.test import TestResponse

from archive.access import EVERYTHING, Principal
from dicomweb.multipart import boundary_of
from tests.dicomweb import samples
from tests.dicomweb.conftest import ANNOTATIONS, LABEL, LEVEL, REVERSIBLE, WEB, parts_of, store

STUDY = f"{WEB}/studies/{samples.STUDY}"
SERIES = f"{STUDY}/series/{samples.SERIES}"
ICC = "bulkdata/00480105/0/00282000"
COORDINATES = "bulkdata/006A0002/0/00660022"

ELE, JPEG, LOSSLESS_JPEG = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.70"
JLS, NEAR, J2K_LOSSLESS, J2K = (f"1.2.840.10008.1.2.4.{n}" for n in (80, 81, 90, 91))
JXL_LOSSLESS, JXL_JPEG, JXL = (f"1.2.840.10008.1.2.4.{n}" for n in (110, 111, 112))
HTJ2K_LOSSLESS, RPCL, HTJ2K = (f"1.2.840.10008.1.2.4.{n}" for n in (201, 202, 203))
RLE, SV_ANY = "1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.57"


def mp(media_type: str, syntax: str = "", *, quoted: bool = True) -> str:
    """A multipart/related member."""
    kind = f'"{media_type}"' if quoted else media_type
    return f"multipart/related; type={kind}" + (f"; transfer-syntax={syntax}" if syntax else "")


def one(media_type: str, syntax: str = "") -> str:
    return media_type + (f"; transfer-syntax={syntax}" if syntax else "")


OCTETS, DICOM = "application/octet-stream", "application/dicom"
JSON, XML = "application/dicom+json", "application/dicom+xml"

# What each resource is: its URL, and how many parts it has in stored and in native form.
INSTANCES = {
    "study": (STUDY, 4),
    "series": (SERIES, 3),
    "lossy instance": (LEVEL, 1),
    "lossless instance": (REVERSIBLE, 1),
}
FRAMES = {
    "lossy frame": (f"{LEVEL}/frames/2", True, 1),
    "lossless frame": (f"{REVERSIBLE}/frames/2", False, 1),
    "lossy frames": (f"{LEVEL}/frames/2,6", True, 2),
    "lossless frames": (f"{REVERSIBLE}/frames/2,1", False, 2),
}

# (Accept, what a lossy JPEG frame comes as, what a lossless JPEG 2000 frame comes as): media
# type and transfer syntax of a part, or None for 406.
BY_ACCEPT: list[tuple[str, tuple[str, str] | None, tuple[str, str] | None]] = [
    (mp("*/*"), ("image/jpeg", JPEG), ("image/jp2", J2K_LOSSLESS)),
    ("*/*", ("image/jpeg", JPEG), ("image/jp2", J2K_LOSSLESS)),
    (mp(OCTETS), (OCTETS, JPEG), (OCTETS, ELE)),
    (mp(OCTETS, quoted=False), (OCTETS, JPEG), (OCTETS, ELE)),
    (mp(OCTETS, "*"), (OCTETS, JPEG), (OCTETS, J2K_LOSSLESS)),
    (mp(OCTETS, ELE), (OCTETS, ELE), (OCTETS, ELE)),
    (mp(OCTETS, ELE, quoted=False), (OCTETS, ELE), (OCTETS, ELE)),
    (mp(OCTETS, "1.2.840.10008.1.2"), None, None),  # Implicit VR is never used in REST
    (mp(OCTETS, "1.2.840.10008.1.2.2"), None, None),
    (mp(OCTETS, JPEG), None, None),
    (mp("image/jpeg"), ("image/jpeg", JPEG), ("image/jpeg", LOSSLESS_JPEG)),
    (mp("image/jpeg", "*"), ("image/jpeg", JPEG), ("image/jpeg", LOSSLESS_JPEG)),
    (mp("image/jpeg", JPEG), ("image/jpeg", JPEG), ("image/jpeg", JPEG)),
    (mp("image/jpeg", LOSSLESS_JPEG), ("image/jpeg", LOSSLESS_JPEG), ("image/jpeg", LOSSLESS_JPEG)),
    (mp("image/jpeg", SV_ANY), ("image/jpeg", SV_ANY), ("image/jpeg", SV_ANY)),
    (mp("image/jpeg", "1.2.840.10008.1.2.4.51"), None, None),
    (mp("image/jpeg", J2K), None, None),
    (mp("image/jls"), ("image/jls", JLS), ("image/jls", JLS)),
    (mp("image/jls", NEAR), ("image/jls", NEAR), ("image/jls", NEAR)),
    (mp("image/x-jls", JLS), ("image/jls", JLS), ("image/jls", JLS)),
    (mp("image/dicom+jpeg-ls", JLS), ("image/jls", JLS), ("image/jls", JLS)),
    (mp("image/jp2"), ("image/jp2", J2K_LOSSLESS), ("image/jp2", J2K_LOSSLESS)),
    (mp("image/jp2", J2K_LOSSLESS), ("image/jp2", J2K_LOSSLESS), ("image/jp2", J2K_LOSSLESS)),
    (mp("image/jp2", J2K), ("image/jp2", J2K), ("image/jp2", J2K)),
    (mp("image/dicom+jp2", J2K), ("image/jp2", J2K), ("image/jp2", J2K)),
    (mp("image/jpx"), None, None),
    (mp("image/jpx", "1.2.840.10008.1.2.4.93"), None, None),
    (mp("image/jphc"), ("image/jphc", HTJ2K_LOSSLESS), ("image/jphc", HTJ2K_LOSSLESS)),
    (mp("image/jhc"), ("image/jphc", HTJ2K_LOSSLESS), ("image/jphc", HTJ2K_LOSSLESS)),
    (mp("image/jphc", RPCL), ("image/jphc", RPCL), ("image/jphc", RPCL)),
    (mp("image/jphc", HTJ2K), ("image/jphc", HTJ2K), ("image/jphc", HTJ2K)),
    (mp("image/jxl"), ("image/jxl", JXL_LOSSLESS), ("image/jxl", JXL_LOSSLESS)),
    (mp("image/jxl", JXL_JPEG), ("image/jxl", JXL_JPEG), None),
    (mp("image/jxl", "*"), ("image/jxl", JXL_JPEG), ("image/jxl", JXL_LOSSLESS)),
    (mp("image/jxl", JXL), ("image/jxl", JXL), ("image/jxl", JXL)),
    (mp("image/dicom-rle"), ("image/dicom-rle", RLE), ("image/dicom-rle", RLE)),
    (mp("image/x-dicom-rle", RLE), ("image/dicom-rle", RLE), ("image/dicom-rle", RLE)),
    (mp("image/dicom+rle", RLE), ("image/dicom-rle", RLE), ("image/dicom-rle", RLE)),
    (mp("image/png"), None, None),
    (mp("video/mp4"), None, None),
    (mp("text/html"), None, None),
    (mp(DICOM), None, None),
    # quoting, case, blanks, the syntax inside of the type
    ('MULTIPART/RELATED;TYPE="IMAGE/JP2";TRANSFER-SYNTAX=' + J2K_LOSSLESS,
     ("image/jp2", J2K_LOSSLESS), ("image/jp2", J2K_LOSSLESS)),
    (f'multipart/related; transfer-syntax="{JPEG}" ; type="image/jpeg"',
     ("image/jpeg", JPEG), ("image/jpeg", JPEG)),
    (f'multipart/related; type="image/jls; transfer-syntax={JLS}"', ("image/jls", JLS), ("image/jls", JLS)),
    # alternatives: q first, then what is stored, then the order
    (f"{mp('image/jls', JLS)}, {mp('image/jp2', J2K_LOSSLESS)}",
     ("image/jls", JLS), ("image/jp2", J2K_LOSSLESS)),
    (f"{mp('image/jls', JLS)};q=0.5, {mp('image/jp2', J2K_LOSSLESS)};q=0.4",
     ("image/jls", JLS), ("image/jls", JLS)),
    (f"{mp(OCTETS, '*')};q=0.1, {mp('image/jp2', J2K_LOSSLESS)};q=.9",
     ("image/jp2", J2K_LOSSLESS), ("image/jp2", J2K_LOSSLESS)),
    (f"{mp('image/jpeg')};q=0, {mp('*/*')}", None, ("image/jp2", J2K_LOSSLESS)),
    (f"{mp('*/*')};q=0, {mp('image/jls')}", ("image/jls", JLS), ("image/jls", JLS)),
    # members that are malformed or unknown are ignored
    (f"nonsense, image, a/b/c, {mp('image/jls')};q=2, {mp('image/jls')};q=x, {mp('image/dicom-rle')}",
     ("image/dicom-rle", RLE), ("image/dicom-rle", RLE)),
    (f', ,;, "{mp("image/jls")}, {mp(OCTETS)}', None, None),  # an open quote swallows the rest
    ("", None, None),
    ("nonsense", None, None),
    ("*/*;q=0", None, None),
    ("multipart/related", ("image/jpeg", JPEG), ("image/jp2", J2K_LOSSLESS)),
    ("multipart/*", ("image/jpeg", JPEG), ("image/jp2", J2K_LOSSLESS)),
    ("multipart/mixed; type=image/jpeg", None, None),
]  # fmt: skip


def content_type(media_type: str, syntax: str) -> str:
    return f"{media_type}; transfer-syntax={syntax}" if syntax else media_type


def check_headers(response: TestResponse) -> None:
    """What every answer of a retrieve transaction must have."""
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    if response.status_code < 400:
        assert "Accept" in response.headers["Vary"]
        assert response.headers["Cache-Control"].startswith("private")
    else:
        assert response.headers["Cache-Control"] == "no-store"
        error = response.get_json()["error"]
        assert error["status"] == response.status_code
        assert error["message"]


@pytest.mark.parametrize("target", FRAMES)
@pytest.mark.parametrize("row", BY_ACCEPT, ids=[row[0] for row in BY_ACCEPT])
def test_frames_come_as_the_tables_say(reader, target, row):
    url, lossy, count = FRAMES[target]
    accept, of_lossy, of_lossless = row
    expected = of_lossy if lossy else of_lossless
    response = reader.get(url, headers={"Accept": accept})
    check_headers(response)
    if expected is None:
        assert response.status_code == 406
        return
    assert response.status_code == 200
    media_type, syntax = expected
    header = f'multipart/related; type="{media_type}"; transfer-syntax={syntax}; boundary='
    assert response.headers["Content-Type"].startswith(header)
    parts = parts_of(response)
    assert len(parts) == count
    assert {part.headers["content-type"] for part in parts} == {content_type(media_type, syntax)}
    assert all(part.headers["content-location"].startswith("http://localhost/dicom-web/") for part in parts)
    assert response.headers["ETag"]


@pytest.mark.parametrize("row", BY_ACCEPT, ids=[row[0] for row in BY_ACCEPT])
def test_a_single_part_is_given_for_one_frame_only(reader, row):
    """The same members without their multipart/related."""
    accept, of_lossy, of_lossless = row
    if (
        "multipart/related; type=" not in accept
        or accept.startswith(", ,")
        or '"*/*"' in accept
        or 'transfer-syntax="' in accept
    ):
        return
    alone = accept.replace("multipart/related; type=", "").replace('"', "")
    for (url, lossy, count), expected in zip(FRAMES.values(), (of_lossy, of_lossless) * 2, strict=True):
        response = reader.get(url, headers={"Accept": alone})
        check_headers(response)
        if expected is None or count > 1:
            assert response.status_code == 406, url
            continue
        assert response.headers["Content-Type"] == content_type(*expected), (url, lossy)
        assert response.headers["Accept-Ranges"] == "bytes"
        assert response.content_length == len(response.get_data())


@pytest.mark.parametrize("target", INSTANCES)
@pytest.mark.parametrize(
    ("accept", "status", "syntax"),
    [
        ("*/*", 200, None), (mp(DICOM), 200, None), (mp(DICOM, "*"), 200, "*"), (mp(DICOM, ELE), 200, ELE),
        (mp("*/*"), 200, None), ("multipart/related", 200, None), (mp(DICOM, quoted=False), 200, None),
        (mp(DICOM, "1.2.840.10008.1.2"), 406, None), (mp(DICOM, "1.2.840.10008.1.2.2"), 406, None),
        (mp(DICOM, RLE), 406, None), (mp("image/jpeg"), 406, None), (mp(OCTETS), 406, None),
        (JSON, 406, None), ("text/html", 406, None), ("", 406, None),
        (f"{DICOM}, image/png", 400, None),
    ],
)  # fmt: skip
def test_instances_come_as_the_tables_say(reader, target, accept, status, syntax):
    url, count = INSTANCES[target]
    response = reader.get(url, headers={"Accept": accept})
    check_headers(response)
    assert response.status_code == status
    if status == 200:
        parts = parts_of(response)
        assert len(parts) == count
        given = {part.headers["content-type"] for part in parts}
        assert all(kind.startswith(f"{DICOM}; transfer-syntax=1.2.") for kind in given)
        if syntax == ELE:
            assert given == {f"{DICOM}; transfer-syntax={ELE}"}
        if syntax == "*" and target == "study":
            assert given == {f"{DICOM}; transfer-syntax={uid}" for uid in (JPEG, J2K_LOSSLESS, ELE)}


@pytest.mark.parametrize(
    ("accept", "syntaxes"),
    [(DICOM, (JPEG, ELE)), (one(DICOM, "*"), (JPEG, J2K_LOSSLESS)), (one(DICOM, ELE), (ELE, ELE)),
     (one(DICOM, JPEG), (JPEG, "")), (one(DICOM, RLE), ("", ""))],
)  # fmt: skip
def test_one_instance_alone_and_never_several(reader, accept, syntaxes):
    for url, syntax in zip((LEVEL, REVERSIBLE), syntaxes, strict=True):
        response = reader.get(url, headers={"Accept": accept})
        check_headers(response)
        assert response.status_code == (200 if syntax else 406)
        if syntax:
            assert response.headers["Content-Type"] == f"{DICOM}; transfer-syntax={syntax}"
            assert response.content_length == len(response.get_data())
    for url in (STUDY, SERIES):
        assert reader.get(url, headers={"Accept": accept}).status_code == 406


@pytest.mark.parametrize(("url", "count"), [(STUDY, 4), (SERIES, 3), (LEVEL, 1), (ANNOTATIONS, 1)])
@pytest.mark.parametrize(
    ("accept", "given"),
    [
        ("*/*", JSON), (JSON, JSON), ("application/*", JSON), ("application/json", "application/json"),
        (mp(XML), XML), (mp(XML, quoted=False), XML), (f"{mp(XML)};q=0.5, {JSON};q=0.6", JSON),
        (f"{mp(XML)};q=0.7, {JSON};q=0.6", XML), (f"text/turtle, {JSON};q=0.1", JSON), (mp(DICOM), None),
        (mp(OCTETS), None), ("image/jpeg", None), ("", None), (f"{JSON};q=0", None), (mp(JSON), None),
    ],
)  # fmt: skip
def test_metadata_come_as_the_tables_say(reader, url, count, accept, given):
    response = reader.get(f"{url}/metadata", headers={"Accept": accept})
    check_headers(response)
    if given is None:
        assert response.status_code == 406
    elif given == XML:
        assert boundary_of(response.headers["Content-Type"])
        parts = parts_of(response)
        assert [part.headers["content-type"] for part in parts] == [XML] * count
    else:
        assert response.headers["Content-Type"] == given
        assert len(response.get_json(force=True)) == count


PIXELS = [
    # (URL, Accept, content types of the parts, or None for 406)
    (f"{LEVEL}/pixeldata", mp(OCTETS, "*"), [(OCTETS, JPEG)] * 6),
    (f"{LEVEL}/pixeldata", mp(OCTETS), [(OCTETS, JPEG)] * 6),
    (f"{LEVEL}/pixeldata", mp(OCTETS, ELE), [(OCTETS, ELE)]),
    (f"{LEVEL}/pixeldata", mp("image/jpeg", JPEG), [("image/jpeg", JPEG)] * 6),
    (f"{LEVEL}/pixeldata", mp("image/jxl", JXL_JPEG), [("image/jxl", JXL_JPEG)] * 6),
    (f"{LEVEL}/pixeldata", mp("image/png"), None),
    (f"{LEVEL}/pixeldata", mp(DICOM), None),
    (f"{REVERSIBLE}/pixeldata", mp(OCTETS), [(OCTETS, ELE)]),
    (f"{REVERSIBLE}/pixeldata", mp(OCTETS, "*"), [(OCTETS, J2K_LOSSLESS)] * 2),
    (f"{REVERSIBLE}/pixeldata", mp("image/jls"), [("image/jls", JLS)] * 2),
    (f"{LABEL}/pixeldata", mp(OCTETS, "*"), [(OCTETS, ELE)]),
    (f"{LABEL}/pixeldata", "*/*", [(OCTETS, ELE)]),
    (f"{LABEL}/pixeldata", mp("image/jp2"), [("image/jp2", J2K_LOSSLESS)]),
    (f"{SERIES}/pixeldata", mp(OCTETS, ELE), [(OCTETS, ELE)] * 3),
    (f"{STUDY}/pixeldata", mp("*/*"),
     [("image/jpeg", JPEG)] * 6 + [("image/jp2", J2K_LOSSLESS)] * 2 + [(OCTETS, ELE)]),
    (f"{STUDY}/pixeldata", mp("image/jpeg", JPEG), [("image/jpeg", JPEG)] * 9),
    (f"{STUDY}/pixeldata", mp("image/jxl", JXL_JPEG), None),
    (f"{STUDY}/pixeldata", OCTETS, None),
    (f"{SERIES}/pixeldata", one(OCTETS, ELE), None),  # each would be one value, together they are three
    (f"{STUDY}/bulkdata", one(OCTETS, ELE), None),
    (f"{ANNOTATIONS}/bulkdata", mp(OCTETS), [(OCTETS, "")]),
    (f"{ANNOTATIONS}/bulkdata", mp(OCTETS, "*"), [(OCTETS, "")]),
    (f"{ANNOTATIONS}/bulkdata", mp("image/jpeg", JPEG), None),
    (f"{LEVEL}/bulkdata", mp(OCTETS, "*"), [(OCTETS, JPEG)] * 6),
    (f"{STUDY}/bulkdata", mp(OCTETS, ELE), [(OCTETS, ELE)] * 3 + [(OCTETS, "")]),
    (f"{STUDY}/bulkdata", OCTETS, None),
    (f"{STUDY}/bulkdata", "", None),
    (f"{LEVEL}/{ICC}", mp(OCTETS), [(OCTETS, "")]),
    (f"{LEVEL}/{ICC}", mp(OCTETS, "*"), [(OCTETS, "")]),
    (f"{LEVEL}/{ICC}", mp(OCTETS, ELE), [(OCTETS, "")]),
    (f"{LEVEL}/{ICC}", "*/*", [(OCTETS, "")]),
    (f"{LEVEL}/{ICC}", mp("image/jpeg"), None),
    (f"{LEVEL}/{ICC}", mp(OCTETS, JPEG), None),
    (f"{LEVEL}/{ICC}", "", None),
]  # fmt: skip


@pytest.mark.parametrize(("url", "accept", "given"), PIXELS)
def test_bulk_and_pixel_data_come_as_the_tables_say(reader, url, accept, given):
    response = reader.get(url, headers={"Accept": accept})
    check_headers(response)
    if given is None:
        assert response.status_code == 406
        return
    assert sorted(part.headers["content-type"] for part in parts_of(response)) == sorted(
        content_type(*one_of) for one_of in given
    )


SINGLE_PARTS = [
    (f"{LEVEL}/frames/2", one("image/jpeg", JPEG)),
    (f"{LEVEL}/frames/2", one(OCTETS, ELE)),
    (f"{LEVEL}/{ICC}", one(OCTETS, "*")),
    (f"{ANNOTATIONS}/{COORDINATES}", OCTETS),
    (f"{ANNOTATIONS}/bulkdata", OCTETS),
    (f"{LABEL}/pixeldata", OCTETS),
    (f"{REVERSIBLE}/pixeldata", one(OCTETS, ELE)),
    (LEVEL, one(DICOM, "*")),
    (REVERSIBLE, one(DICOM, ELE)),
]


@pytest.mark.parametrize(("url", "accept"), SINGLE_PARTS)
def test_ranges_of_every_single_part(reader, url, accept):
    whole = reader.get(url, headers={"Accept": accept})
    body, etag = whole.get_data(), whole.headers["ETag"]
    size = len(body)
    assert whole.headers["Accept-Ranges"] == "bytes"
    assert whole.content_length == size
    for asked, first, last in (("0-0", 0, 0), ("5-9", 5, 9), (f"{size - 3}-", size - 3, size - 1),
                               ("-4", size - 4, size - 1), (f"10-{size + 99}", 10, size - 1)):  # fmt: skip
        part = reader.get(url, headers={"Accept": accept, "Range": f"bytes={asked}", "If-Range": etag})
        assert part.status_code == 206, asked
        assert part.get_data() == body[first : last + 1]
        assert part.headers["Content-Range"] == f"bytes {first}-{last}/{size}"
        assert part.content_length == last + 1 - first
        assert part.headers["ETag"] == etag
    for asked in (f"{size}-", f"{size + 5}-{size + 9}"):
        beyond = reader.get(url, headers={"Accept": accept, "Range": f"bytes={asked}"})
        assert (beyond.status_code, beyond.headers["Content-Range"]) == (416, f"bytes */{size}"), asked
    for header in ({"Range": "bytes=9-5"}, {"Range": "bytes=-0"}, {"Range": "lines=1-2"},
                   {"Range": "bytes=a-b"},
                   {"Range": "bytes=0-1,4-5"}, {"Range": "bytes=0-1", "If-Range": '"another"'},
                   {"Range": "bytes=0-1", "If-Range": f"W/{etag}"},
                   {"Range": "bytes=0-1", "If-Range": "Tue, 24 Nov 2026 12:00:00 GMT"}):  # fmt: skip
        assert (ignored := reader.get(url, headers={"Accept": accept, **header})).status_code == 200, header
        assert ignored.get_data() == body
    head = reader.head(url, headers={"Accept": accept, "Range": "bytes=0-1"})
    assert (head.status_code, head.content_length, head.get_data()) == (200, size, b"")


CACHED = [
    *SINGLE_PARTS,
    (f"{LEVEL}/frames/1,2", mp(OCTETS, "*")),
    (f"{LEVEL}/pixeldata", mp(OCTETS, "*")),
    (f"{LEVEL}/metadata", JSON),
    (f"{LEVEL}/metadata", mp(XML)),
    (f"{STUDY}/metadata", JSON),
]


@pytest.mark.parametrize(("url", "accept"), CACHED)
def test_what_a_client_holds_is_not_sent_again(reader, url, accept):
    first = reader.get(url, headers={"Accept": accept})
    etag = first.headers["ETag"]
    for known in (etag, f'"x", {etag}', f"W/{etag}", "*"):
        again = reader.get(url, headers={"Accept": accept, "If-None-Match": known, "Range": "bytes=0-1"})
        assert (again.status_code, again.get_data()) == (304, b""), known
        for name in ("ETag", "Cache-Control", "Vary"):
            assert again.headers[name] == first.headers[name]
    other = reader.get(url, headers={"Accept": accept, "If-None-Match": '"x"'})
    assert (other.status_code, other.get_data()) == (200, first.get_data())


def test_no_two_representations_share_an_etag(reader):
    """One URL, replayed with every Accept: a cache that holds one never shows another."""
    for url, _, count in FRAMES.values():
        seen: dict[str, tuple[str, bytes]] = {}
        for accept, _, _ in BY_ACCEPT:
            for form in (accept, accept.replace("multipart/related; type=", "").replace('"', "")):
                response = reader.get(url, headers={"Accept": form})
                if response.status_code != 200:
                    continue
                found = response.headers["Content-Type"], response.get_data()
                assert seen.setdefault(response.headers["ETag"], found) == found
        assert len({kind for kind, _ in seen.values()}) == len(seen) > 12, count


@pytest.mark.parametrize("resource", ["", "/metadata", "/pixeldata", "/bulkdata", f"/{ICC}", "/frames/1"])
def test_what_is_absent_or_gone(client, archive, resource):
    store(client, samples.volume(), samples.label())
    headers = {"Accept": "*/*"}
    for url in (f"{SERIES}/instances/1.2.3", f"{STUDY}/series/1.2.3/instances/{samples.SERIES}.1",
                f"{WEB}/studies/1.2.3/series/{samples.SERIES}/instances/{samples.SERIES}.1"):  # fmt: skip
        assert client.get(url + resource, headers=headers).status_code == 404
    archive.delete(
        samples.STUDY, samples.SERIES, f"{samples.SERIES}.1",
        reason="test", principal=Principal("tester", "cli"), scope=EVERYTHING,
    )  # fmt: skip
    assert client.get(LEVEL + resource, headers=headers).status_code == 410
    for method in (client.post, client.put, client.patch):
        assert method(LEVEL + resource, headers=headers).status_code == 405


@pytest.mark.parametrize(
    ("query", "accept", "expected"),
    [
        (one("image/jls", JLS), mp(OCTETS, "*"), one("image/jls", JLS)),
        ("image/png", one("image/jpeg", JPEG), one("image/jpeg", JPEG)),  # tried first, does not replace
        ("nonsense", one("image/jpeg", JPEG), one("image/jpeg", JPEG)),
        (one("image/jls", JLS), "", None),  # the header is mandatory all the same
        (f"{one('image/jp2', J2K)};q=0.1,{one('image/jls', JLS)};q=0.2", "*/*", one("image/jls", JLS)),
    ],
)
def test_the_accept_parameter_is_tried_first(reader, query, accept, expected):
    response = reader.get(f"{LEVEL}/frames/1", query_string={"accept": query}, headers={"Accept": accept})
    check_headers(response)
    assert response.status_code == (200 if expected else 406)
    if expected:
        assert response.headers["Content-Type"] == expected
