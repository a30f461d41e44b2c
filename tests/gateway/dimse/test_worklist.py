# SPDX-License-Identifier: Apache-2.0
"""Modality Worklist over the network: what is asked, and what is answered."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
from pydicom.dataset import Dataset

from archive.service import Archive
from gateway.dimse import server, worklist
from gateway.dimse.worklist import MODALITY_WORKLIST
from gateway.settings import DimseSettings, Peer
from tests.gateway.dimse.asking import ask, associated, dataset
from tests.gateway.dimse.running import Scp, running
from tests.support.archives import ASK
from tests.support.worklist import element, found, item, schedule, specimen

PENDING, PENDING_INCOMPLETE = 0xFF00, 0xFF01


@pytest.fixture
def scp(archive: Archive) -> Iterator[Scp]:
    schedule(archive, *(item(number) for number in range(1, 4)))
    with running(archive) as scp:
        yield scp


def answers(scp: Scp, identifier: Dataset, **options: str) -> list[Dataset]:
    with associated(scp.port, **options) as association:
        items, statuses, _ = ask(association, identifier)
    assert statuses[-1] == 0x0000
    return items


def test_a_barcode_brings_the_slide_with_its_preparation_and_scan_protocol(scp: Scp) -> None:
    identifier = dataset(
        BarcodeValue="S26-2-A",
        PatientID="",
        PatientSpeciesDescription="",
        AccessionNumber="",
        StudyInstanceUID="",
        ScheduledSpecimenSequence=[],
        ScheduledProcedureStepSequence={"ScheduledProtocolCodeSequence": [], "ScheduledStationAETitle": ""},
    )
    (answer,) = answers(scp, identifier)
    assert (answer.PatientID, answer.AccessionNumber) == ("A-2", "P26-2")
    assert answer.PatientSpeciesDescription == "Rattus norvegicus"
    (container,) = answer.ScheduledSpecimenSequence
    assert container.ContainerIdentifier == "S26-2-A"
    (described,) = container.SpecimenDescriptionSequence
    assert described.SpecimenShortDescription == "Leber, Männchen"
    (prepared,) = described.SpecimenPreparationSequence
    (stain,) = prepared.SpecimenPreparationStepContentItemSequence
    assert stain.ConceptCodeSequence[0].CodeMeaning == "hematoxylin stain"
    (step,) = answer.ScheduledProcedureStepSequence
    assert step.ScheduledProtocolCodeSequence[0].CodeValue == "SCAN20"


@pytest.mark.parametrize(
    ("keys", "steps"),
    [
        ({"ScheduledSpecimenSequence": {"ContainerIdentifier": "S26-1-A"}}, ["STEP1"]),
        ({"ContainerIdentifier": "S26-1-A"}, ["STEP1"]),
        (
            {
                "ScheduledSpecimenSequence": {
                    "SpecimenDescriptionSequence": {"SpecimenIdentifier": "S26-3-A-1"}
                }
            },
            ["STEP3"],
        ),
        ({"AccessionNumber": "P26-2"}, ["STEP2"]),
        ({"PatientName": "müller*"}, ["STEP1", "STEP2", "STEP3"]),
        ({"PatientID": "A-?"}, ["STEP1", "STEP2", "STEP3"]),
        ({"PatientID": "a-1"}, []),
        ({"StudyInstanceUID": ["2.25.10011", "2.25.10013"]}, ["STEP1", "STEP3"]),
    ],
    ids=str,
)
def test_items_match_by_the_keys_of_a_slide(scp: Scp, keys: dict[str, object], steps: list[str]) -> None:
    identifier = dataset(
        SpecificCharacterSet="ISO_IR 192",
        **keys,
        ScheduledProcedureStepSequence={"ScheduledProcedureStepID": ""},
    )
    got = [one.ScheduledProcedureStepSequence[0].ScheduledProcedureStepID for one in answers(scp, identifier)]
    assert got == steps


@pytest.mark.parametrize(
    ("keys", "steps"),
    [
        ({"ScheduledStationAETitle": "SCANNER1"}, 3),
        ({"ScheduledStationAETitle": "OTHER"}, 0),
        ({"Modality": "SM"}, 3),
        ({"Modality": "CT"}, 0),
        ({"ScheduledProcedureStepStartDate": "20261124"}, 3),
        ({"ScheduledProcedureStepStartDate": "20261125-"}, 0),
        (
            {
                "ScheduledProcedureStepStartDate": "20261124-20261124",
                "ScheduledProcedureStepStartTime": "0900-1000",
            },
            2,
        ),
        ({"ScheduledProcedureStepStatus": "STARTED"}, 0),
    ],
    ids=str,
)
def test_items_match_by_the_keys_of_a_step(scp: Scp, keys: dict[str, str], steps: int) -> None:
    assert len(answers(scp, dataset(PatientID="", ScheduledProcedureStepSequence=keys))) == steps


def test_only_what_was_asked_for_is_returned_and_what_is_absent_is_empty(scp: Scp) -> None:
    identifier = dataset(
        PatientID="A-1",
        MedicalAlerts="",
        ScheduledProcedureStepSequence={"Modality": "", "ScheduledProcedureStepLocation": ""},
    )
    (answer,) = answers(scp, identifier)
    assert {one.keyword for one in answer} == {"PatientID", "MedicalAlerts", "ScheduledProcedureStepSequence"}
    assert answer.MedicalAlerts is None or answer.MedicalAlerts == ""
    (step,) = answer.ScheduledProcedureStepSequence
    assert {one.keyword for one in step} == {"Modality", "ScheduledProcedureStepLocation"}


def test_specimens_asked_for_within_the_step_are_answered_there(scp: Scp) -> None:
    nested = {
        "ScheduledSpecimenSequence": {"ContainerIdentifier": "S26-1-A", "SpecimenDescriptionSequence": []}
    }
    (answer,) = answers(scp, dataset(PatientID="", ScheduledProcedureStepSequence=nested))
    assert "ScheduledSpecimenSequence" not in answer
    (container,) = answer.ScheduledProcedureStepSequence[0].ScheduledSpecimenSequence
    assert container.ContainerIdentifier == "S26-1-A"
    assert container.SpecimenDescriptionSequence[0].SpecimenIdentifier == "S26-1-A-1"


def test_the_step_as_a_whole_is_as_it_was_ordered(scp: Scp) -> None:
    (answer,) = answers(scp, dataset(PatientID="A-1", ScheduledProcedureStepSequence=[]))
    step = item(1)["00400100"]["Value"][0]
    got = answer.ScheduledProcedureStepSequence[0]
    assert {f"{int(one.tag):08X}" for one in got} == {*step, "00400020"}


def test_two_items_of_one_sequence_are_no_query(scp: Scp) -> None:
    identifier = dataset(ScheduledProcedureStepSequence=[{"Modality": "SM"}, {"Modality": "CT"}])
    with associated(scp.port) as association:
        _, statuses, last = ask(association, identifier)
        assert statuses == [0xA900]
        assert last.ErrorComment
        assert ask(association, dataset(PatientID="A-1"))[1] == [PENDING, 0x0000]


@pytest.mark.parametrize("keys", [{"PatientBirthDate": "19999"}, {"StudyInstanceUID": "x"}], ids=str)
def test_a_value_that_is_none_is_no_query(scp: Scp, keys: dict[str, str]) -> None:
    from pydicom import config

    with associated(scp.port) as association:
        identifier = Dataset()
        for keyword, value in keys.items():
            with config.disable_value_validation():
                setattr(identifier, keyword, value)
        assert ask(association, identifier)[1] == [0xA900]


def test_a_key_that_cannot_be_matched_is_told(scp: Scp) -> None:
    with associated(scp.port) as association:
        _, statuses, _ = ask(association, dataset(PatientID="A-1", MedicalAlerts="asthma"))
    assert statuses == [PENDING_INCOMPLETE, 0x0000]


def test_a_step_for_no_station_is_answered_with_the_one_that_asks(archive: Archive) -> None:
    schedule(archive, item(1, s00400001=element("AE")))
    keys = {"ScheduledStationAETitle": "SCANNER9"}
    with running(archive) as scp:
        (answer,) = answers(
            scp, dataset(PatientID="", ScheduledProcedureStepSequence=keys), ae_title="SCANNER9"
        )
    assert answer.ScheduledProcedureStepSequence[0].ScheduledStationAETitle == "SCANNER9"


def test_a_peer_sees_what_its_stations_may(archive: Archive) -> None:
    schedule(archive, item(1), item(2, s00400001=element("AE", "OTHER")), item(3, s00400001=element("AE")))
    local = ("127.0.0.0/8",)
    peers = (
        Peer("SCANNER1", local, rights=("worklist",), stations=("SCANNER1",)),
        Peer("BROKER", local, rights=("worklist",)),
        Peer("STORER", local, rights=("store",)),
    )
    identifier = dataset(PatientID="", ScheduledProcedureStepSequence={"ScheduledStationAETitle": "*"})
    with running(archive, replace(DimseSettings(), peers=peers)) as scp:
        assert [one.PatientID for one in answers(scp, identifier)] == ["A-1", "A-3"]
        assert len(answers(scp, identifier, ae_title="BROKER")) == 3
        with pytest.raises(AssertionError):
            answers(scp, identifier, ae_title="STORER")


@pytest.mark.parametrize(
    ("asked", "answered"), [("ISO_IR 100", "ISO_IR 100"), ("", "ISO_IR 192"), ("ISO_IR 144", "ISO_IR 192")]
)
def test_text_is_in_the_character_set_of_the_query_where_that_has_it(
    scp: Scp, asked: str, answered: str
) -> None:
    identifier = dataset(PatientName="", PatientID="A-1")
    if asked:
        identifier.SpecificCharacterSet = asked
    (answer,) = answers(scp, identifier)
    assert answer.SpecificCharacterSet == answered
    assert str(answer.PatientName) == "Müller^Rat 1"


@pytest.mark.parametrize("asked", ["", "ISO_IR 100", "ISO_IR 144"])
def test_each_item_is_in_the_least_character_set_that_holds_it(archive: Archive, asked: str) -> None:
    names = ["Rat", "Ratte^Männchen", "Rat", "Крыса", "Ratte^Männchen", "Rat"]
    schedule(
        archive,
        *(item(n, t00100010=element("PN", {"Alphabetic": name})) for n, name in enumerate(names, 1)),
    )
    identifier = dataset(PatientName="", PatientID="")
    if asked:
        identifier.SpecificCharacterSet = asked
    with running(archive) as scp:
        got = answers(scp, identifier)
    assert [str(one.PatientName) for one in got] == names
    latin = "ISO_IR 100" if asked == "ISO_IR 100" else "ISO_IR 192"
    cyrillic = "ISO_IR 144" if asked == "ISO_IR 144" else "ISO_IR 192"
    expected = [None, latin, None, cyrillic, latin, None]
    assert [one.get("SpecificCharacterSet") for one in got] == expected


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"])
def test_answers_are_in_the_transfer_syntax_that_was_agreed_on(scp: Scp, syntax: str) -> None:
    identifier = dataset(PatientID="A-1", PatientName="", ScheduledSpecimenSequence=[])
    (answer,) = answers(scp, identifier, transfer_syntax=syntax)
    assert answer.ScheduledSpecimenSequence[0].ContainerIdentifier == "S26-1-A"


def test_more_than_the_limit_is_cut_and_told(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    schedule(archive, *(item(number) for number in range(1, 6)))
    services = server.services
    monkeypatch.setattr(
        server,
        "services",
        lambda *given: tuple(
            worklist.service(maximum_items=3) if MODALITY_WORKLIST in one.sop_classes else one
            for one in services(*given)
        ),
    )
    with running(archive) as scp, associated(scp.port) as association:
        items, statuses, last = ask(association, dataset(PatientID=""))
    assert (len(items), statuses[-1]) == (3, 0xA700)
    assert "3" in last.ErrorComment


def test_a_query_that_is_cancelled_ends_soon(archive: Archive) -> None:
    schedule(archive, *(item(number) for number in range(1, 2001)))
    with running(archive) as scp, associated(scp.port) as association:
        count = 0
        for status, _ in association.send_c_find(dataset(PatientID=""), MODALITY_WORKLIST, msg_id=7):
            count += status.Status == PENDING
            if count == 1:
                association.send_c_cancel(7, query_model=MODALITY_WORKLIST)
        assert status.Status == 0xFE00
        assert count < 2000


def test_what_was_ordered_in_between_is_there_at_the_next_query(scp: Scp, archive: Archive) -> None:
    with associated(scp.port) as association:
        identifier = dataset(BarcodeValue="NEW")
        assert ask(association, identifier)[1] == [0x0000]
        schedule(archive, item(9, t00400500=element("SQ", specimen("NEW"))))
        assert ask(association, identifier)[1] == [PENDING, 0x0000]


def test_every_query_is_in_the_access_log(scp: Scp, archive: Archive) -> None:
    answers(scp, dataset(BarcodeValue="S26-1-A"))
    lines = b"".join(path.read_bytes() for path in archive._core.access.files())
    assert b"WORKLIST:22000005" in lines
    assert b"S26-1-A" not in lines
    assert found(archive, k22000005="S26-1-A")
    assert archive.changes(0, **ASK)
