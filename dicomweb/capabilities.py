# SPDX-License-Identifier: Apache-2.0
"""Retrieve Capabilities (PS3.18 8.9): what a service can do, told from the route table.

``OPTIONS`` on ``/dicom-web/`` or any resource below it describes that resource and what
lies under it, as WADL or as the same in JSON. A CORS preflight is another request by the
same method; ``dicomweb.cors`` answers it before.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from xml.sax.saxutils import quoteattr

from flask import Blueprint, Response, current_app, request
from werkzeug.routing import Rule

from dicomweb import media, urls
from dicomweb.context import base_url, caller
from dicomweb.responses import REVALIDATE, accept, accept_query, labelled
from dicomweb.zipped import ZIP

capabilities = Blueprint("capabilities", __name__, url_prefix=urls.ROOT)

WADL = "application/vnd.sun.wadl+xml"
_JSON = "application/json"
_NAMESPACE = "http://wadl.dev.java.net/2009/02"
_IMPLIED = frozenset(("HEAD", "OPTIONS"))
_MULTIPART = "multipart/related"

_DATA_SETS = (media.JSON, f'{_MULTIPART}; type="{media.XML}"', media.XML)
_BULK = (
    f'{_MULTIPART}; type="application/octet-stream"',
    "application/octet-stream",
    *(f'{_MULTIPART}; type="{name}"' for name in media.SYNTAXES_OF),
)
_INSTANCES = (f'{_MULTIPART}; type="application/dicom"', *_BULK[:1])
_STORE = tuple(f'{_MULTIPART}; type="{name}"' for name in ("application/dicom", media.JSON, media.XML))
_PAGING = (
    "limit", "offset", "includefield", "fuzzymatching", "emptyvaluematching", "multiplevaluematching",
)  # fmt: skip
_PICTURE = ("viewport", "window", "quality", "iccprofile")


@dataclass(frozen=True, slots=True)
class Kind:
    """What the resources of one kind take and give, beyond their method and path."""

    responses: tuple[str, ...] = ()
    requests: tuple[str, ...] = ()
    parameters: tuple[str, ...] = ()


_BY_BLUEPRINT: Mapping[str, Kind] = {
    "qido": Kind(_DATA_SETS, (), _PAGING),
    "stow": Kind(_DATA_SETS, _STORE),
    "rendered": Kind(media.RENDERED_TYPES, (), _PICTURE),
    "bulk": Kind(_BULK),
    "deletion": Kind((), (), ("reason", "code")),
    "commitments": Kind(_DATA_SETS, _DATA_SETS),
}
_NON_PATIENT: Mapping[str, Kind] = {
    "search_non_patient": Kind(_DATA_SETS, (), _PAGING),
    "retrieve_non_patient": Kind((*_DATA_SETS, "application/dicom", _INSTANCES[0])),
    "retrieve_non_patient_bulk": Kind(_BULK[:2]),
    "store_non_patient": Kind(_DATA_SETS, (*_STORE, "application/dicom", media.JSON, media.XML)),
    "delete_non_patient": Kind((), (), ("reason",)),
}
_BY_ENDING: Mapping[str, Kind] = {
    "metadata": Kind(_DATA_SETS),
    "thumbnail": Kind(media.RENDERED_TYPES, (), ("viewport",)),
    "rendered": Kind(media.RENDERED_TYPES, (), _PICTURE),
    "{numbers}": Kind(_BULK),
    "{path}": Kind(_BULK),
    "{study}": Kind((*_INSTANCES, ZIP)),
    "{series}": Kind((*_INSTANCES, ZIP)),
    "{instance}": Kind((*_INSTANCES, "application/dicom", ZIP), (), ("original",)),
}


@dataclass(slots=True)
class Resource:
    """One path of the route table and its methods: name -> (identifier, what it takes)."""

    path: str  # below /dicom-web/
    methods: dict[str, tuple[str, Kind]] = field(default_factory=dict)

    @property
    def path_parameters(self) -> list[str]:
        return re.findall(r"{([^}]+)}", self.path)


@capabilities.route("/", methods=["OPTIONS"], strict_slashes=False)
def describe_service() -> Response:
    """Every DICOMweb resource of this server (8.9)."""
    return _describe("")


@capabilities.before_app_request
def describe_resource() -> Response | None:
    """``OPTIONS`` on a DICOMweb resource, instead of the framework's own answer."""
    rule = request.url_rule
    if request.method != "OPTIONS" or rule is None or not rule.rule.startswith(f"{urls.ROOT}/"):
        return None
    if rule.endpoint == "capabilities.describe_service":
        return None
    return _describe(_path_of(rule))


def _describe(below: str) -> Response:
    caller()
    found = resources(below)
    # A proxy that asks for OPTIONS has no Accept and no interest in the answer.
    chosen = media.negotiate(accept() or "*/*", _offer, accept_query())
    base = f"{base_url()}{urls.ROOT}/"
    body = as_wadl(found, base) if chosen.media_type == WADL else as_json(found, base)
    response = Response(body, content_type=chosen.media_type)
    allowed = {name for resource in found if resource.path == below for name in resource.methods}
    allowed |= {"OPTIONS"} | ({"HEAD"} if "GET" in allowed else set())
    response.headers["Allow"] = ", ".join(sorted(allowed))
    return labelled(response, "", REVALIDATE)


def _offer(member: media.MediaRange) -> media.Representation | None:
    if member.multipart:
        return None
    for name in (WADL, _JSON):
        if member.covers(name):
            return media.Representation(name)
    return None


def _path_of(rule: Rule) -> str:
    path = re.sub(r"<(?:[^:<>]+:)?([^<>]+)>", r"{\1}", rule.rule)
    return path.removeprefix(urls.ROOT).strip("/")


def resources(below: str = "") -> list[Resource]:
    """The DICOMweb resources of the route table at and below a path, by path."""
    found: dict[str, Resource] = {}
    for rule in current_app.url_map.iter_rules():
        if not rule.rule.startswith(f"{urls.ROOT}/"):
            continue
        path = _path_of(rule)
        if below and path != below and not path.startswith(f"{below}/"):
            continue
        for name in (rule.methods or set()) - _IMPLIED:
            resource = found.setdefault(path, Resource(path))
            resource.methods[name] = (rule.endpoint, _kind(rule.endpoint, path))
    return [found[path] for path in sorted(found)]


def _kind(endpoint: str, path: str) -> Kind:
    blueprint, _, view = endpoint.partition(".")
    if blueprint == "non_patient":
        return _NON_PATIENT[view]
    if blueprint in _BY_BLUEPRINT and not path.endswith("thumbnail"):
        return _BY_BLUEPRINT[blueprint]
    return _BY_ENDING.get(path.rpartition("/")[2], Kind())


def as_wadl(found: Iterable[Resource], base: str) -> bytes:
    """A WADL document (W3C submission of 2009)."""
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        f'<application xmlns="{_NAMESPACE}" xmlns:xsd="http://www.w3.org/2001/XMLSchema">',
        f"<resources base={quoteattr(base)}>",
    ]
    for position, resource in enumerate(found):
        lines.append(f"<resource path={quoteattr(resource.path)}>")
        lines += [
            f'<param name={quoteattr(name)} style="template" type="xsd:string" required="true"/>'
            for name in resource.path_parameters
        ]
        for name, (identifier, kind) in sorted(resource.methods.items()):
            number = f"{identifier}.{position}"
            lines.append(f"<method name={quoteattr(name)} id={quoteattr(number)}><request>")
            if kind.responses:
                lines.append('<param name="Accept" style="header" type="xsd:string" required="true"/>')
            lines += [
                f'<param name={quoteattr(parameter)} style="query" type="xsd:string"/>'
                for parameter in kind.parameters
            ]
            lines += [f"<representation mediaType={quoteattr(name)}/>" for name in kind.requests]
            lines.append("</request><response>")
            lines += [f"<representation mediaType={quoteattr(name)}/>" for name in kind.responses]
            lines.append("</response></method>")
        lines.append("</resource>")
    lines.append("</resources></application>\n")
    return "\n".join(lines).encode()


def as_json(found: Iterable[Resource], base: str) -> bytes:
    """The same tree as JSON."""
    listed = [
        {
            "path": resource.path,
            "parameters": resource.path_parameters,
            "methods": [
                {
                    "name": name,
                    "id": identifier,
                    "request": {"parameters": list(kind.parameters), "mediaTypes": list(kind.requests)},
                    "response": {"mediaTypes": list(kind.responses)},
                }
                for name, (identifier, kind) in sorted(resource.methods.items())
            ],
        }
        for resource in found
    ]
    return json.dumps({"application": {"resources": {"base": base, "resource": listed}}}).encode()
