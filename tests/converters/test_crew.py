# SPDX-License-Identifier: Apache-2.0
"""Threads of a workshop: lanes keep to theirs, nobody idles, what fails is told."""

import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError

import pytest

from converters.workshop.crew import Crew

WAIT_S = 30


@pytest.fixture
def crew() -> Iterator[Crew]:
    made = Crew(2, "crew")
    yield made
    made.close()


def name() -> bytes:
    return threading.current_thread().name.encode()


def test_requests_of_a_lane_go_to_its_thread_while_the_other_is_busy_with_its_own(crew: Crew) -> None:
    gates = [threading.Event(), threading.Event()]
    meeting = threading.Barrier(3)

    def held(lane: int) -> bytes:
        meeting.wait(WAIT_S)
        gates[lane].wait(WAIT_S)
        return name()

    held_by = [crew.submit(lambda lane=lane: held(lane), lane) for lane in (0, 1)]  # type: ignore[misc]
    meeting.wait(WAIT_S)
    after = [crew.submit(name, lane) for lane in (1, 1)]
    gates[1].set()
    assert {future.result(WAIT_S) for future in after} == {held_by[1].result(WAIT_S)}
    gates[0].set()
    assert held_by[0].result(WAIT_S) != held_by[1].result(WAIT_S)


def test_a_thread_without_work_takes_that_of_another(crew: Crew) -> None:
    meeting = threading.Barrier(2)

    def met() -> bytes:
        meeting.wait(WAIT_S)  # never, were one thread to do both
        return name()

    futures = [crew.submit(met, 0) for _ in range(2)]
    assert len({future.result(WAIT_S) for future in futures}) == 2


def test_an_error_is_told_to_who_asked_and_the_thread_works_on(crew: Crew) -> None:
    def failing() -> bytes:
        raise OSError("no")

    futures = [crew.submit(failing) for _ in range(4)]
    for future in futures:
        with pytest.raises(OSError, match="no"):
            future.result(WAIT_S)
    assert crew.submit(lambda: b"yes").result(WAIT_S) == b"yes"


def test_what_waits_at_the_end_is_cancelled() -> None:
    crew = Crew(1, "crew")
    begun, gate = threading.Event(), threading.Event()

    def held() -> bytes:
        begun.set()
        gate.wait(WAIT_S)
        return b"done"

    under_way, waiting = crew.submit(held), crew.submit(name)
    begun.wait(WAIT_S)
    closing = threading.Thread(target=crew.close)
    closing.start()
    with pytest.raises(CancelledError):
        waiting.result(WAIT_S)
    gate.set()
    closing.join(WAIT_S)
    assert under_way.result(WAIT_S) == b"done"
    with pytest.raises(RuntimeError):
        crew.submit(name)
