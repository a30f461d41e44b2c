# SPDX-License-Identifier: Apache-2.0
"""Random data sets for property tests, as Explicit VR Little Endian bytes."""

import struct

from hypothesis import strategies as st

from tests.archive.part10 import build

LEAVES = {
    0x00080100: ("SH", st.sampled_from([b"", b"A1", b"abc ", b"a\\b "])),
    0x00080104: ("LO", st.sampled_from([b"", b"meaning ", b"x\\y\\"])),
    0x00100010: ("PN", st.sampled_from([b"", b"A^B ", b"A^B=C^D "])),
    0x00280010: ("US", st.integers(0, 65535).map(lambda n: struct.pack("<H", n))),
    0x0040072A: ("DS", st.sampled_from([b"", b"1.50", b"-0.25 "])),
    0x00282000: ("OB", st.sampled_from([b"ab", b"\x05" * 65538, b"\x06" * 70000])),
    0x00420011: ("OB", st.sampled_from([b"", b"\x07" * 65540])),
    0x00660016: ("OF", st.sampled_from([b"\x00" * 8, b"\x01" * 65540])),
    0x00091001: ("UN", st.sampled_from([b"ab", b"\xfe\xff"])),
}
SEQUENCES = (0x00082218, 0x00480105, 0x006A0002)


@st.composite
def items(draw, depth):
    """The content of one item."""
    encoded = {}
    for tag in draw(st.sets(st.sampled_from(sorted(LEAVES)), max_size=4)):
        vr, values = LEAVES[tag]
        encoded[tag] = build.explicit(tag, vr, draw(values))
    if depth:
        for tag in draw(st.sets(st.sampled_from(SEQUENCES), max_size=2)):
            inside = draw(st.lists(items(depth - 1), max_size=3))
            encoded[tag] = build.sequence(tag, inside, undefined=draw(st.booleans()))
    return b"".join(encoded[tag] for tag in sorted(encoded))


@st.composite
def trees(draw):
    """A whole data set: the four UIDs and whatever else."""
    encoded = dict(build.identity())
    for tag in draw(st.sets(st.sampled_from(SEQUENCES), max_size=3)):
        inside = draw(st.lists(items(2), max_size=3))
        encoded[tag] = build.sequence(tag, inside, undefined=draw(st.booleans()))
    for tag in draw(st.sets(st.sampled_from(sorted(LEAVES)), max_size=3)):
        vr, values = LEAVES[tag]
        encoded[tag] = build.explicit(tag, vr, draw(values))
    return b"".join(encoded[tag] for tag in sorted(encoded))
