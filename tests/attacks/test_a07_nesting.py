# SPDX-License-Identifier: Apache-2.0
"""A7: sequences within sequences, two hundred and two hundred thousand deep."""

from pathlib import Path

import pytest
from pydicom.uid import generate_uid

from tests.attacks.besieged import besieged, even, explicit
from tests.support.instances import WSI

OPEN = b"\x40\x00\x60\x05SQ\x00\x00\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"
CLOSE = b"\xfe\xff\x0d\xe0\x00\x00\x00\x00\xfe\xff\xdd\xe0\x00\x00\x00\x00"


@pytest.mark.parametrize("depth", [200, 200_000])
def test_a_deep_data_set_is_refused_in_one_line(tmp_path: Path, depth: int) -> None:
    sop = generate_uid()
    head = explicit(0x00080016, b"UI", even(WSI)) + explicit(0x00080018, b"UI", even(sop))
    head += explicit(0x0020000D, b"UI", even(generate_uid())) + explicit(
        0x0020000E, b"UI", even(generate_uid())
    )
    with besieged(tmp_path / "data", audited=False) as siege:
        status = siege.store(head + OPEN * depth + CLOSE * depth, sop)
        assert status is not None
        assert status >= 0xA900
