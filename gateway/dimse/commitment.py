# SPDX-License-Identifier: Apache-2.0
"""Storage Commitment Push Model (PS3.4 Annex J): asked of us, and answers to what we asked.

A request is answered at once and becomes a job that reads every byte. The result goes out
on the association of the request where that is still open, on a later one of the same
peer, or on one of ours (``gateway.dimse.commitment_report``): whoever has the turn.
"""

import logging
import time
import uuid
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from pydicom.dataset import Dataset

from archive.commitment import MAX_REFERENCES
from archive.errors import (
    ArchiveError,
    BadQuery,
    Busy,
    NoSuchTransaction,
    NotAllowed,
    StorageFailed,
    StorageFull,
    TransactionInUse,
)
from archive.part10.meta import is_uid
from archive.values import Commitment
from gateway.dimse.identifiers import encode_data_set
from gateway.dimse.rights import Right
from gateway.dimse.services import (
    NOT_AUTHORIZED,
    PROCESSING_FAILURE,
    SUCCESS,
    Request,
    Service,
    UnreadableIdentifier,
)

if TYPE_CHECKING:
    from gateway.dimse.association import PeerAssociation

log = logging.getLogger(__name__)

SOP_CLASS = "1.2.840.10008.1.20.1"
WELL_KNOWN_INSTANCE = "1.2.840.10008.1.20.1.1"
REQUEST_COMMITMENT = 1  # Action Type ID, PS3.4 Table J.3-1
ALL_COMMITTED, SOME_FAILED = 1, 2  # Event Type ID, PS3.4 Table J.3-2

# Statuses of PS3.7 Annex C; the last is Failure Reason 0131H of PS3.3 C.14.1.1.
NO_SUCH_INSTANCE = 0x0112
NO_SUCH_EVENT_TYPE = 0x0113
INVALID_ARGUMENT = 0x0115
NO_SUCH_ACTION = 0x0123
RESOURCE_LIMITATION = 0x0213
DUPLICATE_TRANSACTION = 0x0131

N_ACTION_STATUSES = frozenset({
    SUCCESS, PROCESSING_FAILURE, NO_SUCH_INSTANCE, INVALID_ARGUMENT, NO_SUCH_ACTION, NOT_AUTHORIZED,
    DUPLICATE_TRANSACTION, RESOURCE_LIMITATION,
})  # fmt: skip
N_EVENT_REPORT_STATUSES = frozenset({
    SUCCESS, PROCESSING_FAILURE, NO_SUCH_EVENT_TYPE, INVALID_ARGUMENT, NOT_AUTHORIZED, RESOURCE_LIMITATION,
})  # fmt: skip

_TURN_S = 90.0  # a process that dies gives its turns back after this


def service() -> Service:
    scp = CommitmentScp()
    return Service(
        "Storage Commitment", frozenset({SOP_CLASS}), Right.COMMIT,
        {"N_ACTION": scp.on_n_action, "N_EVENT_REPORT": on_n_event_report},
        we_may_be_scu=True, idle=scp.tell, ended=scp.leave,
    )  # fmt: skip


# ---- as SCP: what others ask of us ----------------------------------------------------


class _Turns:
    """What one association is to tell; its name in the archive's list of turns."""

    def __init__(self) -> None:
        self.owner = f"association {uuid.uuid4().hex}"
        self.transactions: set[str] = set()
        self.renew_at = time.monotonic() + _TURN_S / 3


class CommitmentScp:
    """Takes requests, and tells results while peers stay."""

    def __init__(self) -> None:
        self._turns: WeakKeyDictionary[PeerAssociation, _Turns] = WeakKeyDictionary()

    def on_n_action(self, request: Request) -> None:
        """Take a request; the answer says only that (PS3.4 J.3.2)."""
        action = request.primitive
        if str(action.RequestedSOPInstanceUID) != WELL_KNOWN_INSTANCE:
            request.respond(NO_SUCH_INSTANCE)
            return
        if action.ActionTypeID != REQUEST_COMMITMENT:
            request.respond(NO_SUCH_ACTION)
            return
        turns = self._turns.setdefault(request.association, _Turns())
        try:
            asked = request.data_set()
            transaction, references = transaction_of(asked), references_of(asked)
            request.archive.request_commitment(
                transaction, references, again=True, principal=request.principal, scope=request.scope
            )
            turns.transactions.add(transaction)
            # The result is ours to tell while the peer stays; the outbox waits for that.
            request.archive.commitment_results().take(transaction, turns.owner, lease_s=_TURN_S)
        except (UnreadableIdentifier, BadQuery) as refusal:
            request.respond(INVALID_ARGUMENT, ErrorComment=str(refusal))
        except TransactionInUse as refusal:
            request.respond(DUPLICATE_TRANSACTION, ErrorComment=str(refusal))
        except (Busy, StorageFull, StorageFailed) as refusal:
            request.respond(RESOURCE_LIMITATION, ErrorComment=str(refusal))
        except NotAllowed as refusal:
            request.respond(NOT_AUTHORIZED, ErrorComment=str(refusal))
        else:
            request.respond(SUCCESS, ActionTypeID=REQUEST_COMMITMENT)

    def tell(self, association: "PeerAssociation") -> None:
        """Send the results that this peer waits for, those of earlier associations too."""
        role = association.requestor.role_selection.get(SOP_CLASS)
        if role is not None and not role.scu_role:
            return  # it came to answer us, and takes no report here
        results = association.archive.commitment_results()
        assert association.principal is not None
        turns = self._turns.setdefault(association, _Turns())
        for transaction in results.untold(association.principal.actor):
            if not association.is_open:
                return
            try:
                found = results.take(transaction, turns.owner, lease_s=_TURN_S)
            except NoSuchTransaction:
                continue
            if found is None:
                continue
            turns.transactions.add(transaction)
            if not _report(association, transaction, found):
                return  # the turn goes back when the association ends
            results.told(transaction)
            turns.transactions.discard(transaction)
        if turns.transactions and time.monotonic() >= turns.renew_at:
            turns.renew_at = time.monotonic() + _TURN_S / 3
            for transaction in turns.transactions:  # not read wholly yet: it stays ours to tell
                results.take(transaction, turns.owner, lease_s=_TURN_S)

    def leave(self, association: "PeerAssociation") -> None:
        """Give the turns back of what could not be told while the peer was there."""
        results = association.archive.commitment_results()
        turns = self._turns.pop(association, _Turns())
        for transaction in turns.transactions:
            try:
                results.leave(transaction, turns.owner)
            except ArchiveError as error:  # the lease ends by itself
                log.warning("the turn to tell of %s is kept: %s", transaction, error)


def _report(association: "PeerAssociation", transaction: str, found: Commitment) -> bool:
    """Whether the peer took the result."""
    context_id, context = next(
        (number, context)
        for number, context in association._accepted_cx.items()
        if str(context.abstract_syntax) == SOP_CLASS
    )
    event_type, information = result_of(transaction, found, association.acceptor.ae_title.strip())
    answer = association.ask(
        "N_EVENT_REPORT", context_id, [encode_data_set(information, str(context.transfer_syntax[0]))],
        AffectedSOPClassUID=SOP_CLASS, AffectedSOPInstanceUID=WELL_KNOWN_INSTANCE, EventTypeID=event_type,
    )  # fmt: skip
    if answer is None or answer.Status != SUCCESS:
        log.warning("%s did not take the result of %s", association.peer_address, transaction)
        return False
    return True


# ---- as SCU: what we asked of others, answered on an association of theirs ---------------


def on_n_event_report(request: Request) -> None:
    """A peer answers what we asked of it (PS3.4 J.3.3)."""
    event = request.primitive
    if event.EventTypeID not in (ALL_COMMITTED, SOME_FAILED):
        request.respond(NO_SUCH_EVENT_TYPE)
        return
    try:
        told = request.data_set()
        transaction, committed, failed = answer_of(told)
        request.archive.asked_commitments().answer(
            transaction, failed, committed, principal=request.principal
        )
    except (UnreadableIdentifier, BadQuery) as refusal:
        request.respond(INVALID_ARGUMENT, ErrorComment=str(refusal))
    except NoSuchTransaction as refusal:
        request.respond(INVALID_ARGUMENT, ErrorComment=str(refusal))
    except (Busy, StorageFull, StorageFailed) as refusal:
        request.respond(RESOURCE_LIMITATION, ErrorComment=str(refusal))
    else:
        request.respond(SUCCESS, EventTypeID=int(event.EventTypeID))


# ---- data sets ---------------------------------------------------------------------------


def transaction_of(data_set: Dataset) -> str:
    """The Transaction UID. Raises BadQuery."""
    found = str(data_set.get("TransactionUID") or "")
    if not is_uid(found):
        raise BadQuery("the Transaction UID is missing or no UID")
    return found


def references_of(data_set: Dataset, keyword: str = "ReferencedSOPSequence") -> list[tuple[str, str]]:
    """SOP Class and SOP Instance UIDs of a request or an answer. Raises BadQuery."""
    items = data_set.get(keyword) or []
    if len(items) > MAX_REFERENCES:
        raise BadQuery(f"more than {MAX_REFERENCES} instances")
    return [
        (str(item.get("ReferencedSOPClassUID") or ""), str(item.get("ReferencedSOPInstanceUID") or ""))
        for item in items
    ]


def request_of(transaction: str, references: list[tuple[str, str]]) -> Dataset:
    """Action Information of a request (PS3.4 Table J.3-1)."""
    data_set = Dataset()
    data_set.TransactionUID = transaction
    data_set.ReferencedSOPSequence = [_reference(*pair) for pair in references]
    return data_set


def result_of(transaction: str, found: Commitment, ae_title: str) -> tuple[int, Dataset]:
    """Event Type ID and Event Information of a result (PS3.4 Table J.3-2)."""
    data_set = Dataset()
    data_set.TransactionUID = transaction
    data_set.RetrieveAETitle = ae_title
    if found.committed:
        data_set.ReferencedSOPSequence = [_reference(*pair) for pair in found.committed]
    if found.failed:
        data_set.FailedSOPSequence = [_reference(*one) for one in found.failed]
    return SOME_FAILED if found.failed else ALL_COMMITTED, data_set


def answer_of(data_set: Dataset) -> tuple[str, list[str], list[tuple[str, int]]]:
    """Transaction, what is committed, and what is not with its Failure Reason. Raises
    BadQuery."""
    committed = [sop for _, sop in references_of(data_set)]
    failed = [
        (sop, int(item.get("FailureReason") or 0x0110))
        for (_, sop), item in zip(
            references_of(data_set, "FailedSOPSequence"), data_set.get("FailedSOPSequence") or [], strict=True
        )
    ]
    return transaction_of(data_set), committed, failed


def _reference(sop_class: str, sop: str, reason: int | None = None) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = sop_class
    item.ReferencedSOPInstanceUID = sop
    if reason is not None:
        item.FailureReason = reason
    return item
