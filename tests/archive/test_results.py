# SPDX-License-Identifier: Apache-2.0
"""Results one by one, patients, and transfers as a whole."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from archive.access import NOTHING, Action, OpenPolicy, Principal, Scope
from archive.errors import Gone, NotAllowed, TooLarge
from archive.index.query import Level, Query, parse_match
from archive.service import Archive
from archive.values import Stored
from tests.support.archives import ASK, TESTER, open_archive, store_bytes
from tests.support.instances import make_instance

MOVER = {**ASK, "principal": Principal("MOVER", "dimse")}


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    opened = open_archive(tmp_path)
    yield opened
    opened.close()


def events(archive: Archive, *codes: str) -> list[dict[str, object]]:
    index = archive._core.index
    with index.read():
        return [json.loads(e.event) for e in index.models.AuditEvent.select() if e.code in codes]


def test_a_result_has_what_was_asked_for_and_the_uids_above_it(archive: Archive) -> None:
    stored = store_bytes(archive, make_instance())
    include = ("00080060", "00400560.00400551", "00080008")
    (row,) = archive.find_all(Query(Level.INSTANCE, include=include), **ASK)
    assert set(row) == {"0020000D", "0020000E", "00080018", "00080060", "00400560", "00080008"}
    assert row["00080018"] == {"vr": "UI", "Value": [stored.sop_instance_uid]}
    sequence = row["00400560"]
    assert isinstance(sequence, dict)
    assert [set(item) for item in sequence["Value"]] == [{"00400551"}]
    (study,) = archive.find_all(Query(Level.STUDY, include=("00100010", "00080008")), **ASK)
    assert set(study) == {"0020000D", "00100010"}


def test_all_rows_come_though_a_page_holds_fewer(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("archive.index.search.PAGE", 3)
    sops = {store_bytes(archive, make_instance(study="1.2")).sop_instance_uid for _ in range(7)}
    rows = list(archive.find_all(Query(Level.INSTANCE), **ASK))
    assert sorted(row["00080018"]["Value"][0] for row in rows) == sorted(sops)  # type: ignore[index]


def test_a_patient_has_the_numbers_of_all_its_studies_that_are_seen(archive: Archive) -> None:
    for study in ("1.2.1", "1.2.1", "1.2.2"):
        store_bytes(archive, make_instance(study=study, series=f"{study}.5"))
    query = Query(
        Level.STUDY,
        (parse_match("0020000D", "UI", "1.2.1"),),
        ("00201200", "00201202", "00201204", "00100010", "00101010"),
    )
    (row,) = archive.find_patients(query, **ASK)
    assert [row[tag]["Value"] for tag in ("00201200", "00201202", "00201204")] == [[2], [2], [3]]  # type: ignore[index]
    assert row["00100020"] == {"vr": "LO", "Value": ["P1"]}
    assert "0020000D" not in row
    limited = {"principal": TESTER, "scope": Scope("study.study_instance_uid = ?", ("1.2.1",))}
    (row,) = archive.find_patients(query, **limited)
    assert row["00201200"] == {"vr": "IS", "Value": [1]}


def test_a_query_without_the_right_is_refused_before_a_row_is_taken(tmp_path: Path) -> None:
    class StoreOnly(OpenPolicy):
        def allows(self, principal: Principal, action: Action) -> bool:
            return action is Action.STORE

    archive = open_archive(tmp_path, policy=StoreOnly())
    for call in (archive.find_all, archive.find_patients):
        with pytest.raises(NotAllowed):
            call(Query(Level.STUDY), **ASK)
    with pytest.raises(NotAllowed):
        archive.transfer(Query(Level.INSTANCE), "AE", **ASK)
    archive.close()


def stored_two(archive: Archive) -> list[Stored]:
    return [store_bytes(archive, make_instance(study=study)) for study in ("1.2.1", "1.2.2")]


def test_a_transfer_is_on_record_before_it_is_read_and_after_it_ended(archive: Archive) -> None:
    stored = stored_two(archive)
    with archive.transfer(Query(Level.INSTANCE), "VIEWER", **MOVER) as transfer:
        begun = events(archive, "110102")
        assert {event["study"] for event in begun} == {"1.2.1", "1.2.2"}
        assert begun[0]["detail"] == {"destination": "VIEWER", "number_of_instances": 1}
        assert begun[0]["actor"] == "MOVER"
        first, second = transfer.references
        assert b"".join(transfer.open(first).chunks)[128:132] == b"DICM"
        transfer.sent(first)
        transfer.failed(second)
    ended = {event["study"]: event for event in events(archive, "110104") if event["action"] == "R"}
    assert ended[first.study_instance_uid]["outcome"] == 0
    assert ended[second.study_instance_uid]["outcome"] == 8
    assert ended[first.study_instance_uid]["detail"] == {
        "destination": "VIEWER",
        "failed": 0,
        "number_of_instances": 1,
        "sop_classes": {stored[0].sop_class_uid: 1},
    }
    lines = b"".join(file.read_bytes() for file in archive._core.access.files())
    assert b'"instance"' not in lines  # no second event for what was read on the way


def test_a_transfer_that_breaks_tells_what_had_gone(archive: Archive) -> None:
    stored_two(archive)
    transfer = archive.transfer(Query(Level.INSTANCE), "VIEWER", **MOVER)
    transfer.sent(transfer.__enter__().references[0])
    transfer.__exit__(RuntimeError, RuntimeError(), None)
    assert len([event for event in events(archive, "110104") if event["action"] == "R"]) == 1


def test_a_transfer_of_nothing_leaves_no_trace_and_one_of_too_much_is_refused(archive: Archive) -> None:
    stored_two(archive)
    with archive.transfer(Query(Level.INSTANCE), "V", principal=TESTER, scope=NOTHING) as transfer:
        assert transfer.references == []
    assert events(archive, "110102") == []
    with pytest.raises(TooLarge):
        archive.transfer(Query(Level.INSTANCE), "V", most=1, **ASK)


def test_what_was_deleted_since_is_told_so(archive: Archive) -> None:
    stored_two(archive)
    with archive.transfer(Query(Level.INSTANCE), "V", **ASK) as transfer:
        archive.delete("1.2.1", reason="test", **ASK)
        (gone,) = [one for one in transfer.references if one.study_instance_uid == "1.2.1"]
        with pytest.raises(Gone):
            transfer.open(gone)
