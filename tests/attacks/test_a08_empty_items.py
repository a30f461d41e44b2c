# SPDX-License-Identifier: Apache-2.0
"""A8: millions of empty items, and of empty elements."""

import struct
from pathlib import Path

import pytest
from pydicom.uid import generate_uid

from tests.attacks.besieged import besieged, even, explicit
from tests.support.instances import WSI

ITEM = b"\xfe\xff\x00\xe0\x00\x00\x00\x00"


def private(number: int) -> bytes:
    """An empty element of a private group."""
    return struct.pack("<HH2sH", 0x0009 + 2 * (number // 0x8000), 0x1000 + number % 0x8000, b"LO", 0)


FULL_ITEM = struct.pack("<HHI", 0xFFFE, 0xE000, 8 * 32_000) + b"".join(map(private, range(32_000)))

PARTS = {
    "two million items": explicit(0x00400560, b"SQ", ITEM * 2_000_000),
    "four million items": explicit(0x00400560, b"SQ", ITEM * 4_000_000),
    "three million elements": explicit(0x00400560, b"SQ", FULL_ITEM * 100),
}


@pytest.mark.parametrize("name", PARTS)
def test_it_is_refused_within_the_budget(tmp_path: Path, name: str) -> None:
    sop = generate_uid()
    head = explicit(0x00080016, b"UI", even(WSI)) + explicit(0x00080018, b"UI", even(sop))
    head += explicit(0x0020000D, b"UI", even(generate_uid())) + explicit(
        0x0020000E, b"UI", even(generate_uid())
    )
    with besieged(tmp_path / "data", audited=False) as siege:
        status = siege.store(head + PARTS[name], sop)
        assert status is not None
        assert status >= 0xA700
