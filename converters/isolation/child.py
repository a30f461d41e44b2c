# SPDX-License-Identifier: Apache-2.0
"""What a child process does to itself before it touches bytes from outside, and its loop.

It limits memory beyond what it has once its libraries are loaded, processor time for
each request, and gives up core dumps, files of its own and new privileges; it dies with
its parent. Requests come over a connected socket, one after the other, and each is
answered. A child that ran short of memory answers, then ends, so that its successor
begins with an unbroken heap.
"""

import ctypes
import os
import resource
import select
import signal
import socket
from collections.abc import Callable
from typing import Any

from converters.isolation.wire import Status, pack_reply, read_request

IDLE_S = 5.0
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38

Answer = Callable[[dict[str, Any], list[bytes]], tuple[Status, bytes]]
"""What answers one request: whatever goes wrong is a status."""


def die_with(parent: int) -> None:
    """Ask the kernel for SIGKILL when the parent thread ends (Linux)."""
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if os.getppid() != parent:  # it died before the call
        os._exit(1)


def limit_memory(extra_bytes: int) -> None:
    """Address space: what is mapped now, and so much more."""
    with open("/proc/self/statm", encoding="ascii") as statm:
        mapped = int(statm.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + extra_bytes, mapped + extra_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


def limit_time(seconds: int) -> None:
    """Processor time of the next request: the kernel sends SIGXCPU, which kills."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    soft = int(used.ru_utime + used.ru_stime) + seconds + 1
    resource.setrlimit(resource.RLIMIT_CPU, (soft, resource.RLIM_INFINITY))


def serve(
    connection: socket.socket, seconds: int, answer: Answer, idle: Callable[[], None] | None = None
) -> None:
    """Answer requests until the parent closes its end. ``idle`` is called when none came
    for a while: what a child keeps for the next must not be kept for ever."""

    def read(size: int) -> bytes:
        buffer = bytearray(size)
        view = memoryview(buffer)
        while view:
            count = connection.recv_into(view)
            if not count:
                raise EOFError
            view = view[count:]
        return bytes(buffer)

    connection.sendall(pack_reply(Status.DONE, 0))
    while True:
        if idle is not None and not select.select([connection], [], [], IDLE_S)[0]:
            idle()
        try:
            order, blobs = read_request(read)
        except EOFError:
            return
        limit_time(seconds)
        status, payload = answer(order, blobs)
        connection.sendall(pack_reply(status, len(payload)))
        connection.sendall(payload)
        if status is Status.TOO_LARGE:
            return


def run(arguments: list[str], answer: Answer, idle: Callable[[], None] | None = None) -> None:
    """The life of a child: ``FD MEMORY SECONDS PARENT``; see :func:`serve`."""
    descriptor, memory_bytes, seconds, parent = map(int, arguments)
    die_with(parent)
    with socket.socket(fileno=descriptor) as connection:
        limit_memory(memory_bytes)
        serve(connection, seconds, answer, idle)
