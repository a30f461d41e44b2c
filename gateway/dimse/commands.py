# SPDX-License-Identifier: Apache-2.0
"""Command sets as peers send them (PS3.7 6.3.1 and Annex E): Implicit VR Little Endian,
group 0000 only. ``messages_out`` writes ours."""

import struct
from collections.abc import Mapping
from dataclasses import dataclass

from gateway.dimse.messages_out import COMMAND_FIELDS, NO_DATA_SET
from gateway.dimse.pdu import PduRefused

# Elements of group 0000 that are read here.
AFFECTED_SOP_CLASS_UID = 0x0002
COMMAND_FIELD = 0x0100
MESSAGE_ID = 0x0110
MESSAGE_ID_RESPONDED_TO = 0x0120
COMMAND_DATA_SET_TYPE = 0x0800
STATUS = 0x0900
ERROR_COMMENT = 0x0902
AFFECTED_SOP_INSTANCE_UID = 0x1000
EVENT_TYPE_ID = 0x1002

RESPONSE = 0x8000  # in a Command Field


@dataclass(frozen=True, slots=True)
class Command:
    """A command set that was received: values by element number, as sent."""

    elements: Mapping[int, bytes]

    @property
    def field(self) -> int:
        return self.number(COMMAND_FIELD)

    @property
    def status(self) -> int:
        return self.number(STATUS)

    @property
    def responded_to(self) -> int:
        return self.number(MESSAGE_ID_RESPONDED_TO)

    @property
    def has_data_set(self) -> bool:
        return self.number(COMMAND_DATA_SET_TYPE) != NO_DATA_SET

    def number(self, element: int) -> int:
        """A value of VR US; PduRefused where there is none."""
        value = self.elements.get(element, b"")
        if len(value) != 2:
            raise PduRefused(f"a command without (0000,{element:04x})")
        return int.from_bytes(value, "little")

    def text(self, element: int) -> str:
        """A value of characters, ``""`` where there is none; what cannot be shown is a mark."""
        value = self.elements.get(element, b"")
        found = value.rstrip(b"\0 ").decode("ascii", "replace")
        return "".join(character if character.isprintable() else "?" for character in found)[:64]


def decode_command(data: bytes) -> Command:
    """Raises PduRefused: cut off, of another group, or without what its kind must have."""
    elements: dict[int, bytes] = {}
    position = 0
    while position < len(data):
        if len(data) - position < 8:
            raise PduRefused("a command set is cut off")
        group, element, length = struct.unpack_from("<HHI", data, position)
        position += 8
        if group or length > len(data) - position:
            raise PduRefused("a command set is malformed")
        elements[element] = data[position : position + length]
        position += length
    command = Command(elements)
    needed = [COMMAND_DATA_SET_TYPE]
    needed += [STATUS, MESSAGE_ID_RESPONDED_TO] if command.field & RESPONSE else [MESSAGE_ID]
    if command.field == COMMAND_FIELDS["N_EVENT_REPORT"]:
        needed.append(EVENT_TYPE_ID)
    for element in needed:
        command.number(element)
    return command
