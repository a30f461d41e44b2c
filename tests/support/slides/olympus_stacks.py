# SPDX-License-Identifier: Apache-2.0
"""Image stacks as an Olympus scanner would take them, and their .ets files."""

import struct
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tests.support.make_slide import picture
from tests.support.slides.tiles import cut, halved, jpeg

CODES = {"raw": 0, "bgr": 0, "jpeg": 2, "j2k": 3, "jp2": 3, "png": 8, "bmp": 9}
DAPI, FITC, CY5 = ("DAPI", 455.0), ("FITC", 518.0), ("Cy5", 670.0)


@dataclass(frozen=True)
class DrawnStack:
    """``axes`` are the dimensions after columns and rows, in the file's order: "c", "z" and
    "t". ``channels`` are (name, emission in nm); without them the stack is in colour.
    ``missing`` are (level, row, column); ``files`` > 1 writes a file for each time point."""

    name: str = "20x_01"
    kind: int = 0
    rows: int = 900
    columns: int = 1100
    tile: int = 256
    levels: int = 3
    coding: str = "jpeg"
    channels: Sequence[tuple[str, float]] = ()
    planes: int = 1
    times: int = 1
    files: int = 1
    bits: int = 8
    axes: str = ""
    missing: Collection[tuple[int, int, int]] = ()
    spacing_um: float = 0.274
    z_increment_um: float = 1.5
    power: float = 20.0
    aperture: float = 0.8
    background: bytes = b"\xf0\xf1\xf2"
    seed: int = 7

    def pixels(self, channel: int = 0, plane: int = 0, time: int = 0) -> NDArray[np.uint8 | np.uint16]:
        """(rows, columns, 3) in colour, else (rows, columns) of 8 or 16 bits."""
        drawn = picture(self.rows, self.columns, self.seed + 10 * channel + plane + 100 * time)
        if not self.channels:
            return drawn
        grey = drawn[..., channel % 3]
        return grey if self.bits == 8 else grey.astype(np.uint16) * 200 + np.uint16(7 * channel + plane)

    def level(self, number: int, channel: int = 0, plane: int = 0, time: int = 0) -> NDArray[np.generic]:
        return halved(self.pixels(channel, plane, time), number)


def encode(pixels: NDArray[np.generic], coding: str) -> bytes:
    if coding == "jpeg":
        return jpeg(pixels.astype(np.uint8))
    if coding in ("j2k", "jp2"):
        return bytes(imagecodecs.jpeg2k_encode(pixels, codecformat=coding, level=0, reversible=True))
    if coding == "bgr":
        return np.ascontiguousarray(pixels[..., ::-1]).tobytes()
    if coding == "raw":
        return pixels.tobytes()
    stream = BytesIO()
    Image.fromarray(pixels).save(stream, coding.upper())
    return stream.getvalue()


def chunks(stack: DrawnStack, file: int = 0) -> dict[tuple[int, ...], bytes]:
    """Encoded tiles by coordinates: column, row, ``axes``, level."""
    found = {}
    extents = {"c": max(1, len(stack.channels)), "z": stack.planes, "t": stack.times}
    for place in np.ndindex(*(extents[axis] for axis in stack.axes)):
        at = dict(zip(stack.axes, (int(value) for value in place), strict=True))
        for level in range(stack.levels):
            time = at.get("t", 0) + file
            pixels = stack.level(level, at.get("c", 0), at.get("z", 0), time)
            for row, column, tile in cut(pixels, stack.tile):
                if (level, row, column) not in stack.missing:
                    found[(column, row, *map(int, place), level)] = encode(tile, stack.coding)
    return found


def write_ets(path: Path, stack: DrawnStack, file: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    tiles = chunks(stack, file)
    dimensions = 3 + len(stack.axes)
    components = 1 if stack.channels else 3
    kind = 2 if stack.bits == 8 else 4
    second = struct.pack("<4sI", b"ETS\0", 0x30003)
    second += struct.pack("<8i", kind, components, 4, CODES[stack.coding], 85, stack.tile, stack.tile, 1)
    second += bytes(68) + stack.background.ljust(40, b"\0")
    second += struct.pack("<ii", int(stack.coding == "bgr"), 1) + bytes(72)
    body = bytearray(64) + second
    table = b""
    for at, data in tiles.items():
        table += struct.pack(f"<i{dimensions}iqII", 0, *at, len(body), len(data), 0)
        body += data
    body[:64] = struct.pack(
        "<4sIIIQIIQIIQII", b"SIS\0", 64, 2, dimensions, 64, len(second), 0, len(body), len(tiles), 0, 0, 0, 0
    )
    path.write_bytes(bytes(body) + table)
    return path
