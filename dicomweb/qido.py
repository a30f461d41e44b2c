# SPDX-License-Identifier: Apache-2.0
"""QIDO-RS: the six search resources (PS3.18 Section 10.6)."""

import json
import secrets
from collections.abc import Iterator

from flask import Blueprint, Response, request

from archive.index.columns import supported
from archive.index.query import Level, Query, parse_match
from archive.values import Page
from dicomweb import media, urls
from dicomweb.context import archive, base_url, caller, warning, web
from dicomweb.native_xml import native_dicom_model
from dicomweb.qido_parameters import SearchParameters, parse_search
from dicomweb.responses import (
    REVALIDATE,
    Part,
    accept,
    accept_query,
    json_array,
    json_stream,
    labelled,
    multipart_related,
)

qido = Blueprint("qido", __name__, url_prefix=urls.ROOT)

_STUDY, _SERIES, _INSTANCE, _RETRIEVE_URL = "0020000D", "0020000E", "00080018", "00081190"


@qido.get("/studies")
def search_studies() -> Response:
    """Studies that match."""
    return _search(Level.STUDY)


@qido.get("/series")
@qido.get("/studies/<uid:study>/series")
def search_series(study: str = "") -> Response:
    """Series that match, of all studies or of one."""
    return _search(Level.SERIES, study)


@qido.get("/instances")
@qido.get("/studies/<uid:study>/instances")
@qido.get("/studies/<uid:study>/series/<uid:series>/instances")
def search_instances(study: str = "", series: str = "") -> Response:
    """Instances that match, of all studies, of one, or of one series."""
    return _search(Level.INSTANCE, study, series)


def _search(level: Level, study: str = "", series: str = "") -> Response:
    chosen = media.negotiate(accept(), media.offer_data_sets(None), accept_query())
    settings = web().settings
    asked = parse_search(
        request.args.items(multi=True), default=settings.results_default, most=settings.results_limit
    )
    page = archive().find(_query(level, asked, study, series), **caller())
    return _with_warning(_rows(page, chosen), page)


def _query(level: Level, asked: SearchParameters, study: str, series: str) -> Query:
    """Keys that cannot be matched on are ignored, as unsupported parameters are (8.3)."""
    known = archive().matching_keys
    matches = tuple(
        parse_match(
            key.path,
            known.get(key.path, key.vr),
            key.text,
            fuzzy=asked.fuzzy,
            empty=asked.empty,
            multiple=asked.multiple,
        )
        for key in asked.keys
        if supported(key.path, known)
    )
    include = ("all",) if asked.include_all else asked.include
    return Query(level, matches, include, asked.limit, asked.offset, study, series)


def _rows(page: Page, chosen: media.Representation) -> Response:
    if not page.rows:
        return labelled(Response(status=204), "", REVALIDATE)
    objects = _objects(page, base_url())
    if chosen.media_type != media.XML:
        # In one piece: a page is small, and each piece would be a write of its own.
        return json_stream([b"".join(json_array(objects))], chosen.media_type)
    documents = [native_dicom_model(json.loads(encoded)) for encoded in objects]
    parts = [Part(media.XML, "", [document], len(document)) for document in documents]
    return multipart_related(parts, chosen, secrets.token_hex(16))


def _objects(page: Page, base: str) -> Iterator[bytes]:
    """Encoded results with their Retrieve URL; bulk values asked for get absolute URLs too."""
    for row in page.rows:
        place = base + _path_of(row)
        complete = {**row, _RETRIEVE_URL: {"vr": "UR", "Value": [place]}}
        encoded = json.dumps(
            dict(sorted(complete.items())), separators=(",", ":"), ensure_ascii=False
        ).encode()
        yield encoded.replace(b'"BulkDataURI":"bulk:', f'"BulkDataURI":"{place}/bulkdata/'.encode())


def _path_of(row: dict[str, object]) -> str:
    study, series, instance = (_uid(row, tag) for tag in (_STUDY, _SERIES, _INSTANCE))
    if instance:
        return urls.instance_path(study, series, instance)
    return urls.series_path(study, series) if series else urls.study_path(study)


def _uid(row: dict[str, object], tag: str) -> str:
    match row.get(tag):
        case {"Value": [str(uid), *_]}:
            return uid
    return ""


def _with_warning(response: Response, page: Page) -> Response:
    """How much was left out (8.3.4.4)."""
    if page.remaining:
        response.headers.add(
            "Warning",
            warning(f"There are {page.remaining} additional results that can be requested"),
        )
    return response
