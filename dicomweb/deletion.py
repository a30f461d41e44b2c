# SPDX-License-Identifier: Apache-2.0
"""Deletion of studies, series and instances: no service of PS3.18 has it, every client of
archives does it this way. Afterwards they are 410.
"""

from flask import Blueprint, Response, request

from dicomweb import urls
from dicomweb.context import archive, caller
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

    Needs the right to delete; 409 for a part of a slide whose scanner file others need.
    """
    archive().delete(study, series, instance, reason=reason_asked(), **caller())
    return Response(status=204, headers={"Cache-Control": "no-store"})


def reason_asked() -> str:
    """The ``reason`` of a request to delete. Raises BadRequest."""
    reason = request.args.get("reason", "").strip() or DEFAULT_REASON
    if len(reason) > REASON_CHARACTERS or not reason.isprintable():
        raise BadRequest(f"reason must be up to {REASON_CHARACTERS} printable characters")
    return reason
