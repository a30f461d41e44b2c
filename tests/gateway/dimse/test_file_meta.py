# SPDX-License-Identifier: Apache-2.0
"""Group 2 of what came over the network, as another library reads it."""

import io

import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dimse.file_meta import file_meta
from gateway.dimse.negotiation import TRANSFER_SYNTAXES

# Syntaxes that pydicom does not know are taken as Explicit VR Little Endian.
UIDS = st.lists(st.integers(1, 10**9), min_size=2, max_size=6).map(lambda parts: ".".join(map(str, parts)))


@given(UIDS, UIDS, UIDS)
def test_pydicom_reads_what_was_written(sop_class: str, sop_instance: str, syntax: str) -> None:
    data = file_meta(sop_class, sop_instance, syntax) + b"\x08\x00\x05\x00CS\x00\x00"
    meta = pydicom.dcmread(io.BytesIO(data), specific_tags=[]).file_meta
    assert str(meta.MediaStorageSOPClassUID) == sop_class
    assert str(meta.MediaStorageSOPInstanceUID) == sop_instance
    assert str(meta.TransferSyntaxUID) == syntax


@pytest.mark.parametrize("syntax", sorted(TRANSFER_SYNTAXES))
def test_the_negotiated_syntax_is_named_as_it_is(syntax: str) -> None:
    assert syntax.encode() in file_meta("1.2", "1.3", syntax)
