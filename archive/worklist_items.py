# SPDX-License-Identifier: Apache-2.0
"""One worklist item: a scheduled procedure step with its order, patient and specimens.

An item is the data set that Modality Worklist answers with (PS3.4 Table K.6-1), in the
DICOM JSON model: ScheduledProcedureStepSequence with one item, ScheduledSpecimenSequence
(containers, each with its specimens and how they were prepared) at the top level.
"""

import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from archive.errors import BadOrder
from archive.index.text import clean, date_key, fold_name, time_key
from archive.index.worklist import ACTIVE, KEYS, SPECIMENS, STATION
from archive.worklist_check import MAX_ITEM_BYTES, DataSet, checked

STEP = "00400100"
BARCODE = "22000005"
STUDY_UID = "0020000D"
SCHEDULED, STARTED = "SCHEDULED", "STARTED"
COMPLETED, DISCONTINUED, CANCELED = "COMPLETED", "DISCONTINUED", "CANCELED"
STATES = ACTIVE | {COMPLETED, DISCONTINUED, CANCELED}

_MODALITY, _START_DATE, _START_TIME = "00080060", "00400002", "00400003"
_STEP_ID, _STATUS = "00400009", "00400020"
_CONTAINER = "00400512"
_DEFAULT_MODALITY = "SM"


@dataclass(frozen=True, slots=True)
class Prepared:
    """An item as it will be kept. ``identifier`` names it for updates; ``status`` is ""
    where the item does not say; ``content`` is without the status."""

    identifier: str
    status: str
    content: DataSet
    columns: Mapping[str, str]
    keys: frozenset[tuple[str, str, int]]  # path, value as compared, position
    dated: bool  # whether the item says when it starts

    @property
    def packed(self) -> bytes:
        return pack(self.content)


def pack(content: DataSet) -> bytes:
    """As kept: canonical JSON, compressed."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return zlib.compress(text.encode(), 6)


def unpack(content: bytes) -> DataSet:
    found: DataSet = json.loads(zlib.decompress(content))
    return found


def prepare(item: Mapping[str, object], *, identifier: str = "", now: datetime) -> Prepared:
    """Check an item and complete it: modality SM, start now, BarcodeValue of a single
    container. StudyInstanceUID is the caller's. Raises BadOrder."""
    content = checked(item)
    step = _step(content)
    nested = step.pop(SPECIMENS, None)
    if nested is not None and not content.get(SPECIMENS, {}).get("Value"):
        content[SPECIMENS] = nested
    status = first(step, _STATUS)
    step.pop(_STATUS, None)
    if status and status not in STATES:
        raise BadOrder("ScheduledProcedureStepStatus is none of the defined terms")
    if not first(content, "00100020"):
        raise BadOrder("PatientID is missing")
    _default(step, _MODALITY, "CS", _DEFAULT_MODALITY)
    dated = bool(first(step, _START_DATE))
    if not dated:
        step[_START_DATE] = {"vr": "DA", "Value": [f"{now:%Y%m%d}"]}
        _default(step, _START_TIME, "TM", f"{now:%H%M%S}")
    _default(step, _START_TIME, "TM", "000000")
    containers = [text for _, text in _texts(content, [SPECIMENS, _CONTAINER])]
    if len(containers) == 1:
        _default(content, BARCODE, "LT", containers[0])
    name = identifier or _identifier(content, step, containers)
    _default(step, _STEP_ID, "SH", _short(name))
    _default(content, "00401001", "SH", first(content, "00080050") or first(step, _STEP_ID))
    content[STEP] = {"vr": "SQ", "Value": [dict(sorted(step.items()))]}
    content = dict(sorted(content.items()))
    if len(json.dumps(content, ensure_ascii=False)) > MAX_ITEM_BYTES:
        raise BadOrder(f"an item is larger than {MAX_ITEM_BYTES} bytes")
    return Prepared(name, status, content, _columns(content, step), frozenset(_keys(content)), dated)


def with_study(item: Prepared, study_instance_uid: str) -> Prepared:
    """The same in a study."""
    content = dict(sorted({**item.content, STUDY_UID: {"vr": "UI", "Value": [study_instance_uid]}}.items()))
    columns = {**item.columns, "study_instance_uid": study_instance_uid}
    return replace(item, content=content, columns=columns)


def with_start_of(item: Prepared, former: DataSet) -> Prepared:
    """The same, starting when it did before: who says nothing of it does not put it off."""
    old, step = _step(former), _step(item.content)
    step |= {tag: old[tag] for tag in (_START_DATE, _START_TIME)}
    content = {**item.content, STEP: {"vr": "SQ", "Value": [step]}}
    return replace(item, content=content, columns=_columns(content, step))


def with_status(content: DataSet, status: str) -> DataSet:
    """The content as it is handed out."""
    step = {**content[STEP]["Value"][0], _STATUS: {"vr": "CS", "Value": [status]}}
    return {**content, STEP: {"vr": "SQ", "Value": [dict(sorted(step.items()))]}}


def first(data_set: Mapping[str, Any], tag: str) -> str:
    """The first value as text; "" without one."""
    values = data_set.get(tag, {}).get("Value") or [None]
    return "" if values[0] is None else _as_text(values[0])


def _as_text(value: object) -> str:
    if isinstance(value, Mapping):
        groups = [str(value.get(name, "")) for name in ("Alphabetic", "Ideographic", "Phonetic")]
        return "=".join(groups).rstrip("=")
    return str(value).strip()


def _step(content: DataSet) -> DataSet:
    steps = content.get(STEP, {}).get("Value", [])
    if len(steps) > 1:
        raise BadOrder("ScheduledProcedureStepSequence has more than one item: each is an item of its own")
    return dict(steps[0]) if steps else {}


def _default(data_set: DataSet, tag: str, vr: str, value: str) -> None:
    if not first(data_set, tag):
        data_set[tag] = {"vr": vr, "Value": [value]}


def _identifier(content: DataSet, step: DataSet, containers: list[str]) -> str:
    """What tells this step from all others, of what the item has."""
    step_id = first(step, _STEP_ID) or (containers[0] if len(containers) == 1 else "")
    if not step_id:
        raise BadOrder("an item needs a ScheduledProcedureStepID or one ContainerIdentifier")
    case = first(content, STUDY_UID) or "|".join(
        first(content, tag) for tag in ("00100021", "00100020", "00080050", "00401001")
    )
    return f"{case}|{step_id}"


def _short(identifier: str) -> str:
    """A value of SH: its end if that fits, else a number made of the whole."""
    end = identifier.rpartition("|")[2]
    return end if len(end) <= 16 and "\\" not in end else f"{zlib.crc32(identifier.encode()):010d}"


def _columns(content: DataSet, step: DataSet) -> dict[str, str]:
    alphabetic, ideographic, phonetic = fold_name(first(content, "00100010"))
    return {
        "study_instance_uid": first(content, STUDY_UID),
        "patient_id": clean(first(content, "00100020")),
        "issuer_of_patient_id": clean(first(content, "00100021")),
        "patient_name_folded": alphabetic,
        "patient_name_ideographic": ideographic,
        "patient_name_phonetic": phonetic,
        "patient_birth_date": date_key(first(content, "00100030")),
        "patient_sex": first(content, "00100040"),
        "accession_number": clean(first(content, "00080050")),
        "requested_procedure_id": clean(first(content, "00401001")),
        "scheduled_procedure_step_id": clean(first(step, _STEP_ID)),
        "modality": first(step, _MODALITY),
        "start_date": date_key(first(step, _START_DATE)),
        "start_time": time_key(first(step, _START_TIME)),
    }


def _keys(content: DataSet) -> Iterator[tuple[str, str, int]]:
    """Rows of ``worklist_key``. ``position`` is the item of ScheduledSpecimenSequence."""
    for path, vr in KEYS.items():
        found = list(_texts(content, path.split(".")))
        for position, text in found:
            at = position if path.startswith(SPECIMENS) else 0
            if vr == "PN":
                yield from ((path, group, at) for group in fold_name(text) if group)
            else:
                yield path, clean(text), at
        if path == STATION and not found:
            yield path, "", 0  # for no station in particular


def _texts(
    data_set: DataSet, path: list[str], position: int = 0, depth: int = 0
) -> Iterator[tuple[int, str]]:
    """(item number in the outermost sequence, text) of each value at a path."""
    tag, *rest = path
    for number, value in enumerate(data_set.get(tag, {}).get("Value", [])):
        at = number if depth == 0 else position
        if rest:
            yield from _texts(value, rest, at, depth + 1)
        elif value is not None:
            yield at, _as_text(value)
