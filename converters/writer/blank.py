# SPDX-License-Identifier: Apache-2.0
"""The codestream of a tile that the scanner left out: of one colour, and shaped like its level's."""

import imagecodecs
import numpy as np

from converters.codecs import blank
from converters.errors import UnsupportedPixels
from converters.slide import Colour
from converters.writer.survey import Kind

SUBSAMPLINGS = {(1, 1): "444", (2, 1): "422", (2, 2): "420", (4, 1): "411", (1, 2): "440"}


def blank_tile(kind: Kind, colour: Colour) -> bytes:
    """One colour, with the size, components, sampling and colours of ``kind``.

    One DICOM image has one Photometric Interpretation and one transfer syntax, and
    decoders may set themselves up by the first frame.
    """
    stream = kind.codestream
    if stream.format != "jpeg" or stream.components != 3:
        if stream.components == 3 and isinstance(colour, int):
            colour = (colour, colour, colour)
        return blank(
            kind.transfer_syntax_uid, stream.rows, stream.columns, colour, photometric=kind.photometric
        )
    subsampling = SUBSAMPLINGS.get(stream.sampling[0])
    if subsampling is None or set(stream.sampling[1:]) != {(1, 1)}:
        raise UnsupportedPixels("tiles are absent from a level of unusual JPEG sampling")
    tile = np.empty((stream.rows, stream.columns, 3), dtype=np.uint8)
    tile[...] = colour
    inside = "RGB" if kind.photometric == "RGB" else "YCBCR"
    return bytes(
        imagecodecs.jpeg8_encode(
            tile, level=95, colorspace="RGB", outcolorspace=inside, subsampling=subsampling
        )
    )
