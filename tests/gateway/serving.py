# SPDX-License-Identifier: Apache-2.0
"""A real ``coverslip serve`` in a process tree of its own, for tests."""

import atexit
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

COVERSLIP = [sys.executable, "-P", "-m", "gateway"]
START_S = 60


@dataclass
class Serving:
    """A server that has said it is ready."""

    process: "subprocess.Popen[str]"
    data: Path
    url: str
    ports: dict[str, int]
    log_path: Path

    def get(self, path: str) -> tuple[int, bytes]:
        try:
            with urllib.request.urlopen(self.url + path.lstrip("/"), timeout=30) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def children(self) -> dict[str, int]:
        """Pids of the supervisor's children by role, from the log."""
        found: dict[str, int] = {}
        for line in self.log():
            if line["message"] == "started":
                found[str(line["child"])] = int(str(line["child_pid"]))
        return found

    def log(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.log_path.read_text().splitlines()]

    def follow(self, message: str, **wanted: object) -> dict[str, object]:
        """Wait for a log line; the pipe's next line is the event that is waited for."""
        assert self.process.stderr is not None
        for text in self.process.stderr:
            with self.log_path.open("a") as log:
                log.write(text)
            line = json.loads(text)
            if line["message"] == message and all(line.get(key) == value for key, value in wanted.items()):
                return dict(line)
        raise AssertionError(f"the server ended without {message!r}; its log: {self.log_path.read_text()}")

    def stop(self) -> int:
        """SIGTERM, and the exit code."""
        self.process.send_signal(signal.SIGTERM)
        assert self.process.stderr is not None
        with self.log_path.open("a") as log:
            log.writelines(self.process.stderr)
        return self.process.wait(60)


@contextmanager
def serving(data: Path, *options: str, log_path: Path | None = None) -> Iterator[Serving]:
    """``serve --data`` on free ports, ready; killed at the end if it still runs."""
    log_path = log_path or data.parent / f"{data.name}.log"
    command = [*COVERSLIP, "serve", "--data", str(data), "--http", "127.0.0.1:0", "--dimse", "0", *options]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=data.parent,
        env={
            **os.environ,
            "COVERSLIP_WATCH_SETTLE_S": "0.1",
            "COVERSLIP_WATCH_POLL_S": "0.1",
            "COVERSLIP_LIMITS_FREE_BYTES": "0",
        },
    )
    server = Serving(process, data, "", {}, log_path)
    try:
        server.follow("all roles are ready")
        assert process.stdout is not None
        server.url = process.stdout.readline().strip()
        server.ports = json.loads((data / "run" / "ports.json").read_text())
        yield server
    finally:
        if process.poll() is None:
            process.kill()
            process.wait(30)
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()


PRELOADED = ("gateway.backup", "gateway.cli.main", "gateway.compose", "gateway.ingest.pipeline",
             "converters.convert", "tests.gateway.serving")  # fmt: skip
_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(list(PRELOADED))


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    returncode: int
    stdout: str
    stderr: str


def run(*arguments: str, cwd: Path | None = None, **variables: str) -> Done:
    """A command of ours to its end, in a process of its own that has our modules loaded:
    importing them anew for each command would be most of the tests' time."""
    environment = {**os.environ, "COVERSLIP_LIMITS_FREE_BYTES": "0", **variables}
    with tempfile.TemporaryDirectory() as folder:
        process = _processes.Process(
            target=_run, args=(arguments, str(cwd or Path.cwd()), environment, folder), daemon=False
        )
        process.start()
        process.join(300)
        if process.exitcode is None:
            process.kill()
            raise AssertionError(f"{arguments} did not end")
        out, err = (Path(folder, name).read_text() for name in ("out", "err"))
    return Done(process.exitcode, out, err)


def _run(arguments: tuple[str, ...], cwd: str, environment: dict[str, str], folder: str) -> None:
    from gateway.cli.main import main

    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    for name, descriptor in (("out", 1), ("err", 2)):
        file = os.open(Path(folder, name), os.O_WRONLY | os.O_CREAT, 0o600)
        os.dup2(file, descriptor)
    code = main(arguments)
    sys.stdout.flush()
    sys.stderr.flush()
    atexit._run_exitfuncs()
    os._exit(code)
