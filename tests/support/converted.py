# SPDX-License-Identifier: Apache-2.0
"""What the tests of converters share: slides of every kind, and codestreams to build."""

import hashlib
import struct
from pathlib import Path

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from converters.registry import open_slide
from converters.writer.born import DicomInstance, born_instances
from converters.writer.metadata import Metadata

SECRET = b"a site's secret of 32 bytes, yes"
REAL = ("slides/svs/CMU-1-Small-Region.svs", "slides/svs/openslide-small.svs")
SYNTHETIC = ("slides/synthetic/aperio_scanscope.svs",)


def digest(path: Path) -> bytes:
    return hashlib.sha256(path.read_bytes()).digest()


def born(path: Path, metadata: Metadata | None = None, **options: object) -> list[DicomInstance]:
    with open_slide(path) as slide:
        return born_instances(slide, source_digest=digest(path), secret=SECRET, metadata=metadata, **options)  # type: ignore[arg-type]


def jpeg2000_of_components(
    components: list[NDArray[np.uint8]], rows: int, columns: int, reversible: bool = True
) -> bytes:
    """A JPEG 2000 codestream whose components may differ in size, without a component
    transformation, as Aperio's 33003 is. Each is encoded alone; with one precinct for
    each resolution and the order component-position-resolution-layer, their packets
    just follow each other (ITU-T T.800 B.12.1.5)."""
    streams = [
        imagecodecs.jpeg2k_encode(
            np.ascontiguousarray(pixels), codecformat="j2k", level=0 if reversible else 45,
            reversible=reversible, resolutions=4, numthreads=1,
        )
        for pixels in components
    ]  # fmt: skip
    split = [_split(stream) for stream in streams]
    out = b"\xff\x4f"
    for marker, body in split[0][0]:
        if marker == 0xFF51:
            sizes = [(columns // c.shape[1], rows // c.shape[0]) for c in components]
            described = b"".join(bytes((7, *size)) for size in sizes)
            body = (
                struct.pack(">HIIIIIIIIH", 0, columns, rows, 0, 0, columns, rows, 0, 0, len(sizes))
                + described
            )
        elif marker == 0xFF52:
            body = bytes((body[0], 4)) + body[2:4] + b"\0" + body[5:]
        elif marker == 0xFF64:
            continue
        out += struct.pack(">HH", marker, len(body) + 2) + body
    packets = b"".join(data for _, data in split)
    return (
        out
        + struct.pack(">HHHIBB", 0xFF90, 10, 0, 14 + len(packets), 0, 1)
        + b"\xff\x93"
        + packets
        + b"\xff\xd9"
    )


def _split(stream: bytes) -> tuple[list[tuple[int, bytes]], bytes]:
    """Main header segments and the packets of a codestream with one tile-part."""
    segments, position = [], 2
    while True:
        marker, length = struct.unpack_from(">HH", stream, position)
        if marker == 0xFF90:
            break
        segments.append((marker, stream[position + 4 : position + 2 + length]))
        position += 2 + length
    return segments, stream[stream.index(b"\xff\x93", position) + 2 : -2]
