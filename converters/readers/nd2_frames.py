# SPDX-License-Identifier: Apache-2.0
"""The frames of ND2 as tiles: of raw ones only what a tile needs is read; those packed by zlib
("lossless") are unpacked whole, and a few are kept. (Mapping a file of many gigabytes into memory
would break the limits of the child process that reads it.)

Colours are stored B, G, R, as Nikon's own software shows them.
"""

import zlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from converters.errors import DamagedSlide
from converters.readers.nd2_chunks import Chunks
from converters.slide import Pixels, RealWorldMapping

STAMP_BYTES = 8  # before the pixels of a frame
BAND_ROWS = 512
KEPT_BYTES = 256 * 1024**2


@dataclass(frozen=True)
class FrameForm:
    """How all frames of a file are laid out. ``samples``: 3 for colour, else 1."""

    rows: int
    columns: int
    row_bytes: int
    channels: int
    samples: int
    kind: str  # "u1", "<u2" or "<f4"
    bits: int  # in use: what colours of 16 are reduced by
    packed: bool

    @property
    def size_bytes(self) -> int:
        return self.rows * self.row_bytes

    @property
    def stored_kind(self) -> str:
        """Of the samples that tiles are given in."""
        return "u1" if self.kind == "u1" or self.samples == 3 else "u2"


class Frames:
    """The frames of a file. Raises DamagedSlide where one does not lie within it."""

    def __init__(self, chunks: Chunks, form: FrameForm) -> None:
        self._chunks = chunks
        self._form = form
        self._kept: OrderedDict[int, NDArray[np.uint8]] = OrderedDict()
        self.places: dict[int, tuple[int, int]] = {}
        for number, name in chunks.frames.items():
            start, length = chunks.place(name, "a frame")
            if length < STAMP_BYTES + (1 if form.packed else form.size_bytes):
                raise DamagedSlide("a frame is not as large as the file says")
            self.places[number] = start + STAMP_BYTES, length - STAMP_BYTES

    def region(
        self, frame: int, channel: int, top: int, left: int, rows: int, columns: int
    ) -> NDArray[np.generic]:
        """(rows, columns, samples) of a channel, RGB or grey, cut at the frame's edges."""
        form = self._form
        rows, columns = min(rows, form.rows - top), min(columns, form.columns - left)
        pixel = form.channels * form.samples * np.dtype(form.kind).itemsize
        part = self._bytes(frame, top, rows, left * pixel, columns * pixel)
        samples = part.view(form.kind).reshape(part.shape[0], -1, form.channels, form.samples)
        one = samples[:, :, channel]
        return one[..., ::-1] if form.samples == 3 else one

    def _bytes(self, frame: int, top: int, rows: int, first: int, count: int) -> NDArray[np.uint8]:
        """(rows, count): bytes ``first`` and on of each row from ``top``."""
        if self._form.packed:
            return np.ascontiguousarray(self._unpacked(frame)[top : top + rows, first : first + count])
        start, _ = self.places[frame]
        row_bytes = self._form.row_bytes
        if count == row_bytes:
            data = self._chunks.read(start + top * row_bytes, rows * row_bytes, "a frame")
        else:
            begins = range(start + top * row_bytes + first, start + (top + rows) * row_bytes, row_bytes)
            data = b"".join(self._chunks.read(begin, count, "a frame") for begin in begins)
        return np.frombuffer(data, np.uint8).reshape(rows, count)

    def _unpacked(self, frame: int) -> NDArray[np.uint8]:
        kept = self._kept.get(frame)
        if kept is not None:
            self._kept.move_to_end(frame)
            return kept
        start, length = self.places[frame]
        data = self._chunks.read(start, length, "a frame")
        try:
            flat = zlib.decompressobj().decompress(data, self._form.size_bytes)
        except zlib.error as error:
            raise DamagedSlide("a frame cannot be decoded") from error
        if len(flat) != self._form.size_bytes:
            raise DamagedSlide("a frame is not as large as the file says")
        lines = np.frombuffer(flat, np.uint8).reshape(self._form.rows, self._form.row_bytes)
        self._kept[frame] = lines
        while len(self._kept) > max(1, KEPT_BYTES // self._form.size_bytes):
            self._kept.popitem(last=False)
        return lines

    def mappings(self) -> list[RealWorldMapping | None]:
        """For each channel of floats, what 0 to 65535 stand for; None for those of integers.
        Reads all of them."""
        form = self._form
        if form.kind != "<f4":
            return [None] * form.channels
        found: list[RealWorldMapping | None] = []
        for channel in range(form.channels):
            low, high = np.inf, -np.inf
            for frame in self.places:
                for top in range(0, form.rows, BAND_ROWS):
                    values = self.region(frame, channel, top, 0, BAND_ROWS, form.columns)
                    finite = values[np.isfinite(values)]
                    if finite.size:
                        low, high = min(low, float(finite.min())), max(high, float(finite.max()))
            if low > high:
                low = high = 0.0
            slope = (high - low) / 65535 or 1.0
            found.append(RealWorldMapping(slope, low, "32-bit floats mapped linearly to 16 bits"))
        return found


def converter(form: FrameForm, mapping: RealWorldMapping | None) -> Callable[[NDArray[np.generic]], Pixels]:
    """What makes stored samples of a channel's own."""

    def of(samples: NDArray[np.generic]) -> Pixels:
        if mapping is not None:
            stored = np.rint((samples.astype(np.float64) - mapping.intercept) / mapping.slope)
            mapped: Pixels = np.clip(np.nan_to_num(stored), 0, 65535).astype(np.uint16)
            return mapped
        if form.kind == "u1":
            return samples.astype(np.uint8, copy=False)
        if form.samples == 3:
            reduced: Pixels = np.minimum(samples.astype(np.uint16) >> (form.bits - 8), 255).astype(np.uint8)
            return reduced
        return samples.astype(np.uint16, copy=False)

    return of
