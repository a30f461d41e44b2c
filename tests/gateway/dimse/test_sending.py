# SPDX-License-Identifier: Apache-2.0
"""A receiver that is down, refuses or drops at every point: all arrives in the end, once."""

import threading
from collections import Counter

import pytest

from archive.index.query import Level, Query
from archive.service import Archive
from archive.values import Stored
from gateway.delivery import DeliveryError
from gateway.dimse.forwarding import Forwarder
from gateway.dimse.peers import Destination
from gateway.dimse.sending import Outcome, Result, Sender, proposed
from gateway.outbox import Outbox
from tests.gateway.dimse import test_requestor as wrong
from tests.gateway.dimse.running import AE_TITLE, running
from tests.gateway.dimse.scripted_peer import Dialogue, Script, scripted, well_behaved
from tests.support.archives import ASK, TESTER, open_archive, store_bytes
from tests.support.instances import make_instance

STUDY = "1.2.77"
EXPLICIT = "1.2.840.10008.1.2.1"


def filled(archive: Archive, number: int = 3) -> list[Stored]:
    return [store_bytes(archive, make_instance(study=STUDY, frames=4)) for _ in range(number)]


def sender(archive: Archive) -> Sender:
    return Sender(archive, "US", **ASK, timeout_s=2.0, response_timeout_s=2.0, pause=lambda seconds: None)  # type: ignore[arg-type]


def send(archive: Archive, destination: Destination, **options: object) -> list[Result]:
    return list(sender(archive).send(destination, STUDY, **options))  # type: ignore[arg-type]


def test_what_is_sent_arrives_as_it_is_stored_and_is_not_sent_again(
    archive: Archive, tmp_path: object
) -> None:
    stored = filled(archive)
    other = open_archive(archive._core.run_dir.parent.parent / "other")
    with running(other) as scp:
        destination = Destination(AE_TITLE, "127.0.0.1", scp.port)
        results = send(archive, destination)
        assert [one.outcome for one in results] == [Outcome.SENT] * 3
        assert {one.sop_instance_uid for one in results} == {one.sop_instance_uid for one in stored}
        assert [one.outcome for one in send(archive, destination)] == [Outcome.ALREADY] * 3
        assert [one.outcome for one in send(archive, destination, again=True)] == [Outcome.SENT] * 3
    for one in stored:
        uids = (one.study_instance_uid, one.series_instance_uid, one.sop_instance_uid)
        ours, theirs = archive.instance(*uids, **ASK), other.instance(*uids, **ASK)
        assert theirs.transfer_syntax_uid == ours.transfer_syntax_uid
        assert [bytes(f) for f in other.frames(theirs, [1, 2, 3, 4], **ASK)] == [
            bytes(f) for f in archive.frames(ours, [1, 2, 3, 4], **ASK)
        ]
    other.close()


MISBEHAVIOUR: list[Script] = [
    wrong.hang_up_at_once,
    wrong.hang_up_after_request,
    wrong.hang_up_after_accept,
    wrong.hang_up_in_data,
    wrong.hang_up_after_data,
    wrong.abort_in_data,
    wrong.release_in_data,
    wrong.send_a_huge_pdu,
    wrong.answer_another_message,
]


@pytest.mark.parametrize("script", MISBEHAVIOUR)
def test_a_drop_at_any_point_is_made_good_and_every_instance_is_confirmed_once(
    archive: Archive, script: Script
) -> None:
    stored = filled(archive)
    with scripted(script, well_behaved) as (destination, dialogues):
        results = send(archive, destination)
        assert sorted(one.sop_instance_uid for one in results) == sorted(
            one.sop_instance_uid for one in stored
        )
        assert {one.outcome for one in results} == {Outcome.SENT}
    arrived = Counter(uid for dialogue in dialogues[1:] for uid, _, _ in dialogue.stored)
    assert arrived == Counter(one.sop_instance_uid for one in stored)


def drop_after_one(dialogue: Dialogue) -> None:
    """One instance is stored and confirmed; then the line goes dead."""
    dialogue.read_request()
    dialogue.accept()
    number, command = dialogue.read_command()
    dialogue.read_data()
    dialogue.respond(number, command)


def refuse_association(dialogue: Dialogue) -> None:
    dialogue.read_request()
    dialogue.send(3, bytes((0, 2, 3, 1)))


def test_what_was_confirmed_before_the_receiver_went_away_is_not_sent_again(archive: Archive) -> None:
    filled(archive)
    with scripted(drop_after_one, refuse_association) as (destination, _), pytest.raises(DeliveryError):
        send(archive, destination)
    with scripted(well_behaved) as (destination, dialogues):
        results = send(archive, destination)
    assert Counter(one.outcome for one in results) == {Outcome.ALREADY: 1, Outcome.SENT: 2}
    assert len(dialogues[0].stored) == 2


def test_an_instance_at_which_the_receiver_breaks_off_does_not_hold_up_the_others(archive: Archive) -> None:
    stored = filled(archive)
    poison = sorted(one.sop_instance_uid for one in stored)[1]

    def script(dialogue: Dialogue) -> None:
        from gateway.dimse.commands import AFFECTED_SOP_INSTANCE_UID

        dialogue.read_request()
        dialogue.accept()
        while True:
            number, command = dialogue.read_command()
            if command.text(AFFECTED_SOP_INSTANCE_UID) == poison:
                return
            dialogue.read_data()
            dialogue.respond(number, command)

    with scripted(script) as (destination, _):
        results = {one.sop_instance_uid: one for one in send(archive, destination)}
    assert results.pop(poison).outcome is Outcome.FAILED
    assert [one.outcome for one in results.values()] == [Outcome.SENT] * 2


@pytest.mark.parametrize(
    ("status", "outcome", "final"),
    [
        (0xA700, Outcome.FAILED, False),
        (0xC000, Outcome.FAILED, False),
        (0xA900, Outcome.FAILED, True),
        (0x0122, Outcome.FAILED, True),
        (0xB000, Outcome.WARNING, False),
        (0x0111, Outcome.SENT, False),
    ],
)
def test_the_receivers_status_decides(archive: Archive, status: int, outcome: Outcome, final: bool) -> None:
    filled(archive, 1)

    def script(dialogue: Dialogue) -> None:
        dialogue.read_request()
        dialogue.accept()
        dialogue.serve(status)

    with scripted(script) as (destination, _):
        (result,) = send(archive, destination)
        assert (result.outcome, result.status, result.final) == (outcome, status, final)
        have = archive.delivered("PEER", [result.sop_instance_uid])
    assert bool(have) is (outcome is not Outcome.FAILED)


def test_a_receiver_that_takes_no_transfer_syntax_of_it_is_told_of_and_the_others_go_on(
    archive: Archive,
) -> None:
    compressed = store_bytes(archive, make_instance(study=STUDY, frames=4))
    native = store_bytes(archive, make_instance(study=STUDY, frames=4, native=True))

    def script(dialogue: Dialogue) -> None:
        dialogue.read_request()
        dialogue.accept(lambda abstract, syntaxes: EXPLICIT if EXPLICIT in syntaxes else None)
        dialogue.serve()

    with scripted(script) as (destination, _):
        results = {one.sop_instance_uid: one for one in send(archive, destination)}
    refused = results[compressed.sop_instance_uid]
    # This archive has no codec: nothing can be decoded.
    assert (refused.outcome, refused.final) == (Outcome.FAILED, True)
    assert "does not take transfer syntax 1.2.840.10008.1.2.4.50" in refused.message
    assert results[native.sop_instance_uid].outcome is Outcome.SENT


def test_one_association_never_proposes_more_contexts_than_the_standard_allows(archive: Archive) -> None:
    filled(archive, 1)
    (reference,) = archive.transfer(Query(Level.INSTANCE), "AE", **ASK).references
    from dataclasses import replace

    many = [replace(reference, sop_class_uid=f"1.2.{n}", sop_instance_uid=f"1.3.{n}") for n in range(200)]
    proposals, carried = proposed(many)
    assert len(proposals) <= 128
    assert 0 < len(carried) < 200
    assert {one.sop_class_uid for one in carried} == {one.abstract_syntax for one in proposals}


def test_the_outbox_keeps_trying_until_all_has_arrived(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.outbox.FIRST_PAUSE_S", 0.0)
    stored = filled(archive)
    archive.promise("PEER", "forward", {"study": STUDY}, key="study", **ASK)
    stop, scripts = threading.Event(), [*MISBEHAVIOUR, drop_after_one, refuse_association, well_behaved]
    with scripted(*scripts) as (destination, dialogues):
        forwarder = Forwarder(sender(archive), lambda ae: destination)
        outbox = Outbox(archive, [forwarder], stop, keep_days=7)
        for _ in range(len(scripts)):
            duty = archive.claim_duty(("forward",), lease_s=60, owner="test")
            if duty is None:
                break
            outbox.attempt(duty)
        (kept,) = archive.duties(**ASK)
        assert kept.state == "done", kept.message
    arrived = {uid for dialogue in dialogues for uid, _, _ in dialogue.stored}
    assert archive.delivered("PEER", [one.sop_instance_uid for one in stored]).keys() >= arrived
    assert len(archive.delivered("PEER", [one.sop_instance_uid for one in stored])) == 3


def test_a_duty_that_can_never_be_done_is_given_up_with_its_reason(archive: Archive) -> None:
    filled(archive, 1)
    archive.promise("PEER", "forward", {"study": STUDY}, **ASK)

    def script(dialogue: Dialogue) -> None:
        dialogue.read_request()
        dialogue.accept(lambda abstract, syntaxes: None)
        dialogue.serve()

    with scripted(script) as (destination, _):
        outbox = Outbox(
            archive, [Forwarder(sender(archive), lambda ae: destination)], threading.Event(), keep_days=7
        )
        duty = archive.claim_duty(("forward",), lease_s=60, owner="test")
        assert duty is not None
        outbox.attempt(duty)
    (kept,) = archive.duties(**ASK)
    assert kept.state == "failed"
    assert kept.message == "1 of 1 not sent: PEER does not take this SOP class"


def test_a_cancelled_duty_stops_amid_its_work(archive: Archive) -> None:
    filled(archive, 1)
    archive.promise("PEER", "forward", {"study": STUDY}, **ASK)
    duty = archive.claim_duty(("forward",), lease_s=60, owner="test")
    assert duty is not None
    archive.cancel_duty(duty.id, "no", **ASK)
    with scripted(well_behaved) as (destination, dialogues):
        outbox = Outbox(
            archive, [Forwarder(sender(archive), lambda ae: destination)], threading.Event(), keep_days=7
        )
        outbox.attempt(duty)
    assert not dialogues[0].stored
    assert archive.duties(**ASK)[0].state == "cancelled"


def test_a_transfer_is_on_record_with_who_got_it(archive: Archive) -> None:
    filled(archive)
    with scripted(well_behaved) as (destination, _):
        send(archive, destination)
    index = archive._core.index
    with index.read():
        events = [(e.code, e.actor) for e in index.models.AuditEvent.select() if '"PEER"' in e.event]
    assert events == [("110102", TESTER.actor), ("110104", TESTER.actor)]
