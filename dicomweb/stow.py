# SPDX-License-Identifier: Apache-2.0
"""STOW-RS: instances as they come (PS3.18 Section 10.5, Annex I).

Part by part from the socket into the archive's spool, so that memory does not grow with
the body. One bad part never loses the others; every part is answered for itself.
"""

import io
import json
import logging
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from flask import Blueprint, Response, request
from pydicom import dcmread
from pydicom.tag import Tag

from archive.errors import ArchiveError, Reason, TooLarge, Unreadable
from archive.values import Sender, StagedFile, Stored
from dicomweb import media, urls
from dicomweb.context import Caller, archive, base_url, caller, web
from dicomweb.errors import RETRY_AFTER_S, BadRequest, UnsupportedMediaType, status_of
from dicomweb.multipart import (
    Event,
    MultipartError,
    MultipartReader,
    PartBegin,
    PartData,
    PartEnd,
    boundary_of,
)
from dicomweb.native_xml import native_dicom_model
from dicomweb.responses import accept, accept_query

stow = Blueprint("stow", __name__, url_prefix=urls.ROOT)

CHUNK_BYTES = 1 << 18
_HEAD_BYTES = 1 << 14

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Report:
    """What became of each part, for the Store Instances Response Module (Annex I.2)."""

    stored: list[Stored] = field(default_factory=list)
    failed: list[tuple[str, str, Reason]] = field(default_factory=list)
    unnamed: list[Reason] = field(default_factory=list)
    statuses: set[int] = field(default_factory=set)

    def refuse(self, error: Exception, head: bytes) -> None:
        """Note a part that was not stored, by its UIDs where they can be read."""
        reason = Reason.PROCESSING_FAILURE
        if isinstance(error, ArchiveError):
            reason = error.reason
        elif isinstance(error, MultipartError):
            reason = Reason.CANNOT_UNDERSTAND
        self.statuses.add(status_of(error))
        sop_class, sop_instance = identify_data_set(head)
        if sop_instance:
            self.failed.append((sop_class, sop_instance, reason))
        else:
            self.unnamed.append(reason)

    @property
    def status(self) -> int:
        """Table 10.5.3-1. Where nothing was stored, for one reason that is not in the
        data (rights, space, syntax, our own fault), that reason's status."""
        if self.stored:
            warned = any(item.warning is not None for item in self.stored)
            return 202 if warned or self.failed or self.unnamed else 200
        if len(self.statuses) == 1 and self.statuses <= {400, 403, 413, 500, 503}:
            return next(iter(self.statuses))
        return 409


def identify_data_set(head: bytes) -> tuple[str, str]:
    """SOP Class and Instance UID from the first bytes of a part, "" where unreadable."""
    try:
        start = dcmread(
            io.BytesIO(head),
            force=True,
            stop_before_pixels=True,
            specific_tags=[Tag("SOPClassUID"), Tag("SOPInstanceUID")],
        )
        meta = start.file_meta
        sop_class = meta.get("MediaStorageSOPClassUID") or start.get("SOPClassUID", "")
        sop_instance = meta.get("MediaStorageSOPInstanceUID") or start.get("SOPInstanceUID", "")
    except Exception:  # noqa: BLE001 - the head is cut anywhere and may be anything: only its UIDs are wanted
        return "", ""
    return str(sop_class), str(sop_instance)


@stow.post("/studies")
@stow.post("/studies/<uid:study>")
def store_instances(study: str = "") -> Response:
    """Store every part; answered when all are durable and findable (10.5)."""
    chosen = media.negotiate(accept(), media.offer_data_sets(1), accept_query())
    reader = MultipartReader(_boundary(request.headers.get("Content-Type", "")))
    report = Report()
    try:
        for part in _Parts(reader, web().settings.parts_per_request).each():
            part.store(report, study, caller())
    except (MultipartError, TooLarge) as error:
        # What came before the broken place is stored and stays so.
        report.refuse(error, b"")
    if not report.stored and not report.statuses:
        raise BadRequest("the body holds no part")
    body = response_module(report, base_url())
    encoded = native_dicom_model(body) if chosen.media_type == media.XML else json.dumps(body).encode()
    response = Response(encoded, report.status, content_type=chosen.media_type)
    if report.status == 503:
        response.headers["Retry-After"] = str(RETRY_AFTER_S)
    return response


def _boundary(content_type: str) -> str:
    name, parameters = media.parse_parameters(content_type)
    kind = parameters.get("type", "application/dicom").partition(";")[0].strip().lower()
    if name != "multipart/related" or kind != "application/dicom":
        raise UnsupportedMediaType('the body must be multipart/related; type="application/dicom"')
    return boundary_of(content_type)


class _Parts:
    """The parts of the request's body, one after the other; each must be used up before
    the next is asked for."""

    def __init__(self, reader: MultipartReader, limit: int) -> None:
        self._reader = reader
        self._limit = limit

    def _events(self) -> Iterator[Event]:
        while chunk := self._read():
            yield from self._reader.feed(chunk)
        self._reader.close()

    @staticmethod
    def _read() -> bytes:
        try:
            return request.stream.read(CHUNK_BYTES)
        except Exception as error:  # each server has its own for a bad chunk or a client gone
            raise MultipartError(f"the body cannot be read: {type(error).__name__}") from error

    def each(self) -> Iterator["_Part"]:
        events = self._events()
        number = 0
        for event in events:
            if isinstance(event, PartBegin):
                number += 1
                if number > self._limit:
                    raise TooLarge(f"at most {self._limit} parts in one request")
                yield _Part(event.headers, events)


class _Part:
    """One part, streaming."""

    def __init__(self, headers: dict[str, str], events: Iterator[Event]) -> None:
        self._media_type, _ = media.parse_parameters(headers.get("content-type", "application/dicom"))
        length = headers.get("content-length", "")
        self._size_hint = int(length) if re.fullmatch(r"[0-9]{1,15}", length) else 0
        self._events = events
        self._head = b""

    def _chunks(self) -> Iterator[bytes]:
        for event in self._events:
            if isinstance(event, PartEnd):
                return
            if isinstance(event, PartData):
                if len(self._head) < _HEAD_BYTES:
                    self._head += event.data[: _HEAD_BYTES - len(self._head)]
                yield event.data
        raise MultipartError("the body ends within a part")

    def store(self, report: Report, study: str, who: Caller) -> None:
        """Into the archive; a refusal is noted and the rest of the part read past."""
        chunks = self._chunks()
        try:
            staged = self._stage(chunks)
            report.stored.append(self._store(staged, study, who))
        except MultipartError as error:
            report.refuse(error, self._head)
        except Exception as error:  # a fault of ours in one part must not lose the others
            if not isinstance(error, ArchiveError):
                log.exception("a part of a store request failed")
            for _ in chunks:
                pass
            report.refuse(error, self._head)

    def _stage(self, chunks: Iterator[bytes]) -> StagedFile:
        if self._media_type not in ("application/dicom", "application/octet-stream"):
            raise Unreadable("the part is not application/dicom")
        with archive().stage(self._size_hint) as staging:
            for chunk in chunks:
                staging.write(chunk)
            return staging.finish()

    def _store(self, staged: StagedFile, study: str, who: Caller) -> Stored:
        principal = who["principal"]
        sender = Sender("dicomweb", principal.actor, principal.address)
        return archive().store_file(staged, sender=sender, study_instance_uid=study, **who)


def response_module(report: Report, base: str) -> dict[str, object]:
    """Store Instances Response Module as DICOM JSON (Annex I.2)."""
    body: dict[str, object] = {}
    studies = {item.study_instance_uid for item in report.stored}
    if len(studies) == 1:
        body["00081190"] = _value("UR", base + urls.study_path(*studies))
    if report.failed:
        body["00081198"] = _sequence(
            _reference(sop_class, sop_instance) | {"00081197": _value("US", int(reason))}
            for sop_class, sop_instance, reason in report.failed
        )
    if report.stored:
        body["00081199"] = _sequence(_success(item, base) for item in report.stored)
    if report.unnamed:
        body["0008119A"] = _sequence({"00081197": _value("US", int(reason))} for reason in report.unnamed)
    return body


def _success(item: Stored, base: str) -> dict[str, object]:
    path = urls.instance_path(item.study_instance_uid, item.series_instance_uid, item.sop_instance_uid)
    made = _reference(item.sop_class_uid, item.sop_instance_uid) | {"00081190": _value("UR", base + path)}
    return made if item.warning is None else made | {"00081196": _value("US", int(item.warning))}


def _reference(sop_class: str, sop_instance: str) -> dict[str, object]:
    made: dict[str, object] = {"00081150": _value("UI", sop_class)} if sop_class else {}
    return made | {"00081155": _value("UI", sop_instance)}


def _value(vr: str, value: object) -> dict[str, object]:
    return {"vr": vr, "Value": [value]}


def _sequence(items: Iterable[dict[str, object]]) -> dict[str, object]:
    return {"vr": "SQ", "Value": list(items)}
