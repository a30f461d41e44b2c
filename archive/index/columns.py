# SPDX-License-Identifier: Apache-2.0
"""Which DICOM attribute is which column: for matching, and for results."""

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from archive.index.attributes import EXTRACTED


class Level(IntEnum):
    """The level of a query's results (PS3.4 C.3). Larger is deeper."""

    STUDY = 1
    SERIES = 2
    INSTANCE = 3


@dataclass(frozen=True, slots=True)
class Column:
    """A DICOM attribute kept as a column. ``name``: ``table.column`` of the value as
    recorded, also its key in a result row; ``keys``: columns that are compared, where
    they differ (folded names, sortable times)."""

    level: Level
    vr: str
    name: str
    keys: tuple[str, ...] = ()
    matchable: bool = True

    @property
    def compared(self) -> tuple[str, ...]:
        return self.keys or (self.name,)


_S, _E, _I = Level.STUDY, Level.SERIES, Level.INSTANCE

COLUMNS: dict[str, Column] = {
    "00080020": Column(_S, "DA", "study.study_date"),
    "00080030": Column(_S, "TM", "study.study_time", ("study.study_time_key",)),
    "00080050": Column(_S, "SH", "study.accession_number"),
    "00080061": Column(_S, "CS", "study.modalities"),
    "00080090": Column(
        _S, "PN", "study.referring_physician_name", ("study.referring_physician_name_folded",)
    ),
    "00080201": Column(_S, "SH", "study.timezone_offset_from_utc"),
    "00081030": Column(_S, "LO", "study.study_description"),
    "00100010": Column(
        _S,
        "PN",
        "study.patient_name",
        ("study.patient_name_folded", "study.patient_name_ideographic", "study.patient_name_phonetic"),
    ),
    "00100020": Column(_S, "LO", "study.patient_id"),
    "00100021": Column(_S, "LO", "study.issuer_of_patient_id"),
    "00100030": Column(_S, "DA", "study.patient_birth_date"),
    "00100040": Column(_S, "CS", "study.patient_sex"),
    "0020000D": Column(_S, "UI", "study.study_instance_uid"),
    "00200010": Column(_S, "SH", "study.study_id"),
    "00201206": Column(_S, "IS", "study.number_of_series"),
    "00201208": Column(_S, "IS", "study.number_of_instances"),
    "00080021": Column(_E, "DA", "series.series_date"),
    "00080031": Column(_E, "TM", "series.series_time", matchable=False),
    "00080060": Column(_E, "CS", "series.modality"),
    "00080070": Column(_E, "LO", "series.manufacturer"),
    "00081010": Column(_E, "SH", "series.station_name"),
    "0008103E": Column(_E, "LO", "series.series_description"),
    "00081090": Column(_E, "LO", "series.manufacturer_model_name"),
    "00180015": Column(_E, "CS", "series.body_part_examined"),
    "00181000": Column(_E, "LO", "series.device_serial_number"),
    "0020000E": Column(_E, "UI", "series.series_instance_uid"),
    "00200011": Column(_E, "IS", "series.series_number"),
    "00200060": Column(_E, "CS", "series.laterality"),
    "00201209": Column(_E, "IS", "series.number_of_instances"),
    "00400244": Column(_E, "DA", "series.performed_procedure_step_start_date"),
    "00400245": Column(
        _E,
        "TM",
        "series.performed_procedure_step_start_time",
        ("series.performed_procedure_step_start_time_key",),
    ),
    "00080016": Column(_I, "UI", "instance.sop_class_uid"),
    "00080018": Column(_I, "UI", "instance.sop_instance_uid"),
    "00080023": Column(_I, "DA", "instance.content_date"),
    "00080033": Column(_I, "TM", "instance.content_time", matchable=False),
    "00083002": Column(_I, "UI", "instance.transfer_syntax_uid"),
    "00020010": Column(_I, "UI", "instance.transfer_syntax_uid"),
    "00200013": Column(_I, "IS", "instance.instance_number"),
    "00280002": Column(_I, "US", "instance.samples_per_pixel"),
    "00280004": Column(_I, "CS", "instance.photometric_interpretation"),
    "00280008": Column(_I, "IS", "instance.number_of_frames"),
    "00280010": Column(_I, "US", "instance.rows"),
    "00280011": Column(_I, "US", "instance.columns"),
    "00280100": Column(_I, "US", "instance.bits_allocated"),
    "00280101": Column(_I, "US", "instance.bits_stored"),
    "00480006": Column(_I, "UL", "instance.total_pixel_matrix_columns"),
    "00480007": Column(_I, "UL", "instance.total_pixel_matrix_rows"),
}

# A date and the time that completes it: matched together when both are ranges.
COMBINED = {"00080020": "00080030", "00400244": "00400245"}

# What a result has unasked (PS3.18 Tables 10.6.3-3 to -5), beside the keys of matching.
_RETURNED = {
    Level.STUDY: (
        "00080020", "00080030", "00080050", "00080061", "00080090", "00080201", "00100010",
        "00100020", "00100030", "00100040", "0020000D", "00200010", "00201206", "00201208",
    ),
    Level.SERIES: (
        "00080060", "00080201", "0008103E", "0020000E", "00200011", "00201209", "00400244", "00400245",
    ),
    Level.INSTANCE: (
        "00080016", "00080018", "00083002", "00200013", "00280008", "00280010", "00280011", "00280100",
    ),
}  # fmt: skip

# Further columns of a row, for the service: places in storage, digests, flags.
ROW_COLUMNS: dict[Level, tuple[str, ...]] = {
    Level.STUDY: (
        "study.id", "study.place", "study.protocol_study_id", "study.sensitivity", "study.unmatched",
        "study.size_bytes", "study.created", "study.updated",
    ),
    Level.SERIES: (
        "series.id", "series.container_identifier", "series.unmatched", "series.size_bytes",
        "series.total_pixel_matrix_rows", "series.total_pixel_matrix_columns",
        "series.original_id", "series.created", "series.updated",
    ),
    Level.INSTANCE: (
        "instance.id", "instance.image_type", "instance.lossy", "instance.has_pixel_data",
        "instance.pixel_representation", "instance.size_bytes", "instance.revision",
        "instance.record_key", "instance.json_offset", "instance.json_length",
        "instance.base_digest", "instance.origin", "instance.stored",
    ),
}  # fmt: skip


def supported(path: str, keys: Container[str] = EXTRACTED) -> bool:
    """Whether queries can match on a dotted tag path; other keys are ignored. ``keys``:
    what is kept in ``attribute``."""
    column = COLUMNS.get(path)
    return column.matchable if column else path in keys


def selected(level: Level) -> list[str]:
    """All columns of a result row at a level, those of the levels above included."""
    names: dict[str, None] = {}
    for one in Level:
        if one <= level:
            names.update(dict.fromkeys(ROW_COLUMNS[one]))
    for column in COLUMNS.values():
        if column.level <= level:
            names[column.name] = None
    return list(names)


def asked(include: Iterable[str], level: Level) -> tuple[dict[str, Column], list[str]]:
    """The columns by tag that ``include`` names at a level, and the paths that no column has;
    ``all`` is every column."""
    columns: dict[str, Column] = {}
    missing = []
    for path in include:
        if path == "all":
            columns |= {
                tag: column for tag, column in COLUMNS.items() if column.level <= level and tag >= "00080000"
            }
        elif (column := COLUMNS.get(path)) and column.level <= level:
            columns[path] = column
        else:
            missing.append(path)
    return columns, missing


def to_json(
    row: Mapping[str, Any], level: Level, *, include: Iterable[str] = (), parents: bool = True
) -> tuple[dict[str, object], list[str]]:
    """A result row as DICOM JSON (PS3.18 Annex F), and the included paths that no
    column has: those are in the instance's header.

    ``include``: dotted paths, or ``all`` for every column. ``parents``: also what the
    levels above return, as the resources over all series or instances must. Without
    InstanceAvailability and RetrieveURL, which are the edge's.
    """
    tags = {tag for one in Level if one == level or (parents and one < level) for tag in _RETURNED[one]}
    columns, missing = asked(include, level)
    tags |= columns.keys()
    if not parents:
        tags |= {tag for tag, one in (("0020000D", _S), ("0020000E", _E)) if one <= level}
    result: dict[str, object] = {tag: element(COLUMNS[tag], row) for tag in sorted(tags)}
    return result, missing


def element(column: Column, row: Mapping[str, Any]) -> dict[str, object]:
    """The value of one column of a row (PS3.18 F.2.2)."""
    value = row[column.name]
    if value is None or value == "":
        return {"vr": column.vr}
    if column.vr == "PN":
        groups = zip(("Alphabetic", "Ideographic", "Phonetic"), value.split("="), strict=False)
        return {"vr": "PN", "Value": [{name: group for name, group in groups if group}]}
    if column.name == "study.modalities":
        return {"vr": column.vr, "Value": value.split("\\")}
    return {"vr": column.vr, "Value": [value]}
