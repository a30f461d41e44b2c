# SPDX-License-Identifier: Apache-2.0
"""How much a file from outside may ask of us before it is refused."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ParseBudget:
    """Limits of one scan. Bulk values and pixel data are never read into memory, so
    they count nowhere but in ``frames``."""

    depth: int = 32
    """Sequences within sequences."""
    elements: int = 3_000_000
    """Data elements, nested ones included: 200,000 sparse frames have about two million."""
    items: int = 1_500_000
    """Sequence items, nested ones included."""
    values: int = 16_384
    """Values of one textual element (PS3.5 6.4); longer than 64 KiB is bulk anyway."""
    frames: int = 4_000_000
    """Frames, or fragments of encapsulated pixel data."""
    header_bytes: int = 128 << 20
    """The data set without bulk, as Explicit VR Little Endian."""
    inflated_bytes: int = 1 << 30
    """What a deflated file may become."""
    inflate_ratio: int = 200
    """Inflated to deflated bytes, counted above the first MiB."""


DEFAULT_BUDGET = ParseBudget()
