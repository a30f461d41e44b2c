# SPDX-License-Identifier: Apache-2.0
"""Non-Patient Instance Service (PS3.18 Chapter 12): colour palettes, hanging protocols and
the like, stored, found and retrieved beside the studies.

Bulk values that metadata name, and deletion, are extensions.
"""

import contextlib
import json
import logging
import secrets
from collections.abc import Callable, Iterator

from flask import Blueprint, Response, request

from archive.errors import ArchiveError, TooLarge, Unreadable
from archive.index.query import parse_match
from archive.non_patient import NonPatientQuery
from archive.non_patient_classes import CATEGORIES
from archive.non_patient_index import MAX_BYTES
from archive.values import Page, Sender, StagedFile, Stored
from dicomweb import media, urls
from dicomweb.context import archive, base_url, caller, warning, web
from dicomweb.deletion import reason_asked
from dicomweb.errors import RETRY_AFTER_S, BadRequest, UnsupportedMediaType
from dicomweb.multipart import MultipartError
from dicomweb.native_xml import native_dicom_model
from dicomweb.qido_parameters import parse_search
from dicomweb.responses import (
    REVALIDATE,
    Part,
    accept,
    accept_query,
    etag_of,
    is_known,
    json_array,
    json_stream,
    labelled,
    multipart_related,
    not_modified,
    single_part,
)
from dicomweb.stow_body import CHUNK_BYTES, DICOM, Body, BodyPart, body_type
from dicomweb.stow_metadata import METADATA_BYTES, store_each, store_metadata
from dicomweb.stow_report import Report, identify_data_set, path_of, response_module

non_patient = Blueprint("non_patient", __name__, url_prefix=urls.ROOT)

log = logging.getLogger(__name__)


def _route(rule: str, method: str) -> "Callable[[Callable[..., Response]], Callable[..., Response]]":
    """The same below every category: each stands in the capabilities by its name."""

    def add(view: Callable[..., Response]) -> Callable[..., Response]:
        for category in CATEGORIES:
            non_patient.add_url_rule(
                f"/{category}{rule}", view_func=view, methods=[method], defaults={"category": category}
            )
        return view

    return add


# ---- search ---------------------------------------------------------------------


@_route("", "GET")
def search_non_patient(category: str) -> Response:
    """Instances of a category that match (12.6)."""
    chosen = media.negotiate(accept(), media.offer_data_sets(None), accept_query())
    settings = web().settings
    asked = parse_search(
        request.args.items(multi=True), default=settings.results_default, most=settings.results_limit
    )
    flags = {"fuzzy": asked.fuzzy, "empty": asked.empty, "multiple": asked.multiple}
    matches = tuple(parse_match(key.path, key.vr, key.text, **flags) for key in asked.keys)
    include = ("all",) if asked.include_all else asked.include
    query = NonPatientQuery(category, matches, include, asked.limit, asked.offset)
    page = archive().find_non_patient(query, **caller())
    response = _results(category, page, chosen)
    if page.remaining:
        text = f"There are {page.remaining} additional results that can be requested"
        response.headers.add("Warning", warning(text))
    return response


def _results(category: str, page: Page, chosen: media.Representation) -> Response:
    if not page.rows:
        return labelled(Response(status=204), "", REVALIDATE)
    rows = [{**row, "00081190": _url_value(category, row)} for row in page.rows]
    if chosen.media_type != media.XML:
        encoded = (json.dumps(dict(sorted(row.items())), ensure_ascii=False).encode() for row in rows)
        return json_stream([b"".join(json_array(encoded))], chosen.media_type)
    documents = [native_dicom_model(row) for row in rows]
    parts = [Part(media.XML, "", [document], len(document)) for document in documents]
    return multipart_related(parts, chosen, secrets.token_hex(16))


def _url_value(category: str, row: dict[str, object]) -> dict[str, object]:
    match row["00080018"]:
        case {"Value": [str(uid), *_]}:
            return {"vr": "UR", "Value": [base_url() + urls.non_patient_path(category, uid)]}
    raise AssertionError("a result without its UID")


# ---- retrieve -------------------------------------------------------------------


@_route("/<uid:instance>", "GET")
def retrieve_non_patient(category: str, instance: str) -> Response:
    """One instance: its attributes as JSON (the default) or XML, or the file (12.4)."""
    found = archive().non_patient(category, instance, **caller())
    data_set = media.offer_data_sets(1)
    file = media.offer_dicom(
        found.transfer_syntax_uid,
        lambda syntax: syntax == media.EXPLICIT_VR_LITTLE_ENDIAN,
        lossy=False,
        single=True,
    )
    chosen = media.negotiate(accept(), lambda member: data_set(member) or file(member), accept_query())
    place = base_url() + urls.non_patient_path(category, instance)
    etag = etag_of(place, chosen, found.digest.hex())
    if is_known(etag):
        return not_modified(etag, REVALIDATE)
    boundary = f"coverslip-{found.digest.hex()[:32]}"
    if chosen.media_type == DICOM:
        data = archive().open_non_patient(category, instance, explicit=not chosen.stored, **caller())
        if not chosen.multipart:
            return single_part([data], len(data), chosen.content_type, etag, REVALIDATE)
        part = Part(chosen.content_type, place, [data], len(data))
        return multipart_related([part], chosen, boundary, etag)
    encoded = archive().non_patient_metadata(category, instance, **caller())
    encoded = encoded.replace(b'"BulkDataURI":"bulk:', f'"BulkDataURI":"{place}/bulkdata/'.encode())
    if chosen.media_type != media.XML:
        return json_stream([b"[" + encoded + b"]"], chosen.media_type, etag)
    document = native_dicom_model(json.loads(encoded))
    if not chosen.multipart:
        return json_stream([document], chosen.media_type, etag)
    return multipart_related([Part(media.XML, "", [document], len(document))], chosen, boundary, etag)


@_route("/<uid:instance>/bulkdata/<bulk:path>", "GET")
def retrieve_non_patient_bulk(category: str, instance: str, path: str) -> Response:
    """One large value, as metadata name it."""
    chosen = media.negotiate(accept(), media.offer_bulk, accept_query())
    found = archive().non_patient(category, instance, **caller())
    place = f"{base_url()}{urls.non_patient_path(category, instance)}/bulkdata/{path}"
    etag = etag_of(place, chosen, found.digest.hex())
    data = archive().non_patient_bulk(category, instance, path, **caller())
    if is_known(etag):
        return not_modified(etag, REVALIDATE)
    if not chosen.multipart:
        return single_part([data], len(data), chosen.content_type, etag, REVALIDATE)
    part = Part(chosen.content_type, place, [data], len(data))
    return multipart_related([part], chosen, f"coverslip-{found.digest.hex()[:32]}", etag)


# ---- store ----------------------------------------------------------------------


@_route("", "POST")
@_route("/<uid:instance>", "POST")
def store_non_patient(category: str, instance: str = "") -> Response:
    """Store instances of a category, or the one of this UID (12.5)."""
    chosen = media.negotiate(accept() or media.JSON, media.offer_data_sets(1), accept_query())
    report = Report()

    def store(staged: StagedFile) -> Stored:
        who = caller()
        principal = who["principal"]
        sender = Sender("dicomweb", principal.actor, principal.address)
        return archive().store_non_patient(
            staged, category=category, sop_instance_uid=instance, sender=sender, **who
        )

    _store_body(request.headers.get("Content-Type", ""), report, store)
    if not report.stored and not report.statuses:
        raise BadRequest("the body holds no instance")
    module = response_module(report, base_url())
    encoded = native_dicom_model(module) if chosen.media_type == media.XML else json.dumps(module).encode()
    # 202 would say that something is still to be stored (Table 12.5.3-1).
    response = Response(encoded, 200 if report.stored else report.status, content_type=chosen.media_type)
    if report.status == 503:
        response.headers["Retry-After"] = str(RETRY_AFTER_S)
    if len(report.stored) == 1:
        response.headers["Content-Location"] = base_url() + path_of(report.stored[0])
    return response


Store = Callable[[StagedFile], Stored]


def _store_body(content_type: str, report: Report, store: Store) -> None:
    """A body that is one instance, or has one in each part."""
    kind, _ = media.parse_parameters(content_type)
    if kind == "multipart/related":
        body = body_type(content_type)
        if body.kind != DICOM:
            store_metadata(body, report, store)
            return
        try:
            for part in Body(body.boundary, web().settings.parts_per_request).parts():
                _store_part(part, report, store)
        except (MultipartError, TooLarge) as error:
            report.refuse(error)
    elif kind == DICOM:
        _store_chunks(_request_chunks(MAX_BYTES), report, store)
    elif kind in (media.JSON, media.XML):
        with archive().assembly() as assembly:
            try:
                places = [assembly.keep(chunk) for chunk in _request_chunks(METADATA_BYTES)]
            except ArchiveError as error:
                report.refuse(error)
                return
            store_each(kind, assembly, places, report, store)
    else:
        raise UnsupportedMediaType(
            f"the body must be {DICOM}, {media.JSON} or {media.XML}, or have such parts"
        )


def _store_part(part: BodyPart, report: Report, store: Store) -> None:
    if part.media_type not in ("", DICOM, "application/octet-stream"):
        part.skip()
        report.refuse(Unreadable("the part is not application/dicom"))
        return
    _store_chunks(_bounded(part.chunks(), MAX_BYTES), report, store, lambda: part.head)
    with contextlib.suppress(MultipartError):  # told already
        part.skip()


def _store_chunks(
    chunks: Iterator[bytes], report: Report, store: Store, head: Callable[[], bytes] = lambda: b""
) -> None:
    """One instance; a refusal is noted."""
    try:
        with archive().stage() as staging:
            for chunk in chunks:
                staging.write(chunk)
            staged = staging.finish()
        report.stored.append(store(staged))
    except Exception as error:  # a fault of ours in one part must not lose the others
        if not isinstance(error, ArchiveError | MultipartError):
            log.exception("a part of a store request failed")
        report.refuse(error, *identify_data_set(head()))


def _request_chunks(limit: int) -> Iterator[bytes]:
    def read() -> Iterator[bytes]:
        while chunk := request.stream.read(CHUNK_BYTES):
            yield chunk

    return _bounded(read(), limit)


def _bounded(chunks: Iterator[bytes], limit: int) -> Iterator[bytes]:
    size = 0
    for chunk in chunks:
        size += len(chunk)
        if size > limit:
            raise TooLarge(f"an instance of more than {limit} bytes")
        yield chunk


# ---- delete ---------------------------------------------------------------------


@_route("/<uid:instance>", "DELETE")
def delete_non_patient(category: str, instance: str) -> Response:
    """Delete one (204); ``reason`` goes into the journal and the audit trail."""
    archive().delete_non_patient(category, instance, reason=reason_asked(), **caller())
    return Response(status=204, headers={"Cache-Control": "no-store"})
