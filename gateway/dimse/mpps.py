# SPDX-License-Identifier: Apache-2.0
"""Modality Performed Procedure Step SCP, and its Retrieve SOP class (PS3.4 F.7 and F.8)."""

import logging
from collections.abc import Callable, Mapping
from typing import Any

from pydicom.dataset import Dataset

from archive.errors import ArchiveError, NotAllowed, StepRefused
from archive.part10.errors import Part10Error
from gateway.dimse.result_encoding import ResultEncoder
from gateway.dimse.rights import Right
from gateway.dimse.services import (
    NOT_AUTHORIZED,
    PROCESSING_FAILURE,
    SUCCESS,
    Request,
    Service,
    UnreadableIdentifier,
)
from gateway.dimse.worklist import Stations

MPPS = "1.2.840.10008.3.1.2.3.3"
MPPS_RETRIEVE = "1.2.840.10008.3.1.2.3.4"

ATTRIBUTE_LIST_ERROR = 0x0107
INVALID_ATTRIBUTE_VALUE = 0x0106

log = logging.getLogger(__name__)


def service(stations: Stations = lambda _: None) -> Service:
    """N-CREATE and N-SET of steps that scanners perform; ``stations`` as in the worklist."""
    return Service(
        "Modality Performed Procedure Step",
        frozenset({MPPS}),
        Right.WORKLIST,
        {
            "N_CREATE": _answered(lambda request: on_n_create(request, stations)),
            "N_SET": _answered(on_n_set),
        },
    )


def retrieve_service() -> Service:
    """N-GET of the same."""
    return Service(
        "Modality Performed Procedure Step Retrieve",
        frozenset({MPPS_RETRIEVE}),
        Right.WORKLIST,
        {"N_GET": _answered(on_n_get)},
    )


def _answered(handler: Callable[[Request], None]) -> Callable[[Request], None]:
    """Refusals as statuses."""

    def serve(request: Request) -> None:
        try:
            handler(request)
        except StepRefused as refusal:
            fields: dict[str, Any] = {"ErrorComment": str(refusal)}
            if refusal.error_id:
                fields["ErrorID"] = refusal.error_id
            if refusal.attributes:
                fields["AttributeIdentifierList"] = [int(tag, 16) for tag in refusal.attributes]
            request.respond(refusal.status, **fields)
        except UnreadableIdentifier as error:
            request.respond(INVALID_ATTRIBUTE_VALUE, ErrorComment=str(error))
        except NotAllowed:
            request.respond(NOT_AUTHORIZED)
        except ArchiveError as error:
            log.warning("%s from %s refused: %s", request.name, request.principal.actor, error)
            request.respond(PROCESSING_FAILURE, ErrorComment=str(error))

    return serve


def on_n_create(request: Request, stations: Stations) -> None:
    """A step begins (PS3.4 F.7.2.1)."""
    named = request.primitive.AffectedSOPInstanceUID
    uid = request.archive.begin_performed_step(
        str(named) if named else "",
        _attributes(request),
        stations=stations(request.principal.actor),
        principal=request.principal,
        scope=request.scope,
    )
    request.respond(SUCCESS, AffectedSOPInstanceUID=uid)


def on_n_set(request: Request) -> None:
    """A step goes on, or ends (PS3.4 F.7.2.2). What may not change is named in a warning."""
    ignored = request.archive.update_performed_step(
        str(request.primitive.RequestedSOPInstanceUID),
        _attributes(request),
        principal=request.principal,
        scope=request.scope,
    )
    if ignored:
        tags = [int(tag, 16) for tag in ignored]
        request.respond(ATTRIBUTE_LIST_ERROR, AttributeIdentifierList=tags)
    else:
        request.respond(SUCCESS)


def on_n_get(request: Request) -> None:
    """A step's attributes: those that are listed, or all (PS3.4 F.8.2)."""
    content = request.archive.performed_step(
        str(request.primitive.RequestedSOPInstanceUID), principal=request.principal, scope=request.scope
    )
    asked = request.primitive.AttributeIdentifierList or []
    tags = [f"{int(tag):08X}" for tag in (asked if isinstance(asked, list) else [asked])]
    found = {tag: content[tag] for tag in tags if tag in content} if tags else content
    missing = [int(tag, 16) for tag in tags if tag not in content]
    data = ResultEncoder(request.transfer_syntax).encode(found)
    if missing:
        request.respond(ATTRIBUTE_LIST_ERROR, data, AttributeIdentifierList=missing)
    else:
        request.respond(SUCCESS, data)


def _attributes(request: Request) -> Mapping[str, object]:
    return to_json(request.data_set())


def to_json(data_set: Dataset) -> dict[str, Any]:
    """A peer's attribute list in the DICOM JSON model. Raises StepRefused for a value that
    is not of its VR."""
    try:
        found: dict[str, Any] = data_set.to_json_dict(bulk_data_threshold=1 << 30)
    except Part10Error as error:
        raise StepRefused(INVALID_ATTRIBUTE_VALUE, str(error)) from error
    except Exception as error:
        # pydicom raises what it likes on malformed values.
        raise StepRefused(INVALID_ATTRIBUTE_VALUE, "a value is not of its VR's form") from error
    return found
