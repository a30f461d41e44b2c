# SPDX-License-Identifier: Apache-2.0
"""Leader and followers: of threads that all wait for requests, one at a time does.

A server that has threads of its own calls us in whichever is free. Were requests that take
microseconds spread over them, the interpreter would change hands within each. So one thread
leads: it goes back for the next request while others sleep in here. Before it begins what
may take long, it wakes one of them to lead instead.

At most ``threads`` work at once; one that waits for its client does not count, as in
``gateway.stalling_pool``.
"""

import contextlib
import threading
from collections import deque
from collections.abc import Iterator


class Followers:
    """For threads that never end while they have nothing to do."""

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._changed = threading.Condition()
        self._working = 0
        self._lock = threading.Lock()
        self._leader = 0  # a thread's identifier; 0: who comes next
        self._asleep: deque[tuple[int, threading.Lock]] = deque()

    def done_at_once(self) -> None:
        """The calling thread has answered: it goes for the next request if it leads, or
        nobody does; else it sleeps until it shall."""
        me = threading.get_ident()
        if self._leader == me:
            return
        with self._lock:
            if not self._leader:
                self._leader = me
                return
            alarm = threading.Lock()
            alarm.acquire()
            self._asleep.append((me, alarm))
        alarm.acquire()

    @contextlib.contextmanager
    def working(self) -> Iterator[None]:
        """For what may take long: another thread leads; not more than ``threads`` are
        inside."""
        with self._lock:
            if self._leader == threading.get_ident():
                self._leader = 0
                if self._asleep:
                    # The one that slept least: what it needs is in the processor's caches.
                    self._leader, alarm = self._asleep.pop()
                    alarm.release()
        with self._changed:
            while self._working >= self._threads:
                self._changed.wait()
            self._working += 1
        try:
            yield
        finally:
            self._count(-1)

    @contextlib.contextmanager
    def stalled(self) -> Iterator[None]:
        """Within :meth:`working`: while inside, the calling thread waits for its client."""
        self._count(-1)
        try:
            yield
        finally:
            self._count(1)

    @contextlib.contextmanager
    def resumed(self) -> Iterator[None]:
        """Within :meth:`stalled`: while inside, it works after all."""
        self._count(1)
        try:
            yield
        finally:
            self._count(-1)

    def _count(self, change: int) -> None:
        with self._changed:
            self._working += change
            if change < 0:
                self._changed.notify()
