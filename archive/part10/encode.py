# SPDX-License-Identifier: Apache-2.0
"""A pydicom data set as header bytes: the way in for what we make or correct ourselves."""

from collections.abc import Iterable
from typing import cast

from pydicom.charset import python_encoding
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import correct_ambiguous_vr_element, write_data_element

from archive.part10.bulk import PIXEL_TAGS
from archive.part10.errors import Malformed
from archive.part10.meta import encode_meta, is_uid
from archive.part10.normal_form import (
    EXTENDED_LENGTHS,
    EXTENDED_OFFSETS,
    ITEM_DELIMITER,
    ITEM_UNDEFINED,
    SEQUENCE_DELIMITER,
    UNDEFINED,
    element_header,
    tag_name,
)
from archive.part10.vr import LONG_MASK, SHORT_MASK

_NOT_IN_HEADERS = PIXEL_TAGS | {EXTENDED_OFFSETS, EXTENDED_LENGTHS, 0xFFFCFFFC}
_MAX_DEPTH = 64
_SPECIFIC_CHARACTER_SET = 0x00080005
_SOP_CLASS, _SOP_INSTANCE = 0x00080016, 0x00080018
_AMBIGUOUS = frozenset(("US or SS", "OB or OW", "US or OW", "US or SS or OW"))


def encode_header(dataset: Dataset, transfer_syntax_uid: str, *, implementation_version: str) -> bytes:
    """Part 10 bytes of ``dataset`` without pixel data: preamble, group 2, data set.

    The data set is in normal form: Explicit VR Little Endian, sequences and items of
    undefined length (so that a nested bulk value can be put back without any length to
    mend), no group lengths, ascending tags; offset tables are left out, being derived.
    ``transfer_syntax_uid`` (that of the frames; any native one becomes Explicit VR Little
    Endian) and ``implementation_version`` (at most
    16 characters) go into group 2. The same input gives the same bytes on any machine:
    no clock, host or library version is in them. Raises ``Malformed`` for a data set
    without SOP Class or SOP Instance UID, or with a value that its VR cannot hold.
    """
    sop_class, sop_instance = _text(dataset, _SOP_CLASS), _text(dataset, _SOP_INSTANCE)
    if not all(map(is_uid, (sop_class, sop_instance, transfer_syntax_uid))):
        raise Malformed("a header needs SOP Class, SOP Instance and Transfer Syntax UID")
    if not (implementation_version.isascii() and 1 <= len(implementation_version) <= 16):
        raise Malformed("the implementation version name has not 1 to 16 characters")
    meta = encode_meta(sop_class, sop_instance, transfer_syntax_uid, implementation_version)
    return meta + encode_dataset(dataset)


def encode_dataset(dataset: Dataset) -> bytes:
    """``dataset`` in normal form, without pixel data. Elements that ``scan_file`` found
    and nobody touched are copied as they are. Raises ``Malformed``."""
    out = bytearray()
    _write(dataset, out, [], 0)
    return bytes(out)


def _write(dataset: Dataset, out: bytearray, parent_charset: list[str], depth: int) -> None:
    if depth > _MAX_DEPTH:
        raise Malformed(f"more than {_MAX_DEPTH} nested sequences")
    charset = _charset(dataset) or parent_charset
    for tag in sorted(dataset.keys()):
        if tag in _NOT_IN_HEADERS or tag.group <= 2 or not tag.element:
            continue
        element = cast("DataElement | RawDataElement", dataset.get_item(tag))
        if isinstance(element, RawDataElement) and _write_raw(element, out):
            continue
        element = dataset[tag]
        if element.VR == "SQ":
            out += element_header(tag, b"SQ", UNDEFINED)
            for item in element.value or ():
                out += ITEM_UNDEFINED
                _write(item, out, charset, depth + 1)
                out += ITEM_DELIMITER
            out += SEQUENCE_DELIMITER
        else:
            _write_value(dataset, element, out, charset)


def _text(dataset: Dataset, tag: int) -> str:
    """The values of a textual element, joined by backslashes, without making pydicom
    decode and judge them (it warns of what it finds odd)."""
    if tag not in dataset:
        return ""
    value: object = getattr(dataset.get_item(tag), "value", None) or ""
    if isinstance(value, bytes):
        value = value.decode("ascii", "replace")
    if not isinstance(value, str):
        value = "\\".join(map(str, cast("Iterable[object]", value)))
    return value.strip(" \x00")


def _charset(dataset: Dataset) -> list[str]:
    """The terms of Specific Character Set, if PS3.3 C.12.1.1.2 knows them all."""
    names = [term.strip(" \x00") for term in _text(dataset, _SPECIFIC_CHARACTER_SET).split("\\")]
    return names if any(names) and all(name in python_encoding for name in names) else []


def _write_raw(element: RawDataElement, out: bytearray) -> bool:
    """Copy an element that was never decoded; False where it is not in normal form."""
    if element.is_implicit_VR or not element.is_little_endian or element.VR is None:
        return False
    vr = element.VR.encode("ascii", "replace")
    value = element.value or b""
    if vr == b"SQ":
        if element.length != UNDEFINED:  # only a scan gives raw sequences of undefined length
            return False
        out += element_header(element.tag, vr, UNDEFINED) + value + SEQUENCE_DELIMITER
        return True
    mask = SHORT_MASK.get(vr, LONG_MASK.get(vr))
    if mask is None or len(value) & mask or element.length == UNDEFINED:
        return False
    out += element_header(element.tag, vr, len(value)) + value
    return True


def _write_value(dataset: Dataset, element: DataElement, out: bytearray, charset: list[str]) -> None:
    """Encode one decoded value by pydicom's writers."""
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    try:
        if element.VR in _AMBIGUOUS:
            element = cast(DataElement, correct_ambiguous_vr_element(element, dataset, True))
        write_data_element(buffer, element, charset or None)
    except Exception as problem:  # the writers let out whatever a value of a wrong type causes
        raise Malformed(f"{tag_name(element.tag)} cannot be encoded as {element.VR}") from problem
    out += buffer.getvalue()
