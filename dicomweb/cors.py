# SPDX-License-Identifier: Apache-2.0
"""Cross-origin reads for viewers served elsewhere: off unless origins are configured.

The origin is echoed only when it is listed, never ``*``: requests carry credentials.
"""

from flask import Response, request

from dicomweb.context import web

METHODS = "GET, HEAD, POST, PUT, DELETE, OPTIONS"
REQUEST_HEADERS = "authorization, accept, content-type, range, if-none-match"
RESPONSE_HEADERS = (
    "Content-Type, Content-Length, Content-Location, Content-Range, Accept-Ranges, "
    "ETag, Warning, Location, Retry-After"
)
_MAX_AGE_S = "600"


def preflight() -> Response | None:
    """The answer to a CORS preflight, before any authentication; None if it is not one
    (``OPTIONS`` alone asks for capabilities). A stranger's answer allows nothing."""
    if request.method != "OPTIONS" or "Access-Control-Request-Method" not in request.headers:
        return None
    response = Response(status=204)
    if request.headers.get("Origin", "") in web().settings.cors_origins:
        response.headers["Access-Control-Allow-Methods"] = METHODS
        response.headers["Access-Control-Allow-Headers"] = REQUEST_HEADERS
        response.headers["Access-Control-Max-Age"] = _MAX_AGE_S
    return response


def label(response: Response) -> Response:
    """Allow the reading of a response to a listed origin."""
    origins = web().settings.cors_origins
    if not origins:
        return response
    response.vary.add("Origin")
    origin = request.headers.get("Origin", "")
    if origin in origins:
        response.headers["Access-Control-Allow-Origin"] = origin
        response.headers["Access-Control-Allow-Credentials"] = "true"
        response.headers["Access-Control-Expose-Headers"] = RESPONSE_HEADERS
    return response
