# SPDX-License-Identifier: Apache-2.0
"""The listener with TLS: hands are shaken here, by one thread for all, before anything else
is spent on a connection.

A handshake has a deadline, and there are only so many at once, in all and from one
address: where there are too many the oldest is closed for the new one. So who is slow, or
many, keeps nobody out; an honest peer needs milliseconds.
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
from dataclasses import dataclass

from gateway.tls import Secured, reason

log = logging.getLogger(__name__)

_OUT_OF_DESCRIPTORS_WAIT_S = 0.2
_REFUSALS = 256
_AT_ONCE = 32  # connections that are accepted before the handshakes get their turn again

Address = tuple[str, int]


@dataclass(eq=False, slots=True)
class _Handshake:
    connection: ssl.SSLSocket
    address: Address
    deadline: float


class TlsDoor:
    """Accepts on ``listener`` (bound already) until :meth:`close`."""

    def __init__(
        self,
        listener: socket.socket,
        context: Callable[[], ssl.SSLContext],
        admit: Callable[[ssl.SSLSocket, Address, Secured], None],
        refused: Callable[[str, str], None],
        *,
        timeout_s: float,
        limit: int,
        limit_per_address: int,
    ) -> None:
        """``context`` is asked for each connection; ``admit`` gets those whose handshake is
        done, and closes them; ``refused`` is told the address and why in fixed words."""
        self._listener = listener
        self._context = context
        self._admit = admit
        self._refused = refused
        self._timeout_s = timeout_s
        self._limit = limit
        self._limit_per_address = limit_per_address
        self._handshakes: dict[_Handshake, None] = {}  # oldest first, so by deadline
        self._selector = selectors.DefaultSelector()
        self._closing = threading.Event()
        self._wake_reader, self._wake_writer = socket.socketpair()
        listener.setblocking(False)
        self._selector.register(listener, selectors.EVENT_READ)
        self._selector.register(self._wake_reader, selectors.EVENT_READ)
        self._refusals: queue.Queue[tuple[str, str] | None] = queue.Queue(_REFUSALS)
        self._threads = [
            threading.Thread(target=self._run, name="tls-door", daemon=True),
            threading.Thread(target=self._tell, name="tls-refusals", daemon=True),
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
            for handshake in list(self._handshakes):
                self._drop(handshake)
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
        for handshake in list(self._handshakes):
            if handshake.deadline > now:
                break
            self._refuse(handshake, "a TLS handshake was not complete in time")

    def _until_deadline_s(self) -> float | None:
        first = next(iter(self._handshakes), None)
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
                log.exception("a TLS connection could not be started")
                connection.close()

    def _begin(self, connection: socket.socket, address: Address) -> None:
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            wrapped = self._context().wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        except OSError:  # it hung up already
            connection.close()
            return
        self._make_room(address[0])
        handshake = _Handshake(wrapped, address, time.monotonic() + self._timeout_s)
        self._handshakes[handshake] = None
        self._selector.register(wrapped, selectors.EVENT_READ, handshake)

    def _make_room(self, address: str) -> None:
        same = [known for known in self._handshakes if known.address[0] == address]
        victim = None
        if len(same) >= self._limit_per_address:
            victim = same[0]
        elif len(self._handshakes) >= self._limit:
            victim = next(iter(self._handshakes))
        if victim is not None:
            self._refuse(victim, "half-open TLS connections: the oldest was closed")

    def _step(self, handshake: _Handshake) -> None:
        if handshake not in self._handshakes:
            return  # it was closed for a newer one in this very turn
        connection = handshake.connection
        try:
            connection.do_handshake()
        except ssl.SSLWantReadError:
            self._selector.modify(connection, selectors.EVENT_READ, handshake)
        except ssl.SSLWantWriteError:
            self._selector.modify(connection, selectors.EVENT_WRITE, handshake)
        except ssl.SSLEOFError:
            self._hung_up(handshake)
        except ssl.SSLError as error:
            self._refuse(handshake, f"TLS refused: {reason(error)}")
        except (OSError, ValueError):
            self._hung_up(handshake)
        else:
            self._hand_over(handshake)

    def _hand_over(self, handshake: _Handshake) -> None:
        connection, address = handshake.connection, handshake.address
        self._forget(handshake)
        try:
            self._admit(connection, address, Secured.of(connection))
        except Exception:  # one connection's failure is not the door's
            log.exception("a TLS connection from %s could not be served", address[0])
            connection.close()

    def _hung_up(self, handshake: _Handshake) -> None:
        log.info("%s hung up during the TLS handshake", handshake.address[0])
        self._drop(handshake)

    def _refuse(self, handshake: _Handshake, why: str) -> None:
        log.warning("%s: %s", handshake.address[0], why)
        self._drop(handshake)
        try:
            self._refusals.put_nowait((handshake.address[0], why))
        except queue.Full:
            log.warning("%d refusals wait to be told, this one is not", _REFUSALS)

    def _tell(self) -> None:
        """Refusals go to the trail beside the handshakes: a slow disk must not hold those up."""
        while (refusal := self._refusals.get()) is not None:
            self._refused(*refusal)

    def _forget(self, handshake: _Handshake) -> None:
        del self._handshakes[handshake]
        self._selector.unregister(handshake.connection)

    def _drop(self, handshake: _Handshake) -> None:
        self._forget(handshake)
        with contextlib.suppress(OSError):
            handshake.connection.close()
