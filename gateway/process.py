# SPDX-License-Identifier: Apache-2.0
"""What the processes of one server share: dying together, saying "ready", stopping in order.

A role stops in two steps. The first SIGTERM, SIGINT or SIGUSR1 means *drain*: accept
nothing more, finish what runs, exit. SIGTERM while draining means *leave now*.
"""

import contextlib
import ctypes
import os
import resource
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType

PR_SET_PDEATHSIG = 1
DRAIN = signal.SIGUSR1

_libc = ctypes.CDLL(None, use_errno=True)  # loaded here, so that nothing is after a fork


def die_with(parent: int) -> None:
    """Have the kernel kill this process when ``parent`` (a pid) dies; Linux only.

    Call early in the child. The parent may be gone before the call takes effect:
    then nothing would ever kill us, so we leave at once. The signal is sent when the
    *thread* that forked us ends: parents fork from their main thread.
    """
    if hasattr(_libc, "prctl"):
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def open_many_files() -> None:
    """Raise this process's soft limit of open files to the hard one; Linux only.

    The usual soft limit, 1024, is for programs that use select(2), which we do not.
    """
    if sys.platform != "linux":
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(ValueError, OSError):  # a sandbox may forbid it
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class Ready:
    """Tells the supervisor, through an inherited pipe, that this role listens. Once."""

    def __init__(self, descriptor: int | None = None) -> None:
        self._descriptor = descriptor

    def __call__(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            # a supervisor that has gone cannot be told
            with contextlib.suppress(OSError):
                os.write(descriptor, b"ready\n")
            os.close(descriptor)


def stop_event(leave: Callable[[], None] | None = None) -> threading.Event:
    """An event that the first stop signal sets; a SIGTERM after it ends the process.

    ``leave`` runs before that end. Call from the main thread.
    """
    stop = threading.Event()

    def on_signal(number: int, frame: FrameType | None) -> None:
        if not stop.is_set():
            stop.set()
        elif number == signal.SIGTERM:
            if leave is not None:
                leave()
            os._exit(128 + number)

    for number in (signal.SIGTERM, signal.SIGINT, DRAIN):
        signal.signal(number, on_signal)
    return stop
