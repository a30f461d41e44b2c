# SPDX-License-Identifier: Apache-2.0
"""From data sets, well-formed and not, to columns and rows."""

import warnings
from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.dataset import Dataset

from archive.index.attributes import (
    EXTRACTED,
    AttributeRow,
    extract,
    instance_columns,
    series_columns,
    study_columns,
)
from archive.index.database import Index
from archive.index.text import MAX_TEXT, date_key, datetime_digits, fold, fold_name, time_key
from tests.archive.index.fill import fill, instance_of
from tests.support.require import require_data


def test_a_slides_identifiers_are_extracted_from_every_item() -> None:
    rows = extract(
        instance_of(
            {
                "ContainerIdentifier": " S-1 ",
                "ImageType": ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"],
                "SpecimenDescriptionSequence": [
                    {"SpecimenIdentifier": "A", "SpecimenUID": "1.2.3"},
                    {"SpecimenIdentifier": "B"},
                    {"SpecimenIdentifier": "B"},
                ],
                "OpticalPathSequence": [{"ObjectiveLensPower": "20"}],
                "AcquisitionDateTime": "20200101120000.5+0100",
            }
        )
    )

    assert AttributeRow("00400512", folded="S-1") in rows
    assert [row.folded for row in rows if row.path == "00080008"] == ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    assert [row.folded for row in rows if row.path == "00400560.00400551"] == ["A", "B"]
    assert AttributeRow("00400560.00400554", folded="1.2.3") in rows
    assert AttributeRow("00480105.00480112", num=20.0) in rows
    assert AttributeRow("0008002A", num=1577876400.5, date="20200101120000.500000") in rows


def test_a_real_slide_gives_its_columns() -> None:
    path = require_data("slides/dicom-wsi")
    files = sorted(file for file in path.rglob("*") if file.suffix == ".dcm")
    assert files
    for file in files:
        dataset = dcmread(file, stop_before_pixels=True)
        study, series = study_columns(dataset), series_columns(dataset)
        instance = instance_columns(dataset, has_pixel_data="Rows" in dataset)
        assert study["study_instance_uid"] == dataset.get("StudyInstanceUID", "")
        assert series["modality"] == dataset.get("Modality", "")
        assert instance["rows"] == dataset.get("Rows", 0)
        assert instance["number_of_frames"] == int(
            dataset.get("NumberOfFrames", 1 if "Rows" in dataset else 0)
        )
        assert instance["total_pixel_matrix_columns"] == dataset.get("TotalPixelMatrixColumns", 0)
        assert {row.path for row in extract(dataset)} <= EXTRACTED.keys()


def raw(*elements: tuple[int, int, bytes, bytes]) -> Dataset:
    """A data set as it comes off the wire: (group, element, VR, value) as they are."""
    encoded = b""
    for group, element, vr, value in elements:
        value += b" " * (len(value) % 2)
        encoded += group.to_bytes(2, "little") + element.to_bytes(2, "little") + vr
        encoded += len(value).to_bytes(2, "little") + value
    return dcmread(BytesIO(encoded), force=True)


MALFORMED = [
    (0x0008, 0x0008, b"CS", b"a\\\\\0\xff"), (0x0008, 0x0018, b"UI", b"not.a.uid"),
    (0x0008, 0x0020, b"DA", b"1.1.2020"), (0x0008, 0x002A, b"DT", b"soon"), (0x0008, 0x0030, b"TM", b"noon"),
    (0x0008, 0x0050, b"SH", b"\0" * 6), (0x0010, 0x0010, b"PN", b"===^^^^^^^^\\B"),
    (0x0010, 0x0020, b"LO", b"x" * 5000), (0x0020, 0x0011, b"IS", b"1e99"), (0x0020, 0x0013, b"IS", b"first"),
    (0x0028, 0x0008, b"IS", b"-4"), (0x0040, 0x0512, b"LO", b"\xe4\0\xf6"),
]  # fmt: skip


def test_malformed_values_give_empty_columns_that_both_databases_take(index: Index) -> None:
    dataset = raw(*MALFORMED)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.SOPClassUID = "1", "2", "3"
        study, series = study_columns(dataset), series_columns(dataset)
        instance = instance_columns(dataset, has_pixel_data=True)
        fill(index, [dataset])

    assert (study["study_date"], study["study_time"], study["study_time_key"]) == ("", "", "")
    assert study["patient_id"] == "x" * MAX_TEXT
    assert study["accession_number"] == ""
    assert series["series_number"] is None
    assert (instance["instance_number"], instance["number_of_frames"]) == (None, 1)
    with index.read() as database:
        assert database.execute_sql("SELECT count(*) FROM instance").fetchone()[0] == 1


@given(st.binary(max_size=60), st.sampled_from(MALFORMED))
def test_no_value_whatever_raises(value: bytes, element: tuple[int, int, bytes, bytes]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = raw((*element[:3], value))
        study_columns(dataset)
        series_columns(dataset)
        instance_columns(dataset, has_pixel_data=False)
        for row in extract(dataset):
            assert "\0" not in (row.folded or "")


@given(st.text(max_size=30))
def test_folding_twice_is_folding_once(text: str) -> None:
    assert fold(fold(text)) == fold(text)


@pytest.mark.parametrize(
    ("one", "other"),
    [("MÜLLER", "muller"), ("Straße", "STRASSE"), ("Ｄｏｅ", "doe"), ("Ångström", "angstrom"), ("İ", "i"),
     ("a  b", "a b"), ("ﬁ", "fi")],
)  # fmt: skip
def test_names_that_differ_in_case_width_or_diacritics_only_fold_alike(one: str, other: str) -> None:
    assert fold(one) == fold(other)


def test_marks_that_make_another_letter_stay() -> None:
    assert fold("が") != fold("か")


def test_a_names_groups_are_kept_apart_without_empty_components() -> None:
    assert fold_name("Yamada^Tarou^^^=山田^太郎=やまだ^たろう") == (
        "yamada^tarou",
        "山田^太郎",
        "やまだ^たろう",
    )
    assert fold_name("=山田") == ("", "山田", "")
    assert fold_name("") == ("", "", "")
    assert fold_name("a=b=c=d") == ("a", "b", "c")


@pytest.mark.parametrize(
    ("text", "key"),
    [("10", "100000.000000"), ("1030", "103000.000000"), ("10:30:15", "103015.000000"),
     ("103015.5", "103015.500000"), ("235960", "235960.000000"), ("24", ""), ("1", ""), ("10:3", "")],
)  # fmt: skip
def test_times_sort_as_text(text: str, key: str) -> None:
    assert time_key(text) == key


@pytest.mark.parametrize(
    ("text", "key"), [("20200131", "20200131"), ("2020.01.31", "20200131"), ("20201301", ""), ("2020", "")]
)
def test_dates_are_eight_digits_or_nothing(text: str, key: str) -> None:
    assert date_key(text) == key


def test_an_offset_beyond_the_worlds_zones_is_no_offset() -> None:
    assert datetime_digits("2020-0500") == ("2020", "-0500")
    assert datetime_digits("2020-2021") == ("", "")
    assert datetime_digits("20200101+1500") == ("", "")
