# SPDX-License-Identifier: Apache-2.0
"""Palettes come out as pydicom expands them, and none makes more than 65,536 entries."""

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.pixels.processing import _expand_segmented_lut, apply_color_lut

from archive.errors import CannotDecode
from archive.palette import MAX_OCTETS, palette_of

COLOURS = ("Red", "Green", "Blue")


def made(descriptor, tables, *, segmented=False):
    head = Dataset()
    for name, table in zip(COLOURS, tables, strict=True):
        setattr(head, f"{name}PaletteColorLookupTableDescriptor", list(descriptor))
        setattr(head, f"{'Segmented' * segmented}{name}PaletteColorLookupTableData", table)
    return head


def found(head):
    def value_of(tag):
        return head[tag].value if tag in head else b""

    palette = palette_of(head, value_of)
    return palette.first, np.frombuffer(palette.entries, np.uint8).reshape(-1, 3)


def by_pydicom(head, shift):
    head.set_original_encoding(False, True)
    count, first, _ = head.RedPaletteColorLookupTableDescriptor
    return apply_color_lut(np.arange(first, first + (count or 65536)), head) >> shift


@pytest.mark.parametrize(
    ("descriptor", "kind", "shift"),
    [((256, 0, 8), "u1", 0), ((256, 3, 16), "<u2", 8), ((0, 0, 16), "<u2", 8), ((255, 0, 8), "u1", 0)],
)
def test_plain_tables_of_8_and_16_bits_are_read(descriptor, kind, shift):
    count = descriptor[0] or 65536
    rng = np.random.default_rng(1)
    tables = [rng.integers(0, np.iinfo(kind).max + 1, count).astype(kind).tobytes() for _ in COLOURS]
    first, entries = found(made(descriptor, tables))
    assert first == descriptor[1]
    assert np.array_equal(entries, by_pydicom(made(descriptor, tables), shift))


def test_the_length_of_a_table_tells_how_its_entries_are_stored():
    octets = bytes(range(200))
    words = np.arange(200, dtype="<u2").tobytes()
    expected = np.repeat(np.arange(200)[:, np.newaxis], 3, axis=1)
    for bits, table in ((16, octets), (8, words), (16, words), (8, octets)):
        assert np.array_equal(found(made((200, 0, bits), [table] * 3))[1], expected), (bits, len(table))


segments = st.one_of(
    st.lists(st.integers(0, 65535), min_size=1, max_size=20).map(lambda values: [0, len(values), *values]),
    st.tuples(st.just(1), st.integers(1, 300), st.integers(0, 65535)).map(list),
)


@given(st.lists(segments, min_size=1, max_size=8), st.booleans(), st.data())
def test_segments_expand_as_pydicom_expands_them(listed, wide, data):
    listed = [[0, 2, 65535, 7], *listed]
    if not wide:
        listed = [[n if i == 0 else min(n % 256 or 1, 255) for i, n in enumerate(one)] for one in listed]
        listed = [[0, len(one) - 2, *one[2:]] if one[0] == 0 else one for one in listed]
    form = "H" if wide else "B"
    fields = [field for one in listed for field in one]
    lengths = [one[1] for one in listed]
    if not wide:  # of 16 bits pydicom takes the offset for one of words; of 0 it has no line
        plain = [n for n, one in enumerate(listed) if one[0] == 0]
        copied = data.draw(st.sampled_from(plain))
        fields += [2, 1, *struct.pack("<I", sum(map(len, listed[:copied])))]
        lengths.append(lengths[copied])
    count = sum(lengths)
    table = struct.pack(f"<{len(fields)}{form}", *fields)
    table += b"\0" * (len(table) % 2)
    head = made((count, 0, 16 if wide else 8), [table] * 3, segmented=True)
    expected = _expand_segmented_lut(tuple(fields), f"<{form}")
    entries = found(head)[1][:, 0].astype(int)
    assert len(entries) == len(expected)
    # the halves of a line are rounded by what the last bits of a float say
    assert np.abs(entries - (np.array(expected) >> (8 if wide else 0))).max() <= 1


def test_segments_are_copied_from_a_byte_offset_and_lines_go_on_from_where_they_stand():
    expected = [1, 2, 3, 4, 1, 2, 3, 4, 4, 4]
    head = segmented(0, 2, 256, 512, 1, 2, 1024, 2, 2, 0, 0, 2, 1, 8, 0, count=10)
    assert found(head)[1][:, 0].tolist() == expected


def segmented(*fields, count=256):
    table = np.array(fields, "<u2").tobytes()
    return made((count, 0, 16), [table] * 3, segmented=True)


@pytest.mark.parametrize(
    "head",
    [
        Dataset(),
        made((256, 0, 8), [b""] * 3),
        made((256, 0, 8), [bytes(100)] * 3),
        made((256, 0, 12), [bytes(512)] * 3),
        segmented(1, 256, 9),  # nothing to go on from
        segmented(2, 1, 0, 0),
        segmented(0, 0, 0, 0, 0),
        segmented(0, 1, 5, 3, 1, 1),
        segmented(0, 1, 5, 2, 1, 3, 0),  # copies a copy
        segmented(0, 1, 5, 2, 1, 200, 0),  # copies what is not there yet
        segmented(0, 2, 1, 2),  # two entries of 256
        made((256, 0, 16), [bytes(MAX_OCTETS + 2)] * 3, segmented=True),
    ],
)
def test_what_is_no_palette_is_refused(head):
    with pytest.raises(CannotDecode):
        found(head)


def test_segments_that_say_more_make_no_more_entries_than_there_may_be():
    many = [0, 1, 5, *[1, 65535, 9] * 20_000]
    assert found(segmented(*many, count=0))[1].shape == (65536, 3)
