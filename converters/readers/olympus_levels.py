# SPDX-License-Identifier: Apache-2.0
"""Levels of an Olympus image stack: coordinates of chunks become frame indices.

A level is half of the one before. Whether an odd size is rounded up or down is not said:
up, unless the last row or column of tiles that this needs does not exist.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from archive.part10.codestream import sniff
from archive.part10.errors import Part10Error
from converters.errors import DamagedSlide, UnsupportedPixels
from converters.readers.encoded_tiles import MAX_TILES, checked_map, read_range, reference
from converters.readers.olympus_ets import DECODED, RAW, EtsFile, without_boxes
from converters.readers.olympus_words import CHANNELS, FOCAL_PLANE, LAMBDA, TIME, Stack
from converters.slide import Level, Offsets, PixelTiles, PixelType, TileMap

MAX_CHANNELS, MAX_PLANES, MAX_TIMES = 200, 5000, 5000


@dataclass(frozen=True, slots=True)
class Axes:
    """Places of coordinates in the .ets (None where there is one only) and their extents."""

    channel: int | None = None
    plane: int | None = None
    time: int | None = None
    channels: int = 1
    planes: int = 1
    times: int = 1


def axes_of(stack: Stack, ets: EtsFile) -> Axes:
    """Raises UnsupportedPixels for a dimension of more than one that nothing explains,
    DamagedSlide for one that cannot be."""
    extents = ets.extents
    meanings = {place + 2: meaning for meaning, place in stack.axes.items()}
    if meanings and min(meanings) >= len(extents):
        meanings = {place - 1: meaning for place, meaning in meanings.items()}
    found: dict[int, int] = {}
    for place in range(2, len(extents)):
        if extents[place] == 1:
            continue
        meaning = meanings.get(place)
        if meaning is None and extents[place] == len(stack.channels):
            meaning = CHANNELS
        meaning = CHANNELS if meaning == LAMBDA else meaning
        if meaning not in (CHANNELS, FOCAL_PLANE, TIME) or meaning in found:
            raise UnsupportedPixels("an image stack has a dimension that the file does not explain")
        found[meaning] = place
    sizes = {meaning: extents[place] for meaning, place in found.items()}
    axes = Axes(
        found.get(CHANNELS), found.get(FOCAL_PLANE), found.get(TIME),
        sizes.get(CHANNELS, 1), sizes.get(FOCAL_PLANE, 1), sizes.get(TIME, 1),
    )  # fmt: skip
    if axes.channels > MAX_CHANNELS or axes.planes > MAX_PLANES or axes.times > MAX_TIMES:
        raise DamagedSlide("an image stack has impossibly many channels, planes or time points")
    if axes.channels > 1 and ets.components > 1:
        raise UnsupportedPixels("an image stack has several channels of several samples each")
    return axes


def levels(
    stack: Stack, ets: EtsFile, axes: Axes, time: int, source: int, findings: list[str]
) -> tuple[Level, ...]:
    """The levels of one point in time (from 0), tiles in file number ``source``. Raises
    DamagedSlide, UnsupportedPixels."""
    found: list[Level] = []
    at = ets.coordinates
    descends = stack.z_increment_um is not None and stack.z_increment_um < 0
    chosen = np.ones(len(at), np.bool_) if axes.time is None else at[:, axes.time] == time
    for number in range(ets.level_count):
        mine: NDArray[np.int64] = np.flatnonzero(chosen & (ets.levels == number) & (ets.lengths > 0))
        if not len(mine):
            if number == 0:
                raise DamagedSlide("an image stack has no tiles in its finest level")
            continue
        rows = _size(stack.rows, number, int(at[mine, 1].max()) + 1, ets.tile_rows)
        columns = _size(stack.columns, number, int(at[mine, 0].max()) + 1, ets.tile_columns)
        offsets, lengths = _placed(ets, axes, mine, rows, columns, descends, findings)
        found.append(
            _level(stack, ets, axes, (len(found), number), (rows, columns), offsets, lengths, source)
        )
    return tuple(found)


def _size(whole: int, number: int, tiles: int, tile: int) -> int:
    up, down = -(-whole // (1 << number)), max(1, whole >> number)
    return down if -(-up // tile) > tiles and -(-down // tile) < -(-up // tile) else up


def _placed(
    ets: EtsFile,
    axes: Axes,
    mine: NDArray[np.int64],
    rows: int,
    columns: int,
    descending: bool,
    findings: list[str],
) -> tuple[Offsets, Offsets]:
    """(offsets, lengths) by frame index; planes lowest first."""
    at = ets.coordinates[mine].astype(np.int64)
    down, across = -(-rows // ets.tile_rows), -(-columns // ets.tile_columns)
    count = axes.channels * axes.planes * down * across
    if count > MAX_TILES:
        raise DamagedSlide(f"an image stack has more than {MAX_TILES} tiles")
    zero = np.zeros(len(at), np.int64)
    channel = zero if axes.channel is None else at[:, axes.channel]
    plane = zero if axes.plane is None else at[:, axes.plane]
    if descending:
        plane = axes.planes - 1 - plane
    inside = (at[:, 0] < across) & (at[:, 1] < down) & (channel < axes.channels) & (plane < axes.planes)
    inside &= plane >= 0
    if not inside.all():
        findings.append(f"{int((~inside).sum())} tiles lie outside of their image: left out")
    index = ((channel * axes.planes + plane) * down + at[:, 1]) * across + at[:, 0]
    places, first = np.unique(index[inside], return_index=True)
    if len(places) < int(inside.sum()):
        findings.append(f"{int(inside.sum()) - len(places)} tiles are listed twice: the first was taken")
    offsets, lengths = np.zeros(count, np.uint64), np.zeros(count, np.uint64)
    chunks = mine[inside][first]
    offsets[places], lengths[places] = ets.offsets[chunks], ets.lengths[chunks]
    return offsets, lengths


def _level(
    stack: Stack,
    ets: EtsFile,
    axes: Axes,
    index_and_number: tuple[int, int],
    size: tuple[int, int],
    offsets: Offsets,
    lengths: Offsets,
    source: int,
) -> Level:
    index, number = index_and_number
    spacing, factor = stack.pixel_spacing_mm, float(1 << number)
    tiles, pixel_type = _tiles(ets, offsets, lengths, source, number)
    shape = (ets.tile_rows, ets.tile_columns, ets.components)
    eight_bit = isinstance(tiles, TileMap) and ets.dtype == np.uint8
    return Level(
        index=index,
        rows=size[0],
        columns=size[1],
        tile_rows=ets.tile_rows,
        tile_columns=ets.tile_columns,
        tiles=tiles,
        pixel_type=pixel_type,
        pixel_spacing_mm=(spacing[0] * factor, spacing[1] * factor) if spacing else None,
        downsample=factor,
        optical_paths=axes.channels,
        focal_planes=axes.planes,
        reference=reference(ets.path, tiles, *shape) if eight_bit and isinstance(tiles, TileMap) else None,
        absent_colour=ets.absent_colour,
    )


def _tiles(
    ets: EtsFile, offsets: Offsets, lengths: Offsets, source: int, number: int
) -> tuple[TileMap | PixelTiles, PixelType]:
    bits = ets.dtype.itemsize * 8
    pixel_type = PixelType(ets.components, bits, bits)
    if ets.compression in DECODED:
        whole = ets.tile_rows * ets.tile_columns * ets.components * ets.dtype.itemsize
        if ets.compression == RAW and bool((lengths[lengths > 0] < whole).any()):
            raise DamagedSlide("a raw tile is shorter than its size")
        pixels = PixelTiles(
            read=lambda index: ets.pixels(int(offsets[index]), int(lengths[index])),
            count=len(offsets),
            why=DECODED[ets.compression],
            size_bytes=int(lengths.sum()),
            missing=lengths == 0,
        )
        return pixels, pixel_type
    offsets, lengths = without_boxes(ets, offsets, lengths)
    tiles = checked_map(offsets, lengths, ets.size_bytes, f"level {number}", source)
    first = int(np.flatnonzero(lengths)[0])
    try:
        stream = sniff(read_range(ets.path, int(offsets[first]), int(lengths[first])))
    except Part10Error as error:
        raise DamagedSlide(f"tiles of level {number} are no images") from error
    if 8 < stream.bits <= 16 and bits == 16:
        pixel_type = PixelType(ets.components, 16, stream.bits)
    return tiles, pixel_type
