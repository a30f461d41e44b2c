# SPDX-License-Identifier: Apache-2.0
"""C-FIND over an association: responses, statuses, cancel, scopes."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.pdu_primitives import SOPClassExtendedNegotiation
from pynetdicom.sop_class import (
    PatientRootQueryRetrieveInformationModelFind as PatientFind,  # type: ignore[attr-defined]
)
from pynetdicom.sop_class import (
    PatientStudyOnlyQueryRetrieveInformationModelFind as RetiredFind,  # type: ignore[attr-defined]
)
from pynetdicom.sop_class import (
    StudyRootQueryRetrieveInformationModelFind as StudyFind,  # type: ignore[attr-defined]
)

from archive.access import OpenPolicy, Principal, Scope
from archive.errors import Busy, StorageFailed
from archive.index import search
from archive.service import Archive
from gateway.dimse.association import PeerAssociation
from tests.gateway.dimse.running import AE_TITLE, Scp, running
from tests.support.archives import open_archive, store_bytes
from tests.support.instances import make_instance


class OneStudy(OpenPolicy):
    """GUEST sees the study 1.2.1 only."""

    def scope(self, principal: Principal) -> Scope:
        if principal.actor == "GUEST":
            return Scope("study.study_instance_uid = ?", ("1.2.1",))
        return super().scope(principal)


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    opened = open_archive(tmp_path / "data", policy=OneStudy())
    for study, patient, name in (("1.2.1", "P1", "Müller^Jörg"), ("1.2.2", "P2", "Meyer^Anna")):
        for number in (1, 2):
            store_bytes(
                opened,
                make_instance(
                    study=study, series=f"{study}.5", sop=f"{study}.5.{number}", patient_id=patient,
                    patient_name=name, number=number,
                ),
            )  # fmt: skip
    yield opened
    opened.close()


@pytest.fixture
def scp(archive: Archive) -> Iterator[Scp]:
    with running(archive) as listener:
        yield listener


def associate(
    scp: Scp, sop_class: str = StudyFind, *, title: str = "FINDER", asked: bytes = b"", handlers: Any = ()
) -> Association:
    entity = AE(title)
    entity.add_requested_context(sop_class)
    items = []
    if asked:
        item = SOPClassExtendedNegotiation()
        item.sop_class_uid, item.service_class_application_information = sop_class, asked
        items.append(item)
    association = entity.associate(
        "127.0.0.1", scp.port, ae_title=AE_TITLE, ext_neg=items, evt_handlers=list(handlers)
    )
    assert association.is_established
    return association


def keys(level: str, **values: object) -> Dataset:
    dataset = Dataset()
    if level:
        dataset.QueryRetrieveLevel = level
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    return dataset


def find(
    scp: Scp, identifier: Dataset, sop_class: str = StudyFind, **options: Any
) -> tuple[list[Dataset], list[Dataset]]:
    """(results, statuses) of one query."""
    association = associate(scp, sop_class, **options)
    answers = list(association.send_c_find(identifier, sop_class))
    association.release()
    return [result for _, result in answers if result is not None], [status for status, _ in answers]


def test_a_result_has_what_was_asked_for_and_how_to_retrieve_it(scp: Scp) -> None:
    (result,), statuses = find(
        scp, keys("STUDY", PatientName="muller*", StudyInstanceUID="", AccessionNumber="", PatientID="")
    )
    result.decode()
    assert [status.Status for status in statuses] == [0xFF00, 0x0000]
    assert {element.keyword for element in result} == {
        "SpecificCharacterSet", "QueryRetrieveLevel", "RetrieveAETitle", "PatientName", "StudyInstanceUID",
        "AccessionNumber", "PatientID",
    }  # fmt: skip
    assert (str(result.PatientName), result.StudyInstanceUID) == ("Müller^Jörg", "1.2.1")
    assert result.RetrieveAETitle == AE_TITLE


@pytest.mark.parametrize(
    ("sop_class", "level", "given", "number"),
    [
        (PatientFind, "PATIENT", {}, 2),
        (PatientFind, "STUDY", {"PatientID": "P1"}, 1),
        (PatientFind, "SERIES", {"PatientID": "P1", "StudyInstanceUID": "1.2.1"}, 1),
        (
            PatientFind,
            "IMAGE",
            {"PatientID": "P1", "StudyInstanceUID": "1.2.1", "SeriesInstanceUID": "1.2.1.5"},
            2,
        ),
        (PatientFind, "STUDY", {"PatientID": "P2", "StudyInstanceUID": "1.2.1"}, 0),
        (RetiredFind, "PATIENT", {"PatientName": "Meyer*"}, 1),
        (RetiredFind, "STUDY", {"PatientID": "P2"}, 1),
        (StudyFind, "STUDY", {}, 2),
        (StudyFind, "SERIES", {"StudyInstanceUID": "1.2.2"}, 1),
        (StudyFind, "IMAGE", {"StudyInstanceUID": "1.2.2", "SeriesInstanceUID": "1.2.2.5"}, 2),
        (StudyFind, "STUDY", {"StudyInstanceUID": ["1.2.1", "1.2.2", "1.2.3"]}, 2),
    ],
)
def test_every_level_of_every_model(
    scp: Scp, sop_class: str, level: str, given: dict[str, object], number: int
) -> None:
    results, statuses = find(scp, keys(level, **given), sop_class)
    assert len(results) == number
    assert statuses[-1].Status == 0
    assert {result.QueryRetrieveLevel for result in results} <= {level}


def test_a_hierarchical_query_without_the_key_above_says_which_is_missing(scp: Scp) -> None:
    results, (status,) = find(scp, keys("IMAGE", StudyInstanceUID="1.2.1"))
    assert results == []
    assert status.Status == 0xA900
    assert status.OffendingElement == 0x0020000E
    assert "SERIES" in status.ErrorComment


def test_a_relational_query_needs_no_keys_above_once_it_is_agreed_on(scp: Scp) -> None:
    results, statuses = find(scp, keys("IMAGE", SOPInstanceUID="", PatientName="Meyer^Anna"), asked=b"\1")
    assert sorted(result.SOPInstanceUID for result in results) == ["1.2.2.5.1", "1.2.2.5.2"]
    assert statuses[-1].Status == 0


def test_names_are_matched_by_sound_only_where_that_is_agreed_on(scp: Scp) -> None:
    sounding = keys("STUDY", PatientName="Mueler Joerg", StudyInstanceUID="")
    assert find(scp, sounding)[0] == []
    (result,), _ = find(scp, sounding, asked=b"\0\0\1")
    assert result.StudyInstanceUID == "1.2.1"


def test_what_is_agreed_on_is_answered(scp: Scp) -> None:
    association = associate(scp, asked=b"\1\1\1\1\1")
    assert association.acceptor.sop_class_extended == {StudyFind: b"\1\1\1\0\0"}
    association.release()


def test_keys_that_cannot_be_matched_are_told_with_each_result(scp: Scp) -> None:
    results, statuses = find(scp, keys("STUDY", StudyInstanceUID="", ImageComments="x"))
    assert [status.Status for status in statuses] == [0xFF01, 0xFF01, 0x0000]
    assert all("ImageComments" not in result for result in results)


def test_an_identifier_that_is_none_is_refused_and_the_association_goes_on(scp: Scp) -> None:
    association = associate(scp)
    ((status, _),) = association.send_c_find(keys("", StudyInstanceUID=""), StudyFind)
    assert status.Status == 0xA900
    answers = list(association.send_c_find(keys("STUDY", StudyInstanceUID=""), StudyFind))
    assert [status.Status for status, _ in answers] == [0xFF00, 0xFF00, 0x0000]
    association.release()


def test_hidden_studies_are_not_found_nor_counted(scp: Scp) -> None:
    for sop_class, level in ((StudyFind, "STUDY"), (PatientFind, "PATIENT")):
        (result,), _ = find(
            scp, keys(level, PatientID="", NumberOfPatientRelatedStudies=""), sop_class, title="GUEST"
        )
        assert result.PatientID == "P1"
        if level == "PATIENT":
            assert result.NumberOfPatientRelatedStudies == 1
    results, _ = find(scp, keys("STUDY", StudyInstanceUID="1.2.2"), title="GUEST")
    assert results == []


@pytest.mark.parametrize(("error", "status"), [(Busy("busy"), 0xA700), (StorageFailed("gone"), 0xC001)])
def test_what_fails_on_our_side_is_told_so(
    scp: Scp, monkeypatch: pytest.MonkeyPatch, error: Exception, status: int
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(Archive, "find_all", fail)
    _, (answer,) = find(scp, keys("STUDY"))
    assert answer.Status == status
    assert answer.ErrorComment == str(error)


def test_a_cancel_stops_a_query_long_before_its_end(scp: Scp, monkeypatch: pytest.MonkeyPatch) -> None:
    cancelled = threading.Event()
    given = 0

    def endless(self: Archive, query: object, **_: object) -> Iterator[dict[str, object]]:
        nonlocal given
        for number in range(1_000_000):
            given += 1
            if number == 1000:  # some PDUs are out by then
                assert cancelled.wait(10)
            yield {"0020000D": {"vr": "UI", "Value": [f"1.2.{number}"]}}

    monkeypatch.setattr(Archive, "find_all", endless)
    association = associate(scp)
    statuses = []
    for status, _ in association.send_c_find(keys("STUDY"), StudyFind, msg_id=7):
        statuses.append(status.Status)
        if len(statuses) == 1:
            association.send_c_cancel(7, query_model=StudyFind)
            cancelled.set()
    assert statuses[-1] == 0xFE00
    assert given < 1_000_000
    association.release()


def test_a_cancel_counts_that_comes_before_its_query_is_served(
    scp: Scp, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = PeerAssociation._serve

    def late(self: PeerAssociation, primitive: Any, context_id: int) -> None:
        while primitive.MessageID == 7 and not self.dimse.cancel_req and self.is_open:
            time.sleep(0.001)
        original(self, primitive, context_id)

    monkeypatch.setattr(PeerAssociation, "_serve", late)
    association = associate(scp)
    answers = association.send_c_find(keys("STUDY"), StudyFind, msg_id=7)
    association.send_c_cancel(7, query_model=StudyFind)
    assert [status.Status for status, _ in answers] == [0xFE00]
    # The next request of that number is another one.
    monkeypatch.undo()
    again = association.send_c_find(keys("STUDY"), StudyFind, msg_id=7)
    assert [status.Status for status, _ in again] == [0xFF00, 0xFF00, 0]
    association.release()


def test_a_peer_that_hangs_up_ends_its_query(scp: Scp, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = threading.Event()

    def endless(self: Archive, query: object, **_: object) -> Iterator[dict[str, object]]:
        try:
            number = 0
            while True:
                number += 1
                yield {"0020000D": {"vr": "UI", "Value": [f"1.2.{number}"]}}
        finally:
            ended.set()

    monkeypatch.setattr(Archive, "find_all", endless)
    association = associate(scp)
    for _ in association.send_c_find(keys("STUDY"), StudyFind):
        association.abort()
        break
    assert ended.wait(10)


def test_more_results_than_a_page_all_come_once(scp: Scp, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "PAGE", 1)
    results, _ = find(scp, keys("STUDY", StudyInstanceUID=""))
    assert sorted(result.StudyInstanceUID for result in results) == ["1.2.1", "1.2.2"]


def test_responses_share_pdus_and_none_is_longer_than_the_peer_takes(
    scp: Scp, monkeypatch: pytest.MonkeyPatch
) -> None:
    def many(self: Archive, query: object, **_: object) -> Iterator[dict[str, object]]:
        for number in range(500):
            yield {"0020000D": {"vr": "UI", "Value": [f"1.2.{number}"]}}

    monkeypatch.setattr(Archive, "find_all", many)
    results, statuses = find(scp, keys("STUDY", StudyInstanceUID=""))
    assert [result.StudyInstanceUID for result in results] == [f"1.2.{number}" for number in range(500)]
    assert len(statuses) == 501


def test_a_query_is_audited_with_its_keys_and_without_their_values(scp: Scp, archive: Archive) -> None:
    find(scp, keys("STUDY", PatientName="Meyer*"))
    lines = b"".join(file.read_bytes() for file in archive._core.access.files())
    assert b'"query","FINDER","dimse","127.0.0.1"' in lines
    assert b"STUDY:00100010" in lines
    assert b"Meyer" not in lines
