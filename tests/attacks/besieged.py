# SPDX-License-Identifier: Apache-2.0
"""A DICOM listener under attack: a process of its own, an honest peer that stores all the
while, and what the attack may cost (memory, processor time) measured from outside.

As a program: ``python -m tests.attacks.besieged FOLDER SETTINGS`` serves an archive in
FOLDER; SETTINGS is a JSON object of :class:`gateway.settings.DimseSettings`, its peers objects.
"""

import contextlib
import io
import json
import os
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pydicom
from pynetdicom import AE

from archive.access import EVERYTHING, Principal
from gateway.dimse.server import serve
from gateway.settings import DimseSettings, Peer
from tests.gateway.dimse.running import AE_TITLE, listen
from tests.gateway.dimse.test_pdu import FIXED, header, item
from tests.support.archives import open_archive
from tests.support.instances import WSI, make_instance
from tests.support.require import ROOT

EXPLICIT = "1.2.840.10008.1.2.1"
DEFLATED = "1.2.840.10008.1.2.1.99"
EXTRA_MEMORY_BYTES = 256 << 20
EXTRA_CPU_S = 5.0
ATTACKER = "127.0.0.66"  # not the honest peer's, whose address is 127.0.0.1
_HONEST_EVERY_S = 0.1
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


class HonestPeer(threading.Thread):
    """Associates and stores a new instance, again and again, until it is told to stop."""

    def __init__(self, port: int) -> None:
        super().__init__(name="honest")
        self._port = port
        self._stop_asked = threading.Event()
        self._stored = threading.Condition()
        self.stored: list[str] = []
        self.failures: list[str] = []

    def run(self) -> None:
        while not self._stop_asked.wait(_HONEST_EVERY_S):
            dataset = pydicom.dcmread(io.BytesIO(make_instance(frames=1, native=True)))
            entity = AE("HONEST")
            entity.add_requested_context(WSI, EXPLICIT)
            association = entity.associate("127.0.0.1", self._port, ae_title=AE_TITLE)
            if not association.is_established:
                self.failures.append("no association")
                continue
            status = association.send_c_store(dataset)
            association.release()
            if getattr(status, "Status", None) != 0:
                self.failures.append(f"status {getattr(status, 'Status', None)}")
                continue
            with self._stored:
                self.stored.append(str(dataset.SOPInstanceUID))
                self._stored.notify_all()

    def stores(self, more: int) -> bool:
        """Whether it stores that many more, in a time that is far too long for them."""
        with self._stored:
            goal = len(self.stored) + more
            return self._stored.wait_for(lambda: len(self.stored) >= goal, 30)

    def end(self) -> None:
        self._stop_asked.set()
        self.join(60)


@dataclass
class Siege:
    port: int
    pid: int
    folder: Path
    honest: HonestPeer

    def connect(self, address: str = ATTACKER) -> socket.socket:
        """A connection of the attacker."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=20, source_address=(address, 0))

    def associate(self, sop_class: str = WSI, syntax: str = EXPLICIT) -> socket.socket:
        """An association of the attacker, by hand; its one context is number 1."""
        connection = self.connect()
        request = (
            FIXED
            + item(0x10, b"1.2.840.10008.3.1.1.1")
            + item(0x20, bytes([1, 0, 0, 0]) + item(0x30, sop_class.encode()) + item(0x40, syntax.encode()))
            + item(0x50, item(0x51, struct.pack(">I", 16384)) + item(0x52, b"1.2.3.4"))
        )
        connection.sendall(header(1, len(request)) + request)
        kind, _ = read_pdu(connection)
        assert kind == 2, "not accepted"
        return connection

    def store(self, data_set: bytes, sop: str, *, sop_class: str = WSI, syntax: str = EXPLICIT) -> int | None:
        """C-STORE of these very bytes; the status, None where the listener cut us off."""
        with self.associate(sop_class, syntax) as connection:
            status = send_store(connection, sop_class, sop, [data_set])
            connection.sendall(header(5, 4) + bytes(4))
            read_pdu(connection)
            return status

    def resident_bytes(self) -> int:
        return self._status("VmRSS:")

    def peak_bytes(self) -> int:
        return self._status("VmHWM:")

    def cpu_s(self) -> float:
        fields = Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) * _TICK_S

    def _status(self, name: str) -> int:
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith(name):
                return int(line.split()[1]) * 1024
        raise AssertionError(name)


def send_store(connection: socket.socket, sop_class: str, sop: str, chunks: Iterable[bytes]) -> int | None:
    """A C-STORE-RQ in context 1; the status, None where the listener cut us off."""
    connection.settimeout(60)
    try:
        connection.sendall(data_pdu(1, 3, store_command(sop_class, sop)))
        for chunk in chunks:
            for start in range(0, len(chunk), 16000):
                connection.sendall(data_pdu(1, 0, chunk[start : start + 16000]))
        connection.sendall(data_pdu(1, 2, b""))
        kind, payload = read_pdu(connection)
    except OSError:
        return None
    place = payload.find(struct.pack("<HHI", 0, 0x0900, 2))
    return int.from_bytes(payload[place + 8 : place + 10], "little") if kind == 4 else None


def read_pdu(connection: socket.socket) -> tuple[int, bytes]:
    """Type and payload; (0, b"") where the connection ended."""
    head = _receive(connection, 6)
    if len(head) < 6:
        return 0, b""
    return head[0], _receive(connection, int.from_bytes(head[2:], "big"))


def _receive(connection: socket.socket, length: int) -> bytes:
    data = b""
    while len(data) < length and (chunk := connection.recv(length - len(data))):
        data += chunk
    return data


def data_pdu(context_id: int, control: int, fragment: bytes) -> bytes:
    return (
        header(4, len(fragment) + 6) + struct.pack(">IBB", len(fragment) + 2, context_id, control) + fragment
    )


def store_command(sop_class: str, sop: str) -> bytes:
    """The command set of a C-STORE-RQ (PS3.7 9.3.1.1), Implicit VR Little Endian."""
    elements = b""
    for element, value in (
        (0x0002, even(sop_class)),
        (0x0100, struct.pack("<H", 1)),
        (0x0110, struct.pack("<H", 7)),
        (0x0700, struct.pack("<H", 0)),
        (0x0800, struct.pack("<H", 1)),
        (0x1000, even(sop)),
    ):
        elements += struct.pack("<HHI", 0, element, len(value)) + value
    return struct.pack("<HHII", 0, 0, 4, len(elements)) + elements


def even(text: str) -> bytes:
    data = text.encode("utf-8", "surrogateescape")
    return data + b"\0" * (len(data) % 2)


def explicit(tag: int, vr: bytes, value: bytes) -> bytes:
    """One element in Explicit VR Little Endian."""
    head = struct.pack("<HH2s", tag >> 16, tag & 0xFFFF, vr)
    if vr in (b"OB", b"OW", b"SQ", b"UC", b"UN", b"UR", b"UT"):
        return head + struct.pack("<HI", 0, len(value)) + value
    return head + struct.pack("<H", len(value)) + value


def body(data: bytes) -> bytes:
    """The data set of a Part 10 file with preamble."""
    return data[144 + int.from_bytes(data[140:144], "little") :]


@contextlib.contextmanager
def besieged(
    folder: Path, *, audited: bool = True, file_size_limit: int = 0, **settings: object
) -> Iterator[Siege]:
    """The listener, and an honest peer that must be served before, during and after.

    On leaving: the attack has cost at most 256 MiB and 5 s of processor time more than
    the honest peer did, left an audit record (110113) where ``audited``, nothing in the
    spool, and all that was acknowledged is there.
    """
    with _process(folder, settings) as siege:
        assert siege.honest.stores(3), siege.honest.failures
        served, cpu_before, memory_before = len(siege.honest.stored), siege.cpu_s(), siege.resident_bytes()
        honest_each = _cost_of_one(siege)
        served, cpu_before = len(siege.honest.stored), siege.cpu_s()
        yield siege
        assert siege.honest.stores(2), siege.honest.failures
        used = siege.cpu_s() - cpu_before - honest_each * (len(siege.honest.stored) - served)
        assert siege.honest.failures == []
        assert siege.peak_bytes() - memory_before <= EXTRA_MEMORY_BYTES
        assert used <= EXTRA_CPU_S
    with contextlib.closing(open_archive(folder)) as archive:
        index = archive._core.index
        with index.read():
            alerts = index.models.AuditEvent.select().where(index.models.AuditEvent.code == "110113").count()
        assert alerts or not audited, "the attack left no trace"
        scope = {"principal": Principal("test", "cli"), "scope": EVERYTHING}
        kept = {change.sop_instance_uid for change in archive.changes(0, 1_000_000, **scope)}  # type: ignore[arg-type]
        assert set(siege.honest.stored) <= kept
    assert list((folder / "spool").iterdir()) == []


def _cost_of_one(siege: Siege) -> float:
    """Processor seconds of the listener for one store of the honest peer."""
    before, served = siege.cpu_s(), len(siege.honest.stored)
    assert siege.honest.stores(5)
    return (siege.cpu_s() - before) / (len(siege.honest.stored) - served)


@contextlib.contextmanager
def _process(folder: Path, settings: dict[str, object]) -> Iterator[Siege]:
    process = subprocess.Popen(
        [sys.executable, "-m", __name__, str(folder), json.dumps(settings)], cwd=ROOT, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        with process.stdin, process.stdout:
            port = int(process.stdout.readline())
            honest = HonestPeer(port)
            honest.start()
            try:
                yield Siege(port, process.pid, folder, honest)
                assert process.poll() is None, "the listener died"
            finally:
                honest.end()
            process.stdin.close()
            assert process.wait(40) == 0
    finally:
        process.kill()
        process.wait()


def main(folder: Path, settings: DimseSettings) -> None:
    archive = open_archive(folder)
    listener = listen()
    stop = threading.Event()

    def wait_for_end() -> None:
        sys.stdin.read()
        stop.set()

    threading.Thread(target=wait_for_end, daemon=True).start()
    serve(
        archive, listener, settings, lambda: print(listener.getsockname()[1], flush=True), stop, drain_s=5.0
    )
    archive.close()


def read_settings(text: str) -> DimseSettings:
    values = json.loads(text)
    peers = [
        {name: tuple(value) if isinstance(value, list) else value for name, value in peer.items()}
        for peer in values.pop("peers", ())
    ]
    return DimseSettings(peers=tuple(Peer(**peer) for peer in peers), **values)  # type: ignore[arg-type]


if __name__ == "__main__":
    main(Path(sys.argv[1]), read_settings(sys.argv[2]))
