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
import struct
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Self

from archive.errors import ArchiveError, Busy, CannotDecode, CannotTranscode
from archive.values import Fit, Layer, PixelDescription, Rendering
from converters.codecs.transfer_syntax import can_transcode
from converters.isolation.parent import START_SECONDS, Child, ChildFailed, ChildKilled
from converters.isolation.wire import Status, pack_request

_LIMITS = struct.Struct("<dd")


@dataclass(slots=True)
class _Request:
    parts: list[bytes]
    given_up_at: float
    result: Future[bytes] = field(default_factory=Future)


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
        self._children: dict[int, Child] = {}

    # ---- archive.values.FrameCodec -----------------------------------------------
    def transcode(self, frame: bytes, source: PixelDescription, transfer_syntax_uid: str) -> bytes:
        if not self.can_transcode(source, transfer_syntax_uid):
            raise CannotTranscode(
                f"no way from transfer syntax {source.transfer_syntax_uid} to {transfer_syntax_uid}"
            )
        order = {"what": "transcode", "form": _form(source), "transfer_syntax_uid": transfer_syntax_uid}
        return self._perform(order, [source.icc_profile, b"", frame])

    def render(
        self,
        tiles: Sequence[tuple[int, int, bytes]],
        source: PixelDescription,
        rendering: Rendering,
        canvas: tuple[int, int],
        layers: Sequence[Layer] = (),
    ) -> bytes:
        order = {
            "what": "render",
            "form": _form(source),
            "view": _view(rendering, layers),
            "places": [(row, column) for row, column, _ in tiles],
            "canvas": canvas,
        }
        return self._perform(order, [source.icc_profile, source.palette, *(frame for _, _, frame in tiles)])

    def value_limits(
        self, tiles: Sequence[tuple[int, int, bytes]], source: PixelDescription, canvas: tuple[int, int]
    ) -> tuple[float, float]:
        order = {
            "what": "limits",
            "form": _form(source),
            "places": [(row, column) for row, column, _ in tiles],
            "canvas": canvas,
        }
        reply = self._perform(order, [b"", b"", *(frame for _, _, frame in tiles)])
        if len(reply) != _LIMITS.size:
            raise CannotDecode("the decoder failed")
        low, high = _LIMITS.unpack(reply)
        if not (math.isfinite(low) and math.isfinite(high)):
            raise CannotDecode("the decoder failed")
        return low, high

    def can_transcode(self, source: PixelDescription, transfer_syntax_uid: str) -> bool:
        return can_transcode(
            source.transfer_syntax_uid,
            transfer_syntax_uid,
            source.bits_allocated,
            pixel_representation=source.pixel_representation,
            photometric=source.photometric_interpretation,
        )

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

    def _serve(self, request: _Request, me: int, child: Child | None, *, again: bool = True) -> Child | None:
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
        except ChildKilled as failure:
            if again:
                return self._serve(request, me, self._replace(me, child), again=False)
            request.result.set_exception(CannotDecode(f"the decoder {failure}"))
            return self._replace(me, child)
        except ChildFailed as failure:
            request.result.set_exception(CannotDecode(f"the decoder {failure}"))
            return self._replace(me, child)
        except Exception:  # noqa: BLE001  whatever it is, the caller must not wait for ever
            request.result.set_exception(CannotDecode("the decoder failed"))
            return self._replace(me, child)
        if status is Status.DONE:
            request.result.set_result(payload)
            return child
        request.result.set_exception(_refusal(status, payload.decode("utf-8", "replace")))
        return self._replace(me, child) if status is Status.TOO_LARGE else child

    def _replace(self, me: int, child: Child | None) -> Child | None:
        if child is not None:
            child.close()
        return self._new_child(me)

    def _abandon(self, me: int, child: Child | None) -> None:
        """Have no child: the one that was may be in any state."""
        self._children.pop(me, None)
        if child is not None:
            with contextlib.suppress(Exception):  # it was of no more use anyway
                child.close()

    def _new_child(self, me: int) -> Child | None:
        self._children.pop(me, None)
        try:
            child = Child("converters.codecs.worker", self._memory_limit_bytes, self._timeout_s)
        except Exception:  # noqa: BLE001  no memory, no process left: the next request tries again
            return None
        self._children[me] = child
        return child


def _view(rendering: Rendering, layers: Sequence[Layer]) -> dict[str, object]:
    return {
        "media_type": rendering.media_type,
        "quality": rendering.quality,
        "rows": rendering.rows,
        "columns": rendering.columns,
        "icc_profile": rendering.icc_profile,
        "window": rendering.window,
        "region": rendering.region,
        "exact": rendering.fit is Fit.EXACT,
        "flip_rows": rendering.flip_rows,
        "flip_columns": rendering.flip_columns,
        "rotation": rendering.rotation,
        "tone": rendering.tone,
        "layers": [(layer.tiles, layer.colour, layer.limits) for layer in layers],
    }


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
        "palette_first": source.palette_first,
    }


def _refusal(status: Status, message: str) -> ArchiveError:
    return CannotTranscode(message) if status is Status.UNSUPPORTED else CannotDecode(message)
