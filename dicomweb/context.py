# SPDX-License-Identifier: Apache-2.0
"""Who asks, by which door: from one request to a Principal, and what a view may reach.

Authentication is the edge's, decisions are the archive's (DESIGN 1.3). In open mode
there is nobody to authenticate, so the Host and Origin rules keep other people's web
pages out (DNS rebinding, cross-site requests).
"""

import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypedDict

from flask import current_app, g, request

from archive.access import Principal, Scope
from dicomweb import urls
from dicomweb.errors import Forbidden, Unauthenticated
from dicomweb.settings import WebSettings
from dicomweb.urls import Environ

if TYPE_CHECKING:
    from archive.service import Archive
    from dicomweb.health import Metrics

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_REQUEST_ID = re.compile(r"[A-Za-z0-9_.-]{1,64}")

Authenticate = Callable[[Environ], str | None]
"""Names the actor of a request, or None when its credentials are absent or wrong."""


class Caller(TypedDict):
    """What every verb of the archive asks for; spread into the call."""

    principal: Principal
    scope: Scope


@dataclass(frozen=True, slots=True)
class Web:
    """All that views share; one per application, kept in ``app.extensions``."""

    archive: "Archive"
    settings: WebSettings
    authenticate: Authenticate
    metrics: "Metrics"


def nobody_in_particular(environ: Environ) -> str | None:
    """Open mode: everybody who reaches the loopback address is the operator."""
    return "operator"


def request_id_of(environ: Environ, settings: WebSettings) -> str:
    """The proxy's own identifier where we believe it, else a new one."""
    if urls.is_from_proxy(environ, settings):
        given = str(environ.get("HTTP_X_REQUEST_ID", ""))
        if _REQUEST_ID.fullmatch(given):
            return given
    return secrets.token_hex(8)


def check_host(environ: Environ, settings: WebSettings) -> None:
    """Refuse a Host that is not ours (DESIGN 3 Settings); the port is not compared."""
    name, _ = urls.split_host(urls.requested_host(environ, settings))
    if name not in settings.hosts:
        raise Forbidden("this server does not answer to that Host")


def check_origin(environ: Environ, settings: WebSettings) -> None:
    """Refuse a state change that a page of another origin asks for."""
    origin = str(environ.get("HTTP_ORIGIN", "")).lower()
    if not origin or environ.get("REQUEST_METHOD", "GET") in SAFE_METHODS:
        return
    if origin not in urls.origins(environ, settings) and origin not in settings.cors_origins:
        raise Forbidden("state changes are accepted from this server's own origin only")


def identify(environ: Environ, web: Web, request_id: str) -> Principal:
    """The principal of a request. Raises Forbidden, Unauthenticated."""
    check_host(environ, web.settings)
    check_origin(environ, web.settings)
    actor = web.authenticate(environ)
    if actor is None:
        raise Unauthenticated("sign in first")
    return Principal(actor, "dicomweb", urls.remote_address(environ, web.settings), request_id)


# ---- within a Flask request ------------------------------------------------------


def web() -> Web:
    made: Web = current_app.extensions["coverslip"]
    return made


def archive() -> "Archive":
    return web().archive


def caller() -> Caller:
    """Principal and scope of this request, made once."""
    if "caller" not in g:
        principal = identify(request.environ, web(), g.request_id)
        g.caller = Caller(principal=principal, scope=archive().policy.scope(principal))
    made: Caller = g.caller
    return made


def base_url() -> str:
    """Where this client reaches us; ``request`` may hold an attacker's Host."""
    if "base_url" not in g:
        g.base_url = urls.base_url(request.environ, web().settings)
    made: str = g.base_url
    return made


def warning(text: str) -> str:
    """The value of a ``Warning`` header; the service is named by its base URI (8.3.4)."""
    return f"299 {base_url()}{urls.ROOT}: {text}"
