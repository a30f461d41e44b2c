# SPDX-License-Identifier: Apache-2.0
"""Bulk data and pixel data, by value and by level (PS3.18 10.4.1.1.5, 10.4.1.1.6).

A part is one bulk value, one frame of encapsulated pixel data, or as a whole native pixel
data (8.7.3.3) or a video. All that a level has is given, or 406: nothing is left out silently.
"""

import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from flask import Blueprint, Response

from archive.errors import NoSuchBulkData
from archive.values import Instance
from dicomweb import media, urls
from dicomweb.context import archive, caller
from dicomweb.responses import (
    IMMUTABLE,
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
from dicomweb.wado import INSTANCE, SERIES, STUDY, boundary_of, location_of

bulk = Blueprint("bulk", __name__, url_prefix=urls.ROOT)

_PIXEL_DATA = "7FE00010"


@bulk.get(f"{INSTANCE}/bulkdata/<bulk:path>")
def retrieve_bulk_data(study: str, series: str, instance: str, path: str) -> Response:
    """One bulk value, as metadata's BulkDataURI names it (10.4.1.1.5)."""
    found = archive().instance(study, series, instance, **caller())
    chosen = media.negotiate(accept(), media.offer_bulk, accept_query())
    etag = etag_of(found.etag, path, chosen)
    stream = archive().bulk(found, path, **caller())
    if is_known(etag):
        return not_modified(etag, IMMUTABLE)
    if not chosen.multipart:
        content = stream.chunks, stream.length, chosen.content_type
        return single_part(*content, etag, IMMUTABLE, stream.section)
    part = Part(chosen.content_type, f"{location_of(found)}/bulkdata/{path}", stream.chunks, stream.length)
    return multipart_related([part], chosen, boundary_of(found), etag, IMMUTABLE)


@bulk.get(f"{STUDY}/bulkdata")
@bulk.get(f"{SERIES}/bulkdata")
def retrieve_all_bulk_data(study: str, series: str = "") -> Response:
    """Every bulk value and the pixel data of every instance."""
    return _answer([_contents(one) for one in archive().instances(study, series, **caller())])


@bulk.get(f"{INSTANCE}/bulkdata")
def retrieve_instance_bulk_data(study: str, series: str, instance: str) -> Response:
    """Every bulk value and the pixel data of one instance."""
    return _answer([_contents(archive().instance(study, series, instance, **caller()))])


@bulk.get(f"{STUDY}/pixeldata")
@bulk.get(f"{SERIES}/pixeldata")
def retrieve_all_pixel_data(study: str, series: str = "") -> Response:
    """The pixel data of every instance that has some (10.4.1.1.6)."""
    found = archive().instances(study, series, **caller())
    return _answer([_Contents(one, (), _has_frames(one)) for one in found])


@bulk.get(f"{INSTANCE}/pixeldata")
def retrieve_pixel_data(study: str, series: str, instance: str) -> Response:
    """The pixel data of one instance: a part for each frame, or one native value."""
    found = archive().instance(study, series, instance, **caller())
    return _answer([_Contents(found, (), _has_frames(found))])


@dataclass(frozen=True, slots=True)
class _Contents:
    """What is asked of one instance."""

    instance: Instance
    paths: Sequence[str]
    pixels: bool

    @property
    def is_empty(self) -> bool:
        return not self.paths and not self.pixels


@dataclass(frozen=True, slots=True)
class _Chosen:
    """How it is given."""

    values: media.Representation | None
    pixels: media.Representation | None

    @property
    def all(self) -> list[media.Representation]:
        return [one for one in (self.values, self.pixels) if one is not None]


def _contents(found: Instance) -> _Contents:
    return _Contents(found, archive().bulk_paths(found, **caller()), _has_frames(found))


def _has_frames(found: Instance) -> bool:
    return found.number_of_frames > 0


def _negotiate(asked: _Contents, *, alone: bool) -> _Chosen:
    """``alone``: nothing else is asked for, so that a single part may do."""
    found = asked.instance
    header, query = accept(), accept_query()
    values = pixels = None
    if asked.paths:
        single = alone and len(asked.paths) == 1 and not asked.pixels
        values = media.negotiate(header, partial(media.offer_bulk, single=single), query)
    if asked.pixels:
        single = alone and not asked.paths
        if media.is_video(found.transfer_syntax_uid):
            offer = media.offer_video(found.transfer_syntax_uid, single=single)
        else:
            offer = media.offer_frames(
                found.transfer_syntax_uid,
                partial(_can, found),
                lossy=found.lossy,
                count=found.number_of_frames if single else 0,
                as_one=single,
            )
        pixels = media.negotiate(header, offer, query)
    return _Chosen(values, pixels)


def _can(found: Instance, transfer_syntax_uid: str) -> bool:
    if transfer_syntax_uid == media.EXPLICIT_VR_LITTLE_ENDIAN:
        return archive().can_be_native(found, scope=caller()["scope"])
    return archive().can_transcode(found, transfer_syntax_uid, scope=caller()["scope"])


def _answer(asked: Sequence[_Contents]) -> Response:
    some = [one for one in asked if not one.is_empty]
    if not some:
        media.negotiate(accept() and "*/*", media.offer_bulk)  # no Accept at all is 406 first
        raise NoSuchBulkData(_PIXEL_DATA)
    chosen = [_negotiate(one, alone=len(some) == 1) for one in some]
    shown = _shown([given for one in chosen for given in one.all])
    if len(some) > 1:
        return multipart_related(_all_parts(some, chosen), shown, secrets.token_hex(16))
    found = some[0].instance
    etag = etag_of(found.etag, "values", some[0].paths, some[0].pixels, chosen[0])
    cache = REVALIDATE if some[0].paths else IMMUTABLE
    if is_known(etag):
        return not_modified(etag, cache)
    if shown.multipart:
        return multipart_related(_all_parts(some, chosen), shown, boundary_of(found), etag, cache)
    pixels = chosen[0].pixels
    if pixels is None:
        stream = archive().bulk(found, some[0].paths[0], **caller())
    elif _is_one_value(pixels):
        stream = archive().pixel_data(found, **caller())
    else:
        (frame,) = archive().frames(found, [1], transfer_syntax_uid=_syntax(pixels), **caller())
        return single_part([frame], len(frame), pixels.content_type, etag, cache)
    content = stream.chunks, stream.length, shown.content_type
    return single_part(*content, etag, cache, stream.section)


def _shown(given: Sequence[media.Representation]) -> media.Representation:
    """What the header of the whole says: the first part's type, and its transfer syntax
    where all have it."""
    same = len({one.transfer_syntax_uid for one in given}) == 1
    first = given[0]
    return first if same else media.Representation(first.media_type, "", True, first.stored)


def _syntax(chosen: media.Representation) -> str:
    return "" if chosen.stored else chosen.transfer_syntax_uid


def _is_one_value(chosen: media.Representation) -> bool:
    uid = chosen.transfer_syntax_uid
    return uid == media.EXPLICIT_VR_LITTLE_ENDIAN or media.is_video(uid)


def _all_parts(asked: Sequence[_Contents], chosen: Sequence[_Chosen]) -> Iterator[Part]:
    """Parts of each instance in turn, opened when theirs comes. What can be refused of the
    first is refused here, while there is a status to say it with."""
    who, store = caller(), archive()
    places = [location_of(one.instance) for one in asked]

    def value(found: Instance, place: str, path: str, content_type: str) -> Part:
        stream = store.bulk(found, path, **who)
        return Part(content_type, f"{place}/bulkdata/{path}", stream.chunks, stream.length)

    def parts() -> Iterator[Part]:
        for one, given, place in zip(asked, chosen, places, strict=True):
            found = one.instance
            if given.values is not None:
                for path in one.paths:
                    yield value(found, place, path, given.values.content_type)
            if given.pixels is None:
                continue
            content_type = given.pixels.content_type
            if _is_one_value(given.pixels):
                stream = store.pixel_data(found, **who)
                yield Part(content_type, f"{place}/pixeldata", stream.chunks, stream.length)
                continue
            numbers = range(1, found.number_of_frames + 1)
            frames = store.frames(found, numbers, transfer_syntax_uid=_syntax(given.pixels), **who)
            for number, frame in zip(numbers, frames, strict=True):
                yield Part(content_type, f"{place}/frames/{number}", [frame], len(frame))

    made = parts()
    first = next(made)

    def again() -> Iterator[Part]:
        yield first
        yield from made

    return again()
