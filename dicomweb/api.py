# SPDX-License-Identifier: Apache-2.0
"""The management API that our own pages use: slides, jobs, quarantine, changes, system.

JSON in snake_case; times are RFC 3339 in UTC. ``/api/openapi.json`` describes every
route of the application, generated from the route table and the views' docstrings.
"""

import re
from collections import Counter
from dataclasses import asdict
from datetime import datetime

from flask import Blueprint, Response, current_app, jsonify, request
from werkzeug.routing import Rule

from archive.values import Job, SlideSummary
from dicomweb import urls
from dicomweb.context import archive, caller, web
from dicomweb.errors import BadRequest

api = Blueprint("api", __name__, url_prefix="/api")

_MAX_LIMIT = 1000
_MAX_SLIDES = 500


def number_argument(name: str, default: int, *, most: int, least: int = 0) -> int:
    """A whole number of the query string. Raises BadRequest out of range or form."""
    text = request.args.get(name, "")
    if not text:
        return default
    if not re.fullmatch(r"[0-9]{1,18}", text) or not least <= int(text) <= most:
        raise BadRequest(f"{name} must be a whole number from {least} to {most}")
    return int(text)


def _plain(values: dict[str, object]) -> dict[str, object]:
    """Times as text; everything else is JSON already."""
    return {
        name: value.isoformat() if isinstance(value, datetime) else value for name, value in values.items()
    }


@api.get("/slides")
def list_slides() -> Response:
    """The work list, newest first; ``search`` in names and identifiers, ``after`` a cursor."""
    limit = number_argument("limit", 50, most=_MAX_SLIDES, least=1)
    found = archive().slides(
        text=request.args.get("search", ""),
        limit=limit,
        after=request.args.get("after", ""),
        **caller(),
    )
    following = found[-1].cursor if len(found) == limit else None
    return jsonify({"slides": [_slide(slide) for slide in found], "next": following})


def _slide(slide: SlideSummary) -> dict[str, object]:
    path = urls.series_path(slide.study_instance_uid, slide.series_instance_uid)
    prefix = request.script_root
    return _plain(asdict(slide)) | {"thumbnail": f"{prefix}{path}/thumbnail"}


@api.get("/jobs")
def list_jobs() -> Response:
    """Jobs that wait, run, or ended lately, newest first."""
    limit = number_argument("limit", 100, most=_MAX_LIMIT, least=1)
    return jsonify({"jobs": [_job(job) for job in archive().jobs(limit=limit, **caller())]})


def _job(job: Job) -> dict[str, object]:
    """What an operator may see: of the payload only the name."""
    return {
        "id": job.id,
        "kind": job.kind,
        "name": str(job.payload.get("name", "")),
        "state": job.state,
        "progress": job.progress,
        "message": job.message,
        "created": job.created.isoformat(),
        "updated": job.updated.isoformat(),
    }


@api.get("/quarantine")
def list_quarantine() -> Response:
    """What could not be stored, and why."""
    limit = number_argument("limit", 100, most=_MAX_LIMIT, least=1)
    kept = archive().quarantined(limit=limit, **caller())
    return jsonify({"quarantined": [_plain(asdict(item)) for item in kept]})


@api.get("/changes")
def list_changes() -> Response:
    """The change feed after sequence number ``after``; ``last`` is where to go on."""
    after = number_argument("after", 0, most=2**63 - 1)
    limit = number_argument("limit", _MAX_LIMIT, most=_MAX_LIMIT, least=1)
    changes = archive().changes(after, limit, **caller())
    last = changes[-1].seq if changes else after
    return jsonify({"changes": [_plain(asdict(change)) for change in changes], "last": last})


@api.get("/system")
def describe_system() -> Response:
    """Version, watched folders and mode of authentication."""
    settings = web().settings
    caller()
    return jsonify(
        {
            "version": settings.version,
            "watch_folders": list(settings.watch_folders),
            "auth_mode": settings.auth_mode,
        }
    )


@api.get("/openapi.json")
def describe_api() -> Response:
    """This description, in OpenAPI 3.1."""
    caller()
    paths: dict[str, dict[str, object]] = {}
    seen: Counter[str] = Counter()
    for rule in sorted(current_app.url_map.iter_rules(), key=lambda rule: rule.rule):
        path = re.sub(r"<(?:[^:<>]+:)?([^<>]+)>", r"{\1}", rule.rule)
        for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
            seen[rule.endpoint] += 1
            paths.setdefault(path, {})[method.lower()] = _operation(rule, seen[rule.endpoint])
    info = {"title": web().settings.service_name, "version": web().settings.version or "0"}
    return jsonify({"openapi": "3.1.0", "info": info, "paths": paths})


def _operation(rule: Rule, occurrence: int) -> dict[str, object]:
    """One route; a view with several routes numbers its further operations."""
    lines = (current_app.view_functions[rule.endpoint].__doc__ or "").strip().splitlines()
    return {
        "operationId": rule.endpoint if occurrence == 1 else f"{rule.endpoint}.{occurrence}",
        "tags": [rule.endpoint.partition(".")[0]],
        "summary": lines[0] if lines else "",
        "parameters": [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
            for name in sorted(rule.arguments - set(rule.defaults or ()))
        ],
        "responses": {"default": {"description": "See docs/conformance.md; errors are JSON objects."}},
    }
