# SPDX-License-Identifier: Apache-2.0
"""C-STORE: what the statuses say, and that nothing is left behind."""

import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pydicom
import pytest
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
)
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.pdu import A_ABORT_RQ
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from archive.access import Action, OpenPolicy, Principal
from archive.errors import StorageFull
from archive.index.query import Level, Query
from archive.service import Archive
from archive.spool import Staging
from archive.values import Stored
from gateway.dimse import door, store
from gateway.settings import DimseSettings, Peer
from tests.gateway.dimse.running import AE_TITLE, running
from tests.support.archives import ASK, open_archive
from tests.support.instances import WSI, make_dataset, make_instance

CALLING = "SCANNER1"


@contextmanager
def associated(
    port: int, syntaxes: list[str] | None = None, *, calling: str = CALLING, called: str = AE_TITLE
) -> Iterator[Association]:
    entity = AE(calling)
    entity.add_requested_context(WSI, syntaxes or [JPEGBaseline8Bit])
    association = entity.associate("127.0.0.1", port, ae_title=called)
    try:
        yield association
    finally:
        if association.is_established:
            association.release()


def instance(**options: object) -> pydicom.FileDataset:
    return pydicom.dcmread(io.BytesIO(make_instance(**options)))  # type: ignore[arg-type]


def status_of(association: Association, dataset: pydicom.Dataset) -> int:
    return int(association.send_c_store(dataset).Status)


def number_of_instances(archive: Archive) -> int:
    return len(archive.find(Query(Level.INSTANCE), **ASK).rows)


def spool(tmp_path: Path) -> list[Path]:
    return list((tmp_path / "data" / "spool").iterdir())


def test_success_means_that_it_is_found(archive: Archive, tmp_path: Path) -> None:
    dataset = instance()
    with running(archive) as scp, associated(scp.port) as association:
        assert status_of(association, dataset) == 0
        assert number_of_instances(archive) == 1
    assert spool(tmp_path) == []


@pytest.mark.parametrize(
    "syntax",
    [ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRLittleEndian],
)
def test_every_native_encoding_keeps_its_pixels(archive: Archive, syntax: str) -> None:
    dataset = instance(native=True, frames=4)
    uids = dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.SOPInstanceUID
    pixels = dataset.PixelData
    sent = pydicom.dcmread(io.BytesIO(encoded(dataset, syntax)))
    with running(archive) as scp, associated(scp.port, [syntax]) as association:
        assert status_of(association, sent) == 0
    stored = archive.instance(*uids, **ASK)
    assert b"".join(archive.frames(stored, [1, 2, 3, 4], **ASK)) == pixels


def encoded(dataset: pydicom.FileDataset, syntax: str) -> bytes:
    out = io.BytesIO()
    little = syntax != ExplicitVRBigEndian
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset["PixelData"].VR = "OB"
    pydicom.dcmwrite(
        out, dataset, implicit_vr=syntax == ImplicitVRLittleEndian, little_endian=little,
        force_encoding=True,
    )  # fmt: skip
    return out.getvalue()


def test_many_instances_on_one_association_are_all_stored(archive: Archive) -> None:
    with running(archive) as scp, associated(scp.port) as association:
        assert {status_of(association, instance(frames=1)) for _ in range(30)} == {0}
        assert number_of_instances(archive) == 30


def test_the_same_instance_twice_is_success_and_there_once(archive: Archive) -> None:
    dataset = instance()
    with running(archive) as scp, associated(scp.port) as association:
        assert status_of(association, dataset) == 0
        assert status_of(association, dataset) == 0
        assert number_of_instances(archive) == 1


def test_a_full_store_is_out_of_resources_and_the_association_goes_on(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(size_hint: int = 0) -> None:
        raise StorageFull("no space left in the store")

    with running(archive) as scp, associated(scp.port) as association:
        with monkeypatch.context() as patch:
            patch.setattr(archive, "stage", full)
            assert status_of(association, instance(frames=9)) == 0xA700
        assert spool(tmp_path) == []
        assert status_of(association, instance()) == 0


def test_a_disk_that_fills_in_the_middle_is_out_of_resources(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = archive.stage

    def nearly_full(size_hint: int = 0) -> object:
        staging = stage(size_hint)
        write, room = staging.write, 20_000

        def limited(data: bytes | memoryview) -> None:
            nonlocal room
            room -= len(data)
            if room < 0:
                raise StorageFull("no space left in the store")
            write(data)

        monkeypatch.setattr(staging, "write", limited)
        return staging

    with running(archive) as scp, associated(scp.port, [ExplicitVRLittleEndian]) as association:
        with monkeypatch.context() as patch:
            patch.setattr(archive, "stage", nearly_full)
            assert status_of(association, instance(native=True, frames=100)) == 0xA700
        assert spool(tmp_path) == []
        assert number_of_instances(archive) == 0


def test_a_data_set_without_a_study_is_not_understood(archive: Archive, tmp_path: Path) -> None:
    dataset = instance()
    del dataset.StudyInstanceUID
    with running(archive) as scp, associated(scp.port) as association:
        assert status_of(association, dataset) == 0xC000
    assert spool(tmp_path) == []


def test_an_error_of_ours_is_a_processing_failure_not_the_senders_fault(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: object, **options: object) -> Stored:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(archive, "store_file", broken)
    with running(archive) as scp, associated(scp.port) as association:
        assert status_of(association, instance()) == 0x0110
    assert spool(tmp_path) == []


def test_a_peer_without_the_right_to_store_is_told_so(tmp_path: Path) -> None:
    class NoStoring(OpenPolicy):
        def allows(self, principal: Principal, action: Action) -> bool:
            return action is not Action.STORE

    archive = open_archive(tmp_path / "data", policy=NoStoring())
    try:
        with running(archive) as scp, associated(scp.port) as association:
            assert status_of(association, instance()) == 0x0124
    finally:
        archive.close()
    assert spool(tmp_path) == []


@pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom says that these are no UIDs
@pytest.mark.parametrize("uid", ["../../etc/passwd", "/absolute", "1.2.3/4", "1..2", "."])
def test_a_uid_that_is_a_path_or_none_is_not_understood(archive: Archive, tmp_path: Path, uid: str) -> None:
    assert not store.is_uid(uid)
    with running(archive) as scp, associated(scp.port) as association:
        assert raw_store(association, uid) == 0xC000
    assert spool(tmp_path) == []
    assert number_of_instances(archive) == 0


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_uid_of_65_characters_ends_the_association(archive: Archive, tmp_path: Path) -> None:
    with running(archive) as scp, associated(scp.port) as association:
        assert raw_store(association, "1." + "2" * 63) is None
    assert spool(tmp_path) == []
    assert number_of_instances(archive) == 0


def test_a_request_that_names_another_instance_than_it_brings_is_warned(archive: Archive) -> None:
    with running(archive) as scp, associated(scp.port) as association:
        assert raw_store(association, "1.2.3.4") == 0xB007
    assert number_of_instances(archive) == 1


def raw_store(association: Association, sop_instance_uid: str) -> int | None:
    """Send a C-STORE with a UID that no library would send; None when it is not answered."""
    request = C_STORE()
    request.MessageID = 1
    request.AffectedSOPClassUID = WSI
    request._affected_sop_instance_uid = sop_instance_uid
    request.Priority = 2
    request.DataSet = io.BytesIO(encoded_body(instance()))
    association._reactor_checkpoint.clear()
    association.dimse.send_msg(request, association.accepted_contexts[0].context_id)
    _, answer = association.dimse.get_msg(block=True)
    association._reactor_checkpoint.set()
    return None if answer is None else int(answer.Status)


def encoded_body(dataset: pydicom.Dataset) -> bytes:
    from pynetdicom.dsutils import encode

    del dataset.PixelData
    body = encode(dataset, False, True)
    assert body is not None
    return body


def test_an_abort_in_the_middle_leaves_nothing(archive: Archive, tmp_path: Path) -> None:
    began = threading.Event()
    stage = archive.stage

    def observed(size_hint: int = 0) -> Staging:
        staging = stage(size_hint)
        began.set()
        return staging

    with running(archive) as scp:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(archive, "stage", observed)
            with associated(scp.port) as association:
                request = C_STORE()
                request.MessageID = 1
                request.AffectedSOPClassUID = WSI
                request.AffectedSOPInstanceUID = "1.2.3"
                request.Priority = 2
                request.DataSet = io.BytesIO(bytes(200_000))
                context = association.accepted_contexts[0].context_id
                send_all_but_the_last_pdu(association, request, context)
                assert began.wait(5)
                assert len(spool(tmp_path)) == 1
                association.abort()
    assert spool(tmp_path) == []
    assert number_of_instances(archive) == 0


def send_all_but_the_last_pdu(association: Association, request: C_STORE, context: int) -> None:
    from pynetdicom.dimse_messages import C_STORE_RQ

    message = C_STORE_RQ()
    message.primitive_to_message(request)
    message.context_id = context
    pdus = list(message.encode_msg(context, 16384))
    for pdu in pdus[:-1]:
        association.dul.send_pdu(pdu)


@pytest.mark.parametrize(
    ("calling", "called", "reason"),
    [("STRANGER", AE_TITLE, 3), (CALLING, "SOMEBODY", 7)],
)
def test_an_unknown_title_is_rejected_with_its_reason(
    archive: Archive, calling: str, called: str, reason: int
) -> None:
    settings = DimseSettings(peers=(Peer(CALLING, ("127.0.0.0/8",)),))
    with running(archive, settings) as scp:
        with associated(scp.port, calling=calling, called=called) as association:
            assert association.is_rejected
            answer = association.acceptor.primitive
            assert (answer.result, answer.result_source, answer.diagnostic) == (1, 1, reason)
        with associated(scp.port) as association:
            assert status_of(association, instance()) == 0


def test_a_known_title_from_another_network_is_rejected(archive: Archive) -> None:
    settings = DimseSettings(peers=(Peer(CALLING, ("10.0.0.0/8",)),))
    with running(archive, settings) as scp, associated(scp.port) as association:
        assert association.is_rejected
    index = archive._core.index
    with index.read():
        events = [(e.code, e.via, e.outcome) for e in index.models.AuditEvent.select()]
    assert events == [("110113", "dimse", "4")]


def test_what_was_sent_is_stored_under_the_name_of_the_peer(archive: Archive) -> None:
    with running(archive) as scp, associated(scp.port) as association:
        status_of(association, instance())
    (change,) = archive.changes(0, **ASK)
    assert change.action == "stored"


def test_a_running_association_may_finish_when_the_listener_stops(archive: Archive) -> None:
    with running(archive) as scp, associated(scp.port) as association:
        scp.stop.set()
        assert status_of(association, instance()) == 0
    assert number_of_instances(archive) == 1


def test_an_idle_association_is_aborted_when_the_drain_time_is_over(archive: Archive) -> None:
    with running(archive, drain_s=0.3) as scp, associated(scp.port) as association:
        scp.stop.set()
        association.join(10)
        assert association.is_aborted


def test_a_peer_that_waits_for_a_slow_store_is_not_taken_for_silent(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    store_file = archive.store_file

    def slow(*arguments: object, **options: object) -> Stored:
        threading.Event().wait(1.0)  # longer than a peer may be silent
        return store_file(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(archive, "store_file", slow)
    with running(archive, DimseSettings(idle_timeout_s=0.6)) as scp, associated(scp.port) as association:
        assert status_of(association, instance()) == 0
        monkeypatch.undo()
        assert status_of(association, instance()) == 0


def test_two_peers_store_at_the_same_time(archive: Archive) -> None:
    statuses: list[int] = []

    def send(port: int) -> None:
        with associated(port) as association:
            statuses.extend(status_of(association, instance(frames=4)) for _ in range(10))

    with running(archive) as scp:
        senders = [threading.Thread(target=send, args=(scp.port,)) for _ in range(4)]
        for sender in senders:
            sender.start()
        for sender in senders:
            sender.join(60)
    assert statuses == [0] * 40
    assert number_of_instances(archive) == 40


def test_a_header_without_pixel_data_is_stored(archive: Archive) -> None:
    dataset = make_dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    with running(archive) as scp, associated(scp.port, [ExplicitVRLittleEndian]) as association:
        assert status_of(association, dataset) == 0


def test_a_store_in_the_context_of_another_service_leaves_nothing_in_the_spool(
    archive: Archive, tmp_path: Path
) -> None:
    with running(archive) as scp:
        entity = AE(CALLING)
        entity.add_requested_context(Verification)
        association = entity.associate("127.0.0.1", scp.port, ae_title=AE_TITLE)
        assert [raw_store(association, f"1.2.{number}") for number in range(3)] == [0x0211] * 3
        assert association.send_c_echo().Status == 0  # what came before it is over and done with
        assert spool(tmp_path) == []
        association.release()


def test_an_error_of_ours_outside_of_a_handler_aborts_the_association(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    aborted = threading.Event()

    def seen(event: evt.Event) -> None:
        if isinstance(event.pdu, A_ABORT_RQ):
            aborted.set()

    def fail(self: OpenPolicy, principal: Principal) -> None:
        raise RuntimeError

    with running(archive) as scp:
        entity = AE(CALLING)
        entity.add_requested_context(Verification)
        association = entity.associate(
            "127.0.0.1", scp.port, ae_title=AE_TITLE, evt_handlers=[(evt.EVT_PDU_RECV, seen)]
        )
        monkeypatch.setattr(OpenPolicy, "scope", fail)
        association.dimse_timeout = 5
        association.send_c_echo()
        assert aborted.wait(5)


def test_an_error_of_ours_at_the_door_costs_one_connection_and_not_the_listener(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, failed = door.check_association_request, threading.Event()

    def fail_once(payload: memoryview) -> None:
        if not failed.is_set():
            failed.set()
            raise RuntimeError
        whole(payload)

    monkeypatch.setattr(door, "check_association_request", fail_once)
    with running(archive) as scp:
        with associated(scp.port) as association:
            assert not association.is_established
        assert failed.is_set()
        with associated(scp.port) as association:
            assert association.is_established
