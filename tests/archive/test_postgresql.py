# SPDX-License-Identifier: Apache-2.0
"""The archive's verbs on PostgreSQL give what they give on SQLite."""

import itertools
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from archive.errors import Gone
from archive.index.query import Level, Query, parse_match
from archive.service import Archive
from archive.values import Outcome
from tests.archive.test_integrity import contents, filled
from tests.support import postgres
from tests.support.archives import ASK, open_archive, store_bytes
from tests.support.instances import make_instance

_numbers = itertools.count()
_urls: dict[int, str] = {}


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    with postgres.server() as url:
        yield url


@pytest.fixture
def archive(cluster: str, tmp_path: Path) -> Iterator[Archive]:
    url = postgres.new_database(cluster, f"test_{next(_numbers)}")
    opened = open_archive(tmp_path, url=url)
    _urls[id(opened)] = url
    yield opened
    opened.close()


def test_both_databases_hold_the_same_after_the_same_changes(archive: Archive, tmp_path: Path) -> None:
    filled(archive)
    before = contents(archive)
    assert len(before["Instance"]) == 4
    assert archive.reindex(**ASK) == 4
    assert contents(archive) == before
    assert list(archive.verify(**ASK)) == []
    rebuilt = open_archive(tmp_path, url=f"sqlite:///{tmp_path / 'other.db'}")
    rebuilt.reindex(**ASK)
    assert contents(rebuilt) == before
    rebuilt.close()


def test_the_main_verbs_work(archive: Archive) -> None:
    data = make_instance()
    stored = store_bytes(archive, data)
    assert store_bytes(archive, data).outcome is Outcome.ALREADY
    uids = (stored.study_instance_uid, stored.series_instance_uid, stored.sop_instance_uid)
    instance = archive.instance(*uids, **ASK)
    assert b"".join(archive.open(instance, **ASK).chunks) == data
    found = archive.find(Query(Level.SERIES, (parse_match("00400512", "LO", "S26-*"),)), **ASK)
    assert len(found.rows) == 1
    assert len(archive.slides(text="s26", **ASK)) == 1
    job = archive.enqueue("ingest", {"a": 1}, **ASK, key="k")
    assert archive.enqueue("ingest", {"a": 1}, **ASK, key="k") == job
    claimed = archive.claim(["ingest"], owner="me")
    assert claimed is not None
    assert archive.claim(["ingest"], owner="other") is None
    archive.finish(job)
    archive.delete(stored.study_instance_uid, reason="r", **ASK)
    with pytest.raises(Gone):
        archive.instance(*uids, **ASK)
    assert [c.action for c in archive.changes(0, **ASK)] == ["stored", "deleted"]


def test_a_blob_that_comes_back_while_it_is_removed_is_there_afterwards(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = make_instance()
    stored = store_bytes(archive, data)
    archive.delete(stored.study_instance_uid, reason="r", **ASK)
    later = datetime.now(UTC) + timedelta(hours=25)
    monkeypatch.setattr(archive._core, "clock", lambda: later)
    other = open_archive(tmp_path, url=archive_url(archive))
    remove = archive._core.storage.delete
    answers: list[str] = []
    failures: list[BaseException] = []

    def send() -> None:
        try:
            answers.append(store_bytes(other, data).outcome)
        except Exception as error:
            failures.append(error)

    sender = threading.Thread(target=send)

    def remove_while_it_comes_back(key: str) -> None:
        sender.start()
        sender.join(1)
        assert answers == []  # it waits for us
        remove(key)

    monkeypatch.setattr(archive._core.storage, "delete", remove_while_it_comes_back)
    assert archive.collect_garbage(**ASK) == 1
    sender.join()
    assert (answers, failures) == ([Outcome.STORED], [])
    assert list(other.verify(**ASK)) == []
    other.close()


def archive_url(archive: Archive) -> str:
    """Where an archive's index is."""
    return _urls[id(archive)]
