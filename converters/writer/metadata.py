# SPDX-License-Identifier: Apache-2.0
"""What people know about a slide and its scanner does not: patient, study, specimen.

Given as a JSON object of the shape that wsidicom's ``WsiMetadata`` writes; read are

    patient   name identifier issuer birth_date sex
    study     uid identifier date time accession_number referring_physician_name description
    series    uid number description body_part_examined
    label     text barcode
    equipment manufacturer model_name device_serial_number software_versions
    slide     identifier stainings samples
    pyramid   image.pixel_spacing {"width", "height"} (mm)
    pixel_spacing_mm  [between rows, between columns]: ours, for the command line
    focal_plane_spacing_um  between neighbouring focal planes: ours too

``samples`` is wsidicom's flat list of slide sample, block, specimen …, each with its
preparation ``steps``. Other keys of that shape are accepted and have no effect; a key
that the shape does not know, however deep, is an error (see ``metadata_shape``).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, time
from typing import Any

from converters.errors import BadMetadata
from converters.writer.metadata_shape import check_keys

SMALLEST_PIXEL_MM, LARGEST_PIXEL_MM = 1e-5, 0.1  # 0.01 to 100 µm
_SEX = {"male": "M", "female": "F", "other": "O", "m": "M", "f": "F", "o": "O"}
Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Code:
    """A coded concept (PS3.3 8.8)."""

    value: str
    scheme_designator: str
    meaning: str


@dataclass(frozen=True, slots=True)
class Step:
    """One step of preparing a specimen (TID 8001). ``action`` is collection, sampling,
    fixation, embedding, staining or processing; ``codes`` say how or with what."""

    specimen_identifier: str
    action: str
    codes: tuple[Code, ...]
    parent_identifier: str = ""
    parent_type: Code | None = None


@dataclass(frozen=True, slots=True)
class Specimen:
    """One specimen on the glass, with its whole history, oldest step first."""

    identifier: str
    issuer: str = ""
    uid: str = ""
    short_description: str = ""
    type: Code | None = None
    anatomical_sites: tuple[Code, ...] = ()
    steps: tuple[Step, ...] = ()


@dataclass(frozen=True)
class Metadata:
    """Empty means unknown. Dates and times as DICOM writes them."""

    patient_name: str = ""
    patient_id: str = ""
    issuer_of_patient_id: str = ""
    patient_birth_date: str = ""
    patient_sex: str = ""
    study_instance_uid: str = ""
    study_id: str = ""
    study_date: str = ""
    study_time: str = ""
    study_description: str = ""
    accession_number: str = ""
    referring_physician_name: str = ""
    series_instance_uid: str = ""
    series_number: int = 1
    series_description: str = ""
    body_part_examined: str = ""
    label_text: str = ""
    barcode: str = ""
    container_identifier: str = ""
    manufacturer: str = ""
    manufacturer_model_name: str = ""
    device_serial_number: str = ""
    software_versions: tuple[str, ...] = ()
    specimens: tuple[Specimen, ...] = ()
    pixel_spacing_mm: tuple[float, float] | None = None
    focal_plane_spacing_um: float | None = None


UNKNOWN = Metadata()


def read_metadata(source: str | bytes | Json) -> Metadata:
    """From JSON text or an object already parsed. Raises BadMetadata, naming the key."""
    if isinstance(source, (str, bytes)):
        try:
            source = json.loads(source)
        except ValueError as error:
            raise BadMetadata(f"the metadata is not JSON: {error}") from None
    if not isinstance(source, Mapping):
        raise BadMetadata("the metadata is not a JSON object")
    check_keys(source)
    patient, study, series = (_object(source, key) for key in ("patient", "study", "series"))
    label, equipment, slide = (_object(source, key) for key in ("label", "equipment", "slide"))
    return Metadata(
        patient_name=_text(patient, "patient", "name"),
        patient_id=_text(patient, "patient", "identifier"),
        issuer_of_patient_id=_text(patient, "patient", "issuer"),
        patient_birth_date=_date(patient, "patient", "birth_date"),
        patient_sex=_sex(patient),
        study_instance_uid=_uid(study, "study"),
        study_id=_text(study, "study", "identifier", 16),
        study_date=_date(study, "study", "date"),
        study_time=_time(study, "study", "time"),
        study_description=_text(study, "study", "description"),
        accession_number=_text(study, "study", "accession_number", 16),
        referring_physician_name=_text(study, "study", "referring_physician_name"),
        series_instance_uid=_uid(series, "series"),
        series_number=_number(series, "series", "number", 1),
        series_description=_text(series, "series", "description"),
        body_part_examined=_text(series, "series", "body_part_examined", 16),
        label_text=_text(label, "label", "text", 10240),
        barcode=_text(label, "label", "barcode", 10240),
        container_identifier=_text(slide, "slide", "identifier"),
        manufacturer=_text(equipment, "equipment", "manufacturer"),
        manufacturer_model_name=_text(equipment, "equipment", "model_name"),
        device_serial_number=_text(equipment, "equipment", "device_serial_number"),
        software_versions=tuple(str(text)[:64] for text in equipment.get("software_versions") or ()),
        specimens=_specimens(slide),
        pixel_spacing_mm=_spacing(source),
        focal_plane_spacing_um=_plane_spacing(source),
    )


def _object(source: Json, key: str) -> Json:
    value = source.get(key) or {}
    if not isinstance(value, Mapping):
        raise BadMetadata(f"{key} is not an object")
    return value


def _text(source: Json, where: str, key: str, longest: int = 64) -> str:
    value = source.get(key)
    if isinstance(value, Mapping) and "value" in value:  # an identifier with its issuer
        value = value["value"]
    if value is None:
        return ""
    if not isinstance(value, (str, int)) or isinstance(value, bool):
        raise BadMetadata(f"{where}.{key} is not a text")
    text = str(value).strip()
    control = any(ord(letter) < 32 and letter not in "\r\n\t" for letter in text)
    if len(text) > longest or "\\" in text or control:
        raise BadMetadata(f"{where}.{key} is longer than {longest} characters or holds forbidden ones")
    return text


def _number(source: Json, where: str, key: str, default: int) -> int:
    value = source.get(key)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**31:
        raise BadMetadata(f"{where}.{key} is not a number")
    return value


def _date(source: Json, where: str, key: str) -> str:
    text = _text(source, where, key)
    try:
        return date.fromisoformat(text).strftime("%Y%m%d") if text else ""
    except ValueError:
        raise BadMetadata(f"{where}.{key} is not a date (YYYY-MM-DD)") from None


def _time(source: Json, where: str, key: str) -> str:
    text = _text(source, where, key)
    try:
        return time.fromisoformat(text).strftime("%H%M%S") if text else ""
    except ValueError:
        raise BadMetadata(f"{where}.{key} is not a time (HH:MM:SS)") from None


def _sex(patient: Json) -> str:
    text = _text(patient, "patient", "sex").lower()
    if text and text not in _SEX:
        raise BadMetadata("patient.sex is not male, female or other")
    return _SEX.get(text, "")


def _uid(source: Json, where: str) -> str:
    text = _text(source, where, "uid")
    parts = text.split(".")
    if text and (len(parts) < 2 or not all(p.isdigit() and str(int(p)) == p for p in parts)):
        raise BadMetadata(f"{where}.uid is not a UID")
    return text


def _spacing(source: Json) -> tuple[float, float] | None:
    given = source.get("pixel_spacing_mm")
    if given is None:
        image = _object(_object(source, "pyramid"), "image")
        size = _object(image, "pixel_spacing")
        given = [size.get("height"), size.get("width")] if size else None
    if given is None:
        return None
    values = [given, given] if isinstance(given, (int, float)) else given
    good = isinstance(values, Sequence) and len(values) == 2
    if not good or not all(
        isinstance(value, (int, float)) and SMALLEST_PIXEL_MM <= value <= LARGEST_PIXEL_MM for value in values
    ):
        raise BadMetadata(
            "pixel_spacing_mm is not two numbers of millimetres that a microscope's pixels can have: "
            "0.5 micrometres are 0.0005"
        )
    return float(values[0]), float(values[1])


def _plane_spacing(source: Json) -> float | None:
    value = source.get("focal_plane_spacing_um")
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 10_000:
        raise BadMetadata("focal_plane_spacing_um is not a number of micrometres")
    return float(value)


def _code(value: object, where: str) -> Code:
    if not isinstance(value, Mapping):
        raise BadMetadata(f"{where} is not a code")
    code = Code(*(_text(value, where, key, 64) for key in ("value", "scheme_designator", "meaning")))
    if not (code.value and code.scheme_designator and code.meaning):
        raise BadMetadata(f"{where} is not a code of value, scheme_designator and meaning")
    return code


def _specimens(slide: Json) -> tuple[Specimen, ...]:
    """The slide's samples, each with the steps of all it was taken from."""
    samples = slide.get("samples") or []
    stainings = slide.get("stainings") or []
    if not isinstance(samples, Sequence) or not isinstance(stainings, Sequence):
        raise BadMetadata("slide.samples or slide.stainings is not a list")
    by_name: dict[str, Json] = {}
    for sample in samples:
        if not isinstance(sample, Mapping):
            raise BadMetadata("slide.samples holds something that is not an object")
        by_name[_text(sample, "slide.samples", "identifier")] = sample
    parents = {
        _text(origin, "sampled_from", "identifier")
        for sample in by_name.values()
        for origin in _origins(sample)
    }
    on_glass = [name for name in by_name if name not in parents]
    identifier = _text(slide, "slide", "identifier")
    if not by_name and stainings and identifier:
        on_glass, by_name = [identifier], {identifier: {"identifier": identifier}}
    return tuple(_specimen(name, by_name, stainings) for name in on_glass)


def _origins(sample: Json) -> Sequence[Json]:
    origin = sample.get("sampled_from")
    found = [origin] if isinstance(origin, Mapping) else origin or []
    return [item for item in found if isinstance(item, Mapping)]


def _specimen(name: str, by_name: Mapping[str, Json], stainings: Sequence[object]) -> Specimen:
    sample = by_name[name]
    issuer = sample["identifier"].get("issuer") if isinstance(sample["identifier"], Mapping) else ""
    sites = sample.get("anatomical_sites") or ()
    steps = [*_history(name, by_name, set())]
    for staining in stainings:
        substances = staining.get("substances") if isinstance(staining, Mapping) else None
        codes = tuple(_code(item, "slide.stainings.substances") for item in substances or ())
        steps.append(Step(name, "staining", codes))
    kind = sample.get("type")
    return Specimen(
        identifier=name,
        issuer=issuer if isinstance(issuer, str) else "",
        uid=_uid(sample, "slide.samples"),
        short_description=_text(sample, "slide.samples", "short_description"),
        type=_code(kind, "slide.samples.type") if kind else None,
        anatomical_sites=tuple(_code(site, "slide.samples.anatomical_sites") for site in sites),
        steps=tuple(steps),
    )


_STEP_CODES = {
    "collection": "method",
    "sampling": "method",
    "fixation": "fixative",
    "embedding": "medium",
    "processing": "processing",
}


def _history(name: str, by_name: Mapping[str, Json], seen: set[str]) -> Sequence[Step]:
    """Steps of ``name`` and of all it was taken from, oldest first."""
    if name in seen:
        raise BadMetadata("slide.samples: a sample is taken from itself")
    seen.add(name)
    sample = by_name[name]
    steps: list[Step] = []
    for origin in _origins(sample):
        parent = _text(origin, "sampled_from", "identifier")
        if parent not in by_name:
            raise BadMetadata("slide.samples: sampled_from names a sample that is not listed")
        steps += _history(parent, by_name, seen)
        parent_steps = by_name[parent].get("steps") or []
        at = origin.get("sampling_step_index")
        samplings = [s for s in parent_steps if isinstance(s, Mapping) and s.get("action") == "sampling"]
        if isinstance(at, int) and 0 <= at < len(samplings):
            kind = by_name[parent].get("type")
            steps.append(
                Step(
                    name,
                    "sampling",
                    (_code(samplings[at].get("method"), "slide.samples.steps.method"),),
                    parent,
                    _code(kind, "slide.samples.type") if kind else None,
                )
            )
    for step in sample.get("steps") or ():
        action = step.get("action") if isinstance(step, Mapping) else None
        if action not in _STEP_CODES:
            raise BadMetadata("slide.samples.steps holds an unknown action")
        if action != "sampling":  # a sampling is told by the sample that it made
            how = step.get(_STEP_CODES[action]) or step.get("method")  # wsidicom: a processing's too
            steps.append(Step(name, action, (_code(how, "slide.samples.steps"),) if how else ()))
    return steps
