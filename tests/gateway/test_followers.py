# SPDX-License-Identifier: Apache-2.0
"""Of a server's threads one goes for requests, and somebody always does."""

import queue
import threading
from collections.abc import Callable, Iterator

import pytest

from gateway.followers import Followers

WAIT_S = 20


class Threads:
    """A server's: each takes what is asked next, ``count`` of them from the start."""

    def __init__(self, count: int, working: int) -> None:
        self.followers = Followers(working)
        self.asked: queue.Queue[Callable[[], None]] = queue.Queue()
        self.answered: queue.Queue[int] = queue.Queue()
        self.release = threading.Event()
        for _ in range(count):
            threading.Thread(target=self.run, daemon=True).start()

    def run(self) -> None:
        while True:
            self.asked.get()()

    def quick(self) -> None:
        self.answered.put(threading.get_ident())
        self.followers.done_at_once()

    def slow(self) -> None:
        with self.followers.working():
            self.answered.put(threading.get_ident())
            self.release.wait(WAIT_S)

    def stalled(self) -> None:
        with self.followers.working(), self.followers.stalled():
            self.answered.put(threading.get_ident())
            self.release.wait(WAIT_S)

    def who(self, work: Callable[[], None]) -> int:
        """The thread that does it."""
        self.asked.put(work)
        return self.answered.get(timeout=WAIT_S)


@pytest.fixture
def threads() -> Iterator[Threads]:
    found = Threads(count=6, working=2)
    yield found
    found.release.set()


def test_one_thread_answers_all_that_is_done_at_once(threads: Threads) -> None:
    for _ in range(12):  # each thread has had one, at the most two, then all but one sleep
        threads.who(threads.quick)
    assert len({threads.who(threads.quick) for _ in range(200)}) == 1


def test_another_leads_while_the_leader_works(threads: Threads) -> None:
    for _ in range(12):
        threads.who(threads.quick)
    first = threads.who(threads.slow)
    then = {threads.who(threads.quick) for _ in range(50)}
    assert len(then) == 1
    assert first not in then


def test_only_so_many_work_and_who_waits_for_a_client_does_not_count(threads: Threads) -> None:
    for _ in range(2):
        threads.who(threads.stalled)
    for _ in range(2):
        threads.who(threads.slow)
    threads.asked.put(threads.slow)
    with pytest.raises(queue.Empty):
        threads.answered.get(timeout=0.2)
    threads.release.set()
    assert threads.answered.get(timeout=WAIT_S)


def test_who_goes_on_after_its_client_counts_again(threads: Threads) -> None:
    on = threading.Event()

    def resumes() -> None:
        with threads.followers.working(), threads.followers.stalled():
            on.wait(WAIT_S)
            with threads.followers.resumed():
                threads.answered.put(0)
                threads.release.wait(WAIT_S)

    for _ in range(2):
        threads.asked.put(resumes)
    on.set()
    for _ in range(2):
        threads.answered.get(timeout=WAIT_S)
    threads.asked.put(threads.slow)
    with pytest.raises(queue.Empty):
        threads.answered.get(timeout=0.2)
    threads.release.set()
    assert threads.answered.get(timeout=WAIT_S)


def test_when_all_have_worked_somebody_still_comes_for_the_next(threads: Threads) -> None:
    for _ in range(50):
        for _ in range(3):
            threads.who(threads.quick)
        for _ in range(2):
            threads.who(threads.slow)
        threads.release.set()
        threads.who(threads.slow)
        threads.release.clear()
