# SPDX-License-Identifier: Apache-2.0
"""The web role: gunicorn on an inherited socket, with our worker, log and stop order; or granian
(``gateway.web_granian``)."""

import contextlib
import logging
import os
import shutil
import signal
import socket
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, ClassVar

from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from gunicorn.glogging import Logger

from gateway import process
from gateway.settings import Settings
from gateway.web_worker import worker_class

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

DRAIN_S = 30
HANG_S = 120  # a process whose loop has not turned for so long is replaced
METRICS_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"  # read by prometheus-client when it is imported


class _Log(Logger):  # type: ignore[misc]
    """gunicorn's messages through our handler; no access log (paths may hold anything)."""

    def setup(self, cfg: object) -> None:
        self.error_log = logging.getLogger("gunicorn.error")
        self.error_log.setLevel(logging.WARNING)
        self.access_log = logging.getLogger("gunicorn.access")

    def access(self, *arguments: object) -> None:
        """Access is audited by the archive, not logged."""

    def reopen_files(self) -> None:
        """There are none."""

    def close_on_exec(self) -> None:
        """There are none."""


class _Master(Arbiter):  # type: ignore[misc]
    """Stops like every role (``gateway.process``); obeys no other signal."""

    SIGNALS: ClassVar[list[int]] = [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, process.DRAIN]
    _draining = False

    def signal(self, sig: int, frame: FrameType | None) -> None:
        if sig in (signal.SIGTERM, signal.SIGINT, process.DRAIN):
            sig = signal.SIGQUIT if self._draining and sig == signal.SIGTERM else signal.SIGTERM
            self._draining = True
        super().signal(sig, frame)


class _Server(BaseApplication):  # type: ignore[misc]
    def __init__(
        self,
        settings: Settings,
        listener: socket.socket,
        make_app: "Callable[[], WSGIApplication]",
        ready: Callable[[], None],
    ) -> None:
        self._settings, self._listener, self._make_app, self._ready = settings, listener, make_app, ready
        super().__init__()

    def load_config(self) -> None:
        http = self._settings.http
        chosen: dict[str, Any] = {
            "bind": [f"fd://{self._listener.detach()}"],
            "workers": http.workers,
            "threads": http.threads,
            "worker_class": worker_class(http),
            "worker_connections": http.connections,
            "keepalive": http.keepalive_s,
            "timeout": HANG_S,
            "graceful_timeout": DRAIN_S,
            "limit_request_line": 8190,
            "limit_request_fields": 100,
            "limit_request_field_size": 8190,
            "forwarded_allow_ips": "",  # dicomweb judges proxies by their networks
            "sendfile": False,  # it would wait without our deadlines
            "http_parser": "python",
            "control_socket_disable": True,
            "worker_tmp_dir": "/dev/shm" if Path("/dev/shm").is_dir() else None,
            "logger_class": _Log,
            "post_fork": self._in_worker,
            "post_worker_init": lambda worker: self._ready(),
            "child_exit": self._worker_gone,
        }
        for name, value in chosen.items():
            self.cfg.set(name, value)

    def load(self) -> "WSGIApplication":
        """Called in each worker after the fork: connections are opened there, never carried over."""
        return self._make_app()

    def run(self) -> None:
        _Master(self).run()

    def _in_worker(self, master: Arbiter, worker: object) -> None:
        process.die_with(master.pid)

    def _worker_gone(self, master: Arbiter, worker: Any) -> None:
        forget_metrics(self._settings, worker.pid)


def metrics_dir(settings: Settings) -> Path:
    """Where the web processes share their counters."""
    return settings.run_dir / "metrics"


def forget_metrics(settings: Settings, pid: int) -> None:
    """The gauges of a process that has ended must not be summed any more."""
    for path in metrics_dir(settings).glob(f"gauge_live*_{pid}.db"):
        path.unlink(missing_ok=True)


def serve(
    settings: Settings,
    listener: socket.socket,
    make_app: "Callable[[], WSGIApplication]",
    ready: Callable[[], None],
) -> None:
    """Serve ``make_app()`` on ``listener`` until told to stop; ``ready`` is called in a worker."""
    metrics = metrics_dir(settings)
    shutil.rmtree(metrics, ignore_errors=True)
    metrics.mkdir(parents=True)
    os.environ[METRICS_VARIABLE] = str(metrics)
    if settings.http.server == "granian":
        from gateway import web_granian

        gone = partial(forget_metrics, settings)
        code = web_granian.serve(settings.http, listener, make_app, ready, gone, DRAIN_S)
        if code:
            sys.exit(code)
        return
    for name in ("GUNICORN_PID", "GUNICORN_FD", "LISTEN_FDS", "LISTEN_PID"):
        os.environ.pop(name, None)  # another server's
    sys.argv = ["coverslip", "web"]
    with contextlib.suppress(SystemExit):
        _Server(settings, listener, make_app, ready).run()
