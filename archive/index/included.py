# SPDX-License-Identifier: Apache-2.0
"""Fields that a search returns from a header, because no column has them."""

from typing import Any

from archive.index.columns import COLUMNS, Level

# Attributes of the Patient and Study modules (PS3.3 C.7.1, C.7.2) beside group 0010, and of
# the Series modules (C.7.3, C.7.4, C.7.5): equal in all instances of the study or series.
_STUDY = frozenset((
    "00080051", "00080054", "0008009C", "0008009D", "00080096", "00081032", "00081048", "00081049",
    "00081060", "00081062", "00081080", "00081084", "00081110", "00120010", "00120020", "00120040",
    "00120050", "00120062", "00120063", "00120064", "00321033", "00321034", "00321060", "00321064",
    "00380010", "00380014", "00380062", "00380064", "00380500", "00401012",
))  # fmt: skip
_SERIES = frozenset((
    "00080080", "00080081", "00080082", "00081040", "0008103F", "00081050", "00081052", "00081070",
    "00081072", "00081111", "00081250", "00180060", "00181000", "00181018", "00181020", "00181030",
    "00200052", "00201040", "00400250", "00400251", "00400253", "00400254", "00400260", "00400275",
    "00400280", "00400512", "00400513", "00400515", "00400518", "00400520", "00400560", "00180010",
))  # fmt: skip


def in_header(tag: str, level: Level) -> bool:
    """Whether any instance's header tells an attribute of a study or series."""
    if level is Level.STUDY:
        return tag.startswith("0010") or tag in _STUDY
    return in_header(tag, Level.STUDY) or tag in _SERIES or level is Level.INSTANCE


def returnable(path: str, level: Level) -> bool:
    """Whether a result of this level has the attribute at a path, from a column or a header."""
    column = COLUMNS.get(path)
    return column.level <= level if column else in_header(path[:8], level)


def merge(answer: dict[str, Any], header: dict[str, Any], path: list[str]) -> None:
    """Copy what stands at a path of tags, and only that, item by item (PS3.18 8.3.4.3)."""
    tag, *rest = path
    element = header.get(tag)
    if element is None:
        return
    if not rest:
        answer[tag] = element
        return
    items = [item for item in element.get("Value", ()) if isinstance(item, dict)]
    target = answer.setdefault(tag, {"vr": "SQ", "Value": [{} for _ in items]})
    for into, item in zip(target.get("Value", ()), items, strict=False):
        if into is not item:  # the whole sequence is there already
            merge(into, item, rest)
