# SPDX-License-Identifier: Apache-2.0
"""Cross-origin reads for viewers served elsewhere: off unless origins are configured.

The origin is echoed only when it is listed, never ``*``: requests carry credentials.
"""

from flask import Response, request

from dicomweb.context import web
from dicomweb.settings import WebSettings

METHODS = "GET, HEAD, POST, PUT, DELETE, OPTIONS"
REQUEST_HEADERS = "authorization, accept, content-type, range, if-range, if-none-match"
RESPONSE_HEADERS = (
    "Content-Type, Content-Length, Content-Location, Content-Range, Accept-Ranges, "
    "ETag, Warning, Location, Retry-After, X-Request-Id"
)
_MAX_AGE_S = "600"


def allowed(origin: str, settings: WebSettings) -> list[tuple[str, str]]:
    """What every response to a page of ``origin`` holds, refusals too; nothing for a
    stranger. The response also varies by Origin wherever origins are configured."""
    if not origin or origin not in settings.cors_origins:
        return []
    return [
        ("Access-Control-Allow-Origin", origin),
        ("Access-Control-Allow-Credentials", "true"),
        ("Access-Control-Expose-Headers", RESPONSE_HEADERS),
    ]


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
        if request.headers.get("Access-Control-Request-Private-Network") == "true":
            # A viewer on the internet, an archive inside the hospital: the origin is listed.
            response.headers["Access-Control-Allow-Private-Network"] = "true"
    return response


def label(response: Response) -> Response:
    """Allow the reading of a response to a listed origin."""
    settings = web().settings
    if settings.cors_origins:
        response.vary.add("Origin")
        for name, value in allowed(request.headers.get("Origin", ""), settings):
            response.headers[name] = value
    return response
