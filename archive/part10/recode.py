# SPDX-License-Identifier: Apache-2.0
"""A data set's text turned to UTF-8, as header revisions are written."""

from pydicom.dataset import Dataset

from archive.part10.budget import DEFAULT_BUDGET
from archive.part10.charset import Charset
from archive.part10.dataset import as_dataset
from archive.part10.encode import encode_dataset
from archive.part10.normal_form import (
    ITEM_DELIMITER,
    ITEM_UNDEFINED,
    SEQUENCE_DELIMITER,
    UNDEFINED,
    element_header,
    read_element,
)
from archive.part10.vr import CHARSET_TEXT
from archive.part10.walker import normalise

_SPECIFIC_CHARACTER_SET = 0x00080005
_UTF8 = element_header(_SPECIFIC_CHARACTER_SET, b"CS", 10) + b"ISO_IR 192"


def recode_to_utf8(dataset: Dataset) -> Dataset:
    """A copy of ``dataset`` with all text in UTF-8 and Specific Character Set ISO_IR 192
    (PS3.3 C.12.1.1.2), items included. Bytes that their declared character set cannot
    explain become U+FFFD. Raises ``Malformed``."""
    data = encode_dataset(dataset)
    out = bytearray(_UTF8)
    _recode(data, 0, out, Charset())
    # Only (0008,0001) could come before the character set, and that is retired.
    normal = normalise(bytes(out), 0, len(out), implicit=False, budget=DEFAULT_BUDGET)
    return as_dataset(normal)


def _recode(data: bytes, pos: int, out: bytearray, charset: Charset) -> int:
    """One data set or item from ``pos`` on; returns where its content ends."""
    while pos < len(data) and data[pos : pos + 4] != ITEM_DELIMITER[:4]:
        tag, vr, value, end = read_element(data, pos)
        if vr == b"SQ":
            out += element_header(tag, vr, UNDEFINED)
            pos = value
            while data[pos : pos + 4] != SEQUENCE_DELIMITER[:4]:
                out += ITEM_UNDEFINED
                pos = _recode(data, pos + 8, out, charset) + 8
                out += ITEM_DELIMITER
            out += SEQUENCE_DELIMITER
            pos += 8
            continue
        content = data[value:end]
        if tag == _SPECIFIC_CHARACTER_SET:
            charset = Charset(content)
        elif vr in CHARSET_TEXT and not (content.isascii() and b"\x1b" not in content):
            encoded = charset.decode(content, person_name=vr == b"PN").encode("utf-8", "replace")
            encoded += b" " * (len(encoded) % 2)
            out += element_header(tag, vr, len(encoded)) + encoded
        else:
            out += data[pos:end]
        pos = end
    return pos
