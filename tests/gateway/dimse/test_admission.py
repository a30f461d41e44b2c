# SPDX-License-Identifier: Apache-2.0
"""Half-open connections never keep an honest peer out (attacks A2 and A3)."""

from hypothesis import given
from hypothesis import strategies as st

from gateway.dimse.admission import Admission, Connection


class Closed:
    """Counts the connections that were closed for newer ones."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> None:
        self.count += 1


def test_a_flood_from_one_address_closes_its_own_oldest_connections() -> None:
    admission, closed = Admission(limit=64, limit_per_address=8), Closed()
    for _ in range(1000):
        admission.admit("10.0.0.66", closed)
    assert admission.count == 8
    assert closed.count == 992


def test_an_honest_peer_associates_during_a_flood_from_many_addresses() -> None:
    admission, closed = Admission(limit=16, limit_per_address=4), Closed()
    for number in range(1000):
        admission.admit(f"10.0.{number // 250}.{number % 250}", closed)
    honest = admission.admit("192.0.2.1", closed)
    assert admission.establish(honest)
    assert admission.count <= 17


def test_established_associations_are_limited_in_all() -> None:
    admission, closed = Admission(limit=3, limit_per_address=3), Closed()
    connections = [admission.admit(f"10.0.0.{number}", closed) for number in range(4)]
    assert [admission.establish(one) for one in connections] == [True, True, True, False]


def test_established_associations_are_limited_per_address() -> None:
    admission, closed = Admission(limit=10, limit_per_address=2), Closed()
    connections = [admission.admit("10.0.0.1", closed) for _ in range(3)]
    assert [admission.establish(one) for one in connections] == [True, True, False]
    assert admission.establish(admission.admit("10.0.0.2", closed))


def test_an_established_association_is_never_closed_for_a_newer_connection() -> None:
    admission, closed, kept = Admission(limit=4, limit_per_address=4), Closed(), Closed()
    assert admission.establish(admission.admit("10.0.0.1", kept))
    for _ in range(100):
        admission.admit("10.0.0.1", closed)
    assert kept.count == 0


def test_a_place_is_free_again_when_its_association_ends() -> None:
    admission, closed = Admission(limit=1, limit_per_address=1), Closed()
    first = admission.admit("10.0.0.1", closed)
    assert admission.establish(first)
    second = admission.admit("10.0.0.1", closed)
    assert not admission.establish(second)
    admission.leave(first)
    assert admission.establish(second)


def test_a_connection_closed_for_a_newer_one_is_not_established() -> None:
    admission, closed = Admission(limit=1, limit_per_address=1), Closed()
    first = admission.admit("10.0.0.1", closed)
    for _ in range(4):
        admission.admit("10.0.0.1", closed)
    assert closed.count == 1
    assert not admission.establish(first)


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["admit", "establish", "leave"]))))
def test_the_number_of_connections_is_bounded_whatever_happens(steps: list[tuple[int, str]]) -> None:
    limit, per_address = 6, 3
    admission, closed = Admission(limit, per_address), Closed()
    live: list[Connection] = []
    for number, step in steps:
        if step == "admit":
            live.append(admission.admit(f"10.0.0.{number}", closed))
        elif live and step == "establish":
            admission.establish(live[number % len(live)])
        elif live:
            admission.leave(live.pop(number % len(live)))
        established = [one for one in live if one.established]
        assert len(established) <= limit
        assert admission.count <= 2 * limit
