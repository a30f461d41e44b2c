# SPDX-License-Identifier: Apache-2.0
"""All writes of a process to SQLite, in one thread, in groups, fair among processes.

SQLite's own busy handler polls: with four processes it gave waits of 5 s and starved
one of them. Here a process takes its turn by ``flock``, whose waiters the kernel wakes,
and one thread commits whatever verbs wait, so that an fsync is shared.
"""

import errno
import fcntl
import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import peewee

from archive.errors import ArchiveError, Busy, StorageFailed, StorageFull

T = TypeVar("T")
_Item = tuple[Callable[[], Any], "Future[Any]"]

GROUP_VERBS = 256
GROUP_SECONDS = 0.005
SHARED_SECONDS = 0.002  # the same, while another process waits for the turn
BUSY_TIMEOUT_MS = 10_000
CHECKPOINT_SECONDS = 1.0  # between two looks of one process at the WAL
CHECKPOINT_BYTES = 4 << 20  # the WAL is copied into the database from this size on
TRUNCATE_BYTES = 64 << 20  # from this size on, other writers wait for it

log = logging.getLogger(__name__)


class WriteLock:
    """The turn to write, among all processes of a data folder.

    Two locks: whoever holds the turn releases it while the next already stands at the
    gate, so a process that writes in bulk cannot take the turn back before others.
    """

    def __init__(self, path: Path) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        self._gate = os.open(path.with_name(path.name + ".gate"), flags, 0o640)
        self._turn = os.open(path, flags, 0o640)

    def __enter__(self) -> Self:
        fcntl.flock(self._gate, fcntl.LOCK_EX)
        try:
            fcntl.flock(self._turn, fcntl.LOCK_EX)
        finally:
            fcntl.flock(self._gate, fcntl.LOCK_UN)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        fcntl.flock(self._turn, fcntl.LOCK_UN)

    def wanted(self) -> bool:
        """Whether another process stands at the gate; for who holds the turn."""
        try:
            fcntl.flock(self._gate, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        fcntl.flock(self._gate, fcntl.LOCK_UN)
        return False

    def close(self) -> None:
        os.close(self._gate)
        os.close(self._turn)


class SqliteWriter:
    """Runs verbs in the process's one writer thread, which starts with the first."""

    def __init__(
        self,
        database: Any,
        lock_path: Path,
        *,
        before_commit: Callable[[], object],
        wal_path: Path,
    ) -> None:
        """``before_commit`` runs in every transaction, after its verbs."""
        self._database = database
        self._lock_path = lock_path
        self._wal_path = wal_path
        self._before_commit = before_commit
        self._queue: queue.SimpleQueue[_Item | None] = queue.SimpleQueue()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
        self._stopped = False
        self._next_checkpoint = 0.0
        self._pid = os.getpid()

    def run(self, verb: Callable[[], T]) -> T:
        """The verb's result, once its transaction is on stable storage.

        The verb runs alone in its savepoint; what it raises is raised here and undoes
        only that. Called from within a verb, it is part of that verb.
        """
        if threading.current_thread() is self._thread:
            return verb()
        if self._pid != os.getpid():
            raise RuntimeError("an index must be opened after the fork, not before")
        future: Future[T] = Future()
        with self._starting:
            if self._thread is None:
                self._thread = threading.Thread(target=self._serve, name="index-writer", daemon=True)
                self._thread.start()
            self._queue.put((verb, future))
        return future.result()

    def close(self) -> None:
        """Finish what is queued, then stop the thread."""
        with self._starting:
            if self._thread is not None:
                self._queue.put(None)
                self._thread.join()
                self._thread = None
                self._stopped = False

    # ---- the writer thread -----------------------------------------------------

    def _serve(self) -> None:
        lock = WriteLock(self._lock_path)
        try:
            while not self._stopped and (item := self._queue.get()) is not None:
                self._commit_group(item, lock)
                self._checkpoint(lock)
        finally:
            lock.close()
            if not self._database.is_closed():
                self._database.close()

    def _commit_group(self, first: _Item, lock: WriteLock) -> None:
        """Commit ``first`` and what else waits, and answer all of them."""
        taken: list[Future[Any]] = []
        answers: list[tuple[Any, BaseException | None]] = []
        try:
            self._database.connect(reuse_if_open=True)
            with lock, self._database.atomic("IMMEDIATE"):
                for verb, future in self._group(first, lock):
                    taken.append(future)
                    answers.append(self._run_one(verb))
                self._before_commit()
        except BaseException as error:  # noqa: BLE001 - whatever ends the transaction, its callers must hear
            for future in taken or [first[1]]:
                future.set_exception(refusal(error))
            return
        for future, (result, failure) in zip(taken, answers, strict=True):
            if failure is not None:
                future.set_exception(failure)
            else:
                future.set_result(result)

    def _group(self, first: _Item, lock: WriteLock) -> Iterator[_Item]:
        """``first``, and what waits already, up to the limits of one transaction."""
        begun = time.monotonic()
        yield first
        for _ in range(GROUP_VERBS - 1):
            spent = time.monotonic() - begun
            if spent > GROUP_SECONDS or (spent > SHARED_SECONDS and lock.wanted()):
                return
            try:
                item = self._queue.get_nowait()
            except queue.Empty:
                return
            if item is None:
                self._stopped = True
                return
            yield item

    def _run_one(self, verb: Callable[[], Any]) -> tuple[Any, BaseException | None]:
        try:
            with self._database.savepoint():
                return verb(), None
        except BaseException as error:
            if not self._database.connection().in_transaction:
                raise  # SQLite has undone the whole group: disk full, I/O error
            return None, error  # the caller's own, and not this thread's

    def _checkpoint(self, lock: WriteLock) -> None:
        """Copy the WAL back once it is long: outside the turn, so that nobody waits.

        Under steady writing it is never copied wholly and would grow for ever; then
        the rest is copied within the turn. Long readers make that give up, not wait.
        """
        if time.monotonic() < self._next_checkpoint:
            return
        self._next_checkpoint = time.monotonic() + CHECKPOINT_SECONDS
        try:
            size = self._wal_path.stat().st_size
            if size < CHECKPOINT_BYTES:
                return
            self._database.execute_sql("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
            if size >= TRUNCATE_BYTES:
                self._database.execute_sql("PRAGMA busy_timeout = 20")
                try:
                    with lock:
                        self._database.execute_sql("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
                finally:
                    self._database.execute_sql(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
        except (OSError, peewee.PeeweeException):
            log.warning("the write-ahead log could not be copied back", exc_info=True)


def refusal(error: BaseException) -> BaseException:
    """What a database error means to a caller; other errors as they are."""
    if isinstance(error, ArchiveError) or not isinstance(error, peewee.PeeweeException | OSError):
        return error
    if isinstance(error, OSError):
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return StorageFull("no space left for the index")
        return StorageFailed("the index could not be written")
    text = _told(error)
    if "is full" in text or "No space left" in text:
        return StorageFull("no space left for the index")
    if "disk I/O error" in text or "readonly" in text or "unable to open" in text:
        return StorageFailed("the index could not be written")
    if "is locked" in text:
        return Busy("the index is locked by another program")
    return error


def _told(error: BaseException | None) -> str:
    """All messages of a chain: SQLite ends a transaction by itself when the disk is
    full, and the error of the rollback that follows hides the cause."""
    texts = []
    while error is not None:
        texts.append(str(error))
        error = error.__context__
    return "; ".join(texts)
