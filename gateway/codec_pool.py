# SPDX-License-Identifier: Apache-2.0
"""Decoding away from here: a bounded pool of child processes with limits.

A codestream from outside may crash its decoder, keep it busy for ever or make it ask
for all memory. So frames are decoded in children (``converters.codecs.worker``) that
have a memory limit, and a deadline kept from here; whatever befalls a child costs one
request and is mended by the next child.
"""

import contextlib
import math
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import converters
from archive.errors import ArchiveError, Busy, CannotDecode, CannotTranscode
from archive.values import PixelDescription, Rendering
from converters.codecs.transfer_syntax import can_transcode
from converters.codecs.wire import MAX_REPLY_BYTES, REPLY, Status, pack_request

START_SECONDS = 30
"""How long a child may take to load the codecs, on a machine that is very busy."""


@dataclass(slots=True)
class _Request:
    parts: list[bytes]
    given_up_at: float
    result: Future[bytes] = field(default_factory=Future)


class _ChildFailed(Exception):
    """The child died, hung, or said what no reply is. Text for the caller."""


class _ChildKilled(_ChildFailed):
    """Somebody ended the child with SIGKILL: no fault of the frame, as far as we know."""


class _Child:
    """One worker process and the socket to it. Used by one thread only: the kernel ends
    the process when the thread that started it ends (PR_SET_PDEATHSIG)."""

    def __init__(self, memory_limit_bytes: int, timeout_s: float) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-P", "-m", "converters.codecs.worker", str(theirs.fileno())),
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
        """Send a request and wait for the reply. After :class:`_ChildFailed` the child
        is of no more use."""
        deadline = time.monotonic() + timeout_s
        try:
            self._socket.settimeout(timeout_s)
            self._socket.sendall(b"".join(parts))
        except TimeoutError as error:
            raise _ChildFailed("the decoder took too long") from error
        except OSError as error:
            raise self._how_it_ended() from error
        return self._read_reply(deadline)

    def _read_reply(self, deadline: float) -> tuple[Status, bytes]:
        status, length = REPLY.unpack(self._receive(REPLY.size, deadline))
        if length > MAX_REPLY_BYTES or status >= len(Status):
            raise _ChildFailed("the decoder gave no valid answer")
        return Status(status), self._receive(length, deadline)

    def _receive(self, size: int, deadline: float) -> bytes:
        buffer = bytearray(size)
        view = memoryview(buffer)
        while view:
            self._socket.settimeout(max(0.001, deadline - time.monotonic()))
            try:
                count = self._socket.recv_into(view)
            except TimeoutError as error:
                raise _ChildFailed("the decoder took too long") from error
            except OSError as error:
                raise self._how_it_ended() from error
            if not count:
                raise self._how_it_ended()
            view = view[count:]
        return bytes(buffer)

    def _how_it_ended(self) -> _ChildFailed:
        try:
            code = self._process.wait(1)
        except subprocess.TimeoutExpired:
            return _ChildFailed("the decoder closed its connection")
        if code == -signal.SIGKILL:
            return _ChildKilled("the decoder was killed")
        return _ChildFailed("the decoder took too long" if code == -signal.SIGXCPU else "the decoder crashed")

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
    return {**kept, "PYTHONPATH": root, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


class CodecPool:
    """Frames decoded, transcoded and rendered in child processes: ``archive``'s
    ``FrameCodec``. Every method may be called from any thread.

    ``workers`` children at most, each with ``memory_limit_bytes`` beyond what the codecs
    themselves occupy, and ``timeout_s`` for a request. ``queue_limit`` requests wait,
    ``timeout_s`` at most (longer while the first children start); beyond either
    :class:`Busy` is raised. Children start with the first request, or by :meth:`start`;
    :meth:`close` ends them. After a fork the pool is empty in the new process, and starts
    children of its own.
    """

    def __init__(
        self,
        workers: int = 2,
        memory_limit_bytes: int = 1 << 30,
        timeout_s: float = 10.0,
        queue_limit: int = 64,
    ) -> None:
        self._workers = workers
        self._memory_limit_bytes = memory_limit_bytes
        self._timeout_s = timeout_s
        self._queue_limit = queue_limit
        self._lock = threading.Lock()
        self._closed = False
        self._forget()

    def _forget(self) -> None:
        self._owner = os.getpid()
        self._requests: queue.Queue[_Request | None] = queue.Queue(self._queue_limit)
        self._threads: list[threading.Thread] = []
        self._children: dict[int, _Child] = {}

    # ---- archive.values.FrameCodec -----------------------------------------------
    def transcode(self, frame: bytes, source: PixelDescription, transfer_syntax_uid: str) -> bytes:
        if not self.can_transcode(source, transfer_syntax_uid):
            raise CannotTranscode(
                f"no way from transfer syntax {source.transfer_syntax_uid} to {transfer_syntax_uid}"
            )
        order = {"what": "transcode", "form": _form(source), "transfer_syntax_uid": transfer_syntax_uid}
        return self._perform(order, [source.icc_profile, frame])

    def render(
        self,
        tiles: Sequence[tuple[int, int, bytes]],
        source: PixelDescription,
        rendering: Rendering,
        canvas: tuple[int, int],
    ) -> bytes:
        order = {
            "what": "render",
            "form": _form(source),
            "view": {
                "media_type": rendering.media_type,
                "quality": rendering.quality,
                "rows": rendering.rows,
                "columns": rendering.columns,
                "icc_profile": rendering.icc_profile,
                "window": rendering.window,
            },
            "places": [(row, column) for row, column, _ in tiles],
            "canvas": canvas,
        }
        return self._perform(order, [source.icc_profile, *(frame for _, _, frame in tiles)])

    def can_transcode(self, source: PixelDescription, transfer_syntax_uid: str) -> bool:
        return can_transcode(source.transfer_syntax_uid, transfer_syntax_uid, source.bits_allocated)

    # ---- life ----------------------------------------------------------------------
    def start(self) -> None:
        """Start the children now, so that the first request need not wait for them. Busy
        where no thread can be had for any."""
        with self._lock:
            if self._owner != os.getpid():
                self._forget()
            if self._closed or self._threads:
                return
            for number in range(self._workers):
                thread = threading.Thread(target=self._run, name=f"codec-{number}", daemon=True)
                try:
                    thread.start()
                except RuntimeError as error:  # no thread left: those that run do it
                    if not self._threads:
                        raise Busy("no thread left to decode in") from error
                    return
                self._threads.append(thread)

    def close(self) -> None:
        """Finish what waits, then end the children. Later requests are :class:`Busy`."""
        with self._lock:
            self._closed = True
            threads = self._threads if self._owner == os.getpid() else []
            self._threads = []
        for _ in threads:
            self._requests.put(None)
        for thread in threads:
            thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def child_pids(self) -> list[int]:
        """The process identifiers of the children that run now."""
        return [child.pid for child in list(self._children.values())]

    # ---- requests --------------------------------------------------------------------
    def _perform(self, order: Mapping[str, object], blobs: list[bytes]) -> bytes:
        self.start()
        patience = self._timeout_s if self._children else self._timeout_s + START_SECONDS
        request = _Request(pack_request(order, blobs), time.monotonic() + patience)
        with self._lock:  # so that nothing is queued behind close()'s last word
            if self._closed:
                raise Busy("the codec pool is closed")
            try:
                self._requests.put_nowait(request)
            except queue.Full:
                raise Busy("too many frames wait to be decoded") from None
        return request.result.result()

    def _run(self) -> None:
        """One child's thread: starts it, hands it requests, replaces it."""
        me = threading.get_ident()
        child = self._new_child(me)
        while (request := self._requests.get()) is not None:
            try:
                child = self._serve(request, me, child)
            except Exception:  # noqa: BLE001  whatever it is, nobody must wait for ever
                self._abandon(me, child)
                child = None
            if not request.result.done():
                request.result.set_exception(CannotDecode("the decoder failed"))
        if child is not None:
            child.close()
        self._children.pop(me, None)

    def _serve(
        self, request: _Request, me: int, child: _Child | None, *, again: bool = True
    ) -> _Child | None:
        """Answer one request; the child for the next one."""
        if again and time.monotonic() > request.given_up_at:
            request.result.set_exception(Busy("the frame waited too long to be decoded"))
            return child
        if child is None or not child.alive():
            child = self._replace(me, child)
        if child is None:
            request.result.set_exception(CannotDecode("the decoder does not start"))
            return None
        try:
            status, payload = child.ask(request.parts, self._timeout_s)
        except _ChildKilled as failure:
            if again:
                return self._serve(request, me, self._replace(me, child), again=False)
            request.result.set_exception(CannotDecode(str(failure)))
            return self._replace(me, child)
        except _ChildFailed as failure:
            request.result.set_exception(CannotDecode(str(failure)))
            return self._replace(me, child)
        except Exception:  # noqa: BLE001  whatever it is, the caller must not wait for ever
            request.result.set_exception(CannotDecode("the decoder failed"))
            return self._replace(me, child)
        if status is Status.DONE:
            request.result.set_result(payload)
            return child
        request.result.set_exception(_refusal(status, payload.decode("utf-8", "replace")))
        return self._replace(me, child) if status is Status.TOO_LARGE else child

    def _replace(self, me: int, child: _Child | None) -> _Child | None:
        if child is not None:
            child.close()
        return self._new_child(me)

    def _abandon(self, me: int, child: _Child | None) -> None:
        """Have no child: the one that was may be in any state."""
        self._children.pop(me, None)
        if child is not None:
            with contextlib.suppress(Exception):  # it was of no more use anyway
                child.close()

    def _new_child(self, me: int) -> _Child | None:
        self._children.pop(me, None)
        try:
            child = _Child(self._memory_limit_bytes, self._timeout_s)
        except Exception:  # noqa: BLE001  no memory, no process left: the next request tries again
            return None
        self._children[me] = child
        return child


def _form(source: PixelDescription) -> dict[str, object]:
    return {
        "transfer_syntax_uid": source.transfer_syntax_uid,
        "rows": source.rows,
        "columns": source.columns,
        "samples_per_pixel": source.samples_per_pixel,
        "bits_allocated": source.bits_allocated,
        "bits_stored": source.bits_stored,
        "pixel_representation": source.pixel_representation,
        "photometric_interpretation": source.photometric_interpretation,
        "planar_configuration": source.planar_configuration,
    }


def _refusal(status: Status, message: str) -> ArchiveError:
    return CannotTranscode(message) if status is Status.UNSUPPORTED else CannotDecode(message)
