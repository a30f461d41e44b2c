# SPDX-License-Identifier: Apache-2.0
"""C-MOVE and C-GET over associations: counts, statuses, destinations that misbehave, cancel."""

import io
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEGBaseline8Bit
from pynetdicom import AE, build_role, evt
from pynetdicom.sop_class import (
    PatientRootQueryRetrieveInformationModelMove as PatientMove,  # type: ignore[attr-defined]
)
from pynetdicom.sop_class import (
    StudyRootQueryRetrieveInformationModelGet as StudyGet,  # type: ignore[attr-defined]
)
from pynetdicom.sop_class import (
    StudyRootQueryRetrieveInformationModelMove as StudyMove,  # type: ignore[attr-defined]
)

from archive.errors import Damaged
from archive.service import Archive
from archive.transfer import Reference, Transfer
from gateway.dimse import move, retrieval
from gateway.dimse.commands import AFFECTED_SOP_INSTANCE_UID
from gateway.dimse.move import is_here
from gateway.dimse.peers import Destination, PeerTable
from gateway.dimse.requestor import MAXIMUM_CONTEXTS
from gateway.dimse.sending import proposed
from tests.gateway.dimse.running import AE_TITLE, Scp, running
from tests.gateway.dimse.scripted_peer import Dialogue, scripted, well_behaved
from tests.support.archives import ASK, open_archive, store_bytes
from tests.support.instances import WSI, make_instance

STUDY, SERIES = "1.2.77", "1.2.77.5"
SOPS = [f"{SERIES}.{number}" for number in (1, 2, 3)]


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    opened = open_archive(tmp_path / "data")
    for number, sop in enumerate(SOPS, 1):
        store_bytes(opened, make_instance(study=STUDY, series=SERIES, sop=sop, number=number, frames=9))
    yield opened
    opened.close()


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> dict[str, Destination]:
    """Where peers are, by their title."""
    places: dict[str, Destination] = {}
    monkeypatch.setattr(PeerTable, "destination", lambda self, title: places.get(title))
    return places


@pytest.fixture
def scp(archive: Archive, known: dict[str, Destination], monkeypatch: pytest.MonkeyPatch) -> Iterator[Scp]:
    monkeypatch.setattr(move, "RETRIES_S", (0.0, 0.0, 0.0))
    with running(archive) as listener:
        yield listener


def keys(level: str = "STUDY", **values: object) -> Dataset:
    dataset = Dataset()
    dataset.QueryRetrieveLevel = level
    for keyword, value in {"StudyInstanceUID": STUDY, **values}.items():
        setattr(dataset, keyword, value)
    return dataset


def moved(
    scp: Scp, destination: str = "PEER", identifier: Dataset | None = None, *, sop_class: str = StudyMove,
    meanwhile: Callable[[Any], None] = lambda association: None,
    on_status: Callable[[int], None] = lambda status: None,
) -> tuple[list[Dataset], Dataset | None]:  # fmt: skip
    """The statuses of one C-MOVE, and the last one's identifier."""
    entity = AE("MOVER")
    entity.add_requested_context(sop_class)
    association = entity.associate("127.0.0.1", scp.port, ae_title=AE_TITLE)
    assert association.is_established
    statuses, last = [], None
    asked = identifier or keys()
    answers = association.send_c_move(asked, destination, sop_class, msg_id=9)
    helper = threading.Thread(target=meanwhile, args=(association,))
    helper.start()
    for status, found in answers:
        statuses.append(status)
        last = found
        on_status(status.Status)
    helper.join()
    association.release()
    return statuses, last


def counts(status: Dataset) -> tuple[int, int, int]:
    """Completed, failed, warning."""
    return (
        status.NumberOfCompletedSuboperations,
        status.NumberOfFailedSuboperations,
        status.NumberOfWarningSuboperations,
    )


def data_set(archive: Archive, sop: str) -> bytes:
    """What the archive streams, behind group 2."""
    instance = archive.instance(STUDY, SERIES, sop, **ASK)
    stream = b"".join(archive.open(instance, **ASK).chunks)
    file = io.BytesIO(stream)
    length = dcmread(file, stop_before_pixels=True).file_meta.FileMetaInformationGroupLength
    return stream[132 + 12 + length :]


def test_all_arrive_as_the_archive_streams_them(
    scp: Scp, archive: Archive, known: dict[str, Destination]
) -> None:
    with scripted(well_behaved) as (known["PEER"], dialogues):
        statuses, identifier = moved(scp)
    assert statuses[-1].Status == 0x0000
    assert counts(statuses[-1]) == (3, 0, 0)
    assert "NumberOfRemainingSuboperations" not in statuses[-1]
    assert identifier is None
    (dialogue,) = dialogues
    assert {sop: data for sop, _, data in dialogue.stored} == {sop: data_set(archive, sop) for sop in SOPS}


def test_who_takes_the_default_transfer_syntax_only_gets_it(
    scp: Scp, archive: Archive, known: dict[str, Destination]
) -> None:
    kept = store_bytes(archive, make_instance(study="1.2.78", series="1.2.78.1", native=True, frames=2))
    identifier = keys(StudyInstanceUID="1.2.78")

    def implicit_only(dialogue: Dialogue) -> None:
        dialogue.read_request()
        dialogue.accept(
            lambda _, syntaxes: ImplicitVRLittleEndian if ImplicitVRLittleEndian in syntaxes else None
        )
        dialogue.serve()

    with scripted(implicit_only) as (known["PEER"], dialogues):
        statuses, _ = moved(scp, identifier=identifier)
    assert counts(statuses[-1]) == (1, 0, 0)
    ((sop, _, data),) = dialogues[0].stored
    assert sop == kept.sop_instance_uid
    statuses, (sent,), _ = got(scp, [ImplicitVRLittleEndian], identifier=identifier)
    assert counts(statuses[-1]) == (1, 0, 0)
    assert sent == data
    found = dcmread(io.BytesIO(data), force=True)
    assert found.SOPInstanceUID == sop
    assert found.PixelData == b"".join(
        archive.frames(archive.instance("1.2.78", "1.2.78.1", sop, **ASK), [1, 2], **ASK)
    )


def test_the_destination_is_told_who_asked(scp: Scp, known: dict[str, Destination]) -> None:
    told = []

    def listen(dialogue: Dialogue) -> None:
        dialogue.read_request()
        dialogue.accept()
        number, command = dialogue.read_command()
        told.append((command.text(0x1030), command.number(0x1031)))
        dialogue.read_data()
        dialogue.respond(number, command)
        dialogue.serve()

    with scripted(listen) as (known["PEER"], dialogues):
        moved(scp)
    assert told == [("MOVER", 9)]
    assert dialogues[0].titles[16:].strip() == AE_TITLE.encode()


@pytest.mark.parametrize(
    ("level", "given", "number"),
    [
        ("SERIES", {"SeriesInstanceUID": SERIES}, 3),
        ("IMAGE", {"SeriesInstanceUID": SERIES, "SOPInstanceUID": SOPS[:2]}, 2),
        ("STUDY", {"StudyInstanceUID": "1.2.3"}, 0),
    ],
)
def test_each_level_names_its_instances(
    scp: Scp, known: dict[str, Destination], level: str, given: dict[str, object], number: int
) -> None:
    with scripted(well_behaved) as (known["PEER"], _):
        statuses, _ = moved(scp, identifier=keys(level, **given))
    assert statuses[-1].Status == 0
    assert counts(statuses[-1]) == (number, 0, 0)


def test_a_patient_is_moved_by_identifier(scp: Scp, known: dict[str, Destination]) -> None:
    identifier = Dataset()
    identifier.QueryRetrieveLevel, identifier.PatientID = "PATIENT", "P1"
    with scripted(well_behaved) as (known["PEER"], _):
        statuses, _ = moved(scp, identifier=identifier, sop_class=PatientMove)
    assert counts(statuses[-1]) == (3, 0, 0)


def test_only_configured_destinations_are_called(
    scp: Scp, archive: Archive, known: dict[str, Destination]
) -> None:
    ((status,), _) = moved(scp, "NOBODY")
    assert status.Status == 0xA801
    index = archive._core.index
    with index.read():
        (event,) = index.models.AuditEvent.select().where(index.models.AuditEvent.code == "110113")
    assert (event.actor, event.address) == ("MOVER", "127.0.0.1")
    known[AE_TITLE] = Destination(AE_TITLE, "127.0.0.1", 4)
    assert moved(scp, AE_TITLE)[0][-1].Status == 0xA801
    for host in ("127.0.0.1", "localhost"):  # another title for ourselves
        known["MIRROR"] = Destination("MIRROR", host, scp.port)
        assert moved(scp, "MIRROR")[0][-1].Status == 0xA801


def test_another_machine_with_our_port_is_no_loop() -> None:
    assert not is_here(Destination("PEER", "192.0.2.7", 11112), 11112)
    assert not is_here(Destination("PEER", "127.0.0.1", 104), 11112)
    assert is_here(Destination("PEER", "127.0.0.1", 11112), 11112)


def test_a_request_that_names_nothing_is_refused(scp: Scp, known: dict[str, Destination]) -> None:
    known["PEER"] = Destination("PEER", "127.0.0.1", 9)
    ((status,), _) = moved(scp, identifier=keys("SERIES", StudyInstanceUID=""))
    assert status.Status == 0xA900
    ((status,), _) = moved(scp, identifier=keys("STUDY", StudyInstanceUID=""))
    assert status.Status == 0xA900


def test_more_than_can_be_counted_is_refused(
    scp: Scp, known: dict[str, Destination], monkeypatch: pytest.MonkeyPatch
) -> None:
    known["PEER"] = Destination("PEER", "127.0.0.1", 9)
    monkeypatch.setattr(retrieval, "MOST_INSTANCES", 2)
    assert moved(scp)[0][-1].Status == 0xA701


def test_what_the_destination_refuses_is_named(scp: Scp, known: dict[str, Destination]) -> None:
    def refuse_second(dialogue: Dialogue) -> None:
        dialogue.read_request()
        dialogue.accept()
        for status in (0x0000, 0xA700, 0xB007):
            number, command = dialogue.read_command()
            dialogue.read_data()
            dialogue.respond(number, command, status)
        dialogue.serve()

    with scripted(refuse_second) as (known["PEER"], _):
        statuses, identifier = moved(scp)
    assert statuses[-1].Status == 0xB000
    assert counts(statuses[-1]) == (1, 1, 1)
    assert identifier is not None
    assert identifier.FailedSOPInstanceUIDList == SOPS[1]


def test_a_destination_that_refuses_all_or_is_down_is_told(scp: Scp, known: dict[str, Destination]) -> None:
    def refuse(dialogue: Dialogue) -> None:
        dialogue.read_request()
        dialogue.accept()
        dialogue.serve(0xA700)

    with scripted(refuse) as (known["PEER"], _):
        statuses, identifier = moved(scp)
    assert (statuses[-1].Status, counts(statuses[-1])) == (0xA702, (0, 3, 0))
    assert identifier is not None
    assert sorted(identifier.FailedSOPInstanceUIDList) == SOPS
    statuses, _ = moved(scp)  # nobody listens there any more
    assert (statuses[-1].Status, counts(statuses[-1])) == (0xA702, (0, 3, 0))


def test_a_destination_that_takes_no_context_fails_without_a_store(
    scp: Scp, known: dict[str, Destination]
) -> None:
    def take_nothing(dialogue: Dialogue) -> None:
        dialogue.read_request()
        dialogue.accept(lambda abstract, syntaxes: None)
        dialogue.serve()

    with scripted(take_nothing) as (known["PEER"], dialogues):
        statuses, _ = moved(scp)
    assert counts(statuses[-1]) == (0, 3, 0)
    assert all(dialogue.stored == [] for dialogue in dialogues)


def drop_in(command: int) -> Callable[[Dialogue], None]:
    """Ends the connection in the midst of the data set of a store, counted from 1."""

    def script(dialogue: Dialogue) -> None:
        dialogue.read_request()
        dialogue.accept()
        for count in range(1, command + 1):
            number, message = dialogue.read_command()
            if count == command:
                dialogue.read()
                return
            dialogue.stored.append((message.text(AFFECTED_SOP_INSTANCE_UID), number, dialogue.read_data()))
            dialogue.respond(number, message)

    return script


@pytest.mark.parametrize("where", [1, 2, 3])
def test_an_association_that_breaks_is_made_anew_for_what_is_left(
    scp: Scp, archive: Archive, known: dict[str, Destination], where: int
) -> None:
    with scripted(drop_in(where), well_behaved) as (known["PEER"], dialogues):
        statuses, _ = moved(scp)
    assert (statuses[-1].Status, counts(statuses[-1])) == (0x0000, (3, 0, 0))
    arrived = [(sop, data) for dialogue in dialogues for sop, _, data in dialogue.stored]
    assert sorted(sop for sop, _ in arrived) == SOPS  # each of them once
    assert dict(arrived) == {sop: data_set(archive, sop) for sop in SOPS}


def test_a_destination_that_always_breaks_is_given_up(scp: Scp, known: dict[str, Destination]) -> None:
    with scripted(drop_in(1)) as (known["PEER"], dialogues):
        statuses, _ = moved(scp)
    assert (statuses[-1].Status, counts(statuses[-1])) == (0xA702, (0, 3, 0))
    assert len(dialogues) == 4


def test_an_instance_that_breaks_every_association_does_not_keep_the_others(
    scp: Scp, known: dict[str, Destination]
) -> None:
    def script(dialogue: Dialogue) -> None:
        dialogue.read_request()
        dialogue.accept()
        while True:
            number, command = dialogue.read_command()
            sop = command.text(AFFECTED_SOP_INSTANCE_UID)
            if sop == SOPS[1]:
                return
            dialogue.read_data()
            dialogue.respond(number, command)
            if sop == SOPS[2]:
                dialogue.serve()
                return

    with scripted(script) as (known["PEER"], _):
        statuses, identifier = moved(scp)
    assert counts(statuses[-1]) == (2, 1, 0)
    assert identifier is not None
    assert identifier.FailedSOPInstanceUIDList == SOPS[1]


def test_a_damaged_instance_fails_alone(
    scp: Scp, known: dict[str, Destination], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Transfer.open

    def open_damaged(self: Transfer, reference: Reference, *rest: str) -> Any:
        if reference.sop_instance_uid == SOPS[0]:
            raise Damaged("stored bytes are missing")
        return whole(self, reference, *rest)

    monkeypatch.setattr(Transfer, "open", open_damaged)
    with scripted(well_behaved) as (known["PEER"], _):
        statuses, identifier = moved(scp)
    assert counts(statuses[-1]) == (2, 1, 0)
    assert identifier is not None
    assert identifier.FailedSOPInstanceUIDList == SOPS[0]


def test_the_peer_is_told_while_a_destination_takes_its_time_to_answer(
    scp: Scp, known: dict[str, Destination], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retrieval, "_PENDING_S", 0.05)
    told = threading.Event()

    def script(dialogue: Dialogue) -> None:
        dialogue.read_request()
        dialogue.accept()
        number, command = dialogue.read_command()
        dialogue.read_data()
        assert told.wait(20)
        dialogue.respond(number, command)
        dialogue.serve()

    with scripted(script) as (known["PEER"], _):
        statuses, _ = moved(scp, on_status=lambda status: told.set())
    assert statuses[0].NumberOfRemainingSuboperations == 3
    assert counts(statuses[-1]) == (3, 0, 0)


def test_pending_responses_have_numbers_that_add_up(
    scp: Scp, known: dict[str, Destination], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retrieval, "_PENDING_S", 0.0)
    with scripted(well_behaved) as (known["PEER"], _):
        statuses, _ = moved(scp)
    pending = [status for status in statuses if status.Status == 0xFF00]
    assert {status.NumberOfRemainingSuboperations for status in pending} >= {2, 1, 0}
    for status in pending:
        assert sum(counts(status)) + status.NumberOfRemainingSuboperations == 3


def test_a_cancel_ends_a_move_with_its_counts(scp: Scp, known: dict[str, Destination]) -> None:
    second, cancelled = threading.Event(), threading.Event()

    def script(dialogue: Dialogue) -> None:
        dialogue.read_request()
        dialogue.accept()
        number, command = dialogue.read_command()
        dialogue.read_data()
        dialogue.respond(number, command)
        number, command = dialogue.read_command()
        dialogue.read_data()
        second.set()
        assert cancelled.wait(10)
        time.sleep(0.2)  # until it is read
        dialogue.respond(number, command)
        dialogue.serve()

    def cancel(association: Any) -> None:
        assert second.wait(10)
        association.send_c_cancel(9, query_model=StudyMove)
        cancelled.set()

    with scripted(script) as (known["PEER"], _):
        statuses, _ = moved(scp, meanwhile=cancel)
    assert statuses[-1].Status == 0xFE00
    assert counts(statuses[-1]) == (2, 0, 0)
    assert statuses[-1].NumberOfRemainingSuboperations == 1


def test_a_transfer_is_audited_with_its_destination(
    scp: Scp, archive: Archive, known: dict[str, Destination]
) -> None:
    with scripted(well_behaved) as (known["PEER"], _):
        moved(scp)
    index = archive._core.index
    with index.read():
        events = [
            json.loads(event.event) for event in index.models.AuditEvent.select() if event.via == "dimse"
        ]
    assert [event["event_id"] for event in events] == ["110102", "110104"]
    for event in events:
        assert (event["actor"], event["detail"]["destination"]) == ("MOVER", "PEER")
        assert event["detail"]["number_of_instances"] == 3


def test_classes_and_syntaxes_beyond_one_association_go_in_several() -> None:
    references = [
        Reference(STUDY, SERIES, f"1.{number}", f"1.2.{number}", JPEGBaseline8Bit) for number in range(200)
    ]
    left, associations = references, 0
    while left:
        proposals, carried = proposed(left)
        assert len(proposals) <= MAXIMUM_CONTEXTS
        offered = {(p.abstract_syntax, p.transfer_syntaxes[0]) for p in proposals}
        syntaxes = (JPEGBaseline8Bit, ExplicitVRLittleEndian, ImplicitVRLittleEndian)
        assert all((one.sop_class_uid, syntax) in offered for one in carried for syntax in syntaxes)
        left = [one for one in left if one not in carried]
        associations += 1
    assert associations == 5


# ---- C-GET --------------------------------------------------------------------------


def got(
    scp: Scp, syntaxes: list[str], *, statuses: tuple[int, ...] = (), role: bool = True,
    identifier: Dataset | None = None, cancel_at: int = 0,
) -> tuple[list[Dataset], list[bytes], Dataset | None]:  # fmt: skip
    """Statuses, received data sets, the last identifier of one C-GET."""
    received: list[bytes] = []

    def on_store(event: evt.Event) -> int:
        received.append(event.encoded_dataset(include_meta=False))
        if len(received) == cancel_at:
            event.assoc.send_c_cancel(9, query_model=StudyGet)
        return statuses[len(received) - 1] if statuses else 0

    entity = AE("GETTER")
    entity.add_requested_context(StudyGet)
    entity.add_requested_context(WSI, syntaxes)
    association = entity.associate(
        "127.0.0.1", scp.port, ae_title=AE_TITLE,
        ext_neg=[build_role(WSI, scp_role=True)] if role else [], evt_handlers=[(evt.EVT_C_STORE, on_store)],
    )  # fmt: skip
    assert association.is_established
    answers = list(association.send_c_get(identifier or keys(), StudyGet, msg_id=9))
    association.release()
    return [status for status, _ in answers], received, answers[-1][1]


def test_a_get_stores_on_the_association_that_asked(scp: Scp, archive: Archive) -> None:
    statuses, received, _ = got(scp, [JPEGBaseline8Bit])
    assert (statuses[-1].Status, counts(statuses[-1])) == (0x0000, (3, 0, 0))
    assert received == [data_set(archive, sop) for sop in SOPS]


def test_a_getter_that_took_no_scp_role_is_sent_nothing(scp: Scp) -> None:
    statuses, received, identifier = got(scp, [JPEGBaseline8Bit], role=False)
    assert (statuses[-1].Status, counts(statuses[-1])) == (0xA702, (0, 3, 0))
    assert received == []
    assert identifier is not None
    assert sorted(identifier.FailedSOPInstanceUIDList) == SOPS


def test_a_getter_is_not_sent_a_transfer_syntax_that_it_did_not_take(scp: Scp) -> None:
    statuses, received, _ = got(scp, [ExplicitVRLittleEndian])  # no codec here to decode for it
    assert counts(statuses[-1]) == (0, 3, 0)
    assert received == []


def test_a_getters_answers_are_counted(scp: Scp) -> None:
    statuses, _, identifier = got(scp, [JPEGBaseline8Bit], statuses=(0xB000, 0xA700, 0x0000))
    assert (statuses[-1].Status, counts(statuses[-1])) == (0xB000, (1, 1, 1))
    assert identifier is not None
    assert identifier.FailedSOPInstanceUIDList == SOPS[1]


def test_a_cancel_ends_a_get_before_its_next_instance(scp: Scp) -> None:
    statuses, received, _ = got(scp, [JPEGBaseline8Bit], cancel_at=1)
    assert statuses[-1].Status == 0xFE00
    assert len(received) == 1
    assert statuses[-1].NumberOfRemainingSuboperations == 2


def test_a_get_of_what_is_not_there_is_complete(scp: Scp) -> None:
    statuses, _, _ = got(scp, [JPEGBaseline8Bit], identifier=keys(StudyInstanceUID="1.2.3"))
    assert (statuses[-1].Status, counts(statuses[-1])) == (0x0000, (0, 0, 0))
