# SPDX-License-Identifier: Apache-2.0
"""A DICOM listener for tests: a thread here, or a process of its own that can be killed.

As a program: ``python -m tests.gateway.dimse.running FOLDER`` serves an archive in FOLDER
on a free port, prints the port, and stops when its standard input closes.
"""

import contextlib
import resource
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from archive.service import Archive
from gateway.dimse.server import serve
from gateway.settings import DimseSettings
from tests.support.archives import open_archive
from tests.support.require import ROOT

AE_TITLE = "COVERSLIP"


def listen() -> socket.socket:
    """A bound socket on a free port of this machine."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.set_inheritable(True)
    return listener


@dataclass
class Scp:
    archive: Archive
    port: int
    stop: threading.Event
    tls_port: int = 0


@contextlib.contextmanager
def running(
    archive: Archive, settings: DimseSettings | None = None, *, drain_s: float = 5.0
) -> Iterator[Scp]:
    """A listener in a thread, with ``settings.tls_bind`` one with TLS beside it; on leaving
    it is stopped and must end."""
    listener = listen()
    port = listener.getsockname()[1]
    tls_listener = listen() if settings is not None and settings.tls_bind else None
    tls_port = 0 if tls_listener is None else tls_listener.getsockname()[1]
    ready, stop = threading.Event(), threading.Event()
    thread = threading.Thread(
        target=serve, args=(archive, listener, settings or DimseSettings(), ready.set, stop),
        kwargs={"drain_s": drain_s, "tls_listener": tls_listener}, name="scp",
    )  # fmt: skip
    thread.start()
    assert ready.wait(10)
    try:
        yield Scp(archive, port, stop, tls_port)
    finally:
        stop.set()
        thread.join(drain_s + 10)
        assert not thread.is_alive(), "the listener did not stop"


@dataclass
class ScpProcess:
    process: "subprocess.Popen[str]"
    port: int

    def kill(self) -> None:
        """As a power cut would: no signal that it could handle."""
        self.process.kill()
        self.process.wait()


@contextlib.contextmanager
def running_process(folder: Path, *, file_size_limit: int = 0) -> Iterator[ScpProcess]:
    """A listener in a process of its own, with an archive in ``folder``.

    With ``file_size_limit`` (bytes) its kernel refuses larger files, as a full disk would.
    """

    def limit() -> None:
        if file_size_limit:
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_size_limit, file_size_limit))

    process = subprocess.Popen(
        [sys.executable, "-m", __name__, str(folder)], cwd=ROOT, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, preexec_fn=limit,
    )  # fmt: skip
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        with process.stdin, process.stdout:
            yield ScpProcess(process, int(process.stdout.readline()))
            process.stdin.close()
            process.wait(20)
    finally:
        process.kill()
        process.wait()


def main(folder: Path) -> None:
    archive = open_archive(folder)
    listener = listen()
    stop = threading.Event()

    def wait_for_end() -> None:
        sys.stdin.read()
        stop.set()

    threading.Thread(target=wait_for_end, daemon=True).start()
    serve(archive, listener, DimseSettings(), lambda: print(listener.getsockname()[1], flush=True), stop)
    archive.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
