# SPDX-License-Identifier: Apache-2.0
"""A level of very many frames as several instances: a concatenation (PS3.3 C.7.6.16.2.2.4).

Each part is the whole image's header with a run of its frames: same Instance Number, same
places, same shared functional groups. The image's own UID becomes SOP Instance UID of
Concatenation Source (0020,0242); those of the parts follow from it and from which frames
they hold, so that cutting again in the same way gives the same instances. Other images
that name a divided one (a level computed from it) go on naming it by that source UID.

An option of ``convert``, for readers and media that cannot take large files; the archive
is given whole levels. OpenSlide 4.0.1 and wsidicom put the parts together again; dciodvfy
(2022) expects the whole grid in each part and calls its Number of Frames an error.
"""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pydicom
from numpy.typing import NDArray

from archive.part10.encode import encode_header
from archive.part10.frame_table import FrameTable, sliced
from converters.errors import UnsupportedPixels
from converters.slide import Role
from converters.writer.born import DicomInstance
from converters.writer.uids import IMPLEMENTATION_VERSION_NAME, derived_uid

MAX_PARTS = 65535  # In-concatenation Number is unsigned short


@dataclass(frozen=True, slots=True)
class PartLimit:
    """The most that one part holds: ``frames``, and ``size_bytes`` of them as they stand
    in the file. 0: no limit. A single frame that exceeds the size is a part of its own."""

    frames: int = 0
    size_bytes: int = 0


def concatenated(instances: Sequence[DicomInstance], limit: PartLimit) -> list[DicomInstance]:
    """``instances`` in their order, each level that exceeds ``limit`` as its parts. Raises
    UnsupportedPixels where these would be more than a concatenation may have."""
    return [part for instance in instances for part in _parts(instance, limit)]


def _parts(instance: DicomInstance, limit: PartLimit) -> Iterator[DicomInstance]:
    table = FrameTable.from_bytes(instance.frame_table)
    lengths = np.frombuffer(table.lengths(), dtype=np.uint64).astype(np.int64)
    starts = _starts(lengths, limit)
    if instance.role is not Role.VOLUME or len(starts) < 2:
        yield instance
        return
    if len(starts) > MAX_PARTS:
        raise UnsupportedPixels(
            f"level {instance.level} would have more than {MAX_PARTS} parts: allow larger"
        )
    header = pydicom.dcmread(io.BytesIO(instance.header))
    groups = list(header.get("PerFrameFunctionalGroupsSequence") or ())
    header.SOPInstanceUIDOfConcatenationSource = instance.sop_instance_uid
    header.ConcatenationUID = derived_uid(instance.sop_instance_uid, "concatenation", *starts)
    header.InConcatenationTotalNumber = len(starts)
    for number, (start, stop) in enumerate(zip(starts, [*starts[1:], len(lengths)], strict=True), 1):
        uid = derived_uid(instance.sop_instance_uid, "frames", start, stop)
        header.SOPInstanceUID = uid
        header.InConcatenationNumber = number
        header.ConcatenationFrameOffsetNumber = start
        header.NumberOfFrames = stop - start
        if groups:
            header.PerFrameFunctionalGroupsSequence = groups[start:stop]
        tiles = instance.tile_indexes
        yield replace(
            instance,
            sop_instance_uid=uid,
            header=encode_header(
                header, instance.transfer_syntax_uid, implementation_version=IMPLEMENTATION_VERSION_NAME
            ),
            frame_table=sliced(table, start, stop),
            number_of_frames=stop - start,
            pixel_bytes=int(lengths[start:stop].sum()),
            absent_tiles=_bits(instance.absent_tiles, start, stop),
            tile_indexes=None if tiles is None else tiles[start:stop],
            part=number,
        )


def _starts(lengths: NDArray[np.int64], limit: PartLimit) -> list[int]:
    """The first frame of each part."""
    frames = limit.frames or len(lengths)
    ends = np.cumsum(lengths + lengths % 2 + 8)  # with pad and item header
    starts = [0]
    while True:
        start = starts[-1]
        stop = start + frames
        if limit.size_bytes:
            before = int(ends[start - 1]) if start else 0
            fitting = int(np.searchsorted(ends, before + limit.size_bytes, side="right"))
            stop = min(stop, max(start + 1, fitting))
        if stop >= len(lengths):
            return starts
        starts.append(stop)


def _bits(bitmap: bytes, start: int, stop: int) -> bytes:
    """Bits ``start`` to ``stop``; b"" where none is set."""
    bits = np.unpackbits(np.frombuffer(bitmap, dtype=np.uint8))[start:stop]
    return np.packbits(bits).tobytes() if bits.any() else b""
