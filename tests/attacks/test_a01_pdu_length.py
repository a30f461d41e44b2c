# SPDX-License-Identifier: Apache-2.0
"""A1: a PDU that says it is four gigabytes long, before and in an association."""

import socket
from pathlib import Path

import pytest

from tests.attacks.besieged import besieged
from tests.gateway.dimse.test_pdu import header


def push(connection: socket.socket, total_bytes: int) -> int:
    """Send until the other side has had enough; returns how much went out."""
    sent, chunk = 0, bytes(1 << 20)
    try:
        while sent < total_bytes:
            sent += connection.send(chunk)
    except OSError:
        pass
    return sent


@pytest.mark.parametrize("kind", [1, 4])
def test_before_an_association(tmp_path: Path, kind: int) -> None:
    with besieged(tmp_path / "data") as siege:
        for _ in range(5):
            with siege.connect() as connection:
                connection.sendall(header(kind, 0xFFFFFFFF))
                assert push(connection, 600 << 20) < 64 << 20


def test_within_an_association(tmp_path: Path) -> None:
    with besieged(tmp_path / "data") as siege:
        with siege.associate() as connection:
            connection.sendall(header(4, 0xFFFFFFFF))
            assert push(connection, 600 << 20) < 64 << 20
