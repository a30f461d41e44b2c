# SPDX-License-Identifier: Apache-2.0
"""DeepZoom, for OpenSeadragon and its kin: ``/deepzoom/{uid}.dzi`` and its tiles.

Level n is 2^n pixels long at most; the last has all pixels. Tiles have the size of the
stored ones where those are square, and no overlap, so that those of levels that exist
are the stored JPEG.
"""

from flask import Blueprint, Response

from archive.errors import NotFound
from archive.values import Pyramid
from dicomweb.tiles import MEDIA_TYPES, Piece, description, find_pyramid, give, tile_pixels

deepzoom = Blueprint("deepzoom", __name__, url_prefix="/deepzoom")

_NAMESPACE = "http://schemas.microsoft.com/deepzoom/2008"
_USUAL_TILE = 256


def tile_size(pyramid: Pyramid) -> int:
    across, down = tile_pixels(pyramid)
    return across if across == down else _USUAL_TILE


def last_level(pyramid: Pyramid) -> int:
    """The number of the level that has all pixels."""
    finest = pyramid.levels[0]
    return (max(finest.columns, finest.rows) - 1).bit_length()


@deepzoom.get("/<uid:identifier>.dzi")
def describe(identifier: str) -> Response:
    """The descriptor of a series' slide, or of the image that an instance is part of."""
    pyramid = find_pyramid(identifier)
    finest = pyramid.levels[0]
    text = (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f'<Image xmlns="{_NAMESPACE}" Format="jpg" Overlap="0" TileSize="{tile_size(pyramid)}">'
        f'<Size Width="{finest.columns}" Height="{finest.rows}"/></Image>\n'
    )
    return description(text.encode(), "application/xml")


@deepzoom.get("/<uid:identifier>_files/<int:level>/<int:column>_<int:row>.<any(jpg, png):form>")
def give_tile(identifier: str, level: int, column: int, row: int, form: str) -> Response:
    """One tile; those at the right and lower edges are cut at the image's."""
    pyramid = find_pyramid(identifier)
    piece = piece_of(pyramid, level, column, row)
    return give(pyramid, piece, MEDIA_TYPES[form])


def piece_of(pyramid: Pyramid, level: int, column: int, row: int) -> Piece:
    """Raises NotFound outside of the pyramid."""
    finest, last, size = pyramid.levels[0], last_level(pyramid), tile_size(pyramid)
    if level > last:
        raise NotFound(f"no level {level}: the last is {last}")
    scale = 2 ** (last - level)
    columns, rows = -(-finest.columns // scale), -(-finest.rows // scale)
    left, top = column * size, row * size
    if left >= columns or top >= rows:
        raise NotFound(f"no tile {column}_{row} in level {level}")
    return Piece(
        left * scale,
        top * scale,
        min(size * scale, finest.columns - left * scale),
        min(size * scale, finest.rows - top * scale),
        min(size, columns - left),
        min(size, rows - top),
    )
