# SPDX-License-Identifier: Apache-2.0
"""What we send to peers, and that nothing a peer does surprises us."""

import contextlib
import struct
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from archive.part10.meta import read_meta
from archive.service import Archive
from archive.values import ByteStream
from gateway.delivery import DeliveryError
from gateway.dimse.commands import MESSAGE_ID, decode_command
from gateway.dimse.data_sets import data_set_chunks
from gateway.dimse.identifiers import encode_data_set
from gateway.dimse.messages_out import COMMAND_FIELDS, FieldValue, encode_command, message_pdus
from gateway.dimse.pdu import PduRefused, PduType, data_values
from gateway.dimse.peers import Destination
from gateway.dimse.requestor import (
    Aborted,
    AssociationRejected,
    PeerMisbehaved,
    PeerSilent,
    PeerUnreachable,
    Proposal,
    Requestor,
)
from tests.gateway.dimse.running import AE_TITLE, running
from tests.gateway.dimse.scripted_peer import Dialogue, Script, scripted, well_behaved
from tests.support.instances import make_instance

SLIDES = "1.2.840.10008.5.1.4.1.1.77.1.6"
JPEG = "1.2.840.10008.1.2.4.50"
EXPLICIT = "1.2.840.10008.1.2.1"
COMMITMENT = "1.2.840.10008.1.20.1"
PROPOSALS = (Proposal("1.2.840.10008.1.1", (EXPLICIT,)), Proposal(SLIDES, (JPEG,)))
DATA = bytes(range(256)) * 400


def connect(destination: Destination, **options: object) -> Requestor:
    settings: dict[str, object] = {
        "calling_ae_title": "COVERSLIP",
        "timeout_s": 5.0,
        "response_timeout_s": 5.0,
    }
    return Requestor.connect(destination, PROPOSALS, **(settings | options))  # type: ignore[arg-type]


def store(requestor: Requestor, data: bytes = DATA) -> tuple[int, str]:
    return requestor.c_store(requestor.accepted[SLIDES, JPEG], SLIDES, "1.2.3", [data])


def test_our_own_listener_is_asked_and_stores(archive: Archive) -> None:
    instance = make_instance(frames=4)
    body = data_set_chunks(ByteStream(len(instance), iter([instance])))
    with running(archive) as scp, connect(Destination(AE_TITLE, "127.0.0.1", scp.port)) as requestor:
        assert requestor.c_echo() == 0
        uid = uid_of(instance)
        assert requestor.c_store(requestor.accepted[SLIDES, JPEG], SLIDES, uid, body) == (0, "")


def uid_of(instance: bytes) -> str:
    return read_meta(instance).sop_instance_uid


@pytest.mark.parametrize("maximum_length", [1024, 4096, 16384, 131072, 0])
def test_a_data_set_arrives_whole_in_pdus_as_long_as_the_peer_takes(maximum_length: int) -> None:
    def script(dialogue: Dialogue) -> None:
        dialogue.read_request()
        dialogue.accept(maximum_length=maximum_length)
        dialogue.serve()

    with scripted(script) as (destination, dialogues), connect(destination) as requestor:
        assert store(requestor) == (0, "")
        assert store(requestor, b"") == (0, "")
    (first, second) = dialogues[0].stored
    assert first[2] == DATA
    assert second[2] == b""
    assert max(dialogues[0].pdu_lengths) <= (maximum_length or 131072)


def test_the_peers_status_and_comment_are_given_back() -> None:
    def script(dialogue: Dialogue) -> None:
        dialogue.read_request()
        dialogue.accept()
        number, command = dialogue.read_command()
        dialogue.read_data()
        dialogue.respond(number, command, 0xA700, ErrorComment="disk full")
        dialogue.serve()

    with scripted(script) as (destination, _), connect(destination) as requestor:
        assert store(requestor) == (0xA700, "disk full")
        assert store(requestor) == (0, "")


def test_only_what_the_peer_accepts_is_accepted() -> None:
    def script(dialogue: Dialogue) -> None:
        dialogue.read_request()
        dialogue.accept(lambda abstract, syntaxes: None if abstract == SLIDES else syntaxes[0])
        dialogue.serve()

    with scripted(script) as (destination, _), connect(destination) as requestor:
        assert list(requestor.accepted) == [("1.2.840.10008.1.1", EXPLICIT)]
        with pytest.raises(DeliveryError) as refusal:
            requestor.context_of(SLIDES)
        assert not refusal.value.retry


def test_a_transfer_syntax_that_was_not_proposed_is_not_used() -> None:
    def script(dialogue: Dialogue) -> None:
        dialogue.read_request()
        dialogue.accept(lambda abstract, syntaxes: "1.2.840.10008.1.2.4.70")
        dialogue.serve()

    with scripted(script) as (destination, _), connect(destination) as requestor:
        assert not requestor.accepted


def test_a_rejection_says_what_the_peer_said() -> None:
    def script(dialogue: Dialogue) -> None:
        dialogue.read_request()
        dialogue.send(PduType.ASSOCIATE_RJ, bytes((0, 1, 1, 3)))

    with scripted(script) as (destination, _), pytest.raises(AssociationRejected) as refusal:
        connect(destination)
    assert (refusal.value.result, refusal.value.source, refusal.value.reason) == (1, 1, 3)
    assert "does not know our AE title" in str(refusal.value)


def test_nobody_listening_is_unreachable() -> None:
    with scripted(well_behaved) as (destination, _):
        pass
    with pytest.raises(PeerUnreachable, match="PEER cannot be reached"):
        connect(destination)


# ---- a peer that goes wrong at each step ----------------------------------------------


def hang_up_at_once(dialogue: Dialogue) -> None:
    dialogue.connection.close()


def hang_up_after_request(dialogue: Dialogue) -> None:
    dialogue.read_request()


def hang_up_after_accept(dialogue: Dialogue) -> None:
    dialogue.read_request()
    dialogue.accept()


def hang_up_in_data(dialogue: Dialogue) -> None:
    dialogue.read_request()
    dialogue.accept()
    dialogue.read_command()
    dialogue.read()


def hang_up_after_data(dialogue: Dialogue) -> None:
    dialogue.read_request()
    dialogue.accept()
    dialogue.read_command()
    dialogue.read_data()


def abort_in_data(dialogue: Dialogue) -> None:
    dialogue.read_request()
    dialogue.accept()
    dialogue.read_command()
    dialogue.send(PduType.ABORT, bytes((0, 0, 2, 6)))
    with_rest(dialogue)


def with_rest(dialogue: Dialogue) -> None:
    while dialogue.connection.recv(65536):
        pass


def release_in_data(dialogue: Dialogue) -> None:
    dialogue.read_request()
    dialogue.accept()
    dialogue.read_command()
    dialogue.read_data()
    dialogue.send(PduType.RELEASE_RQ, bytes(4))
    dialogue.read()


def answer_the_request_with_data(dialogue: Dialogue) -> None:
    dialogue.read_request()
    dialogue.say(1, b"\0" * 8, 3)


def send_a_huge_pdu(dialogue: Dialogue) -> None:
    dialogue.read_request()
    dialogue.accept()
    dialogue.read_command()
    dialogue.read_data()
    dialogue.connection.sendall(struct.pack(">BxI", 4, 0xFFFFFFF0))


def send_an_unknown_pdu(dialogue: Dialogue) -> None:
    dialogue.read_request()
    dialogue.connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")


def answer_another_message(dialogue: Dialogue) -> None:
    dialogue.read_request()
    dialogue.accept()
    number, command = dialogue.read_command()
    dialogue.read_data()
    dialogue.respond(number, command, MessageIDBeingRespondedTo=77)


def answer_without_status(dialogue: Dialogue) -> None:
    dialogue.read_request()
    dialogue.accept()
    number, command = dialogue.read_command()
    dialogue.read_data()
    answer: dict[str, FieldValue] = {"CommandField": command.field | 0x8000, "CommandDataSetType": 0x0101,
              "MessageIDBeingRespondedTo": command.number(MESSAGE_ID)}  # fmt: skip
    dialogue.say(number, encode_command(answer), 3)


def answer_with_a_broken_command(dialogue: Dialogue) -> None:
    dialogue.read_request()
    dialogue.accept()
    number, _ = dialogue.read_command()
    dialogue.read_data()
    dialogue.say(number, b"\1\2\3", 3)


def ask_for_something(dialogue: Dialogue) -> None:
    dialogue.read_request()
    dialogue.accept()
    number, _ = dialogue.read_command()
    dialogue.read_data()
    request: dict[str, FieldValue] = {"CommandField": COMMAND_FIELDS["C_ECHO"], "MessageID": 1,
               "CommandDataSetType": 0x0101, "AffectedSOPClassUID": SLIDES}  # fmt: skip
    dialogue.say(number, encode_command(request), 3)


def cut_the_acceptance(dialogue: Dialogue) -> None:
    dialogue.read_request()
    dialogue.send(PduType.ASSOCIATE_AC, bytes(30))


def answer_in_an_unknown_context(dialogue: Dialogue) -> None:
    dialogue.read_request()
    dialogue.accept()
    number, command = dialogue.read_command()
    dialogue.read_data()
    dialogue.respond(number + 100, command)


@pytest.mark.parametrize(
    ("script", "error"),
    [
        (hang_up_at_once, PeerUnreachable),
        (hang_up_after_request, PeerUnreachable),
        (hang_up_after_accept, PeerUnreachable),
        (hang_up_in_data, PeerUnreachable),
        (hang_up_after_data, PeerUnreachable),
        (abort_in_data, Aborted),
        (release_in_data, Aborted),
        (answer_the_request_with_data, PeerMisbehaved),
        (send_a_huge_pdu, PeerMisbehaved),
        (send_an_unknown_pdu, PeerMisbehaved),
        (answer_another_message, PeerMisbehaved),
        (answer_without_status, PeerMisbehaved),
        (answer_with_a_broken_command, PeerMisbehaved),
        (ask_for_something, PeerMisbehaved),
        (cut_the_acceptance, PeerMisbehaved),
        (answer_in_an_unknown_context, PeerMisbehaved),
    ],
)
def test_whatever_a_peer_does_is_one_clear_error_and_may_be_tried_again(
    script: Script, error: type[DeliveryError]
) -> None:
    with scripted(script) as (destination, _):
        with pytest.raises(error) as caught, connect(destination) as requestor:
            store(requestor, DATA * 20)
        assert caught.value.retry
        assert "PEER" in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("after", ["connection", "request", "data"])
def test_a_silent_peer_is_not_waited_for_longer_than_allowed(after: str) -> None:
    gone = threading.Event()

    def script(dialogue: Dialogue) -> None:
        if after != "connection":
            dialogue.read_request()
        if after == "data":
            dialogue.accept()
            dialogue.read_command()
            dialogue.read_data()
        gone.wait(20)

    with scripted(script) as (destination, _):
        with (
            pytest.raises(PeerSilent),
            connect(destination, timeout_s=0.2, response_timeout_s=0.2) as requestor,
        ):
            store(requestor)
        gone.set()


def test_a_peer_that_stops_reading_is_not_waited_for() -> None:
    gone = threading.Event()

    def script(dialogue: Dialogue) -> None:
        dialogue.read_request()
        dialogue.accept()
        gone.wait(20)

    def endless() -> Iterator[bytes]:
        while True:
            yield DATA

    with scripted(script) as (destination, _):
        with pytest.raises(PeerSilent), connect(destination, timeout_s=0.3) as requestor:
            requestor.c_store(requestor.accepted[SLIDES, JPEG], SLIDES, "1.2.3", endless())
        gone.set()


def test_a_source_that_fails_amid_a_data_set_aborts_so_that_nothing_half_is_stored() -> None:
    seen: list[int] = []

    def script(dialogue: Dialogue) -> None:
        dialogue.read_request()
        dialogue.accept()
        dialogue.read_command()
        while True:
            kind, _ = dialogue.read()
            seen.append(kind)
            if kind == PduType.ABORT:
                return

    def failing() -> Iterator[bytes]:
        yield DATA * 20
        raise OSError("the medium is gone")

    with scripted(script) as (destination, _):
        with pytest.raises(OSError, match="medium"), connect(destination) as requestor:
            requestor.c_store(requestor.accepted[SLIDES, JPEG], SLIDES, "1.2.3", failing())
    assert seen[-1] == PduType.ABORT


# ---- normalised services ---------------------------------------------------------------


def test_an_action_is_sent_and_the_event_that_follows_is_taken_and_answered() -> None:
    answered: list[int] = []
    asked: list[bytes] = []

    def script(dialogue: Dialogue) -> None:
        dialogue.read_request()
        dialogue.accept(roles={COMMITMENT: (1, 0)})
        number, command = dialogue.read_command()
        asked.append(dialogue.read_data())
        # the event comes before the answer to the action
        event: dict[str, FieldValue] = {"CommandField": COMMAND_FIELDS["N_EVENT_REPORT"],
                 "MessageID": 9, "EventTypeID": 1,
                 "AffectedSOPClassUID": COMMITMENT, "AffectedSOPInstanceUID": "1.2.840.10008.1.20.1.1",
                 "CommandDataSetType": 1}  # fmt: skip
        report = Dataset()
        report.TransactionUID = "2.25.7"
        dialogue.say(number, encode_command(event), 3)
        dialogue.say(number, encode_data_set(report, EXPLICIT), 2)
        dialogue.respond(number, command, 0)
        _, answer = dialogue.read_command()
        answered.append(answer.status)
        dialogue.serve()

    request = Dataset()
    request.TransactionUID = "2.25.7"
    with scripted(script) as (destination, _):
        requestor = Requestor.connect(
            destination,
            [Proposal(COMMITMENT, (EXPLICIT,))],
            calling_ae_title="COVERSLIP",
            roles={COMMITMENT: (True, False)},
        )
        with requestor:
            assert requestor.roles == {COMMITMENT: (True, False)}
            number = requestor.context_of(COMMITMENT)
            status, _ = requestor.n_action(number, COMMITMENT, "1.2.840.10008.1.20.1.1", 1, request)
            assert status == 0
            event = requestor.await_event(5.0)
            assert event is not None
            assert event.event_type_id == 1
            assert event.data_set is not None
            assert event.data_set.TransactionUID == "2.25.7"
            assert requestor.await_event(0.01) is None
    assert answered == [0]
    assert asked == [encode_data_set(request, EXPLICIT)]


# ---- bytes -----------------------------------------------------------------------------


@given(st.lists(st.binary(max_size=3000), max_size=20), st.integers(512, 2000).map(lambda half: 2 * half))
def test_fragments_put_together_are_the_message_and_only_the_last_says_so(
    chunks: list[bytes], limit: int
) -> None:
    stream = b"".join(b"".join(pieces) for pieces in message_pdus(5, b"command " * 200, chunks, limit))
    parts: dict[int, bytearray] = {0: bytearray(), 1: bytearray()}
    controls = []
    position = 0
    while position < len(stream):
        _, length = struct.unpack_from(">BxI", stream, position)
        payload = stream[position + 6 : position + 6 + length]
        position += 6 + length
        assert length <= limit
        for number, control, fragment in data_values(payload):
            assert number == 5
            controls.append(control)
            parts[control & 1] += fragment
    assert parts[1] == b"command " * 200
    assert parts[0] == b"".join(chunks)
    assert [control for control in controls if control & 2] == [3, 2]
    assert controls[-1] == 2


@given(st.binary(max_size=200))
def test_no_bytes_make_the_command_reader_raise_anything_but_a_refusal(data: bytes) -> None:
    with contextlib.suppress(PduRefused):
        decode_command(data)


@given(st.lists(st.integers(1, 70_000), max_size=6), st.integers(0, 3))
def test_a_part_10_stream_loses_preamble_and_group_2_however_it_is_cut(cuts: list[int], pad: int) -> None:
    instance = make_instance(frames=4) + bytes(pad)
    pieces, rest = [], instance
    for cut in cuts:
        pieces.append(rest[:cut])
        rest = rest[cut:]
    pieces.append(rest)
    found = b"".join(data_set_chunks(ByteStream(len(instance), iter(pieces))))
    assert found == instance[read_meta(instance).data_set_offset :]
