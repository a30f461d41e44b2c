# SPDX-License-Identifier: Apache-2.0
"""Instance Availability Notification: pynetdicom is told what came and went."""

import queue
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE, evt

from archive.service import Archive
from archive.values import Duty
from gateway.delivery import DeliveryError
from gateway.dimse.availability import SOP_CLASS, AvailabilityNotifier, AvailabilityWatch
from gateway.dimse.peers import Destination
from gateway.outbox import Outbox
from tests.gateway.dimse.running import AE_TITLE
from tests.support.archives import ASK, open_archive, store_bytes
from tests.support.instances import WSI, make_instance

PEER = "RIS"
Notices = queue.Queue[tuple[str, Dataset]]


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    archive = open_archive(tmp_path / "data")
    yield archive
    archive.close()


@contextmanager
def listening(told: Notices, statuses: tuple[int, ...] = ()) -> Iterator[Destination]:
    answers = list(statuses)

    def on_create(event: Any) -> tuple[int, Dataset | None]:
        told.put((str(event.request.AffectedSOPInstanceUID), event.attribute_list))
        status = answers.pop(0) if answers else 0
        return status, None if status else event.attribute_list

    entity = AE(PEER)
    entity.add_supported_context(SOP_CLASS)
    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_N_CREATE, on_create)])
    try:
        yield Destination(PEER, "127.0.0.1", server.socket.getsockname()[1])
    finally:
        server.shutdown()


def notifier(archive: Archive, destination: Destination | None) -> AvailabilityNotifier:
    return AvailabilityNotifier(archive, AE_TITLE, lambda title: destination if title == PEER else None)


def later(archive: Archive, seconds: float) -> None:
    clock = archive._core.clock
    archive._core.clock = lambda: clock() + timedelta(seconds=seconds)


def promised(archive: Archive, settle_s: float = 60.0) -> int:
    return archive.availability().promise([PEER], settle_s=settle_s)


def duty(archive: Archive) -> Duty:
    found = archive.claim_duty(["availability"], lease_s=60, owner="test")
    assert found is not None
    return found


def said(notice: Dataset) -> dict[str, tuple[str, str, str]]:
    return {
        item.ReferencedSOPInstanceUID: (
            series.SeriesInstanceUID,
            item.InstanceAvailability,
            item.RetrieveAETitle,
        )
        for series in notice.ReferencedSeriesSequence
        for item in series.ReferencedSOPSequence
    }


def test_a_study_is_announced_once_it_is_quiet_and_what_was_there_before_is_not(archive: Archive) -> None:
    store_bytes(archive, make_instance())
    assert promised(archive) == 0
    one = store_bytes(archive, make_instance(study="2.25.1", series="2.25.2"))
    two = store_bytes(archive, make_instance(study="2.25.1", series="2.25.3"))
    assert promised(archive) == 0  # more of it may come
    later(archive, 61)
    assert [promised(archive), promised(archive)] == [1, 0]
    told = Notices()
    with listening(told) as destination:
        notifier(archive, destination).deliver(duty(archive), lambda *_: None)
    _, notice = told.get(timeout=5)
    assert notice.StudyInstanceUID == "2.25.1"
    assert list(notice.ReferencedPerformedProcedureStepSequence) == []
    assert said(notice) == {
        one.sop_instance_uid: ("2.25.2", "ONLINE", AE_TITLE),
        two.sop_instance_uid: ("2.25.3", "ONLINE", AE_TITLE),
    }


def test_what_was_deleted_is_announced_as_unavailable(archive: Archive) -> None:
    promised(archive)
    one = store_bytes(archive, make_instance(study="2.25.1", series="2.25.2"))
    two = store_bytes(archive, make_instance(study="2.25.1", series="2.25.2"))
    later(archive, 61)
    assert promised(archive) == 1
    duty(archive)
    archive.delete("2.25.1", "2.25.2", one.sop_instance_uid, reason="test", **ASK)  # type: ignore[arg-type]
    later(archive, 61)
    assert promised(archive) == 1
    (waiting,) = archive.duties(kind="availability", state="waiting", **ASK)  # type: ignore[arg-type]
    told = Notices()
    with listening(told) as destination:
        notifier(archive, destination).deliver(waiting, lambda *_: None)
        _, notice = told.get(timeout=5)
        assert {sop: row[1] for sop, row in said(notice).items()} == {
            one.sop_instance_uid: "UNAVAILABLE", two.sop_instance_uid: "ONLINE",
        }  # fmt: skip
        (series,) = notice.ReferencedSeriesSequence
        assert {item.ReferencedSOPClassUID for item in series.ReferencedSOPSequence} == {WSI}
        archive.delete("2.25.1", reason="test", **ASK)  # type: ignore[arg-type]
        notifier(archive, destination).deliver(waiting, lambda *_: None)
        assert {row[1] for row in said(told.get(timeout=5)[1]).values()} == {"UNAVAILABLE"}


def test_a_peer_that_is_down_or_refuses_is_told_later_and_a_notice_it_has_is_enough(archive: Archive) -> None:
    promised(archive)
    store_bytes(archive, make_instance())
    later(archive, 61)
    promised(archive)
    waiting = duty(archive)
    told = Notices()
    with pytest.raises(DeliveryError, match="no address"):
        notifier(archive, None).deliver(waiting, lambda *_: None)
    with listening(told) as gone:
        pass
    with pytest.raises(DeliveryError):
        notifier(archive, gone).deliver(waiting, lambda *_: None)
    with listening(told, (0x0110, 0x0111)) as destination:
        with pytest.raises(DeliveryError, match="0x0110"):
            notifier(archive, destination).deliver(waiting, lambda *_: None)
        notifier(archive, destination).deliver(waiting, lambda *_: None)
    first, second = told.get(timeout=5)[0], told.get(timeout=5)[0]
    assert first == second  # one notice has one UID, however often it is sent


def test_an_order_is_no_news_of_instances(archive: Archive) -> None:
    promised(archive)
    core = archive._core
    for action in ("order-scheduled", "step-in-progress"):
        core.index.write(lambda action=action: core.add_change(action, "1.2.3"))
    stored = store_bytes(archive, make_instance(study="1.2.4"))
    promised(archive)
    later(archive, 100)
    assert promised(archive) == 1
    assert duty(archive).payload["study"] == stored.study_instance_uid


def test_nobody_is_told_where_nobody_is_named(archive: Archive) -> None:
    promised(archive)
    with AvailabilityWatch(archive, (), 0.0, threading.Event()):
        pass
    one = store_bytes(archive, make_instance())
    archive.delete(one.study_instance_uid, reason="test", **ASK)  # type: ignore[arg-type]
    assert promised(archive, 0.0) == 0
    assert archive.duties(**ASK) == []  # type: ignore[arg-type]


def test_the_worker_follows_the_feed_and_the_outbox_tells(archive: Archive) -> None:
    told = Notices()
    stop = threading.Event()
    with (
        listening(told) as destination,
        Outbox(archive, [notifier(archive, destination)], stop, keep_days=1.0),
        AvailabilityWatch(archive, [PEER], 0.2, stop),
    ):
        deadline = time.monotonic() + 10
        while archive._core.setting("availability") is None and time.monotonic() < deadline:
            time.sleep(0.02)
        stored = store_bytes(archive, make_instance())
        _, notice = told.get(timeout=20)
    assert set(said(notice)) == {stored.sop_instance_uid}
