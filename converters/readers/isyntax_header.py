# SPDX-License-Identifier: Apache-2.0
"""The XML at the start of an iSyntax file, up to the byte EOT: DICOM-like attributes in a
tree of ``DataObject``. Most of it is base64 (tables, pictures), which is cut out before
anything parses the rest.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from xml.etree.ElementTree import Element

from converters.errors import DamagedSlide, UnsupportedPixels
from converters.readers.vendor_xml import base64_bytes, parse_xml

ROOT = "DPUfsImport"
MAX_HEADER_BYTES = 64 << 20
MAX_IMAGES = 64
EOT = b"\x04"
_CUT = (
    b"UFS_IMAGE_BLOCK_HEADER_TABLE",
    b"UFS_IMAGE_CLUSTER_HEADER_TABLE",
    b"PIM_DP_IMAGE_DATA",
    b"DICOM_ICCPROFILE",
)
_LARGE = re.compile(rb'(<Attribute\b[^<>]{0,400}?\bName="(?:' + b"|".join(_CUT) + rb')"[^<>]{0,400}>)([^<]*)')
_WHOLE = re.compile(r"-?\d{1,10}")


@dataclass(frozen=True, eq=False)
class Header:
    """The tree. ``end`` is the offset of the first byte after EOT."""

    root: Element
    blobs: Sequence[bytes]  # base64 texts; the tree holds their numbers
    end: int

    @cached_property
    def texts(self) -> dict[str, str]:
        """The import's own attributes."""
        return texts(self.root)

    @cached_property
    def images(self) -> dict[str, Element]:
        """Scanned images by their type ("WSI", "LABELIMAGE", "MACROIMAGE"), the first of each."""
        found: dict[str, Element] = {}
        for number, image in enumerate(objects(self.root, "PIM_DP_SCANNED_IMAGES")):
            if number == MAX_IMAGES:
                raise DamagedSlide(f"the header lists more than {MAX_IMAGES} images")
            found.setdefault(texts(image).get("PIM_DP_IMAGE_TYPE", ""), image)
        return found

    @property
    def wsi(self) -> Element:
        """Raises UnsupportedPixels where the file has only a label, say."""
        try:
            return self.images["WSI"]
        except KeyError:
            raise UnsupportedPixels("the header lists no image of the type WSI") from None

    def blob(self, parent: Element, name: str) -> bytes | None:
        """What the base64 of attribute ``name``, anywhere below ``parent``, says; None where
        there is none. Raises DamagedSlide."""
        for attribute in parent.iter("Attribute"):
            number = (attribute.text or "").strip()
            if attribute.get("Name") == name and number.isdigit() and int(number) < len(self.blobs):
                text = "".join(self.blobs[int(number)].decode("ascii", "replace").split())
                # libisyntax has met a "/" too many at the end
                data = base64_bytes(text[:-1] if len(text) % 4 == 1 and text[-1] == "/" else text)
                if data is None:
                    raise DamagedSlide(f"{name} in the header is not base64")
                return data
        return None


def read_header(path: Path) -> Header:
    """Raises DamagedSlide."""
    with path.open("rb") as file:
        data = file.read(MAX_HEADER_BYTES + 1)
    end = data.find(EOT)
    if end < 0:
        too_long = len(data) > MAX_HEADER_BYTES
        raise DamagedSlide(
            f"the header is longer than {MAX_HEADER_BYTES >> 20} MiB"
            if too_long
            else "the header does not end"
        )
    blobs: list[bytes] = []

    def cut(found: "re.Match[bytes]") -> bytes:
        blobs.append(found[2])
        return found[1] + b"%d" % (len(blobs) - 1)

    root = parse_xml(_LARGE.sub(cut, data[:end]), "the header")
    if root.tag != "DataObject" or root.get("ObjectType") != ROOT:
        raise DamagedSlide(f"the header is no {ROOT} object")
    return Header(root, blobs, end + len(EOT))


def objects(parent: Element, name: str) -> Iterator[Element]:
    """The objects in the array of the attribute ``name``."""
    for attribute in parent.findall("Attribute"):
        if attribute.get("Name") == name:
            yield from attribute.findall("Array/DataObject")


def texts(parent: Element) -> dict[str, str]:
    """The object's own attributes that are texts."""
    return {
        attribute.get("Name", ""): attribute.text.strip()
        for attribute in parent.findall("Attribute")
        if not len(attribute) and attribute.text and attribute.get("Name", "").encode() not in _CUT
    }


def items(text: str) -> list[str]:
    """The items of a list such as ``"1.8" "2.0"``."""
    return re.findall(r'"([^"]*)"', text) if '"' in text else text.split()


def ranges(parent: Element) -> list[tuple[int, int, int]]:
    """(Start, step, end) of each dimension, the end included. Raises DamagedSlide."""
    found = []
    for one in objects(parent, "UFS_IMAGE_DIMENSION_RANGES"):
        numbers = _WHOLE.findall(texts(one).get("UFS_IMAGE_DIMENSION_RANGE", ""))
        if len(numbers) != 3:
            raise DamagedSlide("a dimension range in the header is not three numbers")
        found.append((int(numbers[0]), int(numbers[1]), int(numbers[2])))
    return found
