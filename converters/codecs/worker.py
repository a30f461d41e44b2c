# SPDX-License-Identifier: Apache-2.0
"""The process that decodes: ``python -m converters.codecs.worker FD MEMORY SECONDS``.

Requests are frames to transcode or render; see ``converters.isolation.child`` for how it limits
itself.
"""

import os
import struct
import sys
from typing import Any

# before numpy: its libraries start a thread for each core otherwise
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from converters.codecs.errors import CodecError, FrameTooLarge, UnsupportedCodec
from converters.codecs.render import FrameFormat, Layer, View, render, value_limits
from converters.codecs.transcode import transcode
from converters.isolation.child import run
from converters.isolation.wire import Status


def perform(order: dict[str, Any], blobs: list[bytes]) -> bytes:
    """Carry out one request."""
    form = FrameFormat(**order["form"], icc_profile=blobs[0], palette=blobs[1])
    if order["what"] == "transcode":
        return transcode(blobs[2], form, order["transfer_syntax_uid"])
    places = order["places"]
    tiles = [(row, column, blob) for (row, column), blob in zip(places, blobs[2:], strict=True)]
    rows, columns = order["canvas"]
    if order["what"] == "limits":
        return struct.pack("<dd", *value_limits(tiles, form, (rows, columns)))
    return render(tiles, form, _view(order["view"]), (rows, columns))


def _view(fields: dict[str, Any]) -> View:
    """JSON has lists where a view has tuples."""
    layers = tuple(
        Layer(tiles, tuple(colour) if colour else None, tuple(limits) if limits else None)
        for tiles, colour, limits in fields.pop("layers")
    )
    window, region = fields.pop("window"), fields.pop("region")
    return View(
        **fields,
        layers=layers,
        window=tuple(window) if window else None,
        region=tuple(region) if region else None,
    )


def answer(order: dict[str, Any], blobs: list[bytes]) -> tuple[Status, bytes]:
    """The reply to one request; whatever goes wrong is a status."""
    try:
        return Status.DONE, perform(order, blobs)
    except UnsupportedCodec as refusal:
        return Status.UNSUPPORTED, str(refusal).encode()
    except FrameTooLarge as refusal:
        return Status.TOO_LARGE, str(refusal).encode()
    except CodecError as refusal:
        return Status.DAMAGED, str(refusal).encode()
    except MemoryError:
        return Status.TOO_LARGE, b"not enough memory for the frame"
    except Exception as error:  # noqa: BLE001  the parent decides; a worker has no log
        return Status.DAMAGED, f"the codec failed: {type(error).__name__}".encode()


if __name__ == "__main__":
    run(sys.argv[1:], answer)
