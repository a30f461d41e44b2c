# SPDX-License-Identifier: Apache-2.0
"""A-ASSOCIATE-RQ written and A-ASSOCIATE-AC read (PS3.8 9.3.2 and 9.3.3), without a socket.

What a peer answers is counted and bounded before anything is made of it.
"""

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from archive.part10.meta import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION
from gateway.dimse.pdu import PduRefused, PduType

MAXIMUM_CONTEXTS = 128  # odd numbers of one byte, PS3.8 9.3.2.2

_APPLICATION_CONTEXT = b"1.2.840.10008.3.1.1.1"
_FIXED_BYTES = 68  # protocol version, both titles and reserved bytes
_ACCEPTED = 0
_MAXIMUM_ITEMS = 1024


@dataclass(frozen=True, slots=True)
class Proposal:
    """One presentation context as we propose it: the peer takes one of its syntaxes."""

    abstract_syntax: str
    transfer_syntaxes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Acceptance:
    """What a peer answered. ``contexts``: the transfer syntax by context id, accepted ones
    only; ``maximum_length`` of the PDUs that it receives, 0 for any; ``roles``: (SCU, SCP)
    by SOP class, where it named them."""

    contexts: Mapping[int, str]
    maximum_length: int
    roles: Mapping[str, tuple[bool, bool]]


def context_id(number: int) -> int:
    """The identifier of proposal number ``number``, counted from 0."""
    return 2 * number + 1


def encode_request(
    called_ae_title: str,
    calling_ae_title: str,
    proposals: Sequence[Proposal],
    *,
    maximum_length: int,
    roles: Mapping[str, tuple[bool, bool]],
) -> bytes:
    """The whole PDU. ``maximum_length``: of the PDUs that we receive."""
    if not 0 < len(proposals) <= MAXIMUM_CONTEXTS:
        raise ValueError(f"{len(proposals)} presentation contexts")
    body = bytearray(struct.pack(">HH", 1, 0))
    body += _title(called_ae_title) + _title(calling_ae_title) + bytes(32)
    body += _item(0x10, _APPLICATION_CONTEXT)
    for number, proposal in enumerate(proposals):
        context = bytearray((context_id(number), 0, 0, 0))
        context += _item(0x30, proposal.abstract_syntax.encode("ascii"))
        for syntax in proposal.transfer_syntaxes:
            context += _item(0x40, syntax.encode("ascii"))
        body += _item(0x20, bytes(context))
    user = bytearray(_item(0x51, struct.pack(">I", maximum_length)))
    user += _item(0x52, IMPLEMENTATION_CLASS_UID.encode("ascii"))
    for sop_class_uid, (scu, scp) in roles.items():
        uid = sop_class_uid.encode("ascii")
        user += _item(0x54, struct.pack(">H", len(uid)) + uid + bytes((scu, scp)))
    user += _item(0x55, IMPLEMENTATION_VERSION.encode("ascii"))
    body += _item(0x50, bytes(user))
    return struct.pack(">BxI", PduType.ASSOCIATE_RQ, len(body)) + bytes(body)


def decode_acceptance(payload: bytes | bytearray) -> Acceptance:
    """What follows the header of an A-ASSOCIATE-AC. Raises PduRefused."""
    if len(payload) < _FIXED_BYTES:
        raise PduRefused("the association answer is cut off")
    contexts: dict[int, str] = {}
    roles: dict[str, tuple[bool, bool]] = {}
    maximum_length = 0
    for kind, value in _items(memoryview(payload)[_FIXED_BYTES:]):
        if kind == 0x21:
            if len(value) < 4:
                raise PduRefused("a presentation context is cut off")
            if value[2] == _ACCEPTED:
                syntaxes = [_uid(item) for sort, item in _items(value[4:]) if sort == 0x40]
                if len(syntaxes) != 1:
                    raise PduRefused("an accepted context without one transfer syntax")
                contexts[value[0]] = syntaxes[0]
        elif kind == 0x50:
            for sort, item in _items(value):
                if sort == 0x51 and len(item) == 4:
                    (maximum_length,) = struct.unpack(">I", item)
                elif sort == 0x54 and len(item) >= 4:
                    (length,) = struct.unpack_from(">H", item)
                    if len(item) != length + 4:
                        raise PduRefused("a role selection is cut off")
                    roles[_uid(item[2 : 2 + length])] = (bool(item[-2]), bool(item[-1]))
    return Acceptance(contexts, maximum_length, roles)


def _item(kind: int, value: bytes) -> bytes:
    return struct.pack(">BxH", kind, len(value)) + value


def _title(ae_title: str) -> bytes:
    return ae_title.strip().encode("ascii")[:16].ljust(16)


def _uid(value: memoryview) -> str:
    return bytes(value).rstrip(b"\0 ").decode("ascii", "replace")


def _items(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    for _ in range(_MAXIMUM_ITEMS):
        if not data:
            return
        if len(data) < 4:
            raise PduRefused("an item header is cut off")
        kind, length = struct.unpack_from(">BxH", data)
        if len(data) < 4 + length:
            raise PduRefused("an item is longer than its PDU")
        yield kind, data[4 : 4 + length]
        data = data[4 + length :]
    if data:
        raise PduRefused("too many items in the association answer")
