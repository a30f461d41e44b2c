# SPDX-License-Identifier: Apache-2.0
"""Slidedat.ini of an MRXS slide: sections of ``key = value``, and what they name.

    [HIERARCHICAL]                                  [LAYER_0_LEVEL_0_SECTION]
    HIER_0_NAME = Slide zoom level                  DIGITIZER_WIDTH = 347
    HIER_0_COUNT = 10                               OVERLAP_X = 96
    HIER_0_VAL_0 = ZoomLevel_0                      IMAGE_CONCAT_FACTOR = 0
    HIER_0_VAL_0_SECTION = LAYER_0_LEVEL_0_SECTION  IMAGE_FORMAT = JPEG

Traps of real files: a byte order mark, lines with a value but no key, decimal commas.
Sections and keys are taken without regard to case here.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from converters.errors import DamagedSlide

MAX_BYTES = 1 << 20
MAX_KEYS = 50_000
MAX_HIERARCHIES = 16
MAX_VALUES = 4096
MAX_ZOOM_LEVELS = 24
MAX_DATA_FILES = 4096


@dataclass(frozen=True)
class Hierarchy:
    """One axis of the index's table: zoom levels, filters, focus levels. ``values`` and
    their ``sections`` go together; ``default`` is the value shown when none is chosen."""

    name: str
    values: Sequence[str]
    sections: Sequence[str]
    default: int


@dataclass(frozen=True)
class OtherRecord:
    """A record of no level: its layer ("Scan data layer"), name and sections."""

    layer: str
    name: str
    section: str
    layer_section: str


@dataclass(frozen=True)
class Slidedat:
    """``sections`` by upper-case names, of upper-case keys; ``text`` as it stands."""

    text: str
    sections: Mapping[str, Mapping[str, str]]

    def value(self, section: str, key: str) -> str:
        """ "" where it is not stated."""
        return self.sections.get(section.upper(), {}).get(key.upper(), "")

    def text_of(self, section: str, key: str) -> str:
        """A value that must be there. Raises DamagedSlide."""
        found = self.value(section, key)
        if not found:
            raise DamagedSlide(f"Slidedat.ini does not state {_shown(key)}")
        return found

    def integer(self, section: str, key: str, low: int, high: int, default: int | None = None) -> int:
        """A whole number within limits. Raises DamagedSlide."""
        text = self.value(section, key)
        if not text and default is not None:
            return default
        try:
            number = int(self.text_of(section, key))
        except ValueError:
            raise DamagedSlide(f"{_shown(key)} in Slidedat.ini is not a number") from None
        if not low <= number <= high:
            raise DamagedSlide(f"{_shown(key)} in Slidedat.ini is out of range")
        return number

    def real(self, section: str, key: str) -> float | None:
        """A number; None where there is none."""
        try:
            number = float(self.value(section, key).replace(",", "."))
        except ValueError:
            return None
        return number if math.isfinite(number) else None

    def hierarchies(self) -> Sequence[Hierarchy]:
        """In the order of the index. Raises DamagedSlide."""
        found = []
        for number in range(self.integer("HIERARCHICAL", "HIER_COUNT", 1, MAX_HIERARCHIES)):
            start = f"HIER_{number}"
            count = self.integer("HIERARCHICAL", f"{start}_COUNT", 1, MAX_VALUES)
            values = [self.value("HIERARCHICAL", f"{start}_VAL_{value}") for value in range(count)]
            sections = [self.value("HIERARCHICAL", f"{start}_VAL_{value}_SECTION") for value in range(count)]
            name = self.text_of("HIERARCHICAL", f"{start}_NAME")
            default = self.integer("HIERARCHICAL", f"{start}_DEFAULT", 0, count - 1, default=0)
            found.append(Hierarchy(name, values, sections, default))
        if math.prod(len(each.values) for each in found) > 1 << 20:
            raise DamagedSlide("Slidedat.ini announces more records than any slide has")
        return found

    def others(self) -> Sequence[OtherRecord]:
        """In the order of the index. Raises DamagedSlide."""
        found: list[OtherRecord] = []
        for number in range(self.integer("HIERARCHICAL", "NONHIER_COUNT", 0, MAX_VALUES, default=0)):
            start = f"NONHIER_{number}"
            layer = self.text_of("HIERARCHICAL", f"{start}_NAME")
            layer_section = self.value("HIERARCHICAL", f"{start}_SECTION")
            for value in range(self.integer("HIERARCHICAL", f"{start}_COUNT", 1, MAX_VALUES)):
                name = self.value("HIERARCHICAL", f"{start}_VAL_{value}")
                section = self.value("HIERARCHICAL", f"{start}_VAL_{value}_SECTION")
                found.append(OtherRecord(layer, name, section, layer_section))
            if len(found) > MAX_VALUES:
                raise DamagedSlide("Slidedat.ini announces more records than any slide has")
        return found

    def data_file_names(self) -> Sequence[str]:
        """Names within the slide's folder. Raises DamagedSlide for one that leads out of it."""
        count = self.integer("DATAFILE", "FILE_COUNT", 1, MAX_DATA_FILES)
        return [plain_name(self.text_of("DATAFILE", f"FILE_{number}")) for number in range(count)]

    def index_name(self) -> str:
        return plain_name(self.text_of("HIERARCHICAL", "INDEXFILE"))

    def properties(self) -> dict[str, str]:
        """All of it flat, "section.key" in lower case."""
        return {
            f"{section}.{key}".lower(): value
            for section, pairs in self.sections.items()
            for key, value in pairs.items()
        }


def parse_slidedat(content: bytes) -> Slidedat:
    """Raises DamagedSlide for what is no such file."""
    text = _decoded(content)
    sections: dict[str, dict[str, str]] = {}
    current: dict[str, str] | None = None
    keys = 0
    for line in text.splitlines():
        line = line.strip()
        if line.startswith("[") and line.endswith("]"):
            current = sections.setdefault(line[1:-1].strip().upper(), {})
            continue
        key, equals, value = line.partition("=")
        if current is not None and equals and key.strip():
            current[key.strip().upper()] = value.strip()
            keys += 1
            if keys > MAX_KEYS:
                raise DamagedSlide("Slidedat.ini has more keys than any slide's")
    for section in ("GENERAL", "HIERARCHICAL", "DATAFILE"):
        if section not in sections:
            raise DamagedSlide(f"Slidedat.ini has no section {section}")
    return Slidedat(text, sections)


def _decoded(content: bytes) -> str:
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return content.decode("utf-16", "replace")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("cp1252", "replace")


def plain_name(name: str) -> str:
    if name in (".", "..") or any(character in name for character in "/\\:\0"):
        raise DamagedSlide("Slidedat.ini names a file outside of the slide's folder")
    return name


def _shown(key: str) -> str:
    """A key as messages have it: ours to name, whatever number is in it."""
    return key if key.isascii() else "a key"
