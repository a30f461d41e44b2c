# SPDX-License-Identifier: Apache-2.0
"""The door of a listener: one thread accepts, shakes hands where there is TLS, and reads
the association request, before anything else is spent on a connection.

Until a request is complete a connection is *half-open* (PS3.8 9.1.5, ARTIM): it has a
deadline, and there are only so many, in all and from one address: where there are too
many the oldest is closed for the new one. So who is slow, or many, keeps nobody out; an
honest peer needs milliseconds.
"""

import contextlib
import errno
import logging
import queue
import selectors
import socket
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from gateway.dimse.pdu import HEADER_BYTES, PduRefused, PduType, check_association_request, read_header
from gateway.tls import Secured, reason

log = logging.getLogger(__name__)

_OUT_OF_DESCRIPTORS_WAIT_S = 0.2
_REFUSALS = 256
_AT_ONCE = 32  # connections that are accepted before the others get their turn again
_READ_BYTES = 64 * 1024

Address = tuple[str, int]


# An A-ABORT of the service provider, reason "invalid PDU parameter value" (PS3.8 9.3.8).
_ABORT = bytes([PduType.ABORT, 0, 0, 0, 0, 4, 0, 0, 2, 6])


@dataclass(eq=False, slots=True)
class _Arrival:
    connection: socket.socket
    address: Address
    deadline: float
    secured: Secured | None = None
    request: bytearray = field(default_factory=bytearray)
    needed: int = HEADER_BYTES
    """How long ``request`` must be, as far as it is known."""


class Door:
    """Accepts on ``listener`` (bound already) until :meth:`close`."""

    def __init__(
        self,
        listener: socket.socket,
        context: Callable[[], ssl.SSLContext] | None,
        admit: Callable[[socket.socket, Address, Secured | None, bytes], None],
        refused: Callable[[str, str], None],
        *,
        timeout_s: float,
        limit: int,
        limit_per_address: int,
    ) -> None:
        """``context`` is asked for each connection, None is a listener without TLS; ``admit``
        gets those whose association request is here, with its bytes, and closes them;
        ``refused`` is told the address and why in fixed words."""
        self._listener = listener
        self._context = context
        self._admit = admit
        self._refused = refused
        self._timeout_s = timeout_s
        self._limit = limit
        self._limit_per_address = limit_per_address
        self._arrivals: dict[_Arrival, None] = {}  # oldest first, so by deadline
        self._selector = selectors.DefaultSelector()
        self._closing = threading.Event()
        self._wake_reader, self._wake_writer = socket.socketpair()
        listener.setblocking(False)
        self._selector.register(listener, selectors.EVENT_READ)
        self._selector.register(self._wake_reader, selectors.EVENT_READ)
        self._refusals: queue.Queue[tuple[str, str] | None] = queue.Queue(_REFUSALS)
        self._threads = [
            threading.Thread(target=self._run, name="dimse-door", daemon=True),
            threading.Thread(target=self._tell, name="dimse-refusals", daemon=True),
        ]

    def open(self) -> None:
        """Begin to accept, in threads of its own."""
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Accept nothing more and close the listener; what was admitted goes on."""
        self._closing.set()
        self._wake_writer.send(b"w")
        self._threads[0].join()
        self._refusals.put(None)
        self._threads[1].join()

    def _run(self) -> None:
        try:
            while not self._closing.is_set():
                self._turn()
        finally:
            for arrival in list(self._arrivals):
                self._drop(arrival)
            self._selector.close()
            for one in (self._listener, self._wake_reader, self._wake_writer):
                one.close()

    def _turn(self) -> None:
        for key, _ in self._selector.select(self._until_deadline_s()):
            if key.data is not None:
                self._step(key.data)
            elif key.fileobj is self._listener:
                self._accept()
        # After the steps: what came in time is not too late because we were busy.
        now = time.monotonic()
        for arrival in list(self._arrivals):
            if arrival.deadline > now:
                break
            what = "an association request" if self._is_shaken(arrival) else "a TLS handshake"
            self._refuse(arrival, f"half-open: {what} was not complete in time")

    def _until_deadline_s(self) -> float | None:
        first = next(iter(self._arrivals), None)
        return None if first is None else max(0.0, first.deadline - time.monotonic())

    def _accept(self) -> None:
        for _ in range(_AT_ONCE):
            try:
                connection, address = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE):
                    log.error("no descriptors left: a DICOM connection waits")
                    self._closing.wait(_OUT_OF_DESCRIPTORS_WAIT_S)
                return
            try:
                self._begin(connection, address[:2])
            except Exception:  # one connection failed to start; the door stays open
                log.exception("a connection could not be started")
                connection.close()

    def _begin(self, connection: socket.socket, address: Address) -> None:
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        wrapped = connection
        if self._context is not None:
            try:
                wrapped = self._context().wrap_socket(
                    connection, server_side=True, do_handshake_on_connect=False
                )
            except OSError:  # it hung up already
                connection.close()
                return
        self._make_room(address[0])
        arrival = _Arrival(wrapped, address, time.monotonic() + self._timeout_s)
        self._arrivals[arrival] = None
        self._selector.register(wrapped, selectors.EVENT_READ, arrival)

    def _make_room(self, address: str) -> None:
        same = [known for known in self._arrivals if known.address[0] == address]
        victim = None
        if len(same) >= self._limit_per_address:
            victim = same[0]
        elif len(self._arrivals) >= self._limit:
            victim = next(iter(self._arrivals))
        if victim is not None:
            self._refuse(victim, "half-open connections: the oldest was closed")

    def _step(self, arrival: _Arrival) -> None:
        if arrival not in self._arrivals:
            return  # it was closed for a newer one in this very turn
        connection = arrival.connection
        try:
            if isinstance(connection, ssl.SSLSocket) and arrival.secured is None:
                connection.do_handshake()
                arrival.secured = Secured.of(connection)
            while len(arrival.request) < arrival.needed:
                if not self._read(arrival):
                    self._hung_up(arrival)
                    return
        except (BlockingIOError, ssl.SSLWantReadError):
            self._selector.modify(connection, selectors.EVENT_READ, arrival)
        except ssl.SSLWantWriteError:
            self._selector.modify(connection, selectors.EVENT_WRITE, arrival)
        except ssl.SSLEOFError:
            self._hung_up(arrival)
        except ssl.SSLError as error:
            self._refuse(arrival, f"TLS refused: {reason(error)}")
        except PduRefused as refusal:
            log.warning("%s: %s", arrival.address[0], refusal)
            with contextlib.suppress(OSError):
                connection.send(_ABORT)
            self._refuse(arrival, "connection cut off: no association request")
        except (OSError, ValueError):
            self._hung_up(arrival)
        except Exception:  # one peer's bytes, or certificate, must not close the door for all
            log.exception("%s: the connection was closed", arrival.address[0])
            self._drop(arrival)
        else:
            self._hand_over(arrival)

    def _read(self, arrival: _Arrival) -> bool:
        """Read on, as far as the request goes; False at the connection's end.

        Raises PduRefused for what is none, before its length is waited for.
        """
        request = arrival.request
        data = arrival.connection.recv(min(arrival.needed - len(request), _READ_BYTES))
        request += data
        if len(request) == arrival.needed == HEADER_BYTES:
            kind, length = read_header(request, 0)
            if kind is not PduType.ASSOCIATE_RQ:
                raise PduRefused(f"{kind.name} in place of an association request")
            arrival.needed += length
        elif len(request) == arrival.needed:
            check_association_request(memoryview(request)[HEADER_BYTES:])
        return bool(data)

    def _is_shaken(self, arrival: _Arrival) -> bool:
        return self._context is None or arrival.secured is not None

    def _hand_over(self, arrival: _Arrival) -> None:
        connection, address = arrival.connection, arrival.address
        self._forget(arrival)
        try:
            self._admit(connection, address, arrival.secured, bytes(arrival.request))
        except Exception:  # one connection's failure is not the door's
            log.exception("a connection from %s could not be served", address[0])
            connection.close()

    def _hung_up(self, arrival: _Arrival) -> None:
        log.info("%s hung up before its association request", arrival.address[0])
        self._drop(arrival)

    def _refuse(self, arrival: _Arrival, why: str) -> None:
        log.warning("%s: %s", arrival.address[0], why)
        self._drop(arrival)
        try:
            self._refusals.put_nowait((arrival.address[0], why))
        except queue.Full:
            log.warning("%d refusals wait to be told, this one is not", _REFUSALS)

    def _tell(self) -> None:
        """Refusals go to the trail beside the arrivals: a slow disk must not hold those up."""
        while (refusal := self._refusals.get()) is not None:
            self._refused(*refusal)

    def _forget(self, arrival: _Arrival) -> None:
        del self._arrivals[arrival]
        self._selector.unregister(arrival.connection)

    def _drop(self, arrival: _Arrival) -> None:
        self._forget(arrival)
        with contextlib.suppress(OSError):
            arrival.connection.close()
