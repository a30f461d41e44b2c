# SPDX-License-Identifier: Apache-2.0
"""STOW-RS (PS3.18 Section 10.5): whole instances, or metadata with bulk data beside it.

Part by part from the socket into the archive's spool, so that memory does not grow with
the body. One bad part never loses the others; every instance is answered for itself.
"""

import json
import logging

from flask import Blueprint, Response, request

from archive.errors import ArchiveError, TooLarge, Unreadable
from archive.values import Sender, StagedFile, Stored
from dicomweb import media, urls
from dicomweb.context import Caller, archive, base_url, caller, web
from dicomweb.errors import RETRY_AFTER_S, BadRequest
from dicomweb.multipart import MultipartError
from dicomweb.native_xml import native_dicom_model
from dicomweb.responses import accept, accept_query
from dicomweb.stow_body import DICOM, Body, BodyPart, body_type
from dicomweb.stow_metadata import store_metadata
from dicomweb.stow_report import Report, identify_data_set, response_module

stow = Blueprint("stow", __name__, url_prefix=urls.ROOT)

log = logging.getLogger(__name__)


@stow.post("/studies")
@stow.post("/studies/<uid:study>")
def store_instances(study: str = "") -> Response:
    """Store every instance; answered when all are durable and findable (10.5).

    Without Accept the answer is JSON, the default: senders that have no use for it, scripts
    above all, name none, and what they send must not be lost for that.
    """
    chosen = media.negotiate(accept() or media.JSON, media.offer_data_sets(1), accept_query())
    body = body_type(request.headers.get("Content-Type", ""))
    report = Report()
    if body.kind == DICOM:
        _store_files(Body(body.boundary, web().settings.parts_per_request), report, study)
    else:
        store_metadata(body, report, lambda staged: _store(staged, study, caller()))
    if not report.stored and not report.statuses:
        raise BadRequest("the body holds no part")
    module = response_module(report, base_url())
    encoded = native_dicom_model(module) if chosen.media_type == media.XML else json.dumps(module).encode()
    response = Response(encoded, report.status, content_type=chosen.media_type)
    if report.status == 503:
        response.headers["Retry-After"] = str(RETRY_AFTER_S)
    return response


def _store_files(body: Body, report: Report, study: str) -> None:
    """Parts of ``application/dicom``."""
    try:
        for part in body.parts():
            _store_file(part, report, study, caller())
    except (MultipartError, TooLarge) as error:
        # What came before the broken place is stored and stays so.
        report.refuse(error)


def _store_file(part: BodyPart, report: Report, study: str, who: Caller) -> None:
    """Into the archive; a refusal is noted and the rest of the part read past."""
    try:
        report.stored.append(_store(_stage(part), study, who))
    except MultipartError as error:
        report.refuse(error, *identify_data_set(part.head))
    except Exception as error:  # a fault of ours in one part must not lose the others
        if not isinstance(error, ArchiveError):
            log.exception("a part of a store request failed")
        part.skip()
        report.refuse(error, *identify_data_set(part.head))


def _stage(part: BodyPart) -> StagedFile:
    if part.media_type not in ("", DICOM, "application/octet-stream"):
        raise Unreadable("the part is not application/dicom")
    with archive().stage(part.size_hint) as staging:
        for chunk in part.chunks():
            staging.write(chunk)
        return staging.finish()


def _store(staged: StagedFile, study: str, who: Caller) -> Stored:
    principal = who["principal"]
    sender = Sender("dicomweb", principal.actor, principal.address)
    return archive().store_file(staged, sender=sender, study_instance_uid=study, **who)
