# SPDX-License-Identifier: Apache-2.0
"""What a peer's bytes may look like before anything is allocated for them.

Pure functions over PDU bytes (PS3.8 Section 9.3): the upper layer asks here before it
reads a payload and before a library decodes it. Nothing here touches a socket.
"""

import struct
from collections.abc import Iterator
from enum import IntEnum

HEADER_BYTES = 6
# 128 contexts of 25 transfer syntaxes need less than half of it.
_ASSOCIATE_LIMIT = 512 * 1024
_CONTROL_LIMIT = 64  # release and abort carry four bytes

_MAX_CONTEXTS = 128  # odd numbers of one byte, PS3.8 9.3.2.2
_MAX_SUB_ITEMS = 1024

_FIXED_ASSOCIATE = 68  # protocol version, both titles and reserved bytes


class PduType(IntEnum):
    """PS3.8 Table 9-11 to 9-26."""

    ASSOCIATE_RQ = 1
    ASSOCIATE_AC = 2
    ASSOCIATE_RJ = 3
    DATA = 4
    RELEASE_RQ = 5
    RELEASE_RP = 6
    ABORT = 7


_LIMIT_BYTES = {
    PduType.ASSOCIATE_RQ: _ASSOCIATE_LIMIT,
    PduType.ASSOCIATE_AC: _ASSOCIATE_LIMIT,
    PduType.ASSOCIATE_RJ: _CONTROL_LIMIT,
    PduType.RELEASE_RQ: _CONTROL_LIMIT,
    PduType.RELEASE_RP: _CONTROL_LIMIT,
    PduType.ABORT: _CONTROL_LIMIT,
}


class PduRefused(Exception):
    """The peer's PDU is malformed or beyond a limit; the association ends."""


def read_header(header: bytes | bytearray, maximum_length: int) -> tuple[PduType, int]:
    """Type and payload length in bytes of a six byte PDU header.

    ``maximum_length`` is the Maximum Length Received that we announced (PS3.8 D.1).
    Raises PduRefused for an unknown type and for a length that no honest peer needs.
    """
    number, length = struct.unpack(">BxI", header)
    try:
        kind = PduType(number)
    except ValueError:
        raise PduRefused(f"unknown PDU type {number:#04x}") from None
    # Some senders count the six bytes of the header of a data PDU as well.
    limit = _LIMIT_BYTES.get(kind, maximum_length + HEADER_BYTES)
    if length > limit:
        raise PduRefused(f"{kind.name} PDU of {length} bytes, the limit is {limit}")
    return kind, length


def _items(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    """(type, value) of PDU items: type, reserved, u16 length (PS3.8 9.3.2.1)."""
    while data:
        if len(data) < 4:
            raise PduRefused("an item header is cut off")
        kind, length = struct.unpack_from(">BxH", data)
        if len(data) < 4 + length:
            raise PduRefused("an item is longer than its PDU")
        yield kind, data[4 : 4 + length]
        data = data[4 + length :]


def check_association_request(payload: bytes | bytearray | memoryview) -> None:
    """Refuse an A-ASSOCIATE-RQ with more contexts or sub-items than the standard allows.

    The library would build an object for each of them first.
    """
    if len(payload) < _FIXED_ASSOCIATE:
        raise PduRefused("the association request is cut off")
    contexts = sub_items = 0
    for kind, value in _items(memoryview(payload)[_FIXED_ASSOCIATE:]):
        if kind == 0x20:
            contexts += 1
            if len(value) < 4:
                raise PduRefused("a presentation context is cut off")
            sub_items += sum(1 for _ in _items(value[4:]))
        elif kind == 0x50:
            sub_items += sum(1 for _ in _items(value))
        elif kind != 0x10:
            raise PduRefused(f"unknown item {kind:#04x} in the association request")
        if contexts > _MAX_CONTEXTS:
            raise PduRefused(f"more than {_MAX_CONTEXTS} presentation contexts")
        if sub_items > _MAX_CONTEXTS * 64 + _MAX_SUB_ITEMS:
            raise PduRefused("too many sub-items in the association request")


def data_values(payload: bytes | bytearray) -> list[tuple[int, int, memoryview]]:
    """(context id, message control header, fragment) of each PDV of a P-DATA-TF.

    Fragments are views of ``payload``: nothing is copied (PS3.8 9.3.5, Annex E).
    """
    values = []
    rest = memoryview(payload)
    while rest:
        if len(rest) < 6:
            raise PduRefused("a presentation data value is cut off")
        length, context_id, control = struct.unpack_from(">IBB", rest)
        if length < 2 or len(rest) < 4 + length:
            raise PduRefused("a presentation data value is longer than its PDU")
        values.append((context_id, control, rest[6 : 4 + length]))
        rest = rest[4 + length :]
    if not values:
        raise PduRefused("a data PDU without a value")
    return values
