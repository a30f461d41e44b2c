# SPDX-License-Identifier: Apache-2.0
"""DICOM JSON to the Native DICOM Model in XML (PS3.18 Annex F.2, PS3.19 A.1).

The JSON is the model that the archive keeps; XML is the same tree in other clothes. Data
sets of 20,000 frames are walked in their JSON text and never stand in memory as objects.
"""

import json
import re
from collections.abc import Generator, Iterable, Iterator, Mapping
from typing import Any
from xml.sax.saxutils import escape, quoteattr

from pydicom.datadict import keyword_for_tag

_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_NAME_PARTS = ("FamilyName", "GivenName", "MiddleName", "NamePrefix", "NameSuffix")
_NAME_GROUPS = ("Alphabetic", "Ideographic", "Phonetic")
_CHUNK_CHARACTERS = 65_536

_OPENING = (
    '<?xml version="1.0" encoding="UTF-8"?>\n'
    '<NativeDicomModel xmlns="http://dicom.nema.org/PS3.19/models/NativeDICOM" xml:space="preserve">'
)
_CLOSING = "</NativeDicomModel>\n"

JsonObject = Mapping[str, Any]
_DECODER = json.JSONDecoder(parse_float=str, parse_int=str)  # digits stay as they were written


def native_dicom_model(data_set: JsonObject) -> bytes:
    """One data set as a document of its own, UTF-8."""
    return (_OPENING + "".join(_attributes(data_set)) + _CLOSING).encode()


def native_dicom_model_of(encoded: bytes) -> Iterator[bytes]:
    """The same from the JSON text as ``Archive.metadata`` gives it, in chunks."""
    text = encoded.decode()
    waiting, size = [_OPENING], 0
    for piece in _walk(text, 0):
        waiting.append(piece)
        size += len(piece)
        if size >= _CHUNK_CHARACTERS:
            yield "".join(waiting).encode()
            waiting, size = [], 0
    waiting.append(_CLOSING)
    yield "".join(waiting).encode()


def _walk(text: str, at: int) -> Generator[str, None, int]:
    """The attributes of the object that begins at ``at``; returns where it ends. Only
    sequences are walked, anything else is one small object."""
    creators: dict[str, str] = {}
    at += 1
    while text[at] != "}":
        at += text[at] == ","
        tag = text[at + 1 : at + 9]
        at += len('"00000000":')
        if not text.startswith('{"vr":"SQ","Value":[', at):
            attribute, at = _DECODER.raw_decode(text, at)
            yield from _attribute(tag, attribute, creators)
            continue
        at += len('{"vr":"SQ","Value":[')
        yield _start(tag, "SQ", creators)
        number = 0
        while text[at] != "]":
            at += text[at] == ","
            number += 1
            yield f'<Item number="{number}">'
            at = yield from _walk(text, at)
            yield "</Item>"
        at += len("]}")
        yield "</DicomAttribute>"
    return at + 1


def _text(value: object) -> str:
    """Characters that XML 1.0 cannot hold (control codes in old text values) are left out."""
    return escape(_FORBIDDEN.sub("", str(value)))


def _quoted(value: object) -> str:
    return quoteattr(_FORBIDDEN.sub("", str(value)))


def _attributes(data_set: JsonObject) -> Iterator[str]:
    creators: dict[str, str] = {}
    for tag, attribute in data_set.items():
        yield from _attribute(tag, attribute, creators)


def _start(tag: str, vr: str, creators: Mapping[str, str]) -> str:
    """The opening tag: keyword where the attribute is a standard one, and the creator of a
    private one (PS3.19 Table A.1.5-2)."""
    keyword = keyword_for_tag(int(tag, 16)) if re.fullmatch("[0-9A-Fa-f]{8}", tag) else ""
    named = f" keyword={_quoted(keyword)}" if keyword else ""
    creator = creators.get(tag[:6], "")
    owned = f" privateCreator={_quoted(creator)}" if creator and tag[4:6] != "00" else ""
    return f"<DicomAttribute tag={_quoted(tag)} vr={_quoted(vr)}{named}{owned}>"


def _attribute(tag: str, attribute: JsonObject, creators: dict[str, str]) -> Iterator[str]:
    vr = str(attribute["vr"])
    values: Iterable[Any] = attribute.get("Value", ())
    yield _start(tag, vr, creators)
    if "BulkDataURI" in attribute:
        yield f"<BulkData uri={_quoted(attribute['BulkDataURI'])}/>"
    elif "InlineBinary" in attribute:
        yield f"<InlineBinary>{_text(attribute['InlineBinary'])}</InlineBinary>"
    for number, value in enumerate(values, start=1):
        yield from _value(vr, number, value)
        if number == 1 and vr == "LO" and tag[4:6] == "00" and tag[3:4] in "13579BDFbdf":
            creators[tag[:4] + tag[6:]] = str(value)  # (gggg,0010) owns (gggg,10xx)
    yield "</DicomAttribute>"


def _value(vr: str, number: int, value: Any) -> Iterator[str]:
    if vr == "SQ":
        yield f'<Item number="{number}">'
        yield from _attributes(value or {})
        yield "</Item>"
    elif value is None:
        return
    elif vr == "PN":
        yield f'<PersonName number="{number}">'
        for group in _NAME_GROUPS:
            if value.get(group):
                parts = zip(_NAME_PARTS, str(value[group]).split("^"), strict=False)
                inner = "".join(f"<{name}>{_text(text)}</{name}>" for name, text in parts if text)
                yield f"<{group}>{inner}</{group}>"
        yield "</PersonName>"
    else:
        yield f'<Value number="{number}">{_text(value)}</Value>'
