# SPDX-License-Identifier: Apache-2.0
"""DICOM JSON objects of the archive as encoded identifiers (PS3.18 F, PS3.5 7.1 and 6.1).

A broad query has millions of results: each is written straight to bytes. Text goes out
in the default repertoire where it can, else in the character set that was asked for
where it has all the characters, else in UTF-8.
"""

import base64
import struct
from collections.abc import Mapping, Sequence
from typing import Any

from pydicom.charset import convert_encodings, decode_bytes, encode_string
from pydicom.valuerep import TEXT_VR_DELIMS, format_number_as_ds

IMPLICIT_LITTLE_ENDIAN = "1.2.840.10008.1.2"
EXPLICIT_BIG_ENDIAN = "1.2.840.10008.1.2.2"

Element = Mapping[str, Any]

_NUMBERS = {
    "US": "H", "SS": "h", "UL": "I", "SL": "i", "UV": "Q", "SV": "q", "FL": "f", "FD": "d",
}  # fmt: skip
_CHARACTER_SET_VRS = frozenset(("LO", "LT", "PN", "SH", "ST", "UC", "UT"))
_LONG_VRS = frozenset(
    ("OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV")
)  # PS3.5 Table 7.1-1
_BINARY_VRS = frozenset(("OB", "OD", "OF", "OL", "OV", "OW", "UN"))
_UTF_8 = "ISO_IR 192"
_REPEATED = frozenset(("AE", "CS", "LO", "SH", "UT"))
_MOST_KNOWN = 2_000


class _NotRepresentable(Exception):
    """Text that a character set cannot hold."""


class ResultEncoder:
    """Encodes the results of one query. ``character_set``: of the request."""

    def __init__(self, transfer_syntax_uid: str, character_set: Sequence[str] = ()) -> None:
        self._implicit = transfer_syntax_uid == IMPLICIT_LITTLE_ENDIAN
        self._order = ">" if transfer_syntax_uid == EXPLICIT_BIG_ENDIAN else "<"
        asked = tuple(character_set)
        self._character_sets: list[tuple[str, ...]] = [()]
        if any(asked) and asked != (_UTF_8,):
            self._character_sets.append(asked)
        self._character_sets.append((_UTF_8,))
        self._last: tuple[str, ...] = ()
        self._beyond_ascii = False
        self._known: dict[tuple[str, str, str, tuple[str, ...]], bytes] = {}

    def encode(self, elements: Mapping[str, Element]) -> bytes:
        """The bytes of one data set; ``elements`` by tag as eight hexadecimal digits,
        without Specific Character Set."""
        # Results of one query are alike: what the one before needed is tried before ASCII.
        if self._last and self._last == self._character_sets[1]:
            self._beyond_ascii = False
            try:
                found = self._data_set(elements, self._last)
                if self._beyond_ascii:
                    return found
            except _NotRepresentable:
                pass
        for character_set in self._character_sets:
            try:
                found = self._data_set(elements, character_set)
                self._last = character_set
                return found
            except _NotRepresentable:
                continue
        raise AssertionError("UTF-8 holds everything")

    def _data_set(self, elements: Mapping[str, Element], character_set: tuple[str, ...]) -> bytes:
        out = bytearray()
        if character_set:
            elements = {**elements, "00080005": {"vr": "CS", "Value": list(character_set)}}
        for tag in sorted(elements):
            self._element(out, tag, elements[tag], character_set)
        return bytes(out)

    def _element(self, out: bytearray, tag: str, element: Element, character_set: tuple[str, ...]) -> None:
        vr = element["vr"]
        key = None
        values = element.get("Value")
        if values and vr in _REPEATED and len(values) == 1 and isinstance(values[0], str):
            # Codes, schemes, meanings, identifiers of a case: the same in result after result.
            key = (tag, vr, values[0], character_set)
            if (known := self._known.get(key)) is not None:
                out += known
                self._beyond_ascii = self._beyond_ascii or not values[0].isascii()
                return
        start = len(out)
        if vr == "SQ":
            value = self._sequence(element.get("Value", ()), character_set)
        else:
            value = self._value(vr, element, character_set)
        group, number = int(tag[:4], 16), int(tag[4:], 16)
        if self._implicit:
            out += struct.pack("<HHI", group, number, len(value))
        elif vr in _LONG_VRS or len(value) > 0xFFFE:
            # Longer than its VR can say: as Unknown (PS3.5 6.2.2).
            name = vr if vr in _LONG_VRS else "UN"
            out += struct.pack(f"{self._order}HH2sxxI", group, number, name.encode(), len(value))
        else:
            out += struct.pack(f"{self._order}HH2sH", group, number, vr.encode(), len(value))
        out += value
        if key is not None:
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            self._known[key] = bytes(out[start:])

    def _sequence(self, items: Sequence[Mapping[str, Element]], character_set: tuple[str, ...]) -> bytes:
        out = bytearray()
        for item in items:
            encoded = bytearray()
            for tag in sorted(item.keys() - {"00080005"}):  # the text is in the set of the whole
                self._element(encoded, tag, item[tag], character_set)
            out += struct.pack(f"{self._order}HHI", 0xFFFE, 0xE000, len(encoded)) + encoded
        return bytes(out)

    def _value(self, vr: str, element: Element, character_set: tuple[str, ...]) -> bytes:
        if vr in _BINARY_VRS:
            # A value that is kept apart is too long for an identifier: its length says nothing.
            return base64.b64decode(element.get("InlineBinary", ""))
        values = element.get("Value")
        if not values:
            return b""
        if vr in _NUMBERS:
            return struct.pack(f"{self._order}{len(values)}{_NUMBERS[vr]}", *values)
        if vr == "AT":
            pairs = [int(half, 16) for tag in values for half in (tag[:4], tag[4:])]
            return struct.pack(f"{self._order}{len(pairs)}H", *pairs)
        text = "\\".join([_text(vr, value) for value in values])
        encoded = _encoded(vr, text, character_set)
        self._beyond_ascii = self._beyond_ascii or not text.isascii()
        if len(encoded) % 2:
            encoded += b"\0" if vr == "UI" else b" "
        return encoded


def _text(vr: str, value: Any) -> str:
    if value is None:
        return ""
    if vr == "PN":
        groups = [value.get(name, "") for name in ("Alphabetic", "Ideographic", "Phonetic")]
        return "=".join(groups).rstrip("=")
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else format_number_as_ds(value)
    return str(value)


def _encoded(vr: str, text: str, character_set: tuple[str, ...]) -> bytes:
    if text.isascii():
        return text.encode("ascii")
    if vr not in _CHARACTER_SET_VRS:
        return text.encode("ascii", "replace")
    if not character_set:
        raise _NotRepresentable
    if character_set == (_UTF_8,):
        return text.encode("utf-8")
    codecs = convert_encodings(list(character_set))
    try:
        if vr == "PN":
            encoded = b"=".join(encode_string(group, codecs) for group in text.split("="))
        else:
            encoded = encode_string(text, codecs)
        # What it cannot encode it replaces, with a warning: seen by what comes back.
        again = decode_bytes(encoded, codecs, TEXT_VR_DELIMS)
    except (UnicodeError, UserWarning, LookupError):
        raise _NotRepresentable from None
    if again != text:
        raise _NotRepresentable
    return encoded
