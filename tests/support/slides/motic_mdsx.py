# SPDX-License-Identifier: Apache-2.0
"""Motic MDSX: the BKIO container, its XML as base64 over UTF-16LE."""

import base64
import struct
from pathlib import Path

from tests.support.slides.motic import MoticSlide

HEADER, ROOTS, LAYER, ENTRY = 84, 5, 16, 14


def write_motic_mdsx(
    folder: Path, slide: MoticSlide | None = None, *, encoded: bool = True, name: str = "motic.mdsx"
) -> Path:
    """``encoded`` False writes the XML as it is instead of as base64."""
    slide = slide or MoticSlide()
    layers = slide.cells()
    table = HEADER + 16 * ROOTS + LAYER * len(layers)
    head = bytearray(b"BKIO".ljust(HEADER, b"\0"))
    for number in range(ROOTS):
        head += struct.pack("<IIII", 64 + number, 0, 0 if number else table, 0)
    head += bytes(LAYER * len(layers)) + bytes(ENTRY * 5)
    body = bytearray()

    def put(data: bytes) -> tuple[int, int]:
        start = len(head) + len(body)
        body.extend(data)
        return start, len(data)

    parts = (
        b"",
        _text(slide.property_xml(), encoded),
        slide.macro(),
        slide.label(),
        _text(slide.image_xml(), encoded),
    )
    for number, data in enumerate(parts):
        struct.pack_into("<HIII", head, table + ENTRY * number, number, 0, *put(data))
    for layer, cells in enumerate(layers):
        down, across = slide.grid(layer)
        records = struct.pack("<I", down * across)
        for index in range(down * across):
            data = cells.get((index // across, index % across), b"")
            records += struct.pack("<HII", index & 0xFFFF, *(put(data) if data else (0, 0)))
        struct.pack_into("<IIII", head, HEADER + 16 * ROOTS + LAYER * layer, 6900 + layer, 0, *put(records))
    path = folder / name
    path.write_bytes(bytes(head + body))
    return path


def _text(xml: str, encoded: bool) -> bytes:
    data = (xml + "\r\n").encode("utf-16-le") + bytes(4)
    return base64.b64encode(data) if encoded else data
