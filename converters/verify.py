# SPDX-License-Identifier: Apache-2.0
"""Proof that instances hold the scanner's pixels, read back from where they lie.

Copy proof (DESIGN 4): of every copied tile, what stands between the head and the end
marker is bit for bit the scanner's. Every frame's codestream says what its header says.
Besides, some tiles of each image are decoded twice, from what was written and by the
reader from the scanner's file, and compared; :data:`SAMPLES` of each level, or all.
"""

import io
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pydicom
from numpy.typing import NDArray

from archive.part10.codestream import jpeg_segments, photometric, sniff, transfer_syntax
from archive.part10.frame_table import FrameTable, Range
from archive.part10.scan import scan_file
from converters.codecs.transfer_syntax import EXPLICIT_LE, LOSSLESS_ENCODERS
from converters.errors import DamagedSlide, VerificationFailed
from converters.slide import Level, PixelTiles, Role, Slide, SourceFile, TileMap
from converters.writer.born import DicomInstance
from converters.writer.iod import problems
from converters.writer.survey import EOI
from converters.writer.tilework import Bench, TileWork, gathered

SAMPLES = 16


def verify_files(
    slide: Slide,
    instances: Sequence[DicomInstance],
    files: Sequence[Path],
    bench: Bench | None = None,
    *,
    whole: bool = True,
) -> int:
    """Compare each file with the slide; how many tiles were compared bit for bit.

    ``whole`` compares every copied tile, else a sample of them. Raises
    VerificationFailed with file and frame at the first difference.
    """
    return _verify_all(slide, instances, [_written(path) for path in files], bench, whole)


def verify_instances(
    slide: Slide, instances: Sequence[DicomInstance], bench: Bench | None = None, *, whole: bool = False
) -> int:
    """:func:`verify_files` for instances that are no files yet."""
    return _verify_all(slide, instances, [_unwritten(instance) for instance in instances], bench, whole)


class _Frames:
    """Frames as bytes, wherever they lie: ranges count in ``blobs``."""

    def __init__(
        self, blobs: Sequence[BinaryIO | bytes], table: FrameTable, name: str, sop_instance_uid: str
    ) -> None:
        self.blobs, self.table, self.name, self.sop_instance_uid = blobs, table, name, sop_instance_uid

    def frame(self, index: int) -> bytes:
        parts = []
        for segment in self.table.segments(index):
            if not isinstance(segment, Range):
                parts.append(segment)
                continue
            blob = self.blobs[segment.blob_index]
            if isinstance(blob, bytes):
                parts.append(blob[segment.offset : segment.offset + segment.length])
            else:
                parts.append(os.pread(blob.fileno(), segment.length, segment.offset))
        return b"".join(parts)

    def wrong(self, index: int, what: str) -> VerificationFailed:
        return VerificationFailed(f"{self.name}: frame {index + 1} {what}")


_Opener = Callable[[], AbstractContextManager[_Frames]]


def _written(path: Path) -> _Opener:
    @contextmanager
    def opened() -> Iterator[_Frames]:
        scanned = scan_file(path)
        with path.open("rb") as file:
            table = FrameTable.from_bytes(scanned.frame_table)
            yield _Frames([file], table, path.name, scanned.sop_instance_uid)

    return opened


def _unwritten(instance: DicomInstance) -> _Opener:
    @contextmanager
    def opened() -> Iterator[_Frames]:
        with ExitStack() as stack:
            blobs: list[BinaryIO | bytes] = []
            for blob in instance.blobs:
                path = blob.path if isinstance(blob, SourceFile) else blob
                blobs.append(path if isinstance(path, bytes) else stack.enter_context(path.open("rb")))
            table = FrameTable.from_bytes(instance.frame_table)
            yield _Frames(blobs, table, f"instance {instance.instance_number}", instance.sop_instance_uid)

    return opened


def _verify_all(
    slide: Slide,
    instances: Sequence[DicomInstance],
    openers: Sequence[_Opener],
    bench: Bench | None,
    whole: bool,
) -> int:
    bench = bench or TileWork(slide)
    compared = 0
    _check_levels(slide, instances)
    for instance, opener in zip(instances, openers, strict=True):
        with opener() as frames:
            compared += _verify(slide, instance, frames, bench, whole)
    return compared


def _check_levels(slide: Slide, instances: Sequence[DicomInstance]) -> None:
    """Whether every copied level has all of its tiles, be it in one instance or in parts."""
    found: dict[tuple[int, int], set[int]] = {}
    for instance in instances:
        if instance.role is Role.VOLUME and instance.born and not instance.computed:
            level = slide.scenes[instance.scene].levels[instance.level]
            tiles = found.setdefault((instance.scene, instance.level), set())
            tiles.update(_present(level, instance)[:, 1].tolist())
    for (scene, index), tiles in found.items():
        if len(tiles) != int((~slide.scenes[scene].levels[index].tiles.absent).sum()):
            raise VerificationFailed(f"level {index} lacks tiles that the scanner wrote")


def _verify(slide: Slide, instance: DicomInstance, frames: _Frames, bench: Bench, whole: bool) -> int:
    if frames.sop_instance_uid != instance.sop_instance_uid:
        raise VerificationFailed(f"{frames.name} is another instance")
    if frames.table.count != instance.number_of_frames:
        raise VerificationFailed(
            f"{frames.name} has {frames.table.count} frames of {instance.number_of_frames}"
        )
    header = pydicom.dcmread(io.BytesIO(instance.header))
    wrong = problems(header)
    if wrong:
        raise VerificationFailed(f"{frames.name}: {wrong[0]}")
    chosen = range(instance.number_of_frames)
    if not whole:
        chosen = chosen[:: max(1, len(chosen) // SAMPLES)]
    for index in chosen:
        _compare_codestream(instance, header, frames, index)
    if instance.role is not Role.VOLUME:
        _compare_image(slide, instance, frames, bench)
        return 0
    if instance.computed:
        return 0
    level = slide.scenes[instance.scene].levels[instance.level]
    copied = _compare_tiles(slide, level, instance, frames, whole) if instance.born else 0
    if instance.born or instance.transfer_syntax_uid in LOSSLESS_ENCODERS:
        _compare_pixels(level, instance, frames, bench)
    return copied


def _compare_codestream(
    instance: DicomInstance, header: pydicom.Dataset, frames: _Frames, index: int
) -> None:
    """What the frame says of itself against what the header says of it."""
    size = (int(header.Rows), int(header.Columns), int(header.SamplesPerPixel))
    data = frames.frame(index)
    if instance.transfer_syntax_uid == EXPLICIT_LE:
        if len(data) != size[0] * size[1] * size[2] * int(header.BitsAllocated) // 8:
            raise frames.wrong(index, "is not as long as its header says")
        return
    stream = sniff(data)
    if transfer_syntax(stream) != instance.transfer_syntax_uid:
        raise frames.wrong(index, "is of another transfer syntax than its header says")
    if (stream.rows, stream.columns, stream.components) != size:
        raise frames.wrong(index, "is not as large as its header says")
    if photometric(stream) != header.PhotometricInterpretation:
        raise frames.wrong(index, "has other colours than its header says")


def entropy_coded(codestream: bytes) -> bytes:
    """A JPEG from after its last head segment through EOI; a JPEG 2000 codestream whole."""
    if codestream[:2] != b"\xff\xd8":
        end = codestream.rfind(EOI)
        return codestream[: end + 2] if end > 0 else codestream
    segments = jpeg_segments(codestream)
    if not segments or segments[-1][0] != 0xDA:
        return b""
    return codestream[segments[-1][1] : codestream.rfind(EOI) + 2]


def _present(level: Level, instance: DicomInstance) -> NDArray[np.int64]:
    """(frame index, tile index) of every tile that the scanner wrote, a row each."""
    tiles = np.zeros(0, np.int64) if instance.tile_indexes is None else instance.tile_indexes
    frames = np.flatnonzero(~level.tiles.absent[tiles])
    return np.stack((frames, tiles[frames]), axis=1)


def _compare_tiles(slide: Slide, level: Level, instance: DicomInstance, frames: _Frames, whole: bool) -> int:
    tiles = level.tiles
    if isinstance(tiles, PixelTiles):
        raise VerificationFailed(f"{frames.name} calls decoded tiles a copy")
    present = _present(level, instance)
    chosen = present if whole else present[:: max(1, len(present) // SAMPLES)]
    with ExitStack() as stack:
        fds = {
            number: stack.enter_context(slide.sources[number].path.open("rb")).fileno()
            for number in np.unique(tiles.files).tolist()
        }
        for frame, index in chosen.tolist():
            if isinstance(tiles, TileMap):
                fd = fds[int(tiles.files[index])]
                data = os.pread(fd, int(tiles.lengths[index]), int(tiles.offsets[index]))
            else:
                data = gathered(tiles, index, fds)
            original = entropy_coded(data)
            if not original or original != entropy_coded(frames.frame(frame)):
                raise frames.wrong(frame, "differs from the scanner's tile")
    return len(chosen)


def _compare_pixels(level: Level, instance: DicomInstance, frames: _Frames, bench: Bench) -> None:
    if instance.born and level.reference is None:
        return
    present = _present(level, instance)
    for frame, index in present[:: max(1, len(present) // SAMPLES)].tolist():
        form = (instance.transfer_syntax_uid, instance.photometric)
        if not bench.agrees(instance.scene, instance.level, index, frames.frame(frame), *form):
            raise frames.wrong(frame, "decodes to other pixels than the scanner's tile")


def _roles(role: Role) -> tuple[Role, ...]:
    """What an image may be in the slide: a blended thumbnail is written as an overview."""
    return (role, Role.THUMBNAIL) if role is Role.OVERVIEW else (role,)


def _compare_image(slide: Slide, instance: DicomInstance, frames: _Frames, bench: Bench) -> None:
    numbers = [
        number
        for number, image in enumerate(slide.associated)
        if image.scene == instance.scene and image.role in _roles(instance.role)
    ]
    if not numbers:
        raise frames.wrong(0, "belongs to no image of the slide")
    if instance.born:
        copies = [slide.associated[number].codestream.rstrip(b"\0") for number in numbers]
        if frames.frame(0).rstrip(b"\0") not in copies:
            raise frames.wrong(0, "differs from the scanner's image")
        return
    for number in numbers:
        image = slide.associated[number]
        form = (instance.transfer_syntax_uid, instance.photometric)
        if (image.rows, image.columns) == (instance.rows, instance.columns):
            with suppress(DamagedSlide):  # another one of its kind, left out
                if bench.image_agrees(number, frames.frame(0), *form):
                    return
    raise frames.wrong(0, "decodes to other pixels than the scanner's image")
