# SPDX-License-Identifier: Apache-2.0
"""Patients of the studies that a query finds, on both databases."""

import random

import pytest

from archive.access import EVERYTHING, NOTHING, Scope
from archive.index import search
from archive.index.database import Index
from archive.index.query import Level, Query, parse_match
from tests.archive.index.fill import fill, instance_of


def study(number: int, patient: str, issuer: str = "", *, name: str = "A^B", modality: str = "SM") -> object:
    return instance_of(
        {
            "StudyInstanceUID": f"1.2.{number}",
            "SeriesInstanceUID": f"1.2.{number}.1",
            "SOPInstanceUID": f"1.2.{number}.1.1",
            "SOPClassUID": "1.2.840.10008.5.1.4.1.1.77.1.6",
            "StudyDate": f"2024{1 + number // 28 % 12:02}{1 + number % 28:02}",
            "PatientID": patient,
            "IssuerOfPatientID": issuer,
            "PatientName": name,
            "Modality": modality,
        }
    )


def found(index: Index, *keys: tuple[str, str, str], scope: Scope = EVERYTHING) -> list[tuple[str, str, str]]:
    query = Query(Level.STUDY, tuple(parse_match(*key) for key in keys))
    return [
        (row["study.patient_id"], row["study.issuer_of_patient_id"], row["study.study_instance_uid"])
        for row in index.patients(query, scope)
    ]


@pytest.mark.parametrize("page", [1, 2, 3, 1000])
def test_a_patient_is_an_identifier_and_its_issuer_and_told_once(
    index: Index, monkeypatch: pytest.MonkeyPatch, page: int
) -> None:
    monkeypatch.setattr(search, "PAGE", page)
    numbers = list(range(1, 41))
    random.Random(3).shuffle(numbers)
    fill(index, [study(n, f"P{n % 5}", f"I{n % 2}") for n in numbers])
    newest = {}
    for n in range(1, 41):
        newest[(f"P{n % 5}", f"I{n % 2}")] = f"1.2.{n}"  # a later date for each n
    assert found(index) == [(*patient, uid) for patient, uid in sorted(newest.items())]


def test_keys_of_any_level_choose_the_studies(index: Index) -> None:
    fill(
        index,
        [
            study(1, "P1", name="Old^Name"),
            study(2, "P1", name="New^Name"),
            study(3, "P2", modality="ANN"),
            study(4, "P3", name="Other"),
        ],
    )
    assert found(index, ("00100020", "LO", "P1")) == [("P1", "", "1.2.2")]
    assert found(index, ("00100010", "PN", "old*")) == [("P1", "", "1.2.1")]
    assert found(index, ("00080060", "CS", "ANN")) == [("P2", "", "1.2.3")]
    assert found(index, ("0020000D", "UI", "1.2.4,1.2.3")) == [("P2", "", "1.2.3"), ("P3", "", "1.2.4")]


def test_no_patient_is_made_of_studies_without_an_identifier(index: Index) -> None:
    fill(index, [study(1, ""), study(2, "P2")])
    assert found(index) == [("P2", "", "1.2.2")]


def test_a_scope_hides_patients_with_their_studies(index: Index) -> None:
    fill(index, [study(1, "P1"), study(2, "P1"), study(3, "P2")])
    limited = Scope("study.study_instance_uid = ?", ("1.2.1",))
    for keys in ([], [("00100010", "PN", "a*")]):
        assert found(index, *keys, scope=limited) == [("P1", "", "1.2.1")]
        assert found(index, *keys, scope=NOTHING) == []
