# SPDX-License-Identifier: Apache-2.0
"""XML that scanners put into tags of a TIFF: parsed within a budget, entities refused."""

import base64
import binascii
import math
import re
from xml.etree.ElementTree import Element, ParseError

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import fromstring

from converters.errors import DamagedSlide

MAX_XML_BYTES = 16 << 20
MAX_ELEMENTS = 1_000_000
_ENCODING = re.compile(r"\s+encoding\s*=\s*([\"'])[^\"']*\1")


def parse_xml(text: str | bytes, what: str) -> Element:
    """The root of ``text``; ``what`` names it in refusals. Raises DamagedSlide.

    A text is decoded already, so the encoding that its declaration names does not count.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8", "replace")
    text = text.strip("\0 \t\r\n\ufeff")
    if len(text) > MAX_XML_BYTES:
        raise DamagedSlide(f"{what} is longer than {MAX_XML_BYTES >> 20} MiB")
    declaration, end, body = text.partition("?>")
    if end and declaration.startswith("<?xml"):
        text = _ENCODING.sub("", declaration) + end + body
    try:
        root: Element = fromstring(text)
    except (ParseError, DefusedXmlException, ValueError) as error:
        raise DamagedSlide(f"{what} is not well-formed XML") from error
    for number, _ in enumerate(root.iter()):
        if number == MAX_ELEMENTS:
            raise DamagedSlide(f"{what} has more than {MAX_ELEMENTS} elements")
    return root


def local_name(element: Element) -> str:
    """The element's tag without its namespace."""
    return element.tag.rpartition("}")[2] if isinstance(element.tag, str) else ""


def number(text: str | None) -> float | None:
    """A finite number, or None."""
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def whole(text: str | None, lowest: int, highest: int) -> int | None:
    """A whole number from ``lowest`` to ``highest``, or None; "7.0" counts as one."""
    value = number(text)
    if value is None or value != math.floor(value) or not lowest <= value <= highest:
        return None
    return int(value)


def base64_bytes(text: str) -> bytes | None:
    """What base64 says, None where it is none. White space is left out."""
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        return None


def base64_text(text: str) -> str:
    """A barcode that may be base64 of UTF-8: as decoded if it is, else as it stands."""
    data = base64_bytes(text)
    try:
        decoded = (data or b"").decode("utf-8").strip("\0 \t\r\n")
    except UnicodeDecodeError:
        decoded = ""
    return decoded if decoded.isprintable() and decoded else text.strip()
