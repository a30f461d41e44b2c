# SPDX-License-Identifier: Apache-2.0
"""IIIF Image API 3.0, level 2: ``/iiif/3/{uid}/{region}/{size}/{rotation}/{quality}.{format}``.

The identifier is the UID of a series (its largest image) or of an instance (the image that
it is part of). A browser of another origin reads it where ``http.cors_origins`` lists it:
``*``, which the IIIF would like, would open a hospital's slides to every web page.
"""

import json
from collections.abc import Sequence

from flask import Blueprint, Response, request

from archive.values import Pyramid
from dicomweb.context import base_url, web
from dicomweb.errors import BadRequest
from dicomweb.iiif_request import Asked, parse_request
from dicomweb.tiles import MEDIA_TYPES, Piece, description, find_pyramid, give, reduction, tile_pixels

iiif = Blueprint("iiif", __name__, url_prefix="/iiif/3")

CONTEXT = "http://iiif.io/api/image/3/context.json"
LEVEL_2 = "http://iiif.io/api/image/3/level2.json"
_TONES = {"default": "colour", "color": "colour", "gray": "grey", "bitonal": "bitonal"}


def _place(identifier: str) -> str:
    return f"{base_url()}{iiif.url_prefix}/{identifier}"


@iiif.get("/<uid:identifier>")
def redirect_to_description(identifier: str) -> Response:
    """The image's own URI leads to its description (Section 2.1)."""
    find_pyramid(identifier)
    response = Response(status=303)
    response.headers["Location"] = f"{_place(identifier)}/info.json"
    return response


@iiif.get("/<uid:identifier>/info.json")
def describe(identifier: str) -> Response:
    """Sizes, tiles and abilities of an image (Section 5)."""
    pyramid = find_pyramid(identifier)
    finest, limit = pyramid.levels[0], web().settings.rendered_pixels
    across, down = tile_pixels(pyramid)
    smaller = [level for level in reversed(pyramid.levels) if max(level.columns, level.rows) <= limit]
    made = {
        "@context": CONTEXT,
        "id": _place(identifier),
        "type": "ImageService3",
        "protocol": "http://iiif.io/api/image",
        "profile": "level2",
        "width": finest.columns,
        "height": finest.rows,
        "maxWidth": limit,
        "maxHeight": limit,
        "sizes": [{"width": level.columns, "height": level.rows} for level in smaller],
        "tiles": [{"width": across, "height": down, "scaleFactors": _factors(pyramid, across, down)}],
        "preferredFormats": ["jpg"],
        "extraFormats": ["gif", "webp"],
        "extraQualities": ["color", "gray", "bitonal"],
        "extraFeatures": ["canonicalLinkHeader", "mirroring", "profileLinkHeader", "sizeUpscaling"],
    }
    linked = "application/ld+json" in request.headers.get("Accept", "")
    content_type = f'application/ld+json;profile="{CONTEXT}"' if linked else "application/json"
    response = description(json.dumps(made).encode(), content_type, vary="Accept")
    response.headers["Link"] = f'<{LEVEL_2}>;rel="profile"'
    return response


def _factors(pyramid: Pyramid, across: int, down: int) -> list[int]:
    """Powers of two until one tile is the whole image, and what the levels are smaller by."""
    finest = pyramid.levels[0]
    factors = [1]
    while factors[-1] * across < finest.columns or factors[-1] * down < finest.rows:
        factors.append(factors[-1] * 2)
    stored = {reduction(finest, level) for level in pyramid.levels} - {0}
    return sorted(stored | set(factors))


@iiif.get("/<uid:identifier>/<region>/<size>/<rotation>/<name>")
def give_image(identifier: str, region: str, size: str, rotation: str, name: str) -> Response:
    """A region in a size, mirrored, turned, in a quality and a format (Section 4)."""
    pyramid = find_pyramid(identifier)
    finest, limit = pyramid.levels[0], web().settings.rendered_pixels
    asked = parse_request(region, size, rotation, (finest.columns, finest.rows), limit)
    quality, _, form = name.partition(".")
    if quality not in _TONES or form not in MEDIA_TYPES:
        raise BadRequest("quality must be " + ", ".join(_TONES) + "; format one of " + ", ".join(MEDIA_TYPES))
    changes: dict[str, object] = {}
    if asked.mirrored or asked.degrees:
        changes |= {"flip_columns": asked.mirrored, "rotation": asked.degrees}
    if _TONES[quality] != "colour":
        changes["tone"] = _TONES[quality]
    response = give(pyramid, Piece(*asked.region, *asked.size), MEDIA_TYPES[form], changes)
    whole = (0, 0, finest.columns, finest.rows)
    where = _canonical(asked, whole, limit)
    response.headers["Link"] = (
        f'<{LEVEL_2}>;rel="profile", <{_place(identifier)}/{where}/{quality}.{form}>;rel="canonical"'
    )
    return response


def _canonical(asked: Asked, whole: Sequence[int], limit: int) -> str:
    """The request in the one form of Section 4.7."""
    region = "full" if asked.region == tuple(whole) else ",".join(map(str, asked.region))
    width, height = asked.region[2:]
    scale = min(1.0, limit / width, limit / height)
    largest = max(1, round(width * scale)), max(1, round(height * scale))
    grown = "^" if asked.size[0] > width or asked.size[1] > height else ""
    size = "max" if asked.size == largest else f"{grown}{asked.size[0]},{asked.size[1]}"
    return f"{region}/{size}/{'!' if asked.mirrored else ''}{asked.degrees}"
