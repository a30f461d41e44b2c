# SPDX-License-Identifier: Apache-2.0
"""Native DICOM Model: what we write we read, and nothing else gets far."""

import io
import json

import pytest
from hypothesis import given

from archive.errors import Unreadable
from archive.part10.json_model import to_json
from archive.part10.scan import scan_file
from dicomweb.native_xml import native_dicom_model
from dicomweb.native_xml_reader import read_native_xml
from tests.archive.part10 import build
from tests.archive.part10.trees import trees


def as_texts(value):
    """XML has no numbers and no empty values but by their number."""
    if isinstance(value, dict):
        return {key: as_texts(inside) for key, inside in value.items()}
    if isinstance(value, list):
        values = [as_texts(inside) for inside in value]
        while values and values[-1] is None:
            values.pop()
        return values
    return value if value is None else str(value)


@given(trees())
def test_what_is_written_is_read_again(tree):
    scanned = scan_file(io.BytesIO(build.meta() + tree))
    model = json.loads(to_json(scanned.dataset, scanned.bulk), parse_float=str)
    (found,) = read_native_xml([native_dicom_model(model)])
    assert as_texts(found) == as_texts(model)


def document(inside: str) -> list[bytes]:
    return [f'<NativeDicomModel xml:space="preserve">{inside}</NativeDicomModel>'.encode()]


def test_a_private_attribute_without_block_gets_one_and_its_creator():
    (found,) = read_native_xml(
        document(
            '<DicomAttribute tag="00090010" vr="LO"><Value number="1">OTHER</Value></DicomAttribute>'
            '<DicomAttribute tag="00090001" vr="LO" privateCreator="ACME"><Value number="1">a</Value>'
            "</DicomAttribute>"
            '<DicomAttribute tag="00090002" vr="LO" privateCreator="ACME"><Value number="1">b</Value>'
            "</DicomAttribute>"
        )
    )
    assert found["00090011"]["Value"] == ["ACME"]
    assert found["00091101"]["Value"] == ["a"]
    assert found["00091102"]["Value"] == ["b"]


def test_values_that_are_left_out_are_empty():
    (found,) = read_native_xml(
        document('<DicomAttribute tag="00080060" vr="CS"><Value number="3">SM</Value></DicomAttribute>')
    )
    assert found["00080060"]["Value"] == [None, None, "SM"]


def test_a_cut_anywhere_in_the_stream_changes_nothing():
    data = document('<DicomAttribute tag="00100010" vr="PN"><PersonName number="1"><Alphabetic>'
                    "<FamilyName>Mü&amp;ller</FamilyName><GivenName>J</GivenName></Alphabetic>"
                    "</PersonName></DicomAttribute>")[0]  # fmt: skip
    for cut in range(1, len(data)):
        (found,) = read_native_xml([data[:cut], data[cut:]])
        assert found["00100010"]["Value"] == [{"Alphabetic": "Mü&ller^J"}]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no XML",
        b"<a/>",
        b"<NativeDicomModel>",
        b'<!DOCTYPE a [<!ENTITY x "y">]><NativeDicomModel>&x;</NativeDicomModel>',
        b'<!DOCTYPE a SYSTEM "file:///etc/passwd"><NativeDicomModel/>',
        b'<?xml version="1.0" encoding="no-such"?><NativeDicomModel/>',
        b"<NativeDicomModel><Value>x</Value></NativeDicomModel>",
        b"<NativeDicomModel><Item/></NativeDicomModel>",
        b'<NativeDicomModel><DicomAttribute tag="1" vr="OB"><BulkData/></DicomAttribute></NativeDicomModel>',
        b"<NativeDicomModel><NativeDicomModel/></NativeDicomModel>",
        *document('<DicomAttribute tag="1"/><DicomAttribute tag="1"/>'),
        *document('<DicomAttribute tag="1"><Value number="999999999">x</Value></DicomAttribute>'),
        *document('<DicomAttribute tag="1"><Value number="65536">x</Value></DicomAttribute>'),
        *document('<DicomAttribute tag="1"><Value number="-1">x</Value></DicomAttribute>'),
        *document('<DicomAttribute tag="1"><Value number="1"/><Value number="1"/></DicomAttribute>'),
        *document('<DicomAttribute tag="1" vr="SQ"><Item number="1">' * 300),
    ],
)
def test_what_is_no_native_model_is_refused(data):
    with pytest.raises(Unreadable):
        read_native_xml([data])
