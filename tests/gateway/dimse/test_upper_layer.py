# SPDX-License-Identifier: Apache-2.0
"""The connection beneath an association: deadlines, and what keeps small instances fast."""

import queue
import socket
import sys
import time
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from gateway.dimse.upper_layer import ConnectionEnded, DeadlinePassed, DeadlineSocket


@pytest.fixture
def pair() -> Iterator[tuple[DeadlineSocket, socket.socket]]:
    """Our end of a TCP connection, and the peer's."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        peer = socket.create_connection(listener.getsockname())
        accepted, _ = listener.accept()
    association = SimpleNamespace(dul=SimpleNamespace(event_queue=queue.Queue()))
    ours = DeadlineSocket(association, accepted, timeout_s=0.3)  # type: ignore[arg-type]
    with peer:
        yield ours, peer
        ours.close()
        ours.release()


def soon() -> float:
    return time.monotonic() + 5


def test_bytes_are_read_however_the_network_cut_them(pair: tuple[DeadlineSocket, socket.socket]) -> None:
    ours, peer = pair
    for piece in (b"ab", b"c", b"defg"):
        peer.sendall(piece)
    assert ours.read(7, soon()) == b"abcdefg"


def test_a_peer_that_stops_in_the_middle_has_a_deadline(pair: tuple[DeadlineSocket, socket.socket]) -> None:
    ours, peer = pair
    peer.sendall(b"abc")
    with pytest.raises(DeadlinePassed):
        ours.read(7, time.monotonic() + 0.2)


def test_a_peer_that_hangs_up_in_the_middle_is_noticed(pair: tuple[DeadlineSocket, socket.socket]) -> None:
    ours, peer = pair
    peer.sendall(b"abc")
    peer.close()
    with pytest.raises(ConnectionEnded):
        ours.read(7, soon())


def test_a_peer_that_does_not_read_is_not_waited_for(pair: tuple[DeadlineSocket, socket.socket]) -> None:
    ours, _ = pair
    started = time.monotonic()
    ours.send(bytes(64 << 20))
    assert time.monotonic() - started < 5
    assert "Evt17" in list(ours.event_queue.queue)


def test_waiting_ends_when_there_is_something_to_send(pair: tuple[DeadlineSocket, socket.socket]) -> None:
    ours, peer = pair
    ours.wake()
    started = time.monotonic()
    assert not ours.wait(10)
    assert time.monotonic() - started < 5
    peer.sendall(b"x")
    assert ours.wait(10)


@pytest.mark.skipif(sys.platform != "linux", reason="TCP_QUICKACK is Linux's")
def test_acknowledgements_are_not_delayed_after_an_answer(pair: tuple[DeadlineSocket, socket.socket]) -> None:
    ours, peer = pair
    assert ours.socket is not None
    for _ in range(3):
        peer.sendall(b"request")
        ours.read(7, soon())
        # An answer makes the kernel think that acknowledgements can ride on answers.
        assert ours.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK) == 1
        ours.send(b"answer")
        peer.recv(6)


def test_our_own_small_answers_are_not_held_back(pair: tuple[DeadlineSocket, socket.socket]) -> None:
    ours, _ = pair
    assert ours.socket is not None
    assert ours.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
