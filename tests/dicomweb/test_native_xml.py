# SPDX-License-Identifier: Apache-2.0
"""DICOM JSON in XML's clothes: the same tree, however it is walked."""

import gzip
import json
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from archive import packed_json
from archive.access import EVERYTHING, Principal
from archive.part10.json_model import to_json
from dicomweb.native_xml import native_dicom_model, native_dicom_model_of
from tests.dicomweb import samples
from tests.dicomweb.conftest import ANNOTATIONS, WEB, parts_of

NAMESPACE = "{http://dicom.nema.org/PS3.19/models/NativeDICOM}"


def tree_of(data_set: Dataset) -> ElementTree.Element:
    return ElementTree.fromstring(b"".join(native_dicom_model_of(to_json(data_set))))


def attribute(root: ElementTree.Element, tag: str) -> ElementTree.Element:
    (found,) = [element for element in root.iter(f"{NAMESPACE}DicomAttribute") if element.get("tag") == tag]
    return found


texts = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"], exclude_characters="\\"), max_size=20)


@given(st.lists(st.tuples(texts, st.lists(st.integers(0, 65535), max_size=3)), max_size=4))
def test_the_walk_of_the_text_gives_what_the_tree_gives(items):
    made = samples.header(1)
    groups = []
    for text, numbers in items:
        group, inner = Dataset(), Dataset()
        inner.LongCodeValue = text or "x"
        group.DimensionIndexValues, group.AcquisitionContextSequence = numbers, [inner, Dataset()]
        groups.append(group)
    made.PerFrameFunctionalGroupsSequence = groups
    encoded = to_json(made)
    whole = native_dicom_model(json.loads(encoded, parse_float=str, parse_int=str))
    assert b"".join(native_dicom_model_of(encoded)) == whole
    ElementTree.fromstring(whole)


def test_private_attributes_name_their_creator():
    made = Dataset()
    block = made.private_block(0x0009, "MAKER & CO", create=True)
    block.add_new(0x02, "LO", "value")
    other = made.private_block(0x0011, "OTHER", create=True)
    other.add_new(0x01, "DS", "1.50")
    inner = Dataset()
    inner.private_block(0x0009, "INNER", create=True).add_new(0x02, "LO", "x")
    made.AcquisitionContextSequence = [inner]
    root = tree_of(made)
    creators = [
        (element.get("tag"), element.get("privateCreator"))
        for element in root.iter(f"{NAMESPACE}DicomAttribute")
        if element.get("privateCreator")
    ]
    assert creators == [("00091002", "MAKER & CO"), ("00111001", "OTHER"), ("00091002", "INNER")]
    assert attribute(root, "00110010").get("privateCreator") is None


def test_numbers_keep_the_digits_they_were_written_with():
    made = Dataset()
    made.SliceThickness, made.InstanceNumber = "0.000250", "7"
    made.ImagedVolumeWidth = 1.1
    root = tree_of(made)
    values = [attribute(root, tag).findtext(f"{NAMESPACE}Value") for tag in ("00180050", "00200013")]
    assert values == ["0.000250", "7"]


@pytest.mark.parametrize("encoding", ["identity", "gzip"])
def test_values_that_are_bulk_are_absolute_urls(reader, encoding):
    accept = 'multipart/related; type="application/dicom+xml"'
    headers = {"Accept": accept, "Accept-Encoding": encoding}
    response = reader.get(f"{ANNOTATIONS}/metadata", headers=headers)
    if encoding == "gzip":
        assert response.headers["Content-Encoding"] == "gzip"
        assert f"http://localhost{ANNOTATIONS}/bulkdata/".encode() in gzip.decompress(response.get_data())
        return
    (part,) = parts_of(response)
    (bulk,) = ElementTree.fromstring(part.data).iter(f"{NAMESPACE}BulkData")
    assert bulk.get("uri") == f"http://localhost{ANNOTATIONS}/bulkdata/006A0002/0/00660022"


def test_data_sets_of_many_frames_are_written_piece_by_piece():
    made = samples.header(1)
    group = Dataset()
    group.DimensionIndexValues = [1, 2]
    made.PerFrameFunctionalGroupsSequence = [group] * 5000
    pieces = list(native_dicom_model_of(to_json(made)))
    assert len(pieces) > 5
    assert max(map(len, pieces)) < 80_000
    assert len(ElementTree.fromstring(b"".join(pieces)).findall(f".//{NAMESPACE}Item")) > 5000


def test_metadata_leave_as_they_are_kept(reader, shared_archive):
    """Nothing is compressed again: the kept pieces stand in the answer."""
    who = {"principal": Principal("tester", "cli"), "scope": EVERYTHING}
    for instance in shared_archive.instances(samples.STUDY, **who):
        kept = shared_archive.metadata_pieces(instance, **who)
        url = f"{WEB}/studies/{instance.study_instance_uid}/series/{instance.series_instance_uid}"
        response = reader.get(
            f"{url}/instances/{instance.sop_instance_uid}/metadata",
            headers={"Accept": "application/dicom+json", "Accept-Encoding": "gzip"},
        )
        assert response.content_length == len(response.get_data())
        assert all(piece.data in response.get_data() for piece in kept)
        whole = packed_json.pack(shared_archive.metadata(instance, **who))
        assert [piece.data for piece in packed_json.pieces(whole)] == [piece.data for piece in kept]
