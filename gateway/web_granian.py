# SPDX-License-Identifier: Apache-2.0
"""The web role under granian (``http.server = "granian"``).

HTTP is parsed and written by granian's own threads; ours run the application. Processes
are forked here, on the socket that the supervisor bound, and stop like every role
(``gateway.process``). What gunicorn's worker does for slow clients (``gateway.web_worker``)
is not all here: a client that sends its body or reads its answer slowly keeps one of
``http.threads``; the kernel cuts those that stand still.

granian ends a stream whose source fails like one that is complete. What we stream tells
its own end (a closing boundary, JSON's bracket, a ZIP's directory, DICOM's lengths), so
that a client sees what is missing.
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
from gateway.settings import HttpSettings

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

log = logging.getLogger(__name__)

BACKLOG = 1024
HEAD_BYTES = 64 << 10
TCP_USER_TIMEOUT = 18  # Linux: milliseconds
RESTART_S = 1.0
CANNOT_START = 3  # exit code; others would fare no better, so all stop
IDLE_THREAD_S = 600
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


class _Chunks:
    """A body as granian wants it: bytes until StopIteration, then ``close``."""

    __slots__ = ("_body", "_next")

    def __init__(self, body: Iterable[bytes]) -> None:
        self._body = body
        self._next: Iterator[bytes] = iter(body)

    def __next__(self) -> bytes:
        try:
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


def adapter(application: "WSGIApplication") -> Callable[[Any, dict[str, Any]], None]:
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

    def answer(protocol: Any, environ: dict[str, Any]) -> None:
        environ.update(always)
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
            protocol.response_iter(start.status, start.headers, _Chunks(body))

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
    listener.listen(BACKLOG)
    # Accepted connections inherit both.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if sys.platform == "linux":
        listener.setsockopt(socket.IPPROTO_TCP, TCP_USER_TIMEOUT, int(http.transfer_timeout_s * 1000))
    return _Master(http, listener, make_app, ready, gone, drain_s).run()


class _Master:
    """Forks the processes, starts those again that die, stops them all. Has one thread."""

    def __init__(
        self,
        http: HttpSettings,
        listener: socket.socket,
        make_app: "Callable[[], WSGIApplication]",
        ready: Callable[[], None],
        gone: Callable[[int], None],
        drain_s: float,
    ) -> None:
        self._http, self._listener, self._make_app = http, listener, make_app
        self._ready, self._gone, self._drain_s = ready, gone, drain_s
        self._running: dict[int, float] = {}  # pid -> start, monotonic seconds
        self._code = 0

    def run(self) -> int:
        """The exit code."""
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        while not self._code:
            while len(self._running) < self._http.workers:
                self._fork()
            if self._wait(None):
                break
        self._listener.close()
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
        lived_s = time.monotonic() - self._running.pop(pid)
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

    def _fork(self) -> None:
        master = os.getpid()
        pid = os.fork()
        if pid:
            self._running[pid] = time.monotonic()
            return
        code = CANNOT_START
        try:
            process.die_with(master)
            stop = process.stop_event()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
            code = self._work(stop)
        except Exception:  # the process ends below whatever happened, with a code that says so
            log.exception("a web process cannot start")
        finally:
            _leave(code)

    def _work(self, stop: threading.Event) -> int:
        """In a process of its own: accept and answer until ``stop``, then drain."""
        http = self._http
        application = self._make_app()
        worker = WSGIWorker(
            1,  # its number, for granian's log
            (None, SocketHolder(self._listener.detach(), False, BACKLOG)),
            None,  # no channel to granian's own master
            1,  # threads that do HTTP
            http.threads,  # of granian's runtime, for its file operations: unused
            http.threads,
            IDLE_THREAD_S,
            http.connections,
            "1",
            HTTP1Settings(header_read_timeout=int(http.header_timeout_s * 1000), max_buffer_size=HEAD_BYTES),
            None,
        )
        drained, told = threading.Event(), WorkerSignal()
        told.add_cb(drained.set)
        loop = asyncio.new_event_loop()  # asked for, never run
        worker.serve_mtr(_new_cbscheduler(loop, adapter(application), impl_asyncio=True), loop, told)
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
