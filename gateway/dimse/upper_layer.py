# SPDX-License-Identifier: Apache-2.0
"""pynetdicom's upper layer, made fit for a hostile network (PS3.8).

pynetdicom keeps the state machine; replaced here is what reads from the socket. As
shipped it buffers PDUs of any length without a deadline (its issue 1086), leaves
Nagle's algorithm on, copies every data PDU four times and polls each association a
thousand times a second.
"""

import contextlib
import logging
import queue
import select
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from pynetdicom.dul import DULServiceProvider
from pynetdicom.fsm import InvalidEventError
from pynetdicom.transport import AssociationSocket

from gateway.dimse.messages_out import Piece
from gateway.dimse.pdu import (
    HEADER_BYTES,
    PduRefused,
    PduType,
    check_association_request,
    data_values,
    read_header,
)

if TYPE_CHECKING:
    from gateway.dimse.association import PeerAssociation

log = logging.getLogger(__name__)

_IDLE_POLL_S = 0.5  # how late a timer may be noticed; data and answers wake at once
_MOST_PIECES = 512  # of one sendmsg; the kernel takes 1024
_TCP_QUICKACK = getattr(socket, "TCP_QUICKACK", None) if sys.platform == "linux" else None

# Events of the state machine, PS3.8 Table 9-10.
_DATA_RECEIVED = "Evt10"
_CONNECTION_CLOSED = "Evt17"
_INVALID_PDU = "Evt19"
_AWAITING_CLOSE = "Sta13"


class DeadlinePassed(Exception):
    """The peer began a PDU and did not finish it in time."""


class ConnectionEnded(Exception):
    """The peer closed the connection."""


class DeadlineSocket(AssociationSocket):  # type: ignore[misc]
    """A connection whose reads and writes end in time.

    One thread reads while another may write. The socket does not block, and each call
    into it is alone: a TLS connection allows no two at a time.
    """

    def __init__(
        self, assoc: "PeerAssociation", client_socket: socket.socket, timeout_s: float, first: bytes = b""
    ) -> None:
        """``first``: what was read from the connection already."""
        super().__init__(assoc, client_socket=client_socket)
        self._timeout_s = timeout_s
        self._first = memoryview(first)
        client_socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client_socket.setblocking(False)
        self._using = threading.Lock()
        self._sending = threading.Lock()  # held for whole PDUs, so that none is torn apart
        self._wake_reader, self._wake_writer = socket.socketpair()
        self._wake_reader.setblocking(False)
        self._wake_writer.setblocking(False)
        self._poll = select.poll()  # select() fails from descriptor 1024 on
        self._poll.register(client_socket, select.POLLIN)
        self._poll.register(self._wake_reader, select.POLLIN)
        self._descriptor = client_socket.fileno()

    def wake(self) -> None:
        """End a :meth:`wait` of another thread: there is something to send."""
        with contextlib.suppress(OSError):  # full: it will wake anyway; closed: nobody waits
            self._wake_writer.send(b"w")

    def wait(self, timeout_s: float) -> bool:
        """Whether something can be read (or the peer has closed) within ``timeout_s``."""
        sock = self.socket
        if sock is None or not self._is_connected:
            return False
        if self._first or (isinstance(sock, ssl.SSLSocket) and sock.pending()):
            return True
        try:
            found = self._poll.poll(timeout_s * 1000)
            with contextlib.suppress(BlockingIOError):
                self._wake_reader.recv(4096)
            if not any(descriptor == sock.fileno() for descriptor, _ in found):
                return False
        except (OSError, ValueError):
            return False
        return not isinstance(sock, ssl.SSLSocket) or self._brings_data(sock)

    def _brings_data(self, sock: ssl.SSLSocket) -> bool:
        """Whether what came by TLS is data: new keys are not, nor is part of a record."""
        try:
            with self._using:
                self._first = memoryview(sock.recv(1))
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return False
        except OSError:
            return True  # the end, which a read will find again
        return True

    def release(self) -> None:
        """Close what belongs to us beside the connection; nobody waits any more."""
        self._wake_reader.close()
        self._wake_writer.close()

    @property
    def ready(self) -> bool:
        return self.wait(0)

    def read(self, length: int, deadline: float) -> bytearray:
        """Exactly ``length`` bytes before ``deadline`` (monotonic seconds).

        Raises ConnectionEnded, DeadlinePassed. ``length`` was checked by the caller.
        """
        sock = self.socket
        if sock is None:
            raise ConnectionEnded
        buffer = bytearray(length)
        view = memoryview(buffer)
        if self._first:
            taken, self._first = self._first[:length], self._first[length:]
            view[: len(taken)] = taken
            view = view[len(taken) :]
        while view:
            try:
                with self._using:
                    if _TCP_QUICKACK is not None:
                        # Linux forgets it after each answer. Without, a sender that leaves Nagle
                        # on (DCMTK as shipped) waits 40 ms twice for every small instance.
                        sock.setsockopt(socket.IPPROTO_TCP, _TCP_QUICKACK, 1)
                    count = sock.recv_into(view)
            except (BlockingIOError, ssl.SSLWantReadError):
                self._until(select.POLLIN, deadline)
                continue
            except ssl.SSLWantWriteError:
                self._until(select.POLLOUT, deadline)
                continue
            except OSError:
                raise ConnectionEnded from None
            if not count:
                raise ConnectionEnded
            view = view[count:]
        return buffer

    def send(self, bytestream: bytes) -> None:
        """Send all, or end the connection: a peer that does not read is not waited for."""
        self.transmit([bytestream])

    def transmit(self, pieces: Sequence[Piece]) -> None:
        """Send these bytes in one go, from any thread; else as :meth:`send`."""
        sock = self.socket
        if sock is None:
            return
        try:
            with self._sending:
                if isinstance(sock, ssl.SSLSocket):
                    self._send_view(sock, memoryview(b"".join(pieces)))
                else:
                    self._send_pieces(sock, [memoryview(piece) for piece in pieces if len(piece)])
        except (OSError, ConnectionEnded, DeadlinePassed):
            self.event_queue.put(_CONNECTION_CLOSED)
            self.wake()

    def _send_pieces(self, sock: socket.socket, views: list[memoryview]) -> None:
        deadline = time.monotonic() + self._timeout_s
        while views:
            try:
                with self._using:
                    sent = sock.sendmsg(views[:_MOST_PIECES])
            except BlockingIOError:
                self._until(select.POLLOUT, deadline)
                continue
            deadline = time.monotonic() + self._timeout_s  # the peer reads: it goes on
            while views and sent >= len(views[0]):
                sent -= len(views.pop(0))
            if sent:
                views[0] = views[0][sent:]

    def _send_view(self, sock: ssl.SSLSocket, view: memoryview) -> None:
        deadline = time.monotonic() + self._timeout_s
        while view:
            try:
                with self._using:
                    sent = sock.send(view)
            except ssl.SSLWantWriteError:
                self._until(select.POLLOUT, deadline)
            except ssl.SSLWantReadError:
                self._until(select.POLLIN, deadline)
            else:
                deadline = time.monotonic() + self._timeout_s
                view = view[sent:]

    def _until(self, event: int, deadline: float) -> None:
        """Wait for the socket; raises DeadlinePassed."""
        remaining_s = deadline - time.monotonic()
        if remaining_s <= 0:
            raise DeadlinePassed
        poll = select.poll()
        try:
            poll.register(self._descriptor, event)
            if not poll.poll(remaining_s * 1000):
                raise DeadlinePassed
        except (OSError, ValueError):
            raise ConnectionEnded from None


class DataTransfer:
    """A P-DATA-TF that stays in the buffer it was received in.

    ``values``: (context id, message control header, fragment) each.
    """

    __slots__ = ("values",)

    def __init__(self, values: list[tuple[int, int, memoryview]]) -> None:
        self.values = values

    def to_primitive(self) -> "DataTransfer":
        """The state machine's step from PDU to primitive: there is nothing to convert."""
        return self


class _Announced(queue.Queue[object]):
    """A queue that tells its reader."""

    def __init__(self, tell: Callable[[], None]) -> None:
        super().__init__()
        self._tell = tell

    def put(self, item: object, block: bool = True, timeout: float | None = None) -> None:
        super().put(item, block, timeout)
        self._tell()


class UpperLayer(DULServiceProvider):  # type: ignore[misc]
    """The upper layer service provider of one association."""

    def __init__(self, assoc: "PeerAssociation", *, timeout_s: float, maximum_length: int) -> None:
        super().__init__(assoc)
        self._timeout_s = timeout_s
        self._maximum_length = maximum_length
        self._refused = False
        self.to_user_queue = _Announced(assoc.work.set)
        self._run_loop_delay = 0.0001  # it waits for the socket, not for the clock
        self.daemon = True  # a stuck peer must not keep the process from ending

    def run_reactor(self) -> None:
        try:
            super().run_reactor()
        except InvalidEventError:
            # The peer broke the order of things while an answer to it was on its way.
            log.warning("%s is out of step: connection closed", self._peer())
            self.assoc.fault = "association cut off: PDUs out of order"
            self.assoc._kill = True
            if self.socket is not None:
                self.socket.close()
        finally:
            # Wakes the association where it waits for a request that will never come.
            self.to_user_queue.put(None)
            if self.socket is not None:
                self.socket.release()
            self.assoc.upper_layer_ended()

    def send_pdu(self, primitive: object) -> None:
        super().send_pdu(primitive)
        if self.socket is not None:
            self.socket.wake()

    def _is_transport_event(self) -> bool:
        connection = self.socket
        if connection is None:
            return False
        if self.state_machine.current_state == _AWAITING_CLOSE and (self._refused or not connection.ready):
            connection.close()
            return True
        if self.assoc.dimse.is_behind():
            # A peer that sends on without waiting for its answers is slowed down by TCP.
            self.assoc.dimse.wait_until_served(_IDLE_POLL_S)
            return False
        if connection.wait(_IDLE_POLL_S if self.event_queue.empty() else 0):
            self._read_pdu_data()
            return True
        return False

    def _read_pdu_data(self) -> None:
        """Read one PDU and queue its event; refuses before it allocates."""
        connection = self.socket
        deadline = time.monotonic() + self._timeout_s
        try:
            header = connection.read(HEADER_BYTES, deadline)
            kind, length = read_header(header, self._maximum_length)
            payload = connection.read(length, deadline)
            if kind is PduType.DATA:
                self._recv_pdu.put(DataTransfer(data_values(payload)))
                self.event_queue.put(_DATA_RECEIVED)
                return
            if kind is PduType.ASSOCIATE_RQ:
                check_association_request(payload)
            pdu, event = self._decode_pdu(header + payload)
        except ConnectionEnded:
            self.event_queue.put(_CONNECTION_CLOSED)
        except DeadlinePassed:
            log.warning("a PDU from %s was not complete in time", self._peer())
            self.assoc.fault = "connection cut off: a PDU was not complete in time"
            self.event_queue.put(_CONNECTION_CLOSED)
        except PduRefused as refusal:
            self._refuse(str(refusal))
        except Exception as error:
            log.debug("undecodable PDU", exc_info=True)
            self._refuse(f"a PDU cannot be decoded ({type(error).__name__})")
        else:
            self._recv_pdu.put(pdu)
            self.event_queue.put(event)

    def _refuse(self, why: str) -> None:
        """Abort; whatever else the peer sends is not read any more."""
        log.warning("%s from %s: association aborted", why, self._peer())
        self.assoc.fault = "association cut off: malformed or too long"
        self._refused = True
        self.event_queue.put(_INVALID_PDU)

    def _peer(self) -> str:
        address = self.assoc.requestor.address_info
        return address.address if address is not None else "an unknown address"
