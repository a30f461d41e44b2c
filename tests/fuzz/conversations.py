# SPDX-License-Identifier: Apache-2.0
"""Valid conversations of DICOM peers, and what chance makes of them.

Every service is talked to; a damaged conversation is a list of PDUs, so that one that
broke the listener can be kept as a file (:func:`to_bytes`) and said again.
"""

import random
import struct
from collections.abc import Sequence

from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from gateway.dimse.identifiers import encode_data_set
from gateway.dimse.messages_out import message_pdus, request_command
from tests.gateway.dimse.test_pdu import FIXED, header, item
from tests.support.instances import WSI, make_instance

EXPLICIT = "1.2.840.10008.1.2.1"
VERIFICATION = "1.2.840.10008.1.1"
STUDY_FIND = "1.2.840.10008.5.1.4.1.2.2.1"
STUDY_MOVE = "1.2.840.10008.5.1.4.1.2.2.2"
STUDY_GET = "1.2.840.10008.5.1.4.1.2.2.3"
WORKLIST = "1.2.840.10008.5.1.4.31"
MPPS = "1.2.840.10008.3.1.2.3.3"
COMMITMENT = "1.2.840.10008.1.20.1"
CLASSES = (VERIFICATION, WSI, STUDY_FIND, STUDY_MOVE, STUDY_GET, WORKLIST, MPPS, COMMITMENT)
_LENGTH = 16384


def request_pdu(classes: Sequence[str] = CLASSES) -> bytes:
    """An A-ASSOCIATE-RQ with a context for each class, numbered 1, 3, 5 …"""
    contexts = b"".join(
        item(0x20, bytes([2 * n + 1, 0, 0, 0]) + item(0x30, uid.encode()) + item(0x40, EXPLICIT.encode()))
        for n, uid in enumerate(classes)
    )
    role = item(0x54, struct.pack(">H", len(WSI)) + WSI.encode() + b"\x01\x01")
    user = item(0x50, item(0x51, struct.pack(">I", _LENGTH)) + item(0x52, b"1.2.3.4") + role)
    body = FIXED + item(0x10, b"1.2.840.10008.3.1.1.1") + contexts + user
    return header(1, len(body)) + body


def message(uid: str, name: str, data_set: bytes | None, **fields: int | str) -> list[bytes]:
    """The PDUs of one request."""
    command = request_command(name, 7, data_set is not None, **fields)
    pieces = None if data_set is None else [data_set]
    return [b"".join(pdu) for pdu in message_pdus(2 * CLASSES.index(uid) + 1, command, pieces, _LENGTH)]


def _identifier(**values: str) -> bytes:
    ds = Dataset()
    for keyword, value in values.items():
        setattr(ds, keyword, value)
    return encode_data_set(ds, EXPLICIT)


def conversations() -> dict[str, list[bytes]]:
    """By name; each associates first and releases last."""
    sop = generate_uid()
    part10 = make_instance(frames=2, native=True, sop=sop)
    data = part10[144 + int.from_bytes(part10[140:144], "little") :]
    step = Dataset()
    step.ScheduledProcedureStepSequence = [Dataset()]
    step.ScheduledProcedureStepSequence[0].Modality = "SM"
    step.PatientName = ""
    performed = Dataset()
    performed.PerformedProcedureStepStatus = "IN PROGRESS"
    performed.PerformedProcedureStepID = "1"
    action = Dataset()
    action.TransactionUID = generate_uid()
    reference = Dataset()
    reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = WSI, sop
    action.ReferencedSOPSequence = [reference]
    query = {"QueryRetrieveLevel": "STUDY", "PatientName": "T*", "StudyInstanceUID": ""}
    one = {"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": generate_uid()}
    bodies = {
        "echo": message(VERIFICATION, "C_ECHO", None, AffectedSOPClassUID=VERIFICATION),
        "store": message(
            WSI, "C_STORE", data, AffectedSOPClassUID=WSI, AffectedSOPInstanceUID=sop, Priority=0
        ),
        "find": message(
            STUDY_FIND, "C_FIND", _identifier(**query), AffectedSOPClassUID=STUDY_FIND, Priority=0
        ),
        "move": message(
            STUDY_MOVE, "C_MOVE", _identifier(**one), AffectedSOPClassUID=STUDY_MOVE, Priority=0,
            MoveDestination="NOWHERE",
        ),
        "get": message(STUDY_GET, "C_GET", _identifier(**one), AffectedSOPClassUID=STUDY_GET, Priority=0),
        "worklist": message(
            WORKLIST, "C_FIND", encode_data_set(step, EXPLICIT), AffectedSOPClassUID=WORKLIST, Priority=0
        ),
        "performed step": message(
            MPPS, "N_CREATE", encode_data_set(performed, EXPLICIT), AffectedSOPClassUID=MPPS,
            AffectedSOPInstanceUID=generate_uid(),
        ),
        "commitment": message(
            COMMITMENT, "N_ACTION", encode_data_set(action, EXPLICIT), RequestedSOPClassUID=COMMITMENT,
            RequestedSOPInstanceUID="1.2.840.10008.1.20.1.1", ActionTypeID=1,
        ),
    }  # fmt: skip
    return {name: [request_pdu(), *pdus, header(5, 4) + bytes(4)] for name, pdus in bodies.items()}


def damaged(pdus: Sequence[bytes], chance: random.Random) -> list[bytes]:
    """A few bytes changed, PDUs swapped, doubled, dropped, cut, or put in from elsewhere."""
    changed = list(pdus)
    for _ in range(chance.randrange(3)):
        place, other = chance.randrange(len(changed)), chance.randrange(len(changed))
        match chance.randrange(4):
            case 0:
                changed[place], changed[other] = changed[other], changed[place]
            case 1 if len(changed) > 1:
                del changed[place]
            case 2:
                changed.insert(place, changed[other])
            case _:
                changed[place] = changed[place][: chance.randrange(1, len(changed[place]) + 1)]
    for _ in range(chance.randrange(5)):
        place = chance.randrange(len(changed))
        pdu = bytearray(changed[place])
        # Mostly where the structure is, not in pixels.
        at = chance.randrange(min(len(pdu), 400) if chance.random() < 0.8 else len(pdu))
        match chance.randrange(3):
            case 0:
                pdu[at] = chance.choice([0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)])
            case 1:
                pdu[at : at + 4] = chance.choice([b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff"])
            case _:
                del pdu[at : at + chance.randrange(1, 9)]
        changed[place] = bytes(pdu) or b"\0"
    return changed


def to_bytes(pdus: Sequence[bytes]) -> bytes:
    """PDUs as they are kept in a file: each with its length before it (u32, big-endian)."""
    return b"".join(struct.pack(">I", len(pdu)) + pdu for pdu in pdus)


def from_bytes(data: bytes) -> list[bytes]:
    """What :func:`to_bytes` made."""
    pdus, at = [], 0
    while at < len(data):
        (length,) = struct.unpack_from(">I", data, at)
        pdus.append(data[at + 4 : at + 4 + length])
        at += 4 + length
    return pdus
