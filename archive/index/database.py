# SPDX-License-Identifier: Apache-2.0
"""One index: SQLite or PostgreSQL behind the same few methods."""

import importlib.util
import json
import logging
import random
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Literal, TypeVar
from urllib.parse import unquote, urlsplit

import peewee
from playhouse.pool import MaxConnectionsExceeded

from archive.access import Scope
from archive.errors import ArchiveError, Busy, StorageFailed
from archive.index import migrations, sequence
from archive.index.attributes import EXTRACTED, AttributeRow
from archive.index.file_systems import network_file_system
from archive.index.models import Models, make_models
from archive.index.query import Query
from archive.index.rows import Inserter
from archive.index.search import Found, Row, Search
from archive.index.writer import BUSY_TIMEOUT_MS, SqliteWriter, WriteLock, refusal

T = TypeVar("T")
Dialect = Literal["sqlite", "postgresql"]

POOL_CONNECTIONS = 16  # per process, PostgreSQL
POOL_WAIT_S = 10
STATEMENT_TIMEOUT_MS = 30_000
RETRIES = 20

# SQLSTATEs after which the same verb may succeed: serialization failure, deadlock.
_RETRY = ("40001", "40P01")
# Two verbs that both looked and both inserted: run again, the second finds the row.
_UNIQUE_VIOLATION = "23505"
_UNIQUE_RETRIES = 2
_MIGRATION_LOCK = 0x436F7665_6D696772
_REFERENCE_LOCK = 0x436F7665_72656673

log = logging.getLogger(__name__)


class Index:
    """Read in any thread through :meth:`read`, change through :meth:`write` only.

    Open it after a fork. ``models`` are bound to it; ``database`` is peewee's, without
    automatic connections.
    """

    dialect: Dialect
    version_is_local = False  # data_version asks no server
    models: Models

    def __init__(self, database: Any, dialect: Dialect, run_dir: Path) -> None:
        """Use :meth:`open`."""
        self.database = database
        self.dialect = dialect
        self.models = make_models(database)
        self._run_dir = run_dir
        self._inserter = Inserter(database, dialect)
        self.wanted_keys: Mapping[str, str] = EXTRACTED
        self._matching: tuple[str, Mapping[str, str]] = ("", {})
        self._search = Search(dialect, self.read, self.data_version, lambda: self.matching_keys)

    @staticmethod
    def open(url: str, *, run_dir: Path) -> "Index":
        """The index at ``sqlite:///relative``, ``sqlite:////absolute`` or ``postgresql://…``.

        Nothing is created but the SQLite file; call :meth:`migrate` once before use.
        Raises StoreTooNew, StorageFailed (unreachable, or SQLite on a network share).
        """
        run_dir.mkdir(parents=True, exist_ok=True)
        scheme, _, rest = url.partition("://")
        if scheme == "sqlite":
            return SqliteIndex(Path(unquote(rest.removeprefix("/"))), run_dir)
        if scheme in ("postgresql", "postgres"):
            return PostgresIndex("postgresql://" + rest, run_dir)
        raise ValueError(f"no database is known as {scheme!r}")

    def migrate(self) -> None:
        """Bring the schema to this release's; an older SQLite file is copied first."""
        raise TypeError("an index has a dialect")

    def write(self, verb: Callable[[], T]) -> T:
        """Run ``verb`` in a transaction, all or nothing; return once it is durable.

        On SQLite it runs in the process's writer thread, in its own savepoint of a
        group; on PostgreSQL in this thread, serializable, again after a conflict.
        So it must not wait for other threads, and have no effect but on the database.
        What it raises is raised here. Raises StorageFull, StorageFailed, Busy.
        """
        raise TypeError("an index has a dialect")

    def read(self) -> AbstractContextManager[Any]:
        """The database with a connection for this thread. Each statement sees the latest
        commit; fetch a page at a time, since an open cursor keeps the WAL from shrinking."""
        raise TypeError("an index has a dialect")

    def data_version(self) -> str:
        """A token that differs once any process has committed a change; cheap, any thread."""
        raise TypeError("an index has a dialect")

    def want_keys(self, keys: Mapping[str, str]) -> None:
        """What ``attribute`` shall hold, VR by path; see :mod:`archive.matching_keys`."""
        self.wanted_keys = dict(keys)
        self._matching = ("", {})

    def complete_keys(self) -> Mapping[str, str]:
        """The keys whose rows all instances have, VR by path; reads. Where nothing was
        noted, all was stored by this release with its own keys."""
        with self.read() as database:
            row = database.execute_sql("SELECT value FROM setting WHERE key = 'matching_keys'").fetchone()
            if row is not None:
                found: Mapping[str, str] = json.loads(row[0])
                return found
            some = database.execute_sql("SELECT 1 FROM instance LIMIT 1").fetchone()
            return EXTRACTED if some else self.wanted_keys

    @property
    def matching_keys(self) -> Mapping[str, str]:
        """The keys of ``attribute`` that can be matched on: wanted, and complete."""
        seen, keys = self._matching
        if len(keys) == len(self.wanted_keys):
            return keys
        version = self.data_version()
        if version != seen:
            complete = self.complete_keys()
            keys = {path: vr for path, vr in self.wanted_keys.items() if complete.get(path) == vr}
            self._matching = (version, keys)
        return keys

    def find(self, query: Query, scope: Scope) -> Found:
        """One page of a query's rows, and how many are left. Raises BadQuery."""
        return self._search.find(query, scope)

    def iterate(self, query: Query, scope: Scope) -> Iterator[Row]:
        """All rows of a query, a page of 1,000 at a time by keyset."""
        return self._search.iterate(query, scope)

    def patients(self, query: Query, scope: Scope) -> Iterator[Row]:
        """The newest study of each patient that a query matches, likewise."""
        return self._search.patients(query, scope)

    def insert(self, model: Any, /, **values: object) -> int:
        """Insert one row of ``models.…`` and return its ``id``; within a verb. Twenty
        times faster than ``model.create``, which every other writer waits for."""
        return self._inserter.insert(model, values)

    def insert_attributes(self, instance_id: int, rows: Iterable[AttributeRow]) -> None:
        """Insert what :func:`archive.index.attributes.extract` gave; within a verb."""
        self._inserter.attributes(instance_id, rows)

    def insert_name_sounds(self, study_id: int, names: Mapping[str, str], *, replace: bool = False) -> None:
        """The sounds of a study's names (``attributes.study_names``); within a verb.
        ``replace`` those it has. (Without need a look for them would make strangers' new
        studies conflict.)"""
        self._inserter.name_sounds(study_id, names, replace=replace)

    def exclusively(self, verb: Callable[[], T]) -> T:
        """Run ``verb`` once while nobody adds a reference to a blob (:meth:`referring`):
        what it finds unused stays so, and it may remove files. On SQLite this is a write;
        on PostgreSQL each of its statements commits by itself."""
        raise TypeError("an index has a dialect")

    def referring(self) -> None:
        """Within a verb, before a reference to a blob is added: see :meth:`exclusively`."""

    def sequence(self) -> int:
        """Number audit events and changes that have no ``seq`` yet; returns how many.
        Every :meth:`write` does it; this is for what a dead process left."""
        return self.write(lambda: sequence.assign(self.database, self.dialect))

    def schema_version(self) -> int:
        """0 for an empty database. Raises StoreTooNew."""
        with self.read() as database:
            return migrations.current_version(database)

    def close(self) -> None:
        """Finish queued writes and give back connections."""
        raise TypeError("an index has a dialect")


class SqliteIndex(Index):
    """One file in WAL mode; a kept connection per thread, one writer thread."""

    version_is_local = True

    def __init__(self, path: Path, run_dir: Path) -> None:
        self._path = path.absolute()
        if kind := network_file_system(self._path.parent):
            raise StorageFailed(f"SQLite cannot live on a network file system ({kind})")
        database = peewee.SqliteDatabase(
            str(self._path),
            pragmas=(
                ("busy_timeout", BUSY_TIMEOUT_MS),
                ("journal_mode", "wal"),
                ("synchronous", "full"),
                ("foreign_keys", 1),
                ("recursive_triggers", 1),  # or REPLACE would pass by the delete triggers
                ("wal_autocheckpoint", 0),  # the writer thread does it, outside the lock
                ("cache_size", -16_000),
                ("temp_store", 2),
            ),
            autoconnect=False,
        )
        super().__init__(database, "sqlite", run_dir)
        self._lock_path = run_dir / "write.lock"
        self._writer = SqliteWriter(
            database,
            self._lock_path,
            before_commit=lambda: sequence.assign(database, "sqlite"),
            wal_path=Path(f"{self._path}-wal"),
        )
        # data_version is a connection's own: only one connection gives comparable tokens.
        self._watch: sqlite3.Connection | None = None
        self._watch_lock = threading.Lock()
        self.schema_version()

    def migrate(self) -> None:
        lock = WriteLock(self._lock_path)
        try:
            with lock, self.read() as database:
                version = migrations.current_version(database)
                if 0 < version < migrations.LATEST:
                    self._snapshot(version)
                while version < migrations.LATEST:
                    with database.atomic("IMMEDIATE"):
                        migrations.apply_next(database, self.dialect, version)
                    version += 1
        finally:
            lock.close()

    def write(self, verb: Callable[[], T]) -> T:
        return self._writer.run(verb)

    @contextmanager
    def read(self) -> Iterator[Any]:
        try:
            self.database.connect(reuse_if_open=True)
        except peewee.PeeweeException as error:
            raise refusal(error) from error
        yield self.database

    def exclusively(self, verb: Callable[[], T]) -> T:
        return self._writer.run(verb)

    def data_version(self) -> str:
        with self._watch_lock:
            if self._watch is None:
                self._watch = sqlite3.connect(
                    f"file:{self._path}?mode=ro", uri=True, check_same_thread=False, isolation_level=None
                )
            return str(self._watch.execute("PRAGMA data_version").fetchone()[0])

    def close(self) -> None:
        self._writer.close()
        with self._watch_lock:
            if self._watch is not None:
                self._watch.close()
                self._watch = None
        if not self.database.is_closed():
            self.database.close()

    def _snapshot(self, version: int) -> None:
        """A copy beside the file, durable before the first statement of a migration."""
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        copy = self._path.with_name(f"{self._path.name}.v{version}-{stamp}")
        target = sqlite3.connect(copy)
        try:
            target.execute("PRAGMA synchronous = full")
            self.database.connection().backup(target)
        finally:
            target.close()


class PostgresIndex(Index):
    """A bounded pool of connections; verbs are serializable and run again on conflict."""

    def __init__(self, url: str, run_dir: Path) -> None:
        if importlib.util.find_spec("psycopg") is None:
            raise StorageFailed("PostgreSQL needs psycopg: pip install 'coverslip[postgresql]'")
        from playhouse.postgres_ext import PooledPsycopg3Database  # optional, so not at the top

        if not urlsplit(url).path.strip("/"):
            raise ValueError("the database URL names no database")
        database = PooledPsycopg3Database(
            url,
            max_connections=POOL_CONNECTIONS,
            stale_timeout=600,
            timeout=POOL_WAIT_S,
            autoconnect=False,
            connect_timeout=10,
            application_name="coverslip",
            options=f"-c statement_timeout={STATEMENT_TIMEOUT_MS} -c timezone=UTC",
        )
        super().__init__(database, "postgresql", run_dir)
        self._numbering = threading.Lock()
        self._ticket_lock = threading.Lock()
        self._issued = 0  # tickets: writes committed so far
        self._numbered = 0  # writes that a finished round of the sequencer covers
        self.schema_version()

    def migrate(self) -> None:
        with self.read() as database, database.atomic():
            database.execute_sql("SELECT pg_advisory_xact_lock(%s)", (_MIGRATION_LOCK,))
            version = migrations.current_version(database)
            while version < migrations.LATEST:
                migrations.apply_next(database, self.dialect, version)
                version += 1

    def write(self, verb: Callable[[], T]) -> T:
        with self.read() as database:
            if database.in_transaction():  # within a verb: part of it
                return verb()
            result = self._retried(database, verb, "SERIALIZABLE")
            with self._ticket_lock:
                self._issued += 1
                ticket = self._issued
            with self._numbering:
                # A round that began after our commit has seen our rows: fsyncs are shared.
                if self._numbered < ticket:
                    with self._ticket_lock:
                        covered = self._issued
                    try:
                        self._retried(
                            database, lambda: sequence.assign(database, "postgresql"), "READ COMMITTED"
                        )
                    except (peewee.PeeweeException, ArchiveError):
                        # The verb is committed and must not look as if it were not; the next
                        # round numbers its rows.
                        log.warning("audit events and changes wait for the next round of numbering")
                        return result
                    self._numbered = covered
            return result

    def exclusively(self, verb: Callable[[], T]) -> T:
        # A lock of the session, so that every statement after it sees the latest commit.
        with self.read() as database:
            database.execute_sql("SELECT pg_advisory_lock(%s)", (_REFERENCE_LOCK,))
            try:
                return verb()
            finally:
                database.execute_sql("SELECT pg_advisory_unlock(%s)", (_REFERENCE_LOCK,))

    def referring(self) -> None:
        self.database.execute_sql("SELECT pg_advisory_xact_lock_shared(%s)", (_REFERENCE_LOCK,))

    def sequence(self) -> int:
        with self.read() as database:
            return self._retried(database, lambda: sequence.assign(database, "postgresql"), "READ COMMITTED")

    @contextmanager
    def read(self) -> Iterator[Any]:
        outermost = self.database.is_closed()
        if outermost:
            try:
                self.database.connect()
            except MaxConnectionsExceeded as error:
                raise Busy("all database connections are in use") from error
            except peewee.OperationalError as error:
                raise StorageFailed("the database cannot be reached") from error
        try:
            yield self.database
        finally:
            if outermost:
                self.database.close()

    def data_version(self) -> str:
        with self.read() as database:
            # The text of a snapshot changes exactly when what is visible changes.
            return str(database.execute_sql("SELECT pg_current_snapshot()::text").fetchone()[0])

    def close(self) -> None:
        self.database.close_all()

    def _retried(self, database: Any, verb: Callable[[], T], isolation: str) -> T:
        unique_left = _UNIQUE_RETRIES
        for attempt in range(RETRIES):
            try:
                with database.atomic(isolation):
                    return verb()
            except peewee.PeeweeException as error:
                state = _sqlstate(error)
                unique_left -= state == _UNIQUE_VIOLATION
                again = state in _RETRY or (state == _UNIQUE_VIOLATION and unique_left >= 0)
                if not again:
                    raise refusal(error) from error
            time.sleep(random.uniform(0, min(0.2, 0.002 * 2**attempt)))
        raise Busy("the database could not serialise a change")


def _sqlstate(error: BaseException) -> str:
    """PostgreSQL's code for what went wrong; peewee wraps the driver's exception."""
    inner = error.args[0] if error.args and isinstance(error.args[0], Exception) else error.__context__
    return str(getattr(inner, "sqlstate", None) or "")
