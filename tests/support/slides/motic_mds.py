# SPDX-License-Identifier: Apache-2.0
"""Motic MDS: a compound file with a storage for each layer, a stream for each tile."""

from pathlib import Path

from tests.support.slides.compound import Tree, write_compound_file
from tests.support.slides.motic import MoticSlide


def write_motic_mds(
    folder: Path,
    slide: MoticSlide | None = None,
    *,
    scattered: bool = False,
    sector: int = 512,
    pictures: bool = True,
    name: str = "motic.mds",
) -> Path:
    """``scattered``: no two sectors of a stream side by side. ``pictures`` False leaves label
    and macro out."""
    slide = slide or MoticSlide()
    image: dict[str, bytes | Tree] = {"MoticDigitalSlideImage": slide.image_xml().encode("utf-16")}
    for layer, cells in enumerate(slide.cells()):
        streams = {f"{row:04d}_{column:04d}": data for (row, column), data in cells.items()}
        image[f"{1 / 2**layer:g}"] = streams
    tree: dict[str, bytes | Tree] = {"DSI0": image, "Property": slide.property_xml().encode("utf-16")}
    if pictures:
        tree |= {"Label": slide.label(), "Macro": slide.macro()}
    return write_compound_file(folder / name, tree, sector=sector, scattered=scattered)
