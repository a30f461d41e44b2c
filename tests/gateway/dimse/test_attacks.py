# SPDX-License-Identifier: Apache-2.0
"""What hostile peers send, over real sockets: nothing is held, an honest peer is served."""

import resource
import socket
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from pynetdicom import AE

from archive.service import Archive
from gateway.settings import DimseSettings
from tests.gateway.dimse.running import AE_TITLE, running
from tests.gateway.dimse.test_pdu import FIXED, context, header, item

QUICK = DimseSettings(association_timeout_s=1.0, maximum_associations=6, associations_per_address=4)
REQUEST = (
    FIXED
    + item(0x10, b"1.2.840.10008.3.1.1.1")
    + context(1)
    + item(0x50, item(0x51, struct.pack(">I", 16384)) + item(0x52, b"1.2.3.4"))
)


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=10)


def associate(port: int) -> socket.socket:
    """An association for Verification, by hand."""
    connection = connect(port)
    connection.sendall(header(1, len(REQUEST)) + REQUEST)
    assert connection.recv(1) == b"\x02", "not accepted"
    rest = struct.unpack(">xI", receive(connection, 5))[0]
    receive(connection, rest)
    return connection


def receive(connection: socket.socket, length: int) -> bytes:
    data = b""
    while len(data) < length:
        chunk = connection.recv(length - len(data))
        assert chunk, "the connection ended"
        data += chunk
    return data


def ends(connection: socket.socket, within_s: float = 5.0) -> bool:
    """Whether the other side closes, whatever it says before."""
    connection.settimeout(within_s)
    try:
        while connection.recv(4096):
            pass
    except ConnectionResetError:
        return True
    except TimeoutError:
        return False
    return True


def honest_echo(port: int) -> int:
    """Status of a C-ECHO by a well-behaved peer."""
    entity = AE("HONEST")
    entity.add_requested_context("1.2.840.10008.1.1")
    association = entity.associate("127.0.0.1", port, ae_title=AE_TITLE)
    assert association.is_established
    status = association.send_c_echo()
    association.release()
    return int(status.Status)


def push(connection: socket.socket, total_bytes: int) -> int:
    """Send until the peer has had enough; returns how much went out."""
    sent, chunk = 0, bytes(1 << 20)
    connection.settimeout(5)
    try:
        while sent < total_bytes:
            sent += connection.send(chunk)
    except OSError:
        pass
    return sent


@pytest.mark.parametrize("opened", [connect, associate])
def test_a_pdu_of_four_gigabytes_is_not_buffered(
    archive: Archive, opened: Callable[[int], socket.socket]
) -> None:
    with running(archive, QUICK) as scp, opened(scp.port) as attacker:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        attacker.sendall(header(4, 0xFFFFFFFF))
        assert push(attacker, 600 << 20) < 64 << 20
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 * 1024
        assert honest_echo(scp.port) == 0


def test_three_bytes_and_silence_do_not_lock_out_an_honest_peer(archive: Archive) -> None:
    with running(archive, QUICK) as scp:
        attackers = [connect(scp.port) for _ in range(30)]
        for attacker in attackers:
            attacker.sendall(b"\x01\x00\x00")
        assert honest_echo(scp.port) == 0
        assert all(ends(attacker) for attacker in attackers)
        assert honest_echo(scp.port) == 0


def test_a_connection_that_says_nothing_is_closed_in_time(archive: Archive) -> None:
    with running(archive, QUICK) as scp, connect(scp.port) as attacker:
        started = time.monotonic()
        assert ends(attacker)
        assert time.monotonic() - started < 4 * QUICK.association_timeout_s


def test_one_byte_now_and_then_does_not_keep_a_pdu_alive(archive: Archive) -> None:
    with running(archive, QUICK) as scp, connect(scp.port) as attacker:
        request = header(1, len(REQUEST)) + REQUEST
        stopped = threading.Event()

        def drip() -> None:
            for byte in request:
                if stopped.wait(0.05):
                    return
                try:
                    attacker.send(bytes([byte]))
                except OSError:
                    return

        dripping = threading.Thread(target=drip)
        dripping.start()
        try:
            assert ends(attacker, 3.0)
        finally:
            stopped.set()
            dripping.join()


def test_three_hundred_connections_do_not_start_three_hundred_threads(archive: Archive) -> None:
    settings = DimseSettings(maximum_associations=6, associations_per_address=4)
    with running(archive, settings) as scp:
        before, most = threading.active_count(), 0
        attackers = []
        for _ in range(300):
            attackers.append(connect(scp.port))
            most = max(most, threading.active_count() - before)
        assert honest_echo(scp.port) == 0
        # Two for each of six associations, six that may wait and six that are just ending,
        # and what those that end have not given back yet.
        assert most <= 2 * 18 + 4
        for attacker in attackers:
            attacker.close()


def test_more_associations_than_allowed_are_rejected_as_local_limit(archive: Archive) -> None:
    with running(archive, DimseSettings(maximum_associations=6, associations_per_address=2)) as scp:
        kept = [associate(scp.port), associate(scp.port)]
        with connect(scp.port) as third:
            third.sendall(header(1, len(REQUEST)) + REQUEST)
            assert receive(third, 10) == header(3, 4) + bytes([0, 2, 3, 2])
        for connection in kept:
            connection.close()


@pytest.mark.parametrize(
    "payload",
    [
        FIXED + item(0x10, b"1.2.840.10008.3.1.1.1") + context(1) * 129,
        FIXED + item(0x50, item(0x54, b"") * 12000),
        FIXED + struct.pack(">BxH", 0x20, 0xFFFF),
        FIXED + item(0x10, b"\xff" * 64) + context(1),
        b"",
        bytes(68),
    ],
)
def test_a_malformed_association_request_ends_the_connection(archive: Archive, payload: bytes) -> None:
    with running(archive, QUICK) as scp:
        with connect(scp.port) as attacker:
            attacker.sendall(header(1, len(payload)) + payload)
            assert ends(attacker)
        assert honest_echo(scp.port) == 0


@pytest.mark.parametrize(
    "pdu",
    [
        header(4, 6) + struct.pack(">IBB", 2, 1, 0),  # a data set without a command
        header(4, 6) + struct.pack(">IBB", 900, 1, 3),  # longer than its PDU
        header(4, 8) + struct.pack(">IBB", 4, 1, 3) + b"\xff\xff",  # no command set
        header(4, 0),
        header(2, 4) + bytes(4),
        b"GET / HTTP/1.1\r\n\r\n",
    ],
)
def test_garbage_in_an_association_aborts_it(archive: Archive, pdu: bytes) -> None:
    with running(archive, QUICK) as scp:
        with associate(scp.port) as attacker:
            attacker.sendall(pdu)
            assert ends(attacker)
        assert honest_echo(scp.port) == 0


def test_an_endless_command_set_is_cut(archive: Archive) -> None:
    fragment = struct.pack(">IBB", 16002, 1, 1) + bytes(16000)
    with running(archive, QUICK) as scp, associate(scp.port) as attacker:
        try:
            for _ in range(1000):
                attacker.sendall(header(4, len(fragment)) + fragment)
        except OSError:
            return
        pytest.fail("16 MB of command set were taken")


def test_an_endless_query_is_cut(archive: Archive) -> None:
    command = bytes.fromhex("0000000004000000380000000000020012000000") + b"1.2.840.10008.1.1\0"
    command += bytes.fromhex("00000001020000002000") + bytes.fromhex("0000100102000000 0100")
    command += bytes.fromhex("00000007020000000000") + bytes.fromhex("0000000802000000 0000")
    first = struct.pack(">IBB", len(command) + 2, 1, 3) + command
    fragment = struct.pack(">IBB", 16002, 1, 0) + bytes(16000)
    with running(archive, QUICK) as scp, associate(scp.port) as attacker:
        attacker.sendall(header(4, len(first)) + first)
        try:
            for _ in range(1000):
                attacker.sendall(header(4, len(fragment)) + fragment)
        except OSError:
            return
        pytest.fail("16 MB of identifier were taken")


def test_a_silent_association_is_aborted_after_the_idle_time(archive: Archive) -> None:
    with running(archive, DimseSettings(idle_timeout_s=1)) as scp, associate(scp.port) as silent:
        assert ends(silent, 5.0)


def test_nothing_of_the_attacks_stays_in_the_spool(archive: Archive, tmp_path: Path) -> None:
    with running(archive, QUICK) as scp, associate(scp.port) as attacker:
        attacker.sendall(header(4, 4) + bytes(4))
        assert ends(attacker)
    assert list((tmp_path / "data" / "spool").iterdir()) == []
