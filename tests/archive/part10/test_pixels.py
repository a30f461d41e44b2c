# SPDX-License-Identifier: Apache-2.0
"""Frame tables of scanned files, with pydicom's reading as the second opinion."""

import io
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.encaps import generate_frames

from archive.part10.budget import ParseBudget
from archive.part10.errors import BudgetExceeded, Malformed, Truncated
from archive.part10.frame_table import FrameTable, Kind, Range, repack
from archive.part10.scan import ScannedFile, scan_file
from tests.archive.part10 import build

SOI, EOI = b"\xff\xd8\xff\xdb", b"\xff\xd9"


def scan(data: bytes, **options: object) -> ScannedFile:
    return scan_file(io.BytesIO(data), **options)


def frames_of(data: bytes, scanned: ScannedFile) -> list[bytes]:
    """Every frame's bytes by the scan's table."""
    table = FrameTable.from_bytes(scanned.frame_table)
    if table.kind is Kind.BITS:
        return [
            repack(data[where.offset : where.offset + where.length], first, count)
            for where, first, count in map(table.bits, range(table.count))
        ]
    return [
        b"".join(
            s if isinstance(s, bytes) else data[s.offset : s.offset + s.length] for s in table.segments(n)
        )
        for n in range(table.count)
    ]


def even(size: int, n: int = 0) -> bytes:
    """A frame that begins and ends as JPEG frames do."""
    return SOI + bytes([n % 256]) * (size * 2) + EOI


single = [[even(n, n)] for n in range(5)]
several = [[even(1)[:4], even(1)[4:]], [even(2)], [even(3)[:6], b"", even(3)[6:]]]


@given(st.lists(st.integers(0, 300), min_size=1, max_size=30), st.sampled_from(["bot", "eot", "neither"]))
def test_one_fragment_a_frame_is_found_with_and_without_offset_tables(sizes, kind):
    frames = [[even(size, n)] for n, size in enumerate(sizes)]
    extra = build.extended_table(frames) if kind == "eot" else []
    data = build.encapsulated(frames, None if kind == "bot" else b"", extra=extra)
    scanned = scan(data)
    assert frames_of(data, scanned) == [frame[0] for frame in frames]
    pixel_data = dcmread(io.BytesIO(data)).PixelData
    assert frames_of(data, scanned) == list(generate_frames(pixel_data, number_of_frames=len(sizes)))
    assert scanned.findings == ()
    assert FrameTable.from_bytes(scanned.frame_table).kind is Kind.DIRECT


@given(
    st.lists(st.lists(st.integers(0, 40), min_size=1, max_size=4), min_size=1, max_size=8),
    st.sampled_from(["bot", "eot"]),
)
def test_several_fragments_a_frame_are_gathered_by_an_offset_table(sizes, kind):
    frames = [[even(size, n) for size in frame] for n, frame in enumerate(sizes)]
    extra = build.extended_table(frames) if kind == "eot" else []
    data = build.encapsulated(frames, None if kind == "bot" else b"", extra=extra)
    scanned = scan(data)
    assert frames_of(data, scanned) == [b"".join(frame) for frame in frames]
    if kind == "bot":
        pixel_data = dcmread(io.BytesIO(data)).PixelData
        assert frames_of(data, scanned) == list(generate_frames(pixel_data, number_of_frames=len(frames)))


def test_one_frame_in_many_fragments_needs_no_offset_table():
    pieces = [even(1)[:4], *(bytes([n]) * 2 for n in range(200)), EOI]
    data = build.encapsulated([pieces], b"")
    scanned = scan(data)
    assert frames_of(data, scanned) == [b"".join(pieces)]
    assert FrameTable.from_bytes(scanned.frame_table).kind is Kind.GATHER


def test_frames_of_several_fragments_without_a_table_are_told_by_their_codestreams():
    data = build.encapsulated(several, b"")
    scanned = scan(data)
    assert frames_of(data, scanned) == [b"".join(frame) for frame in several]
    assert any("codestreams" in finding for finding in scanned.findings)


def test_fragments_that_cannot_be_assigned_are_refused():
    data = build.encapsulated([[b"ab", b"cd"], [b"ef"]], b"")
    with pytest.raises(Malformed, match="3 fragments, 2 frames"):
        scan(data)


def test_fewer_fragments_than_frames_are_refused():
    with pytest.raises(Malformed, match="9 frames in 5 fragments"):
        scan(build.encapsulated(single, b"", number_of_frames=9))


@pytest.mark.parametrize(
    "table",
    [
        struct.pack("<5I", 0, 8, 16, 24, 32),
        struct.pack("<5I", *build.offsets(single)[::-1]),
        struct.pack("<5I", *(n + 8 for n in build.offsets(single))),
        struct.pack("<5I", *[0xFFFFFFFF] * 5),
        struct.pack("<4I", *build.offsets(single)[:4]),
        b"\x00" * 6,
    ],
)
def test_a_wrong_basic_offset_table_is_a_finding_and_the_items_decide(table):
    data = build.encapsulated(single, table)
    scanned = scan(data)
    assert frames_of(data, scanned) == [frame[0] for frame in single]
    assert any("basic offset table" in finding for finding in scanned.findings)


def test_a_wrong_basic_offset_table_over_several_fragments_does_not_mix_frames():
    data = build.encapsulated(several, struct.pack("<3I", 0, 12, 20))
    scanned = scan(data)
    assert frames_of(data, scanned) == [b"".join(frame) for frame in several]
    assert any("ignored" in finding for finding in scanned.findings)


def test_an_extended_table_gives_the_length_without_the_pad():
    frames = [[even(4, n)[:-1] + b"\x00"] for n in range(3)]  # odd, then padded
    lengths = [len(frame[0]) - 1 for frame in frames]
    data = build.encapsulated(frames, b"", extra=build.extended_table(frames, lengths))
    scanned = scan(data)
    assert frames_of(data, scanned) == [frame[0][:-1] for frame in frames]
    assert scanned.findings == ()


def test_the_pad_is_cut_from_the_last_fragment_of_a_gathered_frame():
    frames = [[even(4)[:6], even(4)[6:]], [even(2)]]
    lengths = [len(even(4)) - 1, len(even(2))]
    data = build.encapsulated(frames, b"", extra=build.extended_table(frames, lengths))
    assert frames_of(data, scan(data)) == [even(4)[:-1], even(2)]


@pytest.mark.parametrize("lie", [10**9, 2**63, 0])
def test_an_extended_table_that_lies_about_lengths_is_ignored(lie):
    lengths = [len(frame[0]) for frame in single]
    lengths[2] = lie
    data = build.encapsulated(single, b"", extra=build.extended_table(single, lengths))
    scanned = scan(data)
    assert frames_of(data, scanned) == [frame[0] for frame in single]
    assert any("lengths are not those" in finding for finding in scanned.findings)


def test_both_offset_tables_at_once_are_a_finding():
    data = build.encapsulated(single, extra=build.extended_table(single))
    scanned = scan(data)
    assert frames_of(data, scanned) == [frame[0] for frame in single]
    assert scanned.findings == ("both a basic and an extended offset table",)


def test_offset_tables_are_never_in_the_header():
    data = build.encapsulated(single, b"", extra=build.extended_table(single))
    scanned = scan(data)
    assert 0x7FE00001 not in scanned.dataset
    assert 0x7FE00002 not in scanned.dataset
    assert b"\xe0\x7f" not in scanned.header


def test_items_without_a_byte_are_frames_without_a_byte():
    data = build.encapsulated([[even(1)], [b""], [even(2)]])
    scanned = scan(data)
    assert frames_of(data, scanned) == [even(1), b"", even(2)]
    assert "fragments without a byte" in scanned.findings


@given(st.integers(1, 5), st.integers(1, 5), st.integers(1, 7), st.sampled_from([8, 16, 32]))
def test_native_frames_lie_one_after_another(rows, columns, frames, bits):
    size = rows * columns * bits // 8
    pixels = bytes(n % 251 for n in range(size * frames))
    padded = build.padded(pixels, b"\x00")
    data = build.native(padded, frames, "OW", rows=rows, columns=columns, bits=bits)
    scanned = scan(data)
    assert frames_of(data, scanned) == [pixels[n * size : n * size + size] for n in range(frames)]
    assert scanned.findings == ()


@given(st.integers(1, 5), st.integers(1, 5), st.integers(1, 9), st.randoms())
def test_one_bit_frames_agree_with_pydicom(rows, columns, frames, rng):
    bits = np.array([rng.randrange(2) for _ in range(rows * columns * frames)], dtype=np.uint8)
    pixels = build.padded(np.packbits(bits, bitorder="little").tobytes(), b"\x00")
    data = build.native(pixels, frames, "OB", rows=rows, columns=columns, bits=1)
    planes = bits.reshape(frames, rows * columns)
    assert frames_of(data, scan(data)) == [np.packbits(p, bitorder="little").tobytes() for p in planes]


def test_subsampled_native_colour_has_two_samples_a_pixel():
    photometric = [(0x00280004, build.explicit(0x00280004, "CS", b"YBR_FULL_422"))]
    pixel = [(0x7FE00010, build.explicit(0x7FE00010, "OB", bytes(range(32))))]
    kind = build.shape(2, rows=2, columns=4, samples=3)
    data = build.meta() + build.data_set(build.identity(), kind, photometric, pixel)
    assert frames_of(data, scan(data)) == [bytes(range(16)), bytes(range(16, 32))]


def test_float_pixels_need_no_bits_allocated():
    kind = [e for e in build.shape(2) if e[0] != 0x00280100]
    pixel = [(0x7FE00008, build.explicit(0x7FE00008, "OF", bytes(range(32))))]
    data = build.meta() + build.data_set(build.identity(), kind, pixel)
    scanned = scan(data)
    assert frames_of(data, scanned) == [bytes(range(16)), bytes(range(16, 32))]
    assert scanned.pixel_data is not None
    assert scanned.pixel_data.path == "7FE00008"


def test_native_pixels_shorter_than_their_frames_are_refused():
    with pytest.raises(Truncated, match="4 frames need 16 bytes of pixel data: there are 14"):
        scan(build.native(bytes(14), 4))


def test_bytes_after_the_last_native_frame_are_a_finding():
    scanned = scan(build.native(bytes(20), 4))
    assert scanned.findings == ("4 bytes follow the last frame of the pixel data",)


@pytest.mark.parametrize(
    ("tag", "element"),
    [
        (0x00280010, build.explicit(0x00280010, "UL", struct.pack("<I", 65538))),
        (0x00280011, build.explicit(0x00280011, "US", struct.pack("<HH", 1, 2))),
        (0x00280010, build.explicit(0x00280010, "US", b"\x00\x00")),
        (0x00280100, build.explicit(0x00280100, "US", b"")),
        (0x00280008, build.explicit(0x00280008, "IS", b"-1")),
        (0x00280008, build.explicit(0x00280008, "IS", b"0 ")),
        (0x00280008, build.explicit(0x00280008, "IS", b"2147483648")),
        (0x00280008, build.explicit(0x00280008, "IS", b"99999999999999999999")),
        (0x00280008, build.explicit(0x00280008, "IS", b"1\\2 ")),
        (0x00280008, build.explicit(0x00280008, "IS", b"two ")),
    ],
)
def test_numbers_that_give_no_size_are_refused(tag, element):
    kind = [e for e in build.shape(1) if e[0] != tag]
    pixel = [(0x7FE00010, build.explicit(0x7FE00010, "OB", bytes(64)))]
    with pytest.raises(Malformed):
        scan(build.meta() + build.data_set(build.identity(), kind, [(tag, element)], pixel))


def test_frames_beyond_the_budget_are_refused_before_a_table_is_made():
    with pytest.raises(Truncated):
        scan(build.native(bytes(64), 2**31 - 1))
    with pytest.raises(BudgetExceeded):
        scan(build.native(bytes(64), 64, rows=1, columns=1), budget=ParseBudget(frames=63))
    with pytest.raises(BudgetExceeded):
        scan(build.encapsulated(single), budget=ParseBudget(frames=4))


def test_encapsulation_and_transfer_syntax_must_agree():
    compressed = build.encapsulated(single).replace(build.meta(build.JPEG), build.meta(build.EXPLICIT))
    with pytest.raises(Malformed, match="uncompressed transfer syntax are encapsulated"):
        scan(compressed)
    plain = build.native(bytes(16), 4).replace(build.meta(), build.meta(build.JPEG))
    with pytest.raises(Malformed, match="are not encapsulated"):
        scan(plain)


def test_video_is_one_stream_that_cannot_be_cut_into_frames():
    mpeg4 = "1.2.840.10008.1.2.4.102"
    data = build.encapsulated([[b"ab", b"cd", b"ef"]], b"", 25)
    data = data.replace(build.meta(build.JPEG), build.meta(mpeg4))
    scanned = scan(data)
    assert frames_of(data, scanned) == [b"abcdef"]
    assert any("video" in finding for finding in scanned.findings)


def test_offsets_count_in_the_scanned_file():
    data = build.encapsulated([[even(3)]])
    (body,) = FrameTable.from_bytes(scan(data).frame_table).segments(0)
    assert isinstance(body, Range)
    assert body.blob_index == 0
    assert data[body.offset : body.offset + body.length] == even(3)
