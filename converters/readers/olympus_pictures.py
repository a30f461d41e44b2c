# SPDX-License-Identifier: Apache-2.0
"""Label, macro and overview of an Olympus slide: small image stacks, or pages of the .vsi."""

from collections.abc import Sequence

import numpy as np
import tifffile
from numpy.typing import NDArray

from archive.part10.codestream import sniff
from converters.errors import ConversionError
from converters.readers.encoded_tiles import LOSSY_METHODS, tile_bytes
from converters.readers.olympus_ets import BMP, JPEG, JPEG_2000, JPEG_LOSSLESS, PNG, EtsFile
from converters.readers.olympus_levels import Axes, levels
from converters.readers.olympus_words import DEFAULT_IMAGE, KINDS, MACRO, OVERVIEW, Stack
from converters.readers.tiff_pages import associated_image
from converters.slide import AssociatedImage, Level, PixelTiles, Role, TileMap

CODINGS = {JPEG: "JPEG", JPEG_2000: "JPEG2000", JPEG_LOSSLESS: "JPEG", PNG: "PNG", BMP: "BMP"}
MOST_PIXELS = 16_000_000
"""An overview may be a pyramid itself: its finest level below this is taken."""


def role_of(stack: Stack) -> Role | None:
    """LABEL or OVERVIEW for a stack that shows the glass, None for any other."""
    name = stack.name.lower()
    if stack.kind not in (DEFAULT_IMAGE, OVERVIEW, MACRO):
        return None
    if "label" in name or "barcode" in name:
        return Role.LABEL
    if stack.kind in (OVERVIEW, MACRO) or name in ("overview", "macro", "macro image"):
        return Role.OVERVIEW
    return None


def stack_picture(stack: Stack, ets: EtsFile, axes: Axes, role: Role) -> AssociatedImage | None:
    """The stack as one picture; None where it has channels, planes, time points or more than
    8 bits, and is better a scene. Raises as :func:`converters.readers.olympus_levels.levels`."""
    if (axes.channels, axes.planes, axes.times) != (1, 1, 1) or ets.dtype != np.uint8:
        return None
    fitting = [
        level for level in levels(stack, ets, axes, 0, 0, []) if level.rows * level.columns <= MOST_PIXELS
    ]
    if not fitting:
        return None
    level = fitting[0]
    return AssociatedImage(
        role=role,
        rows=level.rows,
        columns=level.columns,
        read=lambda: _joined(level, ets),
        compression=CODINGS.get(ets.compression, "raw"),
        lossy_method="" if _is_lossless(level, ets) else LOSSY_METHODS[CODINGS[ets.compression]],
        encoded_bytes=level.tiles.size_bytes,
    )


def _is_lossless(level: Level, ets: EtsFile) -> bool:
    if not isinstance(level.tiles, TileMap):
        return True
    first = int(np.flatnonzero(~level.tiles.absent)[0])
    return bool(sniff(tile_bytes(ets.path, level.tiles, first)).reversible)


def _joined(level: Level, ets: EtsFile) -> NDArray[np.uint8]:
    whole = np.empty(
        (level.tiles_down * level.tile_rows, level.tiles_across * level.tile_columns, ets.components),
        np.uint8,
    )
    read = level.tiles.read if isinstance(level.tiles, PixelTiles) else level.reference
    assert read is not None
    absent = level.tiles.absent
    for row in range(level.tiles_down):
        for column in range(level.tiles_across):
            index = level.frame_index(0, 0, row, column)
            tile = ets.pixels(0, 0) if absent[index] else read(index)
            top, left = row * level.tile_rows, column * level.tile_columns
            whole[top : top + level.tile_rows, left : left + level.tile_columns] = tile
    return np.ascontiguousarray(whole[: level.rows, : level.columns])


def page_pictures(
    pages: Sequence["tifffile.TiffPage"],
    internal: Sequence[Stack],
    size: tuple[int, int],
    taken: set[Role],
    findings: list[str],
) -> list[AssociatedImage]:
    """Pages of the .vsi: those that a stack names by its kind; the first of the others as
    THUMBNAIL if it has the shape of the main image of ``size`` (rows, columns), else as
    OVERVIEW. ``taken`` roles are not given again."""
    images = []
    used = {stack.page for stack in internal}
    wanted: list[tuple[int | None, Role | None, str]] = [
        (stack.page, role_of(stack), KINDS.get(stack.kind, "a picture")) for stack in internal
    ]
    for number in range(len(pages)):
        if number not in used:
            ratio = pages[number].imagewidth * size[0] / max(1, pages[number].imagelength * size[1])
            shape = Role.THUMBNAIL if 0.95 < ratio < 1.05 else Role.OVERVIEW
            wanted.append((number, shape, "a picture"))
    for page, role, kind in wanted:
        if page is None or not 0 <= page < len(pages) or role is None or role in taken:
            findings.append(f"{kind} within the .vsi was left out")
            continue
        try:
            images.append(associated_image(pages[page], role))
            taken.add(role)
        except ConversionError as refusal:
            findings.append(f"{kind} within the .vsi was left out: {refusal}")
    return images
