# SPDX-License-Identifier: Apache-2.0
"""The archive's verbs on PostgreSQL give what they give on SQLite."""

import itertools
from collections.abc import Iterator
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


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    with postgres.server() as url:
        yield url


@pytest.fixture
def archive(cluster: str, tmp_path: Path) -> Iterator[Archive]:
    opened = open_archive(tmp_path, url=postgres.new_database(cluster, f"test_{next(_numbers)}"))
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
