# SPDX-License-Identifier: Apache-2.0
"""Native DICOM Model in XML (PS3.19 A.1) to the DICOM JSON model, in one pass.

The counterpart of ``native_xml``. Document types, entities and external references are
refused. Private attributes that come by block-free tag and ``privateCreator`` get a block
and its creator element.
"""

from collections.abc import Iterable
from typing import Any
from xml.etree.ElementTree import ParseError

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import DefusedXMLParser

from archive.errors import TooLarge, Unreadable

_NAME_PARTS = ("FamilyName", "GivenName", "MiddleName", "NamePrefix", "NameSuffix")
_NAME_GROUPS = frozenset(("Alphabetic", "Ideographic", "Phonetic"))
_TEXTS = frozenset(("Value", "InlineBinary", *_NAME_PARTS))
_MAX_DEPTH = 400
_MAX_GAP = 64
_MAX_NODES = 600_000  # some 200 bytes each

JsonObject = dict[str, Any]


class _Builder:
    """Target of the parser: elements as they open and close."""

    def __init__(self) -> None:
        self.data_sets: list[JsonObject] = []
        self._path: list[str] = []
        self._nodes = 0
        self._sets: list[JsonObject] = []
        self._attributes: list[JsonObject] = []
        self._names: list[str] = []
        self._creators: list[dict[str, str]] = []
        self._number: list[str | None] = []
        self._person: JsonObject = {}
        self._parts: dict[str, str] = {}
        self._text: list[str] = []

    def start(self, tag: str, given: dict[str, str]) -> None:
        name = tag.rpartition("}")[2]
        parent = self._path[-1] if self._path else ""
        self._path.append(name)
        self._nodes += 1
        if len(self._path) > _MAX_DEPTH:
            raise Unreadable("the document is too deep")
        if self._nodes > _MAX_NODES:
            raise TooLarge(f"more than {_MAX_NODES} elements in the metadata")
        self._text.clear()
        match name:
            case "NativeDicomModel" if not parent or parent not in ("NativeDicomModel", "DicomAttribute"):
                self._sets.append({})
                self._creators.append({})
            case "DicomAttribute" if parent in ("NativeDicomModel", "Item"):
                self._begin_attribute(given)
            case "Item" if parent == "DicomAttribute":
                self._number.append(given.get("number"))
                self._sets.append({})
                self._creators.append({})
            case "Value" if parent == "DicomAttribute":
                self._number.append(given.get("number"))
            case "PersonName" if parent == "DicomAttribute":
                self._number.append(given.get("number"))
                self._person = {}
            case "BulkData" if parent == "DicomAttribute":
                uri = given.get("uri") or given.get("uuid")
                if not uri:
                    raise Unreadable("a BulkData element has no uri")
                self._attributes[-1]["BulkDataURI"] = uri
            case _ if name in _NAME_GROUPS and parent == "PersonName":
                self._parts = {}
            case "InlineBinary" if parent == "DicomAttribute":
                pass
            case _ if name in _NAME_PARTS and parent in _NAME_GROUPS:
                pass
            case _:
                if self._sets:
                    raise Unreadable(f"an element {name[:32]} where none may be")

    def data(self, text: str) -> None:
        if self._path and self._path[-1] in _TEXTS:
            self._text.append(text)

    def end(self, tag: str) -> None:
        name = self._path.pop()
        match name:
            case "NativeDicomModel" if self._sets:
                self._creators.pop()
                self.data_sets.append(self._sets.pop())
            case "DicomAttribute":
                attribute = self._attributes.pop()
                self._sets[-1][self._names.pop()] = attribute
            case "Item":
                self._creators.pop()
                self._add(self._sets.pop())
            case "Value":
                self._add("".join(self._text))
            case "PersonName":
                self._add(self._person)
            case "InlineBinary":
                self._attributes[-1]["InlineBinary"] = "".join(self._text)
            case _ if name in _NAME_PARTS:
                self._parts[name] = "".join(self._text)
            case _ if name in _NAME_GROUPS:
                joined = "^".join(self._parts.get(part, "") for part in _NAME_PARTS)
                self._person[name] = joined.rstrip("^")
        self._text.clear()

    def close(self) -> list[JsonObject]:
        return self.data_sets

    def _begin_attribute(self, given: dict[str, str]) -> None:
        tag = given.get("tag", "").upper()
        creator = given.get("privateCreator")
        if creator and len(tag) == 8:
            tag = self._private(tag, creator)
        if tag in self._sets[-1]:
            raise Unreadable("an attribute occurs twice")
        self._names.append(tag)
        self._attributes.append({"vr": given["vr"]} if "vr" in given else {})

    def _private(self, tag: str, creator: str) -> str:
        """The tag with a block, whose creator is an element of the data set."""
        here, group = self._sets[-1], tag[:4]
        block = tag[4:6]
        if block == "00":
            known = self._creators[-1]
            block = known.get(f"{group}{creator}", "")
            if not block:
                taken = (f"{number:02X}" for number in range(0x10, 0x100))
                block = next((b for b in taken if f"{group}00{b}" not in here), "")
                if not block:
                    raise Unreadable("more private blocks than a group has")
                known[f"{group}{creator}"] = block
        here.setdefault(f"{group}00{block}", {"vr": "LO", "Value": [creator]})
        return f"{group}{block}{tag[6:]}"

    def _add(self, value: object) -> None:
        """A value at the place that its number says, empty ones before it."""
        number = self._number.pop()
        values = self._attributes[-1].setdefault("Value", [])
        place = len(values) + 1
        if number is not None:
            if not (number.isascii() and number.isdigit() and len(number) < 9):
                raise Unreadable("a value's number is none")
            place = int(number)
        if not len(values) < place <= len(values) + _MAX_GAP:
            raise Unreadable("values are not in the order of their numbers")
        values.extend([None] * (place - len(values) - 1))
        values.append(value)


def read_native_xml(chunks: Iterable[bytes]) -> list[JsonObject]:
    """Every ``NativeDicomModel`` of a document, as DICOM JSON objects whose values are
    texts. Raises Unreadable."""
    builder = _Builder()
    parser = DefusedXMLParser(target=builder, forbid_dtd=True)
    try:
        for chunk in chunks:
            parser.feed(chunk)
        parser.close()
    except (ParseError, DefusedXmlException, LookupError, UnicodeError) as error:
        raise Unreadable(f"not well-formed XML without DTD: {type(error).__name__}") from error
    if not builder.data_sets:
        raise Unreadable("the document has no NativeDicomModel")
    return builder.data_sets
