# SPDX-License-Identifier: Apache-2.0
"""A thread that waits for a slow peer makes room for another, up to a bound."""

import queue
import threading
from collections.abc import Iterator

import pytest

from gateway.stalling_pool import StallingPool

WAIT_S = 20


class Crowd:
    """Work that begins, may stall, and ends when told."""

    def __init__(self, pool: StallingPool) -> None:
        self.pool = pool
        self.begun: queue.Queue[int] = queue.Queue()
        self.release = threading.Event()

    def work(self, number: int, *, stalls: bool) -> None:
        if stalls:
            with self.pool.stalled():
                self.begun.put(number)
                self.release.wait(WAIT_S)
        else:
            self.begun.put(number)
            self.release.wait(WAIT_S)

    def add(self, number: int, *, stalls: bool = False) -> None:
        self.pool.submit(lambda: self.work(number, stalls=stalls))


@pytest.fixture
def crowd() -> Iterator[Crowd]:
    found = Crowd(StallingPool(threads=2, extra=3))
    yield found
    found.release.set()
    found.pool.shutdown()


def test_only_so_many_work_at_once_and_the_rest_follow_in_order(crowd: Crowd) -> None:
    for number in range(4):
        crowd.add(number)
    assert {crowd.begun.get(timeout=WAIT_S), crowd.begun.get(timeout=WAIT_S)} == {0, 1}
    assert crowd.pool.is_busy
    with pytest.raises(queue.Empty):
        crowd.begun.get(timeout=0.2)
    crowd.release.set()
    assert {crowd.begun.get(timeout=WAIT_S), crowd.begun.get(timeout=WAIT_S)} == {2, 3}


def test_stalled_threads_make_room_up_to_the_limit(crowd: Crowd) -> None:
    for number in range(3):
        crowd.add(number, stalls=True)
    assert {crowd.begun.get(timeout=WAIT_S) for _ in range(3)} == {0, 1, 2}
    crowd.add(3)
    crowd.add(4)
    assert {crowd.begun.get(timeout=WAIT_S) for _ in range(2)} == {3, 4}
    crowd.add(5)
    with pytest.raises(queue.Empty):  # five threads are all there may be
        crowd.begun.get(timeout=0.2)
    crowd.release.set()
    assert crowd.begun.get(timeout=WAIT_S) == 5


def test_a_thread_that_begins_to_stall_lets_waiting_work_begin(crowd: Crowd) -> None:
    stall = threading.Event()

    def first() -> None:
        crowd.begun.put(0)
        stall.wait(WAIT_S)
        with crowd.pool.stalled():
            crowd.release.wait(WAIT_S)

    crowd.pool.submit(first)
    crowd.add(1)
    assert {crowd.begun.get(timeout=WAIT_S), crowd.begun.get(timeout=WAIT_S)} == {0, 1}
    crowd.add(2)
    with pytest.raises(queue.Empty):
        crowd.begun.get(timeout=0.2)
    stall.set()
    assert crowd.begun.get(timeout=WAIT_S) == 2


def test_threads_beyond_the_usual_number_end_when_the_slow_have_gone(crowd: Crowd) -> None:
    before = set(threading.enumerate())
    for number in range(5):
        crowd.add(number, stalls=True)
    for _ in range(5):
        crowd.begun.get(timeout=WAIT_S)
    mine = [thread for thread in threading.enumerate() if thread not in before]
    assert len(mine) == 5
    crowd.release.set()
    crowd.pool.shutdown()
    for thread in mine:
        thread.join(WAIT_S)
        assert not thread.is_alive()


def test_two_threads_do_any_amount_of_work(crowd: Crowd) -> None:
    done = threading.Semaphore(0)
    for _ in range(5000):
        crowd.pool.submit(done.release)
    for _ in range(5000):
        assert done.acquire(timeout=WAIT_S)
