# SPDX-License-Identifier: Apache-2.0
"""A writer of the tags of an Olympus VSI."""

import struct

from tests.support.slides.olympus_stacks import DrawnStack

INLINE, SECOND, EXTENDED = 1 << 30, 1 << 27, 1 << 28
INT, INT64, DOUBLE, TEXT, RECT, DOUBLES, BGR = 5, 7, 10, 8192, 259, 260, 270
Field = tuple[int, int, int | None, bytes]
"""(type, tag, second number, data)."""


def volume(*fields: Field) -> bytes:
    """A header and its fields, each pointing at the next."""
    parts = []
    at = 24
    for number, (kind, tag, second, data) in enumerate(fields):
        extra = b"" if second is None else struct.pack("<i", second)
        kind |= 0 if second is None else SECOND
        length = 16 + len(extra) + len(data)
        following = at + length if number < len(fields) - 1 else 0
        parts.append(struct.pack("<IIII", kind, tag, following, len(data)) + extra + data)
        at += length
    return struct.pack("<HHIqII", 24, 0x5349, 3, 24, len(fields), 0) + b"".join(parts)


def inside(tag: int, *fields: Field, second: int | None = None) -> Field:
    """A field that is a volume."""
    return EXTENDED | 2, tag, second, volume(*fields)


def volumes(tag: int, *parts: bytes, second: int | None = None) -> Field:
    """A field that is several volumes, one after another."""
    return EXTENDED, tag, second, b"".join(parts)


def integer(tag: int, value: int) -> Field:
    return INT, tag, None, struct.pack("<i", value)


def long(tag: int, value: int) -> Field:
    return INT64, tag, None, struct.pack("<q", value)


def double(tag: int, value: float) -> Field:
    return DOUBLE, tag, None, struct.pack("<d", value)


def text(tag: int, value: str) -> Field:
    return TEXT, tag, None, (value + "\0").encode("utf-16-le")


def image(stack: DrawnStack, number: int, page: int | None = None) -> Field:
    """An image stack: its frame, properties and dimensions."""
    rectangle = struct.pack("<4i", 0, 0, stack.columns, stack.rows)
    external = inside(2018, integer(20005, 1), (RECT, 2053, None, rectangle))
    frames = [inside(2002, external) for _ in range(max(1, stack.files))]
    if page is not None:
        frames = [inside(2002, (INT, 2016, page, struct.pack("<i", 0)))]
    spacing = struct.pack("<2d", stack.spacing_um, stack.spacing_um * 1.25)
    devices = [
        inside(1, text(120116, "Camera XC50"), integer(120130, 0), text(120133, "SIS")),
        inside(
            2,
            text(120116, "Slide scanner"),
            text(120132, "VS200"),
            text(120129, "SN-0042"),
            integer(120130, 40500),
            text(120133, "Olympus"),
        ),
    ]
    optics = inside(120114, double(120060, stack.power), double(120061, stack.aperture))
    properties = inside(
        2005,
        text(2030, stack.name),
        integer(2074, stack.kind),
        (DOUBLES, 2019, None, spacing),
        (DOUBLES, 2018, None, struct.pack("<2d", 12000.0, -3400.5)),
        long(2015, 1_773_480_413 + 60 * number),
        inside(2043, inside(3, optics), *devices),
    )
    return inside(2001, *frames, properties, *_dimensions(stack), second=number)


def _dimensions(stack: DrawnStack) -> list[Field]:
    found = []
    for axis, meaning in enumerate(stack.axes):
        described = [inside(2008, integer(2023, {"z": 1, "t": 2, "c": 4}[meaning]))]
        if meaning == "z":
            increment = inside(2013, double(268435458, stack.z_increment_um))
            described = [inside(2008, integer(2023, 1), increment)]
        elif meaning == "c":
            described += [
                inside(
                    2008,
                    text(2419, name),
                    inside(2417, double(268435458, emission)),
                    long(100002, 1000 * (place + 1) * 25),
                    inside(2004, (BGR, 268435458, None, bytes((255, 128, place)))),
                    second=place,
                )
                for place, (name, emission) in enumerate(stack.channels)
            ]
        found.append(volumes(2007, volume(*described), second=axis))
    return found
