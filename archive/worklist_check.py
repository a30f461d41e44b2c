# SPDX-License-Identifier: Apache-2.0
"""Whether a data set in the DICOM JSON model may become part of a worklist.

Orders come from people and other systems, and scanners put what they find in them into
every image: a value that its attribute cannot hold is refused, never cut.
"""

import re
from collections.abc import Mapping
from typing import Any

from pydicom.datadict import dictionary_VR

from archive.errors import BadOrder
from archive.index.text import date_key, datetime_digits, time_digits

MAX_DEPTH = 12
MAX_ELEMENTS = 5_000
MAX_ITEM_BYTES = 256 * 1024

# Longest value in characters (PS3.5 Table 6.2-1); of a name, of each component group.
_LENGTHS = {"AE": 16, "AS": 4, "CS": 16, "DS": 16, "IS": 12, "LO": 64, "PN": 64, "SH": 16, "UI": 64}
_LONG_TEXTS = {"LT": 10_240, "ST": 1_024, "UC": 65_536, "UR": 8_192, "UT": 65_536}
_FORMS = {
    "AE": re.compile(r"[ -\[\]-~]+"),
    "AS": re.compile(r"\d{3}[DWMY]"),
    "CS": re.compile(r"[A-Z0-9_ ]+"),
    "DS": re.compile(r"[ ]*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?[ ]*"),
    "IS": re.compile(r"[ ]*[+-]?\d+[ ]*"),
    "UI": re.compile(r"[0-9]+(\.[0-9]+)*", re.ASCII),
}
_WHOLE = {"SS": 16, "SL": 32, "SV": 64, "US": 16, "UL": 32, "UV": 64}
_GROUPS = ("Alphabetic", "Ideographic", "Phonetic")
_TAG = re.compile(r"[0-9A-F]{8}")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f]")  # escape: ISO 2022 is undone by then
_NOT_KEPT = ("0000", "0002")
_CHARACTER_SET = "00080005"

DataSet = dict[str, Any]


class _Count:
    def __init__(self) -> None:
        self.left = MAX_ELEMENTS


def checked(item: Mapping[str, object]) -> DataSet:
    """A copy with tags in order, empty values as such, without group length, file meta and
    character set (text is Unicode here). Raises BadOrder naming the attribute, not its value."""
    return _data_set(item, _Count(), 0)


def _data_set(item: object, count: _Count, depth: int) -> DataSet:
    if not isinstance(item, Mapping):
        raise BadOrder("a data set is not a JSON object")
    if depth > MAX_DEPTH:
        raise BadOrder("sequences are nested too deeply")
    found: DataSet = {}
    for tag, element in item.items():
        tag = str(tag).upper()
        count.left -= 1
        if count.left < 0:
            raise BadOrder(f"an item has more than {MAX_ELEMENTS} attributes")
        if not _TAG.fullmatch(tag):
            raise BadOrder("an attribute is not named by eight hexadecimal digits")
        if tag.startswith(_NOT_KEPT) or tag.endswith("0000") or tag == _CHARACTER_SET:
            continue
        found[tag] = _element(tag, element, count, depth)
    return dict(sorted(found.items()))


def _element(tag: str, element: object, count: _Count, depth: int) -> DataSet:
    if not isinstance(element, Mapping) or not isinstance(element.get("vr"), str):
        raise BadOrder(f"{tag} has no VR")
    vr = str(element["vr"])
    known = _vrs(tag)
    if known and vr not in known:
        raise BadOrder(f"{tag} has the VR {vr}, not {known[0]}")
    if "InlineBinary" in element or "BulkDataURI" in element:
        raise BadOrder(f"{tag} has a binary value, which the worklist does not keep")
    values = element.get("Value", [])
    if not isinstance(values, list):
        raise BadOrder(f"{tag} has a Value that is no list")
    if vr == "SQ":
        items = [_data_set(value or {}, count, depth + 1) for value in values]
        return {"vr": vr, "Value": items} if items else {"vr": vr}
    count.left -= len(values)
    kept = [_value(tag, vr, value) for value in values]
    while kept and kept[-1] is None:
        kept.pop()
    return {"vr": vr, "Value": kept} if kept else {"vr": vr}


def _vrs(tag: str) -> list[str]:
    try:
        return dictionary_VR(int(tag, 16)).split(" or ")
    except KeyError:
        return []  # private, or newer than the dictionary


def _value(tag: str, vr: str, value: object) -> object:
    if value is None or value == "":
        return None
    if vr == "PN":
        return _name(tag, value)
    if vr in _WHOLE:
        signed = vr.startswith("S")
        low, high = (-(1 << (_WHOLE[vr] - 1)) if signed else 0), 1 << (_WHOLE[vr] - signed)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value < high:
            raise BadOrder(f"{tag} is no number that {vr} can hold")
        return value
    if vr in ("FL", "FD"):
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise BadOrder(f"{tag} is no number")
        return value
    if vr in ("DS", "IS") and isinstance(value, (int, float)) and not isinstance(value, bool):
        text = str(value) if vr == "IS" else f"{value:.15g}"[:16]
    elif isinstance(value, str):
        text = value.rstrip() if vr in _LONG_TEXTS else value.strip()
    else:
        raise BadOrder(f"{tag} is no text")
    if not text:
        return None
    _check_text(tag, vr, text)
    return value if vr in ("DS", "IS") else text


def _check_text(tag: str, vr: str, text: str) -> None:
    longest = _LENGTHS.get(vr) or _LONG_TEXTS.get(vr)
    if longest and len(text) > longest:
        raise BadOrder(f"{tag} is longer than the {longest} characters of {vr}")
    if vr == "AT":
        if not _TAG.fullmatch(text.upper()):
            raise BadOrder(f"{tag} is no tag")
    elif vr in ("DA", "TM", "DT"):
        digits = {"DA": date_key(text), "TM": time_digits(text), "DT": datetime_digits(text)[0]}
        if not digits[vr]:
            raise BadOrder(f"{tag} is not of the form of {vr}")
    elif vr in _FORMS:
        if not _FORMS[vr].fullmatch(text):
            raise BadOrder(f"{tag} has a character or form that {vr} does not allow")
    elif vr in ("LO", "SH") or vr in _LONG_TEXTS:
        if _CONTROL.search(text) or (vr in ("LO", "SH", "UC") and "\\" in text):
            raise BadOrder(f"{tag} has a character that {vr} does not allow")
    else:
        raise BadOrder(f"{tag} has the VR {vr}, which the worklist does not keep")


def _name(tag: str, value: object) -> object:
    if isinstance(value, str):
        value = dict(zip(_GROUPS, value.split("="), strict=False))
    if not isinstance(value, Mapping) or not set(value) <= set(_GROUPS):
        raise BadOrder(f"{tag} is no person name")
    groups = {}
    for group in _GROUPS:
        text = value.get(group)
        if not text:
            continue
        if not isinstance(text, str) or _CONTROL.search(text) or "\\" in text or "=" in text:
            raise BadOrder(f"{tag} has a character that PN does not allow")
        if len(text) > _LENGTHS["PN"]:
            raise BadOrder(f"{tag} is longer than the 64 characters of a component group")
        groups[group] = text.rstrip()
    return groups or None
