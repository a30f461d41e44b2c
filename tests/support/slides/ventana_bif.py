# SPDX-License-Identifier: Apache-2.0
"""Ventana BIF files for tests; see ``converters.readers.ventana_bif``."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile

from tests.support.make_slide import fit, picture, shrink
from tests.support.slides.jpeg_pages import Pixels, write_tiled

XMP = 700


@dataclass(frozen=True)
class Area:
    """One scanned area of ``tiles`` (down, across), the first of them at ``start`` of the
    page's grid. ``overlap_x`` is that of each gap between columns, ``overlap_y`` between
    rows; one number for all gaps. ``position`` is its lower left corner, (up, right) in
    pixels."""

    tiles: tuple[int, int] = (3, 4)
    start: tuple[int, int] = (0, 0)
    overlap_x: int | Sequence[int] = 0
    overlap_y: int | Sequence[int] = 0
    position: tuple[int, int] = (0, 0)
    scanned: bool = True
    seed: int = 41

    def places(self, tile: int) -> tuple[list[int], list[int]]:
        """Where rows and columns of tiles begin, in pixels."""
        found: list[list[int]] = []
        for count, overlap in zip(self.tiles, (self.overlap_y, self.overlap_x), strict=True):
            gaps = [overlap] * (count - 1) if isinstance(overlap, int) else list(overlap)
            found.append([0])
            for gap in gaps:
                found[-1].append(found[-1][-1] + tile - gap)
        return found[0], found[1]

    def pixels(self, tile: int, plane: int = 0) -> Pixels:
        """What the glass shows in this area."""
        tops, lefts = self.places(tile)
        return picture(tops[-1] + tile, lefts[-1] + tile, self.seed + 7 * plane)


def write_ventana_bif(
    folder: Path,
    *,
    areas: Sequence[Area] = (Area(),),
    tile: int = 256,
    grid: tuple[int, int] | None = None,
    levels: int = 3,
    planes: int = 1,
    missing: Collection[int] = (),
    legacy: bool = False,
    direction: tuple[str, str] = ("RIGHT", "UP"),
    confidence: int = 100,
    doubtful: bool = False,
    label: bool = True,
    label_boundary: int = 0,
    encode_info: bool = True,
    version: int = 2,
) -> Path:
    """Write ``slide.bif``: photograph of the glass, map of tissue (or thumbnail), levels.

    ``grid`` is the page's tiles (down, across), by default just those of the areas.
    ``legacy`` writes as an iScan did: tables shared by tiles, a thumbnail, no model.
    ``doubtful`` adds joints of wrong overlap and little confidence. Planes are stored
    as the scanner does: the nominal one, nearer ones, farther ones.
    """
    if grid is None:
        grid = (
            max(area.start[0] + area.tiles[0] for area in areas),
            max(area.start[1] + area.tiles[1] for area in areas),
        )
    mosaics = [_mosaic(areas, tile, grid, plane) for plane in stored_planes(planes)]
    scan = _iscan(legacy, planes, label_boundary)
    stitching = _stitching(areas, tile, direction, confidence, doubtful)
    encoding = f'<?xml version="1.0"?>\n<EncodeInfo Ver="{version}"><SlideInfo>{scan}</SlideInfo>{stitching}'
    encoding += "</EncodeInfo>"
    path = folder / "slide.bif"
    with tifffile.TiffWriter(path, bigtiff=True) as writer:
        if label:
            xmp = scan if legacy else f"<Metadata>{scan}</Metadata>"
            writer.write(
                picture(400, 140, 40),
                photometric="rgb",
                rowsperstrip=64,
                description="Label Image" if legacy else "Label_Image",
                metadata=None,
                software="ScanOutputManager 1.1.0.15854",
                extratags=_xmp(xmp),
            )
        if legacy:
            _whole_jpeg(writer, fit(mosaics[0], 128), "Thumbnail")
        else:
            probability = np.ascontiguousarray(fit(mosaics[0], 96)[..., 0])
            writer.write(
                probability, compression="lzw", description="Probability_Image", metadata=None, software=False
            )
        for level in range(levels):
            factor = 2**level
            stack = mosaics if level == 0 else [shrink(mosaic, factor) for mosaic in mosaics]
            write_tiled(
                writer,
                stack if planes > 1 else stack[0],
                tile,
                description=f"level={level} mag={40 / factor:g} quality=95",
                subsampling=(2, 1) if legacy else (1, 1),
                missing=missing if level == 0 else (),
                shared_tables=legacy,
                quality=95,
                datetime="2012-10-29 21:12:59" if level == 0 else None,
                software=False,
                extra=_xmp(encoding) if level == 0 and encode_info else (),
            )
    return path


def write_stitched(folder: Path) -> Path:
    """An old scanner's file, with overlapping tiles."""
    return write_ventana_bif(folder, areas=(Area(overlap_x=21, overlap_y=10),), legacy=True)


def stored_planes(planes: int) -> list[int]:
    """Heights of the planes, from 0, in the order in which they are stored."""
    near = (planes - 1) // 2
    return [near, *range(near - 1, -1, -1), *range(near + 1, planes)]


def _mosaic(areas: Sequence[Area], tile: int, grid: tuple[int, int], plane: int) -> Pixels:
    """The page: every area's camera tiles side by side, overlaps and all."""
    whole = np.full((grid[0] * tile, grid[1] * tile, 3), 235, np.uint8)
    for area in areas:
        pixels = area.pixels(tile, plane)
        tops, lefts = area.places(tile)
        for row, top in enumerate(tops):
            for column, left in enumerate(lefts):
                y, x = (area.start[0] + row) * tile, (area.start[1] + column) * tile
                whole[y : y + tile, x : x + tile] = pixels[top : top + tile, left : left + tile]
    return whole


def _iscan(legacy: bool, planes: int, label_boundary: int) -> str:
    model = "" if legacy else 'ScannerModel="VENTANA DP 200" ScanWhitePoint="235" Barcode2D="S19-00042" '
    number = "BI10N0306" if legacy else "2000515"
    build = "3.3.1.1" if legacy else "1.1.0.15854"
    return (
        f'<iScan {model}Magnification="40" ScanRes="0.25" UnitNumber="{number}" UserName="Operator" '
        f'BuildVersion="{build}" BuildDate="11/27/2019 11:6:28 AM" SlideAnnotation="" ShowLabel="1" '
        f'LabelBoundary="{label_boundary}" Z-layers="{planes}" Z-spacing="1.5" FocusMode="0" '
        'Barcode1D=""><AOI0 Left="297" Top="2323" Right="574" Bottom="2069" AOIScanned="1"/></iScan>'
    )


def _stitching(
    areas: Sequence[Area], tile: int, direction: tuple[str, str], confidence: int, doubtful: bool
) -> str:
    infos, origins = [], []
    for index, area in enumerate(areas):
        joints = []
        for row in range(area.tiles[0]):
            for column in range(area.tiles[1]):
                if column + 1 < area.tiles[1]:
                    joints.append(
                        _joint(area, tile, (row, column), (row, column + 1), direction[0], confidence)
                    )
                if row:
                    joints.append(
                        _joint(area, tile, (row, column), (row - 1, column), direction[1], confidence)
                    )
        if doubtful:
            pair = (area.tiles[0] - 1, 0), (area.tiles[0] - 1, 1)
            numbers = [serpentine(at, area.tiles) for at in pair]
            joints.append(
                f'<TileJointInfo FlagJoined="0" Confidence="20" Direction="{direction[0]}" '
                f'Tile1="{numbers[0]}" Tile2="{numbers[1]}" OverlapX="99" OverlapY="0"/>'
                f'<TileJointInfo FlagJoined="1" Confidence="20" Direction="{direction[0]}" '
                f'Tile1="{numbers[0]}" Tile2="{numbers[1]}" OverlapX="-5000" OverlapY="0"/>'
            )
        infos.append(
            f'<ImageInfo AOIScanned="{int(area.scanned)}" AOIIndex="{index}" NumRows="{area.tiles[0]}" '
            f'NumCols="{area.tiles[1]}" Width="{tile}" Height="{tile}" Pos-X="{area.position[1]}" '
            f'Pos-Y="{area.position[0]}">{"".join(joints)}</ImageInfo>'
        )
        origins.append(f'<AOI{index} OriginX="{area.start[1] * tile}" OriginY="{area.start[0] * tile}"/>')
    return f"<SlideStitchInfo>{''.join(infos)}</SlideStitchInfo><AoiOrigin>{''.join(origins)}</AoiOrigin>"


def _joint(
    area: Area, tile: int, first: tuple[int, int], second: tuple[int, int], direction: str, confidence: int
) -> str:
    tops, lefts = area.places(tile)
    overlap_x = overlap_y = 0
    if first[0] == second[0]:
        overlap_x = tile - (lefts[second[1]] - lefts[first[1]])
    else:
        overlap_y = tile - (tops[first[0]] - tops[second[0]])
    return (
        f'<TileJointInfo FlagJoined="1" Confidence="{confidence}" Direction="{direction}" '
        f'Tile1="{serpentine(first, area.tiles)}" Tile2="{serpentine(second, area.tiles)}" '
        f'OverlapX="{overlap_x}" OverlapY="{overlap_y}"/>'
    )


def serpentine(cell: tuple[int, int], tiles: tuple[int, int]) -> int:
    """The number of the tile in (row, column), as the stage went: from the lower left."""
    row = tiles[0] - 1 - cell[0]
    column = tiles[1] - 1 - cell[1] if row % 2 else cell[1]
    return row * tiles[1] + column + 1


def _whole_jpeg(writer: tifffile.TiffWriter, pixels: Pixels, description: str) -> None:
    writer.write(
        pixels,
        photometric="ycbcr",
        compression="jpeg",
        subsampling=(2, 2),
        rowsperstrip=-(-pixels.shape[0] // 16) * 16,
        description=description,
        metadata=None,
        software=False,
    )


def _xmp(text: str) -> tuple[tuple[int, int, int, bytes, bool], ...]:
    data = text.encode()
    return ((XMP, 1, len(data), data, True),)
