# SPDX-License-Identifier: Apache-2.0
"""Codeblocks of iSyntax version 2 (data model 100 and up): listed in clusters.

A cluster's entry gives its place, its template, where its data begin, and offset and
length of each block there. The template tells each block's place within the cluster:
for each dimension, a start and the block's own coordinate, which come in an order of
their own. Wavelet coefficient 3 is the low band here.
"""

import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import Element

import numpy as np
from numpy.typing import NDArray

from converters.errors import DamagedSlide
from converters.readers.isyntax_header import objects, ranges, texts

MAX_CLUSTERS = 1_000_000
MAX_BLOCKS_IN_CLUSTER = 1024
DIMENSIONS = 5  # x, y, colour, scale, coefficient
LOW = 3
_ITEM = (0xFFFE, 0xE000)
_WHOLE = re.compile(r"-?\d{1,10}")


@dataclass(frozen=True, eq=False)
class Listed:
    """Blocks: coordinates (x, y, colour, scale, coefficient: 0 low, 1 high), byte ranges."""

    places: NDArray[np.int64]
    offsets: NDArray[np.uint64]
    lengths: NDArray[np.uint64]


def listed_in_clusters(wsi: Element, table: bytes) -> Listed:
    """Raises DamagedSlide."""
    templates = [_template(one) for one in objects(wsi, "UFS_IMAGE_CLUSTER_HEADER_TEMPLATES")]
    size = int.from_bytes(table[:4], "little")
    if not 0 < size <= len(table) - 4:
        raise _damaged()
    places, offsets, lengths = [], [], []
    for number, (tag, body) in enumerate(_elements(table[4 : 4 + size])):
        if tag != _ITEM or number == MAX_CLUSTERS:
            raise _damaged()
        elements = [data for _, data in _elements(body)]
        if [len(data) for data in elements[1:4]] != [4, 8, 8] or len(elements) < 6 or len(elements[0]) < 8:
            raise _damaged()
        where, kind, start, _, begins, sizes = elements[:6]
        template = int.from_bytes(kind, "little")
        if template >= len(templates) or not len(begins) == len(sizes) == 4 * len(templates[template]):
            raise _damaged()
        place = templates[template].copy()
        place[:, :2] += struct.unpack_from("<2i", where)
        places.append(place)
        offsets.append(int.from_bytes(start, "little") + np.frombuffer(begins, "<u4").astype(np.uint64))
        lengths.append(np.frombuffer(sizes, "<u4").astype(np.uint64))
    joined = np.concatenate(places)
    joined[:, 4] = joined[:, 4] != LOW
    return Listed(joined, np.concatenate(offsets), np.concatenate(lengths))


def _template(template: Element) -> NDArray[np.int64]:
    """Places of its blocks within a cluster: (blocks, dimensions)."""
    starts = [start for start, _, _ in ranges(template)]
    order = _numbers(texts(template).get("UFS_IMAGE_DIMENSIONS_IN_CLUSTER", ""))
    if len(starts) != DIMENSIONS or len(set(order)) != len(order) or not set(order) <= set(range(DIMENSIONS)):
        raise _damaged()
    places = []
    for number, block in enumerate(objects(template, "UFS_IMAGE_BLOCK_HEADERS")):
        coordinates = _numbers(texts(block).get("UFS_IMAGE_BLOCK_COORDINATE", ""))
        if len(coordinates) != len(order) or number == MAX_BLOCKS_IN_CLUSTER:
            raise _damaged()
        place = list(starts)
        for dimension, coordinate in zip(order, coordinates, strict=True):
            place[dimension] += coordinate
        places.append(place)
    return np.array(places, np.int64).reshape(-1, DIMENSIONS)


def _numbers(text: str) -> Sequence[int]:
    return [int(number) for number in _WHOLE.findall(text)]


def _elements(data: bytes) -> Iterator[tuple[tuple[int, int], bytes]]:
    """Tag and value of each element: group and element (u16 each), length (u32)."""
    at = 0
    while at < len(data):
        if len(data) - at < 8:
            raise _damaged()
        group, element, length = struct.unpack_from("<HHI", data, at)
        at += 8
        if length > len(data) - at:
            raise _damaged()
        yield (group, element), data[at : at + length]
        at += length


def _damaged() -> DamagedSlide:
    return DamagedSlide("the table of clusters is damaged")
