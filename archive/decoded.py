# SPDX-License-Identifier: Apache-2.0
"""A compressed instance as Explicit VR Little Endian, decoded frame by frame on its way out.

For clients that name no transfer syntax, or this one (PS3.18 8.7.3.4). One frame is in
memory at a time; the length is known before the first.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence

from pydicom.dataset import Dataset

from archive.errors import CannotTranscode
from archive.packed import ahead
from archive.part10.bulk import BulkValue
from archive.part10.encode import encode_dataset
from archive.part10.frame_table import FrameTable, Range, encode_direct
from archive.part10.meta import read_meta
from archive.part10.stream import Part10Stream
from archive.part10.syntaxes import EXPLICIT
from archive.values import ByteStream

MAX_NATIVE_BYTES = 2**32 - 3
"""More has no encoding as one value (PS3.18 8.7.8.1)."""

FRAMES_AT_ONCE = 2
"""Of one request: the codec's processes are few, and others wait for them too."""

_DECODED = 255  # blob index that stands for the decoded frames, one after the other


def decoded_stream(
    header: bytes,
    dataset: Dataset,
    bulk: Sequence[BulkValue],
    count: int,
    frame_bytes: int,
    frame: Callable[[int], bytes],
    read: Callable[[Range], Iterable[bytes]],
) -> ByteStream:
    """Part 10 with ``count`` native frames of ``frame_bytes``; colours are RGB.

    ``dataset`` is ``header`` parsed, and is changed. ``frame`` decodes one, counted from
    0; ``read`` gives the bytes of other bulk values.
    """
    if int(dataset.get("SamplesPerPixel", 1) or 1) > 1:
        dataset.PhotometricInterpretation = "RGB"
        dataset.PlanarConfiguration = 0
    mended = header[: read_meta(header).data_set_offset] + encode_dataset(dataset)
    places = encode_direct(
        [frame_bytes * index for index in range(count)], [frame_bytes] * count, blob_index=_DECODED
    )
    plan = Part10Stream(mended, EXPLICIT, FrameTable.from_bytes(places), bulk)

    def chunks() -> Iterator[bytes]:
        for part in plan.parts():
            if isinstance(part, bytes):
                yield part
            elif part.blob_index != _DECODED:
                yield from read(part)
            else:
                first, last = part.offset // frame_bytes, (part.offset + part.length) // frame_bytes
                yield from decoded_frames(frame, range(first, last), frame_bytes)

    return ByteStream(plan.length, chunks(), "application/dicom")


def decoded_frames(
    frame: Callable[[int], bytes], indices: Sequence[int], frame_bytes: int
) -> Iterator[bytes]:
    """Frames decoded by ``frame``, a few at once, each of ``frame_bytes`` (CannotTranscode)."""
    for index, decoded in zip(indices, ahead(frame, indices, FRAMES_AT_ONCE), strict=True):
        if len(decoded) != frame_bytes:
            raise CannotTranscode(f"frame {index + 1} does not decode to its size")
        yield decoded
