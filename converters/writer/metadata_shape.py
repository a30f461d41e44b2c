# SPDX-License-Identifier: Apache-2.0
"""Which keys metadata may have: those of wsidicom's ``WsiMetadata`` as JSON, and ours.

A mistyped key would otherwise leave a patient or specimen without what was meant for it,
silently. An object's shape maps each key to the shape of its value; of a list, to that of
its items. None is a plain value.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from converters.errors import BadMetadata

Shape = Mapping[str, Any]


def _plain(*keys: str) -> dict[str, Any]:
    return dict.fromkeys(keys)


_CODE = _plain("value", "scheme_designator", "meaning", "scheme_version")
_IDENTIFIER = {"value": None, "issuer": _plain("identifier", "issuer_type", "local_identifier")}
_MEASUREMENT = _plain("value", "unit")
_LOCATION = {
    **_plain("reference", "description", "visual_marking"),
    "x": _MEASUREMENT, "y": _MEASUREMENT, "z": _MEASUREMENT,
}  # fmt: skip
_ORIGIN = {"identifier": _IDENTIFIER, "sampling_step_index": None}
_STEP = {
    **_plain("action", "date_time", "description"),
    "method": _CODE, "medium": _CODE, "fixative": _CODE, "processing": _CODE,
    "sampling_constraints": _ORIGIN, "location": _LOCATION,
}  # fmt: skip
_SAMPLE = {
    **_plain("uid", "short_description", "detailed_description"),
    "identifier": _IDENTIFIER, "steps": _STEP, "sampled_from": _ORIGIN, "type": _CODE,
    "container": _CODE, "anatomical_sites": _CODE, "localization": _LOCATION,
}  # fmt: skip
_IMAGE = {
    **_plain(
        "acquisition_datetime", "content_datetime", "focus_method", "focal_plane_spacing", "depth_of_field"
    ),
    "extended_depth_of_field": _plain("number_of_focal_planes", "distance_between_focal_planes"),
    "image_coordinate_system": {"origin": _plain("x", "y"), **_plain("rotation", "z_offset")},
    "pixel_spacing": _plain("width", "height"),
    "lossy_compressions": _plain("method", "ratio"),
}
_LUT_SEGMENT = _plain("values", "start_value", "end_value", "value", "length")
_FILTER = {"filters": _CODE, **_plain("nominal", "low_pass", "high_pass")}
_OPTICAL_PATH = {
    **_plain("identifier", "description", "icc_profile", "color_space"),
    "illumination_types": _CODE, "illumination": _CODE,
    "lut": {"red": _LUT_SEGMENT, "green": _LUT_SEGMENT, "blue": _LUT_SEGMENT, "bits": None},
    "light_path_filter": _FILTER, "image_path_filter": _FILTER,
    "objective": {
        "lenses": _CODE, **_plain("condenser_power", "objective_power", "objective_numerical_aperture")
    },
}  # fmt: skip
_PICTURE = {"image": _IMAGE, "optical_paths": _OPTICAL_PATH, **_plain("contains_phi", "comments")}
SHAPE: Shape = {
    "patient": {
        **_plain("name", "issuer", "birth_date", "sex", "comments"),
        "identifier": _IDENTIFIER, "species_description": _CODE,
        "de_identification": {"identity_removed": None, "methods": _CODE},
    },
    "study": _plain(
        "uid", "identifier", "date", "time", "accession_number", "referring_physician_name", "description"
    ),
    "series": _plain("uid", "number", "description", "body_part_examined"),
    "equipment": _plain("manufacturer", "model_name", "device_serial_number", "software_versions"),
    "slide": {
        "identifier": _IDENTIFIER,
        "stainings": {"substances": _CODE, **_plain("date_time", "description")},
        "samples": _SAMPLE,
    },
    "pyramid": {**_PICTURE, **_plain("uid", "description", "label")},
    "label": {**_PICTURE, **_plain("text", "barcode")},
    "overview": {**_PICTURE, "contains_label": None},
    **_plain("frame_of_reference_uid", "dimension_organization_uids"),
    "contributing_equipment": {
        "purpose": _CODE,
        **_plain(
            "manufacturer", "institution_name", "model_name", "software_versions", "description",
            "contribution_datetime",
        ),
    },
    **_plain("pixel_spacing_mm", "focal_plane_spacing_um"),
}  # fmt: skip


def check_keys(value: object, shape: Shape | None = SHAPE, where: str = "") -> None:
    """Raises BadMetadata with the path of the first key that the shape does not have."""
    if shape is None or isinstance(value, (str, bytes)):
        return
    if isinstance(value, Mapping):
        for key, inner in value.items():
            path = f"{where}.{key}" if where else str(key)
            if key not in shape:
                raise BadMetadata(f"unknown metadata key {path!r}: known are {', '.join(sorted(shape))}")
            check_keys(inner, shape[key], path)
    elif isinstance(value, Sequence):
        for number, item in enumerate(value):
            check_keys(item, shape, f"{where}[{number}]")
