# SPDX-License-Identifier: Apache-2.0
"""A child process that works on bytes from outside, seen from its parent.

Whatever such bytes do to a C library (crash it, keep it busy for ever, make it ask for
all memory) happens in a child (``converters.isolation.child``) that has limits, and a deadline
kept from here. What comes back is a status and plain bytes, never anything that is
executed or unpickled.
"""

import math
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import converters
from converters.isolation.wire import MAX_REPLY_BYTES, REPLY, Status

START_SECONDS = 30
"""How long a child may take to load its libraries, on a machine that is very busy."""


_MEMORY_IS_KEPT = {
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(64 << 20),
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}
"""For glibc: tiles are of a size that it gives back to the system when they are done, and asks for
again. Touching new pages takes half the time of a decoder of raw pixels; large ones cost less."""


class ChildFailed(Exception):
    """The child died, hung, or said what no reply is. Text follows "the decoder"."""


class ChildKilled(ChildFailed):
    """Somebody ended the child with SIGKILL: no fault of the bytes, as far as we know."""


class Child:
    """One worker process and the socket to it. Used by one thread only: the kernel ends
    the process when the thread that started it ends (PR_SET_PDEATHSIG)."""

    def __init__(self, module: str, memory_limit_bytes: int, timeout_s: float) -> None:
        """Start ``python -m module``; returns once it is ready. Raises ChildFailed, OSError."""
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-P", "-m", module, str(theirs.fileno())),
                    *(str(memory_limit_bytes), str(math.ceil(timeout_s)), str(os.getpid())),
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env=_environment(),
                start_new_session=True,  # the terminal's Ctrl-C is the parent's to handle
            )
        self._socket = ours
        try:
            self._read_reply(time.monotonic() + START_SECONDS)
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int:
        return self._process.pid

    def alive(self) -> bool:
        return self._process.poll() is None

    def ask(self, parts: Sequence[bytes], timeout_s: float) -> tuple[Status, bytes]:
        """Send a request and wait for the reply. After :class:`ChildFailed` the child
        is of no more use."""
        deadline = time.monotonic() + timeout_s
        try:
            self._socket.settimeout(timeout_s)
            for part in parts:
                self._socket.sendall(part)
        except TimeoutError as error:
            raise ChildFailed("took too long") from error
        except OSError as error:
            raise self._how_it_ended() from error
        return self._read_reply(deadline)

    def _read_reply(self, deadline: float) -> tuple[Status, bytes]:
        status, length = REPLY.unpack(self._receive(REPLY.size, deadline))
        if length > MAX_REPLY_BYTES or status >= len(Status):
            raise ChildFailed("gave no valid answer")
        return Status(status), self._receive(length, deadline)

    def _receive(self, size: int, deadline: float) -> bytes:
        buffer = bytearray(size)
        view = memoryview(buffer)
        while view:
            self._socket.settimeout(max(0.001, deadline - time.monotonic()))
            try:
                count = self._socket.recv_into(view)
            except TimeoutError as error:
                raise ChildFailed("took too long") from error
            except OSError as error:
                raise self._how_it_ended() from error
            if not count:
                raise self._how_it_ended()
            view = view[count:]
        return bytes(buffer)

    def _how_it_ended(self) -> ChildFailed:
        try:
            code = self._process.wait(1)
        except subprocess.TimeoutExpired:
            return ChildFailed("closed its connection")
        if code == -signal.SIGKILL:
            return ChildKilled("was killed")
        return ChildFailed("took too long" if code == -signal.SIGXCPU else "crashed")

    def close(self) -> None:
        """End the process and reap it."""
        self._socket.close()
        self._process.kill()
        self._process.wait()


def _environment() -> dict[str, str]:
    """What a child needs to find its modules, and none of our secrets."""
    kept = {
        name: os.environ[name] for name in ("PATH", "LANG", "LD_LIBRARY_PATH", "TMPDIR") if name in os.environ
    }
    root = str(Path(converters.__file__).resolve().parents[1])
    return {
        **kept, "PYTHONPATH": root, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", **_MEMORY_IS_KEPT,
    }  # fmt: skip
