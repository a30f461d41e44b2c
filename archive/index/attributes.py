# SPDX-License-Identifier: Apache-2.0
"""From a data set to the index: typed columns, and rows of ``attribute``.

Headers come from everywhere: a value that is not of its VR's form gives an empty
column, never an error. The header itself keeps it as it was.
"""

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag

from archive.errors import BadQuery
from archive.index.text import (
    clean,
    date_key,
    datetime_digits,
    datetime_key,
    epoch_range,
    fold,
    fold_name,
    time_key,
)

# Matching keys without a column, by dotted tag path. A new one is one line here: a job
# (``archive.matching_keys``) adds it to what is stored already.
EXTRACTED: dict[str, str] = {
    "00080008": "CS",  # ImageType
    "00080019": "UI",  # PyramidUID
    "0008002A": "DT",  # AcquisitionDateTime
    "00081032.00080100": "SH",  # ProcedureCodeSequence > CodeValue
    "00081115.0020000E": "UI",  # ReferencedSeriesSequence > SeriesInstanceUID
    "00081115.0008114A.00081155": "UI",  # … > ReferencedInstanceSequence > ReferencedSOPInstanceUID
    "00101002.00100020": "LO",  # OtherPatientIDsSequence > PatientID
    "00200052": "UI",  # FrameOfReferenceUID
    "00209161": "UI",  # ConcatenationUID
    "00209311": "CS",  # DimensionOrganizationType
    "00400275.00400009": "SH",  # RequestAttributesSequence > ScheduledProcedureStepID
    "00400275.00401001": "SH",  # … > RequestedProcedureID
    "00400512": "LO",  # ContainerIdentifier
    "00400560.00400551": "LO",  # SpecimenDescriptionSequence > SpecimenIdentifier
    "00400560.00400554": "UI",  # … > SpecimenUID
    "00400560.00400600": "LO",  # … > SpecimenShortDescription
    "00400560.00082228.00080100": "SH",  # … > PrimaryAnatomicStructureSequence > CodeValue
    "00400560.00400610.00400612.0040A168.00080100": "SH",  # … > preparation steps > ConceptCode: stains
    "00400560.00400610.00400612.0040A168.00080104": "LO",  # … > CodeMeaning
    "0040A043.00080100": "SH",  # ConceptNameCodeSequence > CodeValue
    "0040A491": "CS",  # CompletionFlag
    "0040A493": "CS",  # VerificationFlag
    "00480105.00480106": "SH",  # OpticalPathSequence > OpticalPathIdentifier
    "00480105.00480112": "DS",  # … > ObjectiveLensPower
    "00700080": "CS",  # ContentLabel
    "22000005": "LT",  # BarcodeValue
}

# Names that fuzzy matching knows by their sound; columns of ``study``.
SOUNDED = {"00100010": "patient_name", "00080090": "referring_physician_name"}

NUMBERS = frozenset(("DS", "FD", "FL", "IS", "SL", "SS", "SV", "UL", "US", "UV"))
# VRs whose values are compared (PS3.4 C.2.2.2); the others of a key are kept as no rows.
MATCHED_VRS = NUMBERS | frozenset(
    ("AE", "AS", "CS", "DA", "DT", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UI", "UR", "UT")
)
_HEX = re.compile(r"[0-9A-Fa-f]{8}")
_MAX_VALUES = 1000  # of one path and instance
_MAX_INTEGER = 2**63 - 1


class AttributeRow(NamedTuple):
    """One row of ``attribute``, but for its instance. ``folded``: text as compared
    (folded for PN, else as recorded and trimmed); ``num``: numbers, and seconds since
    the epoch of a DT; ``date``: YYYYMMDD, HHMMSS.ffffff or both."""

    path: str
    folded: str | None = None
    num: float | None = None
    date: str | None = None


def tag_path(text: str) -> str:
    """A dotted path of keywords or 8 hexadecimal digits, as dotted upper-case digits.

    Raises BadQuery for an unknown keyword (PS3.18 8.3.4.1)."""
    return ".".join(_tag(part) for part in text.split("."))


def vr_of(path: str) -> str:
    """The VR of a path's last tag, from the dictionary; UN when it has none."""
    try:
        return dictionary_VR(int(path[-8:], 16)).split(" ")[0]
    except KeyError:
        return "UN"


def extract(dataset: Dataset, keys: Mapping[str, str] | None = None) -> list[AttributeRow]:
    """The rows of ``attribute`` for an instance, one a value, without duplicates.
    ``keys``: VR by path, those of :data:`EXTRACTED` unless told."""
    rows: dict[AttributeRow, None] = {}
    zone = _text(dataset, 0x00080201)
    for path, vr in (EXTRACTED if keys is None else keys).items():
        values = list(_values(dataset, [int(tag, 16) for tag in path.split(".")]))[:_MAX_VALUES]
        for value in values:
            for row in _rows(path, vr, value, zone):
                rows[row] = None
    return list(rows)


def study_names(columns: Mapping[str, Any]) -> dict[str, str]:
    """The names of :func:`study_columns` that can be found by their sound, by path."""
    return {path: columns[name] for path, name in SOUNDED.items()}


def study_columns(dataset: Dataset) -> dict[str, Any]:
    """The columns of ``study`` that a data set gives, ``study_instance_uid`` included."""
    name = _text(dataset, 0x00100010)
    alphabetic, ideographic, phonetic = fold_name(name)
    referring = _text(dataset, 0x00080090)
    study_time = _text(dataset, 0x00080030)
    return {
        "study_instance_uid": _text(dataset, 0x0020000D),
        "patient_id": _text(dataset, 0x00100020),
        "issuer_of_patient_id": _text(dataset, 0x00100021),
        "patient_name": name,
        "patient_name_folded": alphabetic,
        "patient_name_ideographic": ideographic,
        "patient_name_phonetic": phonetic,
        "patient_birth_date": date_key(_text(dataset, 0x00100030)),
        "patient_sex": _text(dataset, 0x00100040),
        "study_date": date_key(_text(dataset, 0x00080020)),
        "study_time": study_time if time_key(study_time) else "",
        "study_time_key": time_key(study_time),
        "accession_number": _text(dataset, 0x00080050),
        "referring_physician_name": referring,
        "referring_physician_name_folded": next(filter(None, fold_name(referring)), ""),
        "study_id": _text(dataset, 0x00200010),
        "study_description": _text(dataset, 0x00081030),
        "timezone_offset_from_utc": _text(dataset, 0x00080201),
    }


def series_columns(dataset: Dataset) -> dict[str, Any]:
    """The columns of ``series`` that a data set gives; ``total_pixel_matrix_*`` are this
    instance's: keep the larger."""
    started = _text(dataset, 0x00400245)
    series_time = _text(dataset, 0x00080031)
    return {
        "series_instance_uid": _text(dataset, 0x0020000E),
        "modality": _text(dataset, 0x00080060),
        "series_number": _integer(dataset, 0x00200011),
        "series_description": _text(dataset, 0x0008103E),
        "series_date": date_key(_text(dataset, 0x00080021)),
        "series_time": series_time if time_key(series_time) else "",
        "performed_procedure_step_start_date": date_key(_text(dataset, 0x00400244)),
        "performed_procedure_step_start_time": started if time_key(started) else "",
        "performed_procedure_step_start_time_key": time_key(started),
        "body_part_examined": _text(dataset, 0x00180015),
        "laterality": _text(dataset, 0x00200060),
        "manufacturer": _text(dataset, 0x00080070),
        "manufacturer_model_name": _text(dataset, 0x00081090),
        "device_serial_number": _text(dataset, 0x00181000),
        "station_name": _text(dataset, 0x00081010),
        "container_identifier": _text(dataset, 0x00400512),
        "frame_of_reference_uid": _text(dataset, 0x00200052),
        "total_pixel_matrix_rows": _integer(dataset, 0x00480007) or 0,
        "total_pixel_matrix_columns": _integer(dataset, 0x00480006) or 0,
        "search_text": search_text(dataset),
    }


def instance_columns(dataset: Dataset, *, has_pixel_data: bool) -> dict[str, Any]:
    """The columns of ``instance`` that a data set gives. ``transfer_syntax_uid``, sizes,
    digests and places in the record are the caller's."""
    content_time = _text(dataset, 0x00080033)
    return {
        "sop_instance_uid": _text(dataset, 0x00080018),
        "sop_class_uid": _text(dataset, 0x00080016),
        "instance_number": _integer(dataset, 0x00200013),
        "modality": _text(dataset, 0x00080060),
        "image_type": _joined(dataset, 0x00080008),
        "content_date": date_key(_text(dataset, 0x00080023)),
        "content_time": content_time if time_key(content_time) else "",
        "number_of_frames": max(_integer(dataset, 0x00280008) or 1, 1) if has_pixel_data else 0,
        "rows": _integer(dataset, 0x00280010) or 0,
        "columns": _integer(dataset, 0x00280011) or 0,
        "samples_per_pixel": _integer(dataset, 0x00280002) or 0,
        "bits_allocated": _integer(dataset, 0x00280100) or 0,
        "bits_stored": _integer(dataset, 0x00280101) or 0,
        "pixel_representation": _integer(dataset, 0x00280103) or 0,
        "planar_configuration": _integer(dataset, 0x00280006) or 0,
        "photometric_interpretation": _text(dataset, 0x00280004),
        "lossy": _text(dataset, 0x00282110) == "01",
        "has_pixel_data": has_pixel_data,
        "total_pixel_matrix_rows": _integer(dataset, 0x00480007) or 0,
        "total_pixel_matrix_columns": _integer(dataset, 0x00480006) or 0,
    }


def search_text(dataset: Dataset) -> str:
    """What the work list's search box looks in: folded, words joined by spaces."""
    tags = (0x00100010, 0x00100020, 0x00080050, 0x00400512, 0x0008103E, 0x00081030, 0x00080070)
    words = " ".join(_text(dataset, tag).replace("^", " ").replace("=", " ") for tag in tags)
    return fold(words)


# ---- values of a data set --------------------------------------------------------


def _tag(part: str) -> str:
    if _HEX.fullmatch(part):
        return part.upper()
    tag = tag_for_keyword(part) if part else None  # retired tags have an empty keyword
    if tag is None:
        raise BadQuery("an attribute is neither a keyword nor eight hexadecimal digits")
    return f"{tag:08X}"


def _value(dataset: Dataset, tag: int) -> Any:
    """The converted value; None when absent, empty or not of its VR's form."""
    if tag not in dataset.keys():  # noqa: SIM118 - much quicker than asking the data set
        return None
    try:
        return dataset[BaseTag(tag)].value
    except Exception:  # noqa: BLE001 - pydicom raises what it likes on malformed values
        return None


def _as_text(value: Any) -> str:
    return "" if value is None else clean(str(value).strip())


def _text(dataset: Dataset, tag: int) -> str:
    """The first value as trimmed text."""
    value = _value(dataset, tag)
    if isinstance(value, MultiValue | list | tuple):
        value = value[0] if value else None
    return "" if isinstance(value, bytes) else _as_text(value)


def _joined(dataset: Dataset, tag: int) -> str:
    value = _value(dataset, tag)
    if isinstance(value, MultiValue | list | tuple):
        return clean("\\".join(str(one).strip() for one in value))
    return _as_text(value)


def _number(value: Any) -> float | None:
    try:
        number = float(str(value))
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _integer(dataset: Dataset, tag: int) -> int | None:
    number = _number(_text(dataset, tag))
    return int(number) if number is not None and abs(number) < _MAX_INTEGER else None


def _values(dataset: Dataset, tags: list[int]) -> Iterator[Any]:
    """All values at a path, through all items of its sequences."""
    value = _value(dataset, tags[0])
    if value is None or isinstance(value, bytes):
        return
    if len(tags) > 1:
        for item in value if isinstance(value, Sequence | list) else ():
            if isinstance(item, Dataset):
                yield from _values(item, tags[1:])
    elif isinstance(value, MultiValue | list | tuple):
        yield from value
    else:
        yield value


def _rows(path: str, vr: str, value: Any, zone: str) -> Iterator[AttributeRow]:
    text = _as_text(value)
    if not text:
        return
    if vr in NUMBERS:
        if (number := _number(text)) is not None:
            yield AttributeRow(path, num=number)
    elif vr == "PN":
        for group in filter(None, fold_name(text)):
            yield AttributeRow(path, folded=group)
    elif vr == "DA":
        if key := date_key(text):
            yield AttributeRow(path, date=key)
    elif vr == "TM":
        if key := time_key(text):
            yield AttributeRow(path, date=key)
    elif vr == "DT":
        digits, offset = datetime_digits(text)
        if digits:
            span = epoch_range(digits, offset or datetime_digits(f"2000{zone}")[1])
            yield AttributeRow(path, num=span[0] if span else None, date=datetime_key(digits))
    else:
        yield AttributeRow(path, folded=text)
