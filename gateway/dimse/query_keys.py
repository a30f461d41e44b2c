# SPDX-License-Identifier: Apache-2.0
"""Identifiers of Query/Retrieve requests as values (PS3.4 C.4.1.1.3, C.6).

Knows no association: a data set in, an :class:`Asked` or a refusal out. Keys that cannot
be matched, and attributes that are not there at the level, are left out and told by
``incomplete`` (Status FF01), never refused.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from pydicom.charset import convert_encodings, decode_bytes, python_encoding
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.tag import BaseTag, Tag
from pydicom.valuerep import TEXT_VR_DELIMS

from archive.errors import BadQuery
from archive.index.columns import Level, supported
from archive.index.included import returnable
from archive.index.matching import WILDCARD_VRS
from archive.index.query import Kind, Match, Query, parse_match
from archive.results import PATIENT_COUNTS

MAX_KEYS = 500
MAX_DEPTH = 8

QUERY_RETRIEVE_LEVEL = "00080052"
RETRIEVE_AE_TITLE = "00080054"
INSTANCE_AVAILABILITY = "00080056"
SPECIFIC_CHARACTER_SET = "00080005"
_TEXT_VRS = WILDCARD_VRS | {"AS", "DA", "DS", "DT", "IS", "TM", "UI"}
_TIMEZONE_OFFSET = "00080201"
_PATIENT_ID = "00100020"


class QueryLevel(IntEnum):
    """Larger is deeper; names as in Query/Retrieve Level (0008,0052)."""

    PATIENT = 0
    STUDY = 1
    SERIES = 2
    IMAGE = 3


UNIQUE_KEYS = {
    QueryLevel.PATIENT: _PATIENT_ID,
    QueryLevel.STUDY: "0020000D",
    QueryLevel.SERIES: "0020000E",
    QueryLevel.IMAGE: "00080018",
}

# Information models by the number before the operation in their UIDs (PS3.4 C.6).
PATIENT_ROOT = tuple(QueryLevel)
STUDY_ROOT = (QueryLevel.STUDY, QueryLevel.SERIES, QueryLevel.IMAGE)
PATIENT_STUDY_ONLY = (QueryLevel.PATIENT, QueryLevel.STUDY)
_UID = "1.2.840.10008.5.1.4.1.2."
MODELS = {f"{_UID}1.": PATIENT_ROOT, f"{_UID}2.": STUDY_ROOT, f"{_UID}3.": PATIENT_STUDY_ONLY}
FIND, MOVE, GET = 1, 2, 3


def sop_classes(operation: int) -> frozenset[str]:
    """The SOP classes of an operation in all models, the retired one included."""
    return frozenset(f"{stem}{operation}" for stem in MODELS)


def levels_of(sop_class_uid: str) -> tuple[QueryLevel, ...]:
    """The levels of a SOP class' information model."""
    return MODELS[sop_class_uid[:-1]]


# Extended negotiation, PS3.4 Table C.5-1: which byte asks for what, and which we agree to.
# Not: timezone adjustment (byte 4) and enhanced multi-frame conversion (byte 5).
_RELATIONAL, _COMBINED, _FUZZY, _EMPTY, _MULTIPLE = 0, 1, 2, 5, 6
_AGREED = frozenset((_RELATIONAL, _COMBINED, _FUZZY, _EMPTY, _MULTIPLE))


def agree(asked: bytes) -> bytes:
    """The answer to the extended negotiation of C-FIND, as long as what was asked."""
    return bytes(value == 1 and place in _AGREED for place, value in enumerate(asked[:7]))


def agree_to_retrieve(asked: bytes) -> bytes:
    """The same of C-MOVE and C-GET: relational retrieval only (Table C.5-3)."""
    return bytes(value == 1 and place == _RELATIONAL for place, value in enumerate(asked[:7]))


class BadIdentifier(Exception):
    """The identifier does not match the SOP class (A900); ``tags`` are at fault."""

    def __init__(self, message: str, *tags: str) -> None:
        super().__init__(message)
        self.tags = [int(tag[:8], 16) for tag in tags]


@dataclass(frozen=True, slots=True)
class Asked:
    """A request: what to find, and what to answer. ``returned``: VR by dotted path of all
    that was asked for and can be answered; ``incomplete``: something could not."""

    level: QueryLevel
    query: Query
    returned: Mapping[str, str]
    character_set: tuple[str, ...]
    incomplete: bool
    wants_availability: bool = False


def parse_find(identifier: Dataset, sop_class_uid: str, agreed: bytes, known: Mapping[str, str]) -> Asked:
    """A C-FIND identifier (C.4.1.1.3.1). ``agreed``: the outcome of extended negotiation;
    ``known``: ``Archive.matching_keys``. Raises BadIdentifier."""
    levels = levels_of(sop_class_uid)
    level = _level(identifier, levels)
    character_set = character_set_of(identifier)
    keys = _keys(identifier, character_set)
    flags = [place < len(agreed) and agreed[place] == 1 for place in range(7)]
    matches: list[Match] = []
    returned: dict[str, str] = {}
    incomplete = False
    for path, (vr, text) in keys.items():
        vr = known.get(path, vr)
        if path != _TIMEZONE_OFFSET and text.strip(" *"):
            if supported(path, known):
                match = _match(path, vr, text, flags)
                if match.kind is not Kind.UNIVERSAL:
                    matches.append(match)
            else:
                incomplete = True
        if path in (RETRIEVE_AE_TITLE, INSTANCE_AVAILABILITY):
            continue
        if _is_returned(path, level):
            returned[path] = vr
        else:
            incomplete = True
    if not flags[_RELATIONAL]:
        _check_above(matches, level, levels)
    if levels[0] is QueryLevel.PATIENT:
        returned[_PATIENT_ID] = "LO"
    query = Query(
        Level(max(level, QueryLevel.STUDY)), tuple(matches), tuple(returned), combined=flags[_COMBINED]
    )
    return Asked(level, query, returned, character_set, incomplete, INSTANCE_AVAILABILITY in keys)


def parse_retrieve(identifier: Dataset, sop_class_uid: str, agreed: bytes) -> tuple[QueryLevel, Query]:
    """The instances that a C-MOVE or C-GET identifier names (C.4.2.1.4.1): unique keys, a
    list of them at the level itself. Other keys are ignored. Raises BadIdentifier."""
    levels = levels_of(sop_class_uid)
    level = _level(identifier, levels)
    keys = _keys(identifier, character_set_of(identifier))
    matches = []
    for one in levels:
        path = UNIQUE_KEYS[one]
        _, text = keys.get(path, ("", ""))
        if one <= level and text.strip():
            matches.append(_match(path, "UI" if path != _PATIENT_ID else "LO", text, [False] * 7))
    if not any(match.path == UNIQUE_KEYS[level] and match.kind is Kind.VALUES for match in matches):
        raise BadIdentifier(f"no unique key of the {level.name} level", UNIQUE_KEYS[level])
    if not (agreed and agreed[_RELATIONAL] == 1):
        _check_above(matches, level, levels)
    issuer = keys.get("00100021", ("", ""))[1].strip()
    if issuer and any(match.path == _PATIENT_ID for match in matches):
        matches.append(_match("00100021", "LO", issuer, [False] * 7))
    return level, Query(Level.INSTANCE, tuple(matches))


def _level(identifier: Dataset, levels: tuple[QueryLevel, ...]) -> QueryLevel:
    text = _one(identifier, QUERY_RETRIEVE_LEVEL)
    for level in levels:
        if level.name == text:
            return level
    said = "is not of this information model" if text else "is missing"
    raise BadIdentifier(f"Query/Retrieve Level {said}", QUERY_RETRIEVE_LEVEL)


def character_set_of(identifier: Dataset) -> tuple[str, ...]:
    """The character sets of an identifier. Raises BadIdentifier for an unknown one."""
    text = _one(identifier, SPECIFIC_CHARACTER_SET)
    names = tuple(name.strip() for name in text.split("\\")) if text else ()
    if any(name not in python_encoding for name in names):
        raise BadIdentifier("the Specific Character Set is not known", SPECIFIC_CHARACTER_SET)
    return names


def _check_above(matches: list[Match], level: QueryLevel, levels: tuple[QueryLevel, ...]) -> None:
    """Hierarchical queries: one value of the unique key of each level above."""
    for above in levels:
        if above >= level:
            return
        found = [match for match in matches if match.path == UNIQUE_KEYS[above]]
        if not (found and found[0].kind is Kind.VALUES and len(found[0].values) == 1):
            raise BadIdentifier(f"no single unique key of the {above.name} level", UNIQUE_KEYS[above])


def _match(path: str, vr: str, text: str, flags: list[bool]) -> Match:
    try:
        return parse_match(
            path, vr, text, fuzzy=flags[_FUZZY], empty=flags[_EMPTY], multiple=flags[_MULTIPLE]
        )
    except BadQuery as error:
        raise BadIdentifier(str(error), path) from error


def _is_returned(path: str, level: QueryLevel) -> bool:
    if level is QueryLevel.PATIENT:
        return path.startswith("0010") or path in PATIENT_COUNTS
    return returnable(path, Level(level))


def _keys(identifier: Dataset, character_set: tuple[str, ...]) -> dict[str, tuple[str, str]]:
    """VR and text by path, "" for universal matching."""
    found = {}
    codecs = convert_encodings(list(character_set) or [""])
    for path, vr, text in _elements(identifier, (), "", codecs):
        if path not in (SPECIFIC_CHARACTER_SET, QUERY_RETRIEVE_LEVEL):
            found[path] = (vr, text)
        if len(found) > MAX_KEYS:
            raise BadIdentifier(f"more than {MAX_KEYS} keys")
    return found


def _one(identifier: Dataset, path: str) -> str:
    """The text of an element of the default repertoire, "" where it is absent."""
    for _, _, text in _elements(identifier, (int(path, 16),), "", ["iso8859"]):
        return text.strip()
    return ""


def _elements(
    dataset: Dataset, tags: tuple[int, ...], above: str, character_set: list[str]
) -> Iterator[tuple[str, str, str]]:
    """(path, VR, text) of each key; those of a sequence's item by their own path."""
    for tag in map(Tag, tags or sorted(dataset.keys())):
        if tag not in dataset or tag.element == 0:
            continue  # group lengths are no keys
        path = f"{above}{int(tag):08X}"
        try:
            vr, text = text_of(dataset, tag, character_set)
            items = list(dataset[tag].value or ()) if vr == "SQ" else []
        except Exception as error:  # pydicom raises anything for a value that is not of its VR
            raise BadIdentifier("a value is not of the form of its VR", path) from error
        if vr != "SQ":
            yield path, vr, text
            continue
        if len(items) > 1:
            raise BadIdentifier("a sequence of more than one item", path)
        if path.count(".") >= MAX_DEPTH:
            raise BadIdentifier("sequences are nested too deeply", path)
        if not items or not len(items[0]):
            yield path, vr, ""
        else:
            yield from _elements(items[0], (), path + ".", character_set)


def text_of(dataset: Dataset, tag: BaseTag, character_set: list[str]) -> tuple[str, str]:
    """VR and text. What came encoded is read as it is: wildcards and ranges are not of the
    form of their VR, of which the library would complain."""
    element: Any = dataset.get_item(tag)
    if isinstance(element, RawDataElement) and element.VR in _TEXT_VRS and element.value is not None:
        return element.VR, decode_bytes(element.value, character_set, TEXT_VR_DELIMS).rstrip("\0 ")
    element = dataset[tag]
    return element.VR, "" if element.VR == "SQ" else _text(element.value)


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bytes):
        return value.decode("ascii", "replace").rstrip("\0 ")
    if isinstance(value, MultiValue | list | tuple):
        return "\\".join(_text(one) for one in value)
    return str(value)
