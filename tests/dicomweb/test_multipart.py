# SPDX-License-Identifier: Apache-2.0
"""The multipart reader against every split of a stream, and the writer against the reader."""

from email import message_from_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomweb.multipart import (
    HEADER_BYTES,
    PREAMBLE_BYTES,
    MultipartError,
    MultipartReader,
    PartBegin,
    PartData,
    PartEnd,
    boundary_of,
    closing,
    content_length,
    part_head,
)

BOUNDARY = "b-1"


def body_of(parts, preamble=b"", epilogue=b"", padding=b""):
    body = preamble
    for headers, data in parts:
        head = part_head(BOUNDARY, headers).replace(b"--b-1\r\n", b"--b-1" + padding + b"\r\n", 1)
        body += head + data + b"\r\n"
    return body + closing(BOUNDARY) + epilogue


def read(stream, cuts=()):
    """(headers, bytes) of each part, fed in pieces cut at ``cuts``."""
    reader = MultipartReader(BOUNDARY)
    parts = []
    for start, stop in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        for event in reader.feed(stream[start:stop]):
            match event:
                case PartBegin(headers):
                    parts.append((headers, bytearray(), []))
                case PartData(data):
                    assert data, "no empty pieces"
                    parts[-1][1].extend(data)
                case PartEnd():
                    parts[-1][2].append(True)
    reader.close()
    assert all(ended == [True] for _, _, ended in parts)
    return [(headers, bytes(data)) for headers, data, _ in parts]


# Bytes that look like delimiters, cut short or gone on with, are the interesting ones.
nasty = st.lists(
    st.sampled_from(
        [b"\r", b"\n", b"\r\n", b"-", b"--", b"\r\n--b-1x", b"\r\n--b-", b"--b-1", b"\r\n--b-1 x", b"z"]
    )
    | st.binary(max_size=6),
    max_size=12,
).map(b"".join)
payload = nasty.filter(
    lambda data: (
        b"\r\n--b-1\r\n" not in (framed := b"\r\n" + data + b"\r\n")
        and b"\r\n--b-1--" not in framed
        and b"\r\n--b-1 \r\n" not in framed
    )
)
headers = st.lists(
    st.tuples(
        st.sampled_from(["content-type", "content-location", "x"]),
        st.from_regex(r"[a-z/]{1,12}", fullmatch=True),
    ),
    max_size=3,
    unique_by=lambda item: item[0],
)


@given(st.lists(st.tuples(headers, payload), min_size=1, max_size=4), st.data())
def test_parts_survive_any_split_of_the_stream(parts, data):
    stream = body_of(parts, preamble=b"skip me\r\n", epilogue=b"\r\nand me")
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=10)))
    assert read(stream, cuts) == [(dict(fields), content) for fields, content in parts]


def test_one_byte_at_a_time_gives_the_same_parts():
    parts = [([("Content-Type", "application/dicom")], b"\r\n--b-1no\r\n--b-"), ([], b"")]
    stream = body_of(parts, padding=b" \t ")
    expected = [({"content-type": "application/dicom"}, parts[0][1]), ({}, b"")]
    assert read(stream, range(1, len(stream))) == expected == read(stream)


@given(st.lists(st.tuples(headers, st.binary(max_size=40)), min_size=1, max_size=3))
def test_the_standard_library_reads_what_the_writer_wrote(parts):
    if any(b"--b-1" in content for _, content in parts):
        return
    stream = body_of(parts)
    message = message_from_bytes(b"Content-Type: multipart/related; boundary=b-1\r\n\r\n" + stream)
    assert len(message.get_payload()) == len(parts)
    heads = [part_head(BOUNDARY, fields) for fields, _ in parts]
    assert content_length(heads, [len(content) for _, content in parts], BOUNDARY) == len(stream)


@pytest.mark.parametrize(
    "stream",
    [
        b"",
        b"--b-1\r\n\r\ndata",
        b"--b-1\r\n\r\ndata\r\n--b-1\r\n",
        b"--b-1\r\n\r\ndata\r\n--b-1-",
        b"no boundary at all",
    ],
)
def test_a_body_that_ends_early_is_an_error(stream):
    with pytest.raises(MultipartError, match="ends before"):
        read(stream)


def test_headers_and_preamble_are_bounded():
    with pytest.raises(MultipartError, match="too long"):
        read(b"--b-1\r\nX: " + b"a" * (HEADER_BYTES + 10))
    with pytest.raises(MultipartError, match="no boundary"):
        read(b"a" * (PREAMBLE_BYTES + 100))
    with pytest.raises(MultipartError, match="malformed"):
        read(b"--b-1\r\nno colon\r\n\r\n\r\n--b-1--")


def test_memory_does_not_grow_with_a_part():
    reader = MultipartReader(BOUNDARY)
    reader.feed(part_head(BOUNDARY, []))
    for _ in range(64):
        reader.feed(b"\r" * 65_536)
    assert len(reader._buffer) < 100


def test_folded_headers_are_joined():
    ((fields, _),) = read(b"--b-1\r\nContent-Type: a/b;\r\n c=d\r\n\r\nx\r\n--b-1--")
    assert fields == {"content-type": "a/b; c=d"}


@pytest.mark.parametrize(
    ("content_type", "boundary"),
    [
        ('multipart/related; type="application/dicom"; boundary="a b:c"', "a b:c"),
        ("multipart/related; boundary=xyz; type=application/dicom", "xyz"),
    ],
)
def test_the_boundary_may_be_quoted(content_type, boundary):
    assert boundary_of(content_type) == boundary


@pytest.mark.parametrize("boundary", ["", '""', "a" * 71, '"ends "', '"\x01"'])
def test_a_boundary_outside_of_rfc_2046_is_refused(boundary):
    with pytest.raises(MultipartError):
        boundary_of(f"multipart/related; boundary={boundary}")
