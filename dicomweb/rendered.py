# SPDX-License-Identifier: Apache-2.0
"""Rendered images and thumbnails (PS3.18 Sections 10.4.1.1.7, 10.4.1.1.8 and 8.3.5)."""

import hashlib
import math
import re
from collections.abc import Mapping
from dataclasses import replace

from flask import Blueprint, Response, request

from archive.errors import NoSuchFrame
from archive.values import Instance, Rendering
from dicomweb import media, urls
from dicomweb.context import archive, caller, web
from dicomweb.errors import BadRequest
from dicomweb.responses import (
    REVALIDATE,
    Part,
    accept,
    accept_query,
    etag_of,
    is_known,
    multipart_related,
    not_modified,
    single_part,
)
from dicomweb.wado import INSTANCE, SERIES, STUDY, boundary_of, location_of, parse_frame_list

rendered = Blueprint("rendered", __name__, url_prefix=urls.ROOT)

_SIZE = re.compile(r"[0-9]{1,6}")
_WINDOW_FUNCTIONS = ("linear", "linear-exact", "sigmoid")
_ICC_PROFILES = ("no", "yes", "srgb", "adobergb", "rommrgb")
FRAMES_PER_REQUEST = 64
"""Each is decoded and encoded: far fewer than stored frames."""

THUMBNAIL_PIXELS = 256
_NEVER_SHOWN = {"LABEL", "OVERVIEW"}  # Image Type value 3: there is writing on them


def parse_rendering(parameters: Mapping[str, str], media_type: str, limit: int) -> Rendering:
    """The query parameters of 8.3.5 as a Rendering of at most ``limit`` rows and columns.

    Raises BadRequest for a value out of form. Unknown parameters are ignored (8.3).
    """
    rows, columns = _viewport(parameters.get("viewport", ""), limit)
    icc_profile = parameters.get("iccprofile", "no")
    if icc_profile not in _ICC_PROFILES:
        raise BadRequest("iccprofile must be one of " + ", ".join(_ICC_PROFILES))
    if icc_profile != "no" and media_type == "image/gif":
        raise BadRequest("image/gif cannot carry an ICC profile")
    quality = parameters.get("quality", "85")
    if not re.fullmatch(r"[0-9]{1,3}", quality) or not 1 <= int(quality) <= 100:
        raise BadRequest("quality must be a whole number from 1 to 100")
    window = _window(parameters["window"]) if "window" in parameters else None
    return Rendering(media_type, int(quality), rows, columns, icc_profile, window)


def _viewport(text: str, limit: int) -> tuple[int, int]:
    """``vw,vh`` as (rows, columns), (0, 0) if absent. The source region of the six-number
    form is accepted only when it is left empty: all of the image."""
    if not text:
        return 0, 0
    width, *rest = text.split(",")
    if len(rest) not in (1, 5) or not _SIZE.fullmatch(width) or not _SIZE.fullmatch(rest[0]):
        raise BadRequest("viewport must be vw,vh in pixels")
    if any(rest[1:]):
        raise BadRequest("viewport with a source region is not supported: only vw,vh")
    columns, rows = int(width), int(rest[0])
    if not 0 < rows <= limit or not 0 < columns <= limit:
        raise BadRequest(f"viewport must be between 1 and {limit} pixels")
    return rows, columns


def _window(text: str) -> tuple[float, float, str]:
    try:
        center_text, width_text, *function = text.split(",")
        center, width = float(center_text), float(width_text)
        (shape,) = function or ["linear"]
    except ValueError:
        raise BadRequest("window must be center,width,function") from None
    if shape not in _WINDOW_FUNCTIONS or not (math.isfinite(center) and math.isfinite(width)) or width <= 0:
        raise BadRequest("window must be center,width,function with a width above 0")
    return center, width, shape


@rendered.get(f"{INSTANCE}/frames/<numbers>/rendered")
def retrieve_rendered_frames(study: str, series: str, instance: str, numbers: str) -> Response:
    """Frames as pictures; several of them are multipart only (10.4.1.1.7)."""
    wanted = parse_frame_list(numbers, FRAMES_PER_REQUEST)
    found = archive().instance(study, series, instance, **caller())
    return _pictures(found, wanted)


@rendered.get(f"{INSTANCE}/rendered")
def retrieve_rendered_instance(study: str, series: str, instance: str) -> Response:
    """One picture of the whole instance. For a tiled one that is its total pixel matrix,
    an extension: viewers ask it of LABEL, OVERVIEW and small levels. 413 for a large one.
    """
    found = archive().instance(study, series, instance, **caller())
    return _pictures(found, [0])


def _pictures(found: Instance, numbers: list[int]) -> Response:
    chosen = media.negotiate(accept(), media.offer_rendered(len(numbers)), accept_query())
    rendering = parse_rendering(request.args, chosen.media_type, web().settings.rendered_pixels)
    etag = etag_of(found.etag, "rendered", numbers, chosen, rendering)
    pictures = (archive().rendered(found, number, rendering, **caller()) for number in numbers)
    if is_known(etag) and max(numbers) <= found.number_of_frames:
        return not_modified(etag, REVALIDATE)
    if not chosen.multipart:
        picture = next(pictures)
        return single_part([picture], len(picture), chosen.content_type, etag, REVALIDATE)
    place = location_of(found)
    places = [f"{place}/frames/{number}/rendered" if number else f"{place}/rendered" for number in numbers]
    parts = [
        Part(chosen.content_type, where, [picture], len(picture))
        for where, picture in zip(places, pictures, strict=True)
    ]
    return multipart_related(parts, chosen, boundary_of(found), etag)


@rendered.get(f"{STUDY}/thumbnail")
@rendered.get(f"{SERIES}/thumbnail")
@rendered.get(f"{INSTANCE}/thumbnail")
def retrieve_thumbnail(study: str, series: str = "", instance: str = "") -> Response:
    """One small picture that shows no patient data (10.4.1.1.8): never label or overview."""
    chosen = media.negotiate(accept(), media.offer_rendered(), accept_query())
    rendering = _thumbnail_rendering(chosen)
    return _thumbnail(chosen, archive().thumbnail(study, series, instance, rendering, **caller()))


@rendered.get(f"{INSTANCE}/frames/<numbers>/thumbnail")
def retrieve_frame_thumbnail(study: str, series: str, instance: str, numbers: str) -> Response:
    """One frame, small; of an instance that may be shown."""
    (number,) = parse_frame_list(numbers, 1)
    chosen = media.negotiate(accept(), media.offer_rendered(), accept_query())
    found = archive().instance(study, series, instance, **caller())
    if not _NEVER_SHOWN.isdisjoint(found.image_type[2:3]):
        raise NoSuchFrame(number, 0)
    rendering = _thumbnail_rendering(chosen) or Rendering(rows=THUMBNAIL_PIXELS, columns=THUMBNAIL_PIXELS)
    return _thumbnail(chosen, archive().rendered(found, number, rendering, **caller()))


def _thumbnail_rendering(chosen: media.Representation) -> Rendering | None:
    """What the client asks of a thumbnail; None for the archive's own, which is kept."""
    asked = parse_rendering(request.args, chosen.media_type, web().settings.rendered_pixels)
    if asked == Rendering():
        return None
    return replace(asked, rows=asked.rows or THUMBNAIL_PIXELS, columns=asked.columns or THUMBNAIL_PIXELS)


def _thumbnail(chosen: media.Representation, picture: bytes) -> Response:
    etag = f'"{hashlib.sha256(picture).hexdigest()[:32]}"'
    if is_known(etag):
        return not_modified(etag, REVALIDATE)
    if not chosen.multipart:
        return single_part([picture], len(picture), chosen.content_type, etag, REVALIDATE)
    part = Part(chosen.content_type, "", [picture], len(picture))
    return multipart_related([part], chosen, "coverslip-" + etag.strip('"'), etag)
