# SPDX-License-Identifier: Apache-2.0
"""Proof that written files hold the scanner's pixels, read back from the disk.

Copy proof (DESIGN 4): of every copied tile, what stands between the head and the end
marker is bit for bit the scanner's. Besides, some tiles of each image are decoded twice,
from the file written and by the reader from the scanner's file, and compared.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from archive.part10.codestream import jpeg_segments
from archive.part10.frame_table import FrameTable, Range
from archive.part10.scan import scan_file
from converters.codecs import decode
from converters.errors import VerificationFailed
from converters.slide import Level, Role, Slide
from converters.writer.born import DicomInstance
from converters.writer.survey import EOI

SAMPLES = 16


def verify_files(slide: Slide, instances: Sequence[DicomInstance], files: Sequence[Path]) -> int:
    """Compare each file with the slide; how many tiles were compared bit for bit.

    Raises VerificationFailed with file and frame at the first difference.
    """
    return sum(_verify(slide, instance, path) for instance, path in zip(instances, files, strict=True))


def _verify(slide: Slide, instance: DicomInstance, path: Path) -> int:
    scanned = scan_file(path)
    if scanned.sop_instance_uid != instance.sop_instance_uid:
        raise VerificationFailed(f"{path.name} is another instance")
    table = FrameTable.from_bytes(scanned.frame_table)
    if table.count != instance.number_of_frames:
        raise VerificationFailed(f"{path.name} has {table.count} frames of {instance.number_of_frames}")
    with path.open("rb") as file:
        reader = _Frames(file.fileno(), table, path.name)
        if instance.role is not Role.VOLUME:
            _compare_image(slide, instance, reader)
            return 0
        level = slide.scenes[instance.scene].levels[instance.level]
        copied = _compare_tiles(slide, level, instance, reader) if instance.born else 0
        _compare_pixels(level, instance, reader)
        return copied


class _Frames:
    """Frames of a written file, as bytes."""

    def __init__(self, descriptor: int, table: FrameTable, name: str) -> None:
        self.descriptor, self.table, self.name = descriptor, table, name

    def frame(self, index: int) -> bytes:
        parts = []
        for segment in self.table.segments(index):
            if isinstance(segment, Range):
                parts.append(os.pread(self.descriptor, segment.length, segment.offset))
            else:
                parts.append(segment)
        return b"".join(parts)

    def wrong(self, index: int, what: str) -> VerificationFailed:
        return VerificationFailed(f"{self.name}: frame {index + 1} {what}")


def entropy_coded(codestream: bytes) -> bytes:
    """A JPEG from after its last head segment through EOI; a JPEG 2000 codestream whole."""
    if codestream[:2] != b"\xff\xd8":
        end = codestream.rfind(EOI)
        return codestream[: end + 2] if end > 0 else codestream
    segments = jpeg_segments(codestream)
    if not segments or segments[-1][0] != 0xDA:
        return b""
    return codestream[segments[-1][1] : codestream.rfind(EOI) + 2]


def _present(level: Level, instance: DicomInstance) -> list[tuple[int, int]]:
    """(frame index, tile index) of every tile that the scanner wrote."""
    tile_indexes = [] if instance.tile_indexes is None else instance.tile_indexes.tolist()
    return [pair for pair in enumerate(tile_indexes) if not level.tiles.absent[pair[1]]]


def _compare_tiles(slide: Slide, level: Level, instance: DicomInstance, reader: _Frames) -> int:
    tiles = level.tiles
    present = _present(level, instance)
    if len(present) != int((~tiles.absent).sum()):
        raise VerificationFailed(f"{reader.name} lacks tiles that the scanner wrote")
    with slide.sources[tiles.source].path.open("rb") as file:
        for frame, index in present:
            data = os.pread(file.fileno(), int(tiles.lengths[index]), int(tiles.offsets[index]))
            original = entropy_coded(data)
            if not original or original != entropy_coded(reader.frame(frame)):
                raise reader.wrong(frame, "differs from the scanner's tile")
    return len(present)


def _compare_pixels(level: Level, instance: DicomInstance, reader: _Frames) -> None:
    if level.reference is None:
        return
    present = _present(level, instance)
    for frame, index in present[:: max(1, len(present) // SAMPLES)]:
        pixels = decode(
            reader.frame(frame), instance.transfer_syntax_uid, level.tile_rows, level.tile_columns,
            level.pixel_type.samples_per_pixel, 8, instance.photometric,
        )  # fmt: skip
        if not np.array_equal(pixels, level.reference(index)):
            raise reader.wrong(frame, "decodes to other pixels than the scanner's tile")


def _compare_image(slide: Slide, instance: DicomInstance, reader: _Frames) -> None:
    image = slide.associated_image(instance.role)
    if image is None:
        raise reader.wrong(0, "belongs to no image of the slide")
    expected = image.read()
    pixels = decode(
        reader.frame(0), instance.transfer_syntax_uid, image.rows, image.columns, expected.shape[2], 8,
        instance.photometric,
    )  # fmt: skip
    if not np.array_equal(pixels, expected):
        raise reader.wrong(0, "decodes to other pixels than the scanner's image")
