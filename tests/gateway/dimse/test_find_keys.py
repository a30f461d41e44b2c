# SPDX-License-Identifier: Apache-2.0
"""Identifiers of queries and retrievals as values, and results as identifiers."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.config import IGNORE
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset

from archive.index.attributes import EXTRACTED
from archive.index.columns import Level
from archive.index.query import Kind
from archive.part10.budget import DEFAULT_BUDGET
from archive.part10.dataset import as_dataset
from archive.part10.walker import normalise
from gateway.dimse.identifiers import encode_data_set
from gateway.dimse.query_keys import (
    FIND,
    GET,
    MOVE,
    BadIdentifier,
    QueryLevel,
    agree,
    agree_to_retrieve,
    levels_of,
    parse_find,
    parse_retrieve,
    sop_classes,
)
from gateway.dimse.result_encoding import ResultEncoder

PATIENT_ROOT, STUDY_ROOT = "1.2.840.10008.5.1.4.1.2.1.1", "1.2.840.10008.5.1.4.1.2.2.1"
EXPLICIT, IMPLICIT, BIG_ENDIAN = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2", "1.2.840.10008.1.2.2"
RELATIONAL = b"\1"


def identifier(level: str = "", **keys: object) -> Dataset:
    dataset = Dataset()
    for keyword, value in {**({"QueryRetrieveLevel": level} if level else {}), **keys}.items():
        tag = tag_for_keyword(keyword)
        assert tag is not None
        # Wildcards and ranges are not of the form of their VR.
        dataset.add(DataElement(tag, dictionary_VR(tag), value, validation_mode=IGNORE))
    return dataset


def received(dataset: Dataset) -> Dataset:
    """As it comes over the network, in Explicit VR Little Endian."""
    data = encode_data_set(dataset, EXPLICIT)
    return as_dataset(normalise(data, 0, len(data), implicit=False, budget=DEFAULT_BUDGET))


def item(**keys: object) -> list[Dataset]:
    return [identifier(**keys)]


def test_the_sop_classes_are_those_of_the_standard() -> None:
    stem = "1.2.840.10008.5.1.4.1.2."
    assert sop_classes(FIND) == {f"{stem}1.1", f"{stem}2.1", f"{stem}3.1"}
    assert sop_classes(MOVE) == {f"{stem}1.2", f"{stem}2.2", f"{stem}3.2"}
    assert sop_classes(GET) == {f"{stem}1.3", f"{stem}2.3", f"{stem}3.3"}
    assert levels_of(STUDY_ROOT)[0] is QueryLevel.STUDY


@pytest.mark.parametrize(
    ("sop_class", "level", "keys", "tag"),
    [
        (STUDY_ROOT, "", {}, 0x00080052),
        (STUDY_ROOT, "PATIENT", {}, 0x00080052),
        (STUDY_ROOT, "SLIDE", {}, 0x00080052),
        ("1.2.840.10008.5.1.4.1.2.3.1", "SERIES", {"StudyInstanceUID": "1.2"}, 0x00080052),
        (STUDY_ROOT, "SERIES", {}, 0x0020000D),
        (STUDY_ROOT, "SERIES", {"StudyInstanceUID": ["1.2", "1.3"]}, 0x0020000D),
        (STUDY_ROOT, "IMAGE", {"StudyInstanceUID": "1.2"}, 0x0020000E),
        (PATIENT_ROOT, "STUDY", {"StudyInstanceUID": "1.2"}, 0x00100020),
        (PATIENT_ROOT, "STUDY", {"PatientID": "P*"}, 0x00100020),
        (STUDY_ROOT, "STUDY", {"StudyDate": "2024-13-01"}, 0x00080020),
        (STUDY_ROOT, "STUDY", {"SpecificCharacterSet": "ISO_IR 999"}, 0x00080005),
    ],
)
def test_what_does_not_match_the_model_is_refused_and_named(
    sop_class: str, level: str, keys: dict[str, object], tag: int
) -> None:
    with pytest.raises(BadIdentifier) as refusal:
        parse_find(received(identifier(level, **keys)), sop_class, b"", EXTRACTED)
    assert refusal.value.tags == [tag]


def test_more_items_depth_or_keys_than_a_query_has_are_refused() -> None:
    two = identifier("STUDY", SpecimenDescriptionSequence=[Dataset(), Dataset()])
    with pytest.raises(BadIdentifier, match="more than one item"):
        parse_find(two, STUDY_ROOT, b"", EXTRACTED)
    deep = identifier(CodeValue="1")
    for _ in range(10):
        deep = identifier(ConceptNameCodeSequence=[deep])
    deep.QueryRetrieveLevel = "STUDY"
    with pytest.raises(BadIdentifier, match="deeply"):
        parse_find(deep, STUDY_ROOT, b"", EXTRACTED)
    many = identifier("STUDY")
    for number in range(600):
        many.add_new((0x0009, 0x1000 + number), "LO", "")
    with pytest.raises(BadIdentifier, match="keys"):
        parse_find(many, STUDY_ROOT, b"", EXTRACTED)


def test_keys_are_matched_and_returned_by_their_paths() -> None:
    asked = parse_find(
        identifier(
            "IMAGE",
            StudyInstanceUID="1.2",
            SeriesInstanceUID="1.3",
            PatientName="Doe*",
            Modality="",
            SpecimenDescriptionSequence=item(SpecimenIdentifier="S1", SpecimenUID=""),
            ConceptNameCodeSequence=[],
            InstanceAvailability="",
            SpecificCharacterSet="ISO_IR 100",
        ),
        STUDY_ROOT,
        b"",
        EXTRACTED,
    )
    assert asked.level is QueryLevel.IMAGE
    assert asked.query.level is Level.INSTANCE
    assert {match.path: match.kind for match in asked.query.matches} == {
        "0020000D": Kind.VALUES,
        "0020000E": Kind.VALUES,
        "00100010": Kind.NAMES,
        "00400560.00400551": Kind.VALUES,
    }
    assert set(asked.returned) == {
        "0020000D", "0020000E", "00100010", "00080060", "00400560.00400551", "00400560.00400554", "0040A043",
    }  # fmt: skip
    assert asked.character_set == ("ISO_IR 100",)
    assert asked.wants_availability
    assert not asked.incomplete


@pytest.mark.parametrize(
    ("keys", "incomplete"),
    [
        ({"PatientName": "A"}, False),
        ({"Modality": "SM"}, True),  # matched, but of the series below
        ({"ImageComments": "x"}, True),  # cannot be matched
        ({"RetrieveURL": ""}, True),
        ({"TimezoneOffsetFromUTC": "+0100"}, False),
    ],
)
def test_keys_that_are_not_supported_are_told_and_do_not_refuse(
    keys: dict[str, object], incomplete: bool
) -> None:
    assert parse_find(identifier("STUDY", **keys), STUDY_ROOT, b"", EXTRACTED).incomplete is incomplete


def test_only_what_was_negotiated_is_done() -> None:
    keys = identifier("SERIES", PatientName="Meier", StudyDate="20240101-", StudyTime="10-")
    with pytest.raises(BadIdentifier):
        parse_find(keys, STUDY_ROOT, b"", EXTRACTED)
    plain = parse_find(keys, STUDY_ROOT, b"\1", EXTRACTED)
    assert not plain.query.combined
    assert {match.kind for match in plain.query.matches} == {Kind.NAMES, Kind.RANGE}
    rich = parse_find(keys, STUDY_ROOT, b"\1\1\1", EXTRACTED)
    assert rich.query.combined
    assert Kind.SOUNDS in {match.kind for match in rich.query.matches}
    empty = identifier("STUDY", AccessionNumber='""')
    assert parse_find(empty, STUDY_ROOT, b"", EXTRACTED).query.matches[0].kind is Kind.VALUES
    assert parse_find(empty, STUDY_ROOT, b"\0\0\0\0\0\1", EXTRACTED).query.matches[0].kind is Kind.EMPTY


def test_extended_negotiation_grants_what_there_is_and_no_more_bytes_than_asked() -> None:
    assert agree(b"\1") == b"\1"
    assert agree(b"\1\1\1\1\1\1\1\1\1") == b"\1\1\1\0\0\1\1"
    assert agree(b"\0\1\2") == b"\0\1\0"
    assert agree_to_retrieve(b"\1\1\1\1\1") == b"\1\0\0\0\0"


def test_text_is_read_in_the_character_set_of_the_request() -> None:
    for name, term in (("Müller", "ISO_IR 100"), ("王^小东", "GB18030"), ("山田", "ISO_IR 192")):
        keys = received(identifier("STUDY", SpecificCharacterSet=term, StudyDescription=name))
        (match,) = parse_find(keys, STUDY_ROOT, b"", EXTRACTED).query.matches
        assert match.values == (name,)


def test_a_retrieval_names_its_instances_by_unique_keys() -> None:
    move = STUDY_ROOT[:-1] + "2"
    level, query = parse_retrieve(
        identifier("SERIES", StudyInstanceUID="1.2", SeriesInstanceUID=["1.3", "1.4"], Modality="SM"),
        move,
        b"",
    )
    assert level is QueryLevel.SERIES
    assert query.level is Level.INSTANCE
    assert {match.path: match.values for match in query.matches} == {
        "0020000D": ("1.2",),
        "0020000E": ("1.3", "1.4"),
    }
    only = identifier("IMAGE", SOPInstanceUID="1.5")
    with pytest.raises(BadIdentifier):
        parse_retrieve(only, move, b"")
    assert [match.path for match in parse_retrieve(only, move, RELATIONAL)[1].matches] == ["00080018"]


@pytest.mark.parametrize(
    ("level", "keys"),
    [
        ("STUDY", {}),
        ("STUDY", {"StudyInstanceUID": ""}),
        ("PATIENT", {"PatientID": "*"}),
        ("PATIENT", {"PatientID": "P*"}),
        ("STUDY", {"PatientID": "P1", "StudyInstanceUID": "1.2.*"}),
    ],
)
@pytest.mark.parametrize("agreed", [b"", RELATIONAL])
def test_a_retrieval_of_everything_is_refused(level: str, keys: dict[str, object], agreed: bytes) -> None:
    with pytest.raises(BadIdentifier):
        parse_retrieve(identifier(level, **keys), PATIENT_ROOT[:-1] + "2", agreed)


# ---- results ------------------------------------------------------------------------


def decoded(data: bytes, syntax: str) -> Dataset:
    return read_dataset(io.BytesIO(data), syntax == IMPLICIT, syntax != BIG_ENDIAN, bytelength=len(data))


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT, BIG_ENDIAN])
def test_results_decode_to_what_they_were(syntax: str) -> None:
    original = identifier(
        "IMAGE",
        PatientName="Doe^Jane",
        SOPInstanceUID="1.2.3",
        InstanceNumber=7,
        Rows=512,
        NumberOfFrames=3,
        PixelSpacing=[0.25, 0.00025],
        TotalPixelMatrixColumns=70000,
        RecommendedDisplayFrameRateInFloat=2.5,
        FrameIncrementPointer=[0x00181063, 0x00181065],
        SpecimenDescriptionSequence=item(SpecimenIdentifier="S1", SpecimenUID="1.2.840"),
        AccessionNumber="",
        BarcodeValue="x" * 5,
    )
    assert decoded(ResultEncoder(syntax).encode(original.to_json_dict()), syntax) == original


@pytest.mark.parametrize(
    ("asked", "name", "answered"),
    [
        ((), "Doe^Jane", ""),
        ((), "Müller^Jörg", "ISO_IR 192"),
        (("ISO_IR 100",), "Doe^Jane", ""),
        (("ISO_IR 100",), "Müller^Jörg", "ISO_IR 100"),
        (("ISO_IR 100",), "Люкceмбypг", "ISO_IR 192"),
        (("ISO_IR 144",), "Люкceмбypг", "ISO_IR 144"),
        (("", "ISO 2022 IR 87"), "Yamada^Tarou=山田^太郎=やまだ^たろう", ["", "ISO 2022 IR 87"]),
        (("ISO_IR 192",), "Wang^XiaoDong=王^小东", "ISO_IR 192"),
        (("GB18030",), "Wang^XiaoDong=王^小东", "GB18030"),
    ],
)
def test_text_is_answered_as_asked_where_it_can_be_and_in_utf_8_else(
    asked: tuple[str, ...], name: str, answered: object
) -> None:
    elements = identifier(PatientName=name, StudyDescription=name.replace("=", " ")).to_json_dict()
    data = decoded(ResultEncoder(EXPLICIT, asked).encode(elements), EXPLICIT)
    data.decode()
    assert str(data.PatientName) == name
    assert data.StudyDescription == name.replace("=", " ")
    assert data.get("SpecificCharacterSet", "") == answered


def test_more_failed_instances_than_a_uid_list_holds_are_told_all_the_same() -> None:
    uids = [f"1.2.826.0.1.3680043.8.498.{10**34 + number}" for number in range(2000)]
    elements = {"00080058": {"vr": "UI", "Value": uids}}
    data = decoded(ResultEncoder(IMPLICIT).encode(elements), IMPLICIT)
    assert list(data.FailedSOPInstanceUIDList) == uids
    raw = ResultEncoder(EXPLICIT).encode(elements)
    assert raw[4:6] == b"UN"  # longer than two bytes can say
    assert raw[12:].rstrip(b"\0").decode() == "\\".join(uids)


@given(st.text(st.characters(exclude_categories=["Cc", "Cs"], exclude_characters="\\=^"), max_size=40))
def test_any_text_comes_back(text: str) -> None:
    text = text.strip()
    elements = {"00081030": {"vr": "LO", "Value": [text]}} if text else {"00081030": {"vr": "LO"}}
    data = decoded(ResultEncoder(EXPLICIT).encode(elements), EXPLICIT)
    assert (data.StudyDescription or "") == text
