# SPDX-License-Identifier: Apache-2.0
"""``coverslip serve``: one process that starts, watches and stops all the others.

It imports nothing of the archive: what it does not load cannot crash it. Sockets are
bound here and inherited by the children, which are exec'd (a fork would carry database
connections and locks along), so that a child that restarts loses no connection that
waits. If the supervisor is killed, the kernel kills its children (``gateway.process``).
"""

import contextlib
import fcntl
import json
import logging
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from gateway import process
from gateway.settings import Settings
from gateway.settings_check import check, host_port

log = logging.getLogger(__name__)

BACK_OFF_S = (1.0, 60.0)
FAILURES = 5  # within FAILURE_WINDOW_S turn /readyz red
FAILURE_WINDOW_S = 60.0
DRAIN_S = 30.0
TERM_S = 5.0
BACKLOG = 1024
PORTS_FILE = "ports.json"
UNHEALTHY_FILE = "unhealthy.json"


class AlreadyServing(Exception):
    """Another ``serve`` holds the data folder's lock."""


class CannotListen(Exception):
    """An address is taken or not ours."""


class StartFailed(Exception):
    """A child that must succeed before the start did not; it said why on stderr."""

    def __init__(self, step: str, code: int) -> None:
        super().__init__(f"{step} failed")
        self.code = code


def lock_data(run_dir: Path) -> int:
    """The descriptor of the exclusive lock on ``run_dir``; keep it open. AlreadyServing."""
    for folder in (run_dir.parent, run_dir):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(run_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(descriptor, 32).decode("ascii", "replace").strip()
        os.close(descriptor)
        raise AlreadyServing(f"{run_dir.parent} is served already, by process {holder or '?'}") from None
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor


def listen(bind: str, name: str) -> socket.socket:
    """A listening socket; port 0 takes a free one. CannotListen."""
    host, port = host_port(bind, name)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise CannotListen(f"{name}: cannot listen on {bind}: {error.strerror}") from error
    return listener


@dataclass(slots=True)
class Child:
    """One role: its command, and how it has fared."""

    role: str
    command: Sequence[str]
    sockets: Mapping[str, socket.socket] = field(default_factory=dict)  # by option: --fd
    once: bool = False  # a task, not a server: never restarted
    process: "subprocess.Popen[bytes] | None" = None
    ready: bool = False
    ready_pipe: int = -1
    started: float = 0.0
    delay_s: float = BACK_OFF_S[0]
    restart_at: float | None = None
    failures: deque[float] = field(default_factory=lambda: deque(maxlen=FAILURES))
    failing: bool = False  # FAILURES in FAILURE_WINDOW_S; until it has run that long again


class Supervisor:
    """Runs children until a stop signal; ``run`` is its whole life."""

    def __init__(
        self,
        settings: Settings,
        command: Sequence[str],
        *,
        options: Sequence[str] = (),
        tasks: Mapping[str, Sequence[str]] | None = None,
        announce: Callable[[Mapping[str, int]], None] | None = None,
    ) -> None:
        """``command`` starts our program, ``options`` follow each role's name; ``tasks`` are
        commands run once beside the roles; ``announce`` is told the ports."""
        self._settings = settings
        self._command = list(command)
        self._options = list(options)
        self._tasks = tasks or {}
        self._announce = announce
        self._children: list[Child] = []
        self._listeners: dict[str, socket.socket] = {}
        self._selector = selectors.DefaultSelector()
        self._wake: tuple[int, int] = (-1, -1)
        self._stop_signals = 0
        self._announced = False

    def run(self) -> None:
        """Raises AlreadyServing, CannotListen, StartFailed, SettingsError; returns when stopped."""
        check(self._settings)
        lock = lock_data(self._settings.run_dir)
        try:
            for name in (PORTS_FILE, UNHEALTHY_FILE):
                (self._settings.run_dir / name).unlink(missing_ok=True)
            self._catch_signals()
            self._run_to_end("migrate", [*self._command, "migrate", "--recover", *self._options])
            if self._stop_asked():
                return
            self._listen()
            self._define_children()
            for child in self._children:
                self._start(child)
            while not self._stop_asked():
                self._wait(self._next_event_s())
                self._look_after()
            self._stop()
        finally:
            self._close_listeners()
            (self._settings.run_dir / PORTS_FILE).unlink(missing_ok=True)
            os.close(lock)

    def _stop_asked(self) -> bool:
        return self._stop_signals > 0

    # -- starting --------------------------------------------------------------------

    def _catch_signals(self) -> None:
        read, write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._wake = (read, write)
        self._selector.register(read, selectors.EVENT_READ)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)

        def on_stop(number: int, frame: FrameType | None) -> None:
            self._stop_signals += 1

        signal.signal(signal.SIGTERM, on_stop)
        signal.signal(signal.SIGINT, on_stop)
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup: the terminal may go
            signal.signal(signal.SIGHUP, on_stop)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)  # only to wake us

    def _listen(self) -> None:
        self._listeners["http"] = listen(self._settings.http.bind, "http.bind")
        if self._settings.dimse.bind:
            self._listeners["dimse"] = listen(self._settings.dimse.bind, "dimse.bind")
        if self._settings.dimse.tls_bind:
            self._listeners["dimse_tls"] = listen(self._settings.dimse.tls_bind, "dimse.tls_bind")

    def _define_children(self) -> None:
        self._children = [Child("web", ["web"], {"--fd": self._listeners["http"]})]
        names = {"--fd": "dimse", "--tls-fd": "dimse_tls"}
        sockets = {option: self._listeners[name] for option, name in names.items() if name in self._listeners}
        if sockets:
            self._children.append(Child("dimse", ["dimse"], sockets))
        self._children.append(Child("worker", ["worker"]))
        if self._settings.watch.folders:
            self._children.append(Child("watch", ["watch"]))

    def _spawn(self, command: Sequence[str], keep: Sequence[int] = ()) -> "subprocess.Popen[bytes]":
        supervisor = os.getpid()
        # preexec_fn is safe here: this process has one thread.
        return subprocess.Popen(
            command,
            pass_fds=keep,
            stdin=subprocess.DEVNULL,
            process_group=0,
            preexec_fn=lambda: process.die_with(supervisor),
        )

    def _run_to_end(self, step: str, command: Sequence[str]) -> None:
        child = self._spawn(command)
        while child.poll() is None:
            self._wait(1.0)
            if self._stop_asked():
                child.terminate()
        if child.returncode and not self._stop_asked():
            raise StartFailed(step, child.returncode)

    def _start(self, child: Child) -> None:
        command = [*self._command, *child.command]
        keep = []
        write = -1
        if not child.once:
            command += self._options
            child.ready = False
            child.ready_pipe, write = os.pipe2(os.O_CLOEXEC)
            self._selector.register(child.ready_pipe, selectors.EVENT_READ, child)
            command += ["--ready-fd", str(write)]
            keep.append(write)
        for option, listener in child.sockets.items():
            command += [option, str(listener.fileno())]
            keep.append(listener.fileno())
        child.restart_at = None
        child.started = time.monotonic()
        child.process = self._spawn(command, keep)
        if write >= 0:
            os.close(write)
        log.info("started", extra={"child": child.role, "child_pid": child.process.pid})

    # -- watching --------------------------------------------------------------------

    def _wait(self, timeout_s: float) -> None:
        for key, _ in self._selector.select(timeout_s):
            if key.data is None:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._wake[0], 4096)
            else:
                child: Child = key.data
                child.ready = bool(os.read(child.ready_pipe, 64)) or child.ready
                self._forget_pipe(child)

    def _forget_pipe(self, child: Child) -> None:
        if child.ready_pipe >= 0:
            self._selector.unregister(child.ready_pipe)
            os.close(child.ready_pipe)
            child.ready_pipe = -1

    def _next_event_s(self) -> float:
        """Until the next restart, or until a role that failed counts as well; at most a minute."""
        now = time.monotonic()
        times = [child.restart_at - now for child in self._children if child.restart_at is not None]
        times += [child.started + FAILURE_WINDOW_S - now for child in self._children if child.failing]
        return max(0.01, min([60.0, *times]))

    def _look_after(self) -> None:
        now = time.monotonic()
        for child in self._children:
            if child.process is not None and (code := child.process.poll()) is not None:
                self._ended(child, code, now)
            if child.restart_at is not None and now >= child.restart_at and not self._stop_asked():
                self._start(child)
            if child.process is not None and now - child.started >= FAILURE_WINDOW_S:
                child.failing = False
                child.delay_s = BACK_OFF_S[0]
        self._report_health()
        if not self._announced and all(child.ready for child in self._children):
            self._announced = True
            self._write_ports()
            for name, arguments in self._tasks.items():  # not before: a start must be quick
                task = Child(name, arguments, once=True, ready=True)
                self._children.append(task)
                self._start(task)

    def _ended(self, child: Child, code: int, now: float) -> None:
        child.process = None
        self._forget_pipe(child)
        if self._stop_asked():
            return
        if child.once:
            log.info("task ended", extra={"child": child.role, "exit_code": code})
            return
        child.failures.append(now)
        if len(child.failures) == FAILURES and now - child.failures[0] <= FAILURE_WINDOW_S:
            child.failing = True
        child.restart_at = now + child.delay_s
        log.error(
            "ended, will be restarted",
            extra={"child": child.role, "exit_code": code, "restart_in_s": child.delay_s},
        )
        child.delay_s = min(child.delay_s * 2, BACK_OFF_S[1])

    def _report_health(self) -> None:
        """Keep ``run/unhealthy.json`` there just while a role keeps failing; /readyz reads it."""
        failing = sorted(child.role for child in self._children if child.failing)
        path = self._settings.run_dir / UNHEALTHY_FILE
        if failing and not path.exists():
            _replace_file(path, {"failing": failing})
            log.error("a role keeps failing", extra={"child": ", ".join(failing)})
        elif not failing:
            path.unlink(missing_ok=True)

    def _write_ports(self) -> None:
        ports = {name: int(listener.getsockname()[1]) for name, listener in self._listeners.items()}
        _replace_file(self._settings.run_dir / PORTS_FILE, {**ports, "pid": os.getpid()})
        log.info("all roles are ready", extra=ports)
        if self._announce is not None:
            self._announce(ports)

    # -- stopping --------------------------------------------------------------------

    def _close_listeners(self) -> None:
        for listener in self._listeners.values():
            listener.close()
        self._listeners.clear()

    def _stop(self) -> None:
        """Listeners, drain, TERM, KILL; a second stop signal shortens the drain."""
        log.info("stopping")
        (self._settings.run_dir / PORTS_FILE).unlink(missing_ok=True)
        self._close_listeners()
        for number, patience_s in (
            (process.DRAIN, DRAIN_S),
            (signal.SIGTERM, TERM_S),
            (signal.SIGKILL, TERM_S),
        ):
            running = self._running()
            if not running:
                break
            for child in running:
                if child.process is not None:
                    # a task has no drain
                    child.process.send_signal(signal.SIGTERM if child.once else number)
            deadline = time.monotonic() + patience_s
            while self._running() and time.monotonic() < deadline:
                if self._stop_signals > 1 and number == process.DRAIN:
                    break
                self._wait(max(0.0, deadline - time.monotonic()))
        log.info("stopped")

    def _running(self) -> list[Child]:
        for child in self._children:
            if child.process is not None and child.process.poll() is not None:
                child.process = None
        return [child for child in self._children if child.process is not None]


def _replace_file(path: Path, content: Mapping[str, object]) -> None:
    """Readers see the whole file or none."""
    temporary = path.with_name(path.name + ".new")
    temporary.write_text(json.dumps(content) + "\n", encoding="ascii")
    os.replace(temporary, path)


def program() -> list[str]:
    """The command that runs this very program again."""
    # -P: a folder of the working directory must not stand in for one of our packages
    return [sys.executable, "-P", "-m", "gateway"]
