# SPDX-License-Identifier: Apache-2.0
"""gunicorn's threaded worker, made fit for slow and hostile clients.

As shipped (27.0) a client that sends one byte and stops holds a thread for ever, as does
one that does not read its answer; and a connection is closed in the loop that accepts,
which waits up to two seconds for the client. Here request heads are collected by the
loop, without a thread and within a deadline; transfers have a deadline for each step;
waiting for a peer gives the thread's place to others (``StallingPool``); closing is done
in threads; one address cannot take all connections. Frames that the page cache holds are
answered in the loop (``gateway.quick_request``).
"""

import contextlib
import errno
import ipaddress
import os
import select
import selectors
import socket
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

from gunicorn.http.body import Body, LengthReader
from gunicorn.workers.gthread import TConn, ThreadWorker

from gateway import quick_request
from gateway.quick_request import AnswerNow
from gateway.settings import HttpSettings
from gateway.settings_check import plain_address
from gateway.stalling_pool import StallingPool

HEAD_BYTES = 64 << 10
RECEIVE_BYTES = 256 << 10
HEAD_END = b"\r\n\r\n"
PATIENCE_MS = 20  # a wait that is shorter is not worth another thread
LINGER_MS = 2  # how long a thread waits for its client's next request
SPARE_CONNECTIONS = 4
TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


class ClientSocket(socket.socket):
    """A blocking connection whose every wait ends: after ``timeout_s`` without progress."""

    pool: StallingPool
    timeout_s: float
    _own_limit_s: float | None = None

    def settimeout(self, value: float | None) -> None:
        """A shorter limit for what follows; None: the usual one."""
        if value == 0.0:
            super().settimeout(value)
        else:
            super().settimeout(None)
            self._own_limit_s = value

    def gettimeout(self) -> float | None:
        return self._own_limit_s

    def recv(self, bufsize: int, flags: int = 0, /) -> bytes:
        while True:
            try:
                return super().recv(bufsize, flags | socket.MSG_DONTWAIT)
            except BlockingIOError:
                self._wait(select.POLLIN)

    def sendall(self, data: "bytes | bytearray | memoryview", flags: int = 0, /) -> None:  # type: ignore[override]
        view = memoryview(data).cast("B")
        while view:
            try:
                view = view[super().send(view, flags | socket.MSG_DONTWAIT) :]
            except BlockingIOError:
                self._wait(select.POLLOUT)

    def _wait(self, event: int) -> None:
        """Until the peer moves. ConnectionResetError, which gunicorn takes as the
        client's doing, after the limit."""
        poll = select.poll()
        poll.register(self, event)
        if poll.poll(PATIENCE_MS):
            return
        limit_s = self.timeout_s if self._own_limit_s is None else self._own_limit_s
        with self.pool.stalled():
            if not poll.poll(limit_s * 1000):
                raise ConnectionResetError(errno.ECONNRESET, "the peer is too slow")


class SizedBody(Body):  # type: ignore[misc]
    """A body with a Content-Length, from the socket to the application with one copy.

    gunicorn's keeps what it reads ahead in buffers that it copies anew for each read.
    """

    def read(self, size: int | None = None) -> bytes:
        if self.buf.tell():  # left over by ``readline``
            data: bytes = super().read(size)
            return data
        reader = self.reader
        missing = min(self.getsize(size), reader.length)
        held = reader.unreader.take_buffered()
        if len(held) > missing:
            reader.unreader.unread(held[missing:])
        parts = [held[:missing]]
        missing -= len(parts[0])
        reader.length -= len(parts[0])
        while missing:
            try:
                received = reader.unreader.sock.recv(min(missing, RECEIVE_BYTES))
            except OSError:
                self.failed = True
                raise
            if not received:
                break
            parts.append(received)
            missing -= len(received)
            reader.length -= len(received)
        return b"".join(parts)


class Connection(TConn):  # type: ignore[misc]
    """A client and what it has sent of its next request's head."""

    def __init__(self, cfg: object, sock: ClientSocket, client: object, server: object) -> None:
        super().__init__(cfg, sock, client, server)
        self.head = bytearray()
        self.answered = False  # by the loop, at least once
        self.data_ready = True  # gunicorn need not wait for the head: it is complete


class PatientWorker(ThreadWorker):  # type: ignore[misc]
    """One web server process. ``settings`` is set by ``gateway.web`` on a subclass."""

    settings: ClassVar[HttpSettings] = HttpSettings()

    def __init__(self, *args: object, **keywords: object) -> None:
        super().__init__(*args, **keywords)
        self._waiting: dict[Connection, float] = {}  # for a head, until (monotonic seconds)
        self._per_address: Counter[str] = Counter()
        self._answer_now: AnswerNow | None = None
        self._trusted = [ipaddress.ip_network(text, strict=False) for text in self.settings.trusted_proxies]

    def load_wsgi(self) -> None:
        super().load_wsgi()
        if not os.environ.get("SCRIPT_NAME"):
            self._answer_now = getattr(getattr(self.wsgi, "wsgi_app", None), "answer_now", None)

    def get_thread_pool(self) -> StallingPool:
        return StallingPool(self.settings.threads, self.settings.slow_connections)

    # -- connections -----------------------------------------------------------------

    def accept(self, listener: socket.socket) -> None:
        """One connection at a time, so that the processes share them."""
        self._accept_one(listener)

    def _accept_one(self, listener: socket.socket) -> bool:
        """False when nobody waits."""
        try:
            accepted, client = listener.accept()
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.ECONNABORTED, errno.EMFILE, errno.ENFILE):
                raise
            return error.errno == errno.ECONNABORTED
        address = client[0]
        if self._per_address[address] >= self.settings.connections_per_address and not any(
            plain_address(address) in network for network in self._trusted
        ):
            accepted.close()
            return True
        if self.nr_conns >= self.worker_connections - SPARE_CONNECTIONS:
            self._close_longest_idle()
        self.nr_conns += 1
        self._per_address[address] += 1
        sock = ClientSocket(fileno=accepted.detach())
        sock.pool, sock.timeout_s = self.tpool, self.settings.transfer_timeout_s
        self._await_head(Connection(self.cfg, sock, client, listener.getsockname()))
        return True

    def set_accept_enabled(self, enabled: bool) -> None:
        """When stopping: take those who have connected already, then close the listeners
        (gunicorn would keep them, and let clients connect to nobody, to the end of the drain)."""
        super().set_accept_enabled(enabled)
        if not enabled and not self.alive:
            for listener in self.sockets:
                while self._accept_one(listener):
                    pass
                listener.close()

    def _await_head(self, conn: Connection) -> None:
        """Collect a request's head without a thread."""
        if HEAD_END in conn.head:
            self.enqueue_req(conn)
            return
        self._keep_until(conn)
        conn.sock.setblocking(False)
        self.poller.register(conn.sock, selectors.EVENT_READ, partial(self._on_head_bytes, conn))

    def _keep_until(self, conn: Connection) -> None:
        """How long its next head is waited for, from now."""
        idle = (conn.answered or bool(conn.parser)) and not conn.head
        timeout_s = self.settings.keepalive_s if idle else self.settings.header_timeout_s
        self._waiting.pop(conn, None)
        self._waiting[conn] = time.monotonic() + timeout_s

    def _on_head_bytes(self, conn: Connection, sock: ClientSocket) -> None:
        try:
            data = socket.socket.recv(sock, HEAD_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._drop(conn)
            return
        first = not conn.head
        searched = max(0, len(conn.head) - len(HEAD_END))
        conn.head += data
        if (end := conn.head.find(HEAD_END, searched)) >= 0:
            if self.alive and end + len(HEAD_END) == len(conn.head) and self._answered_at_once(conn):
                return
            self._no_longer_waiting(conn)
            self.enqueue_req(conn)
        elif len(conn.head) > HEAD_BYTES:
            with contextlib.suppress(OSError):  # it is closed either way
                socket.socket.send(sock, TOO_LARGE, socket.MSG_DONTWAIT)
            self._drop(conn)
        elif first:
            self._waiting[conn] = time.monotonic() + self.settings.header_timeout_s

    def _answered_at_once(self, conn: Connection) -> bool:
        """Answer the one request in ``conn.head`` here, in the loop: no thread has to be woken,
        nor the interpreter shared. False when that cannot be done without waiting."""
        if self._answer_now is None:
            return False
        environ = quick_request.environ_of(bytes(conn.head), conn.client, conn.server)
        answer = None if environ is None else self._answer_now(environ)
        if answer is None:
            return False
        conn.head.clear()
        conn.answered = True
        data = memoryview(quick_request.encoded(answer))
        try:
            sent = socket.socket.send(conn.sock, data, socket.MSG_DONTWAIT)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._drop(conn)
            return True
        if sent == len(data):
            self._keep_until(conn)
        else:
            self._no_longer_waiting(conn)
            self.tpool.submit(partial(self._send_rest, conn, data[sent:]))
        return True

    def _send_rest(self, conn: Connection, data: memoryview) -> None:
        """In a thread: what a slower client has not taken at once."""
        keep = False
        try:
            conn.sock.setblocking(True)
            conn.sock.sendall(data)
            keep = True
        except OSError:  # gone, or too slow
            conn.close()
        self.method_queue.defer(self.finish_request, conn, keep)

    def _no_longer_waiting(self, conn: Connection) -> None:
        self._waiting.pop(conn, None)
        self.poller.unregister(conn.sock)

    def _drop(self, conn: Connection) -> None:
        """Close a connection that has no request under way."""
        self._no_longer_waiting(conn)
        conn.close()
        self._gone(conn)

    def _gone(self, conn: Connection) -> None:
        self.nr_conns -= 1
        address = conn.client[0]
        self._per_address[address] -= 1
        if not self._per_address[address]:
            del self._per_address[address]

    def _close_longest_idle(self) -> None:
        for conn in self._waiting:  # in the order they began to wait
            if not conn.head:
                self._drop(conn)
                return

    def murder_pending(self) -> None:
        now = time.monotonic()
        for conn in [conn for conn, deadline in self._waiting.items() if deadline <= now]:
            self._drop(conn)

    def _cap_keepalive(self, deadline: float) -> None:
        """gunicorn stops: who has asked nothing by ``deadline`` is let go."""
        for conn, until in self._waiting.items():
            self._waiting[conn] = min(until, deadline)

    # -- requests --------------------------------------------------------------------

    def enqueue_req(self, conn: Connection) -> None:
        self.tpool.submit(partial(self._work, conn))

    def _work(self, conn: Connection) -> None:
        """In a thread: one request and those that follow at once; then back to the loop,
        or closed here."""
        keep = False
        try:
            conn.sock.setblocking(True)
            conn.init()
            while True:
                conn.parser.unreader.unread(bytes(conn.head))
                conn.head.clear()
                keep = bool(self.handle(conn))
                if not keep:
                    break
                conn.head += conn.parser.unreader.take_buffered()
                if not (self.alive and self._next_head_is_here(conn)):
                    break
        except Exception:  # a thread of the pool must go on; what gunicorn foresaw is handled
            self.log.exception("a request ended badly")
            keep = False
        if not keep:
            conn.close(graceful=True)
        self.method_queue.defer(self.finish_request, conn, keep)

    def handle_request(self, req: Any, conn: Connection) -> bool:
        if req.body is not None and type(req.body.reader) is LengthReader:
            req.body = SizedBody(req.body.reader)
        return bool(super().handle_request(req, conn))

    def _next_head_is_here(self, conn: Connection) -> bool:
        """Whether a whole head comes within moments, and nobody waits for a thread: then
        the way through the loop, two changes of threads, is saved."""
        if self.tpool.is_busy:
            return False
        if HEAD_END not in conn.head:
            if self._answer_now is not None:
                return False  # the loop may be able to answer it, without a thread
            poll = select.poll()
            poll.register(conn.sock, select.POLLIN)
            if not poll.poll(LINGER_MS):
                return False
            # What is no whole head, an end included, the loop deals with.
            with contextlib.suppress(OSError):
                data = socket.socket.recv(conn.sock, HEAD_BYTES, socket.MSG_DONTWAIT | socket.MSG_PEEK)
                if HEAD_END in conn.head + data:
                    conn.head += socket.socket.recv(conn.sock, len(data), socket.MSG_DONTWAIT)
        return HEAD_END in conn.head

    def finish_request(self, conn: Connection, keep: bool) -> None:
        """In the loop: after ``_work``."""
        if keep:
            self._await_head(conn)
            if not self.alive and conn in self._waiting:
                self._cap_keepalive(time.monotonic() + 1.0)
        else:
            self._gone(conn)


def worker_class(settings: HttpSettings) -> type[PatientWorker]:
    """The worker with these limits; gunicorn wants a class."""
    made: Callable[..., type[PatientWorker]] = type
    return made("ConfiguredWorker", (PatientWorker,), {"settings": settings})
