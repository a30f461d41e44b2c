# SPDX-License-Identifier: Apache-2.0
"""The query string of a search (PS3.18 Section 8.3.4) as values; knows no framework.

Names of parameters that we do not know are ignored, values that break the rules of a
parameter we know are refused (8.3).
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from pydicom.datadict import dictionary_VR, tag_for_keyword

_FLAGS = ("fuzzymatching", "emptyvaluematching", "multiplevaluematching")
_RESERVED = frozenset({*_FLAGS, "accept", "charset", "includefield", "limit", "offset"})
_TAG = re.compile(r"[0-9A-Fa-f]{8}")


class BadParameter(ValueError):
    """A parameter that we know, with a value that it may not have (400)."""


@dataclass(frozen=True, slots=True)
class MatchKey:
    """One matching key: ``path`` is tags joined by dots (``00400560.00400551``), ``vr``
    that of the last, ``text`` the value as given, a list of UIDs joined by commas."""

    path: str
    vr: str
    text: str


@dataclass(frozen=True, slots=True)
class SearchParameters:
    """``include`` holds tag paths; ``fuzzy``, ``empty`` and ``multiple`` are the flags of
    8.3.4.2, 8.3.4.5 and 8.3.4.6."""

    keys: tuple[MatchKey, ...]
    include: tuple[str, ...]
    include_all: bool
    limit: int
    offset: int
    fuzzy: bool = False
    empty: bool = False
    multiple: bool = False


def attribute_path(name: str) -> str | None:
    """``PatientID``, ``00100020``, ``SpecimenDescriptionSequence.00400551`` -> tags joined by
    dots in upper case; None for a name that is no attribute."""
    tags = []
    for step in name.split("."):
        if _TAG.fullmatch(step):
            tags.append(step.upper())
        else:
            tag = tag_for_keyword(step) if step else None  # pydicom knows a tag without a keyword
            if tag is None:
                return None
            tags.append(f"{tag:08X}")
    return ".".join(tags)


def vr_of(path: str) -> str:
    """VR of the last tag by the dictionary (the first of several), UN if it is not in it."""
    try:
        return dictionary_VR(int(path[-8:], 16))[:2]
    except KeyError:
        return "UN"


def parse_search(arguments: Iterable[tuple[str, str]], *, default: int, most: int) -> SearchParameters:
    """Read a query string's names and values, in order.

    ``default`` rows without ``limit``, never more than ``most``: what a larger limit
    leaves out is announced, not refused. A UID key that is repeated means any of its
    values, with ``multiplevaluematching`` any key. Raises BadParameter.
    """
    values: dict[str, list[str]] = {}
    include: dict[str, None] = {}
    include_all = False
    numbers = {"limit": default, "offset": 0}
    flags = dict.fromkeys(_FLAGS, False)
    for name, value in arguments:
        if name == "includefield":
            names = [item.strip() for item in value.split(",")]
            include_all = include_all or "all" in names
            include.update((path, None) for item in names if (path := attribute_path(item)) is not None)
        elif name in numbers:
            numbers[name] = _number(name, value)
        elif name in flags:
            if value.lower() not in ("true", "false"):
                raise BadParameter(f"{name} must be true or false")
            flags[name] = value.lower() == "true"
        elif name not in _RESERVED and (path := attribute_path(name)) is not None:
            known = values.setdefault(path, [])
            if value not in known:
                known.append(value)
    fuzzy, empty, multiple = (flags[name] for name in _FLAGS)
    keys = tuple(
        MatchKey(path, vr_of(path), _joined(path, given, multiple=multiple)) for path, given in values.items()
    )
    limit = min(numbers["limit"], most)
    return SearchParameters(
        keys, tuple(include), include_all, limit, numbers["offset"], fuzzy, empty, multiple
    )


def _joined(path: str, given: list[str], *, multiple: bool) -> str:
    """The values of a key that came more than once, as one list."""
    if len(given) > 1 and vr_of(path) == "UI":
        return ",".join(given)
    if len(given) > 1 and not multiple:
        raise BadParameter(f"{path} is given twice")
    return "\\".join(given)


def _number(name: str, value: str) -> int:
    if not re.fullmatch(r"[0-9]{1,12}", value):
        raise BadParameter(f"{name} must be a whole number")
    return int(value)
