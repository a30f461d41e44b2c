# SPDX-License-Identifier: Apache-2.0
"""A whole ``coverslip serve`` as its user starts it, on free ports in a folder of its own."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.require import ROOT


@dataclass
class Server:
    """``process`` is the supervisor; its log lines are in ``log``."""

    process: "subprocess.Popen[bytes]"
    data: Path
    log: Path
    http: int
    dimse: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http}"

    def get(self, path: str, accept: str = "*/*") -> bytes:
        """The body of a GET; raises for statuses from 400 on."""
        request = urllib.request.Request(self.url + path, headers={"Accept": accept})
        with urllib.request.urlopen(request, timeout=60) as answer:
            body: bytes = answer.read()
            return body

    def json(self, path: str, accept: str = "application/json") -> Any:
        return json.loads(self.get(path, accept) or b"[]")

    def stop(self) -> int:
        """An ordered stop; its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


def wait_for(condition: Any, timeout_s: float = 60.0, what: str = "") -> Any:
    """Ask until it is true, and give that; for things that tell no event."""
    deadline = time.monotonic() + timeout_s
    while True:
        with contextlib.suppress(OSError):
            if found := condition():
                return found
        if time.monotonic() > deadline:
            raise TimeoutError(what or "the condition did not come true")
        time.sleep(0.05)


def start_server(data: Path, *arguments: str, environment: dict[str, str] | None = None) -> Server:
    """Start ``coverslip serve`` and wait until all its ports listen."""
    data.mkdir(parents=True, exist_ok=True)
    log = data.parent / f"{data.name}.log"
    ports = data / "run" / "ports.json"
    ports.unlink(missing_ok=True)
    with log.open("ab") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "gateway", "serve", "--data", str(data), "--http", "127.0.0.1:0",
             "--dimse", "0", *arguments],
            cwd=ROOT, stdout=stream, stderr=stream, env={**os.environ, **(environment or {})},
        )  # fmt: skip

    def listening() -> Any:
        if process.poll() is not None:
            raise RuntimeError(f"serve ended with {process.returncode}: {log.read_text()[-2000:]}")
        return json.loads(ports.read_text()) if ports.exists() else None

    try:
        found = wait_for(listening, 90, "serve did not listen")
    except BaseException:
        process.kill()
        raise
    return Server(process, data, log, found["http"], found["dimse"])


@contextlib.contextmanager
def running_server(data: Path, *arguments: str) -> Iterator[Server]:
    """A server for a ``with`` block, stopped in order at its end."""
    server = start_server(data, *arguments)
    try:
        yield server
    finally:
        server.stop()


def coverslip(*arguments: str | int | Path, check: bool = True) -> "subprocess.CompletedProcess[str]":
    """Run a command of the CLI to its end."""
    command: Sequence[str] = [sys.executable, "-m", "gateway", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=check)
