# SPDX-License-Identifier: Apache-2.0
"""A valid conversation, damaged at random: the listener serves on and keeps nothing."""

import io
import random
import socket
import struct
import threading
from pathlib import Path

import pydicom
import pytest

from archive.service import Archive
from gateway.settings import DimseSettings
from tests.gateway.dimse.running import running
from tests.gateway.dimse.test_attacks import honest_echo
from tests.gateway.dimse.test_pdu import FIXED, header, item
from tests.support.archives import ASK
from tests.support.instances import WSI, make_instance

ROUNDS = 150


def conversation() -> list[bytes]:
    """PDUs of a peer that associates, stores one instance and releases."""
    data = make_instance(frames=4, native=True)
    dataset = pydicom.dcmread(io.BytesIO(data), stop_before_pixels=True)
    body = data[144 + int.from_bytes(data[140:144], "little") :]
    names = item(0x30, WSI.encode()) + item(0x40, b"1.2.840.10008.1.2.1")
    request = (
        FIXED
        + item(0x10, b"1.2.840.10008.3.1.1.1")
        + item(0x20, bytes([1, 0, 0, 0]) + names)
        + item(0x50, item(0x51, struct.pack(">I", 16384)) + item(0x52, b"1.2.3.4"))
    )
    pdus = [header(1, len(request)) + request, data_pdu(3, command(dataset.SOPInstanceUID))]
    pieces = [body[start : start + 4000] for start in range(0, len(body), 4000)]
    pdus += [data_pdu(2 if piece is pieces[-1] else 0, piece) for piece in pieces]
    return [*pdus, header(5, 4) + bytes(4)]


def data_pdu(control: int, fragment: bytes) -> bytes:
    value = struct.pack(">IBB", len(fragment) + 2, 1, control) + fragment
    return header(4, len(value)) + value


def command(sop_instance_uid: str) -> bytes:
    """The command set of a C-STORE-RQ (PS3.7 9.3.1.1), Implicit VR Little Endian."""
    elements = b""
    for element, value in (
        (0x0002, even(WSI)),
        (0x0100, struct.pack("<H", 1)),
        (0x0110, struct.pack("<H", 7)),
        (0x0700, struct.pack("<H", 0)),
        (0x0800, struct.pack("<H", 1)),
        (0x1000, even(sop_instance_uid)),
    ):
        elements += struct.pack("<HHI", 0, element, len(value)) + value
    return struct.pack("<HHII", 0, 0, 4, len(elements)) + elements


def even(text: str) -> bytes:
    return text.encode() + b"\0" * (len(text) % 2)


def damaged(pdus: list[bytes], generator: random.Random) -> bytes:
    """One to three bytes changed, a piece removed, doubled or cut off; PDUs out of order."""
    pdus = list(pdus)
    match generator.randrange(4):
        case 0:
            one, other = generator.randrange(len(pdus)), generator.randrange(len(pdus))
            pdus[one], pdus[other] = pdus[other], pdus[one]
        case 1:
            del pdus[generator.randrange(len(pdus))]
        case 2:
            pdus.insert(generator.randrange(len(pdus)), generator.choice(pdus))
    stream = bytearray(b"".join(pdus))
    for _ in range(generator.randrange(4)):
        # Mostly where the structure is, not in pixels.
        place = generator.randrange(min(len(stream), 1200)) if generator.random() < 0.8 else 0
        stream[place] = generator.choice([0, 1, 0x7F, 0xFF, generator.randrange(256)])
    if generator.random() < 0.3:
        del stream[generator.randrange(len(stream)) :]
    return bytes(stream)


def say(port: int, stream: bytes, first: bytes = b"") -> None:
    """Send ``first`` and wait for an answer; send the rest at once and listen to the end."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        try:
            if first:
                connection.sendall(first)
                connection.recv(1)
            connection.sendall(stream)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(65536):
                pass
        except OSError:
            return


def test_the_conversation_itself_is_valid(archive: Archive) -> None:
    with running(archive) as scp:
        first, *rest = conversation()
        say(scp.port, b"".join(rest), first)
    assert len(archive.changes(0, **ASK)) == 1


@pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom warns of what it decodes
@pytest.mark.parametrize("seed", [1, 2])
def test_a_damaged_conversation_harms_nobody(archive: Archive, tmp_path: Path, seed: int) -> None:
    generator = random.Random(seed)
    pdus = conversation()
    settings = DimseSettings(association_timeout_s=1, idle_timeout_s=2)
    with running(archive, settings) as scp:
        before = threading.active_count()
        for number in range(ROUNDS):
            if generator.random() < 0.7:  # most get as far as an association
                say(scp.port, damaged(pdus[1:], generator), pdus[0])
            else:
                say(scp.port, damaged(pdus, generator))
            if number % 50 == 0:
                assert honest_echo(scp.port) == 0
        assert honest_echo(scp.port) == 0
        assert threading.active_count() <= before + 6
    assert list((tmp_path / "data" / "spool").iterdir()) == []
    assert [f for f in archive.verify(**ASK) if f.kind != "as received"] == []
