# SPDX-License-Identifier: Apache-2.0
"""From values to Flask responses: caching headers, ranges, multipart and streamed JSON."""

import hashlib
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from flask import Response, request
from werkzeug.exceptions import RequestedRangeNotSatisfiable

from dicomweb import multipart
from dicomweb.media import Representation
from dicomweb.settings import WebSettings

IMMUTABLE = "private, max-age=31536000, immutable"
"""Frames and bulk values: their bytes never change under one UID."""

REVALIDATE = "private, no-cache"
"""Instances, metadata and pictures: a header revision changes them; the ETag is cheap."""

_GZIP = 16 + zlib.MAX_WBITS
_FLUSH_BYTES = 65_536


def security_headers(settings: WebSettings) -> list[tuple[str, str]]:
    """On every response, the viewer's and errors included."""
    embedding = "cross-origin" if settings.cors_origins else "same-origin"
    return [
        ("X-Content-Type-Options", "nosniff"),
        ("Referrer-Policy", "no-referrer"),  # our URLs hold UIDs
        ("Cross-Origin-Resource-Policy", embedding),  # no <img> of ours in other people's pages
    ]


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a multipart body; ``length`` None where it is not known before."""

    content_type: str
    location: str
    chunks: Iterable[bytes]
    length: int | None = None


def accept() -> str | None:
    return request.headers.get("Accept")


def accept_query() -> Sequence[str]:
    return request.args.getlist("accept")


def etag_of(*parts: object) -> str:
    """A strong ETag over everything that decides the bytes."""
    return f'"{hashlib.sha256(chr(0).join(map(str, parts)).encode()).hexdigest()[:32]}"'


def is_known(etag: str) -> bool:
    """Whether the client holds these bytes already (If-None-Match)."""
    return bool(request.if_none_match) and request.if_none_match.contains_weak(etag.strip('"'))


def labelled(response: Response, etag: str, cache_control: str, vary: str = "Accept") -> Response:
    if etag:
        response.headers["ETag"] = etag
    response.headers["Cache-Control"] = cache_control
    response.headers["Vary"] = vary
    return response


def not_modified(etag: str, cache_control: str, vary: str = "Accept") -> Response:
    return labelled(Response(status=304), etag, cache_control, vary)


Section = Callable[[int, int], Iterable[bytes]]
"""``(offset, length)`` of a representation."""


def single_part(
    chunks: Iterable[bytes],
    length: int,
    content_type: str,
    etag: str,
    cache: str,
    section: Section | None = None,
) -> Response:
    """One representation alone. One range is honoured (206, 416) unless If-Range names
    another ETag; several get it whole (RFC 9110 14.2). Without ``section`` what lies before
    the range is made and dropped."""
    found = _range(length, etag)
    if found is None:
        response = Response(chunks, content_type=content_type)
        response.content_length = length
    else:
        start, stop = found
        cut = section(start, stop - start) if section is not None else _cut(chunks, start, stop)
        response = Response(cut, 206, content_type=content_type)
        response.content_length = stop - start
        response.headers["Content-Range"] = f"bytes {start}-{stop - 1}/{length}"
    response.headers["Accept-Ranges"] = "bytes"
    return labelled(response, etag, cache)


def _range(length: int, etag: str) -> tuple[int, int] | None:
    """The half-open range to send, None for all. A Range that is no range of bytes is
    ignored, and so is every Range of a HEAD; raises RequestedRangeNotSatisfiable."""
    asked = request.range
    if request.method != "GET" or asked is None or asked.units != "bytes" or len(asked.ranges) != 1:
        return None
    condition = request.headers.get("If-Range")
    if condition is not None and condition.strip() != etag:  # a date never matches: we have none
        return None
    found = asked.range_for_length(length)
    if found is None or found[0] is None or found[1] is None or found[0] >= found[1]:
        raise RequestedRangeNotSatisfiable(length)
    return found[0], found[1]


def _cut(chunks: Iterable[bytes], start: int, stop: int) -> Iterator[bytes]:
    at = 0
    for chunk in chunks:
        part = chunk[max(0, start - at) : max(0, stop - at)]
        if part:
            yield part
        at += len(chunk)
        if at >= stop:
            return


def multipart_related(
    parts: Sequence[Part] | Iterator[Part],
    representation: Representation,
    boundary: str,
    etag: str = "",
    cache: str = REVALIDATE,
) -> Response:
    """Parts in order. Content-Length is exact when ``parts`` is a sequence of known lengths."""
    length = _length(parts, boundary) if isinstance(parts, Sequence) else None
    response = Response(_body(parts, boundary), content_type=representation.multipart_content_type(boundary))
    if length is not None:
        response.content_length = length
    return labelled(response, etag, cache)


def _head(part: Part, boundary: str) -> bytes:
    headers = [("Content-Type", part.content_type)]
    if part.location:
        headers.append(("Content-Location", part.location))
    if part.length is not None:
        headers.append(("Content-Length", str(part.length)))
    return multipart.part_head(boundary, headers)


def _length(parts: Sequence[Part], boundary: str) -> int | None:
    lengths = [part.length for part in parts if part.length is not None]
    if len(lengths) != len(parts):
        return None
    return multipart.content_length([_head(part, boundary) for part in parts], lengths, boundary)


def _body(parts: Iterable[Part], boundary: str) -> Iterator[bytes]:
    for part in parts:
        yield _head(part, boundary)
        yield from part.chunks
        yield multipart.PART_TAIL
    yield multipart.closing(boundary)


def json_array(objects: Iterable[bytes]) -> Iterator[bytes]:
    """Encoded objects as one JSON array."""
    before = b"["
    for encoded in objects:
        yield before
        yield encoded
        before = b","
    yield b"[]" if before == b"[" else b"]"


def gzipped(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The gzip form of a stream at level 1, in pieces worth a write."""
    packer = zlib.compressobj(1, zlib.DEFLATED, _GZIP)
    waiting: list[bytes] = []
    size = 0
    for chunk in chunks:
        packed = packer.compress(chunk)
        if packed:
            waiting.append(packed)
            size += len(packed)
        if size >= _FLUSH_BYTES:
            yield b"".join(waiting)
            waiting, size = [], 0
    yield b"".join(waiting) + packer.flush()


def json_stream(
    chunks: Iterable[bytes], content_type: str, etag: str = "", cache: str = REVALIDATE
) -> Response:
    """JSON of any length, gzip'd for clients that take it."""
    return compressed(Response(chunks, content_type=content_type), etag, cache)


def compressed(response: Response, etag: str, cache: str = REVALIDATE) -> Response:
    """A response gzip'd as it is made, for clients that take it."""
    if request.accept_encodings["gzip"] > 0:
        response.response = gzipped(response.iter_encoded())
        response.headers["Content-Encoding"] = "gzip"
        del response.headers["Content-Length"]
    return labelled(response, etag, cache, vary="Accept, Accept-Encoding")
