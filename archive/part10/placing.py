# SPDX-License-Identifier: Apache-2.0
"""Where in a header in normal form an element belongs that it does not have."""

import struct
from collections.abc import Sequence

from archive.part10.errors import Malformed
from archive.part10.normal_form import (
    read_element,
    sequence_end,
    tag_name,
)

_ITEM_DELIMITER = b"\xfe\xff\x0d\xe0"
_SEQUENCE_DELIMITER = b"\xfe\xff\xdd\xe0"

Path = tuple[int, ...]


def insertion_points(header: bytes, start: int, paths: Sequence[Path]) -> list[int]:
    """For each of ``paths`` (tag, item number, tag, ...; ascending), the byte of
    ``header`` before which its element belongs, or at which it stands. The data set
    begins at ``start``. Raises ``Malformed`` for a path whose item does not exist, or a
    header that is not in normal form. One pass for all paths."""
    points: list[int] = []
    try:
        _place(header, start, list(paths), 0, points)
    except (struct.error, IndexError) as problem:
        raise Malformed("the header is not in normal form") from problem
    return points


def _place(data: bytes, pos: int, paths: list[Path], level: int, points: list[int]) -> None:
    """Points of ``paths``, which agree up to ``level``, in the data set at ``pos``."""
    n = 0
    size = len(data)
    while n < len(paths):
        wanted = paths[n][level]
        while pos < size and data[pos : pos + 4] != _ITEM_DELIMITER:
            tag, vr, value, end = read_element(data, pos)
            if tag >= wanted:
                break
            pos = sequence_end(data, value) if vr == b"SQ" else end
        if len(paths[n]) == level + 1:
            points.append(pos)
            n += 1
            continue
        if pos >= size or data[pos : pos + 4] == _ITEM_DELIMITER:
            raise Malformed(f"the header has no {tag_name(wanted)} for a bulk value")
        tag, vr, value, _ = read_element(data, pos)
        if tag != wanted or vr != b"SQ":
            raise Malformed(f"the header has no {tag_name(wanted)} for a bulk value")
        item = 0
        position = value
        while n < len(paths) and len(paths[n]) > level + 1 and paths[n][level] == wanted:
            number = paths[n][level + 1]
            while item < number and data[position : position + 4] != _SEQUENCE_DELIMITER:
                position = item_end(data, position)
                item += 1
            if data[position : position + 4] == _SEQUENCE_DELIMITER or item != number:
                raise Malformed(f"{tag_name(wanted)} has too few items for a bulk value")
            inside = [path for path in paths[n:] if path[level : level + 2] == (wanted, number)]
            _place(data, position + 8, inside, level + 2, points)
            n += len(inside)


def item_end(data: bytes, pos: int) -> int:
    """Where the item ends that begins at ``pos``: after its delimiter."""
    pos += 8
    while data[pos : pos + 4] != _ITEM_DELIMITER:
        _, vr, value, end = read_element(data, pos)
        pos = sequence_end(data, value) if vr == b"SQ" else end
    return pos + 8
