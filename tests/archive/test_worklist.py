# SPDX-License-Identifier: Apache-2.0
"""Orders: added, changed, cancelled, found; every change kept and audited."""

import itertools
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from archive.access import NOTHING, Principal, Scope
from archive.errors import BadOrder, BadQuery, NoSuchOrder, NotAllowed
from archive.index.matching import parse_match
from archive.index.worklist import WorklistQuery
from archive.service import Archive
from archive.worklist import NewItem
from archive.worklist_items import prepare
from tests.support import postgres
from tests.support.archives import ASK, TESTER, open_archive
from tests.support.worklist import element, found, item, query, schedule, specimen, steps

_NAMES = itertools.count()


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with postgres.server() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def archive(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Archive]:
    url = ""
    if request.param == "postgresql":
        url = postgres.new_database(request.getfixturevalue("server"), f"worklist{next(_NAMES)}")
    opened = open_archive(tmp_path, url=url)
    yield opened
    opened.close()


@pytest.fixture
def sqlite(tmp_path: Path) -> Iterator[Archive]:
    opened = open_archive(tmp_path)
    yield opened
    opened.close()


def events(archive: Archive, code: str) -> list[dict[str, Any]]:
    with archive._core.index.read() as database:
        rows = database.execute_sql(
            f"SELECT event FROM audit_event WHERE code = '{code}' ORDER BY id"
        ).fetchall()
    return [json.loads(row[0]) for row in rows]


def test_an_order_is_found_by_what_is_on_the_slide(archive: Archive) -> None:
    schedule(archive, *(item(number) for number in range(1, 5)))
    for keys in (
        {"k22000005": "S26-3-A"},
        {"k00400500_00400512": "S26-3-A"},
        {"k00400500_00400560_00400551": "S26-3-A-1"},
        {"k00080050": "P26-3"},
        {"k00100020": "A-3"},
        {"k00100010": "MULLER^RAT 3"},
        {"k00401001": "RP3"},
        {"k0020000D": "2.25.10013"},
        {"k00400500_00400512": "S26-[39]-*\\S26-3-?"},
    ):
        assert steps(found(archive, **keys)) == ["STEP3"], keys


def test_items_come_by_date_and_time_of_their_day_only(archive: Archive) -> None:
    days = ["20261126", "20261124", "20261125"]
    schedule(archive, *(item(n, s00400002=element("DA", day)) for n, day in enumerate(days, 1)))
    assert steps(found(archive)) == ["STEP2", "STEP3", "STEP1"]
    assert steps(found(archive, k00400100_00400002="20261125-")) == ["STEP3", "STEP1"]
    assert steps(found(archive, k00400100_00400002="20261124")) == ["STEP2"]


def test_a_range_of_dates_and_one_of_times_are_one_of_instants(archive: Archive) -> None:
    at = [("20261124", "0900"), ("20261124", "1100"), ("20261125", "0700"), ("20261125", "1200")]
    schedule(
        archive,
        *(
            item(n, s00400002=element("DA", day), s00400003=element("TM", time))
            for n, (day, time) in enumerate(at, 1)
        ),
    )
    keys = {"k00400100_00400002": "20261124-20261125", "k00400100_00400003": "1000-1130"}
    assert steps(found(archive, **keys)) == ["STEP2", "STEP3"]


def test_keys_of_a_sequence_must_be_fulfilled_by_one_of_its_items(archive: Archive) -> None:
    schedule(archive, item(1, t00400500=element("SQ", specimen("GLASS-1"), specimen("GLASS-2"))))
    both = {"k00400500_00400512": "GLASS-1", "k00400500_00400560_00400551": "GLASS-1-1"}
    mixed = {**both, "k00400500_00400560_00400551": "GLASS-2-1"}
    assert len(found(archive, **both)) == 1
    assert found(archive, **mixed) == []


def test_a_step_for_no_station_in_particular_is_for_every_one(archive: Archive) -> None:
    schedule(archive, item(1), item(2, s00400001=element("AE")), item(3, s00400001=element("AE", "OTHER")))
    assert steps(found(archive, k00400100_00400001="SCANNER1")) == ["STEP1", "STEP2"]
    assert steps(found(archive, k00400100_00400001="SCANNER?")) == ["STEP1", "STEP2"]
    assert steps(found(archive, ("OTHER",))) == ["STEP2", "STEP3"]
    assert steps(found(archive, ())) == ["STEP2"]
    assert steps(found(archive)) == ["STEP1", "STEP2", "STEP3"]


def test_what_is_over_is_shown_to_who_asks_for_it_only(archive: Archive) -> None:
    one, _ = schedule(archive, item(1), item(2))
    archive.unschedule(one.identifier, reason="the animal lives", source="test", **ASK)
    assert steps(found(archive)) == ["STEP2"]
    assert found(archive, k22000005="S26-1-A") == []
    assert steps(found(archive, k00400100_00400020="CANCELED")) == ["STEP1"]
    assert len(list(archive.worklist(WorklistQuery(all_states=True), **ASK))) == 2
    schedule(archive, item(1))
    assert steps(found(archive, k22000005="S26-1-A")) == ["STEP1"]


def test_a_change_keeps_what_was_and_leaves_one_event(archive: Archive) -> None:
    (first,) = schedule(archive, item(1))
    (same,) = schedule(archive, item(1))
    changed = item(1, t00100010=element("PN", {"Alphabetic": "Meyer^Rat"}))
    (second,) = schedule(archive, changed, source="hl7")
    assert [one.outcome for one in (first, same, second)] == ["added", "unchanged", "changed"]
    assert steps(found(archive, k00100010="meyer*")) == ["STEP1"]
    assert found(archive, k00100010="muller*") == []
    (former,) = archive.order_history(first.identifier, **ASK)
    assert former.content["00100010"]["Value"] == [{"Alphabetic": "Müller^Rat 1"}]
    assert (former.revision, former.source) == (0, "test")
    assert [(e["action"], e["detail"]["change"]) for e in events(archive, "110109")] == [
        ("C", "scheduled"),
        ("U", "scheduled"),
    ]
    assert [change.action for change in archive.changes(0, **ASK)] == ["order-scheduled"] * 2


def test_an_order_that_is_put_off_is_found_on_its_new_day_only(archive: Archive) -> None:
    schedule(archive, item(1))
    schedule(archive, item(1, s00400002=element("DA", "20270101")))
    assert found(archive, k00400100_00400002="20261124") == []
    assert steps(found(archive, k00400100_00400002="20270101", k22000005="S26-1-A")) == ["STEP1"]
    assert len(found(archive)) == 1


def test_an_order_that_does_not_say_when_keeps_its_day(sqlite: Archive) -> None:
    without = item(1, s00400002=element("DA"), s00400003=element("TM"))
    (first,) = schedule(sqlite, without)
    assert schedule(sqlite, without)[0].outcome == "unchanged"
    assert first.outcome == "added"


def test_an_order_that_becomes_sensitive_is_changed(sqlite: Archive) -> None:
    schedule(sqlite, item(1))
    (done,) = sqlite.schedule([NewItem(item(1), sensitivity=1)], source="test", **ASK)
    assert done.outcome == "changed"
    hidden = {"principal": TESTER, "scope": Scope("study.sensitivity = 0")}
    assert list(sqlite.worklist(query(), **hidden)) == []


def test_slides_of_one_case_share_a_study_that_was_not_given(archive: Archive) -> None:
    case = {"t0020000D": element("UI"), "t00080050": element("SH", "CASE"), "t00100020": element("LO", "A")}
    one, two = schedule(archive, item(1, **case), item(2, **case))
    (other,) = schedule(archive, item(3, t0020000D=element("UI")))
    assert one.study_instance_uid == two.study_instance_uid != other.study_instance_uid
    assert one.study_instance_uid.startswith("2.25.")
    (again,) = schedule(archive, item(1, **case))
    assert (again.study_instance_uid, again.outcome) == (one.study_instance_uid, "unchanged")


def test_the_barcode_is_that_of_the_only_container(sqlite: Archive) -> None:
    schedule(sqlite, item(1), item(2, t22000005=element("LT", "BAR")))
    contents = [one.content["22000005"]["Value"] for one in found(sqlite)]
    assert sorted(contents) == [["BAR"], ["S26-1-A"]]


def test_pages_follow_each_other_without_gap_or_repetition(sqlite: Archive) -> None:
    new = [NewItem(item(number)) for number in range(1, 1203)]
    sqlite.schedule(new, source="test", **ASK)
    got = steps(list(sqlite.worklist(query(k00400100_00080060="SM"), **ASK)))
    assert len(got) == len(set(got)) == 1202


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"t00080050": element("SH", "A" * 17)}, "00080050"),
        ({"t00100020": element("LO", "A\\B")}, "00100020"),
        ({"t00100030": element("DA", "yesterday")}, "00100030"),
        ({"t00100020": element("SH", "A")}, "00100020"),
        ({"t00100020": element("LO")}, "PatientID"),
        ({"t0020000D": element("UI", "1.2.x")}, "0020000D"),
        ({"s00400001": element("AE", "Ä")}, "00400001"),
        ({"s00400020": element("CS", "PERHAPS")}, "ScheduledProcedureStepStatus"),
        ({"t00480001": {"vr": "OB", "InlineBinary": "AA=="}}, "00480001"),
    ],
)
def test_a_value_that_its_attribute_cannot_hold_is_refused_and_named(
    sqlite: Archive, changes: dict[str, Any], named: str
) -> None:
    with pytest.raises(BadOrder, match=named):
        schedule(sqlite, item(1, **changes))
    assert found(sqlite) == []


def test_one_bad_item_of_many_schedules_none(sqlite: Archive) -> None:
    with pytest.raises(BadOrder):
        schedule(sqlite, item(1), item(2, t00100020=element("LO")))
    assert found(sqlite) == []


def test_a_limited_scope_sees_what_its_predicate_allows_and_schedules_nothing(archive: Archive) -> None:
    schedule(archive, item(1), item(2))
    scope = Scope("study.study_instance_uid = ?", ("2.25.10011",))
    limited = {"principal": Principal("guest", "cli"), "scope": scope}
    assert steps(list(archive.worklist(query(), **limited))) == ["STEP1"]
    assert list(archive.worklist(query(), principal=TESTER, scope=NOTHING)) == []
    with pytest.raises(NotAllowed):
        schedule(archive, item(3), **limited)


def test_a_scope_over_a_studys_own_number_fails_and_shows_nothing(archive: Archive) -> None:
    schedule(archive, item(1))
    with pytest.raises(Exception, match="id"):
        list(archive.worklist(query(), principal=TESTER, scope=Scope("study.id = 1")))


def test_cancelling_what_is_not_there_is_refused(sqlite: Archive) -> None:
    with pytest.raises(NoSuchOrder):
        sqlite.unschedule("nothing", reason="", source="test", **ASK)


def test_a_key_that_is_not_of_the_worklist_is_refused() -> None:
    with pytest.raises(BadQuery):
        WorklistQuery((parse_match("00280010", "US", "1"),))


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["vr", "Value", "00100010", "00400100", "00400500", "Alphabetic", "0010000"]),
            inner,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.dictionaries(
        st.sampled_from(["00100010", "00100020", "00400100", "00400500", "0020000D", "00080050", "x"]), _JSON
    )
)
def test_any_json_is_an_item_or_refused(value: dict[str, Any]) -> None:
    try:
        kept = prepare(value, now=datetime(2026, 11, 24, tzinfo=UTC))
    except BadOrder:
        return
    assert prepare(kept.content, now=datetime(2027, 1, 1, tzinfo=UTC)).content == kept.content
