# SPDX-License-Identifier: Apache-2.0
"""The tree of tags in an Olympus VSI, from byte 8 on, little-endian.

A volume is a header of 24 bytes (its size, u16 24; magic u16 0x5349; version u32; offset of
its first field from the header, i64; flags u32, the low 28 bits the number of fields; 4
unused), then its fields. A field is type, tag, offset of the next field from the volume's
header (0 after the last) and length, u32 each; with type bit 27 a second number follows, the
index of a dimension or channel. Type bit 30: the length is the value. Bit 28: the data is a
volume (1, 2) or volumes one after another (0). Else the low 24 bits say what the data is.

The nesting, the number of nodes and every offset are bounded: a field must lie after the one
before it, so no file can make this run in circles. A volume within that breaks off is kept as
far as it goes, since real files hold some that no public reader understands; the root says so.

Sources: slideio, drivers/vsi (BSD-3); Bio-Formats' cellSens reader (facts).
"""

import mmap
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from converters.errors import DamagedSlide

START, MAGIC = 8, b"\x18\x00IS"
VOLUME, FIELD = struct.Struct("<HHIqII"), struct.Struct("<IIII")
SECOND, EXTENDED, INLINE = 1 << 27, 1 << 28, 1 << 30
COUNT = (1 << 28) - 1
VOLUMES, VOLUME_KINDS = 0, (1, 2)
MAX_DEPTH, MAX_NODES, MAX_TEXT_BYTES, MAX_VALUES = 40, 200_000, 1 << 20, 64
NUMBERS = {
    1: "b", 2: "B", 3: "h", 4: "H", 5: "i", 6: "I", 7: "q", 8: "Q", 9: "f", 10: "d", 12: "?", 14: "I",
    17: "q", 18: "d", 271: "i", 272: "i", 273: "i",
}  # fmt: skip
INTEGERS = (256, 257, 258, 259, 267, 274, 275, 276, 277, 8195, 8199, 8200, 8470)
DOUBLES = (11, 260, 261, 262, 263, 264, 265, 266, 268, 279, 280)
TEXT, WIDE_TEXT = 13, 8192
RGB, BGR = 269, 270
Value = int | float | str | tuple[int | float, ...] | None

NAMES = {
    11: "document name", 13: "document note", 15: "document author", 16: "document company",
    17: "document creator name", 18: "document creator major version",
    19: "document creator minor version", 24: "document product name", 25: "document product version",
    34: "product name", 35: "product version", 2003: "display limits", 2015: "creation time",
    2018: "origin (micrometres)", 2019: "pixel size (micrometres)", 2020: "frame unit", 2030: "stack name",
    2053: "image boundary", 2055: "slide specimen", 2057: "slide tissue", 2058: "slide preparation",
    2059: "slide staining", 2060: "slide info", 2061: "slide name", 2074: "stack type",
    2419: "channel name", 20005: "has external file", 20035: "is transmission",
    100002: "exposure time (microseconds)", 100003: "camera gain", 100015: "binning x", 100016: "binning y",
    100049: "bit depth", 120060: "objective magnification", 120061: "objective numerical aperture",
    120062: "objective working distance", 120063: "objective name", 120079: "refractive index",
    120116: "device name", 120129: "device id", 120130: "device subtype", 120132: "device model",
    120133: "device manufacturer", 120635: "slide barcode", 120637: "slide number", 120638: "tray number",
}  # fmt: skip
"""Tags worth a word in the properties; the others are left out of them."""


@dataclass(frozen=True, slots=True)
class Node:
    """``second`` is the index of a dimension, channel or image; None where there is none."""

    tag: int
    second: int | None = None
    value: Value = None
    children: list["Node"] = field(default_factory=list)

    def all(self, tag: int) -> list["Node"]:
        return [child for child in self.children if child.tag == tag]

    def walk(self) -> Iterator["Node"]:
        """This node and every one below, as the file orders them."""
        pending = [self]
        while pending:
            node = pending.pop()
            yield node
            pending.extend(reversed(node.children))

    def find(self, tag: int) -> "Node | None":
        """The first child of that tag, or else the first below."""
        own = next((child for child in self.children if child.tag == tag), None)
        below = (node for node in self.walk() if node.tag == tag and node is not self)
        return next(below, None) if own is None else own

    def text(self, tag: int) -> str:
        node = self.find(tag)
        return node.value.strip() if node is not None and isinstance(node.value, str) else ""

    def number(self, tag: int) -> float | None:
        """The first number of that tag below, or the one that its volume holds."""
        node = self.find(tag)
        if node is None:
            return None
        values = (inner.value for inner in node.walk())
        return next((float(value) for value in values if isinstance(value, int | float)), None)

    def numbers(self, tag: int) -> Sequence[float]:
        node = self.find(tag)
        return [float(value) for value in node.value] if node and isinstance(node.value, tuple) else []


LEAST_IN_IMAGES = 100
"""Smaller tags have their meaning outside of images only; within they count devices."""


def starts_like_vsi(head: bytes) -> bool:
    return head[:4] == b"II*\0" and head[START : START + 4] == MAGIC


def read_tree(path: Path) -> Node:
    """The root, whose children are the fields of the first volume; its value is 1 where some
    tags could not be read. Raises DamagedSlide."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        parser = _Parser(data)
        root = Node(-1)
        parser.volume(START, len(data), root, 0)
        return replace(root, value=int(parser.broken))


@dataclass(slots=True)
class _Parser:
    data: mmap.mmap
    nodes: int = 0
    broken: bool = False

    def volume(self, start: int, end: int, parent: Node, depth: int) -> int:
        """Read the volume at ``start`` into ``parent``; where its content ends."""
        if depth > MAX_DEPTH:
            raise DamagedSlide("the tags of the file are nested too deeply")
        if end - start < VOLUME.size:
            return self._broken("the file ends within its tags", depth, start)
        size, magic, _, first, flags, _ = VOLUME.unpack_from(self.data, start)
        if (size, magic) != (VOLUME.size, 0x5349) or not VOLUME.size <= first <= end - start:
            return self._broken("the tags of the file are damaged", depth, start)
        at = furthest = start + first
        for _ in range(flags & COUNT):
            if len(self.data) - at < FIELD.size + 4:
                return self._broken("the file ends within its tags", depth, furthest)
            kind, tag, following, length = FIELD.unpack_from(self.data, at)
            if tag >> 31:
                return int(furthest)  # what ends a volume of vectors: no tag of ours
            self.nodes += 1
            if self.nodes > MAX_NODES:
                raise DamagedSlide(f"the file has more than {MAX_NODES} tags")
            begin = at + FIELD.size
            second = None
            if kind & SECOND:
                (second,) = struct.unpack_from("<i", self.data, begin)
                begin += 4
            stop = begin if kind & INLINE else begin + length
            if stop > len(self.data):
                return self._broken("a tag of the file reaches beyond its end", depth, furthest)
            node, inner = self._node(kind, tag, second, begin, stop, length, depth)
            parent.children.append(node)
            furthest = max(furthest, stop, inner)
            if following == 0:
                return int(furthest)
            if start + following <= at:
                return self._broken("the tags of the file go round in circles", depth, furthest)
            at = start + following
        return int(furthest)

    def _broken(self, why: str, depth: int, end: int) -> int:
        """A volume within may break off; the outermost may not."""
        if depth == 0:
            raise DamagedSlide(why)
        self.broken = True
        return int(end)

    def _node(
        self, kind: int, tag: int, second: int | None, begin: int, stop: int, length: int, depth: int
    ) -> tuple[Node, int]:
        """The field, and where what lies in it ends."""
        if not kind & EXTENDED:
            if kind & INLINE:
                return Node(tag, second, length - (1 << 32) if length >> 31 else length), stop
            return Node(tag, second, _value(kind & 0xFFFFFF, self.data, begin, stop)), stop
        node = Node(tag, second)
        if kind & 0xFFFFFF in VOLUME_KINDS:
            if stop > begin:
                stop = self.volume(begin, len(self.data), node, depth + 1)
        elif kind & 0xFFFFFF == VOLUMES:
            at = self.data.find(MAGIC, begin, stop)
            while at >= 0:  # where one volume ends is not said to the byte
                end = self.volume(at, len(self.data), node, depth + 1)
                at = self.data.find(MAGIC, max(end, at + VOLUME.size), stop)
        return node, stop


def _value(kind: int, data: mmap.mmap, begin: int, stop: int) -> Value:
    length = stop - begin
    if kind in (TEXT, WIDE_TEXT):
        return _text(data[begin : begin + min(length, MAX_TEXT_BYTES)], kind)
    if kind in (RGB, BGR) and length >= 3:
        colour = tuple(data[stop - 3 : stop])  # of a gradient the last: the channel's own colour
        return colour if kind == RGB else colour[::-1]
    letter = NUMBERS.get(kind) or ("i" if kind in INTEGERS else "d" if kind in DOUBLES else "")
    if not letter or length < struct.calcsize(letter):
        return None
    count = min(length // struct.calcsize(letter), MAX_VALUES)
    values = struct.unpack_from(f"<{count}{letter}", data, begin)
    return values if count > 1 or kind not in NUMBERS else values[0]


def _text(data: bytes, kind: int) -> str:
    if kind == WIDE_TEXT or data[1:2] == b"\0":
        return data[: len(data) & ~1].decode("utf-16-le", "replace").split("\0", 1)[0]
    return data.split(b"\0", 1)[0].decode("utf-8", "replace")


def properties(root: Node, most: int = 5000) -> dict[str, str]:
    """Every value that has a name, keyed "image 1.stack name" and so on, in lower case."""
    found: dict[str, str] = {}
    pending: list[tuple[Node, str]] = [(root, "")]
    images = 0
    while pending and len(found) < most:
        node, prefix = pending.pop()
        if node.tag == 2001:
            images += 1
            prefix = f"image {images}."
        elif node.tag == 2008 and node.second is not None:
            prefix = f"{prefix}channel {node.second + 1}."
        name = NAMES.get(node.tag) if node.tag >= LEAST_IN_IMAGES or not prefix else None
        if name and node.value not in (None, ""):
            value = node.value
            text = ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
            key, number = f"{prefix}{name}", 1
            while key in found and number < 100:
                number += 1
                key = f"{prefix}{name} {number}"
            found.setdefault(key, text[:1000])
        pending.extend((child, prefix) for child in reversed(node.children))
    return found
