# SPDX-License-Identifier: Apache-2.0
"""Which presentation contexts we accept (PS3.8 Section 7.1.1.13, PS3.4 Annex B).

Verification, and every storage SOP class there is, private and future ones included,
in every transfer syntax whose pixel data is in the data set. Not accepted are the JPIP
syntaxes (the pixels stay on the sender's server), real-time video (PS3.22) and the
retired MIME, XML and Papyrus encodings.
"""

from collections.abc import Iterable, Sequence, Set

from pydicom._uid_dict import UID_dictionary
from pydicom.uid import UID
from pynetdicom import ALL_TRANSFER_SYNTAXES
from pynetdicom.presentation import PresentationContext
from pynetdicom.sop_class import _STORAGE_CLASSES as STORAGE_CLASSES

from archive.non_patient_classes import CATEGORY_OF
from gateway.dimse.rights import Right
from gateway.dimse.services import Service, find_service

EXPLICIT_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"

# Encodings that lose VRs, must be re-encoded, or must be inflated: taken, but not preferred.
_SECOND_CHOICE = frozenset({"1.2.840.10008.1.2", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99"})
_COMPOSITE_OBJECTS = "1.2.840.10008.5.1.4.1.1."
_NOT_STORED = frozenset(
    {
        "1.2.840.10008.1.2.4.94",
        "1.2.840.10008.1.2.4.95",
        "1.2.840.10008.1.2.4.204",
        "1.2.840.10008.1.2.4.205",
        "1.2.840.10008.1.2.6.1",
        "1.2.840.10008.1.2.6.2",
        "1.2.840.10008.1.2.7.1",
        "1.2.840.10008.1.2.7.2",
        "1.2.840.10008.1.2.7.3",
        "1.2.840.10008.1.20",
    }
)
TRANSFER_SYNTAXES = (
    frozenset(ALL_TRANSFER_SYNTAXES)
    | {uid for uid, (_, kind, *_) in UID_dictionary.items() if kind == "Transfer Syntax"}
) - _NOT_STORED

# What messages without images are encoded in.
UNCOMPRESSED = frozenset({"1.2.840.10008.1.2", EXPLICIT_LITTLE_ENDIAN, "1.2.840.10008.1.2.2"})

ACCEPTED = 0x00
USER_REJECTION = 0x01
ABSTRACT_SYNTAX_NOT_SUPPORTED = 0x03
TRANSFER_SYNTAXES_NOT_SUPPORTED = 0x04


def is_storage(sop_class_uid: str) -> bool:
    """Whether a C-STORE of this SOP class is taken: all that is storage, private or
    newer than the tables of this installation."""
    uid = UID(sop_class_uid)
    return bool(
        uid.is_private
        or uid in STORAGE_CLASSES.values()
        or uid in CATEGORY_OF
        or uid not in UID_dictionary
        # Retired ones, such as Ultrasound Image Storage of 1993.
        or (uid.startswith(_COMPOSITE_OBJECTS) and "Storage" in uid.keyword)
    )


def choose_transfer_syntax(proposed: Iterable[str], among: frozenset[str] = TRANSFER_SYNTAXES) -> str | None:
    """The first proposed that can be stored: the sender's own order is its preference,
    and taking a lossy one that it put behind would make it compress. Only where it
    begins with an encoding worse than Explicit VR Little Endian is that one preferred.
    """
    usable = [uid for uid in proposed if uid in among]
    if not usable:
        return None
    if usable[0] in _SECOND_CHOICE and EXPLICIT_LITTLE_ENDIAN in usable:
        return EXPLICIT_LITTLE_ENDIAN
    return usable[0]


def negotiate(
    proposed: Iterable[PresentationContext],
    services: Sequence[Service],
    rights: Set[Right],
    peer_is_scp_of: Set[str] = frozenset(),
) -> list[PresentationContext]:
    """One answer for each proposed context, in the order of their identifiers: refused by
    the user where the peer lacks the right (PS3.8 Table 9-18). ``peer_is_scp_of``: SOP
    classes that a peer wants to be sent; who may get needs no right to store for them."""
    answers = []
    for context in proposed:
        answer = PresentationContext()
        answer.context_id = context.context_id
        answer.abstract_syntax = context.abstract_syntax
        # The standard wants one transfer syntax in a refusal, too; its value is not tested.
        answer.transfer_syntax = [context.transfer_syntax[0]] if context.transfer_syntax else []
        service = find_service(services, str(context.abstract_syntax))
        if service is None:
            answer.result = ABSTRACT_SYNTAX_NOT_SUPPORTED
        elif service.right not in rights and not (
            service.we_may_be_scu and Right.GET in rights and str(context.abstract_syntax) in peer_is_scp_of
        ):
            answer.result = USER_REJECTION
        else:
            chosen = choose_transfer_syntax(
                (str(uid) for uid in context.transfer_syntax), service.transfer_syntaxes or UNCOMPRESSED
            )
            if chosen is None:
                answer.result = TRANSFER_SYNTAXES_NOT_SUPPORTED
            else:
                answer.transfer_syntax = [UID(chosen)]
                answer.result = ACCEPTED
                answer._as_scp = True
                answer._as_scu = False
        answers.append(answer)
    return sorted(answers, key=lambda answer: answer.context_id or 0)
