# SPDX-License-Identifier: Apache-2.0
"""Matching keys, parsed: PS3.4 C.2.2.2, for QIDO-RS, C-FIND and the worklist alike.

Single values, lists, wildcards, ranges of dates and times, universal and empty matching.
Names match without case, width and diacritics, in any component group; all other text
matches case and all. A date or time of lesser precision matches all it covers:
``StudyTime=10`` is the hour.
"""

import re
from dataclasses import dataclass
from enum import StrEnum

from pydicom.datadict import dictionary_VM

from archive.errors import BadQuery
from archive.index.attributes import NUMBERS, SOUNDED
from archive.index.sounds import sound, words
from archive.index.text import date_key, datetime_digits, epoch_range, fold_name, time_digits

MAX_VALUE_LENGTH = 1024
MAX_VALUES = 500  # of a list
MAX_ALTERNATIVES = 50  # of a list of names or ranges
MAX_WORDS = 10  # of a name that is matched by its sound
EMPTY_VALUE = '""'
MAX_WILDCARDS = 8  # each "*" may make matching a long text slower by its length

# PS3.4 C.2.2.2.4: wildcards have no meaning in the other VRs.
WILDCARD_VRS = frozenset(("AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT"))
_TEXTS = WILDCARD_VRS | {"AS", "UI"}
_ONE_VALUE_VRS = frozenset(("LT", "ST", "UR", "UT"))  # a backslash is text there
_MULTIPLE_VRS = frozenset(("AE", "AS", "AT", "CS", "LO", "PN", "SH", "UC"))  # C.2.2.2.8
_UID = re.compile(r"[0-9.]{1,64}")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?")


class Kind(StrEnum):
    """How a key matches."""

    UNIVERSAL = "universal"  # everything, absent values too
    VALUES = "values"  # one of ``values``
    PATTERNS = "patterns"  # one of ``values``, with * and ?
    NAMES = "names"  # each of ``values`` (with * and ?) some component group
    NUMBERS = "numbers"  # one of ``numbers``
    DATES = "dates"  # within one of ``spans``, made of single values
    RANGE = "range"  # within the one span of ``spans``
    INSTANTS = "instants"  # within ``instants``: DT with an offset from UTC
    EMPTY = "empty"  # absent, or without a value
    SOUNDS = "sounds"  # as NAMES; or each of ``sounds`` (keys, with *) some word's
    ANY = "any"  # one of ``alternatives``
    ALL = "all"  # each of ``alternatives``, by any value of a multi-valued attribute


@dataclass(frozen=True, slots=True)
class Match:
    """One matching key. ``path``: dotted tags, ``00400560.00400551``."""

    path: str
    vr: str
    kind: Kind
    values: tuple[str, ...] = ()
    numbers: tuple[float, ...] = ()
    # Inclusive bounds as text that sorts; "" is open. An upper bound ends in "~", above
    # every digit, so that it covers all of its precision.
    spans: tuple[tuple[str, str], ...] = ()
    instants: tuple[float | None, float | None] = (None, None)
    sounds: tuple[str, ...] = ()
    alternatives: "tuple[Match, ...]" = ()

    @property
    def each(self) -> "tuple[Match, ...]":
        """The matches that must all be true for this one to be."""
        return self.alternatives if self.kind == Kind.ALL else (self,)


def parse_match(
    path: str, vr: str, text: str, *, fuzzy: bool = False, empty: bool = False, multiple: bool = False
) -> Match:
    """The key's value as a :class:`Match`; empty or all ``*`` is universal.

    Several values (``\\``, for UIDs also ``,``) match when one does. ``fuzzy``: names also
    by their sound (:mod:`archive.index.sounds`), words in any order. ``empty``: ``""``
    matches what is absent or has no value (C.2.2.2.7). ``multiple``: of an attribute that
    may have several values each one asked for must be among them (C.2.2.2.8); lists of
    names, ranges and empty values for the others. Raises BadQuery."""
    if len(text) > MAX_VALUE_LENGTH * (MAX_VALUES if vr == "UI" else 1):
        raise BadQuery(f"a matching value of {path} is too long")
    text = text.replace("\0", "").strip()
    if empty and text == EMPTY_VALUE:
        return Match(path, vr, Kind.EMPTY)
    if multiple and vr not in _ONE_VALUE_VRS and (many := _several(path, vr, text, fuzzy, empty)):
        return many
    if not text or (vr in WILDCARD_VRS and not text.strip("*")):
        return Match(path, vr, Kind.UNIVERSAL)
    if vr == "PN":
        return _names(path, text, fuzzy=fuzzy)
    values = tuple(dict.fromkeys(_split(vr, text)))
    if len(values) > MAX_VALUES:
        raise BadQuery(f"{path} has more than {MAX_VALUES} values")
    if not values:
        return Match(path, vr, Kind.UNIVERSAL)
    if vr in NUMBERS:
        return Match(path, vr, Kind.NUMBERS, numbers=tuple(_number(path, value) for value in values))
    if vr in ("DA", "TM", "DT"):
        return _dates(path, vr, values)
    if vr not in _TEXTS:
        raise BadQuery(f"{path} has the VR {vr}, which cannot be matched")
    if vr == "UI" and not all(_UID.fullmatch(value) for value in values):
        raise BadQuery(f"a matching value of {path} is no UID")
    if vr in WILDCARD_VRS and any("*" in value or "?" in value for value in values):
        return Match(path, vr, Kind.PATTERNS, tuple(_pattern(path, value) for value in values))
    return Match(path, vr, Kind.VALUES, values)


def _several(path: str, vr: str, text: str, fuzzy: bool, empty: bool) -> Match | None:
    """A list that no other kind of match has: of values that must all be there, of names, of
    ranges, with empty values."""
    parts = [part.strip() for part in text.split("\\") if part.strip()]
    every = vr in _MULTIPLE_VRS and _may_have_several(path)
    listed = vr in ("PN", "DA", "TM", "DT") or (empty and EMPTY_VALUE in parts)
    if len(parts) < 2 or not (every or listed):
        return None
    if len(parts) > MAX_ALTERNATIVES:
        raise BadQuery(f"{path} has more than {MAX_ALTERNATIVES} values")
    if every and any(character in part for part in parts for character in "*?"):
        raise BadQuery(f"the values of {path} must have no wildcards when each must match (C.2.2.2.8)")
    if every and empty and EMPTY_VALUE in parts:
        raise BadQuery(f"{path} cannot be empty and have a value")
    found = tuple(parse_match(path, vr, part, fuzzy=fuzzy, empty=empty) for part in dict.fromkeys(parts))
    if any(one.kind == Kind.UNIVERSAL for one in found):
        return Match(path, vr, Kind.UNIVERSAL)
    return Match(path, vr, Kind.ALL if every else Kind.ANY, alternatives=found)


def _may_have_several(path: str) -> bool:
    """Whether the dictionary gives the attribute a Value Multiplicity above 1."""
    try:
        return dictionary_VM(int(path[-8:], 16)) != "1"
    except KeyError:
        return False


def _split(vr: str, text: str) -> list[str]:
    if vr in _ONE_VALUE_VRS:
        return [text]
    parts = re.split(r"[\\,]", text) if vr == "UI" else text.split("\\")
    return [part.strip() for part in parts if part.strip()]


def _pattern(path: str, value: str) -> str:
    value = re.sub(r"\*+", "*", value)
    if value.count("*") > MAX_WILDCARDS:
        raise BadQuery(f"a matching value of {path} has more than {MAX_WILDCARDS} wildcards")
    return value


def _names(path: str, text: str, *, fuzzy: bool) -> Match:
    groups = tuple(_pattern(path, group) for group in fold_name(text) if group.strip("*"))
    if not groups:
        return Match(path, "PN", Kind.UNIVERSAL)
    if not fuzzy or path not in SOUNDED:
        return Match(path, "PN", Kind.NAMES, groups)
    sounds = []
    for word in words(text):
        start = word.rstrip("*")
        if "*" in start or "?" in start:
            return Match(path, "PN", Kind.NAMES, groups)  # nobody can tell how that sounds
        if key := sound(start):
            sounds.append(key + "*" if word != start else key)
    if len(sounds) > MAX_WORDS:
        raise BadQuery(f"a matching value of {path} has more than {MAX_WORDS} words")
    return Match(path, "PN", Kind.SOUNDS, groups, sounds=tuple(dict.fromkeys(sounds)))


def _number(path: str, value: str) -> float:
    if not _NUMBER.fullmatch(value):
        raise BadQuery(f"a matching value of {path} is no number")
    return float(value)


def _dates(path: str, vr: str, values: tuple[str, ...]) -> Match:
    low_high = [_bounds(path, vr, value) for value in values]
    if len(low_high) > 1 and any(is_range for _, _, is_range in low_high):
        raise BadQuery(f"{path} has a range in a list")
    low, high, is_range = low_high[0]
    if vr == "DT" and (_offset(low) or _offset(high)):
        if len(low_high) > 1:
            raise BadQuery(f"{path} has a list of date-times with offsets")
        return Match(path, vr, Kind.INSTANTS, instants=_instants(path, low, high))
    spans = tuple((_digits(vr, low), _digits(vr, high) + "~" if high else "") for low, high, _ in low_high)
    if spans[0][0] and spans[0][1] and spans[0][0] > spans[0][1]:
        raise BadQuery(f"the range of {path} ends before it begins")
    return Match(path, vr, Kind.RANGE if is_range else Kind.DATES, spans=spans)


def _bounds(path: str, vr: str, value: str) -> tuple[str, str, bool]:
    """(low, high, whether it is a range), as written; "" is open.

    The "-" of a DT may belong to an offset: a value that is a date-time as a whole is
    one, and of several ways to cut a range the first that gives two is taken."""
    if _digits(vr, value):
        return value, value, False
    for position, character in enumerate(value):
        if character == "-":
            low, high = value[:position].strip(), value[position + 1 :].strip()
            if (low or high) and all(not side or _digits(vr, side) for side in (low, high)):
                return low, high, True
    raise BadQuery(f"a matching value of {path} is not of the form of {vr}")


def _digits(vr: str, value: str) -> str:
    if vr == "DA":
        return date_key(value)
    if vr == "TM":
        return time_digits(value)
    return datetime_digits(value)[0]


def _offset(value: str) -> str:
    return datetime_digits(value)[1]


def _instants(path: str, low: str, high: str) -> tuple[float | None, float | None]:
    spans = [epoch_range(*datetime_digits(side)) if side else (None, None) for side in (low, high)]
    first, last = spans
    if first is None or last is None:
        raise BadQuery(f"a matching value of {path} names a day that does not exist")
    return first[0], last[1]
