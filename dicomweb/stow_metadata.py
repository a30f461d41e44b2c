# SPDX-License-Identifier: Apache-2.0
"""Store requests of metadata and bulk data (PS3.18 10.5.2, PS3.19 A.1).

Metadata are DICOM JSON or Native DICOM Model XML; every BulkDataURI in them names a part
of the same request by its Content-Location. No other address is ever asked. Everything
is spooled first, since nothing says that metadata come before their bulk data; large
metadata are then read one request at a time, so that a process' memory stays bounded.
"""

import contextlib
import dataclasses
import json
import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from urllib.parse import urljoin

from flask import request

from archive.assemble import PARTS, Assembly
from archive.errors import ArchiveError, StoreWarning, TooLarge, Unreadable
from archive.part10.from_json import first_text
from archive.part10.meta import is_uid
from archive.values import StagedFile, Stored
from dicomweb import media
from dicomweb.context import archive, base_url, web
from dicomweb.multipart import MultipartError
from dicomweb.native_xml_reader import read_native_xml
from dicomweb.stow_body import Body, BodyPart, BodyType
from dicomweb.stow_report import Report

METADATA_BYTES = 24 << 20
"""All metadata of one request. Parsed they take up to six times as much of a process that
serves others too, so what is larger is sent as ``application/dicom``, which needs none."""

_VALUES = 1_200_000
"""Objects, arrays and members of them: about 100 bytes each. 20,000 frames of a sparse level,
each with its position, have 800,000 and take 7 to 20 MB of JSON."""

_SMALL_BYTES = 1 << 20
_one_at_a_time = threading.Lock()

log = logging.getLogger(__name__)

Store = Callable[[StagedFile], Stored]


def store_metadata(body: BodyType, report: Report, store: Store) -> None:
    """Store what metadata and bulk parts make; each data set is answered for itself."""
    with archive().assembly() as assembly:
        metadata: list[list[tuple[int, int]]] = []
        try:
            for part in Body(body.boundary, PARTS).parts():
                if part.media_type in (body.kind, ""):
                    metadata.append(list(_keep(part, assembly, metadata)))
                else:
                    _keep_bulk(part, assembly, report)
        except (MultipartError, TooLarge) as error:
            report.refuse(error)
        size = sum(length for places in metadata for _, length in places)
        with _turn(size):
            for places in metadata:
                _store_each(body.kind, assembly, places, report, store)
        for _ in range(min(assembly.unused(), web().settings.parts_per_request)):
            report.refuse(Unreadable("a bulk part that no data set refers to"))


def _keep(
    part: BodyPart, assembly: Assembly, before: Iterable[list[tuple[int, int]]]
) -> Iterator[tuple[int, int]]:
    """Spool one part of metadata; yields where its bytes are."""
    size = sum(length for places in before for _, length in places)
    for chunk in part.chunks():
        size += len(chunk)
        if size > METADATA_BYTES:
            raise TooLarge(f"more than {METADATA_BYTES} bytes of metadata")
        yield assembly.keep(chunk)


def _keep_bulk(part: BodyPart, assembly: Assembly, report: Report) -> None:
    """Spool one bulk value; a refusal is noted, and the data sets that need it say so."""
    try:
        if not part.location:
            raise Unreadable("a bulk part has no Content-Location")
        assembly.begin(_absolute(part.location), part.media_type, _syntax(part), part.size_hint)
        for chunk in part.chunks():
            assembly.write(chunk)
    except MultipartError:
        assembly.drop()
        raise
    except TooLarge:
        raise
    except ArchiveError as error:
        assembly.drop()
        part.skip()
        report.refuse(error)


def _syntax(part: BodyPart) -> str:
    """As the part says it, or for video the default of its type; the codestream of an
    image says it better than the default, which is a lossless one."""
    if not part.transfer_syntax_uid and part.media_type.startswith("video/"):
        return next(iter(media.SYNTAXES_OF.get(part.media_type, ("",))))
    return part.transfer_syntax_uid


def _absolute(uri: str) -> str:
    """A name as the request means it (RFC 2557): relative to the request's own URL."""
    try:
        return urljoin(f"{base_url()}{request.path}/", uri)
    except ValueError as error:
        raise Unreadable("a BulkDataURI or Content-Location is not a URI") from error


def store_each(
    kind: str, assembly: Assembly, places: list[tuple[int, int]], report: Report, store: Store
) -> None:
    """Store the data sets of a body, kept in ``assembly`` at ``places``."""
    with _turn(sum(length for _, length in places)):
        _store_each(kind, assembly, places, report, store)


def _turn(size: int) -> contextlib.AbstractContextManager[object]:
    """What metadata of so many bytes wait for."""
    return _one_at_a_time if size > _SMALL_BYTES else contextlib.nullcontext()


def _store_each(
    kind: str, assembly: Assembly, places: list[tuple[int, int]], report: Report, store: Store
) -> None:
    try:
        data_sets = _read(kind, assembly, places)
        limit = web().settings.parts_per_request
        if report.answered + len(data_sets) > limit:
            raise TooLarge(f"at most {limit} data sets in one request")
    except ArchiveError as error:
        report.refuse(error)
        return
    while data_sets:
        data_set = data_sets.pop(0)
        if not isinstance(data_set, dict):
            report.refuse(Unreadable("metadata that are not an object"))
            continue
        sop_class, sop_instance = (first_text(data_set, tag) for tag in ("00080016", "00080018"))
        names = (sop_class, sop_instance) if is_uid(sop_class) and is_uid(sop_instance) else ("", "")
        try:
            _resolve(data_set, 0)
            staged, warning = assembly.assemble(data_set)
            stored = store(staged)
        except Exception as error:  # a fault of ours in one data set must not lose the others
            if not isinstance(error, ArchiveError):
                log.exception("a data set of a store request failed")
            report.refuse(error, *names)
        else:
            report.stored.append(_warned(stored, warning))


def _warned(stored: Stored, warning: StoreWarning | None) -> Stored:
    return stored if stored.warning is not None else dataclasses.replace(stored, warning=warning)


def _read(kind: str, assembly: Assembly, places: list[tuple[int, int]]) -> list[Any]:
    """The data sets of one part. Raises Unreadable, TooLarge."""
    chunks = (assembly.read(*place) for place in places)
    if kind == media.XML:
        return list(read_native_xml(chunks))
    encoded = b"".join(chunks)
    check_values(encoded, _VALUES)
    try:
        found = json.loads(encoded, parse_float=str, parse_constant=str)
    except (ValueError, RecursionError) as error:
        raise Unreadable("the metadata are not JSON") from error
    return found if isinstance(found, list) else [found]


def check_values(encoded: bytes, most: int) -> None:
    """Raises TooLarge for JSON that would make more than so many objects and references."""
    if sum(map(encoded.count, (b"{", b"[", b","))) > most:
        raise TooLarge(f"more than {most} objects, arrays and members in the metadata")


def _resolve(data_set: dict[str, Any], depth: int) -> None:
    """Make every BulkDataURI absolute, in place; what is malformed is refused later."""
    if depth > 64:
        raise Unreadable("more than 64 nested sequences")
    for attribute in data_set.values():
        if not isinstance(attribute, dict):
            continue
        uri = attribute.get("BulkDataURI")
        if isinstance(uri, str):
            attribute["BulkDataURI"] = _absolute(uri)
        items = attribute.get("Value")
        if attribute.get("vr") == "SQ" and isinstance(items, list):
            for item in items:
                if isinstance(item, dict):
                    _resolve(item, depth + 1)
