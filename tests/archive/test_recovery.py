# SPDX-License-Identifier: Apache-2.0
"""What a kill or a lost object leaves is told, mended where it is safe, and never worse."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from archive import processes, recovery
from archive.errors import BadQuery, StoreTooNew
from archive.service import Archive
from tests.support.archives import ASK, open_archive, store_bytes
from tests.support.faults import flip_bit
from tests.support.instances import make_instance


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    opened = open_archive(tmp_path)
    yield opened
    opened.close()


def journal_files(folder: Path) -> list[Path]:
    return [p for p in (folder / "store" / "journal").rglob("*") if p.is_file()]


def test_a_lost_journal_entry_is_told_and_brings_nothing_back(archive: Archive, tmp_path: Path) -> None:
    stored = store_bytes(archive, make_instance())
    archive.delete(stored.study_instance_uid, reason="r", **ASK)
    (entry,) = journal_files(tmp_path)
    entry.unlink()
    found = list(archive.verify(**ASK, repair=True))
    assert [(f.kind, f.subject) for f in found] == [("journal", stored.sop_instance_uid)]
    assert archive.recover(everything=True) == []
    assert archive.slides(**ASK) == []


def test_a_damaged_journal_entry_is_told_and_stops_neither_verify_nor_recover(
    archive: Archive, tmp_path: Path
) -> None:
    stored = store_bytes(archive, make_instance())
    store_bytes(archive, make_instance())
    archive.delete(stored.study_instance_uid, reason="r", **ASK)
    (entry,) = journal_files(tmp_path)
    flip_bit(entry, 40)
    assert {f.kind for f in archive.verify(**ASK)} == {"journal"}
    assert {f.kind for f in archive.recover(everything=True)} == {"journal"}
    assert len(archive.slides(**ASK)) == 1


def test_a_killed_reindex_is_done_again_and_is_not_ready_before(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for study in ("1.2.1", "1.2.2", "1.2.3"):
        store_bytes(archive, make_instance(study=study))
    tombstones = recovery._tombstones
    calls: list[int] = []

    def die(*arguments: object) -> None:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        tombstones(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(recovery, "_tombstones", die)
    with pytest.raises(KeyboardInterrupt):
        archive.reindex(**ASK)
    monkeypatch.setattr(recovery, "_tombstones", tombstones)
    survivor = open_archive(tmp_path)
    assert survivor.ready()["database"] != "ok"
    (finding,) = survivor.recover()
    assert finding.repaired
    assert len(survivor.slides(**ASK)) == 3
    assert survivor.ready()["database"] == "ok"
    survivor.close()


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE study SET patient_id = 'other', patient_name = 'Other^Name'",
        "UPDATE instance SET photometric_interpretation = 'RGB'",
        "DELETE FROM header_revision",
    ],
)
def test_verify_finds_an_index_that_differs_from_the_headers(archive: Archive, damage: str) -> None:
    store_bytes(archive, make_instance())
    index = archive._core.index
    index.write(lambda: index.database.execute_sql(damage))
    kinds = {f.kind for f in archive.verify(**ASK)}
    assert "index" in kinds


def test_spool_files_of_the_living_stay_and_those_of_the_dead_go(archive: Archive, tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    mine = archive.spool_path()
    space, pid, _ = processes.own_name().split("-")
    dead = spool / f"{space}-{pid}-1-abc.part"  # the same id, another start
    elsewhere = spool / "01234567.f00-1-5-abc.part"
    old = spool / "01234567.f00-1-5-old.part"
    for path in (mine, dead, elsewhere, old):
        path.touch()
    os.utime(old, (0, 0))
    archive.recover()
    assert {p.name for p in spool.iterdir()} == {mine.name, elsewhere.name}
    mine.unlink()


@pytest.mark.parametrize(
    "patch",
    [
        {"SpecimenDescriptionSequence": "nonsense"},
        {"SpecimenDescriptionSequence": [{"zz": 1}]},
        {"PerFrameFunctionalGroupsSequence": None},
        {"BitsStored": 12},
        {"TotalPixelMatrixColumns": 3},
        {"MediaStorageSOPInstanceUID": "1.2"},
        {"StudyInstanceUID": "1.2"},
        {"StudyDate": "99"},
        {"PatientID": "x" * 65},
        {"NoSuchKeyword": "1"},
        {},
    ],
)
def test_a_correction_that_would_break_the_instance_is_refused(
    archive: Archive, patch: dict[str, object]
) -> None:
    stored = store_bytes(archive, make_instance())
    with pytest.raises(BadQuery):
        archive.correct(stored.study_instance_uid, patch, reason="r", **ASK)
    assert list(archive.verify(**ASK)) == []


def test_a_correction_may_replace_the_specimens(archive: Archive) -> None:
    stored = store_bytes(archive, make_instance())
    specimen = {
        "00400551": {"vr": "LO", "Value": ["SP-9"]},
        "00400554": {"vr": "UI", "Value": ["2.25.9"]},
    }
    patch = {"SpecimenDescriptionSequence": [specimen], "PatientName": "Müller^Jörg"}
    archive.correct(stored.study_instance_uid, patch, reason="order", **ASK)
    assert archive.slides(**ASK)[0].patient_name == "Müller^Jörg"
    assert list(archive.verify(**ASK)) == []


def test_a_newer_journal_is_refused(archive: Archive) -> None:
    from datetime import UTC, datetime

    from archive.journal import VERSION, decode_entry, key_of

    data = b'{"journal":%d}' % (VERSION + 1)
    with pytest.raises(StoreTooNew):
        decode_entry(key_of(datetime.now(UTC), data), data)
