# SPDX-License-Identifier: Apache-2.0
"""Tables of iSyntax that say where codeblocks lie. Version 1: places in the header, byte
ranges in the seek table (or both in the header); version 2: clusters, by template."""

import struct
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from tests.support.slides.isyntax_grid import (
    BLOCK,
    ORIGIN,
    PADDING,
    Block,
    Scan,
    place_of,
    places_of,
    template_number,
)
from tests.support.slides.isyntax_header import DataObject, dimension_ranges

DIMENSION_ORDER = (2, 3, 4, 0, 1)  # of coordinates in cluster templates: any will do
LOW, HIGH = 3, 0


def listed(scan: Scan, block: Block, where: Sequence[int] | None) -> bytes:
    """The block's entry in the header table: its place, and (offset, length) if it goes here."""
    row, column = coordinates(block)
    body = (
        tag(0x301D, 0x200E, 20)
        + struct.pack("<5I", column, row, block.colour, block.scale, not block.is_ll)
        + (_range(*where) if where else b"")
        + tag(0x301D, 0x2012, 4)
        + struct.pack("<I", template_number(scan, block))
    )
    return tag(0xFFFE, 0xE000, len(body)) + body


def coordinates(block: Block) -> tuple[int, int]:
    """(y, x) of its first sample."""
    first = (PADDING << block.scale) - 2 + block.is_ll * (1 << block.scale)
    step = 2 * BLOCK << block.scale
    return ORIGIN[0] + first + block.row * step, ORIGIN[1] + first + block.column * step


def header_table(scan: Scan, blocks: Sequence[Block], ranges: NDArray[np.int64] | None) -> bytes:
    """With ``ranges`` (offset, length) only where no seek table has them."""
    where = [None] * len(blocks) if ranges is None else ranges.tolist()
    return b"".join(listed(scan, block, at) for block, at in zip(blocks, where, strict=True))


def _range(offset: int, length: int) -> bytes:
    return struct.pack("<HHIQHHIQ", 0x301D, 0x2010, 8, offset, 0x301D, 0x2011, 8, length)


def tag(group: int, element: int, size: int) -> bytes:
    return struct.pack("<HHI", group, element, size)


def seek_table(scan: Scan, blocks: Sequence[Block], ranges: NDArray[np.int64]) -> bytes:
    places = np.zeros((places_of(scan), 2), np.int64)
    places[[place_of(scan, block) for block in blocks]] = ranges
    body = b"".join(tag(0xFFFE, 0xE000, 32) + _range(*where) for where in places.tolist())
    return tag(0x301D, 0x2015, len(body)) + body


def kinds(chunks: Sequence[Sequence[Block]]) -> list[int]:
    """Scales at which chunks begin: each has a template."""
    return sorted({chunk[0].scale for chunk in chunks})


def cluster_templates(scan: Scan, chunks: Sequence[Sequence[Block]]) -> Iterator[DataObject]:
    for kind in kinds(chunks):
        chunk = next(chunk for chunk in chunks if chunk[0].scale == kind)
        lowest = min(block.scale for block in chunk)
        headers = []
        for block in chunk:
            y, x = (at - start for at, start in zip(coordinates(block), _corner(chunk), strict=True))
            place = (x, y, block.colour, block.scale - lowest, LOW if block.is_ll else HIGH)
            listed_place = " ".join(str(place[dimension]) for dimension in DIMENSION_ORDER)
            headers.append(
                DataObject(
                    "UFSImageBlockHeader",
                    (
                        ("UFS_IMAGE_BLOCK_COORDINATE", listed_place),
                        ("UFS_IMAGE_BLOCK_HEADER_TEMPLATE_ID", str(template_number(scan, block))),
                    ),
                )
            )
        yield DataObject(
            "UFSImageClusterHeaderTemplate",
            (
                dimension_ranges((0, 1, 0), (0, 1, 0), (0, 1, 2), (lowest, 1, kind), (0, 1, 3)),
                ("UFS_IMAGE_BLOCK_HEADERS", headers),
                ("UFS_IMAGE_DIMENSIONS_IN_CLUSTER", " ".join(map(str, DIMENSION_ORDER))),
            ),
        )


def cluster_table(scan: Scan, chunks: Sequence[Sequence[Block]], ranges: NDArray[np.int64]) -> bytes:
    body, first = b"", 0
    for chunk in chunks:
        offsets, lengths = ranges[first : first + len(chunk)].T
        first += len(chunk)
        y, x = _corner(chunk)
        entry = b"".join(
            tag(0x301D, element, len(data)) + data
            for element, data in (
                (0x2018, struct.pack("<3i", x, y, min(block.scale for block in chunk))),
                (0x2019, struct.pack("<I", kinds(chunks).index(chunk[0].scale))),
                (0x201A, struct.pack("<Q", offsets[0])),
                (0x201B, struct.pack("<Q", offsets[-1] + lengths[-1] - offsets[0])),
                (0x201C, (offsets - offsets[0]).astype("<u4").tobytes()),
                (0x201D, lengths.astype("<u4").tobytes()),
            )
        )
        body += tag(0xFFFE, 0xE000, len(entry)) + entry
    return body


def _corner(chunk: Sequence[Block]) -> tuple[int, int]:
    """(y, x) of the corner of a chunk's tiles."""
    step = 2 * BLOCK << chunk[0].scale
    return ORIGIN[0] + chunk[0].row * step, ORIGIN[1] + chunk[0].column * step
