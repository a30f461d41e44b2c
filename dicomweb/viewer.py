# SPDX-License-Identifier: Apache-2.0
"""The work list page, the slide viewer and their static files: bytes from the package, nothing else.

The pages hold no data: everything shown is asked from ``/api`` and ``/dicom-web`` by the
scripts, under the same rules as for any other client. Nothing here knows the archive.
"""

import gzip
import hashlib
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from flask import Blueprint, Response, abort, redirect, request, url_for
from werkzeug.wrappers import Response as BaseResponse

STATIC = Path(__file__).resolve().parent / "static"

# No inline script or style anywhere, so that a value from a slide can never become code.
# blob: and data: are images that the scripts have fetched or drawn themselves.
CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob: data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    )
)

HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # addresses of slides hold UIDs: they go to no other site
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}

MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".md": "text/plain; charset=utf-8",
    ".svg": "image/svg+xml",
}

viewer = Blueprint("viewer", __name__)


class Asset(NamedTuple):
    """One static file, plain and compressed. ``digest`` is the start of its SHA-256."""

    media_type: str
    digest: str
    plain: bytes
    compressed: bytes


@lru_cache(maxsize=128)
def _load(path: Path, _modified_ns: int) -> Asset:
    plain = path.read_bytes()
    return Asset(
        media_type=MEDIA_TYPES[path.suffix],
        digest=hashlib.sha256(plain).hexdigest()[:32],
        plain=plain,
        compressed=gzip.compress(plain, 6, mtime=0),
    )


def _asset(name: str) -> Asset:
    """The static file ``name``; 404 for what is not there, hidden, or of an unknown type."""
    parts = PurePosixPath(name).parts
    if (
        not parts
        or any(part.startswith(".") or part == "/" for part in parts)
        or "\\" in name
        or "\0" in name
    ):
        abort(404)
    path = STATIC.joinpath(*parts)
    if path.suffix not in MEDIA_TYPES or not path.is_file():
        abort(404)
    return _load(path, path.stat().st_mtime_ns)


def _respond(asset: Asset) -> BaseResponse:
    """The file, or 304. ``no-cache`` lets browsers keep it and ask each time, so that
    page and scripts never come from two releases."""
    zipped = request.accept_encodings.quality("gzip") > 0 and len(asset.compressed) < len(asset.plain)
    response = Response(asset.compressed if zipped else asset.plain, content_type=asset.media_type)
    if zipped:
        response.headers["Content-Encoding"] = "gzip"
    response.set_etag(asset.digest + ("-gz" if zipped else ""))
    response.headers["Cache-Control"] = "no-cache"
    response.headers["Vary"] = "Accept-Encoding"
    response.headers.update(HEADERS)
    return response.make_conditional(request)


@viewer.get("/")
def work_list() -> BaseResponse:
    """The work list page."""
    return _respond(_asset("index.html"))


@viewer.get("/viewer/")
def slide() -> BaseResponse:
    """The slide view; ``study`` and ``series`` in the query say which slide."""
    return _respond(_asset("viewer.html"))


@viewer.get("/viewer")
def slide_without_slash() -> BaseResponse:
    """The page's own addresses are relative to the folder: send people there."""
    query = request.query_string.decode("ascii", "replace")
    return redirect(url_for("viewer.slide") + (f"?{query}" if query else ""), 308)


@viewer.get("/static/<path:name>")
def static_file(name: str) -> BaseResponse:
    """A script, style sheet, picture or vendored file of the pages."""
    return _respond(_asset(name))


@viewer.get("/favicon.ico")
def favicon() -> BaseResponse:
    """Browsers ask for it unbidden."""
    return _respond(_asset("img/mark.svg"))
