# SPDX-License-Identifier: Apache-2.0
"""WADO-RS: instances, metadata and frames (PS3.18 Section 10.4)."""

import hashlib
import re
import secrets
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import chain

from flask import Blueprint, Response, request

from archive.errors import TooLarge
from archive.values import Instance
from dicomweb import media, urls, zipped
from dicomweb.context import archive, base_url, caller, web
from dicomweb.errors import BadRequest
from dicomweb.native_xml import native_dicom_model_of
from dicomweb.responses import (
    IMMUTABLE,
    REVALIDATE,
    Part,
    accept,
    accept_query,
    compressed,
    etag_of,
    is_known,
    json_stream,
    labelled,
    multipart_related,
    not_modified,
    single_part,
)
from dicomweb.spliced_gzip import Piece, inflated, spliced

wado = Blueprint("wado", __name__, url_prefix=urls.ROOT)

STUDY = "/studies/<uid:study>"
SERIES = f"{STUDY}/series/<uid:series>"
INSTANCE = f"{SERIES}/instances/<uid:instance>"
_XML_AT_ONCE_BYTES = 1 << 20
_FRAME_LIST = re.compile(r"[0-9]{1,10}(?:,[0-9]{1,10})*")


def location_of(found: Instance) -> str:
    """The absolute URL of an instance."""
    path = urls.instance_path(found.study_instance_uid, found.series_instance_uid, found.sop_instance_uid)
    return base_url() + path


def boundary_of(found: Instance) -> str:
    """The same for the same bytes, so that the ETag may be strong; drawn from their
    digest, so that no content can hold it."""
    return f"coverslip-{found.base_digest.hex()[:32]}"


def frames_etag(found: Instance, numbers: str, chosen: media.Representation) -> str:
    """Of a frame list as it stands in the URL; frames do not change with the header."""
    listed = numbers if len(numbers) <= 32 else hashlib.sha256(numbers.encode()).hexdigest()[:24]
    return f'"{found.base_digest.hex()[:24]}-{media.tag_of(chosen)}-{listed}"'


def parse_frame_list(text: str, limit: int) -> list[int]:
    """Frame numbers from 1 in the order asked. Raises BadRequest, TooLarge."""
    if not _FRAME_LIST.fullmatch(text):
        raise BadRequest("the frame list must be numbers separated by commas")
    numbers = [int(number) for number in text.split(",")]
    if 0 in numbers:
        raise BadRequest("frame numbers start at 1")
    if len(numbers) > limit:
        raise TooLarge(f"at most {limit} frames per request")
    return numbers


# ---- instances ------------------------------------------------------------------


def _negotiate_instance(found: Instance, *, single: bool, base: bool = False) -> media.Representation:
    """The base is given as it came or not at all."""

    def can(transfer_syntax_uid: str) -> bool:
        return not base and archive().can_open(found, transfer_syntax_uid, scope=caller()["scope"])

    offer = media.offer_dicom(found.transfer_syntax_uid, can, lossy=found.lossy, single=single)
    return media.negotiate(accept(), offer, accept_query())


def _converted_to(chosen: media.Representation) -> str:
    """The transfer syntax to ask the archive for; "" for the stored bytes."""
    return "" if chosen.stored else chosen.transfer_syntax_uid


@wado.get(STUDY)
@wado.get(SERIES)
def retrieve_instances(study: str, series: str = "") -> Response:
    """Every instance of a study or series, one part each (10.4.1.1.1, 10.4.1.1.2).

    Content-Length is exact where every length is known without opening a file: that of
    a corrected or converted instance is not.
    """
    found = list(archive().instances(study, series, **caller()))
    if zipped.is_asked():
        return zipped.zip_response(found, series or study)
    chosen = [_negotiate_instance(instance, single=False) for instance in found]
    parts = [
        Part(
            representation.content_type,
            location_of(instance),
            _opened(instance, _converted_to(representation)),
            instance.size_bytes if representation.stored and not instance.revision else None,
        )
        for instance, representation in zip(found, chosen, strict=True)
    ]
    same = len({representation.transfer_syntax_uid for representation in chosen}) == 1
    shown = chosen[0] if same else media.Representation("application/dicom", "", True)
    return multipart_related(parts, shown, secrets.token_hex(16))


def _opened(found: Instance, transfer_syntax_uid: str) -> Iterator[bytes]:
    """The stream of an instance, opened when its turn comes: one descriptor at a time."""
    who = caller()
    store = archive()

    def chunks() -> Iterator[bytes]:
        yield from store.open(found, transfer_syntax_uid=transfer_syntax_uid, **who).chunks

    return chunks()


@wado.get(INSTANCE)
def retrieve_instance(study: str, series: str, instance: str) -> Response:
    """One instance, as the one part or alone (10.4.1.1.3); ``original=true`` gives the
    stream as received, before any correction."""
    found = archive().instance(study, series, instance, **caller())
    if zipped.is_asked():
        return zipped.zip_response([found], instance)
    base = request.args.get("original") == "true"
    chosen = _negotiate_instance(found, single=True, base=base)
    etag = etag_of(found.etag, base, chosen)
    if is_known(etag):
        return not_modified(etag, REVALIDATE)
    syntax = _converted_to(chosen)
    stream = archive().open(found, base=base, transfer_syntax_uid=syntax, **caller())
    if not chosen.multipart:
        content = stream.chunks, stream.length, chosen.content_type
        return single_part(*content, etag, REVALIDATE, stream.section)
    part = Part(chosen.content_type, location_of(found), stream.chunks, stream.length)
    return multipart_related([part], chosen, boundary_of(found), etag)


# ---- metadata -------------------------------------------------------------------


@wado.get(f"{STUDY}/metadata")
@wado.get(f"{SERIES}/metadata")
def retrieve_metadata(study: str, series: str = "") -> Response:
    """Attributes of every instance, without pixel data (10.4.1.1.4)."""
    return _metadata(list(archive().instances(study, series, **caller())))


@wado.get(f"{INSTANCE}/metadata")
def retrieve_instance_metadata(study: str, series: str, instance: str) -> Response:
    """Attributes of one instance, in an array of one."""
    return _metadata([archive().instance(study, series, instance, **caller())])


def _metadata(found: Sequence[Instance]) -> Response:
    """JSON leaves as it was compressed when the instances came, gzip'd or inflated."""
    chosen = media.negotiate(accept(), media.offer_data_sets(len(found)), accept_query())
    packed = request.accept_encodings["gzip"] > 0
    etag = etag_of(base_url(), chosen, packed, *(instance.etag for instance in found))
    vary = "Accept, Accept-Encoding"
    if is_known(etag):
        return not_modified(etag, REVALIDATE, vary)
    if chosen.media_type == media.XML:
        return _xml(found, chosen, etag)
    pieces = _array_of(found)
    body = spliced(pieces) if packed else inflated(pieces)
    whole = packed and len(found) == 1  # small, and its length is told
    response = Response([b"".join(body)] if whole else body, content_type=chosen.media_type)
    if packed:
        response.headers["Content-Encoding"] = "gzip"
    return labelled(response, etag, REVALIDATE, vary)


def _array_of(found: Sequence[Instance]) -> Iterator[Piece]:
    """The JSON array in pieces; the model has ``bulk:`` and a path where we give a URL."""
    who, store = caller(), archive()
    places = [f"{location_of(instance)}/bulkdata/".encode() for instance in found]

    def pieces() -> Iterator[Piece]:
        before = b"["
        for instance, place in zip(found, places, strict=True):
            yield before
            first, *others = store.metadata_pieces(instance, **who)
            yield first
            for piece in others:
                yield place
                yield piece
            before = b","
        yield b"[]" if before == b"[" else b"]"

    made = pieces()
    return made if len(found) > 1 else iter(list(made))  # one is read before 200 is said


def _xml(found: Sequence[Instance], chosen: media.Representation, etag: str) -> Response:
    """One document each; those of many frames are written as they are read."""
    who, store = caller(), archive()
    places = [f"{location_of(instance)}/bulkdata/".encode() for instance in found]

    def document(instance: Instance, place: bytes) -> Part:
        encoded = store.metadata(instance, **who)
        encoded = encoded.replace(b'"BulkDataURI":"bulk:', b'"BulkDataURI":"' + place)
        chunks = native_dicom_model_of(encoded)
        if len(encoded) > _XML_AT_ONCE_BYTES:
            return Part(media.XML, "", chunks)
        whole = b"".join(chunks)
        return Part(media.XML, "", [whole], len(whole))

    parts = (document(instance, place) for instance, place in zip(found, places, strict=True))
    if not chosen.multipart:
        return json_stream(next(parts).chunks, chosen.media_type, etag)
    # The same boundary for the same bytes: the ETag is a strong one.
    return compressed(multipart_related(parts, chosen, "coverslip-" + etag.strip('"')), etag)


# ---- frames ---------------------------------------------------------------------


@wado.get(f"{INSTANCE}/frames/<numbers>")
def retrieve_frames(study: str, series: str, instance: str, numbers: str) -> Response:
    """Frames, one part each, in the order asked; numbers start at 1 (10.4.1.1.6).

    The stored bytes whenever the client allows them. A missing frame is a 404 for the
    whole request, found before the first byte: a stream cannot change its status.
    """
    wanted = parse_frame_list(numbers, web().settings.frames_per_request)
    found = archive().instance(study, series, instance, **caller())
    offer = media.offer_frames(
        found.transfer_syntax_uid,
        partial(archive().can_transcode, found, scope=caller()["scope"]),
        lossy=found.lossy,
        count=len(wanted),
    )
    chosen = media.negotiate(accept(), offer, accept_query())
    etag = frames_etag(found, numbers, chosen)
    syntax = _converted_to(chosen)
    if is_known(etag) and max(wanted) <= found.number_of_frames:
        return not_modified(etag, IMMUTABLE)
    frames = archive().frames(found, wanted, transfer_syntax_uid=syntax, **caller())
    first = next(frames)
    if not chosen.multipart:
        return single_part([first], len(first), chosen.content_type, etag, IMMUTABLE)
    place = f"{location_of(found)}/frames/"
    parts = (
        Part(chosen.content_type, f"{place}{number}", [frame], len(frame))
        for number, frame in zip(wanted, chain([first], frames), strict=True)
    )
    listed = list(parts) if len(wanted) == 1 else parts
    return multipart_related(listed, chosen, boundary_of(found), etag, IMMUTABLE)
