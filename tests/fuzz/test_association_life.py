# SPDX-License-Identifier: Apache-2.0
"""The life of an association as a state machine: whatever a peer does, and in whatever
order, the listener answers as PS3.8 Table 9-10 says and serves the next one."""

import contextlib
import socket
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.fuzz.conversations import conversations, request_pdu
from tests.fuzz.listener import Listener, honest, listening
from tests.gateway.dimse.test_pdu import header

ACCEPT, REJECT, DATA, RELEASE_ANSWER, ABORT = 2, 3, 4, 6, 7
TALK = {name: pdus[1:-1] for name, pdus in conversations().items()}
RELEASE = header(5, 4) + bytes(4)
_WAIT_S = 20.0


class _Shared:
    """One listener for all examples: it has to survive them all."""

    listener: Listener


class AssociationLife(RuleBasedStateMachine):
    """``state``: ``closed``, ``idle`` (connected, Sta2), ``open`` (Sta6), ``half`` (in the
    middle of a PDU)."""

    def __init__(self) -> None:
        super().__init__()
        self.state = "closed"
        self.connection: socket.socket | None = None

    def teardown(self) -> None:
        self._close()
        assert honest(_Shared.listener.port)

    @precondition(lambda self: self.state == "closed")
    @rule()
    def connect(self) -> None:
        self.connection = socket.create_connection(("127.0.0.1", _Shared.listener.port), timeout=_WAIT_S)
        self.state = "idle"

    @precondition(lambda self: self.state == "idle")
    @rule()
    def associate(self) -> None:
        self._send(request_pdu())
        assert self._answer() == ACCEPT
        self.state = "open"

    @precondition(lambda self: self.state == "idle")
    @rule(called=st.sampled_from([b"NOBODY".ljust(16), b" " * 16, b"\xff" * 16]))
    def associate_with_another(self, called: bytes) -> None:
        pdu = request_pdu()
        self._send(pdu[:10] + called + pdu[26:])
        assert self._answer() in (REJECT, ABORT, None)
        self._close()

    @precondition(lambda self: self.state == "open")
    @rule(name=st.sampled_from(sorted(TALK)))
    def ask(self, name: str) -> None:
        for pdu in TALK[name]:
            self._send(pdu)
        # A query or a retrieval of nothing, a step twice: all have a final answer.
        assert self._answer() == DATA

    @precondition(lambda self: self.state == "open")
    @rule(name=st.sampled_from(sorted(TALK)), part=st.integers(1, 60))
    def begin_and_stop(self, name: str, part: int) -> None:
        self._send(TALK[name][0][:part])
        self.state = "half"

    @precondition(lambda self: self.state in ("open", "idle"))
    @rule(kind=st.sampled_from([0, 2, 3, 6, 8, 0x41]))
    def say_what_is_not_ours_to_say(self, kind: int) -> None:
        self._send(header(kind, 4) + bytes(4))
        assert self._answer() in (ABORT, None)
        self._close()

    @precondition(lambda self: self.state == "open")
    @rule()
    def associate_again(self) -> None:
        self._send(request_pdu())
        assert self._answer() == ABORT
        self._close()

    @precondition(lambda self: self.state == "idle")
    @rule(name=st.sampled_from(sorted(TALK)))
    def ask_without_an_association(self, name: str) -> None:
        self._send(TALK[name][0])
        assert self._answer() in (ABORT, None)
        self._close()

    @precondition(lambda self: self.state == "open")
    @rule()
    def release(self) -> None:
        self._send(RELEASE)
        assert self._answer() == RELEASE_ANSWER
        self._close()

    @precondition(lambda self: self.state != "closed")
    @rule()
    def abort(self) -> None:
        self._send(header(7, 4) + bytes(4))
        self._close()

    @precondition(lambda self: self.state != "closed")
    @rule()
    def hang_up(self) -> None:
        self._close()

    @invariant()
    def the_listener_lives(self) -> None:
        assert _Shared.listener.process.poll() is None
        said = _Shared.listener.said()
        assert "Traceback" not in said, said

    def _send(self, data: bytes) -> None:
        assert self.connection is not None
        with contextlib.suppress(OSError):
            self.connection.sendall(data)

    def _answer(self) -> int | None:
        """The type of the last PDU of one answer; None where the connection ended."""
        assert self.connection is not None
        kind = self._pdu()
        while kind == DATA and self._pending:
            kind = self._pdu()
        return kind

    def _pdu(self) -> int | None:
        assert self.connection is not None
        try:
            head = self._receive(6)
            body = self._receive(int.from_bytes(head[2:], "big"))
        except (OSError, EOFError):
            return None
        place = body.find(b"\x00\x00\x00\x09\x02\x00\x00\x00")
        # A command set follows every data set but the last message's.
        self._pending = head[0] == DATA and (place < 0 or body[place + 9] == 0xFF)
        return head[0]

    def _receive(self, length: int) -> bytes:
        assert self.connection is not None
        data = b""
        while len(data) < length:
            chunk = self.connection.recv(length - len(data))
            if not chunk:
                raise EOFError
            data += chunk
        return data

    def _close(self) -> None:
        if self.connection is not None:
            self.connection.close()
        self.connection, self.state = None, "closed"


def test_the_life_of_an_association() -> None:
    with tempfile.TemporaryDirectory() as folder, listening(Path(folder) / "data") as listener:
        _Shared.listener = listener
        AssociationLife.TestCase.settings = settings(
            max_examples=40, stateful_step_count=15, deadline=None, derandomize=True,
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        case = AssociationLife.TestCase()
        case.runTest()
