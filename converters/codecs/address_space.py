# SPDX-License-Identifier: Apache-2.0
"""Whether a codec library failed for want of memory: OpenJPEG and libjxl report that as they
report damage. In a process with a limit the answer is to try to have as much.
"""

import mmap

DECODER_BYTES_PER_SAMPLE = 8
"""OpenJPEG holds 32-bit samples of the tile and of the picture at once."""


def is_there(size_bytes: int) -> bool:
    """Whether this process may have so many more bytes now. Nothing is written to them."""
    if size_bytes < 1:
        return True
    try:
        mmap.mmap(-1, size_bytes).close()
    except (OSError, ValueError, OverflowError, MemoryError):
        return False
    return True
