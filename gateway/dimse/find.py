# SPDX-License-Identifier: Apache-2.0
"""Query SCP: C-FIND in the Patient Root and Study Root models (PS3.4 C.4.1)."""

import logging
from collections.abc import Iterator, Mapping
from typing import Any

from archive.errors import ArchiveError, Busy, NotAllowed
from gateway.dimse.query_keys import (
    FIND,
    INSTANCE_AVAILABILITY,
    QUERY_RETRIEVE_LEVEL,
    RETRIEVE_AE_TITLE,
    Asked,
    BadIdentifier,
    QueryLevel,
    agree,
    parse_find,
    sop_classes,
)
from gateway.dimse.result_encoding import Element, ResultEncoder
from gateway.dimse.rights import Right
from gateway.dimse.services import (
    NOT_AUTHORIZED,
    PENDING,
    PENDING_WITHOUT_OPTIONAL_KEYS,
    SUCCESS,
    Request,
    Service,
    UnreadableIdentifier,
)

log = logging.getLogger(__name__)

OUT_OF_RESOURCES = 0xA700
IDENTIFIER_DOES_NOT_MATCH = 0xA900
UNABLE_TO_PROCESS = 0xC001
CANCELLED = 0xFE00
STATUSES = frozenset((
    PENDING, PENDING_WITHOUT_OPTIONAL_KEYS, SUCCESS, CANCELLED, OUT_OF_RESOURCES,
    IDENTIFIER_DOES_NOT_MATCH, UNABLE_TO_PROCESS, NOT_AUTHORIZED,
))  # fmt: skip
"""All that a C-FIND may be answered with (PS3.4 Table C.4-1, PS3.7 Annex C)."""


def service(ae_title: str) -> Service:
    """``ae_title``: ours, from which the results can be retrieved."""
    return Service(
        "Query",
        sop_classes(FIND),
        Right.FIND,
        {"C_FIND": lambda request: on_c_find(request, ae_title.strip())},
        extended=agree,
    )


def on_c_find(request: Request, ae_title: str) -> None:
    """Answer with a pending response for each match, as they are found."""
    try:
        identifier = request.data_set()
        asked = parse_find(identifier, request.abstract_syntax, request.agreed, request.archive.matching_keys)
    except UnreadableIdentifier as error:
        request.respond(UNABLE_TO_PROCESS, ErrorComment=str(error))
        return
    except BadIdentifier as error:
        refuse(request, error)
        return
    pending = PENDING_WITHOUT_OPTIONAL_KEYS if asked.incomplete else PENDING
    encoder = ResultEncoder(request.transfer_syntax, asked.character_set)
    fixed = _fixed(asked, ae_title)
    blank = {path[:8]: {"vr": "SQ" if "." in path else vr} for path, vr in asked.returned.items()}
    try:
        for row in _rows(request, asked):
            if request.cancelled:
                request.respond(CANCELLED)
                return
            request.respond(pending, encoder.encode({**blank, **row, **fixed}))
    except ArchiveError as error:
        log.warning("C-FIND of %s failed: %s", request.principal.actor, error)
        request.respond(_status(error), ErrorComment=str(error))
        return
    request.respond(SUCCESS)


def refuse(request: Request, error: BadIdentifier) -> None:
    """A900, with what is at fault (PS3.4 Table C.4-1)."""
    log.warning("%s of %s refused: %s", request.name, request.principal.actor, error)
    if error.tags:
        request.respond(IDENTIFIER_DOES_NOT_MATCH, ErrorComment=str(error), OffendingElement=error.tags)
    else:
        request.respond(IDENTIFIER_DOES_NOT_MATCH, ErrorComment=str(error))


def _rows(request: Request, asked: Asked) -> Iterator[Mapping[str, Any]]:
    archive = request.archive
    find = archive.find_patients if asked.level is QueryLevel.PATIENT else archive.find_all
    return find(asked.query, principal=request.principal, scope=request.scope)


def _fixed(asked: Asked, ae_title: str) -> dict[str, Element]:
    """What is the same in all results."""
    fixed: dict[str, Element] = {
        QUERY_RETRIEVE_LEVEL: {"vr": "CS", "Value": [asked.level.name]},
        RETRIEVE_AE_TITLE: {"vr": "AE", "Value": [ae_title]},
    }
    if asked.wants_availability:
        fixed[INSTANCE_AVAILABILITY] = {"vr": "CS", "Value": ["ONLINE"]}
    return fixed


def _status(error: ArchiveError) -> int:
    if isinstance(error, NotAllowed):
        return NOT_AUTHORIZED
    return OUT_OF_RESOURCES if isinstance(error, Busy) else UNABLE_TO_PROCESS
