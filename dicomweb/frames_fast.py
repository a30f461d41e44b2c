# SPDX-License-Identifier: Apache-2.0
"""The short way for stored frames, in front of Flask (DESIGN 6 "A frame").

A viewer asks for thousands of them. What is served here is exactly what ``wado`` would
serve: the same host rule, principal, negotiation, ETag and verb; anything else (a query,
Range, transcoding, a refused Accept) is passed on.
"""

import re
import time
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache, partial
from typing import TYPE_CHECKING
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from dicomweb import cors, media, urls
from dicomweb.context import Web, identify, request_id_of
from dicomweb.errors import refusal
from dicomweb.multipart import PART_TAIL, closing, content_length
from dicomweb.responses import IMMUTABLE, security_headers
from dicomweb.wado import boundary_of, frames_etag, parse_frame_list

if TYPE_CHECKING:
    from archive.stored_frames import StoredFrames

_UID = r"([0-9.]{1,64})"
_FRAMES = re.compile(
    rf"{urls.ROOT}/studies/{_UID}/series/{_UID}/instances/{_UID}/frames/([0-9]{{1,10}}(?:,[0-9]{{1,10}})*)"
)
_TAG = re.compile(r'"[^"]*"')
_ROUTE = "wado.frame"
_LIST_ROUTE = "wado.retrieve_frames"
BLOCK_BYTES = 256 << 10
"""Parts are handed to the server in blocks of about this size: a write for each costs more."""

Headers = list[tuple[str, str]]
Answer = tuple[str, Headers, Iterable[bytes]]


def _anything(transfer_syntax_uid: str) -> bool:
    return True


@lru_cache(maxsize=1024)
def choose_stored(accept: str, stored: str, lossy: bool, count: int = 1) -> media.Representation | None:
    """What the client is given if that is the stored bytes, else None.

    Offers every syntax there is: when the stored one wins against all of them, it wins
    against those that the codec really has.
    """
    try:
        offer = media.offer_frames(stored, _anything, lossy=lossy, count=count)
        chosen = media.negotiate(accept, offer)
    except (media.NotAcceptable, media.MixedMediaTypes):
        return None
    return chosen if chosen.stored else None


class FrameFastPath:
    """WSGI middleware; ``application`` answers everything but plain requests for frames."""

    def __init__(self, application: WSGIApplication, web: Web) -> None:
        self._application = application
        self._web = web
        self._security_headers = security_headers(web.settings)
        self._vary = "Accept, Origin" if web.settings.cors_origins else "Accept"

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        place = _place(environ)
        if place is None:
            return self._application(environ, start_response)
        started = time.perf_counter()
        request_id = request_id_of(environ, self._web.settings)
        try:
            found = self._answer(environ, request_id, place)
            if found is None:
                return self._application(environ, start_response)
            status, headers, body = found
        except Exception as error:  # noqa: BLE001 - the last line of defence, as Flask's error handler is
            made = refusal(error, request_id)
            status, body = made.status_line, [made.body]
            headers = [*made.headers.items(), ("Vary", self._vary), ("Content-Length", str(len(made.body)))]
        headers += self._closing_headers(environ, request_id)
        start_response(status, headers)
        route = _LIST_ROUTE if "," in place[3] else _ROUTE
        self._web.metrics.observe(route, int(status[:3]), time.perf_counter() - started)
        return body

    def answer_now(self, environ: WSGIEnvironment) -> tuple[str, Headers, bytes] | None:
        """Status, headers and body of a request for one frame, if no disk and no database
        server has to be waited for and nothing is to be refused; else None: then ask as
        always. For a server's loop, which serves everybody."""
        place = _place(environ)
        if place is None or "," in place[3]:
            return None
        started = time.perf_counter()
        request_id = request_id_of(environ, self._web.settings)
        try:
            found = self._answer_now(environ, request_id, place)
        except Exception:  # noqa: BLE001 - refused, with all that belongs to it, where one may wait
            return None
        if found is None:
            return None
        status, headers, body = found
        headers += self._closing_headers(environ, request_id)
        self._web.metrics.observe(_ROUTE, int(status[:3]), time.perf_counter() - started)
        return status, headers, body

    def _closing_headers(self, environ: WSGIEnvironment, request_id: str) -> Headers:
        """What every response has, as ``app`` gives it."""
        shared = cors.allowed(environ.get("HTTP_ORIGIN", ""), self._web.settings)
        return [*self._security_headers, ("X-Request-Id", request_id), *shared]

    def _answer_now(
        self, environ: WSGIEnvironment, request_id: str, place: tuple[str, ...]
    ) -> tuple[str, Headers, bytes] | None:
        study, series, sop, number = place
        archive = self._web.archive
        principal = identify(environ, self._web, request_id)
        scope = archive.policy.scope(principal)
        frames = archive.stored_frames_now(study, series, sop, principal=principal, scope=scope)
        if frames is None or not number.strip("0"):
            return None
        instance = frames.instance
        chosen = choose_stored(environ.get("HTTP_ACCEPT", ""), instance.transfer_syntax_uid, instance.lossy)
        if chosen is None:
            return None
        etag = frames_etag(instance, number, chosen)
        if _names(environ.get("HTTP_IF_NONE_MATCH"), etag):
            return None
        frame = frames.one_now(int(number))
        if frame is None:
            return None
        headers = self._labels(etag)
        return "200 OK", headers, self._packed(environ, frames, chosen, number, frame, headers)

    def _answer(self, environ: WSGIEnvironment, request_id: str, place: tuple[str, ...]) -> Answer | None:
        """None: not for us. Raises what a refusal is made of."""
        study, series, sop, listed = place
        archive = self._web.archive
        principal = identify(environ, self._web, request_id)
        scope = archive.policy.scope(principal)
        numbers = parse_frame_list(listed, self._web.settings.frames_per_request)
        frames = archive.stored_frames(study, series, sop, principal=principal, scope=scope)
        instance = frames.instance
        accept = environ.get("HTTP_ACCEPT", "")
        chosen = choose_stored(accept, instance.transfer_syntax_uid, instance.lossy, len(numbers))
        if chosen is None:
            return None
        etag = frames_etag(instance, listed, chosen)
        headers = self._labels(etag)
        known = environ.get("HTTP_IF_NONE_MATCH")
        if _names(known, etag) and max(numbers) <= instance.number_of_frames:
            return "304 NOT MODIFIED", headers, [b""]
        if len(numbers) > 1:
            return "200 OK", headers, self._several(environ, frames, chosen, numbers, headers)
        frame = frames.one(numbers[0])
        return "200 OK", headers, [self._packed(environ, frames, chosen, listed, frame, headers)]

    def _labels(self, etag: str) -> Headers:
        return [("ETag", etag), ("Cache-Control", IMMUTABLE), ("Vary", self._vary)]

    def _packed(
        self,
        environ: WSGIEnvironment,
        frames: "StoredFrames",
        chosen: media.Representation,
        number: str,
        frame: bytes | bytearray,
        headers: Headers,
    ) -> bytes:
        """One frame's body, byte for byte as ``wado.retrieve_frames`` makes it; its headers
        are added to ``headers``."""
        if chosen.multipart:
            boundary = boundary_of(frames.instance)
            head = self._head_maker(environ, frames, chosen)(int(number), len(frame))
            body = b"".join((head, frame, PART_TAIL, closing(boundary)))
            headers.append(("Content-Type", chosen.multipart_content_type(boundary)))
        else:
            body = bytes(frame)
            headers += [("Content-Type", chosen.content_type), ("Accept-Ranges", "bytes")]
        headers.append(("Content-Length", str(len(body))))
        return body

    def _several(
        self,
        environ: WSGIEnvironment,
        frames: "StoredFrames",
        chosen: media.Representation,
        numbers: Sequence[int],
        headers: Headers,
    ) -> Iterable[bytes]:
        """The parts in blocks, the first of them read; their headers are added to ``headers``."""
        boundary = boundary_of(frames.instance)
        lengths, read = frames.many(numbers)
        head_of = self._head_maker(environ, frames, chosen)
        heads = [head_of(number, length) for number, length in zip(numbers, lengths, strict=True)]
        length = content_length(heads, lengths, boundary)
        headers += [
            ("Content-Type", chosen.multipart_content_type(boundary)),
            ("Content-Length", str(length)),
        ]
        blocks = _blocks(heads, read, closing(boundary))
        first = next(blocks)
        if len(first) == length:
            return [first]
        return _resumed(first, blocks)

    def _head_maker(
        self, environ: WSGIEnvironment, frames: "StoredFrames", chosen: media.Representation
    ) -> "partial[bytes]":
        instance = frames.instance
        path = urls.instance_path(
            instance.study_instance_uid, instance.series_instance_uid, instance.sop_instance_uid
        )
        before = (
            f"--{boundary_of(instance)}\r\nContent-Type: {chosen.content_type}\r\n"
            f"Content-Location: {urls.base_url(environ, self._web.settings)}{path}/frames/"
        )
        return partial(_head, before)


def _place(environ: WSGIEnvironment) -> tuple[str, ...] | None:
    """Study, series, instance and frame list of a request that is for us."""
    if environ["REQUEST_METHOD"] != "GET" or environ.get("QUERY_STRING"):
        return None
    found = _FRAMES.fullmatch(environ.get("PATH_INFO", ""))
    if found is None or "HTTP_RANGE" in environ:
        return None
    return found.groups()


def _head(before: str, number: int, length: int) -> bytes:
    return f"{before}{number}\r\nContent-Length: {length}\r\n\r\n".encode("latin-1")


def _blocks(heads: Sequence[bytes], frames: Iterator[bytes], end: bytes) -> Iterator[bytes]:
    waiting: list[bytes] = []
    size = 0
    for head, frame in zip(heads, frames, strict=True):
        waiting += (head, frame, PART_TAIL)
        size += len(frame)
        if size >= BLOCK_BYTES:
            yield b"".join(waiting)
            waiting, size = [], 0
    waiting.append(end)
    yield b"".join(waiting)


def _resumed(first: bytes, others: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from others


def _names(if_none_match: str | None, etag: str) -> bool:
    """Whether the header lists this ETag (weak comparison) or ``*``."""
    if not if_none_match:
        return False
    # a comma may stand within a tag: those of frame lists have some
    return if_none_match.strip() == "*" or etag in _TAG.findall(if_none_match)
