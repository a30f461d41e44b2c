# SPDX-License-Identifier: Apache-2.0
"""Barcodes on a label's picture."""

import numpy as np
import zxingcpp
from numpy.typing import NDArray

LONGEST = 1024
MATRIX_CODES = ("Aztec", "AztecCode", "DataMatrix", "MaxiCode", "MicroQRCode", "PDF417", "QRCode", "RMQRCode")


def read_barcodes(pixels: NDArray[np.uint8]) -> str:
    """The symbols of a label, (rows, columns, samples), one a line, from the top; "" if none.

    Matrix codes go before linear ones: laboratories print the container's identifier as
    a matrix code where there are both. Symbols that are not plain text are left out.
    """
    picture = pixels[..., 0] if pixels.shape[2] == 1 else pixels
    found = []
    for symbol in zxingcpp.read_barcodes(np.ascontiguousarray(picture)):
        text = symbol.text.strip()
        if symbol.valid and text.isprintable() and 0 < len(text) <= LONGEST:
            matrix = getattr(symbol.format, "name", str(symbol.format)) in MATRIX_CODES
            corner = symbol.position.top_left
            found.append((not matrix, corner.y, corner.x, text))
    return "\r\n".join(dict.fromkeys(text for *_, text in sorted(found)))
