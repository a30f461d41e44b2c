# SPDX-License-Identifier: Apache-2.0
import io
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.encaps import generate_frames, parse_basic_offsets

from archive.part10.bulk import BulkValue
from archive.part10.encode import encode_header
from archive.part10.errors import Malformed, TooLarge
from archive.part10.frame_table import FrameTable, Kind, Range, encode_bits, encode_direct, encode_gather
from archive.part10.scan import scan_file
from archive.part10.stream import Part10Stream
from tests.archive.part10 import build
from tests.archive.part10.test_pixels import frames_of

HTJ2K = "1.2.840.10008.1.2.4.201"


def header(syntax=build.JPEG, frames=1, *elements, **kind):
    """A scanned header without pixel data."""
    order = [(struct.unpack("<HH", e[:4])[0] << 16 | struct.unpack("<HH", e[:4])[1], e) for e in elements]
    data = build.meta(syntax) + build.data_set(build.identity(), build.shape(frames, **kind), order)
    return scan_file(io.BytesIO(data)).header


def written(stream, *blobs):
    """The stream's bytes; ranges taken from ``blobs``."""
    out = b"".join(
        part if isinstance(part, bytes) else blobs[part.blob_index][part.offset : part.offset + part.length]
        for part in stream.parts()
    )
    assert len(out) == stream.length
    return out


def direct(lengths, **more):
    starts = [sum(lengths[:n]) for n in range(len(lengths))]
    return FrameTable.from_bytes(encode_direct(starts, lengths, **more))


frame_bytes = st.lists(st.binary(max_size=60), min_size=1, max_size=12)


@given(frame_bytes, st.binary(max_size=9))
def test_frames_written_are_the_frames_read_back(frames, prefix):
    blob = b"".join(frames)
    table = direct([len(frame) for frame in frames], prefixes=[prefix])
    data = written(Part10Stream(header(frames=len(frames)), build.JPEG, table), blob)
    expected = [prefix + frame + b"\x00" * ((len(prefix) + len(frame)) % 2) for frame in frames]
    scanned = scan_file(io.BytesIO(data))
    assert frames_of(data, scanned) == expected
    assert set(scanned.findings) <= {"fragments without a byte"}
    ds = dcmread(io.BytesIO(data))
    assert list(generate_frames(ds.PixelData, number_of_frames=len(frames))) == expected
    assert len(parse_basic_offsets(ds.PixelData)) == len(frames)


@given(
    st.lists(
        st.lists(st.one_of(st.binary(max_size=9), st.integers(0, 50)), max_size=5), min_size=1, max_size=8
    )
)
def test_gathered_frames_become_one_fragment_each(rows):
    blob = bytes(range(256))
    frames = [[Range(0, s, 7) if isinstance(s, int) else s for s in row] for row in rows]
    expected = [
        b"".join(s if isinstance(s, bytes) else blob[s.offset : s.offset + 7] for s in row) for row in frames
    ]
    table = FrameTable.from_bytes(encode_gather(frames))
    data = written(Part10Stream(header(frames=len(rows)), build.JPEG, table), blob)
    scanned = scan_file(io.BytesIO(data))
    assert frames_of(data, scanned) == [frame + b"\x00" * (len(frame) % 2) for frame in expected]
    assert FrameTable.from_bytes(scanned.frame_table).kind is Kind.DIRECT


def test_the_stream_of_a_scanned_file_scans_to_the_same_stream():
    frames = [[bytes([n]) * (2 * n + 2)] for n in range(9)]
    original = build.encapsulated(frames, b"")
    scanned = scan_file(io.BytesIO(original))
    table = FrameTable.from_bytes(scanned.frame_table)
    once = written(Part10Stream(scanned.header, build.JPEG, table, scanned.bulk), original)
    again = scan_file(io.BytesIO(once))
    twice = written(
        Part10Stream(again.header, build.JPEG, FrameTable.from_bytes(again.frame_table), again.bulk), once
    )
    assert once == twice


def test_offsets_from_4_gib_on_are_extended_with_unpadded_lengths():
    lengths = [2**31 - 1, 2**31 - 1, 5]
    table = FrameTable.from_bytes(encode_direct([0, 0, 0], lengths))
    stream = Part10Stream(header(frames=3), build.JPEG, table)
    parts = list(stream.parts())
    head = parts[0]
    assert isinstance(head, bytes)
    at = head.index(b"\xe0\x7f\x01\x00OV\x00\x00")
    offsets = (0, 2**31 + 8, 2**32 + 16)
    assert struct.unpack_from("<I3Q", head, at + 8) == (24, *offsets)
    assert head[at + 36 : at + 44] == b"\xe0\x7f\x02\x00OV\x00\x00"
    assert struct.unpack_from("<I3Q", head, at + 44) == (24, *lengths)
    assert head[at + 72 : at + 92] == (
        b"\xe0\x7f\x10\x00OB\x00\x00\xff\xff\xff\xff\xfe\xff\x00\xe0\x00\x00\x00\x00"
    )
    total = sum(len(part) if isinstance(part, bytes) else part.length for part in parts)
    assert stream.length == total


def test_the_last_offset_below_4_gib_still_gives_a_basic_table():
    table = FrameTable.from_bytes(encode_direct([0, 0, 0], [2**31 - 8, 2**31 - 16, 2**31]))
    head = next(Part10Stream(header(frames=3), build.JPEG, table).parts())
    assert b"\xe0\x7f\x01\x00" not in head
    at = head.index(b"\xe0\x7f\x10\x00")
    assert struct.unpack_from("<3I", head, at + 20) == (0, 2**31, 2**32 - 8)


def test_native_frames_are_one_value_and_one_range():
    table = direct([16] * 2000)
    stream = Part10Stream(header(build.EXPLICIT, 2000, rows=4, columns=4), build.EXPLICIT, table)
    head, body = stream.parts()
    assert body == Range(0, 0, 32000)
    assert head.endswith(b"\xe0\x7f\x10\x00OB\x00\x00" + struct.pack("<I", 32000))


def test_native_pixels_are_words_where_more_than_8_bits_are_allocated_and_padded_to_even():
    wide = Part10Stream(header(build.EXPLICIT, bits=16), build.EXPLICIT, direct([8]))
    assert b"\xe0\x7f\x10\x00OW" in written(wide, bytes(8))
    odd = Part10Stream(header(build.EXPLICIT, rows=1, columns=3), build.EXPLICIT, direct([3]))
    assert written(odd, b"abc").endswith(b"OB\x00\x00\x04\x00\x00\x00abc\x00")


def test_bit_planes_are_written_as_they_lie():
    table = FrameTable.from_bytes(encode_bits(3, 5, offset=1, length=2))
    stream = Part10Stream(header(build.EXPLICIT, 3, rows=1, columns=5, bits=1), build.EXPLICIT, table)
    assert written(stream, b"xab").endswith(b"\x02\x00\x00\x00ab")


def test_native_pixels_of_4_gib_are_refused():
    table = FrameTable.from_bytes(encode_direct([0, 0], [2**31, 2**31 - 1]))
    with pytest.raises(TooLarge):
        Part10Stream(header(build.EXPLICIT, 2), build.EXPLICIT, table)


@pytest.mark.parametrize("syntax", [build.IMPLICIT, build.DEFLATED, build.BIG_ENDIAN])
def test_every_native_syntax_is_written_as_explicit_little_endian(syntax):
    stream = Part10Stream(header(build.EXPLICIT), syntax, direct([4]))
    assert stream.transfer_syntax_uid == build.EXPLICIT
    ds = dcmread(io.BytesIO(written(stream, b"abcd")))
    assert ds.file_meta.TransferSyntaxUID == build.EXPLICIT
    assert ds.PixelData == b"abcd"


def test_group_2_names_the_syntax_of_the_frames():
    ds = dcmread(io.BytesIO(written(Part10Stream(header(build.JPEG), HTJ2K, direct([4])), b"abcd")))
    assert ds.file_meta.TransferSyntaxUID == HTJ2K
    assert ds.file_meta.ImplementationVersionName == "COVERSLIP_1"


def test_nested_bulk_goes_back_to_its_place():
    profile, coordinates = b"\x01" * 70000, b"\x02" * 70004
    inner = build.sequence(0x00082218, [build.explicit(0x00282000, "OB", profile)])
    first = build.explicit(0x00080100, "SH", b"A1") + inner + build.explicit(0x00480106, "SH", b"1 ")
    elements = [
        build.sequence(0x00480105, [b"", first, b""]),
        build.sequence(0x006A0002, [build.explicit(0x00660016, "OF", coordinates)]),
        build.explicit(0x00420011, "OB", profile),
        build.explicit(0xFFFAFFF0, "SH", b"zz"),
    ]
    order = [(struct.unpack("<HH", e[:4])[0] << 16 | struct.unpack("<HH", e[:4])[1], e) for e in elements]
    data = build.meta() + build.data_set(build.identity(), order)
    scanned = scan_file(io.BytesIO(data))
    stream = Part10Stream(scanned.header, build.EXPLICIT, None, scanned.bulk)
    out = written(stream, data)
    ours, theirs = dcmread(io.BytesIO(out)), dcmread(io.BytesIO(data))
    assert ours == theirs
    assert ours.OpticalPathSequence[1].AnatomicRegionSequence[0].ICCProfile == profile


@given(st.data())
def test_any_values_taken_out_go_back_where_they_were(data):
    """Random trees: scanned, joined and read by pydicom they are what they were."""
    from tests.archive.part10.trees import trees

    content = data.draw(trees())
    file = build.meta() + content
    scanned = scan_file(io.BytesIO(file))
    out = written(Part10Stream(scanned.header, build.EXPLICIT, None, scanned.bulk), file)
    assert dcmread(io.BytesIO(out)) == dcmread(io.BytesIO(file))


def test_pixel_data_after_which_more_follows_are_put_between():
    tail = build.explicit(0xFFFAFFF0, "SH", b"zz")
    stream = Part10Stream(header(build.JPEG, 1, tail), build.JPEG, direct([2]))
    assert written(stream, b"ab").endswith(build.SEQUENCE_END + tail)


def test_pixel_data_without_a_table_are_copied_like_other_bulk():
    original = build.encapsulated([[b"ab", b"cd"], [b"ef"]])
    scanned = scan_file(io.BytesIO(original))
    out = written(Part10Stream(scanned.header, build.JPEG, None, scanned.bulk), original)
    assert dcmread(io.BytesIO(out)).PixelData == dcmread(io.BytesIO(original)).PixelData


@pytest.mark.parametrize("path", ["00480105/0/00282000", "00480105/3/00282000", "00100010/0/00282000", "x"])
def test_bulk_without_a_place_is_refused(path):
    name = build.explicit(0x00100010, "PN", b"A^")
    with pytest.raises(Malformed):
        Part10Stream(header(build.JPEG, 1, name), build.JPEG, None, [BulkValue(path, "OB", 0, 4)])


def test_bulk_that_the_header_still_has_is_refused():
    profile = build.explicit(0x00282000, "OB", b"ab")
    with pytest.raises(Malformed, match=r"has \(0028,2000\) already"):
        Part10Stream(header(build.JPEG, 1, profile), build.JPEG, None, [BulkValue("00282000", "OB", 0, 4)])


def test_a_bulk_value_of_a_short_vr_is_written_as_un():
    value = [BulkValue("00100020", "LO", 0, 70000)]
    out = written(Part10Stream(header(), build.JPEG, None, value), b"x" * 70000)
    assert b"\x10\x00\x20\x00UN\x00\x00" + struct.pack("<I", 70000) + b"xx" in out


def test_a_header_that_is_none_is_refused():
    good = header()
    for bad in (b"", good[:200], good[:-3], good + b"\x08"):
        with pytest.raises(Exception) as refusal:
            written(Part10Stream(bad, build.JPEG, direct([2])), b"ab")
        assert refusal.type.__module__ == "archive.part10.errors"


def test_writing_twenty_thousand_frames_is_cheap():
    import time

    count = 20_000
    lengths = np.full(count, 17_001, dtype=np.uint64)
    table = FrameTable.from_bytes(encode_direct(np.arange(count, dtype=np.uint64) * 17_001, lengths))
    head = header(frames=count)
    start = time.process_time()
    stream = Part10Stream(head, build.JPEG, table)
    parts = sum(1 for _ in stream.parts())
    assert parts == 2 * count + 1
    assert time.process_time() - start < 1.0  # about 0.03 s on two slow cores


def test_the_same_revision_gives_the_same_bytes():
    ds = dcmread(io.BytesIO(header()))
    one = encode_header(ds, build.JPEG, implementation_version="COVERSLIP_1")
    two = encode_header(dcmread(io.BytesIO(one)), build.JPEG, implementation_version="COVERSLIP_1")
    streams = [written(Part10Stream(h, build.JPEG, direct([3])), b"abc") for h in (one, two)]
    assert streams[0] == streams[1]
