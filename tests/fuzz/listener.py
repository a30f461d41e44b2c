# SPDX-License-Identifier: Apache-2.0
"""The DICOM listener under random conversations, in a process of its own.

As a program: ``python -m tests.fuzz.listener --seconds 3600``. A conversation that makes
the listener die, hang, log an error of its own, or keep what it should not is written to
tests/corpus/dimse and said again by every test run from then on. Exit code 1 if any was.
"""

import argparse
import contextlib
import hashlib
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.fuzz.conversations import CLASSES, conversations, damaged, request_pdu, to_bytes
from tests.gateway.dimse.test_pdu import header
from tests.support.archives import ASK, open_archive
from tests.support.require import ROOT

CORPUS = ROOT / "tests" / "corpus" / "dimse"
HANGS_S = 20.0  # longer than all deadlines of the listener under test
SETTINGS = {"association_timeout_s": 1.0, "idle_timeout_s": 2.0}
# What the listener writes when it was not the peer's fault.
_OUR_ERRORS = ("Traceback", "ended by an error", "failed\n", "left something behind", "could not be")


class Listener:
    """A listener, and what it says on its standard error."""

    def __init__(self, process: "subprocess.Popen[str]", port: int) -> None:
        self.process = process
        self.port = port
        self._lines: list[str] = []
        self._lock = threading.Lock()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._lock:
                self._lines.append(line)

    def said(self) -> str:
        """All since the last call."""
        with self._lock:
            lines, self._lines = self._lines, []
        return "".join(lines)

    def threads(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/task"))


@contextlib.contextmanager
def listening(folder: Path) -> Iterator[Listener]:
    """A listener on an archive in ``folder``."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.attacks.besieged", str(folder), json.dumps(SETTINGS)], cwd=ROOT,
        text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        with process.stdin, process.stdout:
            yield Listener(process, int(process.stdout.readline()))
            process.stdin.close()
            process.wait(60)
    finally:
        process.kill()
        process.wait()


def say(port: int, pdus: Sequence[bytes]) -> bool:
    """Say the conversation, waiting for an answer after the first PDU; whether the other
    side ends it in time."""
    deadline = time.monotonic() + HANGS_S
    with socket.create_connection(("127.0.0.1", port), timeout=HANGS_S) as connection:
        try:
            connection.sendall(pdus[0])
            connection.settimeout(0.3)
            with contextlib.suppress(TimeoutError):
                connection.recv(65536)
            connection.settimeout(HANGS_S)
            connection.sendall(b"".join(pdus[1:]))
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(65536):
                connection.settimeout(max(0.1, deadline - time.monotonic()))
        except TimeoutError:
            return False
        except OSError:
            return True
    return True


def honest(port: int) -> bool:
    """Whether a C-ECHO is answered with success."""
    request, *echo = conversations()["echo"]
    with socket.create_connection(("127.0.0.1", port), timeout=HANGS_S) as connection:
        connection.sendall(request)
        answer = connection.recv(1)
        connection.sendall(b"".join(echo))
        while chunk := connection.recv(65536):
            answer += chunk
    return answer.endswith(header(6, 4) + bytes(4)) and b"\x00\x00\x00\x09\x02\x00\x00\x00\x00\x00" in answer


def trouble(listener: Listener, pdus: Sequence[bytes]) -> str:
    """Say it; what is wrong with the listener then, "" where nothing is."""
    if not say(listener.port, pdus):
        return "it hangs"
    if listener.process.poll() is not None:
        return f"it died: {listener.process.returncode}"
    said = listener.said()
    for sign in _OUR_ERRORS:
        if sign in said:
            return f"an error of its own: {said[-2000:]}"
    return ""


def left_behind(folder: Path) -> str:
    """What is wrong with the archive of a listener that has ended, "" where nothing is."""
    spool = [path.name for path in (folder / "spool").iterdir()]
    if spool:
        return f"the spool holds {spool}"
    with contextlib.closing(open_archive(folder)) as archive:
        found = [finding for finding in archive.verify(**ASK) if finding.kind != "as received"]  # type: ignore[arg-type]
    return f"verify finds {found[0]}" if found else ""


def keep(pdus: Sequence[bytes]) -> Path:
    """Write the conversation to the corpus."""
    data = to_bytes(pdus)
    CORPUS.mkdir(parents=True, exist_ok=True)
    path = CORPUS / f"{hashlib.sha256(data).hexdigest()[:16]}.pdus"
    path.write_bytes(data)
    return path


def fuzz(seconds: float, seed: int) -> list[str]:
    """Random conversations for so long; what went wrong, one line each."""
    chance = random.Random(seed)
    troubles: list[str] = []
    end = time.monotonic() + seconds
    rounds = 0
    while time.monotonic() < end:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name) / "data"
            pdus: list[bytes] = []
            wrong = ""
            with listening(folder) as listener:
                before = listener.threads()
                while not wrong and time.monotonic() < end:
                    pdus = damaged(chance.choice(list(conversations().values())), chance)
                    if chance.random() < 0.7:  # most get as far as an association
                        pdus[0] = request_pdu(CLASSES)
                    rounds += 1
                    wrong = trouble(listener, pdus)
                    if not wrong and rounds % 100 == 0:
                        if not honest(listener.port):
                            wrong = "an honest peer is not served"
                        elif listener.threads() > before + 16:
                            wrong = f"{listener.threads()} threads, {before} at first"
            wrong = wrong or left_behind(folder)
            if wrong:  # a fresh listener for what follows
                troubles.append(f"{keep(pdus).name}: {wrong}")
    print(f"{rounds} conversations with seed {seed}, {len(troubles)} found something")
    return troubles


def main() -> int:
    parser = argparse.ArgumentParser(description="Random conversations with the DICOM listener.")
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    arguments = parser.parse_args()
    troubles = fuzz(arguments.seconds, arguments.seed)
    for line in troubles:
        print(line)
    return 1 if troubles else 0


if __name__ == "__main__":
    sys.exit(main())
