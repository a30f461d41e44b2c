# SPDX-License-Identifier: Apache-2.0
"""What a receiver of Implicit VR Little Endian gets holds the same values."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_dataset
from pydicom.filewriter import write_dataset
from pydicom.sequence import Sequence

from archive.part10.errors import Part10Error
from gateway.dimse.implicit import implicit_chunks


def explicit(dataset: Dataset) -> bytes:
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    write_dataset(buffer, dataset)
    return bytes(buffer.getvalue())


def sample(undefined: bool, pixels: int = 0) -> Dataset:
    inner = Dataset()
    inner.CodeValue, inner.CodeMeaning = "1", "one"
    middle = Dataset()
    middle.ConceptCodeSequence = Sequence([inner, Dataset(), inner])
    middle.TextValue = "x" * 33
    dataset = Dataset()
    dataset.PatientName = "Doe^Jane"
    dataset.Rows = 7
    dataset.ContentSequence = Sequence([middle, middle])
    dataset.ReferencedSeriesSequence = Sequence([])
    dataset.add_new(0x00091010, "UN", b"abcd")
    dataset.add_new(0x00090010, "LO", "US")
    if pixels:
        dataset.add_new(0x7FE00010, "OW", bytes(range(256)) * (pixels // 256))
    for item in (middle, dataset):
        for element in item:
            if element.VR == "SQ":
                element.is_undefined_length = undefined
    return dataset


def pieces(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


@given(st.booleans(), st.integers(1, 400), st.sampled_from([0, 256, 300_032]))
def test_the_values_are_the_same_however_the_bytes_come(undefined: bool, size: int, pixels: int) -> None:
    dataset = sample(undefined, pixels)
    data = explicit(dataset)
    made = b"".join(implicit_chunks(pieces(data, max(size, len(data) // 300))))
    again = read_dataset(io.BytesIO(made), True, True, bytelength=len(made))
    if pixels:  # whose VR pydicom leaves open
        assert again.PixelData == dataset.PixelData
        del again.PixelData, dataset.PixelData
    assert again == dataset


@given(st.integers(1, 200))
def test_a_data_set_that_is_cut_off_is_refused(cut: int) -> None:
    data = explicit(sample(True))
    whole = b"".join(implicit_chunks([data]))
    try:
        made = b"".join(implicit_chunks([data[:-cut]]))
    except Part10Error:
        return
    assert whole.startswith(made), "cut between two elements"


@given(st.binary(max_size=300))
def test_no_bytes_raise_anything_but_a_refusal(data: bytes) -> None:
    try:
        list(implicit_chunks([data]))
    except Part10Error:
        return


def test_a_sequence_of_unknown_vr_is_refused() -> None:
    with pytest.raises(Part10Error, match="undefined length"):
        list(implicit_chunks([b"\x09\x00\x10\x10UN\0\0\xff\xff\xff\xff" + b"\xfe\xff\xdd\xe0\0\0\0\0"]))
