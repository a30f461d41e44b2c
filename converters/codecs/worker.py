# SPDX-License-Identifier: Apache-2.0
"""The process that decodes: ``python -m converters.codecs.worker FD MEMORY SECONDS``.

Reads requests from a connected socket, one after the other, and answers each. It limits
itself before it reads the first: memory beyond what it has once the codecs are loaded,
processor time for each request, no core, no files of its own, no new privileges; and it
dies with its parent. A worker that ran short of memory answers, then ends, so that its
successor begins with an unbroken heap.
"""

import ctypes
import os
import resource
import signal
import socket
import sys
from typing import Any

# before numpy: its libraries start a thread for each core otherwise
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from converters.codecs.errors import CodecError, FrameTooLarge, UnsupportedCodec
from converters.codecs.render import FrameFormat, View, render
from converters.codecs.transcode import transcode
from converters.codecs.wire import Status, pack_reply, read_request

_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38


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


def perform(order: dict[str, Any], blobs: list[bytes]) -> bytes:
    """Carry out one request."""
    form = FrameFormat(**order["form"], icc_profile=blobs[0])
    if order["what"] == "transcode":
        return transcode(blobs[1], form, order["transfer_syntax_uid"])
    window = order["view"].pop("window")
    view = View(**order["view"], window=tuple(window) if window else None)
    places = order["places"]
    tiles = [(row, column, blob) for (row, column), blob in zip(places, blobs[1:], strict=True)]
    rows, columns = order["canvas"]
    return render(tiles, form, view, (rows, columns))


def answer(order: dict[str, Any], blobs: list[bytes]) -> tuple[Status, bytes]:
    """The reply to one request; whatever goes wrong is a status."""
    try:
        return Status.DONE, perform(order, blobs)
    except UnsupportedCodec as refusal:
        return Status.UNSUPPORTED, str(refusal).encode()
    except FrameTooLarge as refusal:
        return Status.TOO_LARGE, str(refusal).encode()
    except CodecError as refusal:
        return Status.DAMAGED, str(refusal).encode()
    except MemoryError:
        return Status.TOO_LARGE, b"not enough memory for the frame"
    except Exception as error:  # noqa: BLE001  the parent decides; a worker has no log
        return Status.DAMAGED, f"the codec failed: {type(error).__name__}".encode()


def serve(connection: socket.socket, seconds: int) -> None:
    """Answer requests until the parent closes its end."""

    def read(size: int) -> bytes:
        buffer = bytearray(size)
        view = memoryview(buffer)
        while view:
            count = connection.recv_into(view)
            if not count:
                raise EOFError
            view = view[count:]
        return bytes(buffer)

    connection.sendall(pack_reply(Status.DONE, b"ready"))
    while True:
        try:
            order, blobs = read_request(read)
        except EOFError:
            return
        limit_time(seconds)
        status, payload = answer(order, blobs)
        connection.sendall(pack_reply(status, payload))
        if status is Status.TOO_LARGE:
            return


def main(arguments: list[str]) -> None:
    descriptor, memory_bytes, seconds, parent = map(int, arguments)
    die_with(parent)
    with socket.socket(fileno=descriptor) as connection:
        limit_memory(memory_bytes)
        serve(connection, seconds)


if __name__ == "__main__":
    main(sys.argv[1:])
