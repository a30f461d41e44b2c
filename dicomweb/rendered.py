# SPDX-License-Identifier: Apache-2.0
"""Rendered images and thumbnails (PS3.18 Sections 10.4.1.1.7, 10.4.1.1.8 and 8.3.5)."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain

from flask import Blueprint, Response, request

from archive.errors import NoSuchFrame, NoSuchInstance, NotFound, TooLarge
from archive.values import Instance, Rendering
from dicomweb import media, urls
from dicomweb.context import archive, caller, warning, web
from dicomweb.rendering import parse_rendering, parse_thumbnail
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

PICTURES_PER_REQUEST = 64
"""Each is decoded and encoded: far fewer than stored frames."""

THUMBNAIL_PIXELS = 256
NEVER_SHOWN = {"LABEL", "OVERVIEW"}  # Image Type value 3: there is writing on them
NEWER_TYPES = ("image/jxl", "image/webp", "image/avif")


def offer_pictures(count: int = 1) -> media.Offer:
    """The types of Table 8.7.4-1, and newer ones where they are asked for by name. At equal q
    JPEG, PNG and GIF go first: a browser's list of all it can show is no wish."""
    usual = media.offer_rendered(count)
    newer = media.offer_rendered(count, NEWER_TYPES)

    def offer(member: media.MediaRange) -> media.Representation | None:
        found = usual(member)
        if found is None and member.media_type in NEWER_TYPES:
            found = newer(member)
            return None if found is None else replace(found, stored=False)
        return found

    return offer


@rendered.get(f"{INSTANCE}/frames/<numbers>/rendered")
def retrieve_rendered_frames(study: str, series: str, instance: str, numbers: str) -> Response:
    """Frames as pictures; several of them are multipart only (10.4.1.1.7)."""
    wanted = parse_frame_list(numbers, PICTURES_PER_REQUEST)
    found = archive().instance(study, series, instance, **caller())
    for number in wanted:
        if number > found.number_of_frames:
            raise NoSuchFrame(number, found.number_of_frames)
    return _pictures(found, [(found, number) for number in wanted])


@rendered.get(f"{INSTANCE}/rendered")
def retrieve_rendered_instance(study: str, series: str, instance: str) -> Response:
    """One picture of the whole instance. For a tiled one that is its total pixel matrix,
    an extension, from the level of its pyramid that fits; 413 for a large one without
    ``viewport``.
    """
    found = archive().instance(study, series, instance, **caller())
    if not found.number_of_frames:
        raise NoSuchFrame(1, 0)
    return _pictures(found, [(found, 0)])


@rendered.get(f"{STUDY}/rendered")
@rendered.get(f"{SERIES}/rendered")
def retrieve_rendered_instances(study: str, series: str = "") -> Response:
    """A picture of every instance that has pixels, one part each (10.4.1.1.7)."""
    found = [one for one in archive().instances(study, series, **caller()) if one.number_of_frames]
    if not found:
        raise NoSuchInstance(series or study)
    if len(found) > PICTURES_PER_REQUEST:
        raise TooLarge(f"at most {PICTURES_PER_REQUEST} pictures per request")
    return _pictures(found[0], [(one, 0) for one in found], parts=2)


def _pictures(first: Instance, wanted: Sequence[tuple[Instance, int]], parts: int = 0) -> Response:
    """Pictures of (instance, frame number, 0 for all of it). Everything is checked, and the
    first is drawn, before the first byte: a stream cannot change its status."""
    chosen = media.negotiate(accept(), offer_pictures(parts or len(wanted)), accept_query())
    limit = web().settings.rendered_pixels
    renderings = [
        parse_rendering(request.args, chosen.media_type, limit, _source(one, number))
        for one, number in wanted
    ]
    marks = [
        (_state(one, number), number, how) for (one, number), how in zip(wanted, renderings, strict=True)
    ]
    etag = etag_of("rendered", chosen, marks)
    if is_known(etag):
        return _warned(not_modified(etag, REVALIDATE))
    store, who = archive(), caller()
    drawn = (
        store.rendered(one, number, how, **who) for (one, number), how in zip(wanted, renderings, strict=True)
    )
    picture = next(drawn)
    if not chosen.multipart:
        return _warned(single_part([picture], len(picture), chosen.content_type, etag, REVALIDATE))
    places = [f"{location_of(one)}{f'/frames/{number}' if number else ''}/rendered" for one, number in wanted]
    made = (
        Part(chosen.content_type, where, [data], len(data))
        for where, data in zip(places, chain([picture], drawn), strict=True)
    )
    body: Sequence[Part] | Iterator[Part] = list(made) if len(wanted) == 1 else made
    return _warned(multipart_related(body, chosen, boundary_of(first), etag))


def _source(found: Instance, number: int) -> tuple[int, int]:
    """Rows and columns that a viewport counts in: of a frame, or of the whole matrix."""
    if number or not found.total_pixel_matrix_rows or not found.total_pixel_matrix_columns:
        return found.rows, found.columns
    return found.total_pixel_matrix_rows, found.total_pixel_matrix_columns


def _state(found: Instance, number: int) -> str:
    """What a picture's bytes depend on besides the request: of a whole matrix, every level
    that it may be drawn from; of grey frames too, since the coarsest gives their window."""
    if number and found.samples_per_pixel > 1:
        return found.etag
    try:
        return found.etag + archive().pyramid("", found.sop_instance_uid, **caller()).etag
    except NotFound:
        return found.etag


def _warned(response: Response) -> Response:
    """Nothing is written into pictures, and that is said (8.3.5.1.1)."""
    wanted = request.args.get("annotation", "")
    if wanted:
        shown = ",".join(name for name in ("patient", "technique") if name in wanted.split(","))
        response.headers.add(
            "Warning",
            warning(f"The following annotation values are not supported: {shown or 'unknown'}"),
        )
    return response


@rendered.get(f"{STUDY}/thumbnail")
@rendered.get(f"{SERIES}/thumbnail")
@rendered.get(f"{INSTANCE}/thumbnail")
def retrieve_thumbnail(study: str, series: str = "", instance: str = "") -> Response:
    """One small picture that shows no patient data (10.4.1.1.8): never label or overview."""
    chosen = media.negotiate(accept(), offer_pictures(), accept_query())
    rendering = _thumbnail_rendering(chosen)
    return _thumbnail(chosen, archive().thumbnail(study, series, instance, rendering, **caller()))


@rendered.get(f"{INSTANCE}/frames/<numbers>/thumbnail")
def retrieve_frame_thumbnail(study: str, series: str, instance: str, numbers: str) -> Response:
    """One frame, small; of an instance that may be shown."""
    (number,) = parse_frame_list(numbers, 1)
    chosen = media.negotiate(accept(), offer_pictures(), accept_query())
    found = archive().instance(study, series, instance, **caller())
    if not NEVER_SHOWN.isdisjoint(found.image_type[2:3]):
        raise NoSuchFrame(number, 0)
    rendering = _thumbnail_rendering(chosen) or Rendering(rows=THUMBNAIL_PIXELS, columns=THUMBNAIL_PIXELS)
    return _thumbnail(chosen, archive().rendered(found, number, rendering, **caller()))


def _thumbnail_rendering(chosen: media.Representation) -> Rendering | None:
    limit = web().settings.rendered_pixels
    return parse_thumbnail(request.args, chosen.media_type, limit, THUMBNAIL_PIXELS)


def _thumbnail(chosen: media.Representation, picture: bytes) -> Response:
    etag = f'"{hashlib.sha256(picture).hexdigest()[:32]}"'
    if is_known(etag):
        return not_modified(etag, REVALIDATE)
    if not chosen.multipart:
        return single_part([picture], len(picture), chosen.content_type, etag, REVALIDATE)
    part = Part(chosen.content_type, "", [picture], len(picture))
    return multipart_related([part], chosen, "coverslip-" + etag.strip('"'), etag)
