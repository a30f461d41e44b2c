# SPDX-License-Identifier: Apache-2.0
"""A node that is written out step by step, to misbehave at any of them."""

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator

from gateway.dimse.commands import (
    AFFECTED_SOP_INSTANCE_UID,
    MESSAGE_ID,
    Command,
    decode_command,
)
from gateway.dimse.messages_out import COMMAND_FIELDS, FieldValue, encode_command
from gateway.dimse.pdu import PduType, data_values
from gateway.dimse.peers import Destination

FIXED = 68


class Dialogue:
    """The peer's side of one connection."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.contexts: dict[int, tuple[str, list[str]]] = {}
        self.stored: list[tuple[str, int, bytes]] = []  # SOP instance, context, data set
        self.pdu_lengths: list[int] = []

    def read(self) -> tuple[int, bytes]:
        head = self._exactly(6)
        kind, length = struct.unpack(">BxI", head)
        return kind, self._exactly(length)

    def _exactly(self, length: int) -> bytes:
        data = bytearray()
        while len(data) < length:
            more = self.connection.recv(length - len(data))
            if not more:
                raise ConnectionError
            data += more
        return bytes(data)

    def send(self, kind: int, payload: bytes) -> None:
        self.connection.sendall(struct.pack(">BxI", kind, len(payload)) + payload)

    def read_request(self) -> None:
        """The A-ASSOCIATE-RQ: what it proposes is kept."""
        kind, payload = self.read()
        assert kind == PduType.ASSOCIATE_RQ
        self.titles = payload[4:36]
        position = FIXED
        while position < len(payload):
            item, length = struct.unpack_from(">BxH", payload, position)
            value = payload[position + 4 : position + 4 + length]
            position += 4 + length
            if item == 0x20:
                uids, at = [], 4
                while at < len(value):
                    (size,) = struct.unpack_from(">H", value, at + 2)
                    uids.append(value[at + 4 : at + 4 + size].decode())
                    at += 4 + size
                self.contexts[value[0]] = (uids[0], uids[1:])

    def accept(
        self, take: Callable[[str, list[str]], str | None] = lambda abstract, syntaxes: syntaxes[0],
        maximum_length: int = 16384, roles: dict[str, tuple[int, int]] | None = None,
    ) -> None:  # fmt: skip
        """The A-ASSOCIATE-AC; ``take`` gives the transfer syntax of a context, or None."""
        body = bytearray(struct.pack(">HH", 1, 0) + self.titles + bytes(32))
        body += item(0x10, b"1.2.840.10008.3.1.1.1")
        for number, (abstract, syntaxes) in self.contexts.items():
            chosen = take(abstract, syntaxes)
            result = 4 if chosen is None else 0
            body += item(0x21, bytes((number, 0, result, 0)) + item(0x40, (chosen or syntaxes[0]).encode()))
        user = item(0x51, struct.pack(">I", maximum_length)) + item(0x52, b"1.2.3")
        for uid, (scu, scp) in (roles or {}).items():
            user += item(0x54, struct.pack(">H", len(uid)) + uid.encode() + bytes((scu, scp)))
        self.send(PduType.ASSOCIATE_AC, bytes(body + item(0x50, user)))

    def read_command(self) -> tuple[int, Command]:
        command = bytearray()
        while True:
            kind, payload = self.read()
            assert kind == PduType.DATA, kind
            for number, control, fragment in data_values(payload):
                assert control & 1
                command += fragment
                if control & 2:
                    return number, decode_command(bytes(command))

    def read_data(self) -> bytes:
        data = bytearray()
        while True:
            kind, payload = self.read()
            assert kind == PduType.DATA, kind
            self.pdu_lengths.append(len(payload))
            for _, control, fragment in data_values(payload):
                assert not control & 1
                data += fragment
                if control & 2:
                    return bytes(data)

    def respond(self, number: int, command: Command, status: int = 0, **fields: FieldValue) -> None:
        answer: dict[str, FieldValue] = {
            "CommandField": command.field | 0x8000,
            "MessageIDBeingRespondedTo": command.number(MESSAGE_ID),
            "CommandDataSetType": 0x0101,
            "Status": status,
            **fields,
        }
        self.say(number, encode_command(answer), 3)

    def say(self, number: int, data: bytes, control: int) -> None:
        self.send(PduType.DATA, struct.pack(">IBB", len(data) + 2, number, control) + data)

    def serve(self, status: int = 0) -> None:
        """Store, or otherwise answer, until the association is released."""
        while True:
            kind, payload = self.read()
            if kind != PduType.DATA:
                if kind == PduType.RELEASE_RQ:
                    self.send(PduType.RELEASE_RP, bytes(4))
                return
            ((number, control, fragment),) = data_values(payload)
            assert control == 3
            command = decode_command(bytes(fragment))
            if command.has_data_set:
                data = self.read_data()
                self.stored.append((command.text(AFFECTED_SOP_INSTANCE_UID), number, data))
            self.respond(number, command, status if command.field == COMMAND_FIELDS["C_STORE"] else 0)


def item(kind: int, value: bytes) -> bytes:
    return struct.pack(">BxH", kind, len(value)) + value


Script = Callable[[Dialogue], None]


@contextlib.contextmanager
def scripted(*scripts: Script) -> Iterator[tuple[Destination, list[Dialogue]]]:
    """A listener whose connections follow the scripts in turn, the last one from then on."""
    listener = socket.create_server(("127.0.0.1", 0))
    dialogues: list[Dialogue] = []
    stop = threading.Event()

    def listen() -> None:
        while not stop.is_set():
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            if stop.is_set():
                connection.close()
                return
            with connection:
                connection.settimeout(20)
                dialogue = Dialogue(connection)
                dialogues.append(dialogue)
                script = scripts[min(len(dialogues), len(scripts)) - 1]
                with contextlib.suppress(ConnectionError, TimeoutError):
                    script(dialogue)

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    try:
        yield Destination("PEER", "127.0.0.1", listener.getsockname()[1]), dialogues
    finally:
        stop.set()
        with contextlib.suppress(OSError), socket.create_connection(listener.getsockname(), 1):
            pass
        thread.join(25)
        listener.close()


def well_behaved(dialogue: Dialogue) -> None:
    dialogue.read_request()
    dialogue.accept()
    dialogue.serve()
