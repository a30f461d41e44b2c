# SPDX-License-Identifier: Apache-2.0
"""DICOM JSON to the Native DICOM Model in XML (PS3.18 Annex F.2, PS3.19 A.1).

The JSON is the model that the archive keeps; XML is the same tree in other clothes.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any
from xml.sax.saxutils import escape, quoteattr

from pydicom.datadict import keyword_for_tag

_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_NAME_PARTS = ("FamilyName", "GivenName", "MiddleName", "NamePrefix", "NameSuffix")
_NAME_GROUPS = ("Alphabetic", "Ideographic", "Phonetic")

JsonObject = Mapping[str, Any]


def native_dicom_model(data_set: JsonObject) -> bytes:
    """One data set as a document of its own, UTF-8."""
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        '<NativeDicomModel xmlns="http://dicom.nema.org/PS3.19/models/NativeDICOM" xml:space="preserve">'
        + "".join(_attributes(data_set))
        + "</NativeDicomModel>\n"
    ).encode()


def _text(value: object) -> str:
    """Characters that XML 1.0 cannot hold (control codes in old text values) are left out."""
    return escape(_FORBIDDEN.sub("", str(value)))


def _attributes(data_set: JsonObject) -> Iterator[str]:
    for tag, attribute in data_set.items():
        keyword = keyword_for_tag(int(tag, 16)) if len(tag) == 8 else ""
        named = f" keyword={quoteattr(keyword)}" if keyword else ""
        yield f'<DicomAttribute tag="{_text(tag)}" vr={quoteattr(str(attribute["vr"]))}{named}>'
        if "BulkDataURI" in attribute:
            yield f"<BulkData uri={quoteattr(str(attribute['BulkDataURI']))}/>"
        elif "InlineBinary" in attribute:
            yield f"<InlineBinary>{_text(attribute['InlineBinary'])}</InlineBinary>"
        for number, value in enumerate(attribute.get("Value", ()), start=1):
            yield from _value(attribute["vr"], number, value)
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
