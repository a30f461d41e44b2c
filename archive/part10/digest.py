# SPDX-License-Identifier: Apache-2.0
"""Digests by which two data sets are told equal although their bytes differ.

A sender may rewrite transfer syntax, group 2, sequence lengths and padding on the way;
of 23 sample files sent by a stock sender 11 arrived with other bytes.
"""

import hashlib
import struct
from collections.abc import Iterable, Mapping

from pydicom.dataset import Dataset

from archive.part10.encode import encode_dataset
from archive.part10.vr import CHARSET_TEXT, MULTIPLE_TEXT, SHORT_MASK, known_vr

Frame = bytes | bytearray | memoryview | Iterable[bytes | bytearray | memoryview]

_TEXT = MULTIPLE_TEXT | CHARSET_TEXT | {b"UR"}
_PADDING = b" \x00"
_READ_ELEMENT = struct.Struct("<HH2sH").unpack_from
_READ_U32 = struct.Struct("<I").unpack_from
_WRITE = struct.Struct(">II").pack
_SEQUENCE = 0xFFFFFFFF
_OPEN_ITEM = b"\xff\xfe\xe0\x00"
_CLOSE = b"\xff\xfe\xe0\x0d"


def content_digest(
    dataset: Dataset, frame_digest: bytes, bulk_digests: Mapping[str, bytes] | None = None
) -> bytes:
    """SHA-256 over the canonical data set, the frames' digest (``b""`` without pixel
    data) and the digests of the other bulk values by path.

    Canonical means: ascending tags, no group lengths, no group 2, no offset tables,
    sequences without lengths, text values without trailing spaces and NULs. VRs are not
    part of it, since Implicit VR has none; whether a value is text is PS3.6's word, not
    the file's. Text in another character set is other text.
    """
    digest = hashlib.sha256(b"coverslip content 1\x00")
    digest.update(canonical(encode_dataset(dataset)))
    digest.update(b"\xff\xff\xff\xff" + struct.pack(">B", len(frame_digest)) + frame_digest)
    for path, value in sorted((bulk_digests or {}).items()):
        name = path.encode("ascii")
        digest.update(struct.pack(">HB", len(name), len(value)) + name + value)
    return digest.digest()


def pixel_digest(frames: Iterable[Frame]) -> bytes:
    """SHA-256 over the frames' own digests, in order. A frame is bytes, or the chunks
    that it consists of.

    A frame of odd length counts as if padded with one 00, so it does not matter whether
    its true length was known (extended offset table) or not.
    """
    whole = hashlib.sha256(b"coverslip frames 1\x00")
    for frame in frames:
        digest = hashlib.sha256()
        length = 0
        for chunk in (frame,) if isinstance(frame, bytes | bytearray | memoryview) else frame:
            digest.update(chunk)
            length += len(chunk)
        if length % 2:
            digest.update(b"\x00")
        whole.update(digest.digest())
    return whole.digest()


def canonical(data: bytes) -> bytes:
    """A data set in normal form without what does not change its meaning."""
    out = bytearray()
    pos, end = 0, len(data)
    text: dict[int, bool] = {}
    short = SHORT_MASK
    while pos < end:
        group, element, vr, length = _READ_ELEMENT(data, pos)
        if group == 0xFFFE:
            pos += 8
            out += _OPEN_ITEM if element == 0xE000 else _CLOSE
            continue
        tag = group << 16 | element
        if vr in short:
            pos += 8
        else:
            (length,) = _READ_U32(data, pos + 8)
            pos += 12
            if vr == b"SQ":
                out += _WRITE(tag, _SEQUENCE)
                continue
        value = data[pos : pos + length]
        pos += length
        is_text = text.get(tag)
        if is_text is None:
            is_text = text[tag] = known_vr(tag) in _TEXT
        if is_text:
            if b"\\" in value:
                value = b"\\".join([part.rstrip(_PADDING) for part in value.split(b"\\")])
            else:
                value = value.rstrip(_PADDING)
        out += _WRITE(tag, len(value))
        out += value
    return bytes(out)
