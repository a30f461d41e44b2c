# SPDX-License-Identifier: Apache-2.0
"""The DICOM JSON model (PS3.18 Annex F), written straight from the encoded header.

A header of 20,000 sparse frames takes about a tenth of what building it from pydicom's
elements takes. Nothing in a header can make it fail: a number that is none is a string,
text that cannot be decoded has U+FFFD.
"""

import math
import re
import struct
from base64 import b64encode
from collections.abc import Callable, Sequence
from json.encoder import encode_basestring as quote

from pydicom.dataset import Dataset

from archive.part10.bulk import BulkValue, split_path
from archive.part10.charset import Charset
from archive.part10.encode import encode_dataset
from archive.part10.errors import Malformed
from archive.part10.normal_form import (
    ITEM_DELIMITER,
    SEQUENCE_DELIMITER,
    read_element,
)

_SPECIFIC_CHARACTER_SET = 0x00080005
_JSON_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_DICOM_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_MAX_EXACT = (1 << 53) - 1
_GROUPS = ("Alphabetic", "Ideographic", "Phonetic")

_Wanted = dict[int, "BulkValue | dict[int, _Wanted]"]


def to_json(dataset: Dataset, bulk: Sequence[BulkValue] = ()) -> bytes:
    """``dataset`` as one compact DICOM JSON object in UTF-8, its keys ascending.

    ``bulk`` values stand at their places as ``{"vr": .., "BulkDataURI": "bulk:<path>"}``,
    except the data set's own pixel data, which has no place here, nor has group 2. Text
    is UTF-8, so a Specific Character Set that is present says ISO_IR 192. Numbers of IS
    and DS keep the digits they were written with where JSON allows; 64-bit integers
    beyond 2^53 - 1, NaN and infinities are strings (F.2.3). Raises ``Malformed`` for a
    bulk value whose item does not exist.
    """
    data = encode_dataset(dataset)
    out: list[str] = []
    _object(data, 0, out, Charset(), _tree(bulk))
    return "".join(out).encode("utf-8", "replace")


def _tree(bulk: Sequence[BulkValue]) -> _Wanted:
    """Bulk values by tag, item, tag, ..."""
    root: _Wanted = {}
    for value in bulk:
        if value.is_pixel_data:
            continue
        *way, tag = split_path(value.path)
        here = root
        for n in range(0, len(way), 2):
            items = here.setdefault(way[n], {})
            if isinstance(items, BulkValue):
                raise Malformed("a bulk value lies in another one")
            here = items.setdefault(way[n + 1], {})
        here[tag] = value
    return root


def _object(data: bytes, pos: int, out: list[str], charset: Charset, wanted: _Wanted) -> int:
    """One data set or item from ``pos`` on; returns where its content ends."""
    separator = "{"
    left = sorted(wanted) if wanted else []
    size = len(data)
    while pos < size and data[pos : pos + 4] != ITEM_DELIMITER[:4]:
        tag, vr, value, end = read_element(data, pos)
        while left and left[0] < tag:
            out.append(f"{separator}{_bulk_member(left.pop(0), wanted)}")
            separator = ","
        out.append(f'{separator}"{tag:08X}":{{"vr":"{vr.decode("ascii")}"')
        separator = ","
        if vr == b"SQ":
            inside = wanted.get(tag, {})
            if isinstance(inside, BulkValue):
                raise Malformed("a bulk value has the place of a sequence")
            if left and left[0] == tag:
                left.pop(0)
            pos = _sequence(data, value, out, charset, inside)
            continue
        if end > value:
            content = data[value:end]
            if tag == _SPECIFIC_CHARACTER_SET and vr == b"CS":
                charset = Charset(content)
                content = b"ISO_IR 192"
            _WRITERS[vr](content, out, charset)
        out.append("}")
        pos = end
    for tag in left:
        out.append(f"{separator}{_bulk_member(tag, wanted)}")
        separator = ","
    out.append("{}" if separator == "{" else "}")
    return pos


def _bulk_member(tag: int, wanted: _Wanted) -> str:
    value = wanted[tag]
    if not isinstance(value, BulkValue):
        raise Malformed("a bulk value lies in a sequence that is not there")
    return f'"{tag:08X}":{{"vr":"{value.vr}","BulkDataURI":"bulk:{value.path}"}}'


def _sequence(data: bytes, pos: int, out: list[str], charset: Charset, wanted: "dict[int, _Wanted]") -> int:
    """The items from ``pos`` on; returns where the sequence ends."""
    number = 0
    while data[pos : pos + 4] != SEQUENCE_DELIMITER[:4]:
        out.append("," if number else ',"Value":[')
        pos = _object(data, pos + 8, out, charset, wanted.get(number, {})) + 8
        number += 1
    if wanted and max(wanted) >= number:
        raise Malformed("a bulk value lies in an item that is not there")
    out.append("]}" if number else "}")
    return pos + 8


# ---- values ----------------------------------------------------------------------------


def _values(texts: list[str], out: list[str]) -> None:
    """``Value`` of texts, the empty ones null; nothing if there is none."""
    if len(texts) == 1 and not texts[0]:
        return
    out.append(f',"Value":[{",".join([quote(text) if text else "null" for text in texts])}]')


def _many(content: bytes, out: list[str], charset: Charset) -> None:
    """LO, SH, UC: several texts; spaces at the end are padding."""
    _values([text.rstrip(" \x00") for text in charset.decode(content).split("\\")], out)


def _code(content: bytes, out: list[str], charset: Charset) -> None:
    """AE, AS, CS, DA, DT, TM, UI: several texts of the default repertoire."""
    _values([text.strip(" \x00") for text in content.decode("latin-1").split("\\")], out)


def _one(content: bytes, out: list[str], charset: Charset) -> None:
    """LT, ST, UT: one text, backslashes and all."""
    _values([charset.decode(content).rstrip(" \x00")], out)


def _uri(content: bytes, out: list[str], charset: Charset) -> None:
    _values([content.decode("latin-1").rstrip(" \x00")], out)


def _person_names(content: bytes, out: list[str], charset: Charset) -> None:
    """PN (F.2.2): an object of component groups, empty groups left out."""
    names = []
    for name in charset.decode(content, person_name=True).rstrip(" \x00").split("\\"):
        groups = [
            f'"{key}":{quote(text)}'
            for key, text in zip(_GROUPS, (group.rstrip(" \x00") for group in name.split("=")), strict=False)
            if text
        ]
        names.append(f"{{{','.join(groups)}}}" if groups else "null")
    if names != ["null"]:
        out.append(f',"Value":[{",".join(names)}]')


def _number_strings(content: bytes, out: list[str], charset: Charset) -> None:
    """IS, DS: numbers with the digits they have; what is no number is a string."""
    texts = [text.strip(" \x00") for text in content.decode("latin-1").split("\\")]
    if texts != [""]:
        out.append(f',"Value":[{",".join(map(_number, texts))}]')


def _number(text: str) -> str:
    if _JSON_NUMBER.fullmatch(text):
        return text
    if not text:
        return "null"
    if not _DICOM_NUMBER.fullmatch(text):
        return quote(text)
    mantissa, mark, exponent = text.replace("E", "e").partition("e")
    sign = "-" if mantissa[0] == "-" else ""
    whole, _, fraction = mantissa.lstrip("+-").partition(".")
    return f"{sign}{whole.lstrip('0') or '0'}{'.' + fraction if fraction else ''}{mark}{exponent}"


def _binary_numbers(letter: str, size: int) -> Callable[[bytes, list[str], Charset], None]:
    """SS, US, SL, UL, SV, UV, FL, FD."""

    def write(content: bytes, out: list[str], charset: Charset) -> None:
        numbers = struct.unpack(f"<{len(content) // size}{letter}", content)
        out.append(f',"Value":[{",".join(map(text, numbers))}]')

    text = {"f": _float, "d": _float, "q": _long, "Q": _long}.get(letter, str)
    return write


def _long(number: int) -> str:
    return str(number) if abs(number) <= _MAX_EXACT else f'"{number}"'


def _float(number: float) -> str:
    if math.isfinite(number):
        return repr(number)
    return '"NaN"' if math.isnan(number) else '"inf"' if number > 0 else '"-inf"'


def _tags(content: bytes, out: list[str], charset: Charset) -> None:
    """AT: eight hexadecimal digits."""
    pairs = struct.unpack(f"<{len(content) // 2}H", content)
    tags = [f'"{group:04X}{element:04X}"' for group, element in zip(pairs[::2], pairs[1::2], strict=True)]
    out.append(f',"Value":[{",".join(tags)}]')


def _inline(content: bytes, out: list[str], charset: Charset) -> None:
    out.append(f',"InlineBinary":"{b64encode(content).decode("ascii")}"')


_WRITERS: dict[bytes, Callable[[bytes, list[str], Charset], None]] = {
    **dict.fromkeys((b"AE", b"AS", b"CS", b"DA", b"DT", b"TM", b"UI"), _code),
    **dict.fromkeys((b"LO", b"SH", b"UC"), _many),
    **dict.fromkeys((b"LT", b"ST", b"UT"), _one),
    **dict.fromkeys((b"IS", b"DS"), _number_strings),
    **dict.fromkeys((b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"UN"), _inline),
    b"PN": _person_names,
    b"UR": _uri,
    b"AT": _tags,
    b"SS": _binary_numbers("h", 2),
    b"US": _binary_numbers("H", 2),
    b"SL": _binary_numbers("i", 4),
    b"UL": _binary_numbers("I", 4),
    b"SV": _binary_numbers("q", 8),
    b"UV": _binary_numbers("Q", 8),
    b"FL": _binary_numbers("f", 4),
    b"FD": _binary_numbers("d", 8),
}
