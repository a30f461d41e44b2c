# SPDX-License-Identifier: Apache-2.0
"""Threads for requests, and more of them while some wait for slow peers.

A thread that waits for a peer's bytes costs memory and nothing else. The pool keeps at
most ``threads`` *working*; one that says it is stalled makes room for another, up to
``threads + extra`` in all. So a crowd of slow clients does not lock the others out.
"""

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Iterator


class StallingPool:
    """Runs callables that must not raise. Threads are daemons: a stop never waits for a peer."""

    def __init__(self, threads: int, extra: int) -> None:
        self._threads = threads
        self._limit = threads + extra
        self._work: deque[Callable[[], None]] = deque()
        self._changed = threading.Condition()
        self._alive = 0
        self._idle = 0
        self._stalled = 0
        self._closed = False

    def submit(self, work: Callable[[], None]) -> None:
        with self._changed:
            self._work.append(work)
            self._staff()

    @property
    def is_busy(self) -> bool:
        """Whether work waits for a thread."""
        return bool(self._work)

    @contextlib.contextmanager
    def stalled(self) -> Iterator[None]:
        """While inside, the calling thread of the pool does not count as working."""
        with self._changed:
            self._stalled += 1
            if self._work:
                self._staff()
        try:
            yield
        finally:
            with self._changed:
                self._stalled -= 1

    def shutdown(self, wait: bool = False) -> None:
        """Idle threads end; what waits in the queue is still done."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _staff(self) -> None:
        """Wake or start a thread for the work that waits; call with the lock held."""
        if self._idle >= len(self._work):
            self._changed.notify()
        elif self._alive - self._stalled < self._threads and self._alive < self._limit:
            self._alive += 1
            threading.Thread(target=self._run, name="request", daemon=True).start()
        elif self._idle:
            self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._work:
                    if self._closed or self._alive - self._stalled > self._threads:
                        self._alive -= 1
                        return
                    self._idle += 1
                    self._changed.wait()
                    self._idle -= 1
                work = self._work.popleft()
            work()
