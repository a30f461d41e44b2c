# SPDX-License-Identifier: Apache-2.0
"""The frames of ND2 as tiles: of raw ones a window of some tiles beside each other is read, and the
last ones are kept, since all channels of it follow; those packed by zlib ("lossless") are
unpacked whole, and a few are kept. (Mapping a file of many gigabytes into memory
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
WINDOW_COLUMNS = 4096
KEPT_WINDOW_BYTES = 48 * 1024**2


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
        self._windows: OrderedDict[tuple[int, int, int, int, int], NDArray[np.uint8]] = OrderedDict()
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
        if form.packed:
            first, lines = 0, self._unpacked(frame)[top : top + rows]
        else:
            first, lines = self._window(frame, top, rows, left, columns)
        pixel = form.channels * form.samples * np.dtype(form.kind).itemsize
        lines = lines[:, (left - first) * pixel : (left - first + columns) * pixel]
        samples = lines.view(form.kind).reshape(rows, columns, form.channels, form.samples)
        one = samples[:, :, channel]
        if form.samples == 1:
            return one
        colours = np.empty(one.shape, one.dtype)
        for sample in range(form.samples):  # many times as fast as all at once
            colours[..., sample] = one[..., form.samples - 1 - sample]
        return colours

    def _window(
        self, frame: int, top: int, rows: int, left: int, columns: int
    ) -> tuple[int, NDArray[np.uint8]]:
        """(First column, (rows, bytes) from it on) of raw lines that hold these columns."""
        form = self._form
        first = left // WINDOW_COLUMNS * WINDOW_COLUMNS
        width = min(-(-(left + columns) // WINDOW_COLUMNS) * WINDOW_COLUMNS, form.columns) - first
        key = frame, top, rows, first, width
        kept = self._windows.pop(key, None)
        if kept is None:
            kept = self._lines(frame, top, rows, first, width)
        self._windows[key] = kept
        while sum(each.nbytes for each in self._windows.values()) > KEPT_WINDOW_BYTES:
            self._windows.popitem(last=False)
        return first, kept

    def _lines(self, frame: int, top: int, rows: int, first: int, width: int) -> NDArray[np.uint8]:
        form = self._form
        pixel = form.channels * form.samples * np.dtype(form.kind).itemsize
        start = self.places[frame][0] + top * form.row_bytes + first * pixel
        if width == form.columns and form.row_bytes == width * pixel:
            lines = np.empty((1, rows * form.row_bytes), np.uint8)
        else:
            lines = np.empty((rows, width * pixel), np.uint8)
        for number, line in enumerate(lines):
            self._chunks.read_into(line.data, start + number * form.row_bytes, "a frame")
        return lines.reshape(rows, -1)

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
