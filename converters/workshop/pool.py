# SPDX-License-Identifier: Apache-2.0
"""The parent's side of a workshop: requests spread over children, answers in order."""

import os
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from converters import errors
from converters.errors import ConversionError, DamagedSlide
from converters.isolation.parent import Child, ChildFailed, ChildKilled
from converters.isolation.wire import Status, pack_request
from converters.registry import claiming, open_slide
from converters.slide import Level, Slide
from converters.workshop.orders import FRAME, HALF, NOTHING, unpack_frames, unpack_image
from converters.workshop.skeleton import unpack
from converters.writer.coding import FrameCoding
from converters.writer.tilework import Half, Quad

WORKER = "converters.workshop.worker"
BATCH_PIXELS = 1 << 21  # pixels of one request: enough to make its price small
MAX_BATCH = 64


@dataclass(frozen=True, slots=True)
class Limits:
    """``processes`` children at most (0: one for each core), each with ``memory_bytes``
    beyond what its libraries occupy and ``timeout_s`` for a request."""

    processes: int = 0
    memory_bytes: int = 2 << 30
    timeout_s: float = 120.0

    @property
    def children(self) -> int:
        return self.processes or max(1, min(8, os.cpu_count() or 1))


DEFAULT_LIMITS = Limits()


class Workshop:
    """Children that decode and encode; for any number of slides, one after another or at
    once. Starts them when first needed, or by :meth:`start`. Use as a context manager."""

    def __init__(self, limits: Limits = DEFAULT_LIMITS) -> None:
        self.limits = limits
        self._pool = ThreadPoolExecutor(limits.children, "workshop")
        self._local = threading.local()
        self._children: set[Child] = set()

    def start(self) -> None:
        """Have the children load their libraries now, beside what the caller does next."""
        for _ in range(self.limits.children):
            self._pool.submit(self._child)

    def open(self, path: Path, *, modified: float | None = None) -> "Opened":
        """The slide and the bench for it. Raises what :func:`registry.open_slide` does.
        A reader that needs a C library even to open the file does so in a child."""
        reader = claiming(path, modified=modified)
        bench = SlideBench(self, path, modified)
        if getattr(reader, "isolated", False):
            bench.slide = unpack(self.ask(bench.order("open"), []))
        else:
            bench.slide = open_slide(path, modified=modified)
        return Opened(bench.slide, bench)

    def ask(self, order: Mapping[str, object], blobs: list[bytes]) -> bytes:
        """One request, answered. Raises ConversionError."""
        return self.submit(order, blobs).result()

    def submit(self, order: Mapping[str, object], blobs: list[bytes]) -> "Future[bytes]":
        return self._pool.submit(self._perform, pack_request(order, blobs))

    def close(self) -> None:
        """End the children; what waits is given up."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        for child in list(self._children):
            child.close()
        self._children.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _child(self) -> Child:
        """This thread's child."""
        child: Child | None = getattr(self._local, "child", None)
        if child is None or not child.alive():
            if child is not None:
                self._drop(child)
            child = Child(WORKER, self.limits.memory_bytes, self.limits.timeout_s)
            self._local.child = child
            self._children.add(child)
        return child

    def _drop(self, child: Child) -> None:
        self._local.child = None
        self._children.discard(child)
        child.close()

    def _perform(self, parts: list[bytes], *, again: bool = True) -> bytes:
        try:
            child = self._child()
        except (ChildFailed, OSError) as failure:
            raise ConversionError("the process that reads slides does not start") from failure
        try:
            status, payload = child.ask(parts, self.limits.timeout_s)
        except ChildKilled as failure:
            self._drop(child)
            if again:  # the system may have been short of memory for another's sake
                return self._perform(parts, again=False)
            raise DamagedSlide(f"the file's reader {failure}") from failure
        except ChildFailed as failure:
            self._drop(child)
            raise DamagedSlide(f"the file's reader {failure}") from failure
        if status is Status.DONE:
            return payload
        if status is Status.TOO_LARGE:
            self._drop(child)
        raise _refusal(status, payload.decode("utf-8", "replace"))


def _refusal(status: Status, text: str) -> ConversionError:
    """A child's refusal, of its own class; only classes of ``errors`` are made."""
    name, newline, message = text.partition("\n")
    if status is Status.TOO_LARGE:
        name, newline, message = "NotEnoughMemory", "\n", text.replace("\n", " ")[:500]
    kind = getattr(errors, name, None) if newline and status in (Status.REFUSED, Status.TOO_LARGE) else None
    if not (isinstance(kind, type) and issubclass(kind, ConversionError)):
        return DamagedSlide(text.replace("\n", " ")[:500])
    refusal: ConversionError = kind.__new__(kind)
    Exception.__init__(refusal, message)
    if isinstance(refusal, errors.UnreadableSlide):
        refusal.reason, refusal.refusals = message, {}
    return refusal


class SlideBench:
    """The :class:`~converters.writer.tilework.Bench` of one slide, in a workshop."""

    slide: Slide

    def __init__(self, workshop: Workshop, path: Path, modified: float | None) -> None:
        self._workshop, self._path, self._modified = workshop, path, modified
        status = path.stat()
        self._stamp = [status.st_ino, status.st_size, status.st_mtime_ns]

    def order(self, what: str, **details: object) -> dict[str, object]:
        return {
            "what": what, "path": str(self._path.absolute()), "modified": self._modified,
            "stamp": self._stamp, **details,
        }  # fmt: skip

    def frames(self, scene: int, level: int, indexes: Sequence[int], coding: FrameCoding) -> Iterator[bytes]:
        most = _batch(self._level(scene, level))

        def orders() -> Iterator[tuple[dict[str, object], list[bytes], int]]:
            at = 0
            for size in self._growing(most):
                part = list(indexes[at : at + size])
                if not part:
                    return
                yield self._work("frames", scene, level, coding, indexes=part), [], len(part)
                at += size

        return chain.from_iterable(self._answers(orders()))

    def shrunk(
        self,
        scene: int,
        level: int,
        quads: Iterable[Quad],
        coding: FrameCoding,
        halves: list[Half] | None = None,
    ) -> Iterator[bytes]:
        most = max(1, _batch(self._level(scene, level)) // 4)
        waiting = iter(quads)

        def orders() -> Iterator[tuple[dict[str, object], list[bytes], int]]:
            for size in self._growing(most):
                batch = list(islice(waiting, size))
                if not batch:
                    return
                named, blobs = [], []
                for quad in batch:
                    tiles = []
                    for tile in quad.tiles:
                        if isinstance(tile, bytes):
                            blobs.append(tile)
                            tiles.append(HALF if isinstance(tile, Half) else FRAME)
                        else:
                            tiles.append(NOTHING if tile is None else tile)
                    named.append([tiles, quad.rows, quad.columns])
                order = self._work("shrunk", scene, level, coding, quads=named, halves=halves is not None)
                yield order, blobs, len(batch) if halves is None else 2 * len(batch)

        for made in self._answers(orders()):
            if halves is not None:
                halves += map(Half, made[len(made) // 2 :])
                made = made[: len(made) // 2]
            yield from made

    def image(self, number: int) -> NDArray[np.uint8]:
        image = self.slide.associated[number]
        pixels = unpack_image(self._workshop.ask(self.order("image", number=number), []))
        if pixels.shape[:2] != (image.rows, image.columns):
            raise DamagedSlide(f"the {image.role.value.lower()} image is not as large as it says")
        return pixels

    def encoded_image(self, number: int, transfer_syntax_uid: str) -> bytes:
        return self._of_image("encoded image", number, [], transfer_syntax_uid=transfer_syntax_uid)

    def barcodes(self, number: int) -> str:
        text = self._of_image("barcodes", number, []).decode("utf-8", "replace")
        if not all(line.isprintable() for line in text.split("\r\n")):
            raise DamagedSlide("the file's reader gave no valid answer")
        return text

    def image_agrees(self, number: int, frame: bytes, transfer_syntax_uid: str, photometric: str) -> bool:
        form = {"transfer_syntax_uid": transfer_syntax_uid, "photometric": photometric}
        return self._of_image("image agrees", number, [frame], **form) == b"\1"

    def _of_image(self, what: str, number: int, blobs: list[bytes], **details: object) -> bytes:
        return self._workshop.ask(self.order(what, number=number, **details), blobs)

    def blank_like(self, scene: int, level: int, index: int) -> bytes:
        return self._workshop.ask(self.order("blank like", scene=scene, level=level, index=index), [])

    def blank(self, scene: int, level: int, coding: FrameCoding) -> bytes:
        return self._workshop.ask(self._work("blank", scene, level, coding), [])

    def agrees(
        self, scene: int, level: int, index: int, frame: bytes, transfer_syntax_uid: str, photometric: str
    ) -> bool:
        order = self._work("agrees", scene, level, FrameCoding(transfer_syntax_uid), index=index)
        return self._workshop.ask({**order, "photometric": photometric}, [frame]) == b"\1"

    def _level(self, scene: int, level: int) -> Level:
        return self.slide.scenes[scene].levels[level]

    def _work(
        self, what: str, scene: int, level: int, coding: FrameCoding, **details: object
    ) -> dict[str, object]:
        named = [coding.transfer_syntax_uid, coding.quality]
        return self.order(what, scene=scene, level=level, coding=named, **details)

    def _growing(self, most: int) -> Iterator[int]:
        """Sizes of requests: small at first, so that a small level is everybody's work."""
        size = 1
        while True:
            for _ in range(self._workshop.limits.children):
                yield size
            size = min(2 * size, most)

    def _answers(self, orders: Iterable[tuple[dict[str, object], list[bytes], int]]) -> Iterator[list[bytes]]:
        """What each request gave, in order; two requests for each child are under way."""
        pending: deque[tuple[Future[bytes], int]] = deque()
        try:
            for order, blobs, count in orders:
                pending.append((self._workshop.submit(order, blobs), count))
                if len(pending) > 2 * self._workshop.limits.children:
                    future, expected = pending.popleft()
                    yield unpack_frames(future.result(), expected)
            while pending:
                future, expected = pending.popleft()
                yield unpack_frames(future.result(), expected)
        finally:
            for future, _ in pending:
                future.cancel()
            for future, _ in pending:
                with suppress(Exception):  # it was given up, or its own error was told already
                    future.result()


def _batch(level: Level) -> int:
    return max(1, min(MAX_BATCH, BATCH_PIXELS // (level.tile_rows * level.tile_columns)))


@dataclass(frozen=True, eq=False)
class Opened:
    """A slide and who works on its pixels. Close it, or use it as a context manager; the
    workshop stays."""

    slide: Slide
    bench: SlideBench

    def close(self) -> None:
        self.slide.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
