# SPDX-License-Identifier: Apache-2.0
"""Writes: all or nothing, alone in their savepoint, durable, in sequence; on both databases."""

import hashlib
import json
import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import peewee
import pytest

from archive.errors import Busy, StorageFailed, StorageFull, StoreTooNew
from archive.index import migrations, sequence
from archive.index.database import Index
from archive.index.migrations.v1 import _columns

ROOT = Path(__file__).resolve().parents[3]


def rows(index: Index, sql: str) -> list[tuple[object, ...]]:
    with index.read() as database:
        return [tuple(row) for row in database.execute_sql(sql).fetchall()]


def test_a_write_is_seen_by_everybody_when_it_returns(index: Index, open_index: Callable[[], Index]) -> None:
    other = open_index()

    made = index.write(lambda: index.models.Study.create(study_instance_uid="1.2").id)

    assert rows(index, "SELECT id FROM study") == [(made,)]
    assert rows(other, "SELECT id FROM study") == [(made,)]


def test_a_failing_verb_undoes_itself_and_tells_its_caller_only(index: Index) -> None:
    """Many verbs in one group: the odd ones fail after their insert."""
    failed: list[int] = []
    start = threading.Barrier(24)

    def verb(number: int) -> None:
        index.models.Study.create(study_instance_uid=f"1.{number}")
        if number % 2:
            raise LookupError(number)

    def run(number: int) -> None:
        start.wait()
        try:
            index.write(lambda: verb(number))
        except LookupError as error:
            failed.append(error.args[0])

    threads = [threading.Thread(target=run, args=(number,)) for number in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(failed) == list(range(1, 24, 2))
    stored = {uid for (uid,) in rows(index, "SELECT study_instance_uid FROM study")}
    assert stored == {f"1.{number}" for number in range(0, 24, 2)}


def test_what_waits_is_committed_together(tmp_path: Path) -> None:
    """While one verb holds the writer, sixteen queue up: they share one commit."""
    index = Index.open(f"sqlite:///{tmp_path / 'c.db'}", run_dir=tmp_path / "run")
    index.migrate()
    entered, go_on = threading.Event(), threading.Event()
    begun: list[str] = []
    real = index.database.begin
    index.database.begin = lambda *given: (begun.append("begin"), real(*given))[1]
    first = threading.Thread(target=index.write, args=(lambda: (entered.set(), go_on.wait()),))
    first.start()
    entered.wait()
    others = [
        threading.Thread(target=index.write, args=(lambda n=n: index.models.Setting.create(key=str(n)),))
        for n in range(16)
    ]
    for thread in others:
        thread.start()
    while index._writer._queue.qsize() < 16:
        pass
    go_on.set()
    for thread in (first, *others):
        thread.join()

    assert len(rows(index, "SELECT key FROM setting")) == 16
    assert len(begun) <= 2
    index.close()


def test_a_write_within_a_verb_is_part_of_it(index: Index) -> None:
    def verb() -> None:
        index.write(lambda: index.models.Study.create(study_instance_uid="1.1"))
        with index.read() as database:
            assert database.execute_sql("SELECT count(*) FROM study").fetchone()[0] == 1
        raise LookupError

    with pytest.raises(LookupError):
        index.write(verb)

    assert rows(index, "SELECT id FROM study") == []


def test_insert_gives_the_identifier_and_knows_its_columns(index: Index) -> None:
    models = index.models

    def verb() -> int:
        study = index.insert(models.Study, study_instance_uid="1.1", unmatched=True)
        index.insert(models.Setting, key="a", value="b")
        return index.insert(models.Series, study_id=study, series_instance_uid="1.2", series_number=None)

    series = index.write(verb)

    with index.read():
        row = models.Series.select(models.Series, models.Study).join(models.Study).get()
        assert (row.id, row.study.study_instance_uid, row.study.unmatched) == (series, "1.1", True)
        assert row.created > 1.6e15
    with pytest.raises(TypeError, match="no column colour"):
        index.write(lambda: index.insert(models.Study, colour="red"))


def test_deleting_an_instance_takes_its_rows_and_a_study_with_series_stays(index: Index) -> None:
    models = index.models

    def store() -> int:
        study = index.insert(models.Study, study_instance_uid="1")
        series = index.insert(models.Series, study=study, series_instance_uid="2")
        digests = {
            name: b"d"
            for name, field in models.Instance._meta.fields.items()
            if name.endswith("_digest") and not field.null
        }
        instance = index.insert(
            models.Instance, study=study, series=series, sop_instance_uid="3", sop_class_uid="4",
            transfer_syntax_uid="5", **digests,
        )  # fmt: skip
        index.insert(models.Attribute, instance=instance, path="00400512", folded="x")
        return instance

    instance = index.write(store)
    with pytest.raises(peewee.IntegrityError):
        index.write(lambda: models.Study.delete().execute())

    index.write(lambda: models.Instance.delete().where(models.Instance.id == instance).execute())

    assert rows(index, "SELECT id FROM attribute") == []


# ---- audit and change rows -------------------------------------------------------


def add_event(index: Index, name: str) -> None:
    index.insert(index.models.AuditEvent, code="110104", event=sequence.canonical({"name": name}).decode())
    index.insert(index.models.Change, action="stored", sop_instance_uid=name)


def test_events_are_numbered_from_one_and_each_leaf_covers_its_event(index: Index) -> None:
    for name in ("a", "b", "c"):
        index.write(lambda name=name: add_event(index, name))

    found = rows(index, "SELECT seq, time, salt, event, leaf_hash FROM audit_event ORDER BY seq")
    assert [row[0] for row in found] == [1, 2, 3]
    for seq, time_us, salt, event, leaf in found:
        salted = hashlib.sha256(bytes(salt) + event.encode()).hexdigest()
        entry = json.dumps([seq, time_us, salted], separators=(",", ":")).encode()
        assert bytes(leaf) == hashlib.sha256(b"\0" + entry).digest()
    assert len({bytes(row[2]) for row in found}) == 3
    changes = rows(index, "SELECT seq, sop_instance_uid FROM change ORDER BY seq")
    assert changes == [(1, "a"), (2, "b"), (3, "c")]


def test_a_verb_that_fails_leaves_no_gap(index: Index) -> None:
    def fail() -> None:
        add_event(index, "lost")
        raise LookupError

    for number in range(6):
        if number % 2:
            with pytest.raises(LookupError):
                index.write(fail)
        else:
            index.write(lambda: add_event(index, "kept"))

    assert [seq for (seq,) in rows(index, "SELECT seq FROM change ORDER BY id")] == [1, 2, 3]


WRITER = """
import sys, threading
from pathlib import Path
from archive.index.database import Index
from tests.archive.index.test_database import add_event
index = Index.open(sys.argv[1], run_dir=Path(sys.argv[2]))
def run(number):
    for count in range(25):
        index.write(lambda: add_event(index, f"{sys.argv[3]}-{number}-{count}"))
threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
index.close()
"""


def test_two_processes_that_write_at_once_leave_no_gap(index: Index, url: str, tmp_path: Path) -> None:
    processes = [
        subprocess.Popen([sys.executable, "-c", WRITER, url, str(tmp_path / "run"), name], cwd=ROOT)
        for name in ("a", "b")
    ]
    assert [process.wait() for process in processes] == [0, 0]

    for table in ("audit_event", "change"):
        seqs = [seq for (seq,) in rows(index, f"SELECT seq FROM {table} ORDER BY seq")]
        assert seqs == list(range(1, 201))
        assert rows(index, f"SELECT count(*) FROM {table} WHERE leaf_hash IS NULL") == [(0,)]


def test_what_a_dead_process_left_unnumbered_is_numbered(index: Index) -> None:
    with index.read() as database, database.atomic():
        add_event(index, "orphan")

    assert index.sequence() == 2
    assert rows(index, "SELECT seq FROM change") == [(1,)]


@pytest.mark.parametrize("table", ["audit_event", "change"])
@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE {t} SET time = 1",
        "UPDATE {t} SET salt = leaf_hash",
        "UPDATE {t} SET seq = NULL, leaf_hash = NULL",
        "UPDATE {t} SET seq = 7",
        "DELETE FROM {t}",
    ],
)
def test_the_trail_takes_no_change_and_no_deletion(index: Index, table: str, statement: str) -> None:
    index.write(lambda: add_event(index, "kept"))
    before = rows(index, f"SELECT * FROM {table}")

    with pytest.raises(peewee.PeeweeException, match="append-only"):
        index.write(lambda: index.database.execute_sql(statement.format(t=table)))

    assert rows(index, f"SELECT * FROM {table}") == before


def test_a_row_cannot_bring_its_own_number(index: Index) -> None:
    with pytest.raises(peewee.PeeweeException, match="append-only"):
        index.write(lambda: index.insert(index.models.Change, action="stored", seq=1, leaf_hash=b"made up"))


def test_replace_and_truncate_do_not_pass_by_the_triggers(index: Index) -> None:
    index.write(lambda: add_event(index, "kept"))
    statement = (
        "REPLACE INTO audit_event (id, time, event, salt) VALUES (1, 1, '{}', x'00')"
        if index.dialect == "sqlite"
        else "TRUNCATE audit_event"
    )

    with pytest.raises(peewee.PeeweeException, match="append-only"):
        index.write(lambda: index.database.execute_sql(statement))


# ---- versions, tokens, errors ------------------------------------------------------


def test_the_token_moves_with_every_commit_of_anybody_and_only_then(
    index: Index, open_index: Callable[[], Index]
) -> None:
    other = open_index()
    other.write(lambda: None)
    token = index.data_version()

    assert index.data_version() == token
    rows(other, "SELECT count(*) FROM study")
    assert index.data_version() == token
    other.write(lambda: other.models.Setting.create(key="a"))
    moved = index.data_version()
    assert moved != token
    index.write(lambda: index.models.Setting.create(key="b"))
    assert index.data_version() not in (token, moved)


def test_migrating_twice_changes_nothing(index: Index) -> None:
    index.write(lambda: index.models.Setting.create(key="kept"))

    index.migrate()

    assert index.schema_version() == migrations.LATEST
    assert rows(index, "SELECT key FROM setting") == [("kept",)]


def test_the_models_and_the_migrations_name_the_same_columns(index: Index) -> None:
    with index.read() as database:
        for model in index.models.all():
            table = model._meta.table_name
            found = {column.name: column for column in database.get_columns(table)}
            fields = {field.column_name: field for field in model._meta.sorted_fields}
            assert found.keys() == fields.keys(), table
            for name, field in fields.items():
                if not field.primary_key:
                    assert found[name].null == field.null, f"{table}.{name}"


def test_the_trail_has_its_columns_from_the_first_migration() -> None:
    assert {"seq", "salt", "leaf_hash", "protocol_study_id"} <= set(_columns("audit_event"))
    assert {"seq", "salt", "leaf_hash", "protocol_study_id", "sensitivity"} <= set(_columns("change"))
    assert {"protocol_study_id", "sensitivity"} <= set(_columns("study"))


def test_a_newer_store_is_refused_and_left_as_it_is(index: Index, open_index: Callable[[], Index]) -> None:
    newer = f"INSERT INTO schema_version (version, applied) VALUES ({migrations.LATEST + 1}, 0)"
    index.write(lambda: index.database.execute_sql(newer))

    with pytest.raises(StoreTooNew):
        open_index()
    with pytest.raises(StoreTooNew):
        index.migrate()


def test_an_older_store_is_migrated_and_a_sqlite_file_copied_before(
    index: Index, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    index.write(lambda: index.models.Setting.create(key="from release 1"))
    second = (
        *migrations.MIGRATIONS,
        lambda database, dialect: database.execute_sql("ALTER TABLE setting ADD COLUMN note TEXT"),
    )
    monkeypatch.setattr(migrations, "MIGRATIONS", second)
    monkeypatch.setattr(migrations, "LATEST", len(second))

    index.migrate()

    assert rows(index, "SELECT key, note FROM setting") == [("from release 1", None)]
    assert index.schema_version() == len(second)
    copies = list(tmp_path.glob("coverslip.db.v*"))
    if index.dialect == "sqlite":
        (copy,) = copies
        before = sqlite3.connect(copy)
        assert before.execute("SELECT max(version) FROM schema_version").fetchone() == (len(second) - 1,)
        assert before.execute("SELECT * FROM setting").fetchall() == [("from release 1", "")]
        before.close()


def test_a_migration_that_fails_changes_nothing(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(database: peewee.Database, dialect: str) -> None:
        database.execute_sql("ALTER TABLE setting ADD COLUMN note TEXT")
        raise LookupError

    monkeypatch.setattr(migrations, "MIGRATIONS", (*migrations.MIGRATIONS, fail))
    monkeypatch.setattr(migrations, "LATEST", len(migrations.MIGRATIONS))

    with pytest.raises(LookupError):
        index.migrate()

    assert index.schema_version() == len(migrations.MIGRATIONS) - 1
    assert rows(index, "SELECT * FROM setting") == []


# ---- SQLite only -------------------------------------------------------------------


@pytest.fixture
def sqlite_index(tmp_path: Path) -> Index:
    index = Index.open(f"sqlite:///{tmp_path / 'c.db'}", run_dir=tmp_path / "run")
    index.migrate()
    yield index
    index.close()


def test_commits_are_durable_and_readers_do_not_wait(sqlite_index: Index) -> None:
    with sqlite_index.read() as database:
        assert database.pragma("journal_mode") == "wal"
        assert database.pragma("synchronous") == 2
        assert database.pragma("foreign_keys") == 1
        with database.atomic():
            database.execute_sql("SELECT * FROM study").fetchall()
            sqlite_index.write(lambda: sqlite_index.models.Setting.create(key="while reading"))
            assert database.execute_sql("SELECT count(*) FROM setting").fetchone() == (0,)


def test_a_database_without_space_says_so_and_all_of_the_group_hear_it(sqlite_index: Index) -> None:
    def limit() -> None:
        pages = sqlite_index.database.execute_sql("PRAGMA page_count").fetchone()[0]
        sqlite_index.database.execute_sql(f"PRAGMA max_page_count = {pages}")

    def fill() -> None:
        sqlite_index.models.Setting.create(key=os.urandom(200_000).hex())

    sqlite_index.write(limit)
    with pytest.raises(StorageFull):
        sqlite_index.write(fill)

    assert rows(sqlite_index, "SELECT count(*) FROM setting") == [(0,)]
    sqlite_index.write(lambda: sqlite_index.database.execute_sql("PRAGMA max_page_count = 1000000"))
    sqlite_index.write(fill)
    assert rows(sqlite_index, "SELECT count(*) FROM setting") == [(1,)]


def test_a_foreign_program_that_locks_the_file_gives_busy_not_a_hang(
    sqlite_index: Index, tmp_path: Path
) -> None:
    sqlite_index.write(lambda: sqlite_index.database.execute_sql("PRAGMA busy_timeout = 1"))
    other = sqlite3.connect(tmp_path / "c.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        with pytest.raises(Busy):
            sqlite_index.write(lambda: None)
    finally:
        other.close()
    sqlite_index.write(lambda: None)


def test_the_wal_is_copied_back_and_does_not_grow_for_ever(
    sqlite_index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("archive.index.writer.CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr("archive.index.writer.CHECKPOINT_BYTES", 100_000)
    monkeypatch.setattr("archive.index.writer.TRUNCATE_BYTES", 300_000)
    wal = tmp_path / "c.db-wal"
    largest = 0
    for number in range(60):
        text = os.urandom(20_000).hex()
        sqlite_index.write(lambda n=number, t=text: sqlite_index.models.Setting.create(key=str(n), value=t))
        largest = max(largest, wal.stat().st_size)

    sqlite_index.write(lambda: None)
    assert largest < 1_000_000
    assert len(rows(sqlite_index, "SELECT key FROM setting")) == 60


def test_a_network_file_system_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Path.read_text

    def mounted(path: Path, **options: str) -> str:
        text = real(path, **options)
        if str(path) != "/proc/self/mountinfo":
            return text
        device = tmp_path.stat().st_dev  # a chroot's table does not list what it stands on
        return f"1 1 {os.major(device)}:{os.minor(device)} / / rw - nfs4 server:/export rw"

    monkeypatch.setattr(Path, "read_text", mounted)

    with pytest.raises(StorageFailed, match="nfs4"):
        Index.open(f"sqlite:///{tmp_path / 'c.db'}", run_dir=tmp_path / "run")


def test_an_unknown_kind_of_database_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="oracle"):
        Index.open("oracle://x/y", run_dir=tmp_path)


def test_an_index_opened_before_a_fork_refuses_to_write_after_it(sqlite_index: Index) -> None:
    child = os.fork()
    if child == 0:  # only what a thread of a fork may do
        try:
            sqlite_index.write(lambda: None)
        except RuntimeError:
            os._exit(7)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
