# SPDX-License-Identifier: Apache-2.0
"""A14: rows, columns, frames and offsets that overflow, in instances that are well-formed."""

import io
from collections.abc import Callable
from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset

from tests.attacks.besieged import besieged, body
from tests.support.instances import make_instance


def rows(ds: Dataset) -> None:
    ds.Rows = ds.Columns = 65535


def frames(ds: Dataset) -> None:
    ds.NumberOfFrames = 2**31 - 1


def negative_frames(ds: Dataset) -> None:
    ds.NumberOfFrames = -7


def matrix(ds: Dataset) -> None:
    ds.TotalPixelMatrixRows = ds.TotalPixelMatrixColumns = 2**32 - 1


def bits(ds: Dataset) -> None:
    ds.BitsAllocated = 65535


def samples(ds: Dataset) -> None:
    ds.SamplesPerPixel = 65535


def offsets(ds: Dataset) -> None:
    ds.ExtendedOffsetTable = (2**64 - 8).to_bytes(8, "little") * 4
    ds.ExtendedOffsetTableLengths = (2**63).to_bytes(8, "little") * 4


def overlapping(ds: Dataset) -> None:
    ds.ExtendedOffsetTable = bytes(32)
    ds.ExtendedOffsetTableLengths = (1 << 30).to_bytes(8, "little") * 4


CHANGES: list[Callable[[Dataset], None]] = [
    rows, frames, negative_frames, matrix, bits, samples, offsets, overlapping,
]  # fmt: skip


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom finds them odd as well
def test_numbers_are_checked_before_anything_is_made_for_them(tmp_path: Path, native: bool) -> None:
    with besieged(tmp_path / "data", audited=False) as siege:
        for change in CHANGES:
            ds = pydicom.dcmread(io.BytesIO(make_instance(frames=4, native=native)))
            change(ds)
            out = io.BytesIO()
            ds.save_as(out)
            syntax = str(ds.file_meta.TransferSyntaxUID)
            # Stored as it is, with findings, or refused; never an error of ours.
            status = siege.store(body(out.getvalue()), str(ds.SOPInstanceUID), syntax=syntax)
            assert status is not None, change.__name__
            assert status != 0x0110, change.__name__
