# SPDX-License-Identifier: Apache-2.0
"""LZW as TIFF has it (TIFF 6.0 Section 13), in Python: labels are small, and the C
decoder at hand ended the whole process on a damaged one."""

import numpy as np
from numpy.typing import NDArray

from converters.errors import DamagedSlide

CLEAR, END = 256, 257
LITERALS = [bytes([value]) for value in range(256)] + [b"", b""]


def lzw_decode(data: bytes, length: int) -> bytes:
    """Exactly ``length`` bytes. Raises DamagedSlide for fewer or impossible codes.

    Codes come most significant bit first, 9 bits wide, and grow one code early.
    """
    table = LITERALS.copy()
    out: list[bytes] = []
    total = bits = count = 0
    width = 9
    before = b""
    for byte in data:
        bits = bits << 8 | byte
        count += 8
        if count < width:
            continue
        count -= width
        code = bits >> count
        bits &= (1 << count) - 1
        if code == CLEAR:
            table, width, before = LITERALS.copy(), 9, b""
            continue
        if code == END:
            break
        if not before:
            if code > END:
                raise DamagedSlide("LZW data begin with an impossible code")
            entry = table[code]
        else:
            if code > len(table) or len(table) == 4096:
                raise DamagedSlide("LZW data hold an impossible code")
            entry = table[code] if code < len(table) else before + before[:1]
            table.append(before + entry[:1])
            if len(table) == (1 << width) - 1 and width < 12:
                width += 1
        out.append(entry)
        before = entry
        total += len(entry)
        if total >= length:
            return b"".join(out)[:length]
    raise DamagedSlide("LZW data end early")


def undo_predictor(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Horizontal differencing (Section 14) of (rows, columns, samples), summed up again."""
    summed: NDArray[np.uint8] = np.add.accumulate(pixels, axis=1, dtype=np.uint8)
    return summed
