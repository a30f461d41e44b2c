# SPDX-License-Identifier: Apache-2.0
"""Bulk values: what is kept out of the header, and the paths that name them."""

from collections.abc import Sequence
from typing import NamedTuple

BULK_ABOVE = 64 << 10
"""Bytes; a longer value is bulk."""

PIXEL_DATA = 0x7FE00010
PIXEL_TAGS = frozenset((0x7FE00008, 0x7FE00009, PIXEL_DATA))
"""Float, Double Float and Pixel Data (PS3.3 C.7.6.24, C.7.6.25, C.7.6.3): always bulk."""

_PIXEL_PATHS = frozenset(f"{tag:08X}" for tag in PIXEL_TAGS)


class BulkValue(NamedTuple):
    """A value that is not in the header.

    ``path``: tags in hexadecimal and item numbers from 0, ``00480105/0/00282000``.
    ``offset`` and ``length`` (bytes): the value field in its blob. ``encapsulated``
    values are fragments (PS3.5 A.4): offset is that of the first item's tag, and the
    length has the sequence delimitation item in it.
    """

    path: str
    vr: str
    offset: int
    length: int
    encapsulated: bool = False

    @property
    def tag(self) -> int:
        return int(self.path[-8:], 16)

    @property
    def is_pixel_data(self) -> bool:
        """Of the data set itself, not of an item (an icon's)."""
        return self.path in _PIXEL_PATHS


def join_path(parts: Sequence[int]) -> str:
    """Tag, item number, tag, ... as a path."""
    return "/".join(str(part) if n % 2 else f"{part:08X}" for n, part in enumerate(parts))


def split_path(path: str) -> tuple[int, ...]:
    """A path as tag, item number, tag, ...; raises ``ValueError``."""
    parts = path.split("/")
    if len(parts) % 2 == 0 or any(len(part) != 8 for part in parts[::2]):
        raise ValueError("not a path of tags and item numbers")
    return tuple(int(part, 10 if n % 2 else 16) for n, part in enumerate(parts))
