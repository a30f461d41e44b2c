# SPDX-License-Identifier: Apache-2.0
"""Storage Commitment Service (PS3.18 Chapter 13).

A request is accepted at once (202) and checked by a job that reads every byte; the result
is asked for under the same URL.
"""

import json
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

commitments = Blueprint("commitments", __name__, url_prefix=urls.ROOT)

BODY_BYTES = 8 << 20
RETRY_AFTER_S = 5
_TRANSACTION = "/commitment-requests/<uid:transaction>"


@commitments.post(_TRANSACTION)
def request_commitment(transaction: str) -> Response:
    """Ask for the safekeeping of instances (13.4): 202, or 409 for a UID in use."""
    media.negotiate(accept(), media.offer_data_sets(1), accept_query())
    archive().request_commitment(transaction, _references(_data_set()), **caller())
    return _working()


@commitments.get(_TRANSACTION)
def check_commitment(transaction: str) -> Response:
    """The result of a request (13.5): 200 with it, 202 while it is being checked."""
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
    try:
        found = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Unreadable("the body is not JSON") from error
    return found[0] if isinstance(found, list) and len(found) == 1 else found


def _references(data_set: Any) -> list[tuple[str, str]]:
    """SOP class and instance of each item of ReferencedSOPSequence, each instance once."""
    items = data_set.get("00081199") if isinstance(data_set, dict) else None
    values = items.get("Value") if isinstance(items, dict) else None
    if not isinstance(values, list) or not all(isinstance(item, dict) for item in values):
        raise BadRequest("the request has no ReferencedSOPSequence")
    pairs = [(first_text(item, "00081150"), first_text(item, "00081155")) for item in values]
    return list({sop: (sop_class, sop) for sop_class, sop in pairs}.values())


def _module(found: Commitment) -> dict[str, Any]:
    """Storage Commitment Response Module (J.2) as DICOM JSON."""
    body: dict[str, Any] = {}
    if found.failed:
        body["00081198"] = {
            "vr": "SQ",
            "Value": [
                {**_reference(sop_class, sop), "00081197": {"vr": "US", "Value": [reason]}}
                for sop_class, sop, reason in found.failed
            ],
        }
    if found.committed:
        body["00081199"] = {"vr": "SQ", "Value": [_reference(*pair) for pair in found.committed]}
    return body


def _reference(sop_class: str, sop: str) -> dict[str, Any]:
    return {"00081150": {"vr": "UI", "Value": [sop_class]}, "00081155": {"vr": "UI", "Value": [sop]}}
