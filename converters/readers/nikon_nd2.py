# SPDX-License-Identifier: Apache-2.0
"""Nikon ND2 (NIS-Elements), versions 2 and 3: frames of all channels, and loops around them.

The nd2 package tells what the metadata says; where pixels lie is read and checked here. What
real files do:

- A loop over time or positions makes a scene of each step; a loop over Z makes focal planes.
- Loops count what was planned. Frames that were never taken are missing: a scene without any is
  left out, and said so.
- Frames are raw, or packed by zlib, with the channels side by side: DICOM has no such tiles, so
  they are encoded anew. Version 1, and "lossy", is JPEG 2000 inside: not read.
- Times of the whole file are Julian days in UTC. The text's date is in local words and no zone.
- Cameras use 12 or 14 of 16 bits. Bits Stored of a whole slide image is 8 or 16 (PS3.3 C.8.12.4),
  so it is 16; how many are in use stands among the properties.
- The stage's coordinates have no known relation to the glass: no origin.

Sources: the nd2 package (BSD), whose names of fields are Nikon's own; real files.
"""

import os
import struct
from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import product
from math import isfinite, prod

import numpy as np

from converters.errors import (
    DamagedSlide,
    UnsupportedCompression,
    UnsupportedPixels,
)
from converters.probe import Probe
from converters.readers.nd2_chunks import Chunks, read_chunks, starts_as_nd2
from converters.readers.nd2_frames import FrameForm, Frames, converter
from converters.readers.nd2_metadata import (
    Told,
    began,
    optical_path,
    positive,
    read_told,
    scan_of,
    spacing_mm,
)
from converters.slide import (
    DEFAULT_TILE,
    Level,
    OpticalPath,
    Pixels,
    PixelTiles,
    PixelType,
    Scene,
    Slide,
    SourceFile,
)

MAX_SCENES = 2000
MAX_TILES = 4_000_000
MAX_PLANES = 10_000
JPEG_2000 = b"\0\0\0\x0cjP  \r\n\x87\n"
LOOPS = {"TimeLoop": "time point", "NETimeLoop": "time point", "XYPosLoop": "position", "ZStackLoop": ""}


class NikonNd2Reader:
    """See :class:`converters.registry.Reader`."""

    format = "nikon-nd2"
    isolated = True  # metadata of any depth and size is unpacked by a library

    @staticmethod
    def why_not(probe: Probe) -> str | None:
        early = probe.head.startswith(JPEG_2000) and probe.path.suffix.lower() == ".nd2"
        return None if early or starts_as_nd2(probe.head) else "does not start as an ND2 file does"

    @staticmethod
    def open(probe: Probe) -> Slide:
        """Raises DamagedSlide, MissingLibrary, UnsupportedCompression, UnsupportedPixels."""
        if not starts_as_nd2(probe.head):
            raise UnsupportedCompression("JPEG 2000", "an ND2 file of version 1")
        descriptor = os.open(probe.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            chunks = read_chunks(descriptor)
            return _slide(probe, chunks, read_told(chunks), descriptor)
        except Exception:
            os.close(descriptor)
            raise


def _slide(probe: Probe, chunks: Chunks, told: Told, descriptor: int) -> Slide:
    form = _form(told)
    frames = Frames(chunks, form)
    mappings = frames.mappings()
    paths = tuple(
        optical_path(told, form.samples, number, mapping) for number, mapping in enumerate(mappings)
    )
    scenes, findings = _scenes(told, chunks, frames, form, paths)
    if not told.channels:
        findings.append("what the channels show cannot be read")
    if form.samples == 3 and form.kind != "u1":
        findings.append(f"colours of {form.bits} bits are kept in 8")
    return Slide(
        format=NikonNd2Reader.format,
        sources=(SourceFile(probe.path, probe.size_bytes, probe.modified),),
        scenes=scenes,
        associated=(),
        scan=scan_of(told),
        closer=lambda: os.close(descriptor),
        findings=tuple(findings),
    )


def _form(told: Told) -> FrameForm:
    """Raises DamagedSlide, UnsupportedCompression, UnsupportedPixels."""
    given = told.attributes
    numbers = (given.heightPx, given.widthPx, given.componentCount, given.bitsPerComponentInMemory)
    if not all(isinstance(number, int) and 0 < number < 2**30 for number in numbers):
        raise DamagedSlide("the size of the frames is impossible")
    rows, columns, components, bits = numbers
    channels = given.channelCount or 1
    kinds = {8: "u1", 16: "<u2", 32: "<f4"}
    if bits not in kinds:
        raise UnsupportedPixels(f"samples of {bits} bits are not read")
    if not 0 < channels <= components or components % channels or components // channels not in (1, 3):
        raise UnsupportedPixels(f"{components} components in {channels} channels are not read")
    samples = components // channels
    if bits == 32 and samples == 3:
        raise UnsupportedPixels("colours of 32-bit floats are not read")
    if given.compressionType == "lossy":
        raise UnsupportedCompression("JPEG 2000", "the frames")
    row_bytes = given.widthBytes or columns * components * bits // 8
    if not columns * components * bits // 8 <= row_bytes < 2**31:
        raise DamagedSlide("the size of the frames is impossible")
    used = given.bitsPerComponentSignificant
    used = used if isinstance(used, int) and 8 <= used <= bits else bits
    return FrameForm(
        rows, columns, row_bytes, channels, samples, kinds[bits], used, given.compressionType == "lossless"
    )


def _scenes(
    told: Told, chunks: Chunks, frames: Frames, form: FrameForm, paths: tuple[OpticalPath, ...]
) -> tuple[tuple[Scene, ...], list[str]]:
    """Each step of the loops that are not over Z. Raises UnsupportedPixels."""
    kinds = [str(loop.type) for loop in told.loops]
    counts = [int(loop.count) for loop in told.loops]
    if any(kind not in LOOPS for kind in kinds) or kinds.count("ZStackLoop") > 1:
        raise UnsupportedPixels("an experiment with loops of a kind that is not read")
    if not kinds:  # frames that no loop explains are taken for steps in time
        kinds, counts = ["TimeLoop"], [max(frames.places, default=0) + 1]
    if any(number >= prod(counts) for number in frames.places):
        raise UnsupportedPixels("more frames than the experiment describes")
    steps = [
        range(count) if kind != "ZStackLoop" else range(1) for kind, count in zip(kinds, counts, strict=True)
    ]
    if prod(len(step) for step in steps) > MAX_SCENES:
        raise UnsupportedPixels(f"more than {MAX_SCENES} time points and positions")
    if not frames.places:
        raise DamagedSlide("there are no frames in the file")
    planes, heights, downwards = _stack(told)
    depth = kinds.index("ZStackLoop") if "ZStackLoop" in kinds else None
    times = _times(chunks)
    scenes: list[Scene] = []
    absent = 0
    for step in product(*steps):
        stack = []
        for plane in range(planes):
            at = list(step)
            if depth is not None:
                at[depth] = planes - 1 - plane if downwards else plane
            stack.append(int(np.ravel_multi_index(at, counts)))
        absent += sum(number not in frames.places for number in stack)
        if not any(number in frames.places for number in stack):
            continue
        scenes.append(
            Scene(
                index=len(scenes),
                levels=(_level(told, frames, form, stack, paths),),
                optical_paths=paths,
                focal_planes_um=heights,
                label=_label(told, kinds, counts, step),
                acquired=_at_time(told, times, min(stack)) if prod(map(len, steps)) > 1 else None,
            )
        )
    findings = [f"{absent} of {prod(counts)} frames were never taken"] if absent else []
    return tuple(scenes), findings


def _stack(told: Told) -> tuple[int, tuple[float, ...], bool]:
    """(Focal planes, their heights from the lowest, whether the stack was taken downwards);
    no heights where the distance is not stated."""
    for loop in told.loops:
        if loop.type == "ZStackLoop" and loop.count > 1:
            if loop.count > MAX_PLANES:
                raise UnsupportedPixels(f"more than {MAX_PLANES} focal planes")
            step = positive(abs(loop.parameters.stepUm or 0))
            heights = () if step is None else tuple(round(at * step, 6) for at in range(loop.count))
            return int(loop.count), heights, not loop.parameters.bottomToTop
    return 1, (0.0,), False


def _label(told: Told, kinds: Sequence[str], counts: Sequence[int], step: Sequence[int]) -> str:
    """Positions by their name, if they have one."""
    words = []
    for number, (kind, count, at) in enumerate(zip(kinds, counts, step, strict=True)):
        if count == 1 or not LOOPS[kind]:
            continue
        word = f"{LOOPS[kind]} {at + 1}"
        if kind == "XYPosLoop":
            points = told.loops[number].parameters.points
            word = str(points[at].name or "")[:64] or word if at < len(points) else word
        words.append(word)
    return ", ".join(words)


def _level(
    told: Told, frames: Frames, form: FrameForm, stack: Sequence[int], paths: Sequence[OpticalPath]
) -> Level:
    tile = min(DEFAULT_TILE, form.rows), min(DEFAULT_TILE, form.columns)
    grid = form.channels, len(stack), -(-form.rows // tile[0]), -(-form.columns // tile[1])
    count = prod(grid)
    if count > MAX_TILES:
        raise DamagedSlide(f"a scene of more than {MAX_TILES} tiles")
    bits = 8 if form.stored_kind == "u1" else 16
    background = 255 if form.samples == 3 else 0
    converters = [converter(form, path.real_world) for path in paths]
    missing = np.zeros(grid, np.bool_)
    for plane, number in enumerate(stack):
        missing[:, plane] = number not in frames.places

    def read(frame_index: int) -> Pixels:
        channel, plane, row, column = (int(at) for at in np.unravel_index(frame_index, grid))
        full: Pixels = np.full((*tile, form.samples), background, form.stored_kind)
        if stack[plane] in frames.places:
            found = frames.region(stack[plane], channel, row * tile[0], column * tile[1], *tile)
            full[: found.shape[0], : found.shape[1]] = converters[channel](found)
        return full

    return Level(
        index=0,
        rows=form.rows,
        columns=form.columns,
        tile_rows=tile[0],
        tile_columns=tile[1],
        tiles=PixelTiles(
            read=read,
            count=count,
            why="frames are packed by zlib" if form.packed else "frames are not compressed",
            size_bytes=sum(frames.places[number][1] for number in stack if number in frames.places),
            missing=missing.reshape(-1),
        ),
        pixel_type=PixelType(form.samples, bits, bits),
        pixel_spacing_mm=spacing_mm(told),
        optical_paths=form.channels,
        focal_planes=len(stack),
        history="zlib" if form.packed else "none",
        absent_colour=(255, 255, 255) if form.samples == 3 else 0,
    )


def _times(chunks: Chunks) -> tuple[float, ...]:
    """Milliseconds of each frame since the start, () where the file does not tell."""
    data = chunks.data(b"CustomData|AcqTimesCache!", "the times of frames")
    return struct.unpack(f"<{len(data) // 8}d", data[: len(data) // 8 * 8])


def _at_time(told: Told, times: Sequence[float], frame: int) -> datetime | None:
    start = began(told)
    if start is None or frame >= len(times) or not isfinite(times[frame]):
        return None
    try:
        return start + timedelta(milliseconds=times[frame])
    except OverflowError:
        return None
