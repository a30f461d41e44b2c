# SPDX-License-Identifier: Apache-2.0
"""A6: a megabyte that inflates to a gigabyte."""

import zlib
from pathlib import Path

from pydicom.uid import generate_uid

from tests.attacks.besieged import DEFLATED, besieged, even, explicit
from tests.support.instances import WSI


def bomb(sop: str, inflated_bytes: int) -> bytes:
    """A valid beginning, then one private value of zeros."""
    head = explicit(0x00080016, b"UI", even(WSI)) + explicit(0x00080018, b"UI", even(sop))
    head += explicit(0x0020000D, b"UI", even(generate_uid())) + explicit(
        0x0020000E, b"UI", even(generate_uid())
    )
    engine = zlib.compressobj(9, zlib.DEFLATED, -15)
    out = engine.compress(head + b"\x09\x00\x10\x00LO\x04\x00BOMB" + b"\x09\x00\x01\x10OB\x00\x00")
    out += engine.compress(inflated_bytes.to_bytes(4, "little"))
    for _ in range(inflated_bytes >> 20):
        out += engine.compress(bytes(1 << 20))
    return out + engine.flush()


def test_a_bomb_is_refused_before_it_has_grown(tmp_path: Path) -> None:
    sop = generate_uid()
    data = bomb(sop, 1 << 30)
    assert len(data) < 2 << 20
    with besieged(tmp_path / "data", audited=False) as siege:
        status = siege.store(data + b"\0" * (len(data) % 2), sop, syntax=DEFLATED)
        assert status is not None
        assert status >= 0xA700
