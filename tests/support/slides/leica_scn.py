# SPDX-License-Identifier: Apache-2.0
"""Leica SCN files for tests; see ``converters.readers.leica_scn_description``."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np
import tifffile

from tests.support.make_slide import picture, shrink
from tests.support.slides.jpeg_pages import Pixels, write_tiled

NAMESPACE = "http://www.leica-microsystems.com/scn/"
COLLECTION_NM = (76_734_000, 26_564_000)  # (down, across)
CHANNELS = (
    ("405|Empty", "#0000ff", "BP 405/60", "470/50", 105000),
    ("L5|Empty", "#00ff00", "BP 480/40", "527/30", 146000),
    ("TX2|Empty", "#ff0000", "BP 560/40", "645/75", 78500),
)
"""Name, colour, excitation and suppression filter, exposure of fluorescence channels."""


@dataclass(frozen=True)
class Region:
    """One scanned region; ``channels`` 0 is bright field. Pixels are ``nm`` wide."""

    rows: int = 900
    columns: int = 1100
    offset_nm: tuple[int, int] = (20_000_000, 8_000_000)  # (down, across)
    objective: int = 20
    nm: int = 500
    channels: int = 0
    planes: int = 1
    spacing_z_nm: int = 1500
    created: str = "2010-11-18T10:22:40.24Z"
    levels: Sequence[int] = (1, 4)
    seed: int = 21

    def pixels(self, channel: int, plane: int) -> Pixels:
        """The finest level; each channel and plane shows another picture."""
        colours = picture(self.rows, self.columns, self.seed + 7 * plane)
        return np.ascontiguousarray(colours[..., channel % 3]) if self.channels else colours


def write_leica_scn(
    folder: Path,
    *,
    regions: Sequence[Region] = (Region(),),
    tile: int = 512,
    barcode: str = "S11-00042",
    macro: bool = True,
    fluorescent_macro: bool = False,
    label: bool = False,
    old_schema: bool = False,
) -> Path:
    """Write ``slide.scn``: a macro photograph in page 0, then each region's levels, all
    channels and planes of a level one after the other, at last the label."""
    macro_pixels = picture(320, 110, 20)
    path = folder / "slide.scn"
    images: list[str] = []
    page = 0
    if macro:
        images.append(_macro(macro_pixels, page, "brightfield"))
        page += 1
    if fluorescent_macro:
        images.insert(0, _macro(macro_pixels, page, "fluorescence"))
        page += 1
    for number, region in enumerate(regions):
        count = max(1, region.channels) * region.planes
        images.append(_region(f"image_{number}", region, page))
        page += count * len(region.levels)
    if label:
        images.append(f'<supplementalImage type="label" ifd="{page}" />')
    size = f'sizeX="{COLLECTION_NM[1]}" sizeY="{COLLECTION_NM[0]}"'
    schema, attribute = "2010/10/01", ""
    if old_schema:
        schema, attribute = "2010/03/10", f' barcode="{barcode}"'
    else:
        images.insert(0, f"<barcode>{base64.b64encode(barcode.encode()).decode()}</barcode>")
    text = (
        f'<?xml version="1.0" encoding="utf-8"?><scn xmlns="{NAMESPACE}{schema}" uuid="urn:uuid:1">'
        f'<collection name="Drawn" uuid="urn:uuid:2" {size}{attribute}>{"".join(images)}</collection></scn>'
    )
    with tifffile.TiffWriter(path, bigtiff=True) as writer:
        first = True
        for pixels in [macro_pixels] * macro + [macro_pixels[..., 0]] * fluorescent_macro:
            write_tiled(writer, pixels, tile, description=text if first else None, software="Leica")
            first = False
        for region in regions:
            for factor in region.levels:
                for channel in range(max(1, region.channels)):
                    for plane in range(region.planes):
                        pixels = region.pixels(channel, plane)
                        if factor > 1:
                            pixels = shrink(pixels, factor)
                        write_tiled(
                            writer,
                            pixels,
                            tile,
                            description=text if first else None,
                            microns=region.nm * factor / 1000,
                            software="Leica",
                        )
                        first = False
        if label:
            options = {"compression": "lzw", "rowsperstrip": 32, "metadata": None}
            writer.write(picture(120, 100, 23), photometric="rgb", **options)
    return path


def write_fluorescence(folder: Path) -> Path:
    """A region of three channels and two planes."""
    return write_leica_scn(folder, regions=(Region(500, 700, channels=3, planes=2),))


def _macro(pixels: Pixels, page: int, source: str) -> str:
    rows, columns = pixels.shape[:2]
    dimension = f'<dimension sizeX="{columns}" sizeY="{rows}" r="0" ifd="{page}" />'
    return _image("image_macro", Region(rows, columns, (0, 0), 1), dimension, COLLECTION_NM, source)


def _region(name: str, region: Region, page: int) -> str:
    dimensions = []
    for resolution, factor in enumerate(region.levels):
        for channel in range(max(1, region.channels)):
            for plane in range(region.planes):
                attributes = f'r="{resolution}"'
                if region.channels:
                    attributes += f' c="{channel}"'
                if region.planes > 1:
                    attributes += f' z="{plane}"'
                dimensions.append(
                    f'<dimension sizeX="{region.columns // factor}" sizeY="{region.rows // factor}" '
                    f'{attributes} ifd="{page}" />'
                )
                page += 1
    size_nm = (region.rows * region.nm, region.columns * region.nm)
    source = "fluorescence" if region.channels else "brightfield"
    return _image(name, region, "".join(dimensions), size_nm, source)


def _image(name: str, region: Region, dimensions: str, size_nm: tuple[int, int], source: str) -> str:
    spacing = region.spacing_z_nm if region.planes > 1 else 0
    channels = "".join(
        f'<channel index="{index}" name="{escape(name)}" rgb="{rgb}"><fluorescenceCube>'
        f"<excitationFilter>{excitation}</excitationFilter>"
        f"<suppressionFilter>{suppression}</suppressionFilter></fluorescenceCube>"
        f"<exposureTime>{exposure}</exposureTime></channel>"
        for index, (name, rgb, excitation, suppression, exposure) in enumerate(CHANNELS[: region.channels])
    )
    return (
        f'<image name="{name}" uuid="urn:uuid:3"><creationDate>{region.created}</creationDate>'
        '<device model="Leica SCN400;Leica SCN" version="1.4.0.9691 2010/11/10 10:51:31;1.4.0.9691" />'
        f'<pixels sizeX="{region.columns}" sizeY="{region.rows}">{dimensions}</pixels>'
        f'<view sizeX="{size_nm[1]}" sizeY="{size_nm[0]}" offsetX="{region.offset_nm[1]}" '
        f'offsetY="{region.offset_nm[0]}" spacingZ="{spacing}" />'
        f"<scanSettings><objectiveSettings><objective>{region.objective}</objective></objectiveSettings>"
        "<illuminationSettings><numericalAperture>0.4</numericalAperture>"
        f"<illuminationSource>{source}</illuminationSource></illuminationSettings>"
        f"<channelSettings>{channels}</channelSettings></scanSettings></image>"
    )
