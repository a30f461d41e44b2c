# SPDX-License-Identifier: Apache-2.0
"""Storage commitment by DIMSE: pynetdicom asks and listens, we read the bytes and tell."""

import io
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from pynetdicom import AE, build_role, evt
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_STORE

from archive.access import Principal
from archive.errors import Busy
from archive.service import Archive
from archive.values import Commitment, Duty
from gateway.delivery import DeliveryError
from gateway.dimse import commitment
from gateway.dimse.commitment_report import CommitmentReporter
from gateway.dimse.commitment_request import _AT_ONCE
from gateway.dimse.peers import Destination
from gateway.ingest.worker import Worker
from gateway.settings import WorkerSettings
from tests.gateway.dimse.running import AE_TITLE, running
from tests.gateway.dimse.test_store import send_all_but_the_last_pdu
from tests.support.archives import ASK, open_archive, store_bytes
from tests.support.instances import WSI, make_instance
from tests.support.require import ROOT

PEER = "SCANNER1"
Events = queue.Queue[tuple[int, Dataset]]


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    archive = open_archive(tmp_path / "data")
    yield archive
    archive.close()


def store(archive: Archive) -> str:
    return store_bytes(archive, make_instance()).sop_instance_uid


def work(archive: Archive) -> None:
    worker = Worker(archive, WorkerSettings(), b"secret")
    while worker.run_one():
        pass


@contextmanager
def associated(port: int, told: Events | None = None, status: int = 0) -> Iterator[Association]:
    """An association of the peer for storage commitment; what it is told goes to ``told``."""

    def on_event(event: Any) -> tuple[int, None]:
        assert told is not None
        told.put((event.event_type, event.event_information))
        return status, None

    entity = AE(PEER)
    entity.add_requested_context(commitment.SOP_CLASS)
    entity.add_requested_context(WSI)
    handlers = [] if told is None else [(evt.EVT_N_EVENT_REPORT, on_event)]
    association = entity.associate("127.0.0.1", port, ae_title=AE_TITLE, evt_handlers=handlers)
    try:
        yield association
    finally:
        if association.is_established:
            association.release()


@contextmanager
def listening(told: Events, statuses: list[int] | None = None) -> Iterator[Destination]:
    """The peer's own acceptor, for results that come later."""
    answers = list(statuses or [])

    def on_event(event: Any) -> tuple[int, None]:
        told.put((event.event_type, event.event_information))
        return (answers.pop(0) if answers else 0), None

    entity = AE(PEER)
    entity.add_supported_context(commitment.SOP_CLASS, scu_role=False, scp_role=True)
    handlers = [(evt.EVT_N_EVENT_REPORT, on_event)]
    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
    try:
        yield Destination(PEER, "127.0.0.1", server.socket.getsockname()[1])
    finally:
        server.shutdown()


def asked(association: Association, transaction: str, *pairs: tuple[str, str], **change: Any) -> int:
    """The status of a request."""
    status, _ = association.send_n_action(
        commitment.request_of(transaction, list(pairs)),
        change.get("action", 1),
        commitment.SOP_CLASS,
        change.get("instance", commitment.WELL_KNOWN_INSTANCE),
    )
    return int(status.Status)


def pairs(data_set: Dataset, keyword: str = "ReferencedSOPSequence") -> list[tuple[Any, ...]]:
    """SOP class and instance of each item, and the Failure Reason where there is one."""
    words = ("ReferencedSOPClassUID", "ReferencedSOPInstanceUID", "FailureReason")
    return [tuple(item[word].value for word in words if word in item) for item in data_set.get(keyword, [])]


def reporter(archive: Archive, destination: Destination | None) -> CommitmentReporter:
    return CommitmentReporter(archive, AE_TITLE, lambda title: destination if title == PEER else None)


def claimed(archive: Archive) -> Duty | None:
    """The duty to tell, once its time has come."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        duty = archive.claim_duty(["commitment"], lease_s=60, owner="test")
        if duty is not None:
            return duty
        time.sleep(0.05)
    return None


def test_the_result_comes_on_the_association_of_the_request(archive: Archive) -> None:
    sop, told = store(archive), Events()
    with running(archive) as scp, associated(scp.port, told) as association:
        transaction = generate_uid()
        assert asked(association, transaction, (WSI, sop)) == 0
        assert told.empty()
        work(archive)
        event_type, result = told.get(timeout=60)
        assert association.is_established
    assert event_type == 1
    assert result.TransactionUID == transaction
    assert result.RetrieveAETitle == AE_TITLE
    assert pairs(result) == [(WSI, sop)]
    assert "FailedSOPSequence" not in result
    duty = claimed(archive)
    assert duty is not None
    reporter(archive, None).deliver(duty, lambda *_: None)  # nothing is left to tell


def test_each_failure_has_its_reason(archive: Archive, tmp_path: Path) -> None:
    whole, damaged, other = store(archive), store(archive), store(archive)
    path = next(
        path
        for path in (tmp_path / "data" / "store" / "blob").rglob("*")
        if path.is_file() and damaged.encode() in path.read_bytes()
    )
    path.chmod(0o600)
    path.write_bytes(path.read_bytes()[:-1] + b"\x7f")
    told = Events()
    with running(archive) as scp, associated(scp.port, told) as association:
        references = [
            (WSI, whole),
            (WSI, damaged),
            (WSI, "2.25.9"),
            ("1.2.840.10008.5.1.4.1.1.2", other),
            ("1.2.840.10008.1.1", "2.25.8"),
        ]
        assert asked(association, generate_uid(), *references) == 0
        work(archive)
        event_type, result = told.get(timeout=60)
    assert event_type == 2
    assert pairs(result) == [(WSI, whole)]
    assert {row[1]: row[2] for row in pairs(result, "FailedSOPSequence")} == {
        damaged: 0x0110,
        "2.25.9": 0x0112,
        other: 0x0119,
        "2.25.8": 0x0122,
    }


@pytest.mark.parametrize(
    ("change", "status"),
    [({"action": 2}, 0x0123), ({"instance": "2.25.7"}, 0x0112)],
)
def test_what_is_no_request_of_the_service_is_told_so(
    archive: Archive, change: dict[str, Any], status: int
) -> None:
    with running(archive) as scp, associated(scp.port) as association:
        assert asked(association, generate_uid(), (WSI, "2.25.1"), **change) == status


def test_a_request_without_instances_or_with_uids_that_are_none_is_an_invalid_argument(
    archive: Archive,
) -> None:
    with running(archive) as scp, associated(scp.port) as association:
        assert asked(association, generate_uid()) == 0x0115
        assert asked(association, "", (WSI, "2.25.1")) == 0x0115
        assert asked(association, generate_uid(), ("", "2.25.1")) == 0x0115


def test_a_busy_archive_is_a_resource_limitation(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    def busy(*arguments: object, **options: object) -> None:
        raise Busy("too much")

    monkeypatch.setattr(archive, "request_commitment", busy)
    with running(archive) as scp, associated(scp.port) as association:
        assert asked(association, generate_uid(), (WSI, "2.25.1")) == 0x0213


def test_a_transaction_uid_is_used_once_but_the_same_request_may_come_again(archive: Archive) -> None:
    one, two, transaction = store(archive), store(archive), generate_uid()
    with running(archive) as scp:
        told = Events()
        with associated(scp.port, told) as association:
            assert asked(association, transaction, (WSI, one)) == 0
            work(archive)
            told.get(timeout=60)
            assert asked(association, transaction, (WSI, two)) == 0x0131
            # As after a crash of the peer: it asks again and is told again.
            assert asked(association, transaction, (WSI, one)) == 0
            assert pairs(told.get(timeout=60)[1]) == [(WSI, one)]


def test_who_did_not_wait_is_called_later(archive: Archive) -> None:
    sop, told, transaction = store(archive), Events(), generate_uid()
    with running(archive) as scp:
        with associated(scp.port) as association:
            assert asked(association, transaction, (WSI, sop)) == 0
        work(archive)
        duty = claimed(archive)
        assert duty is not None
        assert (duty.receiver, duty.payload) == (PEER, {"transaction": transaction})
        with listening(told) as destination:
            reporter(archive, destination).deliver(duty, lambda *_: None)
            event_type, result = told.get(timeout=60)
            assert (event_type, result.TransactionUID, pairs(result)) == (1, transaction, [(WSI, sop)])
            reporter(archive, destination).deliver(
                duty, lambda *_: None
            )  # a worker that died before it said so
            assert told.empty()


def test_a_receiver_that_is_down_or_refuses_is_tried_again_until_it_has_it(archive: Archive) -> None:
    sop, told = store(archive), Events()
    archive.request_commitment("2.25.5", [(WSI, sop)], principal=Principal(PEER, "dimse"), scope=ASK["scope"])  # type: ignore[arg-type]
    work(archive)
    duty = claimed(archive)
    assert duty is not None
    with pytest.raises(DeliveryError) as unknown:
        reporter(archive, None).deliver(duty, lambda *_: None)
    assert unknown.value.retry
    with listening(Events()) as gone:
        pass
    with pytest.raises(DeliveryError) as down:
        reporter(archive, gone).deliver(duty, lambda *_: None)
    assert down.value.retry
    with listening(told, [0x0110]) as destination:
        with pytest.raises(DeliveryError, match="0x0110"):
            reporter(archive, destination).deliver(duty, lambda *_: None)
        told.get(timeout=5)
        reporter(archive, destination).deliver(duty, lambda *_: None)
        assert pairs(told.get(timeout=5)[1]) == [(WSI, sop)]


def test_a_peer_without_an_address_is_told_when_it_comes_again(archive: Archive) -> None:
    sop, told, transaction = store(archive), Events(), generate_uid()
    with running(archive) as scp:
        with associated(scp.port) as association:
            assert asked(association, transaction, (WSI, sop)) == 0
        work(archive)
        with associated(scp.port, told):
            _, result = told.get(timeout=60)
            assert result.TransactionUID == transaction
        with associated(scp.port, told) as association:
            time.sleep(1.2)
            assert told.empty()
            assert association.is_established


def test_a_peer_that_comes_as_scp_only_is_not_told(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    sop, told, quiet = store(archive), Events(), threading.Event()
    whole = commitment.CommitmentScp.tell

    def tell(self: commitment.CommitmentScp, association: Any) -> None:
        whole(self, association)
        quiet.set()

    def on_event(event: Any) -> tuple[int, None]:
        told.put((event.event_type, event.event_information))
        return 0, None

    monkeypatch.setattr(commitment.CommitmentScp, "tell", tell)
    with running(archive) as scp:
        with associated(scp.port) as association:
            assert asked(association, generate_uid(), (WSI, sop)) == 0
        work(archive)
        quiet.clear()
        entity = AE(PEER)
        entity.add_requested_context(commitment.SOP_CLASS)
        reporting = entity.associate(
            "127.0.0.1", scp.port, ae_title=AE_TITLE,
            ext_neg=[build_role(commitment.SOP_CLASS, scp_role=True)],
            evt_handlers=[(evt.EVT_N_EVENT_REPORT, on_event)],
        )  # fmt: skip
        assert quiet.wait(10)
        assert told.empty()
        reporting.release()


def test_a_result_waits_for_the_end_of_a_data_set_that_is_on_its_way(archive: Archive) -> None:
    sop, told = store(archive), Events()
    archive.request_commitment("2.25.5", [(WSI, sop)], principal=Principal(PEER, "dimse"), scope=ASK["scope"])  # type: ignore[arg-type]
    work(archive)
    request = C_STORE()
    request.MessageID, request.Priority = 1, 2
    request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = WSI, "2.25.6"
    request.DataSet = io.BytesIO(bytes(200_000))
    with running(archive) as scp, associated(scp.port, told) as association:
        context = next(cx.context_id for cx in association.accepted_contexts if cx.abstract_syntax == WSI)
        send_all_but_the_last_pdu(association, request, context)
        time.sleep(1.2)
        assert association.is_established
        assert told.empty()
        association.abort()
    with running(archive) as scp, associated(scp.port, told):
        told.get(timeout=60)


def test_while_the_peer_stays_the_outbox_leaves_it_to_its_association(archive: Archive) -> None:
    sop, transaction = store(archive), generate_uid()
    with running(archive) as scp:
        told = Events()
        with associated(scp.port, told, status=0x0110) as association:
            assert asked(association, transaction, (WSI, sop)) == 0
            work(archive)
            told.get(timeout=60)  # refused by the peer: it was not told
            duty = claimed(archive)
            assert duty is not None
            with listening(told) as destination, pytest.raises(DeliveryError, match="association of its own"):
                reporter(archive, destination).deliver(duty, lambda *_: None)
        deadline = time.monotonic() + 60
        with listening(told) as destination:
            while True:
                try:
                    reporter(archive, destination).deliver(duty, lambda *_: None)
                    break
                except DeliveryError:
                    assert time.monotonic() < deadline
                    time.sleep(0.05)
        assert archive.commitment_results().is_told(transaction)


_DIES = """
import os, signal, sys
from pathlib import Path
from tests.support.archives import open_archive
archive = open_archive(Path(sys.argv[1]))
assert archive.claim(["commitment"], lease_s=0.0, owner="dies") is not None
archive.run_commitment("2.25.6")
assert archive.commitment_results().take("2.25.6", "dies", lease_s=0.0) is not None
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_worker_killed_between_result_and_report_loses_nothing(archive: Archive, tmp_path: Path) -> None:
    sop = store(archive)
    principal = Principal(PEER, "dimse")
    archive.request_commitment("2.25.6", [(WSI, sop)], principal=principal, scope=ASK["scope"])  # type: ignore[arg-type]
    dead = subprocess.run([sys.executable, "-c", _DIES, str(tmp_path / "data")], cwd=ROOT, check=False)
    assert dead.returncode == -signal.SIGKILL
    work(archive)  # another takes the job over
    told = Events()
    duty = claimed(archive)
    assert duty is not None
    with listening(told) as destination:
        reporter(archive, destination).deliver(duty, lambda *_: None)
    assert pairs(told.get(timeout=5)[1]) == [(WSI, sop)]
    assert told.empty()


def test_an_answer_to_what_we_asked_comes_on_an_association_of_the_peer(archive: Archive) -> None:
    asked_for = archive.asked_commitments()
    transaction, principal = generate_uid(), Principal("forward", "worker")
    asked_for.ask(transaction, PEER, [(WSI, "2.25.1"), (WSI, "2.25.2")], principal=principal)
    assert not asked_for.result(transaction).done
    answer = Dataset()
    answer.TransactionUID = transaction
    committed, failed = Dataset(), Dataset()
    committed.ReferencedSOPClassUID = failed.ReferencedSOPClassUID = WSI
    committed.ReferencedSOPInstanceUID, failed.ReferencedSOPInstanceUID = "2.25.1", "2.25.2"
    failed.FailureReason = 0x0112
    answer.ReferencedSOPSequence, answer.FailedSOPSequence = [committed], [failed]
    with running(archive) as scp:
        assert event_of(scp.port, PEER, 2, answer) == 0
        assert event_of(scp.port, PEER, 3, answer) == 0x0113
        assert event_of(scp.port, "SOMEBODY", 2, answer) == 0x0115  # it was not asked
        answer.TransactionUID = generate_uid()
        assert event_of(scp.port, PEER, 2, answer) == 0x0115
    found = asked_for.result(transaction)
    assert (found.done, found.committed, found.failed) == (
        True, ((WSI, "2.25.1"),), ((WSI, "2.25.2", 0x0112),),
    )  # fmt: skip


def test_an_answer_about_all_that_we_ask_for_at_once_is_read(archive: Archive) -> None:
    """With the longest UIDs there are, and a reason for each."""
    transaction, sop_class = generate_uid(), "1.2." + "7" * 60
    references = [(sop_class, f"1.2.{number:060d}".replace(".0", ".1")) for number in range(_AT_ONCE)]
    archive.asked_commitments().ask(transaction, PEER, references, principal=Principal("us", "worker"))
    failed = tuple((*pair, 0x0112) for pair in references)
    information = commitment.result_of(transaction, Commitment(True, (), failed), PEER)[1]
    with running(archive) as scp:
        assert event_of(scp.port, PEER, 2, information) == 0
    assert len(archive.asked_commitments().result(transaction).failed) == _AT_ONCE


def event_of(port: int, title: str, event_type: int, information: Dataset) -> int:
    """The status that an N-EVENT-REPORT of a peer as SCP is answered."""
    entity = AE(title)
    entity.add_requested_context(commitment.SOP_CLASS)
    role = build_role(commitment.SOP_CLASS, scp_role=True)
    association = entity.associate("127.0.0.1", port, ae_title=AE_TITLE, ext_neg=[role])
    assert association.is_established
    status, _ = association.send_n_event_report(
        information, event_type, commitment.SOP_CLASS, commitment.WELL_KNOWN_INSTANCE
    )
    association.release()
    return int(status.Status)
