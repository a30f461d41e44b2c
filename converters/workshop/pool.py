# SPDX-License-Identifier: Apache-2.0
"""The parent's side of a workshop: requests spread over children, answers in order."""

import os
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from converters import errors
from converters.errors import ConversionError, DamagedSlide, NotEnoughMemory
from converters.isolation.parent import Child, ChildFailed, ChildKilled
from converters.isolation.wire import Status, pack_request
from converters.registry import claiming, open_slide
from converters.slide import Level, Slide
from converters.workshop.crew import Crew
from converters.workshop.orders import FRAME, HALF, NOTHING, unpack_frames, unpack_image
from converters.workshop.skeleton import unpack
from converters.writer.coding import FrameCoding
from converters.writer.tilework import Half, Quad, batch_quads

WORKER = "converters.workshop.worker"
MOST_PENDING = 3  # requests of each child: those of its lane wait for it


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
        self._crew = Crew(limits.children, "workshop")
        self._local = threading.local()
        self._children: set[Child] = set()

    def start(self) -> None:
        """Have the children load their libraries now, beside what the caller does next."""
        for number in range(self.limits.children):
            self._crew.submit(self._started, number)

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

    def submit(
        self, order: Mapping[str, object], blobs: list[bytes], lane: int | None = None
    ) -> "Future[bytes]":
        """A request; those of a ``lane`` go to the same child where that is no hindrance."""
        return self._crew.submit(partial(self._perform, pack_request(order, blobs)), lane)

    def close(self) -> None:
        """End the children; what waits is given up."""
        self._crew.close()
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

    def _started(self) -> bytes:
        self._child()
        return b""

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
            raise NotEnoughMemory(f"the file's reader {failure} twice") from failure
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
        self.lanes = workshop.limits.children
        status = path.stat()
        self._stamp = [status.st_ino, status.st_size, status.st_mtime_ns]

    def order(self, what: str, **details: object) -> dict[str, object]:
        return {
            "what": what, "path": str(self._path.absolute()), "modified": self._modified,
            "stamp": self._stamp, **details,
        }  # fmt: skip

    def frames(
        self,
        scene: int,
        level: int,
        quads: Iterable[Quad],
        coding: FrameCoding,
        halves: list[Half] | None = None,
        *,
        coarser: bool = False,
    ) -> Iterator[list[bytes]]:
        size = 5 if coarser else 4
        order = self._work("frames", scene, level, coding, halves=halves is not None, coarser=coarser)
        for count, made in self._of_quads(order, quads, size, halves):
            yield from (made[at : at + size] for at in range(0, size * count, size))

    def shrunk(
        self,
        scene: int,
        level: int,
        quads: Iterable[Quad],
        coding: FrameCoding,
        halves: list[Half] | None = None,
    ) -> Iterator[bytes]:
        order = self._work("shrunk", scene, level, coding, halves=halves is not None)
        for _, made in self._of_quads(order, quads, 1, halves):
            yield from made

    def _of_quads(
        self, order: dict[str, object], quads: Iterable[Quad], size: int, halves: list[Half] | None
    ) -> Iterator[tuple[int, list[bytes]]]:
        """(Quads, ``size`` answers for each) of one request after another."""
        most = batch_quads(self._level(int(str(order["scene"])), int(str(order["level"]))))

        def requests() -> Iterator[tuple[Future[bytes], int, int]]:
            for batch in _batches(quads, self._growing(most)):
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
                future = self._workshop.submit({**order, "quads": named}, blobs, batch[0].lane)
                yield future, len(batch), len(batch) * (size if halves is None else size + 1)

        for count, made in self._answers(requests()):
            if halves is not None:
                halves += map(Half, made[size * count :])
            yield count, made[: size * count]

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

    def _answers(
        self, requests: Iterable[tuple[Future[bytes], int, int]]
    ) -> Iterator[tuple[int, list[bytes]]]:
        """What each request gave, in order; some for each child are under way."""
        pending: deque[tuple[Future[bytes], int, int]] = deque()
        try:
            for request in requests:
                pending.append(request)
                if len(pending) > MOST_PENDING * self._workshop.limits.children:
                    future, count, expected = pending.popleft()
                    yield count, unpack_frames(future.result(), expected)
            while pending:
                future, count, expected = pending.popleft()
                yield count, unpack_frames(future.result(), expected)
        finally:
            for future, _, _ in pending:
                future.cancel()
            for future, _, _ in pending:
                with suppress(Exception):  # it was given up, or its own error was told already
                    future.result()


def _batches(quads: Iterable[Quad], sizes: Iterator[int]) -> Iterator[list[Quad]]:
    """Quads that follow each other in a lane, as many at once as ``sizes`` says."""
    batch: list[Quad] = []
    size = next(sizes)
    for quad in quads:
        if batch and (len(batch) >= size or quad.lane != batch[0].lane):
            yield batch
            batch, size = [], next(sizes)
        batch.append(quad)
    if batch:
        yield batch


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
