# SPDX-License-Identifier: Apache-2.0
"""The HTTP edge, put together: ``create_app(archive, settings)``.

No globals and no environment: two applications can live in one process.
"""

import time
from typing import TYPE_CHECKING

from flask import Flask, Response, g, request
from werkzeug.routing import BaseConverter

from dicomweb import context, cors, errors
from dicomweb.api import api
from dicomweb.bulk import bulk
from dicomweb.capabilities import capabilities
from dicomweb.commitment import commitments
from dicomweb.context import Authenticate, Web, nobody_in_particular
from dicomweb.deepzoom import deepzoom
from dicomweb.deletion import deletion
from dicomweb.frames_fast import FrameFastPath
from dicomweb.health import Metrics, health
from dicomweb.iiif import iiif
from dicomweb.non_patient import non_patient
from dicomweb.peers import peers
from dicomweb.qido import qido
from dicomweb.qupath import qupath
from dicomweb.rendered import rendered
from dicomweb.responses import security_headers
from dicomweb.settings import WebSettings
from dicomweb.stow import stow
from dicomweb.viewer import viewer
from dicomweb.wado import wado
from dicomweb.wado_uri import wado_uri

if TYPE_CHECKING:
    from archive.service import Archive

__all__ = ["WebSettings", "create_app"]

_ANY_HOST = frozenset({"health.alive", "health.ready"})
"""Probes come by address; they say nothing but yes or no."""


class UidConverter(BaseConverter):
    """A UID in a path (PS3.5 9.1): anything else is no such resource."""

    regex = r"[0-9][0-9.]{0,63}"


class BulkPathConverter(BaseConverter):
    """Tags and item numbers, as the archive names bulk values."""

    part_isolating = False
    regex = r"[0-9A-Fa-f]{8}(?:/[0-9]{1,9}/[0-9A-Fa-f]{8})*"


def create_app(
    archive: "Archive", settings: WebSettings, authenticate: Authenticate = nobody_in_particular
) -> Flask:
    """A WSGI application over one archive. The caller owns the archive and closes it.

    ``authenticate`` names the actor of a request or None (401); the default is open
    mode's, for loopback only.
    """
    app = Flask("dicomweb", static_folder=None)
    app.json.sort_keys = False  # type: ignore[attr-defined]
    app.url_map.converters.update(uid=UidConverter, bulk=BulkPathConverter)
    # Werkzeug's redirects of doubled slashes would repeat the client's Host.
    app.url_map.merge_slashes = False
    web = Web(archive, settings, authenticate, Metrics(settings.metrics_dir, archive.statistics))
    app.extensions["coverslip"] = web
    errors.install(app)
    app.before_request(_begin)
    app.after_request(_finish)
    for blueprint in (
        wado,
        bulk,
        rendered,
        qido,
        stow,
        deletion,
        commitments,
        non_patient,
        wado_uri,
        capabilities,
        api,
        peers,
        health,
        viewer,
    ):
        app.register_blueprint(blueprint)
    for door in (iiif, deepzoom, qupath):
        app.register_blueprint(door)
    app.wsgi_app = FrameFastPath(app.wsgi_app, web)  # type: ignore[method-assign]
    return app


def _begin() -> Response | None:
    """Rules that hold for every resource, before any view runs."""
    g.started = time.perf_counter()
    settings = context.web().settings
    g.request_id = context.request_id_of(request.environ, settings)
    if request.endpoint in _ANY_HOST:
        return None
    context.check_host(request.environ, settings)
    answer = cors.preflight()
    if answer is None:
        context.check_origin(request.environ, settings)
    return answer


def _finish(response: Response) -> Response:
    for name, value in security_headers(context.web().settings):
        response.headers.setdefault(name, value)
    if response.status_code == 204:
        response.headers.pop("Content-Type", None)  # Flask's, of a body that is none
    if "request_id" in g:
        response.headers["X-Request-Id"] = g.request_id
        route = request.endpoint or "none"
        context.web().metrics.observe(route, response.status_code, time.perf_counter() - g.started)
    return cors.label(response)
