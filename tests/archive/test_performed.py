# SPDX-License-Identifier: Apache-2.0
"""Performed procedure steps: from IN PROGRESS to an end that stays."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from archive.access import EVERYTHING, NOTHING, Principal
from archive.errors import NotAllowed, StepRefused
from archive.service import Archive
from tests.archive.test_worklist import events
from tests.support import postgres
from tests.support.archives import ASK, TESTER, open_archive
from tests.support.worklist import element, found, item, performed, performed_end, query, schedule

UID = "2.25.42"
_NAMES = itertools.count()


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with postgres.server() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def archive(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Archive]:
    url = ""
    if request.param == "postgresql":
        url = postgres.new_database(request.getfixturevalue("server"), f"performed{next(_NAMES)}")
    opened = open_archive(tmp_path, url=url)
    schedule(opened, item(1), item(2))
    yield opened
    opened.close()


def begin(archive: Archive, uid: str = UID, *steps: int, **changes: dict[str, Any]) -> str:
    return archive.begin_performed_step(uid, performed(*(steps or (1,)), **changes), **ASK)


def end(archive: Archive, status: str, uid: str = UID, **changes: dict[str, Any]) -> tuple[str, ...]:
    return archive.update_performed_step(uid, performed_end(status, **changes), **ASK)


def state(archive: Archive, number: int = 1) -> str:
    every = "SCHEDULED\\STARTED\\COMPLETED\\DISCONTINUED\\CANCELED"
    keys = {"k00400100_00400009": f"STEP{number}", "k00400100_00400020": every}
    return found(archive, **keys)[0].status


def refusal(call: Any) -> tuple[int, tuple[str, ...]]:
    with pytest.raises(StepRefused) as refused:
        call()
    return refused.value.status, refused.value.attributes


@pytest.mark.parametrize("status", ["COMPLETED", "DISCONTINUED"])
def test_a_step_starts_what_it_names_and_ends_it(archive: Archive, status: str) -> None:
    assert begin(archive) == UID
    assert (state(archive, 1), state(archive, 2)) == ("STARTED", "SCHEDULED")
    assert len(list(archive.worklist(query(k22000005="S26-1-A"), **ASK))) == 1
    assert end(archive, status) == ()
    assert (state(archive, 1), state(archive, 2)) == (status, "SCHEDULED")
    assert list(archive.worklist(query(k22000005="S26-1-A"), **ASK)) == []
    assert [change.action for change in archive.changes(0, **ASK)][2:] == [
        "order-started",
        "step-in-progress",
        f"order-{status.lower()}",
        f"step-{status.lower()}",
    ]
    assert [(e["action"], e["detail"]["status"]) for e in events(archive, "110111")] == [
        ("C", "IN PROGRESS"),
        ("U", status),
    ]


@pytest.mark.parametrize("status", ["COMPLETED", "DISCONTINUED"])
def test_a_step_that_has_ended_never_changes(archive: Archive, status: str) -> None:
    begin(archive)
    end(archive, status)
    before = archive.performed_step(UID, **ASK)
    for again in ("IN PROGRESS", "COMPLETED", "DISCONTINUED"):
        with pytest.raises(StepRefused) as refused:
            end(archive, again)
        assert (refused.value.status, refused.value.error_id) == (0x0110, 0xA710)
    assert archive.performed_step(UID, **ASK) == before
    assert state(archive) == status


def test_a_second_try_starts_again_and_a_failed_one_undoes_nothing(archive: Archive) -> None:
    begin(archive)
    end(archive, "DISCONTINUED")
    begin(archive, "2.25.43")
    assert state(archive) == "STARTED"
    end(archive, "COMPLETED", "2.25.43")
    begin(archive, "2.25.44")
    end(archive, "DISCONTINUED", "2.25.44")
    assert state(archive) != "DISCONTINUED"


def test_one_step_may_do_several_scheduled_ones(archive: Archive) -> None:
    begin(archive, UID, 1, 2)
    end(archive, "COMPLETED")
    assert (state(archive, 1), state(archive, 2)) == ("COMPLETED", "COMPLETED")


def test_an_unscheduled_step_is_taken_and_moves_nothing(archive: Archive) -> None:
    begin(archive, UID, 7)
    end(archive, "COMPLETED")
    assert (state(archive, 1), state(archive, 2)) == ("SCHEDULED", "SCHEDULED")


def test_a_step_without_a_uid_gets_one(archive: Archive) -> None:
    uid = begin(archive, "")
    assert uid.startswith("2.25.")
    assert archive.performed_step(uid, **ASK)["00400252"]["Value"] == ["IN PROGRESS"]


def test_the_same_uid_twice_is_refused_and_the_first_stays(archive: Archive) -> None:
    begin(archive)
    before = archive.performed_step(UID, **ASK)
    assert refusal(lambda: begin(archive, UID, 2)) == (0x0111, ())
    assert archive.performed_step(UID, **ASK) == before
    assert state(archive, 2) == "SCHEDULED"


@pytest.mark.parametrize("tag", ["00080060", "00400241", "00400244", "00400245", "00400252", "00400253"])
def test_what_is_required_at_first_is_missed(archive: Archive, tag: str) -> None:
    attributes = performed(1)
    empty = {**attributes, tag: {"vr": attributes[tag]["vr"]}}
    del attributes[tag]
    assert refusal(lambda: archive.begin_performed_step(UID, attributes, **ASK)) == (0x0120, (tag,))
    assert refusal(lambda: archive.begin_performed_step(UID, empty, **ASK)) == (0x0121, (tag,))
    assert state(archive) == "SCHEDULED"


def test_the_study_of_each_scheduled_step_is_required(archive: Archive) -> None:
    attributes = performed(1)
    del attributes["00400270"]["Value"][0]["0020000D"]
    assert refusal(lambda: archive.begin_performed_step(UID, attributes, **ASK)) == (0x0120, ("0020000D",))


def test_a_step_begins_in_progress_only(archive: Archive) -> None:
    done = {"t00400252": element("CS", "COMPLETED")}
    assert refusal(lambda: begin(archive, **done)) == (0x0106, ("00400252",))


def test_no_end_without_its_time_and_none_completed_without_series(archive: Archive) -> None:
    begin(archive)
    assert refusal(lambda: end(archive, "COMPLETED", t00400250=element("DA"))) == (0x0121, ("00400250",))
    assert refusal(lambda: end(archive, "COMPLETED", t00400340=element("SQ"))) == (0x0121, ("00400340",))
    assert state(archive) == "STARTED"
    assert end(archive, "DISCONTINUED", t00400340=element("SQ")) == ()


def test_an_unknown_status_is_refused(archive: Archive) -> None:
    begin(archive)
    assert refusal(lambda: end(archive, "PAUSED")) == (0x0106, ("00400252",))


def test_a_value_that_is_none_of_its_vr_is_refused(archive: Archive) -> None:
    assert refusal(lambda: begin(archive, t00400244=element("DA", "today")))[0] == 0x0106


def test_whose_step_it_is_cannot_be_changed(archive: Archive) -> None:
    begin(archive)
    ignored = end(archive, "COMPLETED", t00100020=element("LO", "SOMEBODY"))
    assert ignored == ("00100020",)
    assert archive.performed_step(UID, **ASK)["00100020"]["Value"] == ["A-1"]


def test_another_peers_step_is_not_there(archive: Archive) -> None:
    mine = {"principal": Principal("SCANNER1", "dimse"), "scope": EVERYTHING}
    other = {"principal": Principal("SCANNER2", "dimse"), "scope": EVERYTHING}
    archive.begin_performed_step(UID, performed(1), **mine)
    for call in (
        lambda: archive.update_performed_step(UID, performed_end("COMPLETED"), **other),
        lambda: archive.performed_step(UID, **other),
        lambda: archive.update_performed_step("2.25.9", performed_end("COMPLETED"), **mine),
    ):
        assert refusal(call) == (0x0112, ())
    assert archive.update_performed_step(UID, performed_end("COMPLETED"), **mine) == ()


def test_who_sees_nothing_begins_nothing(archive: Archive) -> None:
    with pytest.raises(NotAllowed):
        archive.begin_performed_step(UID, performed(1), principal=TESTER, scope=NOTHING)
    assert state(archive) == "SCHEDULED"
