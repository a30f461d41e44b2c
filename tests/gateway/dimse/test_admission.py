# SPDX-License-Identifier: Apache-2.0
"""Half-open connections never keep an honest peer out (attacks A2 and A3)."""

import threading

from hypothesis import given
from hypothesis import strategies as st

from gateway.dimse.admission import Admission, Connection


class Network:
    """Connections whose threads end at once when they are closed."""

    def __init__(self, limit: int, limit_per_address: int) -> None:
        self.admission = Admission(limit, limit_per_address)
        self.closed = 0

    def connect(self, address: str) -> Connection:
        made: list[Connection] = []

        def close() -> None:
            self.closed += 1
            self.admission.leave(made[0])

        connection = self.admission.admit(address, close, wait_s=0)
        assert connection is not None
        made.append(connection)
        return connection


def test_a_flood_from_one_address_closes_its_own_oldest_connections() -> None:
    network = Network(limit=64, limit_per_address=8)
    for _ in range(1000):
        network.connect("10.0.0.66")
    assert network.admission.count == 8
    assert network.closed == 992


def test_an_honest_peer_associates_during_a_flood_from_many_addresses() -> None:
    network = Network(limit=16, limit_per_address=4)
    for number in range(1000):
        network.connect(f"10.0.{number // 250}.{number % 250}")
    assert network.admission.establish(network.connect("192.0.2.1"))
    assert network.admission.count <= 17


def test_established_associations_are_limited_in_all() -> None:
    network = Network(limit=3, limit_per_address=3)
    connections = [network.connect(f"10.0.0.{number}") for number in range(4)]
    assert [network.admission.establish(one) for one in connections] == [True, True, True, False]


def test_established_associations_are_limited_per_address() -> None:
    network = Network(limit=10, limit_per_address=2)
    connections = [network.connect("10.0.0.1") for _ in range(3)]
    assert [network.admission.establish(one) for one in connections] == [True, True, False]
    assert network.admission.establish(network.connect("10.0.0.2"))


def test_an_established_association_is_never_closed_for_a_newer_connection() -> None:
    network = Network(limit=4, limit_per_address=4)
    kept = network.connect("10.0.0.1")
    assert network.admission.establish(kept)
    for _ in range(100):
        network.connect("10.0.0.1")
    assert network.closed == 96
    network.admission.leave(kept)
    assert network.admission.count == 4


def test_a_place_is_free_again_when_its_association_ends() -> None:
    network = Network(limit=1, limit_per_address=1)
    first = network.connect("10.0.0.1")
    assert network.admission.establish(first)
    second = network.connect("10.0.0.1")
    assert not network.admission.establish(second)
    network.admission.leave(first)
    assert network.admission.establish(second)


def test_a_connection_closed_for_a_newer_one_is_not_established() -> None:
    network = Network(limit=1, limit_per_address=1)
    first = network.connect("10.0.0.1")
    for _ in range(4):
        network.connect("10.0.0.1")
    assert network.closed == 1
    assert not network.admission.establish(first)


def test_closed_connections_count_until_their_threads_have_ended() -> None:
    admission = Admission(limit=4, limit_per_address=4)
    admitted = [admission.admit("10.0.0.1", lambda: None, wait_s=0) for _ in range(admission.most)]
    assert None not in admitted
    assert admission.admit("10.0.0.1", lambda: None, wait_s=0) is None
    first = admitted[0]
    assert first is not None
    waiting = threading.Thread(target=lambda: admitted.append(admission.admit("10.0.0.2", lambda: None)))
    waiting.start()
    admission.leave(first)
    waiting.join(10)
    assert admitted[-1] is not None


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["connect", "establish", "leave"]))))
def test_the_number_of_connections_is_bounded_whatever_happens(steps: list[tuple[int, str]]) -> None:
    limit = 6
    network = Network(limit, limit_per_address=3)
    live: list[Connection] = []
    for number, step in steps:
        if step == "connect":
            live.append(network.connect(f"10.0.0.{number}"))
        elif live and step == "establish":
            network.admission.establish(live[number % len(live)])
        elif live:
            network.admission.leave(live.pop(number % len(live)))
        assert sum(1 for one in live if one.established) <= limit
        assert network.admission.count <= 2 * limit
