# SPDX-License-Identifier: Apache-2.0
"""One JPEG of a slide, as large as it may be: its size, its restart intervals, and any
region of it decoded from the intervals that the region needs."""

import os
from collections import OrderedDict
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from converters.codecs import CodecError, decode
from converters.errors import DamagedSlide, UnsupportedPixels
from converters.readers.restart_intervals import (
    EOI,
    MAX_INTERVALS,
    Intervals,
    JpegHead,
    locate,
    read_head,
    search,
)

MAX_JPEG_EDGE = 65535
MAX_DECODED_EDGE = 65500  # libjpeg's own limit
MAX_DECODED_BYTES = 1 << 30
CACHE_BYTES = 64 << 20
JPEG_UID = "1.2.840.10008.1.2.4.50"


@dataclass(frozen=True, eq=False)
class JpegImage:
    """The JPEG at ``start`` to ``stop`` of file number ``source``, open as ``descriptor``.
    ``intervals`` is None where no restart markers divide it. ``container_rgb`` as in
    :class:`~converters.slide.Level`."""

    descriptor: int
    source: int
    start: int
    stop: int
    head: JpegHead
    rows: int
    columns: int
    intervals: Intervals | None
    container_rgb: bool | None = None

    @property
    def first(self) -> int:
        """Offset of the entropy-coded data."""
        return self.start + self.head.size_bytes

    @cached_property
    def end(self) -> int:
        """Where the data of a JPEG of one scan ends, before its end marker."""
        return search(self.descriptor, self.first, self.stop, MAX_INTERVALS)[1]

    @property
    def mcus_down(self) -> int:
        return -(-self.rows // self.head.mcu_shape[0])

    @property
    def mcus_across(self) -> int:
        return -(-self.columns // self.head.mcu_shape[1])

    @property
    def strip(self) -> tuple[int, int] | None:
        """(rows, columns) of a restart interval in pixels; None where intervals are no
        rectangles, or not all of one size."""
        rows, columns = self.head.mcu_shape
        interval, across = self.head.stream.restart_interval, self.mcus_across
        if not interval:
            return None
        if across % interval == 0:
            return rows, interval * columns
        whole_rows, rest = divmod(interval, across)
        return (
            (whole_rows * rows, across * columns) if not rest and self.mcus_down % whole_rows == 0 else None
        )


def open_image(
    descriptor: int,
    source: int,
    start: int,
    stop: int,
    *,
    what: str,
    size: tuple[int, int] | None = None,
    stated: NDArray[np.uint64] | None = None,
    container_rgb: bool | None = None,
) -> JpegImage:
    """The JPEG with its intervals. ``size`` (rows, columns) is what the container says: it
    counts where JPEG cannot hold it. ``stated``: where intervals begin, as offsets in the
    file. Raises DamagedSlide and UnsupportedPixels, ``what`` naming the JPEG."""
    head = read_head(descriptor, start, stop, what)
    rows, columns = head.stream.rows, head.stream.columns
    if size is not None and (max(size) > MAX_JPEG_EDGE or not rows or not columns):
        rows, columns = size
    if not (0 < rows < 2**31 and 0 < columns < 2**31):
        raise DamagedSlide(f"{what} has an impossible size")
    image = JpegImage(descriptor, source, start, stop, head, rows, columns, None, container_rgb)
    units, interval = image.mcus_down * image.mcus_across, head.stream.restart_interval
    if not head.is_sequential or not 0 < interval < units:
        return image
    if size is not None and size != (rows, columns):
        raise DamagedSlide(f"{what} is not as large as the directory says")
    intervals = locate(descriptor, image.first, stop, -(-units // interval), stated, what)
    return JpegImage(descriptor, source, start, stop, head, rows, columns, intervals, container_rgb)


class JpegRegions:
    """Decodes regions of a JPEG; keeps what it decoded last. For one thread at a time."""

    def __init__(self, image: JpegImage) -> None:
        """Raises UnsupportedPixels for a JPEG that must be decoded whole, and is too large."""
        self.image = image
        self.whole: NDArray[np.uint8] | None = None
        self.decoded: OrderedDict[int, NDArray[np.uint8]] = OrderedDict()
        self.samples = image.head.components
        size = image.rows * image.columns * self.samples
        if image.intervals is None and (
            size > MAX_DECODED_BYTES or max(image.rows, image.columns) > MAX_DECODED_EDGE
        ):
            raise UnsupportedPixels("a JPEG without restart markers is too large to be decoded")

    def region(self, top: int, left: int, rows: int, columns: int) -> NDArray[np.uint8]:
        """(rows, columns, samples), RGB or grey. It may reach to the last whole unit of a
        JPEG with restart intervals, not beyond. Raises DamagedSlide."""
        image = self.image
        if image.intervals is None:
            if self.whole is None:
                data = os.pread(image.descriptor, image.stop - image.start, image.start)
                self.whole = self._decode(data, image.rows, image.columns)
            return self.whole[top : top + rows, left : left + columns]
        height, width = image.head.mcu_shape
        row, column = top // height, left // width
        down, across = -(-(top + rows) // height) - row, -(-(left + columns) // width) - column
        units = np.empty((down, across, height, width, self.samples), np.uint8)
        interval = image.head.stream.restart_interval
        for line in range(down):
            unit = (row + line) * image.mcus_across + column
            last = unit + across
            while unit < last:
                number, skip = divmod(unit, interval)
                part = self._interval(number)[skip : skip + last - unit]
                if not len(part):
                    raise DamagedSlide("a region beyond the image")
                at = unit - (last - across)
                units[line, at : at + len(part)] = part
                unit += len(part)
        pixels = units.transpose(0, 2, 1, 3, 4).reshape(down * height, across * width, self.samples)
        top, left = top - row * height, left - column * width
        return pixels[top : top + rows, left : left + columns]

    def _interval(self, number: int) -> NDArray[np.uint8]:
        """An interval's units as (units, rows, columns, samples)."""
        if number in self.decoded:
            self.decoded.move_to_end(number)
            return self.decoded[number]
        image, intervals = self.image, self.image.intervals
        assert intervals is not None
        height, width = image.head.mcu_shape
        all_units, interval = image.mcus_down * image.mcus_across, image.head.stream.restart_interval
        units = min(interval, all_units - number * interval)
        # units follow each other whatever the image's width: long intervals are decoded folded
        folds = 1
        while units % folds or units // folds * width > MAX_DECODED_EDGE:
            folds += 1
        begin, end = int(intervals.begins[number]), int(intervals.ends[number])
        rows, columns = folds * height, units // folds * width
        head = image.head.resized(rows, columns, restarts=False)
        pixels = self._decode(head + os.pread(image.descriptor, end - begin, begin) + EOI, rows, columns)
        shaped = pixels.reshape(folds, height, units // folds, width, self.samples)
        result = shaped.transpose(0, 2, 1, 3, 4).reshape(units, height, width, self.samples)
        while self.decoded and (len(self.decoded) + 1) * result.nbytes > CACHE_BYTES:
            self.decoded.popitem(last=False)
        self.decoded[number] = result
        return result

    def _decode(self, frame: bytes, rows: int, columns: int) -> NDArray[np.uint8]:
        colours = "RGB" if self.image.container_rgb else "YBR_FULL_422"
        try:
            pixels = decode(frame, JPEG_UID, rows, columns, self.samples, 8, colours)
        except CodecError as error:
            raise DamagedSlide("a JPEG of the slide cannot be decoded") from error
        return np.asarray(pixels, dtype=np.uint8)
