# SPDX-License-Identifier: Apache-2.0
"""An association that we request: what we send to other nodes (PS3.7, PS3.8).

Blocking, without threads; one request at a time. Data sets are streamed in PDUs as long
as the peer takes them. Everything that can go wrong is a ``DeliveryError``.
"""

import contextlib
import io
import struct
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset

from archive.part10.syntaxes import IMPLICIT
from gateway.delivery import DeliveryError
from gateway.dimse.association_items import (
    MAXIMUM_CONTEXTS,
    Proposal,
    context_id,
    decode_acceptance,
    encode_request,
)
from gateway.dimse.commands import (
    AFFECTED_SOP_CLASS_UID,
    AFFECTED_SOP_INSTANCE_UID,
    ERROR_COMMENT,
    EVENT_TYPE_ID,
    MESSAGE_ID,
    RESPONSE,
    Command,
    decode_command,
)
from gateway.dimse.dial import (
    MAXIMUM_LENGTH,
    Aborted,
    AssociationRejected,
    Line,
    PeerMisbehaved,
    PeerSilent,
    PeerUnreachable,
    aborted,
)
from gateway.dimse.identifiers import encode_data_set
from gateway.dimse.messages_out import (
    COMMAND_FIELDS,
    FieldValue,
    Piece,
    message_pdus,
    request_command,
    response_command,
)
from gateway.dimse.pdu import PduRefused, PduType, data_values
from gateway.dimse.peers import Destination

__all__ = [
    "MAXIMUM_CONTEXTS", "Aborted", "AssociationRejected", "Event", "PeerMisbehaved", "PeerSilent",
    "PeerUnreachable", "Proposal", "Requestor",
]  # fmt: skip

VERIFICATION = "1.2.840.10008.1.1"

_MESSAGE_LIMIT_BYTES = 16 << 20  # of what a peer answers: commands and attribute lists
_MEDIUM = 0  # priority, PS3.7 9.3.1
_EVENTS = 16
_BATCH_BYTES = 512 * 1024
_BATCH_BUFFERS = 500


@dataclass(frozen=True, slots=True)
class Event:
    """An N-EVENT-REPORT of the peer (PS3.7 10.1.1); it was answered with success."""

    event_type_id: int
    sop_class_uid: str
    sop_instance_uid: str
    data_set: Dataset | None


class Requestor:
    """One association. A context manager: released at the end, aborted by an error.

    ``accepted``: context id by (abstract syntax, transfer syntax). ``roles``: (SCU, SCP)
    that the peer granted us by SOP class; what it did not answer is (True, False).
    """

    def __init__(self, line: Line, destination: Destination, response_timeout_s: float) -> None:
        self.accepted: dict[tuple[str, str], int] = {}
        self.roles: dict[str, tuple[bool, bool]] = {}
        self._line = line
        self._name = destination.ae_title
        self._timeout_s = response_timeout_s
        self._syntaxes: dict[int, str] = {}
        self._maximum_length = 0
        self._message_id = 0
        self._events: deque[Event] = deque()
        self._open = True

    @classmethod
    def connect(
        cls,
        destination: Destination,
        contexts: Sequence[Proposal],
        *,
        calling_ae_title: str,
        roles: Mapping[str, tuple[bool, bool]] | None = None,
        timeout_s: float = 30.0,
        response_timeout_s: float = 300.0,
    ) -> Self:
        """Associate. ``timeout_s`` is for connection, negotiation and each step of writing,
        ``response_timeout_s`` for answers: a receiver may take its time to store a level.

        At most MAXIMUM_CONTEXTS contexts (ValueError). Raises AssociationRejected,
        PeerUnreachable, PeerSilent, PeerMisbehaved, Aborted.
        """
        asked = dict(roles or {})
        request = encode_request(
            destination.ae_title,
            calling_ae_title,
            contexts,
            maximum_length=MAXIMUM_LENGTH,
            roles=asked,
        )
        line = Line(destination, timeout_s)
        made = cls(line, destination, response_timeout_s)
        try:
            line.write([request])
            made._negotiated(contexts, asked, time.monotonic() + timeout_s)
        except BaseException:  # also when interrupted: no connection stays behind
            line.close()
            raise
        return made

    def _negotiated(
        self, contexts: Sequence[Proposal], asked: Mapping[str, tuple[bool, bool]], deadline: float
    ) -> None:
        kind, payload = self._line.read(deadline)
        if kind is PduType.ASSOCIATE_RJ:
            result, source, reason = struct.unpack_from(">BBB", bytes(payload).ljust(4, b"\0"), 1)
            raise AssociationRejected(self._name, result, source, reason)
        if kind is PduType.ABORT:
            raise aborted(self._name, payload)
        if kind is not PduType.ASSOCIATE_AC:
            raise PeerMisbehaved(f"{self._name} answers an association request with {kind.name}")
        try:
            answer = decode_acceptance(payload)
        except PduRefused as refusal:
            raise PeerMisbehaved(f"{self._name}: {refusal}") from None
        for number, proposal in enumerate(contexts):
            chosen = answer.contexts.get(context_id(number))
            if chosen is not None and chosen in proposal.transfer_syntaxes:
                self._syntaxes[context_id(number)] = chosen
                self.accepted.setdefault((proposal.abstract_syntax, chosen), context_id(number))
        self.roles = {uid: answer.roles.get(uid, (True, False)) for uid in asked}
        self._maximum_length = answer.maximum_length

    # ---- services --------------------------------------------------------------------

    def context_of(self, abstract_syntax: str) -> int:
        """Any accepted context of an abstract syntax. Raises DeliveryError (no retry)."""
        for (abstract, _), number in self.accepted.items():
            if abstract == abstract_syntax:
                return number
        raise DeliveryError(f"{self._name} does not offer {abstract_syntax}", retry=False)

    def c_echo(self) -> int:
        """The status of a C-ECHO (PS3.7 9.3.5)."""
        number = self.context_of(VERIFICATION)
        return self._ask("C_ECHO", number, {"AffectedSOPClassUID": VERIFICATION})[0].status

    def c_store(
        self,
        context_id: int,
        sop_class_uid: str,
        sop_instance_uid: str,
        chunks: Iterable[Piece],
        *,
        move_originator: tuple[str, int] | None = None,
    ) -> tuple[int, str]:
        """Send one instance; ``chunks`` is its data set in the context's transfer syntax.

        Returns status and error comment (PS3.7 9.3.1). ``move_originator``: AE title and
        message id of the C-MOVE that this belongs to. Whatever is raised, also by
        ``chunks``: the association is of no use any more, and the instance must be sent again.
        """
        command: dict[str, FieldValue] = {
            "AffectedSOPClassUID": sop_class_uid,
            "Priority": _MEDIUM,
            "AffectedSOPInstanceUID": sop_instance_uid,
        }
        if move_originator is not None:
            command["MoveOriginatorApplicationEntityTitle"] = move_originator[0]
            command["MoveOriginatorMessageID"] = move_originator[1]
        answer, _ = self._ask("C_STORE", context_id, command, chunks)
        return answer.status, answer.text(ERROR_COMMENT)

    def n_action(
        self,
        context_id: int,
        sop_class_uid: str,
        sop_instance_uid: str,
        action_type_id: int,
        data_set: Dataset | None = None,
    ) -> tuple[int, Dataset | None]:
        """PS3.7 10.1.4."""
        command: dict[str, FieldValue] = {
            "RequestedSOPClassUID": sop_class_uid,
            "RequestedSOPInstanceUID": sop_instance_uid,
            "ActionTypeID": action_type_id,
        }
        return self._exchange("N_ACTION", context_id, command, data_set)

    def n_event_report(
        self,
        context_id: int,
        sop_class_uid: str,
        sop_instance_uid: str,
        event_type_id: int,
        data_set: Dataset | None = None,
    ) -> tuple[int, Dataset | None]:
        """PS3.7 10.1.1; the context needs the SCP role (see ``roles``)."""
        command: dict[str, FieldValue] = {
            "AffectedSOPClassUID": sop_class_uid,
            "AffectedSOPInstanceUID": sop_instance_uid,
            "EventTypeID": event_type_id,
        }
        return self._exchange("N_EVENT_REPORT", context_id, command, data_set)

    def n_create(
        self, context_id: int, sop_class_uid: str, sop_instance_uid: str, data_set: Dataset
    ) -> tuple[int, Dataset | None]:
        """PS3.7 10.1.5. Without ``sop_instance_uid`` the peer makes one."""
        command: dict[str, FieldValue] = {
            "AffectedSOPClassUID": sop_class_uid,
        }
        if sop_instance_uid:
            command["AffectedSOPInstanceUID"] = sop_instance_uid
        return self._exchange("N_CREATE", context_id, command, data_set)

    def n_set(
        self, context_id: int, sop_class_uid: str, sop_instance_uid: str, data_set: Dataset
    ) -> tuple[int, Dataset | None]:
        """PS3.7 10.1.3."""
        command: dict[str, FieldValue] = {
            "RequestedSOPClassUID": sop_class_uid,
            "RequestedSOPInstanceUID": sop_instance_uid,
        }
        return self._exchange("N_SET", context_id, command, data_set)

    def await_event(self, timeout_s: float) -> Event | None:
        """The next N-EVENT-REPORT that the peer sends on this association, answered with
        success; None when none comes in time. Raises what ends the association."""
        deadline = time.monotonic() + timeout_s
        while not self._events:
            if time.monotonic() >= deadline:
                return None
            try:
                kind, payload = self._line.read(deadline)
            except PeerSilent:
                return None
            self._take_unasked(*self._message(kind, payload, deadline + self._timeout_s))
        return self._events.popleft()

    # ---- messages --------------------------------------------------------------------

    def _exchange(
        self, name: str, number: int, command: Mapping[str, FieldValue], data_set: Dataset | None
    ) -> tuple[int, Dataset | None]:
        chunks = None
        if data_set is not None:
            chunks = [encode_data_set(data_set, self._syntaxes[number])]
        answer, data = self._ask(name, number, command, chunks)
        return answer.status, self._decoded(number, data)

    def _decoded(self, number: int, data: bytes) -> Dataset | None:
        if not data:
            return None
        try:
            return read_dataset(
                io.BytesIO(data), self._syntaxes[number] == IMPLICIT, True, bytelength=len(data)
            )
        except Exception as error:  # pydicom raises anything for bytes that are no data set
            raise PeerMisbehaved(f"{self._name} sends an unreadable data set") from error

    def _ask(
        self,
        name: str,
        number: int,
        command: Mapping[str, FieldValue],
        chunks: Iterable[Piece] | None = None,
    ) -> tuple[Command, bytes]:
        if number not in self._syntaxes:
            raise ValueError(f"presentation context {number} was not accepted")
        self._message_id = self._message_id % 0xFFFF + 1
        self._send(number, request_command(name, self._message_id, chunks is not None, **command), chunks)
        deadline = time.monotonic() + self._timeout_s
        while True:
            kind, payload = self._line.read(deadline)
            answer, context, data = self._message(kind, payload, deadline)
            if answer.field != COMMAND_FIELDS[name] | RESPONSE:
                self._take_unasked(answer, context, data)
            elif answer.responded_to != self._message_id:
                raise self._misbehaved("answers another request")
            else:
                return answer, data

    def _send(self, number: int, command: bytes, chunks: Iterable[Piece] | None) -> None:
        """Small PDUs leave together, and large ones as they are made."""
        batch: list[Piece] = []
        size = 0
        for pieces in message_pdus(number, command, chunks, self._maximum_length):
            batch += pieces
            size += sum(map(len, pieces))
            if size >= _BATCH_BYTES or len(batch) >= _BATCH_BUFFERS:
                self._line.write(batch)
                batch, size = [], 0
        if batch:
            self._line.write(batch)

    def _message(self, kind: PduType, payload: bytearray, deadline: float) -> tuple[Command, int, bytes]:
        """The message that begins with this PDU: command, context id, data set."""
        encoded, data = bytearray(), bytearray()
        command: Command | None = None
        while True:
            if kind is PduType.ABORT:
                self._open = False
                raise aborted(self._name, payload)
            if kind is PduType.RELEASE_RQ:
                self._open = False
                with contextlib.suppress(DeliveryError):
                    self._line.write([struct.pack(">BxII", PduType.RELEASE_RP, 4, 0)])
                raise Aborted(f"{self._name} released the association amid a request")
            if kind is not PduType.DATA:
                raise self._misbehaved(f"sends {kind.name} amid an association")
            try:
                for number, control, fragment in data_values(payload):
                    if number not in self._syntaxes:
                        raise PduRefused("a presentation context that was not accepted")
                    (encoded if control & 1 else data).extend(fragment)
                    if len(encoded) + len(data) > _MESSAGE_LIMIT_BYTES:
                        raise PduRefused("the message is too long")
                    if control & 3 == 3:
                        command = decode_command(bytes(encoded))
                    if command is not None and control & 2:
                        if control & 1 and command.has_data_set:
                            continue
                        return command, number, bytes(data)
            except PduRefused as refusal:
                raise self._misbehaved(str(refusal)) from None
            kind, payload = self._line.read(deadline)

    def _take_unasked(self, command: Command, number: int, data: bytes) -> None:
        """A message that is no answer: an event is kept, anything else is out of order."""
        if command.field != COMMAND_FIELDS["N_EVENT_REPORT"] or len(self._events) >= _EVENTS:
            raise self._misbehaved(f"sends a command {command.field:#06x} that nobody asked for")
        event = Event(
            command.number(EVENT_TYPE_ID),
            command.text(AFFECTED_SOP_CLASS_UID),
            command.text(AFFECTED_SOP_INSTANCE_UID),
            self._decoded(number, data),
        )
        self._send(
            number,
            response_command(
                "N_EVENT_REPORT",
                command.number(MESSAGE_ID),
                0,
                False,
                AffectedSOPClassUID=event.sop_class_uid,
                AffectedSOPInstanceUID=event.sop_instance_uid,
                EventTypeID=event.event_type_id,
            ),
            None,
        )
        self._events.append(event)

    def _misbehaved(self, what: str) -> PeerMisbehaved:
        return PeerMisbehaved(f"{self._name} {what}")

    # ---- the end ---------------------------------------------------------------------

    def release(self) -> None:
        """End the association in order; what was confirmed stays confirmed whatever the
        peer does now, so nothing is raised."""
        if not self._open:
            return
        self._open = False
        with contextlib.suppress(DeliveryError):
            self._line.write([struct.pack(">BxII", PduType.RELEASE_RQ, 4, 0)])
            deadline = time.monotonic() + 5.0
            while self._line.read(deadline)[0] not in (PduType.RELEASE_RP, PduType.ABORT):
                pass
        self._line.close()

    def abort(self) -> None:
        """End the association at once (A-ABORT, source service user)."""
        if self._open:
            self._open = False
            with contextlib.suppress(DeliveryError):
                self._line.write([struct.pack(">BxII", PduType.ABORT, 4, 0)])
        self._line.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.release()
        else:
            self.abort()
