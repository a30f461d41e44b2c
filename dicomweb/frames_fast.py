# SPDX-License-Identifier: Apache-2.0
"""The short way for one stored frame, in front of Flask (DESIGN 6 "A frame").

A viewer asks for thousands of them. What is served here is exactly what ``wado`` would
serve: the same host rule, principal, negotiation, ETag and verb; anything else (several
frames, a query, Range, CORS, transcoding, a refused Accept) is passed on.
"""

import re
import time
from collections.abc import Iterable
from functools import lru_cache
from typing import TYPE_CHECKING
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from dicomweb import media, urls
from dicomweb.context import Web, identify, request_id_of
from dicomweb.errors import BadRequest, refusal
from dicomweb.multipart import PART_TAIL, closing
from dicomweb.responses import IMMUTABLE, security_headers
from dicomweb.wado import boundary_of, frames_etag

if TYPE_CHECKING:
    from archive.values import Instance

_UID = r"([0-9.]{1,64})"
_FRAME = re.compile(rf"{urls.ROOT}/studies/{_UID}/series/{_UID}/instances/{_UID}/frames/([0-9]{{1,10}})")
_PASSED_ON = ("HTTP_RANGE", "HTTP_ORIGIN")
_ROUTE = "wado.frame"

Headers = list[tuple[str, str]]


def _anything(transfer_syntax_uid: str) -> bool:
    return True


@lru_cache(maxsize=1024)
def choose_stored(accept: str, stored: str, lossy: bool) -> media.Representation | None:
    """What the client is given if that is the stored bytes, else None.

    Offers every syntax there is: when the stored one wins against all of them, it wins
    against those that the codec really has.
    """
    try:
        chosen = media.negotiate(accept, media.offer_frames(stored, _anything, lossy=lossy))
    except (media.NotAcceptable, media.MixedMediaTypes):
        return None
    return chosen if chosen.stored else None


class FrameFastPath:
    """WSGI middleware; ``application`` answers everything but plain frame requests."""

    def __init__(self, application: WSGIApplication, web: Web) -> None:
        self._application = application
        self._web = web
        self._security_headers = security_headers(web.settings)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] == "GET" and not environ.get("QUERY_STRING"):
            found = _FRAME.fullmatch(environ.get("PATH_INFO", ""))
            if found is not None and not any(name in environ for name in _PASSED_ON):
                study, series, sop, number = found.groups()
                return self._frame(environ, start_response, study, series, sop, number)
        return self._application(environ, start_response)

    def _frame(
        self,
        environ: WSGIEnvironment,
        start_response: StartResponse,
        study: str,
        series: str,
        sop: str,
        number: str,
    ) -> Iterable[bytes]:
        started = time.perf_counter()
        archive = self._web.archive
        request_id = request_id_of(environ, self._web.settings)
        status = "200 OK"
        body = b""
        try:
            principal = identify(environ, self._web, request_id)
            scope = archive.policy.scope(principal)
            frame_number = int(number)
            if frame_number == 0:
                raise BadRequest("frame numbers start at 1")
            instance = archive.instance(study, series, sop, principal=principal, scope=scope)
            accept = environ.get("HTTP_ACCEPT", "")
            chosen = choose_stored(accept, instance.transfer_syntax_uid, instance.lossy)
            if chosen is None:
                return self._application(environ, start_response)
            etag = frames_etag(instance, number, chosen)
            headers: Headers = [("ETag", etag), ("Cache-Control", IMMUTABLE), ("Vary", "Accept")]
            known = environ.get("HTTP_IF_NONE_MATCH")
            if known and frame_number <= instance.number_of_frames and _names(known, etag):
                status = "304 NOT MODIFIED"
            else:
                frame = archive.frame(instance, frame_number, principal=principal, scope=scope)
                body, content_type = self._packed(environ, instance, chosen, frame_number, frame)
                headers += [("Content-Type", content_type), ("Content-Length", str(len(body)))]
                if not chosen.multipart:
                    headers.append(("Accept-Ranges", "bytes"))
        except Exception as error:  # noqa: BLE001 - the last line of defence, as Flask's error handler is
            made = refusal(error, request_id)
            status, body = made.status_line, made.body
            headers = [*made.headers.items(), ("Vary", "Accept"), ("Content-Length", str(len(body)))]
        headers += self._security_headers
        headers.append(("X-Request-Id", request_id))
        start_response(status, headers)
        self._web.metrics.observe(_ROUTE, int(status[:3]), time.perf_counter() - started)
        return [body]

    def _packed(
        self,
        environ: WSGIEnvironment,
        instance: "Instance",
        chosen: media.Representation,
        number: int,
        frame: bytes,
    ) -> tuple[bytes, str]:
        """Body and Content-Type, byte for byte as ``wado.retrieve_frames`` makes them."""
        if not chosen.multipart:
            return frame, chosen.content_type
        boundary = boundary_of(instance)
        path = urls.instance_path(
            instance.study_instance_uid, instance.series_instance_uid, instance.sop_instance_uid
        )
        place = f"{urls.base_url(environ, self._web.settings)}{path}/frames/{number}"
        head = (
            f"--{boundary}\r\nContent-Type: {chosen.content_type}\r\n"
            f"Content-Location: {place}\r\nContent-Length: {len(frame)}\r\n\r\n"
        )
        body = b"".join((head.encode("latin-1"), frame, PART_TAIL, closing(boundary)))
        return body, chosen.multipart_content_type(boundary)


def _names(if_none_match: str, etag: str) -> bool:
    """Whether the header lists this ETag (weak comparison) or ``*``."""
    listed = [item.strip().removeprefix("W/") for item in if_none_match.split(",")]
    return "*" in listed or etag in listed
