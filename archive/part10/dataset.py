# SPDX-License-Identifier: Apache-2.0
"""pydicom data sets over bytes in normal form."""

from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag

from archive.part10.budget import DEFAULT_BUDGET, ParseBudget
from archive.part10.meta import read_meta
from archive.part10.walker import Normalised, normalise


def as_dataset(normal: Normalised) -> Dataset:
    """A pydicom data set over normal form; elements are decoded when first read."""
    data = normal.data
    raw: dict[BaseTag, DataElement | RawDataElement] = {
        BaseTag(tag): RawDataElement(
            BaseTag(tag), vr.decode("ascii"), 0xFFFFFFFF if vr == b"SQ" else end - value,
            data[value:end], 0, False, True,
        )
        for tag, (vr, _, value, end) in normal.elements.items()
    }  # fmt: skip
    dataset = Dataset(raw)
    dataset.set_original_encoding(False, True, None)
    return dataset


def read_header(header: bytes, *, budget: ParseBudget = DEFAULT_BUDGET) -> Dataset:
    """The data set of header bytes as ``scan_file`` and ``encode_header`` make them;
    values above 64 KiB are left out. Raises a ``Part10Error``."""
    start = read_meta(header).data_set_offset
    return as_dataset(normalise(header, start, len(header), implicit=False, budget=budget))
