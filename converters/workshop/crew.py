# SPDX-License-Identifier: Apache-2.0
"""Threads that carry out requests, each by a child of its own.

A request may name a lane: those of a lane go to the same thread as long as that has work
of its own, since its child keeps what neighbouring tiles share (a photo, a sub-block).
A thread without work takes the oldest request of another's.
"""

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future

Task = tuple["Future[bytes]", Callable[[], bytes], int | None]


class Crew:
    """``size`` threads, started when first needed."""

    def __init__(self, size: int, name: str) -> None:
        self._size, self._name = size, name
        self._tasks: deque[Task] = deque()
        self._threads: list[threading.Thread] = []
        self._changed = threading.Condition()
        self._ended = False

    def submit(self, work: Callable[[], bytes], lane: int | None = None) -> "Future[bytes]":
        """Have ``work`` done; lanes count from 0. Raises RuntimeError after the end."""
        future: Future[bytes] = Future()
        with self._changed:
            if self._ended:
                raise RuntimeError("the workshop is closed")
            while len(self._threads) < self._size:
                number = len(self._threads)
                thread = threading.Thread(
                    target=self._run, args=(number,), name=f"{self._name}_{number}", daemon=True
                )
                self._threads.append(thread)
                thread.start()
            self._tasks.append((future, work, None if lane is None else lane % self._size))
            self._changed.notify_all()
        return future

    def close(self) -> None:
        """Cancel what waits, and wait for what is under way."""
        with self._changed:
            self._ended = True
            for future, _, _ in self._tasks:
                future.cancel()
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _run(self, number: int) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._tasks or self._ended)
                if not self._tasks:
                    return
                future, work, _ = self._taken(number)
            if not future.set_running_or_notify_cancel():
                continue
            try:
                result = work()
            except BaseException as error:  # noqa: BLE001  it is told to whoever asked
                future.set_exception(error)
            else:
                future.set_result(result)
            del future, work

    def _taken(self, number: int) -> Task:
        for at, task in enumerate(self._tasks):
            if task[2] in (None, number):
                del self._tasks[at]
                return task
        return self._tasks.popleft()
