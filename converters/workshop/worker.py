# SPDX-License-Identifier: Apache-2.0
"""The process that works on slides: ``python -m converters.workshop.worker FD MEMORY SECONDS PARENT``.

It opens the slide that a request names, keeps it for the next, and answers with frames
or pixels. See ``converters.isolation.child`` for how it limits itself.
"""

import os
import sys
from itertools import chain
from pathlib import Path
from typing import Any

# before numpy: its libraries start a thread for each core otherwise
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from converters.codecs.errors import as_refusal
from converters.errors import ConversionError, NotEnoughMemory
from converters.isolation.child import run
from converters.isolation.wire import Status
from converters.registry import open_slide
from converters.slide import Slide
from converters.workshop.orders import FRAME, HALF, NOTHING, pack_frames, pack_image
from converters.workshop.skeleton import pack
from converters.writer.coding import FrameCoding
from converters.writer.tilework import Half, Quad, TileWork


class _Open:
    """The slide that the last request named."""

    def __init__(self) -> None:
        self._key: tuple[object, ...] = ()
        self._slide: Slide | None = None
        self._work: TileWork | None = None

    def get(self, order: dict[str, Any]) -> tuple[Slide, TileWork]:
        key = (order["path"], order["modified"], order["stamp"])
        if self._slide is None or self._work is None or key != self._key:
            self.close()
            self._slide = open_slide(Path(order["path"]), modified=order["modified"])
            self._work = TileWork(self._slide)
            self._key = key
        return self._slide, self._work

    def close(self) -> None:
        if self._work is not None:
            self._work.close()
        if self._slide is not None:
            self._slide.close()
        self._slide = self._work = None


_OPEN = _Open()


def perform(order: dict[str, Any], blobs: list[bytes]) -> bytes:
    """Carry out one request."""
    slide, work = _OPEN.get(order)
    match order["what"]:
        case "open":
            return pack(slide)
        case "image":
            return pack_image(work.image(order["number"]))
        case "encoded image":
            return work.encoded_image(order["number"], order["transfer_syntax_uid"])
        case "barcodes":
            return work.barcodes(order["number"]).encode()
        case "image agrees":
            form = order["transfer_syntax_uid"], order["photometric"]
            return bytes([work.image_agrees(order["number"], blobs[0], *form)])
        case "blank like":
            return work.blank_like(order["scene"], order["level"], order["index"])
        case "agrees":
            place = order["scene"], order["level"], order["index"]
            return bytes([work.agrees(*place, blobs[0], order["coding"][0], order["photometric"])])
    coding = FrameCoding(*order["coding"])
    scene, level = order["scene"], order["level"]
    match order["what"]:
        case "frames":
            halves: list[Half] | None = [] if order["halves"] else None
            quads = _quads(order["quads"], blobs)
            made = work.frames(scene, level, quads, coding, halves, coarser=order["coarser"])
            return pack_frames([*chain.from_iterable(made), *(halves or ())])
        case "shrunk":
            halves = [] if order["halves"] else None
            shrunk = list(work.shrunk(scene, level, _quads(order["quads"], blobs), coding, halves))
            return pack_frames([*shrunk, *(halves or ())])
        case "blank":
            return work.blank(scene, level, coding)
    raise ValueError("no such request")


def _quads(orders: list[list[Any]], blobs: list[bytes]) -> list[Quad]:
    waiting = iter(blobs)

    def tile(number: int) -> int | bytes | None:
        if number == NOTHING:
            return None
        if number == HALF:
            return Half(next(waiting))
        return next(waiting) if number == FRAME else number

    return [Quad(tuple(map(tile, tiles)), rows, columns) for tiles, rows, columns in orders]


def answer(order: dict[str, Any], blobs: list[bytes]) -> tuple[Status, bytes]:
    """The reply to one request; whatever goes wrong is a status."""
    try:
        return Status.DONE, perform(order, blobs)
    except ConversionError as error:
        refusal = as_refusal(error, "the slide's pixels cannot be read or written")
        if isinstance(refusal, NotEnoughMemory):
            return Status.TOO_LARGE, str(refusal).encode("utf-8", "replace")
        return Status.REFUSED, f"{type(refusal).__name__}\n{refusal}".encode("utf-8", "replace")
    except MemoryError:
        return Status.TOO_LARGE, str(NotEnoughMemory("the slide cannot be read")).encode()
    except Exception as error:  # noqa: BLE001  the parent decides; a worker has no log
        return Status.DAMAGED, f"the file's reader failed ({type(error).__name__})".encode()


if __name__ == "__main__":
    run(sys.argv[1:], answer, _OPEN.close)  # a deleted file takes its space until it is closed
