# SPDX-License-Identifier: Apache-2.0
"""What became of each instance of a store request (PS3.18 10.5.3, Annex I.2)."""

import io
from collections.abc import Iterable
from dataclasses import dataclass, field

from pydicom import dcmread
from pydicom.tag import Tag

from archive.errors import ArchiveError, Reason
from archive.non_patient_classes import CATEGORY_OF
from archive.values import Stored
from dicomweb import urls
from dicomweb.errors import status_of
from dicomweb.multipart import MultipartError


@dataclass(slots=True)
class Report:
    """What became of each part, for the Store Instances Response Module (Annex I.2)."""

    stored: list[Stored] = field(default_factory=list)
    failed: list[tuple[str, str, Reason]] = field(default_factory=list)
    unnamed: list[Reason] = field(default_factory=list)
    statuses: set[int] = field(default_factory=set)

    def refuse(self, error: Exception, sop_class: str = "", sop_instance: str = "") -> None:
        """Note an instance that was not stored, by its UIDs where they could be read."""
        reason = Reason.PROCESSING_FAILURE
        if isinstance(error, ArchiveError):
            reason = error.reason
        elif isinstance(error, MultipartError):
            reason = Reason.CANNOT_UNDERSTAND
        self.statuses.add(status_of(error))
        if sop_instance:
            self.failed.append((sop_class, sop_instance, reason))
        else:
            self.unnamed.append(reason)

    @property
    def answered(self) -> int:
        """How many parts it tells of."""
        return len(self.stored) + len(self.failed) + len(self.unnamed)

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


def response_module(report: Report, base: str) -> dict[str, object]:
    """Store Instances Response Module as DICOM JSON (Annex I.2)."""
    body: dict[str, object] = {}
    studies = {item.study_instance_uid for item in report.stored} - {""}
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
    path = path_of(item)
    made = _reference(item.sop_class_uid, item.sop_instance_uid) | {"00081190": _value("UR", base + path)}
    return made if item.warning is None else made | {"00081196": _value("US", int(item.warning))}


def path_of(item: Stored) -> str:
    """Where an instance is retrieved: below its study, or below its category."""
    if item.study_instance_uid:
        return urls.instance_path(item.study_instance_uid, item.series_instance_uid, item.sop_instance_uid)
    return urls.non_patient_path(CATEGORY_OF[item.sop_class_uid], item.sop_instance_uid)


def _reference(sop_class: str, sop_instance: str) -> dict[str, object]:
    made: dict[str, object] = {"00081150": _value("UI", sop_class)} if sop_class else {}
    return made | {"00081155": _value("UI", sop_instance)}


def _value(vr: str, value: object) -> dict[str, object]:
    return {"vr": vr, "Value": [value]}


def _sequence(items: Iterable[dict[str, object]]) -> dict[str, object]:
    return {"vr": "SQ", "Value": list(items)}
