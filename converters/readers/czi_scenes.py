# SPDX-License-Identifier: Apache-2.0
"""Sub-blocks of CZI sorted into scenes, levels, optical paths and focal planes."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from converters.errors import DamagedSlide, UnsupportedPixels
from converters.readers.czi_pixels import (
    COMPRESSIONS,
    JPEG,
    SAMPLES,
    UNCOMPRESSED,
    Canvas,
    Painter,
    Slices,
    absent_tiles,
    decode,
    lossy_methods,
    places,
    tile_size,
)
from converters.readers.czi_segments import Czi
from converters.slide import DEFAULT_TILE, Level, Pixels, PixelTiles, PixelType, RealWorldMapping, TileMap

MAX_TILES = 4_000_000
MAX_SCENES = 2000
MAX_PLANES = 10_000
OWN_TILES = range(64, 2049)  # edges of the scanner's tiles that are kept
MAX_COPIED_TILE = 4096
BGR48, FLOAT = 4, 2
COVERAGE_CELLS = 512  # along the longer edge


@dataclass(frozen=True)
class Part:
    """The sub-blocks of one pyramid, every level of it; ``factors`` is how many pixels of the
    finest level one of theirs covers. ``channels`` and ``planes`` are C and Z, ascending."""

    scene: int
    time: int
    colour: bool
    blocks: NDArray[np.intp]
    factors: NDArray[np.int64]
    channels: tuple[int, ...]
    planes: tuple[int, ...]

    @property
    def finest(self) -> NDArray[np.intp]:
        result: NDArray[np.intp] = self.blocks[self.factors == 1]
        return result


def parts(czi: Czi) -> list[Part]:
    """One for each scene and time point, colour before grey. Raises UnsupportedPixels."""
    rows = czi.blocks
    for name, count in sorted(czi.others.items()):
        if count > 1:
            raise UnsupportedPixels(f"{count} images of each place (dimension {name}) are not read")
    unknown = sorted(set(np.unique(rows["pixel_type"]).tolist()) - set(SAMPLES))
    if unknown:
        raise UnsupportedPixels(f"pixels of CZI's type {unknown[0]} are not read")
    colour = np.isin(rows["pixel_type"], [kind for kind, (_, samples) in SAMPLES.items() if samples == 3])
    factors = _factors(rows)
    slightly = (factors > 1) & (2 * rows["columns"] < 3 * rows["stored_columns"])
    if (slightly & (2 * rows["rows"] < 3 * rows["stored_rows"])).any():
        raise UnsupportedPixels("tiles that are resampled by less than one half are not read")
    if not (factors == 1).any():
        raise UnsupportedPixels("the finest level is not in the file")
    # Coarse levels may reach over several scenes: those are in no scene, and not needed.
    keys = np.stack((rows["scene"], rows["time"], ~colour), axis=1)
    found = []
    wanted = np.unique(keys[factors == 1], axis=0)
    if len(wanted) > MAX_SCENES:
        raise UnsupportedPixels(f"more than {MAX_SCENES} scenes and time points")
    for key in wanted:
        blocks = np.flatnonzero((keys == key).all(axis=1))
        blocks = blocks[np.lexsort((blocks, rows["order"][blocks]))]
        finest = rows[blocks[factors[blocks] == 1]]
        low, high = int(finest["z"].min()), int(finest["z"].max())
        if high - low >= MAX_PLANES:
            raise UnsupportedPixels(f"more than {MAX_PLANES} focal planes")
        found.append(
            Part(
                scene=int(key[0]),
                time=int(key[1]),
                colour=not key[2],
                blocks=blocks,
                factors=factors[blocks],
                channels=tuple(np.unique(finest["channel"]).tolist()),
                planes=tuple(range(low, high + 1)),
            )
        )
    return found


def _factors(rows: NDArray[np.void]) -> NDArray[np.int64]:
    """How many pixels of the finest level one of a sub-block covers: sizes are rounded, so
    that the longer edge tells more."""
    wide = rows["columns"] >= rows["rows"]
    covered = np.where(wide, rows["columns"], rows["rows"])
    stored = np.where(wide, rows["stored_columns"], rows["stored_rows"])
    exact = (rows["columns"] == rows["stored_columns"]) & (rows["rows"] == rows["stored_rows"])
    sizes, which = np.unique(covered / stored, return_inverse=True)
    likely = np.array([2**n for n in range(31)] + [3**n for n in range(1, 20)], dtype=np.float64)
    nearest = likely[np.abs(np.log(sizes)[:, None] - np.log(likely)[None]).argmin(axis=1)][which]
    good = np.abs(covered - stored * nearest) <= nearest
    factor = np.where(good, nearest, np.maximum(np.rint(covered / stored), 2)).astype(np.int64)
    result: NDArray[np.int64] = np.where(exact, 1, np.maximum(factor, 2))
    return result


@dataclass(frozen=True)
class Samples:
    """How the samples of a file become those of DICOM, by channel (C)."""

    bits: dict[int, int]  # in use, of colours of 16
    mappings: dict[int, RealWorldMapping]  # of floats

    def of(self, pixels: NDArray[np.generic], channel: int, kind: str) -> Pixels:
        if pixels.dtype == np.float32:
            mapping = self.mappings[channel]
            stored = np.rint((pixels.astype(np.float64) - mapping.intercept) / mapping.slope)
            mapped: Pixels = np.clip(np.nan_to_num(stored), 0, 65535).astype(np.uint16)
            return mapped
        if pixels.dtype.itemsize == 2 and kind == "u1":
            shift = self.bits.get(channel, 16) - 8
            reduced: Pixels = np.minimum(pixels.astype(np.uint16) >> shift, 255).astype(np.uint8)
            return reduced
        same: Pixels = pixels.astype(kind, copy=False)
        return same


def float_mappings(czi: Czi) -> dict[int, RealWorldMapping]:
    """For each channel of floats, what 0 to 65535 stand for: its least and largest value.
    Decodes all of them. Raises DamagedSlide."""
    rows = czi.blocks
    floats = np.flatnonzero((rows["pixel_type"] == FLOAT) & (_factors(rows) == 1))
    ranges: dict[int, tuple[float, float]] = {}
    for block in floats:
        pixels = decode(czi, int(block))
        finite = pixels[np.isfinite(pixels)]
        if finite.size:
            channel = int(rows["channel"][block])
            low, high = ranges.get(channel, (np.inf, -np.inf))
            ranges[channel] = min(low, float(finite.min())), max(high, float(finite.max()))
    mappings = {}
    for channel in np.unique(rows["channel"][floats]).tolist():
        low, high = ranges.get(channel, (0.0, 0.0))
        mappings[channel] = RealWorldMapping(
            slope=(high - low) / 65535 or 1.0,
            intercept=low,
            explanation="32-bit floats mapped linearly to 16 bits",
        )
    return mappings


def levels(
    czi: Czi, part: Part, samples: Samples, spacing_mm: tuple[float, float] | None, trust_coarse: bool
) -> tuple[Sequence[Level], tuple[str, ...]]:
    """The levels of a part, finest first, and findings. Raises DamagedSlide."""
    rows = czi.blocks
    finest = rows[part.finest]
    left, top = int(finest["x"].min()), int(finest["y"].min())
    extent = (
        int((finest["y"] + finest["rows"]).max()) - top,
        int((finest["x"] + finest["columns"]).max()) - left,
    )
    found: list[Level] = []
    findings: list[str] = []
    covered = list(_coverage(czi, part, part.finest, (left, top), extent))
    for factor in np.unique(part.factors).tolist():
        blocks = part.blocks[part.factors == factor]
        if factor > 1:
            coarse = _coverage(czi, part, blocks, (left, top), extent)
            if not trust_coarse or any(
                (here & ~there).any() for here, there in zip(covered, coarse, strict=True)
            ):
                findings.append(f"the level of {factor} to 1 is out of date or incomplete: computed anew")
                continue
        found.append(_level(czi, part, blocks, factor, (left, top), extent, samples, spacing_mm, len(found)))
    return tuple(found), tuple(findings)


def _coverage(
    czi: Czi, part: Part, blocks: NDArray[np.intp], origin: tuple[int, int], extent: tuple[int, int]
) -> Iterator[NDArray[np.bool_]]:
    """For each channel and plane: which cells of a coarse grid over the scene tiles touch."""
    cell = max(64, -(-max(extent) // COVERAGE_CELLS))
    shape = -(-extent[0] // cell), -(-extent[1] // cell)
    for mine in _slices(czi, part, blocks).values():
        touched = np.zeros(shape, np.bool_)
        rows = czi.blocks[mine]
        top, left = rows["y"] - origin[1], rows["x"] - origin[0]
        bottom, right = -(-(top + rows["rows"]) // cell), -(-(left + rows["columns"]) // cell)
        edges = np.stack((np.maximum(top, 0) // cell, np.maximum(left, 0) // cell, bottom, right), axis=1)
        for above, before, below, after in np.maximum(edges, 0).tolist():
            touched[above:below, before:after] = True
        yield touched


def _slices(czi: Czi, part: Part, blocks: NDArray[np.intp]) -> Slices:
    rows = czi.blocks[blocks]
    return {
        (path, plane): blocks[(rows["channel"] == channel) & (rows["z"] == z)]
        for path, channel in enumerate(part.channels)
        for plane, z in enumerate(part.planes)
    }


def _level(
    czi: Czi,
    part: Part,
    blocks: NDArray[np.intp],
    factor: int,
    origin: tuple[int, int],
    extent: tuple[int, int],
    samples: Samples,
    spacing_mm: tuple[float, float] | None,
    index: int,
) -> Level:
    kinds = set(np.unique(czi.blocks["pixel_type"][blocks]).tolist())
    kind = "u1" if part.colour or kinds <= {0} else "u2"
    whole = Canvas(
        -(-extent[0] // factor), -(-extent[1] // factor), 1, 1, 3 if part.colour else 1, kind, factor, origin
    )
    reach = places(czi, whole, blocks).max(axis=0)
    rows, columns = min(whole.rows, int(reach[2])), min(whole.columns, int(reach[3]))
    own = tile_size(czi, blocks, origin)
    copied = own is not None and _is_copyable(czi, blocks, kinds, own)
    scattered = own is None and len(blocks) > len(part.channels) * len(part.planes)
    if own is None or not (copied or (own[0] in OWN_TILES and own[1] in OWN_TILES)):
        own = min(DEFAULT_TILE, rows), min(DEFAULT_TILE, columns)
    count = -(-rows // own[0]) * -(-columns // own[1]) * len(part.channels) * len(part.planes)
    if count > MAX_TILES:
        raise DamagedSlide(f"a scene of more than {MAX_TILES} tiles")
    canvas = Canvas(rows, columns, *own, whole.samples, kind, factor, origin)
    slices = {key: mine for key, mine in _slices(czi, part, blocks).items() if len(mine)}
    bits = 8 if kind == "u1" else 16
    return Level(
        index=index,
        rows=rows,
        columns=columns,
        tile_rows=own[0],
        tile_columns=own[1],
        tiles=_tile_map(czi, part, canvas, slices, count)
        if copied
        else _pixel_tiles(czi, part, canvas, slices, samples, count, scattered),
        pixel_type=PixelType(whole.samples, bits, bits),
        pixel_spacing_mm=(spacing_mm[0] * factor, spacing_mm[1] * factor) if spacing_mm else None,
        downsample=float(factor),
        optical_paths=len(part.channels),
        focal_planes=len(part.planes),
        history=", ".join(_compressions(czi, blocks)),
        absent_colour=(255, 255, 255) if part.colour else 0,
    )


def _compressions(czi: Czi, blocks: NDArray[np.intp]) -> list[str]:
    numbers = np.unique(czi.blocks["compression"][blocks]).tolist()
    return sorted({COMPRESSIONS.get(number, str(number)) for number in numbers})


def _is_copyable(czi: Czi, blocks: NDArray[np.intp], kinds: set[int], size: tuple[int, int]) -> bool:
    jpeg = bool((czi.blocks["compression"][blocks] == JPEG).all())
    return jpeg and len(kinds) == 1 and kinds <= {0, 3} and max(size) <= MAX_COPIED_TILE


def _tile_map(czi: Czi, part: Part, canvas: Canvas, slices: Slices, count: int) -> TileMap:
    offsets, lengths = np.zeros(count, np.uint64), np.zeros(count, np.uint64)
    down, across = -(-canvas.rows // canvas.tile_rows), -(-canvas.columns // canvas.tile_columns)
    for (path, plane), blocks in slices.items():
        for block, (top, left, _, _) in zip(
            blocks.tolist(), places(czi, canvas, blocks).tolist(), strict=True
        ):
            at = (path * len(part.planes) + plane) * down + top // canvas.tile_rows
            index = at * across + left // canvas.tile_columns
            position, length = czi.pixels_at(block)
            offsets[index], lengths[index] = czi.window.start + position, length
    return TileMap(offsets, lengths)


def _pixel_tiles(
    czi: Czi, part: Part, canvas: Canvas, slices: Slices, samples: Samples, count: int, scattered: bool
) -> PixelTiles:
    def convert(pixels: NDArray[np.generic], path: int) -> Pixels:
        return samples.of(pixels, part.channels[path], canvas.kind)

    painter = Painter(czi, canvas, slices, convert)
    down, across = -(-canvas.rows // canvas.tile_rows), -(-canvas.columns // canvas.tile_columns)
    grid = len(part.channels), len(part.planes), down, across
    every = np.concatenate(list(slices.values()))
    used = set(np.unique(czi.blocks["compression"][every]).tolist())
    lossy = lossy_methods(czi, every)

    def read(frame_index: int) -> Pixels:
        path, plane, row, column = (int(at) for at in np.unravel_index(frame_index, grid))
        return painter.region(
            path,
            plane,
            row * canvas.tile_rows,
            column * canvas.tile_columns,
            canvas.tile_rows,
            canvas.tile_columns,
        )

    return PixelTiles(
        read=read,
        count=count,
        why=_why(czi, every, used, scattered),
        lossy_method=lossy[-1] if lossy else "",
        missing=absent_tiles(grid, canvas, czi, slices),
    )


def _why(czi: Czi, blocks: NDArray[np.intp], used: set[int], scattered: bool) -> str:
    kinds = set(np.unique(czi.blocks["pixel_type"][blocks]).tolist())
    if scattered:
        return "tiles overlap, or lie on no grid"
    if FLOAT in kinds:
        return "samples are 32-bit floats"
    if BGR48 in kinds:
        return "colours have 16 bits"
    if used == {UNCOMPRESSED}:
        return "tiles are not compressed"
    return f"DICOM cannot hold tiles of {' and '.join(_compressions(czi, blocks))}"


def whole_image(czi: Czi, part: Part, samples: Samples) -> tuple[int, int, Callable[[], Pixels]]:
    """(rows, columns, what draws it) of the finest level's first channel and plane, in 8 bits."""
    rows = czi.blocks[part.finest]
    left, top = int(rows["x"].min()), int(rows["y"].min())
    height = int((rows["y"] + rows["rows"]).max()) - top
    width = int((rows["x"] + rows["columns"]).max()) - left
    canvas = Canvas(height, width, height, width, 3 if part.colour else 1, "u1", 1, (left, top))
    first = {(0, 0): _slices(czi, part, part.finest)[0, 0]}

    def draw() -> Pixels:
        def convert(pixels: NDArray[np.generic], path: int) -> Pixels:
            return samples.of(pixels, part.channels[path], canvas.kind)

        return Painter(czi, canvas, first, convert).region(0, 0, 0, 0, height, width)

    return height, width, draw
