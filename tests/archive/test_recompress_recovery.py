# SPDX-License-Identifier: Apache-2.0
"""Recompression killed, forgotten by the index, and damaged."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from archive.errors import CannotDecode, Damaged
from archive.index import migrations
from archive.index.database import Index
from archive.service import Archive
from tests.archive.test_integrity import contents
from tests.support import postgres
from tests.support.archives import ASK, open_archive, store_bytes
from tests.support.codec import DirectCodec
from tests.support.faults import flip_bit
from tests.support.require import ROOT
from tests.support.tissue import (
    TILES,
    a_day_later,
    blob_path,
    blobs,
    only,
    recompress,
    slide,
    stream,
    uids,
)


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    opened = open_archive(tmp_path, codec=DirectCodec())
    yield opened
    opened.close()


# ---- kills -----------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["recompress", "expand"])
@pytest.mark.parametrize(
    ("part", "when", "done"),
    [
        ("blob", "before", False),
        ("blob", "after", False),
        ("journal", "before", False),
        ("journal", "after", True),
        ("commit", "before", True),
        ("transaction", "before", True),
        ("transaction", "after", True),
        ("commit", "after", True),
    ],
)
def test_a_kill_at_any_step_leaves_one_form_or_the_other_and_the_same_bytes(
    tmp_path: Path, verb: str, part: str, when: str, done: bool
) -> None:
    data = slide()
    first = open_archive(tmp_path / "site", codec=DirectCodec())
    stored = store_bytes(first, data)
    if verb == "expand":
        recompress(first, stored)
        a_day_later(first)
        assert first.collect_garbage(**ASK) == 1
    first.close()
    died = subprocess.run(
        [sys.executable, "-m", "tests.support.doomed", str(tmp_path / "site"), "-", part, when, verb],
        cwd=ROOT, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert died.returncode == -9, died.stderr

    survivor = open_archive(tmp_path / "site", codec=DirectCodec())
    survivor.recover()
    assert is_packed(survivor) == [done is (verb == "recompress")]
    assert list(survivor.verify(**ASK)) == []
    assert not list((tmp_path / "site" / "spool").iterdir())
    assert stream(survivor, stored) == data
    again = only(survivor, stored, undo=verb == "expand")[0]
    assert again == ("already" if done else "recompressed" if verb == "recompress" else "expanded")
    assert stream(survivor, stored) == data
    a_day_later(survivor)
    survivor.collect_garbage(**ASK)
    assert len(blobs(tmp_path / "site")) == 1
    assert survivor.reindex(**ASK) == 1
    assert stream(survivor, stored) == data
    assert list(survivor.verify(**ASK)) == []
    survivor.close()


# ---- the journal -----------------------------------------------------------------------


def filled(archive: Archive) -> None:
    """Recompressed; recompressed and back; corrected and recompressed; replaced since."""
    for number in range(4):
        store_bytes(archive, slide(study=f"1.2.{number}", series=f"1.3.{number}", sop=f"1.4.{number}"))
        list(archive.recompress(f"1.2.{number}", reason="r", **ASK))
    list(archive.recompress("1.2.1", undo=True, reason="r", **ASK))
    archive.correct("1.2.2", {"PatientID": "P9"}, reason="r", **ASK)
    again = slide(TILES[::-1], study="1.2.3", series="1.3.3", sop="1.4.3")
    store_bytes(archive, again, replace=True)


def places(archive: Archive) -> list[object]:
    index = archive._core.index
    with index.read() as database:
        return sorted(
            (sop, position, bytes(digest), None if first is None else (bytes(first), size))
            for sop, position, digest, first, size in database.execute_sql(
                "SELECT i.sop_instance_uid, l.position, b.digest, l.unpacked_digest, l.unpacked_size_bytes "
                "FROM instance_blob l JOIN instance i ON i.id = l.instance_id "
                "JOIN blob b ON b.id = l.blob_id"
            ).fetchall()
        )


def streams(archive: Archive) -> dict[str, bytes]:
    return {
        f"1.4.{n}": b"".join(
            archive.open(archive.instance(f"1.2.{n}", f"1.3.{n}", f"1.4.{n}", **ASK), **ASK).chunks
        )
        for n in range(4)
    }


def is_packed(archive: Archive) -> list[bool]:
    return [place[3] is not None for place in places(archive)]  # type: ignore[index]


def rebuilds(archive: Archive) -> None:
    filled(archive)
    a_day_later(archive)
    archive.collect_garbage(**ASK)
    before = contents(archive), places(archive), streams(archive)
    assert is_packed(archive) == [True, False, True, False]
    assert archive.reindex(**ASK) == 4
    assert (contents(archive), places(archive), streams(archive)) == before
    assert list(archive.verify(**ASK)) == []
    assert archive.recover(everything=True) == []
    assert (contents(archive), places(archive), streams(archive)) == before


def test_reindex_gives_the_forms_that_were_there(archive: Archive) -> None:
    rebuilds(archive)


def migrates(folder: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An index of schema 1 keeps its rows, and knows of no blob that stands for another."""
    with monkeypatch.context() as patched:
        patched.setattr(migrations, "MIGRATIONS", migrations.MIGRATIONS[:1])
        patched.setattr(migrations, "LATEST", 1)
        index = Index.open(url, run_dir=folder / "run")
        index.migrate()
        index.write(lambda: index.models.Blob.create(digest=b"d" * 32, size_bytes=1))
        index.close()
    index = Index.open(url, run_dir=folder / "run")
    index.migrate()
    with index.read():
        assert index.models.Blob.select().count() == 1
        assert (
            list(
                index.models.InstanceBlob.select().where(
                    index.models.InstanceBlob.unpacked_digest.is_null(False)
                )
            )
            == []
        )
    assert index.schema_version() == migrations.LATEST >= 2
    index.close()


def test_an_older_index_is_migrated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    migrates(tmp_path, f"sqlite:///{tmp_path / 'old.db'}", monkeypatch)


def test_the_same_on_postgresql(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with postgres.server() as cluster:
        migrates(tmp_path, postgres.new_database(cluster, "older"), monkeypatch)
        url = postgres.new_database(cluster, "recompress")
        archive = open_archive(tmp_path, codec=DirectCodec(), url=url)
        rebuilds(archive)
        archive.delete("1.2.0", reason="r", **ASK)
        archive.close()


def test_a_lost_database_is_rebuilt_with_the_forms_that_are_in_storage(
    archive: Archive, tmp_path: Path
) -> None:
    filled(archive)
    before = places(archive), streams(archive)
    archive.close()
    for path in tmp_path.glob("coverslip.db*"):
        path.unlink()
    rebuilt = open_archive(tmp_path, codec=DirectCodec())
    rebuilt.reindex(**ASK)
    assert (places(rebuilt), streams(rebuilt)) == before
    rebuilt.close()


def test_an_entry_whose_second_blob_is_gone_stops_neither_recover_nor_reindex(
    archive: Archive, tmp_path: Path
) -> None:
    """As after a kill between entry and commit, and a garbage collection before recover."""
    data = slide(study="1.2.0", series="1.3.0", sop="1.4.0")
    stored = store_bytes(archive, data)
    (first,) = blobs(tmp_path)
    recompress(archive, stored)
    (second,) = blobs(tmp_path) - {first}
    store = tmp_path / "store"
    shutil.copytree(store, tmp_path / "copy")
    recompress(archive, stored, undo=True)
    (undone,) = set(archive._core.storage.keys("journal/")) - {
        p.relative_to(tmp_path / "copy").as_posix() for p in (tmp_path / "copy").rglob("*") if p.is_file()
    }
    archive._core.storage.delete(undone)
    blob_path(tmp_path, second).unlink()
    index = archive._core.index
    index.write(lambda: index.models.Blob.delete().where(index.models.Blob.state != "live").execute())

    (finding,) = archive.recover(everything=True)
    assert (finding.kind, finding.repaired) == ("journal", False)
    assert "missing" in finding.detail
    assert archive.reindex(**ASK) == 1
    assert stream(archive, stored) == data


def test_recover_does_not_bring_back_what_was_undone(archive: Archive) -> None:
    stored = store_bytes(archive, slide())
    recompress(archive, stored)
    recompress(archive, stored, undo=True)
    recompress(archive, stored)
    recompress(archive, stored, undo=True)
    before = places(archive)
    assert archive.recover(everything=True) == []
    assert places(archive) == before


def test_entries_of_other_actions_keep_their_version(archive: Archive) -> None:
    stored = store_bytes(archive, slide())
    recompress(archive, stored)
    archive.delete(stored.study_instance_uid, reason="r", **ASK)
    found = {}
    for key in archive._core.storage.keys("journal/"):
        with archive._core.storage.open(key) as file:
            entry = json.loads(file.pread(0, file.size))
        found[entry["action"]] = (entry["journal"], "moves" in entry)
    assert found == {"recompress": (2, True), "delete": (1, False)}


# ---- damage ----------------------------------------------------------------------------


def second_blob(archive: Archive, tmp_path: Path) -> Path:
    (place,) = places(archive)
    return blob_path(tmp_path, place[2].hex())  # type: ignore[index]


@pytest.mark.parametrize("part", ["head", "header", "frame", "index"])
def test_verify_tells_damage_of_the_second_blob_and_nothing_damaged_is_exported(
    archive: Archive, tmp_path: Path, part: str
) -> None:
    stored = store_bytes(archive, slide())
    recompress(archive, stored)
    path = second_blob(archive, tmp_path)
    size = path.stat().st_size
    flip_bit(path, {"head": 30, "header": 100, "frame": size // 2, "index": size - 20}[part])
    archive._core.files.clear()
    found = {f.kind for f in archive.verify(**ASK)}
    assert found == {"blob", "recompressed"}
    archive._retriever.handles.clear()
    with pytest.raises((Damaged, CannotDecode)):
        archive.check(archive.instance(*uids(stored), **ASK), **ASK)
    blob_path(tmp_path, archive.instance(*uids(stored), **ASK).base_digest.hex()).unlink()
    before = places(archive)
    assert only(archive, stored, undo=True)[0] == "failed"
    assert places(archive) == before


def test_while_the_first_blob_is_there_a_damaged_second_one_can_be_left_again(
    archive: Archive, tmp_path: Path
) -> None:
    data = slide()
    stored = store_bytes(archive, data)
    recompress(archive, stored)
    path = second_blob(archive, tmp_path)
    flip_bit(path, path.stat().st_size // 2)
    archive._core.files.clear()
    assert only(archive, stored, undo=True) == ("expanded", "")
    assert stream(archive, stored) == data
    a_day_later(archive)
    archive.collect_garbage(**ASK)
    assert list(archive.verify(**ASK)) == []


def test_verify_tells_a_second_blob_that_is_missing(archive: Archive, tmp_path: Path) -> None:
    stored = store_bytes(archive, slide())
    recompress(archive, stored)
    second_blob(archive, tmp_path).unlink()
    archive._core.files.clear()
    assert {f.kind for f in archive.verify(**ASK)} == {"blob", "recompressed"}
    archive._retriever.handles.clear()
    with pytest.raises(Damaged):
        archive.instance(*uids(stored), **ASK)


def test_verify_tells_a_first_blob_that_was_damaged_before_it_went(archive: Archive, tmp_path: Path) -> None:
    stored = store_bytes(archive, slide())
    recompress(archive, stored)
    first = archive.instance(*uids(stored), **ASK).base_digest.hex()
    flip_bit(blob_path(tmp_path, first), 500)
    assert [(f.kind, f.subject) for f in archive.verify(**ASK)] == [("blob", first)]


def test_verify_tells_a_lost_entry_of_the_journal(archive: Archive) -> None:
    stored = store_bytes(archive, slide())
    recompress(archive, stored)
    (key,) = archive._core.storage.keys("journal/")
    archive._core.storage.delete(key)
    found = [(f.kind, f.subject) for f in archive.verify(**ASK)]
    assert found == [("journal", stored.sop_instance_uid)]
