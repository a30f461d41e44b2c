# SPDX-License-Identifier: Apache-2.0
"""A connection that we open: PDUs out and in, each within a deadline.

Blocking, without threads. What is written is gathered: many PDUs leave in one call to
the kernel, and no byte of a data set is copied for it.
"""

import contextlib
import socket
import ssl
import struct
import time
from collections.abc import Sequence

from gateway.delivery import DeliveryError
from gateway.dimse.messages_out import Piece
from gateway.dimse.pdu import HEADER_BYTES, PduRefused, PduType, read_header
from gateway.dimse.peers import Destination

MAXIMUM_LENGTH = 128 * 1024  # of the PDUs that we receive and, where the peer takes them, send
_BUFFERS_AT_ONCE = 512  # below IOV_MAX
_SEND_BUFFER_BYTES = 1 << 20


class PeerUnreachable(DeliveryError):
    """No connection, or it broke."""


class PeerSilent(DeliveryError):
    """The peer did not read or answer in time."""


class PeerMisbehaved(DeliveryError):
    """The peer sent what the standard does not allow there."""


class Aborted(DeliveryError):
    """The peer aborted the association (PS3.8 9.3.8) or released it amid a request."""


class AssociationRejected(DeliveryError):
    """The peer does not associate: ``result``, ``source`` and ``reason`` of PS3.8 9.3.4."""

    def __init__(self, name: str, result: int, source: int, reason: int) -> None:
        said = _REJECTIONS.get((source, reason), f"source {source}, reason {reason}")
        super().__init__(f"{name} rejected the association: {said}")
        self.result, self.source, self.reason = result, source, reason


_REJECTIONS = {
    (1, 1): "no reason given",
    (1, 2): "application context not supported",
    (1, 3): "it does not know our AE title",
    (1, 7): "it does not go by that AE title",
    (2, 1): "no reason given",
    (2, 2): "protocol version not supported",
    (3, 1): "temporary congestion",
    (3, 2): "its local limit is exceeded",
}


class Line:
    """One TCP or TLS connection to a peer. ``timeout_s`` is for a connection, and for any
    progress while writing."""

    def __init__(self, destination: Destination, timeout_s: float) -> None:
        """Raises PeerUnreachable, PeerSilent."""
        self._name = destination.ae_title
        self._timeout_s = timeout_s
        self._socket = _connect(destination, timeout_s)

    def write(self, buffers: Sequence[Piece]) -> None:
        """All of the buffers, in order. Raises PeerUnreachable, PeerSilent, Aborted."""
        try:
            if isinstance(self._socket, ssl.SSLSocket):
                self._socket.settimeout(self._timeout_s)
                self._socket.sendall(b"".join(buffers))
                return
            for start in range(0, len(buffers), _BUFFERS_AT_ONCE):
                self._gather(list(buffers[start : start + _BUFFERS_AT_ONCE]))
        except TimeoutError:
            raise PeerSilent(f"{self._name} does not read what is sent") from None
        except OSError as error:
            raise self._last_word(error) from None

    def _gather(self, buffers: list[Piece]) -> None:
        self._socket.settimeout(self._timeout_s)
        first = 0
        while first < len(buffers):
            sent = self._socket.sendmsg(buffers[first:] if first else buffers)
            while first < len(buffers) and sent >= len(buffers[first]):
                sent -= len(buffers[first])
                first += 1
            if sent:
                buffers[first] = memoryview(buffers[first])[sent:]

    def _last_word(self, error: OSError) -> DeliveryError:
        """Why a write failed: an abort that the peer sent before may still be readable."""
        with contextlib.suppress(DeliveryError):
            kind, payload = self.read(time.monotonic() + 1.0)
            if kind is PduType.ABORT:
                return aborted(self._name, payload)
        return PeerUnreachable(f"the connection to {self._name} broke ({_reason(error)})")

    def read(self, deadline: float) -> tuple[PduType, bytearray]:
        """The next PDU before ``deadline`` (monotonic seconds): its type and what follows
        the header. Raises PeerUnreachable, PeerSilent, PeerMisbehaved."""
        try:
            kind, length = read_header(self._read(HEADER_BYTES, deadline), MAXIMUM_LENGTH)
        except PduRefused as refusal:
            raise PeerMisbehaved(f"{self._name}: {refusal}") from None
        return kind, self._read(length, deadline)

    def _read(self, length: int, deadline: float) -> bytearray:
        buffer = bytearray(length)
        view = memoryview(buffer)
        while view:
            remaining_s = deadline - time.monotonic()
            if remaining_s <= 0:
                raise PeerSilent(f"{self._name} does not answer")
            self._socket.settimeout(remaining_s)
            try:
                count = self._socket.recv_into(view)
            except TimeoutError:
                raise PeerSilent(f"{self._name} does not answer") from None
            except OSError as error:
                raise PeerUnreachable(f"the connection to {self._name} broke ({_reason(error)})") from None
            if not count:
                raise PeerUnreachable(f"{self._name} closed the connection")
            view = view[count:]
        return buffer

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.close()


def _connect(destination: Destination, timeout_s: float) -> socket.socket:
    name = destination.ae_title
    try:
        connection = socket.create_connection((destination.host, destination.port), timeout_s)
    except TimeoutError:
        raise PeerSilent(f"{name} cannot be reached in time") from None
    except (OSError, UnicodeError) as error:
        raise PeerUnreachable(f"{name} cannot be reached ({_reason(error)})") from None
    try:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
        if destination.tls is None:
            return connection
        return destination.tls.wrap_socket(connection, server_hostname=destination.host)
    except TimeoutError:
        connection.close()
        raise PeerSilent(f"{name} does not answer to TLS") from None
    except (OSError, ValueError) as error:
        connection.close()
        raise PeerUnreachable(f"no TLS connection to {name} ({_reason(error)})") from None


def aborted(name: str, payload: bytes | bytearray) -> Aborted:
    """What an A-ABORT says (PS3.8 Table 9-26)."""
    source, reason = struct.unpack_from(">BB", bytes(payload).ljust(4, b"\0"), 2)
    return Aborted(f"{name} aborted the association (source {source}, reason {reason})")


def _reason(error: BaseException) -> str:
    """What the system says, without addresses that it may hold."""
    if isinstance(error, ssl.SSLError):
        return str(getattr(error, "verify_message", "") or error.reason or "TLS failed")
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return type(error).__name__
