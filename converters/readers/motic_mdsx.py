# SPDX-License-Identifier: Apache-2.0
"""Motic MDSX: a container that starts with "BKIO", little-endian, offsets of 32 bits.

At 84 stand five root records of 16 bytes (mark 64 to 68, unknown, offset, mark); the first
points at the table of attachments: entries of 14 bytes (6 unknown, offset u32, length u32)
for the slide's XML, Property, the preview, the label and MoticDigitalSlideImage. From 164 on
there is a record of 16 bytes for each layer (mark 6900 and up, unknown, offset, length) that
points at its tiles: a u32 (their number), then for each tile, row by row, a number (u16), an
offset and a length (u32). Tiles are whole JPEGs; one of length 0 was not scanned.

Sources: openslide pull requests 622 and 624, ASlide (facts); see :mod:`motic_words`.
"""

import struct
from dataclasses import replace
from pathlib import Path

import numpy as np

from converters.errors import DamagedSlide
from converters.probe import Probe
from converters.readers.encoded_tiles import (
    MAX_ASSOCIATED_BYTES,
    associated_picture,
    checked_map,
    read_range,
)
from converters.readers.left_out import unless_damaged
from converters.readers.motic_words import MAX_XML_BYTES, Layer, MoticWords, levels, motic_words
from converters.slide import AssociatedImage, GatherMap, Role, Scene, Slide, SourceFile, TileMap

MAGIC = b"BKIO"
ROOTS, ROOT = 84, struct.Struct("<IIII")
LAYERS, LAYER = 164, struct.Struct("<IIII")
ATTACHMENT = struct.Struct("<6xII")
PROPERTY, PREVIEW, LABEL, IMAGE = 1, 2, 3, 4
"""Places in the table of attachments; 0 is the slide's own XML, which says less."""
TILE = np.dtype([("number", "<u2"), ("offset", "<u4"), ("length", "<u4")])


class MoticMdsxReader:
    """See :class:`converters.registry.Reader`."""

    format = "motic-mdsx"

    @staticmethod
    def why_not(probe: Probe) -> str | None:
        return None if probe.head.startswith(MAGIC) else "does not start with 'BKIO'"

    @staticmethod
    def open(probe: Probe) -> Slide:
        """Raises DamagedSlide, UnsupportedCompression."""
        return _slide(probe)


def _slide(probe: Probe) -> Slide:
    path, size = probe.path, probe.size_bytes
    if size < LAYERS:
        raise DamagedSlide("the file ends within its header")
    _, _, table, _ = ROOT.unpack(probe.head[ROOTS : ROOTS + ROOT.size])
    entries = _part(path, size, table, ATTACHMENT.size * 5, "the table of attachments")
    places = [(offset, length) for offset, length in ATTACHMENT.iter_unpack(entries)]
    words = motic_words(
        _part(path, size, *places[IMAGE], "MoticDigitalSlideImage", MAX_XML_BYTES),
        _part(path, size, *places[PROPERTY], "Property", MAX_XML_BYTES),
    )
    findings: list[str] = []
    maps = {n: _tile_map(path, size, n, layer) for n, layer in enumerate(words.layers)}
    scene = Scene(0, levels(words, maps, path, findings), (words.optical_path(),))
    return Slide(
        format=MoticMdsxReader.format,
        sources=(SourceFile(path, size, probe.modified),),
        scenes=(scene,),
        associated=_associated(path, size, places, words, findings),
        scan=words.scan(),
        findings=tuple(findings),
    )


def _part(path: Path, size: int, offset: int, length: int, what: str, most: int = 1 << 30) -> bytes:
    if offset > size or length > size - offset:
        raise DamagedSlide(f"{what} lies beyond the end of the file")
    if length > most:
        raise DamagedSlide(f"{what} is too long")
    return read_range(path, offset, length)


def _tile_map(path: Path, size: int, number: int, layer: Layer) -> TileMap | GatherMap:
    record = _part(path, size, LAYERS + LAYER.size * number, LAYER.size, f"the record of layer {number}")
    _, _, offset, length = LAYER.unpack(record)
    if length != 4 + TILE.itemsize * layer.cells:
        raise DamagedSlide(f"layer {number} lists another number of tiles than its rows and columns")
    table = _part(path, size, offset, length, f"the tile table of layer {number}")
    tiles = np.frombuffer(table, dtype=TILE, offset=4)
    return checked_map(
        tiles["offset"].astype(np.uint64), tiles["length"].astype(np.uint64), size, f"layer {number}"
    )


def _associated(
    path: Path, size: int, places: list[tuple[int, int]], words: MoticWords, findings: list[str]
) -> tuple[AssociatedImage, ...]:
    images: list[AssociatedImage] = []
    for place, name in ((LABEL, "the label image"), (PREVIEW, "the preview image")):
        offset, length = places[place]
        role = Role.LABEL if place == LABEL else Role.OVERVIEW

        def picture(
            role: Role = role, name: str = name, offset: int = offset, length: int = length
        ) -> AssociatedImage:
            data = _part(path, size, offset, length, name, MAX_ASSOCIATED_BYTES)
            image = associated_picture(role, data)
            return image if role is Role.LABEL else _by_shape(image, words)

        if offset and length:
            images += unless_damaged(role, findings, picture)
    return tuple(images)


def _by_shape(preview: AssociatedImage, words: MoticWords) -> AssociatedImage:
    """A preview of the very shape of the scanned area shows that area (THUMBNAIL), any other
    the glass (OVERVIEW): the format calls both the preview."""
    ratio = (preview.columns * words.rows) / (preview.rows * words.columns)
    return replace(preview, role=Role.THUMBNAIL) if 0.97 < ratio < 1.03 else preview
