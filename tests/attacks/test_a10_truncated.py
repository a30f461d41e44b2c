# SPDX-License-Identifier: Apache-2.0
"""A10: a value that says it is longer than what follows."""

import struct
from pathlib import Path

import pytest
from pydicom.uid import generate_uid

from tests.attacks.besieged import besieged, body, explicit
from tests.support.instances import make_instance


@pytest.mark.parametrize("declared", [1000, 0x7FFFFFFE, 0xFFFFFFFE])
def test_pixel_data_longer_than_the_data_set_is_refused(tmp_path: Path, declared: int) -> None:
    sop = generate_uid()
    data = body(make_instance(frames=1, native=True, sop=sop))
    place = data.rindex(b"\xe0\x7f\x10\x00OB")
    with besieged(tmp_path / "data", audited=False) as siege:
        cut = data[:place] + b"\xe0\x7f\x10\x00OB\0\0" + struct.pack("<I", declared) + b"abc\0"
        status = siege.store(cut, sop)
        assert status is not None
        assert status >= 0xA900


def test_a_sequence_that_is_never_closed_is_refused(tmp_path: Path) -> None:
    sop = generate_uid()
    data = body(make_instance(frames=1, native=True, sop=sop))
    place = data.rindex(b"\xe0\x7f\x10\x00OB")
    with besieged(tmp_path / "data", audited=False) as siege:
        status = siege.store(data[:place] + explicit(0x52009230, b"SQ", b"")[:-4] + b"\xff" * 4, sop)
        assert status is not None
        assert status >= 0xA900
