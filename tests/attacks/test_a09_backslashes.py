# SPDX-License-Identifier: Apache-2.0
"""A9: twenty megabytes of backslashes in one value."""

from pathlib import Path

import pytest
from pydicom.uid import generate_uid

from tests.attacks.besieged import besieged, even, explicit
from tests.support.instances import WSI


@pytest.mark.parametrize(("tag", "vr"), [(0x00189073, b"UC"), (0x00080008, b"UC")])
def test_twenty_million_values_are_not_made(tmp_path: Path, tag: int, vr: bytes) -> None:
    sop = generate_uid()
    elements = {
        0x00080016: (b"UI", even(WSI)),
        0x00080018: (b"UI", even(sop)),
        0x0020000D: (b"UI", even(generate_uid())),
        0x0020000E: (b"UI", even(generate_uid())),
        tag: (vr, b"\\" * (20 << 20)),
    }
    data = b"".join(explicit(number, *elements[number]) for number in sorted(elements))
    with besieged(tmp_path / "data", audited=False) as siege:
        assert siege.store(data, sop) is not None
