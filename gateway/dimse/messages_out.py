# SPDX-License-Identifier: Apache-2.0
"""Messages on their way to a peer: command sets and data sets as P-DATA-TF PDUs.

Pure functions over bytes (PS3.7 6.3, PS3.8 9.3.5 and Annex E); a data set of any size
goes through as it is read, and nothing is copied that need not be.
"""

import struct
from collections.abc import Iterable, Iterator

Piece = bytes | bytearray | memoryview

# Of an endless maximum length (0) and of a huge one this much is used.
LARGEST_PDU_BYTES = 128 * 1024
SMALLEST_PDU_BYTES = 64  # a peer that announces less gets this much: headers must fit

NO_DATA_SET = 0x0101
_DATA_SET = 0x0001
_RESPONSE = 0x8000

_IS_COMMAND, _IS_LAST = 1, 2

# PS3.7 E.1: element of group 0000 and how it is encoded.
_ELEMENTS = {
    "AffectedSOPClassUID": (0x0002, "UI"),
    "RequestedSOPClassUID": (0x0003, "UI"),
    "CommandField": (0x0100, "US"),
    "MessageID": (0x0110, "US"),
    "MessageIDBeingRespondedTo": (0x0120, "US"),
    "MoveDestination": (0x0600, "AE"),
    "Priority": (0x0700, "US"),
    "CommandDataSetType": (0x0800, "US"),
    "Status": (0x0900, "US"),
    "OffendingElement": (0x0901, "AT"),
    "ErrorComment": (0x0902, "LO"),
    "ErrorID": (0x0903, "US"),
    "AffectedSOPInstanceUID": (0x1000, "UI"),
    "RequestedSOPInstanceUID": (0x1001, "UI"),
    "EventTypeID": (0x1002, "US"),
    "AttributeIdentifierList": (0x1005, "AT"),
    "ActionTypeID": (0x1008, "US"),
    "NumberOfRemainingSuboperations": (0x1020, "US"),
    "NumberOfCompletedSuboperations": (0x1021, "US"),
    "NumberOfFailedSuboperations": (0x1022, "US"),
    "NumberOfWarningSuboperations": (0x1023, "US"),
    "MoveOriginatorApplicationEntityTitle": (0x1030, "AE"),
    "MoveOriginatorMessageID": (0x1031, "US"),
}
_COMMENT_LENGTH = 64  # LO

# PS3.7 Table E.1-1, Command Field.
COMMAND_FIELDS = {
    "C_STORE": 0x0001, "C_GET": 0x0010, "C_FIND": 0x0020, "C_MOVE": 0x0021, "C_ECHO": 0x0030,
    "N_EVENT_REPORT": 0x0100, "N_GET": 0x0110, "N_SET": 0x0120, "N_ACTION": 0x0130,
    "N_CREATE": 0x0140, "N_DELETE": 0x0150,
}  # fmt: skip
C_CANCEL_RQ = 0x0FFF

FieldValue = int | str | Iterable[int]


def encode_command(fields: dict[str, FieldValue]) -> bytes:
    """A command set, Implicit VR Little Endian with its group length (PS3.7 6.3.1).

    ``fields`` by keyword; ``CommandDataSetType`` must be among them. Text that the VR
    does not allow (an Error Comment longer than 64 characters) is cut. Raises KeyError
    for a keyword that no command set has.
    """
    body = b"".join(
        struct.pack("<HHI", 0, element, len(value)) + value
        for element, value in sorted(
            (_ELEMENTS[keyword][0], _value(_ELEMENTS[keyword][1], value)) for keyword, value in fields.items()
        )
    )
    return struct.pack("<HHII", 0, 0, 4, len(body)) + body


def _value(vr: str, value: FieldValue) -> bytes:
    if vr == "US":
        assert isinstance(value, int)
        return struct.pack("<H", value)
    if vr == "AT":
        tags = [value] if isinstance(value, int) else value
        assert not isinstance(tags, str)
        return b"".join(struct.pack("<HH", tag >> 16, tag & 0xFFFF) for tag in tags)
    text = str(value)
    if vr == "LO":
        printable = "".join(c for c in text if c.isascii() and c.isprintable() and c != "\\")
        text = printable[:_COMMENT_LENGTH]
    encoded = text.encode("ascii", "replace")
    return encoded + (b"\x00" if vr == "UI" else b" ") * (len(encoded) % 2)


def request_command(name: str, message_id: int, has_data_set: bool, **fields: FieldValue) -> bytes:
    """The command set of a request; ``name`` as in :data:`COMMAND_FIELDS`."""
    return encode_command(
        {
            "CommandField": COMMAND_FIELDS[name],
            "MessageID": message_id,
            "CommandDataSetType": _DATA_SET if has_data_set else NO_DATA_SET,
            **fields,
        }
    )


def response_command(
    name: str, message_id: int, status: int, has_data_set: bool, **fields: FieldValue
) -> bytes:
    """The command set of the answer to request ``message_id``."""
    return encode_command(
        {
            "CommandField": COMMAND_FIELDS[name] | _RESPONSE,
            "MessageIDBeingRespondedTo": message_id,
            "CommandDataSetType": _DATA_SET if has_data_set else NO_DATA_SET,
            "Status": status,
            **fields,
        }
    )


def message_pdus(
    context_id: int, command: bytes, data_set: Iterable[Piece] | None, maximum_length: int
) -> Iterator[list[Piece]]:
    """The PDUs of one message, each as the pieces that make it up, in order.

    ``maximum_length``: what the peer announced (PS3.8 D.1), 0 for no limit. A data set
    that turns out to be empty is sent as one empty last fragment.
    """
    yield from _pdus(context_id, [command], _IS_COMMAND, maximum_length)
    if data_set is not None:
        yield from _pdus(context_id, data_set, 0, maximum_length)


def _pdus(context_id: int, chunks: Iterable[Piece], kind: int, maximum_length: int) -> Iterator[list[Piece]]:
    largest = min(maximum_length or LARGEST_PDU_BYTES, LARGEST_PDU_BYTES)
    room = max(largest, SMALLEST_PDU_BYTES) - 6 & ~1  # fragments are of even length (PS3.8 E.1)
    pieces: list[Piece] = []
    held = 0
    for chunk in chunks:
        view = memoryview(chunk)
        while view:
            if held == room:  # there is more: this fragment is not the last
                yield [_head(context_id, kind, held), *pieces]
                pieces, held = [], 0
            piece = view[: room - held]
            pieces.append(piece)
            held += len(piece)
            view = view[len(piece) :]
    yield [_head(context_id, kind | _IS_LAST, held), *pieces]


def _head(context_id: int, control: int, length: int) -> bytes:
    """PDU header and PDV header of a PDU with one value of ``length`` bytes."""
    return struct.pack(">BxIIBB", 4, length + 6, length + 2, context_id, control)
