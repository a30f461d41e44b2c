# SPDX-License-Identifier: Apache-2.0
"""An SVS whose label cannot be decoded; everything else of it is sound."""

from pathlib import Path

import tifffile


def damage_label(path: Path) -> Path:
    """Overwrite the beginning of the first strip of the LZW label of an Aperio slide."""
    with tifffile.TiffFile(path) as tiff:
        (page,) = [page for page in tiff.pages if page.compression == 5]
        offset, length = page.dataoffsets[0], page.databytecounts[0]
    data = bytearray(path.read_bytes())
    data[offset : offset + length] = b"\xff" * length
    path.write_bytes(data)
    return path
