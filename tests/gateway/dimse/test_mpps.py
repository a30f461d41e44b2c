# SPDX-License-Identifier: Apache-2.0
"""Performed procedure steps over the network, with pynetdicom as the scanner."""

from collections.abc import Iterator

import pytest
from pydicom.dataset import Dataset
from pynetdicom.status import PROCEDURE_STEP_STATUS as STATUSES

from archive.service import Archive
from gateway.dimse.mpps import MPPS, MPPS_RETRIEVE
from gateway.settings import DimseSettings, Peer
from tests.gateway.dimse.asking import associated, from_json
from tests.gateway.dimse.running import Scp, running
from tests.support.archives import ASK
from tests.support.worklist import element, found, item, performed, performed_end, schedule

UID = "2.25.42"


@pytest.fixture
def scp(archive: Archive) -> Iterator[Scp]:
    schedule(archive, item(1), item(2))
    with running(archive) as scp:
        yield scp


def create(scp: Scp, uid: str | None = UID, **changes: object) -> Dataset:
    content = {**performed(1), **{name[1:]: value for name, value in changes.items()}}
    with associated(scp.port) as association:
        status, _ = association.send_n_create(from_json(content), MPPS, uid)
    assert isinstance(status, Dataset)
    return status


def change(scp: Scp, content: Dataset, uid: str = UID, ae_title: str = "SCANNER1") -> Dataset:
    with associated(scp.port, ae_title=ae_title) as association:
        status, _ = association.send_n_set(content, MPPS, uid)
    assert isinstance(status, Dataset)
    return status


def status_of(archive: Archive) -> str:
    every = "SCHEDULED\\STARTED\\COMPLETED\\DISCONTINUED"
    return found(archive, k22000005="S26-1-A", k00400100_00400020=every)[0].status


def test_a_scan_moves_its_order_from_scheduled_to_completed(scp: Scp, archive: Archive) -> None:
    assert status_of(archive) == "SCHEDULED"
    assert create(scp).Status == 0x0000
    assert status_of(archive) == "STARTED"
    assert change(scp, from_json(performed_end("COMPLETED"))).Status == 0x0000
    assert status_of(archive) == "COMPLETED"
    kept = archive.performed_step(UID, **ASK)
    assert kept["00400340"]["Value"][0]["0020000E"]["Value"] == ["2.25.500"]  # type: ignore[index]
    assert kept["00100010"]["Value"] == [{"Alphabetic": "Müller^Rat"}]


def test_an_ended_step_may_no_longer_be_updated(scp: Scp) -> None:
    create(scp)
    change(scp, from_json(performed_end("DISCONTINUED")))
    refused = change(scp, from_json(performed_end("COMPLETED")))
    assert (refused.Status, refused.ErrorID) == (0x0110, 0xA710)
    assert refused.ErrorComment == "Performed Procedure Step Object may no longer be updated"


def test_a_step_without_a_uid_gets_one(scp: Scp, archive: Archive) -> None:
    assert create(scp, None).Status == 0x0000
    (uid,) = {one.sop_instance_uid for one in archive.changes(0, **ASK)} - {""}
    assert archive.performed_step(uid, **ASK)["00400252"]["Value"] == ["IN PROGRESS"]


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"t00400253": element("SH")}, 0x0121),
        ({"t00400252": element("CS", "COMPLETED")}, 0x0106),
    ],
    ids=str,
)
def test_a_step_that_is_not_as_it_must_be_is_refused(
    scp: Scp, archive: Archive, changes: dict[str, object], status: int
) -> None:
    refused = create(scp, **changes)
    assert refused.Status == status
    assert refused.ErrorComment
    assert status_of(archive) == "SCHEDULED"


def test_a_missing_attribute_is_named(scp: Scp) -> None:
    content = performed(1)
    del content["00400241"]
    with associated(scp.port) as association:
        status, _ = association.send_n_create(from_json(content), MPPS, UID)
    assert (status.Status, status.ErrorComment) == (0x0120, "00400241 is missing")


def test_a_uid_is_used_once(scp: Scp) -> None:
    create(scp)
    assert create(scp).Status == 0x0111


def test_what_is_not_there_or_is_anothers_is_not_changed(scp: Scp, archive: Archive) -> None:
    create(scp)
    content = from_json(performed_end("COMPLETED"))
    assert change(scp, content, "2.25.9").Status == 0x0112
    assert change(scp, content, ae_title="SCANNER2").Status == 0x0112
    assert status_of(archive) == "STARTED"


def test_attributes_that_may_not_change_are_left_and_named(scp: Scp, archive: Archive) -> None:
    create(scp)
    content = from_json({**performed_end("COMPLETED"), "00100020": element("LO", "SOMEBODY")})
    warned = change(scp, content)
    assert (warned.Status, int(warned.AttributeIdentifierList)) == (0x0107, 0x00100020)
    assert archive.performed_step(UID, **ASK)["00100020"]["Value"] == ["A-1"]
    assert status_of(archive) == "COMPLETED"


def test_a_step_can_be_retrieved_in_whole_and_in_part(scp: Scp) -> None:
    create(scp)
    with associated(scp.port) as association:
        status, whole = association.send_n_get([], MPPS_RETRIEVE, UID)
        assert status.Status == 0x0000
        assert (whole.PerformedProcedureStepStatus, str(whole.PatientName)) == ("IN PROGRESS", "Müller^Rat")
        status, part = association.send_n_get([0x00400252, 0x00100030], MPPS_RETRIEVE, UID)
        assert (status.Status, int(status.AttributeIdentifierList)) == (0x0107, 0x00100030)
        assert [one.keyword for one in part] == ["PerformedProcedureStepStatus"]
        status, _ = association.send_n_get([], MPPS_RETRIEVE, "2.25.9")
        assert status.Status == 0x0112


def test_all_statuses_are_of_the_service_class() -> None:
    for code in (0x0000, 0x0106, 0x0107, 0x0110, 0x0111, 0x0112, 0x0120, 0x0121, 0x0124):
        assert code in STATUSES


def test_a_scanner_starts_no_order_of_another_station(archive: Archive) -> None:
    schedule(archive, item(1))
    local = ("127.0.0.0/8",)
    peers = (
        Peer("SCANNER1", local, rights=("worklist",), stations=("ANOTHER",)),
        Peer("BROKER", local, rights=("worklist",)),
    )
    with running(archive, DimseSettings(peers=peers)) as scp:
        assert create(scp).Status == 0x0000  # the step is kept, as it is of no order that it may see
        assert status_of(archive) == "SCHEDULED"
        with associated(scp.port, ae_title="BROKER") as association:
            association.send_n_create(from_json(performed(1)), MPPS, "2.25.43")
        assert status_of(archive) == "STARTED"
