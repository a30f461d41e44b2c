# SPDX-License-Identifier: Apache-2.0
"""Deletion of studies, series and instances: no service of PS3.18 has it, every client of
archives does it this way. Afterwards they are 410.
"""

from flask import Blueprint, Response, request

from dicomweb import urls
from dicomweb.context import archive, base_url, caller
from dicomweb.errors import BadRequest
from dicomweb.wado import INSTANCE, SERIES, STUDY

deletion = Blueprint("deletion", __name__, url_prefix=urls.ROOT)

REASON_CHARACTERS = 256
DEFAULT_REASON = "deleted over DICOMweb"


@deletion.delete(STUDY)
@deletion.delete(SERIES)
@deletion.delete(INSTANCE)
def delete(study: str, series: str = "", instance: str = "") -> Response:
    """Delete what the URL names (204); ``reason`` goes into the journal and the audit trail.
    With ``code`` it is rejected instead, by a rejection note that ``Location`` names.

    Needs the right to delete; 409 for a part of a slide whose scanner file others need.
    """
    code = request.args.get("code", "")
    if code:
        note, _ = archive().reject(
            study, series, instance, code=code, reason=reason_asked(default=""), **caller()
        )
        path = urls.instance_path(note.study_instance_uid, note.series_instance_uid, note.sop_instance_uid)
        return Response(status=204, headers={"Cache-Control": "no-store", "Location": base_url() + path})
    archive().delete(study, series, instance, reason=reason_asked(), **caller())
    return Response(status=204, headers={"Cache-Control": "no-store"})


def reason_asked(default: str = DEFAULT_REASON) -> str:
    """The ``reason`` of a request to delete. Raises BadRequest."""
    reason = request.args.get("reason", "").strip() or default
    if len(reason) > REASON_CHARACTERS or not reason.isprintable():
        raise BadRequest(f"reason must be up to {REASON_CHARACTERS} printable characters")
    return reason
