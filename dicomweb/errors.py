# SPDX-License-Identifier: Apache-2.0
"""Refusals as HTTP: one table from DICOM's codes to statuses, one JSON shape.

``{"error": {"status": 404, "kind": "NoSuchFrame", "message": "...", "request_id": "..."}}``
plus ``reason``, DICOM's own code, where the archive gave one. Messages carry UIDs but no
attribute values and no paths; what we did not foresee is logged and shown as a bare 500.
"""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import ClassVar

from flask import Flask, Response, g, request
from werkzeug.exceptions import HTTPException

from archive.errors import (
    ArchiveError,
    BadQuery,
    Busy,
    CannotDecode,
    CannotTranscode,
    Gone,
    Held,
    NotAllowed,
    NotFound,
    Reason,
    StorageFailed,
    StorageFull,
    TooLarge,
    TransactionInUse,
    Unreadable,
)
from dicomweb import urls
from dicomweb.media import MixedMediaTypes, NotAcceptable
from dicomweb.multipart import MultipartError
from dicomweb.qido_parameters import BadParameter

log = logging.getLogger(__name__)

RETRY_AFTER_S = 5

HTTP_STATUS: dict[Reason, int] = {
    Reason.PROCESSING_FAILURE: 500,
    Reason.DUPLICATE_SOP_INSTANCE: 409,
    Reason.NO_SUCH_SOP_INSTANCE: 404,
    Reason.SOP_CLASS_NOT_SUPPORTED: 501,
    Reason.NOT_AUTHORIZED: 403,
    Reason.OUT_OF_RESOURCES: 503,
    Reason.DATA_SET_MISMATCH: 409,
    Reason.CANNOT_UNDERSTAND: 400,
    Reason.TRANSFER_SYNTAX_NOT_SUPPORTED: 406,
}
"""PS3.18 Section 8.5, for a request that fails as a whole. A store request answers by
instance (Table I.2-2) and takes only its overall status from here."""

STATUS_OF_CLASS: dict[type[Exception], int] = {
    NotFound: 404,
    Gone: 410,
    NotAllowed: 403,
    Held: 409,
    TransactionInUse: 409,
    CannotTranscode: 406,
    CannotDecode: 406,  # the stored bytes are to be had, and only they
    TooLarge: 413,
    StorageFull: 413,
    StorageFailed: 503,
    Busy: 503,
    BadQuery: 400,
    Unreadable: 400,
    NotAcceptable: 406,
    MixedMediaTypes: 400,
    MultipartError: 400,
    BadParameter: 400,
}
"""Where the class says more than its reason; looked up along the class's bases."""


class RequestRefused(Exception):
    """The edge itself refuses: bad syntax, wrong media type, foreign host."""

    status = 400
    headers: ClassVar[Mapping[str, str]] = {}


class BadRequest(RequestRefused):
    """Syntax that PS3.18 does not allow (8.3)."""


class Unauthenticated(RequestRefused):
    """Nobody is known by these credentials. Viewers escalate to signing in on 401 only."""

    status = 401
    headers: ClassVar[Mapping[str, str]] = {"WWW-Authenticate": "Bearer"}


class Forbidden(RequestRefused):
    """A Host that is not ours, or a state change from another Origin."""

    status = 403


class Conflict(RequestRefused):
    """What is there already forbids it (409)."""

    status = 409


class NotImplementedHere(RequestRefused):
    """A valid request for what this server does not do (501)."""

    status = 501


class UnsupportedMediaType(RequestRefused):
    """The body's Content-Type is not one we store (415)."""

    status = 415


@dataclass(frozen=True, slots=True)
class Refusal:
    """An error ready to send; knows no framework, so that the frame path can use it."""

    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def status_line(self) -> str:
        return f"{self.status} {HTTPStatus(self.status).phrase}"


def status_of(error: Exception) -> int:
    """The HTTP status of an exception; 500 for what is not a refusal."""
    for base in type(error).__mro__:
        if base in STATUS_OF_CLASS:
            return STATUS_OF_CLASS[base]
    if isinstance(error, RequestRefused):
        return error.status
    if isinstance(error, ArchiveError):
        return HTTP_STATUS[error.reason]
    return 500


def refusal(error: Exception, request_id: str, base: str = "") -> Refusal:
    """The answer to an exception; anything unforeseen is logged here with its trace.
    ``base``: what makes a path a URL (``urls.base_url``)."""
    status = status_of(error)
    known = isinstance(error, (ArchiveError, RequestRefused, *STATUS_OF_CLASS))
    if status >= 500:
        # By class alone when foreseen: a trace could hold values of the data set.
        log.error("request %s failed: %s", request_id, type(error).__name__, exc_info=not known)
    headers = {"Content-Type": "application/json", "Cache-Control": "no-store"}
    if isinstance(error, RequestRefused):
        headers.update(error.headers)
    if status == 503:
        headers["Retry-After"] = str(RETRY_AFTER_S)
    detail: dict[str, object] = {
        "status": status,
        "kind": type(error).__name__ if known else "InternalError",
        "message": str(error) if known and str(error) else HTTPStatus(status).phrase,
        "request_id": request_id,
    }
    if isinstance(error, Gone) and error.pointer is not None:
        place = base + urls.instance_path(*error.pointer)
        headers["Link"] = f'<{place}>; rel="describedby"'
        detail["describedby"] = place
    if isinstance(error, ArchiveError):
        detail["reason"] = f"{error.reason:04X}"
    return Refusal(status, json.dumps({"error": detail}).encode(), headers)


def install(app: Flask) -> None:
    """Every error of ``app``, routing included, leaves in the one shape."""

    def answer(error: Exception) -> Response:
        base = ""
        if isinstance(error, Gone):
            base = urls.base_url(request.environ, app.extensions["coverslip"].settings)
        made = refusal(error, g.get("request_id", ""), base)
        return Response(made.body, made.status, made.headers)

    def answer_routing(error: HTTPException) -> Response:
        if error.response is not None or error.code is None or error.code < 400:
            response = error.get_response()
            return Response(response.get_data(), response.status_code, response.headers)
        detail = {
            "status": error.code,
            "kind": type(error).__name__,
            "message": HTTPStatus(error.code).phrase,
            "request_id": g.get("request_id", ""),
        }
        response = Response(json.dumps({"error": detail}), error.code, content_type="application/json")
        for name, value in error.get_headers():
            if name != "Content-Type":
                response.headers[name] = value  # Allow of a 405, Content-Range of a 416
        return response

    app.register_error_handler(HTTPException, answer_routing)
    app.register_error_handler(Exception, answer)
