# SPDX-License-Identifier: Apache-2.0
"""The web role under granian (``http.server = "granian"``).

HTTP is parsed and written by a thread of granian's own; others, its too, run the
application. One of them leads (``gateway.followers``) and answers what need not wait, frames
that the page cache holds; so the interpreter changes hands for none of those. A client that
sends its body or reads its answer slowly gives its thread's place to others; the kernel cuts
those that do not take what is sent. Processes are forked here and stop like every role
(``gateway.process``).

granian breaks the connection where a stream with a Content-Length fails; one without it ends
like one that is complete, and nothing of granian's tells it otherwise. What we stream tells
its own end (a closing boundary, JSON's bracket, a ZIP's directory, DICOM's lengths), so that
a client sees what is missing.
"""

import asyncio
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, NoReturn

from granian._futures import _new_cbscheduler
from granian._granian import SocketHolder, WorkerSignal, WSGIWorker
from granian.http import HTTP1Settings

from gateway import process
from gateway.followers import Followers
from gateway.quick_request import AnswerNow
from gateway.settings import HttpSettings

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

log = logging.getLogger(__name__)

BACKLOG = 1024
HEAD_BYTES = 64 << 10
TCP_USER_TIMEOUT = 18  # Linux: milliseconds
RESTART_S = 1.0
NEVER_S = 1 << 31
CANNOT_START = 3  # exit code; others would fare no better, so all stop
_HAS_BODY = frozenset({"CONTENT_LENGTH", "HTTP_TRANSFER_ENCODING"})
_SIGNALS = (signal.SIGTERM, signal.SIGINT, process.DRAIN, signal.SIGCHLD)


class _Start:
    """``start_response`` of one request."""

    __slots__ = ("headers", "status")

    def __init__(self) -> None:
        self.status = 200
        self.headers: list[tuple[str, str]] = []

    def __call__(self, status: str, headers: list[tuple[str, str]], exc_info: object = None, /) -> None:
        self.status = int(status[:3])
        self.headers = headers


class _Input:
    """``wsgi.input``: who waits for the client's bytes leaves its place to others."""

    __slots__ = ("_followers", "_input")

    def __init__(self, source: Any, followers: Followers) -> None:
        self._input, self._followers = source, followers

    def read(self, size: int | None = None) -> bytes:
        with self._followers.stalled():
            return bytes(self._input.read(None if size is None or size < 0 else size))

    def readline(self, size: int | None = None) -> bytes:
        with self._followers.stalled():
            return bytes(self._input.readline(size))

    def readlines(self, hint: int | None = None) -> list[bytes]:
        with self._followers.stalled():
            return [bytes(line) for line in self._input.readlines(hint)]

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.readline, b"")


class _Chunks:
    """A body as granian wants it: bytes until StopIteration, then ``close``."""

    __slots__ = ("_body", "_followers", "_next")

    def __init__(self, body: Iterable[bytes], followers: Followers) -> None:
        self._body = body
        self._next: Iterator[bytes] = iter(body)
        self._followers = followers

    def __next__(self) -> bytes:
        try:
            with self._followers.resumed():
                return bytes(next(self._next))
        except StopIteration:
            raise
        except Exception:  # the status is sent; granian knows no other end of a body
            log.exception("an answer ended badly")
            raise StopIteration from None

    def close(self) -> None:
        closing = getattr(self._body, "close", None)
        if closing is not None:
            closing()


def adapter(application: "WSGIApplication", followers: Followers) -> Callable[[Any, dict[str, Any]], None]:
    """What granian calls for each request, in one of its Python threads.

    Unlike granian's own adapter it puts no variable of this process into ``environ``, where
    one named ``HTTP_...`` would pass for a header.
    """
    always: dict[str, Any] = {
        "SCRIPT_NAME": "",
        "SERVER_SOFTWARE": "granian",
        "wsgi.errors": sys.stderr,
        "wsgi.input_terminated": True,
        "wsgi.multiprocess": True,
        "wsgi.multithread": True,
        "wsgi.run_once": False,
        "wsgi.version": (1, 0),
    }
    answer_now: AnswerNow | None = getattr(getattr(application, "wsgi_app", None), "answer_now", None)

    def answer(protocol: Any, environ: dict[str, Any]) -> None:
        environ["SCRIPT_NAME"] = ""
        if answer_now is not None and _HAS_BODY.isdisjoint(environ):
            quick = answer_now(environ)
            if quick is not None:
                status, headers, data = quick
                protocol.response_bytes(int(status[:3]), headers, data)
                followers.done_at_once()
                return
        with followers.working():
            environ.update(always)
            environ["wsgi.input"] = _Input(environ.get("wsgi.input"), followers)
            work(protocol, environ)

    def work(protocol: Any, environ: dict[str, Any]) -> None:
        start = _Start()
        try:
            body = application(environ, start)  # type: ignore[arg-type]
        except Exception:  # one request's fault must not end the process
            log.exception("a request ended badly")
            protocol.response_bytes(500, [("Content-Length", "0")], b"")
            return
        if type(body) is list:
            protocol.response_bytes(
                start.status, start.headers, body[0] if len(body) == 1 else b"".join(body)
            )
        else:
            with followers.stalled():  # but while it makes the next piece
                protocol.response_iter(start.status, start.headers, _Chunks(body, followers))

    return answer


def serve(
    http: HttpSettings,
    listener: socket.socket,
    make_app: "Callable[[], WSGIApplication]",
    ready: Callable[[], None],
    gone: Callable[[int], None],
    drain_s: float,
) -> int:
    """Serve until told to stop, and give the exit code; ``ready`` is called in each process,
    ``gone`` here with the pid of each that ended."""
    listeners = _listeners(listener, http.workers)
    for one in listeners:
        one.listen(BACKLOG)
        # Accepted connections inherit both.
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if sys.platform == "linux":
            one.setsockopt(socket.IPPROTO_TCP, TCP_USER_TIMEOUT, int(http.transfer_timeout_s * 1000))
    return _Master(http, listeners, make_app, ready, gone, drain_s).run()


def _listeners(listener: socket.socket, count: int) -> list[socket.socket]:
    """At its address, one for each process: the kernel spreads connections over them. From
    one for all, the process that wakes first takes every connection that waits."""
    found = [listener]
    if sys.platform == "linux":
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        for _ in range(count - 1):
            one = socket.socket(listener.family, socket.SOCK_STREAM)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            try:
                one.bind(listener.getsockname())
            except OSError:  # bound as another user, or closed to us
                one.close()
                break
            found.append(one)
    return found


class _Master:
    """Forks the processes, starts those again that die, stops them all. Has one thread."""

    def __init__(
        self,
        http: HttpSettings,
        listeners: list[socket.socket],
        make_app: "Callable[[], WSGIApplication]",
        ready: Callable[[], None],
        gone: Callable[[int], None],
        drain_s: float,
    ) -> None:
        self._http, self._listeners, self._make_app = http, listeners, make_app
        self._ready, self._gone, self._drain_s = ready, gone, drain_s
        self._running: dict[int, tuple[int, float]] = {}  # pid -> its number; start, monotonic seconds
        self._code = 0

    def run(self) -> int:
        """The exit code."""
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        while not self._code:
            for number in set(range(self._http.workers)) - {n for n, _ in self._running.values()}:
                self._fork(number)
            if self._wait(None):
                break
        for listener in self._listeners:
            listener.close()
        self._signal_all(process.DRAIN)
        deadline = time.monotonic() + self._drain_s
        while self._running and (left_s := deadline - time.monotonic()) > 0:
            if self._wait(left_s) == signal.SIGTERM:
                break
        self._signal_all(signal.SIGKILL)
        while self._running:
            self._wait(None)
        return self._code

    def _wait(self, timeout_s: float | None) -> int:
        """The next stop signal, or 0: a process ended, or the time is over."""
        found = (
            signal.sigwaitinfo(_SIGNALS) if timeout_s is None else signal.sigtimedwait(_SIGNALS, timeout_s)
        )
        while self._running:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                break
            self._ended(pid, os.waitstatus_to_exitcode(status))
        return 0 if found is None or found.si_signo == signal.SIGCHLD else found.si_signo

    def _ended(self, pid: int, code: int) -> None:
        _, started = self._running.pop(pid)
        lived_s = time.monotonic() - started
        self._gone(pid)
        if code == CANNOT_START:
            self._code = code
        elif code:
            log.error("a web process ended", extra={"exit_code": code})
            if lived_s < RESTART_S:
                time.sleep(RESTART_S)

    def _signal_all(self, number: int) -> None:
        for pid in self._running:
            os.kill(pid, number)

    def _fork(self, number: int) -> None:
        master = os.getpid()
        pid = os.fork()
        if pid:
            self._running[pid] = number, time.monotonic()
            return
        code = CANNOT_START
        try:
            process.die_with(master)
            stop = process.stop_event()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
            code = self._work(number, stop)
        except Exception:  # the process ends below whatever happened, with a code that says so
            log.exception("a web process cannot start")
        finally:
            _leave(code)

    def _work(self, number: int, stop: threading.Event) -> int:
        """In a process of its own: accept and answer until ``stop``, then drain."""
        http = self._http
        mine = self._listeners[number % len(self._listeners)].detach()
        for listener in self._listeners:
            listener.close()
        application = self._make_app()
        worker = WSGIWorker(
            1,  # its number, for granian's log
            (None, SocketHolder(mine, False, BACKLOG)),
            None,  # no channel to granian's own master
            1,  # threads that do HTTP
            1,  # of granian's runtime, for its file operations: unused
            http.threads + http.slow_connections + 1,  # started when needed
            NEVER_S,  # until one that has nothing to do ends
            http.connections,
            "1",
            HTTP1Settings(header_read_timeout=int(http.header_timeout_s * 1000), max_buffer_size=HEAD_BYTES),
            None,
        )
        drained, told = threading.Event(), WorkerSignal()
        told.add_cb(drained.set)
        loop = asyncio.new_event_loop()  # asked for, never run
        worker.serve_mtr(
            _new_cbscheduler(loop, adapter(application, Followers(http.threads)), impl_asyncio=True),
            loop,
            told,
        )
        self._ready()
        stop.wait()
        told.set()
        drained.wait()
        return 0


def _leave(code: int) -> NoReturn:
    """As ``sys.exit`` would, without what is the master's on the stack."""
    import atexit

    try:
        atexit._run_exitfuncs()
        sys.stderr.flush()
    finally:
        os._exit(code)
