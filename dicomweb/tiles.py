# SPDX-License-Identifier: Apache-2.0
"""What the doors for viewers that speak no DICOMweb share: a slide's pyramid, and a
rectangle of it in a size, as the stored tile where it is just that.

They have the archive's rules and audit trail like every other resource, and no label or
overview is behind them.
"""

import hashlib
from dataclasses import dataclass, replace

from flask import Response, request

from archive.values import Fit, Instance, Pyramid, PyramidLevel
from dicomweb.context import archive, caller, web
from dicomweb.rendering import parse_rendering
from dicomweb.responses import etag_of, is_known, labelled, not_modified

CACHED = "private, max-age=3600"
"""A level may still come, or the slide go."""

MEDIA_TYPES = {"jpg": "image/jpeg", "png": "image/png", "gif": "image/gif", "webp": "image/webp"}
_PIXELS_OFF = 1.0  # a level of 1001 columns is half of 2001
_USUAL_TILE = 256
_SETTINGS = ("opticalpath", "focalplane", "window", "quality", "iccprofile")


@dataclass(frozen=True, slots=True)
class Piece:
    """A rectangle of a level (0 is the finest), in its pixels, and the size it is shown in."""

    left: int
    top: int
    width: int
    height: int
    columns: int
    rows: int
    level: int = 0


def find_pyramid(uid: str, study: str = "") -> Pyramid:
    """Of a series, or of one of its instances. Raises NotFound."""
    return archive().pyramid(study, uid, **caller())


def tile_pixels(pyramid: Pyramid) -> tuple[int, int]:
    """Columns and rows of the tiles to ask for: the stored ones if a viewer can use them."""
    finest = pyramid.levels[0]
    limit = web().settings.rendered_pixels
    if finest.tile_columns > limit or finest.tile_rows > limit:
        return _USUAL_TILE, _USUAL_TILE
    return finest.tile_columns, finest.tile_rows


def reduction(finer: PyramidLevel, level: PyramidLevel) -> int:
    """By which whole number a level is smaller than a finer one; 0 if by none."""
    factor = round(finer.columns / level.columns)
    for whole, part in ((finer.columns, level.columns), (finer.rows, level.rows)):
        if abs(whole / factor - part) > _PIXELS_OFF:
            return 0
    return factor


def give(
    pyramid: Pyramid,
    piece: Piece,
    media_type: str,
    changes: dict[str, object] | None = None,
    vary: str = "",
) -> Response:
    """The picture of a piece; ``changes`` to its rendering (rotation, flips, tone). Query
    parameters of ``/rendered`` hold, but for the viewport."""
    settings = {name: request.args[name] for name in _SETTINGS if name in request.args}
    etag = etag_of("tile", pyramid.etag, piece, media_type, settings, changes)
    plain = parse_rendering(settings, media_type, 1, (1, 1))
    if is_known(etag):
        return not_modified(etag, CACHED, vary)
    data = None
    if media_type == "image/jpeg" and not settings and not changes:
        data = _stored(pyramid, piece)
    if data is None:
        rendering = replace(
            plain,
            region=(float(piece.top), float(piece.left), float(piece.height), float(piece.width)),
            rows=piece.rows,
            columns=piece.columns,
            fit=Fit.EXACT,
        )
        rendering = replace(rendering, **(changes or {}))  # type: ignore[arg-type]
        data = archive().rendered(_instance(pyramid, pyramid.levels[piece.level]), 0, rendering, **caller())
    response = Response(data, content_type=media_type)
    return labelled(response, etag, CACHED, vary)


def _instance(pyramid: Pyramid, level: PyramidLevel) -> Instance:
    return archive().instance(
        pyramid.study_instance_uid, pyramid.series_instance_uid, level.sop_instance_uid, **caller()
    )


def _stored(pyramid: Pyramid, piece: Piece) -> bytes | None:
    """The stored tile that a piece is exactly, undecoded."""
    counted = pyramid.levels[piece.level]
    for level in pyramid.levels[piece.level :]:
        if (piece.columns, piece.rows) != (level.tile_columns, level.tile_rows):
            continue
        factor = reduction(counted, level)
        across, down = level.tile_columns * factor, level.tile_rows * factor
        if not factor or (piece.width, piece.height) != (across, down):
            continue
        if piece.left % across or piece.top % down:
            continue
        row, column = piece.top // down, piece.left // across
        return archive().tile(_instance(pyramid, level), row, column, **caller())
    return None


def description(body: bytes, content_type: str, vary: str = "") -> Response:
    """A document that describes a pyramid."""
    etag = f'"{hashlib.sha256(body + content_type.encode()).hexdigest()[:32]}"'
    if is_known(etag):
        return not_modified(etag, CACHED, vary)
    return labelled(Response(body, content_type=content_type), etag, CACHED, vary)
