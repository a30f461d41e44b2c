# SPDX-License-Identifier: Apache-2.0
"""The DICOM JSON model (PS3.18 Annex F) to encoded bytes: what ``json_model`` does, backwards.

The result is a data set in Explicit VR Little Endian as pieces: literals, and *slots*
where a bulk value belongs. Sequences and items have undefined length, so a slot's value
may be of any length. Text becomes UTF-8 and Specific Character Set says so.
"""

import binascii
import struct
from base64 import b64decode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from archive.part10.budget import DEFAULT_BUDGET, ParseBudget
from archive.part10.bulk import BULK_ABOVE, PIXEL_TAGS
from archive.part10.errors import BudgetExceeded, Malformed
from archive.part10.normal_form import (
    EXTENDED_LENGTHS,
    EXTENDED_OFFSETS,
    ITEM_DELIMITER,
    ITEM_UNDEFINED,
    SEQUENCE_DELIMITER,
    UNDEFINED,
    element_header,
    tag_name,
)
from archive.part10.vr import LONG_MASK, PADDED_WITH_NUL, SHORT_MASK, known_vr

JsonObject = Mapping[str, Any]

_SPECIFIC_CHARACTER_SET = 0x00080005
_UTF_8 = b"ISO_IR 192"
_DERIVED = frozenset((EXTENDED_OFFSETS, EXTENDED_LENGTHS))
_GROUPS = ("Alphabetic", "Ideographic", "Phonetic")
_SINGLE_TEXT = frozenset((b"LT", b"ST", b"UT", b"UR"))
_NUMBERS = {
    b"SS": "h", b"US": "H", b"SL": "i", b"UL": "I", b"SV": "q", b"UV": "Q", b"FL": "f", b"FD": "d",
}  # fmt: skip
_BINARY = frozenset((b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"UN"))
_MAY_BE_BULK = (
    _BINARY
    | _NUMBERS.keys()
    | {b"DS", b"IS", b"LT", b"ST", b"UC", b"UT"}
)  # fmt: skip
_DS_CHARACTERS = 16


@dataclass(frozen=True, slots=True)
class Slot:
    """The place of a value that comes from elsewhere: a BulkDataURI as given, or, with
    ``uri`` empty, the bytes of ``inline``."""

    tag: int
    vr: bytes
    uri: str
    inline: bytes = b""
    is_pixel_data: bool = False  # of the data set itself, not of an item


Piece = bytes | Slot


class _Writer:
    """One data set; counts against the budget as it goes."""

    def __init__(self, budget: ParseBudget) -> None:
        self._budget = budget
        self._elements = self._items = self._bytes = 0
        self._out = bytearray()
        self.pieces: list[Piece] = []

    def _write(self, data: bytes) -> None:
        self._bytes += len(data)
        if self._bytes > self._budget.header_bytes:
            raise BudgetExceeded(f"a data set above {self._budget.header_bytes} bytes")
        self._out += data

    def flush(self) -> None:
        if self._out:
            self.pieces.append(bytes(self._out))
            self._out.clear()

    def data_set(self, value: object, depth: int) -> None:
        """The elements of one data set or item, ascending."""
        if not isinstance(value, Mapping):
            raise Malformed("a data set is not a JSON object")
        if depth > self._budget.depth:
            raise BudgetExceeded(f"more than {self._budget.depth} nested sequences")
        attributes: dict[int, object] = {}
        for name, attribute in value.items():
            tag = _tag(name)
            if tag in attributes:
                raise Malformed(f"{tag_name(tag)} occurs twice")
            # Group 2 is of the file, group lengths and offset tables are made anew.
            if tag >> 16 > 2 and tag & 0xFFFF and tag not in _DERIVED:
                attributes[tag] = attribute
        if depth == 0 and _SPECIFIC_CHARACTER_SET not in attributes:
            attributes[_SPECIFIC_CHARACTER_SET] = {"vr": "CS", "Value": [_UTF_8.decode()]}
        for tag in sorted(attributes):
            self._elements += 1
            if self._elements > self._budget.elements:
                raise BudgetExceeded(f"more than {self._budget.elements} data elements")
            attribute = attributes[tag]
            if not isinstance(attribute, Mapping):
                raise Malformed(f"{tag_name(tag)} is not a JSON object")
            self._element(tag, attribute, depth)

    def _element(self, tag: int, attribute: JsonObject, depth: int) -> None:
        vr = _vr(tag, attribute)
        given = [name for name in ("Value", "BulkDataURI", "InlineBinary") if name in attribute]
        if len(given) > 1:
            raise Malformed(f"{tag_name(tag)} has both {given[0]} and {given[1]}")
        if vr == b"SQ":
            if given not in ([], ["Value"]):
                raise Malformed(f"{tag_name(tag)}: a sequence has items only")
            self._sequence(tag, _list(tag, attribute.get("Value")), depth)
            return
        pixels = depth == 0 and tag in PIXEL_TAGS
        if given == ["BulkDataURI"]:
            uri = attribute["BulkDataURI"]
            if not isinstance(uri, str) or not uri or vr not in _MAY_BE_BULK:
                raise Malformed(f"{tag_name(tag)}: a BulkDataURI that cannot be one")
            self._slot(Slot(tag, vr, uri, is_pixel_data=pixels))
            return
        if given == ["InlineBinary"]:
            content = _inline(tag, vr, attribute["InlineBinary"])
        else:
            content = self._content(tag, vr, _list(tag, attribute.get("Value")))
        if tag == _SPECIFIC_CHARACTER_SET:
            content = _UTF_8
        if pixels or len(content) > BULK_ABOVE:
            self._slot(Slot(tag, vr, "", content, is_pixel_data=pixels))
            return
        content += _pad(vr) * (len(content) % 2)
        self._write(element_header(tag, vr, len(content)) + content)

    def _slot(self, slot: Slot) -> None:
        self.flush()
        self.pieces.append(slot)

    def _sequence(self, tag: int, items: Sequence[object], depth: int) -> None:
        self._write(element_header(tag, b"SQ", UNDEFINED))
        for item in items:
            self._items += 1
            if self._items > self._budget.items:
                raise BudgetExceeded(f"more than {self._budget.items} items")
            self._write(ITEM_UNDEFINED)
            self.data_set({} if item is None else item, depth + 1)
            self._write(ITEM_DELIMITER)
        self._write(SEQUENCE_DELIMITER)

    def _content(self, tag: int, vr: bytes, values: Sequence[object]) -> bytes:
        if not values:
            return b""
        if vr in _BINARY:
            raise Malformed(f"{tag_name(tag)}: a value of VR {vr.decode()} is InlineBinary or bulk")
        try:
            if vr in _NUMBERS:
                return _numbers(_NUMBERS[vr], values)
            if vr == b"AT":
                return b"".join(struct.pack("<HH", n >> 16, n & 0xFFFF) for n in map(_tag, values))
            if vr in _SINGLE_TEXT:
                if len(values) > 1:
                    raise Malformed(f"{tag_name(tag)} has several values")
                return _text(values[0]).encode("utf-8")
            if len(values) > self._budget.values:
                raise BudgetExceeded(f"more than {self._budget.values} values in {tag_name(tag)}")
            write = {b"PN": _person_name, b"DS": _decimal}.get(vr, _text)
            return "\\".join(map(write, values)).encode("utf-8")
        except (ValueError, TypeError, OverflowError, struct.error) as problem:
            raise Malformed(f"{tag_name(tag)} has a value that is not of VR {vr.decode()}") from problem


def from_json(data_set: object, budget: ParseBudget = DEFAULT_BUDGET) -> list[Piece]:
    """One DICOM JSON object as encoded pieces, in order. No bytes of ``Slot`` values are
    counted in any length. Group 2, group lengths and offset tables are left out.

    Raises ``Malformed`` for what Annex F does not allow, ``BudgetExceeded``.
    """
    writer = _Writer(budget)
    writer.data_set(data_set, 0)
    writer.flush()
    return writer.pieces


def first_text(data_set: JsonObject, tag: str) -> str:
    """The first value of a textual attribute, "" where it is absent or none."""
    attribute = data_set.get(tag)
    values = attribute.get("Value") if isinstance(attribute, Mapping) else None
    return values[0] if isinstance(values, list) and values and isinstance(values[0], str) else ""


def _tag(name: object) -> int:
    if not isinstance(name, str) or len(name) != 8 or not name.isascii() or not name.isalnum():
        raise Malformed("an attribute is not named by eight hexadecimal digits")
    try:
        return int(name, 16)
    except ValueError as problem:
        raise Malformed("an attribute is not named by eight hexadecimal digits") from problem


def _vr(tag: int, attribute: JsonObject) -> bytes:
    given = attribute.get("vr")
    vr = given.encode("ascii", "replace") if isinstance(given, str) else known_vr(tag) or b"UN"
    if vr not in SHORT_MASK and vr not in LONG_MASK:
        raise Malformed(f"{tag_name(tag)} has no VR")
    return vr


def _list(tag: int, value: object) -> Sequence[object]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise Malformed(f"{tag_name(tag)}: Value is not an array")
    return value


def _pad(vr: bytes) -> bytes:
    return b"\x00" if vr in PADDED_WITH_NUL or vr in _BINARY else b" "


def _inline(tag: int, vr: bytes, value: object) -> bytes:
    if not isinstance(value, str):
        raise Malformed(f"{tag_name(tag)}: InlineBinary is not a text")
    try:
        content = b64decode(value.translate(_BLANKS), validate=True)
    except (binascii.Error, ValueError) as problem:
        raise Malformed(f"{tag_name(tag)}: InlineBinary is not base64") from problem
    return content


_BLANKS = dict.fromkeys(map(ord, " \t\r\n"))


def _text(value: object) -> str:
    """A value as text; numbers keep their digits, null is an empty value."""
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise TypeError
    return str(value)


def _decimal(value: object) -> str:
    """DS: at most 16 characters, rounded where JSON has more digits."""
    text = _text(value)
    if len(text) <= _DS_CHARACTERS:
        return text
    number = float(text)
    for digits in range(_DS_CHARACTERS, 0, -1):
        text = f"{number:.{digits}g}"
        if len(text) <= _DS_CHARACTERS:
            return text
    raise ValueError


def _person_name(value: object) -> str:
    if not isinstance(value, Mapping):
        return _text(value)
    groups = [_text(value.get(group)) for group in _GROUPS]
    return "=".join(groups).rstrip("=")


def _numbers(letter: str, values: Sequence[object]) -> bytes:
    floats = letter in "fd"
    numbers: list[float] = []
    for value in values:
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise TypeError
        if isinstance(value, str) and not floats and "." in value and float(value).is_integer():
            value = float(value)  # 3.0 is an integer in JSON
        if isinstance(value, float) and not floats and not value.is_integer():
            raise ValueError
        numbers.append(float(value) if floats else int(value))
    return struct.pack(f"<{len(numbers)}{letter}", *cast("list[Any]", numbers))
