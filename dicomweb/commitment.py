# SPDX-License-Identifier: Apache-2.0
"""Storage Commitment Service (PS3.18 Chapter 13).

A request is accepted at once (202) and checked by a job that reads every byte; the result
is asked for under the same URL.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from flask import Blueprint, Response, request

from archive.errors import TooLarge, Unreadable
from archive.part10.from_json import first_text
from archive.values import Commitment
from dicomweb import media, urls
from dicomweb.context import archive, base_url, caller
from dicomweb.errors import BadRequest, UnsupportedMediaType
from dicomweb.multipart import MultipartReader, PartData, boundary_of
from dicomweb.native_xml import native_dicom_model
from dicomweb.native_xml_reader import read_native_xml
from dicomweb.responses import Part, accept, accept_query, multipart_related
from dicomweb.stow_metadata import check_values

commitments = Blueprint("commitments", __name__, url_prefix=urls.ROOT)

BODY_BYTES = 8 << 20
_VALUES = 500_000  # of JSON; 20,000 instances have 180,000 to 240,000
RETRY_AFTER_S = 5
_SOPS, _STUDIES, _SERIES = "00081199", "00081110", "00081115"
_CLASSES, _INSTANCES = "00081112", "0008114A"  # references by SOP class, and in each of these
_CLASS, _INSTANCE = "00081150", "00081155"
_TRANSACTION = "/commitment-requests/<uid:transaction>"


@commitments.post(_TRANSACTION)
def request_commitment(transaction: str) -> Response:
    """Ask for the safekeeping of instances (13.4): 202, or 409 for a UID in use."""
    media.negotiate(accept(), media.offer_data_sets(1), accept_query())
    references, places = _references(_data_set())
    archive().request_commitment(transaction, references, places=places, **caller())
    return _working()


@commitments.get(_TRANSACTION)
def check_commitment(transaction: str) -> Response:
    """The result of a request (13.5): 200 with it, 202 while it is being checked, 410 when it
    is no longer kept."""
    chosen = media.negotiate(accept(), media.offer_data_sets(1), accept_query())
    found = archive().commitment(transaction, **caller())
    if not found.done:
        return _working()
    module = _module(found)
    if chosen.media_type != media.XML:
        return Response(json.dumps(module), content_type=chosen.media_type)
    document = native_dicom_model(module)
    if not chosen.multipart:
        return Response(document, content_type=media.XML)
    return multipart_related(
        [Part(media.XML, "", [document], len(document))], chosen, f"coverslip-{transaction}", "", "no-store"
    )


def _working() -> Response:
    response = Response(status=202)
    response.headers["Retry-After"] = str(RETRY_AFTER_S)
    response.headers["Content-Location"] = f"{base_url()}{request.path}"
    return response


def _data_set() -> Any:
    """The request's one data set. Raises UnsupportedMediaType, TooLarge, Unreadable."""
    if (request.content_length or 0) > BODY_BYTES:
        raise TooLarge(f"a body of more than {BODY_BYTES} bytes")
    body = request.stream.read(BODY_BYTES + 1)
    if len(body) > BODY_BYTES:
        raise TooLarge(f"a body of more than {BODY_BYTES} bytes")
    content_type = request.headers.get("Content-Type", "")
    kind, parameters = media.parse_parameters(content_type)
    if kind == "multipart/related":
        kind = parameters.get("type", "")
        reader = MultipartReader(boundary_of(content_type))
        body = b"".join(event.data for event in reader.feed(body) if isinstance(event, PartData))
        reader.close()
    if kind == media.XML:
        return read_native_xml([body])[0]
    if kind not in (media.JSON, "application/json"):
        raise UnsupportedMediaType(f"the body must be {media.JSON} or {media.XML}")
    check_values(body, _VALUES)
    try:
        found = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Unreadable("the body is not JSON") from error
    return found[0] if isinstance(found, list) and len(found) == 1 else found


def _references(data_set: Any) -> tuple[list[tuple[str, str]], dict[str, tuple[str, str]]]:
    """SOP class and instance of each item of ReferencedSOPSequence and of
    ReferencedStudySequence, each instance once; study and series of the latter (J.1)."""
    if not isinstance(data_set, dict) or not {_SOPS, _STUDIES} & data_set.keys():
        raise BadRequest("the request has no ReferencedSOPSequence and no ReferencedStudySequence")
    found = {first_text(item, _INSTANCE): first_text(item, _CLASS) for item in _items(data_set, _SOPS)}
    places: dict[str, tuple[str, str]] = {}
    for study in _items(data_set, _STUDIES):
        for series in _items(study, _SERIES):
            for sop_class in _items(series, _CLASSES):
                for item in _items(sop_class, _INSTANCES):
                    sop = first_text(item, _INSTANCE)
                    found[sop] = first_text(sop_class, _CLASS)
                    places[sop] = (first_text(study, "0020000D"), first_text(series, "0020000E"))
    if not found:
        raise BadRequest("the request names no instance")
    return [(sop_class, sop) for sop, sop_class in found.items()], places


def _items(data_set: dict[str, Any], tag: str) -> list[dict[str, Any]]:
    """The items of a sequence, [] where it is absent. Raises BadRequest for what is none."""
    element = data_set.get(tag)
    values = element.get("Value", []) if isinstance(element, dict) else [] if element is None else None
    if not isinstance(values, list) or not all(isinstance(item, dict) for item in values):
        raise BadRequest(f"{tag} is not a sequence")
    return values


def _module(found: Commitment) -> dict[str, Any]:
    """Storage Commitment Response Module (J.2) as DICOM JSON: each instance in the sequence
    that it was asked for in, or in the failed one that goes with it."""
    body: dict[str, Any] = {}
    reasons = {sop: reason for _, sop, reason in found.failed}
    for failed, pairs in (
        (True, [(sop_class, sop) for sop_class, sop, _ in found.failed]),
        (False, list(found.committed)),
    ):
        alone = [pair for pair in pairs if pair[1] not in found.places]
        placed = [pair for pair in pairs if pair[1] in found.places]
        if alone:
            items = [{_CLASS: _ui(pair[0]), **_instance(pair[1], reasons)} for pair in alone]
            body["00081198" if failed else _SOPS] = _sequence(items)
        if placed:
            body["0008119B" if failed else _STUDIES] = _by_study(placed, found.places, reasons)
    return dict(sorted(body.items()))


def _by_study(
    pairs: Sequence[tuple[str, str]], places: Mapping[str, tuple[str, str]], reasons: Mapping[str, int]
) -> dict[str, Any]:
    """Instances by study, series and SOP class, in the order they were named."""
    tree: dict[str, dict[str, dict[str, list[str]]]] = {}
    for sop_class, sop in pairs:
        study, series = places[sop]
        tree.setdefault(study, {}).setdefault(series, {}).setdefault(sop_class, []).append(sop)
    return _sequence(
        {
            "0020000D": _ui(study),
            _SERIES: _sequence(
                {
                    "0020000E": _ui(series),
                    _CLASSES: _sequence(
                        {
                            _CLASS: _ui(sop_class),
                            _INSTANCES: _sequence(_instance(sop, reasons) for sop in sops),
                        }
                        for sop_class, sops in classes.items()
                    ),
                }
                for series, classes in inner.items()
            ),
        }
        for study, inner in tree.items()
    )


def _instance(sop: str, reasons: Mapping[str, int]) -> dict[str, Any]:
    item = {_INSTANCE: _ui(sop)}
    return item | {"00081197": {"vr": "US", "Value": [reasons[sop]]}} if sop in reasons else item


def _sequence(items: Iterable[dict[str, Any]]) -> dict[str, Any]:
    return {"vr": "SQ", "Value": list(items)}


def _ui(uid: str) -> dict[str, Any]:
    return {"vr": "UI", "Value": [uid]}
