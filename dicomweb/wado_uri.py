# SPDX-License-Identifier: Apache-2.0
"""WADO-URI (PS3.18 Chapter 9) for viewers from before WADO-RS: one object by its query.

Translates the query and answers with what WADO-RS gives.
"""

import re
from collections.abc import Mapping

from flask import Blueprint, Response, request

from archive.errors import NoSuchFrame, NoSuchInstance
from archive.values import Instance
from dicomweb import media
from dicomweb.context import archive, caller, web
from dicomweb.errors import BadRequest
from dicomweb.rendering import parse_rendering
from dicomweb.responses import REVALIDATE, etag_of, is_known, not_modified, single_part

wado_uri = Blueprint("wado_uri", __name__)

DICOM = "application/dicom"
_UID = re.compile(r"[0-9][0-9.]{0,63}")
_NUMBER = re.compile(r"[0-9]{1,9}")
_REFUSED = ("anonymize", "presentationUID", "presentationSeriesUID")
"""What must not be ignored: the answer would show more, or something else."""


@wado_uri.get("/wado")
def retrieve_object() -> Response:
    """One object: a DICOM file, or a picture of it or of one frame (9.4)."""
    arguments = request.args
    if arguments.get("requestType") != "WADO":
        raise BadRequest("requestType must be WADO")
    for name in _REFUSED:
        if arguments.get(name, "no") not in ("", "no"):
            raise BadRequest(f"{name} is not supported")
    found = _instance(*(_uid(name) for name in ("studyUID", "seriesUID", "objectUID")))
    number = _frame_number(found)
    chosen = media.negotiate(arguments.get("contentType") or _default(found, number), _offer(found, number))
    return _file(found) if chosen.media_type == DICOM else _picture(found, number, chosen.media_type)


def _uid(name: str) -> str:
    value = request.args.get(name, "")
    if not _UID.fullmatch(value) and (value or name != "seriesUID"):
        raise BadRequest(f"{name} must be a UID")
    return value


def _instance(study: str, series: str, sop: str) -> Instance:
    if series:
        return archive().instance(study, series, sop, **caller())
    # Clients leave the series out; the object's own UID is enough to find it in its study.
    for found in archive().instances(study, **caller()):
        if found.sop_instance_uid == sop:
            return found
    raise NoSuchInstance(sop)


def _frame_number(found: Instance) -> int:
    """Of the query, from 1; 0 where it names none."""
    text = request.args.get("frameNumber", "")
    if not text:
        return 0
    if not _NUMBER.fullmatch(text) or int(text) == 0:
        raise BadRequest("frameNumber must be a number from 1")
    if int(text) > found.number_of_frames:
        raise NoSuchFrame(int(text), found.number_of_frames)
    return int(text)


def _default(found: Instance, number: int) -> str:
    """A picture of single-frame images and of named frames; else the object (9.4.1)."""
    return "image/jpeg" if number or found.number_of_frames == 1 else DICOM


def _offer(found: Instance, number: int) -> media.Offer:
    pictures = media.offer_rendered() if found.number_of_frames else None

    def offer(member: media.MediaRange) -> media.Representation | None:
        if member.multipart:
            return None
        if member.media_type == "*/*":
            return media.Representation(_default(found, number))
        if member.covers(DICOM) and not number:
            return media.Representation(DICOM)
        return pictures(member) if pictures is not None else None

    return offer


def _file(found: Instance) -> Response:
    wanted = request.args.get("transferSyntax", "")
    asked = f"{DICOM}; transfer-syntax={wanted}" if wanted else DICOM

    def can(transfer_syntax_uid: str) -> bool:
        return archive().can_open(found, transfer_syntax_uid, scope=caller()["scope"])

    offer = media.offer_dicom(found.transfer_syntax_uid, can, lossy=found.lossy, single=True)
    chosen = media.negotiate(asked, offer)
    etag = etag_of(found.etag, chosen)
    if is_known(etag):
        return not_modified(etag, REVALIDATE)
    syntax = "" if chosen.stored else chosen.transfer_syntax_uid
    stream = archive().open(found, transfer_syntax_uid=syntax, **caller())
    return single_part(stream.chunks, stream.length, DICOM, etag, REVALIDATE, stream.section)


def _picture(found: Instance, number: int, media_type: str) -> Response:
    whole = not number and found.total_pixel_matrix_rows and found.total_pixel_matrix_columns
    source = (
        (found.total_pixel_matrix_rows, found.total_pixel_matrix_columns)
        if whole
        else (found.rows, found.columns)
    )
    how = parse_rendering(
        translated(request.args, *source), media_type, web().settings.rendered_pixels, source
    )
    etag = etag_of("uri", found.etag, number, how)
    if is_known(etag):
        return not_modified(etag, REVALIDATE)
    data = archive().rendered(found, number, how, **caller())
    return single_part([data], len(data), media_type, etag, REVALIDATE)


def translated(arguments: Mapping[str, str], rows: int, columns: int) -> dict[str, str]:
    """The rendering parameters of Chapter 9 as those of 8.3.5. ``region`` is in shares of
    the image, left, top, right, bottom. Raises BadRequest."""
    made: dict[str, str] = {}
    if "imageQuality" in arguments:
        made["quality"] = arguments["imageQuality"]
    centre, width = arguments.get("windowCenter"), arguments.get("windowWidth")
    if (centre is None) != (width is None):
        raise BadRequest("windowCenter and windowWidth go together")
    if centre is not None:
        made["window"] = f"{centre},{width},linear"
    left, top, right, bottom = _region(arguments.get("region"))
    source = (left * columns, top * rows, (right - left) * columns, (bottom - top) * rows)
    if "region" in arguments or "rows" in arguments or "columns" in arguments:
        high = _pixels(arguments, "rows")
        wide = _pixels(arguments, "columns")
        if not wide:
            wide = max(1, round(high * source[2] / source[3])) if high else max(1, round(source[2]))
        if not high:
            high = max(1, round(wide * source[3] / source[2]))
        made["viewport"] = f"{wide},{high}"
    if "region" in arguments:
        made["viewport"] += "," + ",".join(f"{value:.6g}" for value in source)
    return made


def _pixels(arguments: Mapping[str, str], name: str) -> int:
    text = arguments.get(name, "")
    if text and (not _NUMBER.fullmatch(text) or int(text) == 0):
        raise BadRequest(f"{name} must be a number of pixels")
    return int(text or 0)


def _region(text: str | None) -> tuple[float, float, float, float]:
    if text is None:
        return 0.0, 0.0, 1.0, 1.0
    parts = text.split(",")
    try:
        left, top, right, bottom = (float(part) for part in parts)
    except ValueError as error:
        raise BadRequest("region must be four numbers from 0 to 1") from error
    if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
        raise BadRequest("region must be left,top,right,bottom from 0 to 1")
    return left, top, right, bottom
