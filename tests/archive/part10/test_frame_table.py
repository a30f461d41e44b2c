# SPDX-License-Identifier: Apache-2.0
import os
import struct
import tempfile
from array import array

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from archive.part10.errors import Malformed, Part10Error, Truncated
from archive.part10.frame_table import (
    FrameTable,
    Kind,
    Range,
    encode_bits,
    encode_direct,
    encode_gather,
    repack,
    sliced,
)

entries = st.lists(
    st.tuples(
        st.integers(0, 2**64 - 2**33),
        st.integers(0, 2**32 - 1),
        st.integers(0, 2),
        st.integers(0, 2**16 - 1),
        st.integers(0, 255),
    ),
    max_size=20,
)
ranges = st.builds(Range, st.integers(0, 255), st.integers(0, 2**63), st.integers(0, 2**40))
frames = st.lists(st.lists(st.one_of(st.binary(max_size=8), ranges), max_size=6), max_size=12)


@given(entries, st.lists(st.binary(max_size=20), min_size=3, max_size=3))
def test_a_direct_table_gives_back_what_was_put_in(rows, prefixes):
    rows = [(o, n, p, min(s, n), b) for o, n, p, s, b in rows]
    columns = list(zip(*rows, strict=True)) or [()] * 5
    offsets, lengths, ids, skips, blobs = (np.array(c, dtype=np.uint64) for c in columns)
    data = encode_direct(offsets, lengths, blob_index=blobs, prefixes=prefixes, prefix_ids=ids, skips=skips)
    table = FrameTable.from_bytes(data)
    assert (table.kind, table.count) == (Kind.DIRECT, len(rows))
    for n, (offset, length, prefix, skip, blob) in enumerate(rows):
        *before, body = table.segments(n)
        assert b"".join(before) == prefixes[prefix]
        assert body == Range(blob, offset + skip, length - skip)
        assert table.frame_length(n) == table.lengths()[n] == len(prefixes[prefix]) + length - skip


def test_a_slice_of_a_table_holds_the_same_segments():
    direct = FrameTable.from_bytes(
        encode_direct(
            [5, 90, 40, 7], [9, 8, 7, 6], blob_index=[0, 2, 1, 0], prefixes=[b"", b"ab"],
            prefix_ids=[1, 0, 1, 1], skips=[0, 3, 2, 1],
        )
    )  # fmt: skip
    gather = FrameTable.from_bytes(
        encode_gather([[b"x"], [Range(1, 2, 3), b"yz"], [], [b"x", Range(0, 0, 9)]])
    )
    for table in (direct, gather):
        for start in range(table.count + 1):
            for stop in range(start, table.count + 1):
                part = FrameTable.from_bytes(sliced(table, start, stop))
                assert (part.kind, part.count) == (table.kind, stop - start)
                assert [part.segments(at) for at in range(part.count)] == [
                    table.segments(at) for at in range(start, stop)
                ]
        with pytest.raises(IndexError):
            sliced(table, 2, table.count + 1)
    with pytest.raises(ValueError, match="not a direct table"):
        sliced(FrameTable.from_bytes(encode_bits(2, 9, offset=0, length=3)), 0, 1)


@given(frames)
def test_a_gather_table_gives_back_what_was_put_in(rows):
    table = FrameTable.from_bytes(encode_gather(rows))
    assert (table.kind, table.count) == (Kind.GATHER, len(rows))
    assert [table.segments(n) for n in range(len(rows))] == [tuple(row) for row in rows]
    lengths = [sum(s.length if isinstance(s, Range) else len(s) for s in row) for row in rows]
    assert list(table.lengths()) == lengths
    assert [table.frame_length(n) for n in range(len(rows))] == lengths


@given(st.integers(1, 40), st.integers(1, 70), st.randoms())
def test_bits_are_repacked_as_if_each_frame_had_been_packed_alone(count, bits, rng):
    planes = [[rng.randrange(2) for _ in range(bits)] for _ in range(count)]
    stored = np.packbits(np.concatenate(planes), bitorder="little").tobytes()
    blob = b"abc" + stored
    table = FrameTable.from_bytes(encode_bits(count, bits, offset=3, length=len(stored), blob_index=2))
    for n, plane in enumerate(planes):
        where, first_bit, bit_count = table.bits(n)
        assert (where.blob_index, bit_count) == (2, bits)
        data = blob[where.offset : where.offset + where.length]
        assert len(data) == where.length
        frame = repack(data, first_bit, bit_count)
        assert frame == np.packbits(plane, bitorder="little").tobytes()
        assert len(frame) == table.frame_length(n) == table.lengths()[n]


def test_a_table_in_a_file_is_read_entry_by_entry():
    direct = encode_direct(array("Q", [10, 20]), array("Q", [5, 6]), prefixes=[b"head"], skips=2)
    gather = encode_gather([[b"a", Range(1, 2, 3)], [b"b"]])
    with tempfile.TemporaryFile() as file:
        file.write(b"x" * 100 + direct + gather)
        file.flush()
        first = FrameTable.open(file.fileno(), 100, len(direct))
        second = FrameTable.open(file.fileno(), 100 + len(direct), len(gather))
        first.verify()
        second.verify()
        assert first.segments(1) == (b"head", Range(0, 22, 4))
        assert second.segments(0) == (b"a", Range(1, 2, 3))
        assert list(second.lengths()) == [4, 1]


def test_a_table_file_cut_short_is_an_error_not_a_wrong_answer():
    data = encode_direct(range(10), range(10))
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.flush()
        table = FrameTable.open(file.fileno(), 0, len(data))
        os.truncate(file.fileno(), 90)
        with pytest.raises(Truncated):
            table.segments(9)
        with pytest.raises(Truncated):
            table.verify()


@pytest.mark.parametrize(
    "data",
    [
        encode_direct(range(30), range(30), prefixes=[b"ab", b"c"], prefix_ids=[0, 1] * 15),
        encode_gather([[b"a", Range(1, 2, 3)], [b"b"]] * 10),
        encode_bits(7, 9, offset=1, length=8),
    ],
)
def test_any_changed_byte_is_found(data):
    for position in range(len(data)):
        damaged = bytearray(data)
        damaged[position] ^= 0x41
        with pytest.raises(Part10Error):
            FrameTable.from_bytes(bytes(damaged))


@pytest.mark.parametrize("keep", [0, 10, 79, 80, 100])
def test_a_truncated_table_is_refused(keep):
    with pytest.raises(Truncated):
        FrameTable.from_bytes(encode_direct(range(30), range(30))[:keep])


def test_a_later_version_is_refused_by_name():
    data = bytearray(encode_direct([1], [1]))
    struct.pack_into("<H", data, 4, 2)
    with pytest.raises(Malformed, match="version 2"):
        FrameTable.from_bytes(bytes(data))


def test_frame_indexes_count_from_0_and_end_at_the_count():
    table = FrameTable.from_bytes(encode_direct([0, 1], [1, 1]))
    for index in (-1, 2):
        with pytest.raises(IndexError):
            table.segments(index)
        with pytest.raises(IndexError):
            table.frame_length(index)


@pytest.mark.parametrize(
    "arguments",
    [
        ([0], [2**32], {}),
        ([-1], [1], {}),
        ([0, 1], [1], {}),
        ([0], [1], {"prefix_ids": [1], "prefixes": [b"a"]}),
        ([0], [1], {"skips": [2]}),
        ([0], [70000], {"skips": [65536]}),
        ([0], [1], {"blob_index": 256}),
        ([0.5], [1], {}),
    ],
)
def test_what_does_not_fit_a_direct_table_is_a_value_error(arguments):
    offsets, lengths, more = arguments
    with pytest.raises(ValueError):
        encode_direct(offsets, lengths, **more)


def test_equal_literals_are_kept_once():
    one = encode_gather([[b"\xff\xd0" * 100, Range(0, 1, 2)]])
    many = encode_gather([[b"\xff\xd0" * 100, Range(0, 1, 2)]] * 50)
    assert len(many) - len(one) == 49 * (8 + 2 * 18)


def test_bits_that_exceed_their_range_are_refused():
    with pytest.raises(ValueError):
        encode_bits(3, 9, offset=0, length=3)
    with pytest.raises(ValueError):
        repack(b"\x00", 1, 8)
