# SPDX-License-Identifier: Apache-2.0
"""Rejection notes as we write them: Key Object Selection Documents (PS3.3 A.35.4, PS3.16
TID 2010, IHE RAD TF-2 4.66) in the study of what they reject."""

import re
import uuid
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items

from archive.part10.encode import encode_header
from archive.part10.recode import recode_to_utf8
from archive.rejected import CODES, KEY_OBJECT_SELECTION
from archive.rows import Row

_EXPLICIT_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
_UTF_8 = "ISO_IR 192"
# What a document shares with its study: modules Patient, Clinical Trial Subject, General Study.
_GROUPS = {0x0010, 0x0012}
_OF_STUDY = (
    "StudyInstanceUID", "StudyDate", "StudyTime", "ReferringPhysicianName", "StudyID", "AccessionNumber",
    "IssuerOfAccessionNumberSequence", "StudyDescription", "TimezoneOffsetFromUTC",
)  # fmt: skip
_EMPTY = (  # of type 2
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime",
    "ReferringPhysicianName", "StudyID", "AccessionNumber", "ReferencedPerformedProcedureStepSequence",
)  # fmt: skip


def write_note(
    header: Dataset, rows: Sequence[Row], code: str, reason: str, time: datetime, implementation: str
) -> bytes:
    """Part 10 bytes of a note that rejects ``rows``, instances of one study whose attributes
    ``header`` has. ``code``: of CID 7011; ``reason``: in words, may be empty."""
    if header.get("SpecificCharacterSet") != _UTF_8:
        header = recode_to_utf8(header)
    note = Dataset()
    note.SpecificCharacterSet = _UTF_8
    for keyword in _EMPTY:
        setattr(note, keyword, None)
    for element in header:
        if element.tag.group in _GROUPS or element.keyword in _OF_STUDY:
            note[element.tag] = element
    note.SOPClassUID, note.SOPInstanceUID = KEY_OBJECT_SELECTION, _new_uid()
    note.Modality, note.SeriesInstanceUID = "KO", _new_uid()
    note.SeriesNumber, note.InstanceNumber = 1, 1
    note.SeriesDescription = "Rejection Note"
    note.Manufacturer, note.ManufacturerModelName = "Coverslip", "Coverslip"
    time = time.astimezone(_zone(note))
    note.InstanceCreationDate = note.ContentDate = time.strftime("%Y%m%d")
    note.InstanceCreationTime = note.ContentTime = time.strftime("%H%M%S.%f")
    note.CurrentRequestedProcedureEvidenceSequence = Items([_evidence(rows)])
    note.ValueType, note.ContinuityOfContent = "CONTAINER", "SEPARATE"
    note.ConceptNameCodeSequence = Items([_code(code, CODES[code])])
    template = Dataset()
    template.MappingResource, template.TemplateIdentifier = "DCMR", "2010"
    note.ContentTemplateSequence = Items([template])
    content = [_description(reason)] if reason else []
    note.ContentSequence = Items([*content, *map(_reference, rows)])
    return encode_header(note, _EXPLICIT_LITTLE_ENDIAN, implementation_version=implementation)


def _zone(dataset: Dataset) -> timezone | None:
    """What times of the study are in; None, this machine's, where it does not say."""
    found = re.fullmatch(r"([+-])([01][0-9])([0-5][0-9])", str(dataset.get("TimezoneOffsetFromUTC") or ""))
    if found is None:
        return None
    offset = timedelta(hours=int(found[2]), minutes=int(found[3]))
    return timezone(-offset if found[1] == "-" else offset)


def _new_uid() -> str:
    return f"2.25.{uuid.uuid4().int}"


def _code(value: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "DCM", meaning
    return item


def _evidence(rows: Sequence[Row]) -> Dataset:
    series: dict[str, list[Dataset]] = {}
    for row in rows:
        series.setdefault(row.series_instance_uid, []).append(_sop(row))
    listed = []
    for uid, items in series.items():
        one = Dataset()
        one.SeriesInstanceUID, one.ReferencedSOPSequence = uid, Items(items)
        listed.append(one)
    study = Dataset()
    study.StudyInstanceUID, study.ReferencedSeriesSequence = rows[0].study_instance_uid, Items(listed)
    return study


def _sop(row: Row) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = row.sop_class_uid, row.sop_instance_uid
    return item


def _description(reason: str) -> Dataset:
    item = Dataset()
    item.RelationshipType, item.ValueType, item.TextValue = "CONTAINS", "TEXT", reason
    item.ConceptNameCodeSequence = Items([_code("113012", "Key Object Description")])
    return item


def _reference(row: Row) -> Dataset:
    item = Dataset()
    item.RelationshipType = "CONTAINS"
    item.ValueType = "IMAGE" if row.number_of_frames else "COMPOSITE"
    item.ReferencedSOPSequence = Items([_sop(row)])
    return item
