# SPDX-License-Identifier: Apache-2.0
"""One association of a peer with us: negotiation, messages, data sets to the spool."""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Any

from pynetdicom import evt
from pynetdicom._globals import APPLICATION_CONTEXT_NAME
from pynetdicom.acse import ACSE
from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_messages import C_STORE_RQ, DIMSEMessage
from pynetdicom.dimse_primitives import C_CANCEL, C_STORE, DimseServiceType
from pynetdicom.pdu_primitives import (
    A_RELEASE,
    P_DATA,
    SCP_SCU_RoleSelectionNegotiation,
    SOPClassExtendedNegotiation,
)

from archive.access import Principal
from archive.errors import Reason
from gateway.dimse.admission import Connection
from gateway.dimse.messages_out import FieldValue, Piece, message_pdus, request_command
from gateway.dimse.negotiation import ACCEPTED, negotiate
from gateway.dimse.pdu import PduRefused
from gateway.dimse.peers import NotRecognized
from gateway.dimse.rights import Right
from gateway.dimse.services import MISTYPED_ARGUMENT, Request, Service, find_service, serve
from gateway.dimse.store import Reception
from gateway.dimse.upper_layer import DataTransfer, UpperLayer
from gateway.tls import Secured

if TYPE_CHECKING:
    from archive.service import Archive
    from gateway.dimse.server import DimseServer

log = logging.getLogger(__name__)

_COMMAND_LIMIT_BYTES = 64 * 1024
_IDENTIFIER_LIMIT_BYTES = 1024 * 1024  # data sets that are not stored: queries, requests
_CANCELS = 10
_TIMER_CHECK_S = 0.5

# (result, source, reason) of an A-ASSOCIATE-RJ, PS3.8 Table 9-21.
Rejection = tuple[int, int, int]
APPLICATION_CONTEXT_NOT_SUPPORTED: Rejection = (1, 1, 2)
CALLING_AE_TITLE_NOT_RECOGNIZED: Rejection = (1, 1, 3)
CALLED_AE_TITLE_NOT_RECOGNIZED: Rejection = (1, 1, 7)
LOCAL_LIMIT_EXCEEDED: Rejection = (2, 3, 2)
_WORDS = {
    APPLICATION_CONTEXT_NOT_SUPPORTED: "application context not supported",
    CALLED_AE_TITLE_NOT_RECOGNIZED: "called AE title not recognized",
    LOCAL_LIMIT_EXCEEDED: "local limit exceeded",
}


class Negotiator(ACSE):  # type: ignore[misc]
    """Decides on an association request (PS3.8 7.1)."""

    def _negotiate_as_acceptor(self) -> None:
        association: PeerAssociation = self.assoc
        request = association.requestor.primitive
        association.requestor.ae_title = request.calling_ae_title
        rejection = association.why_rejected()
        if rejection is not None:
            log.warning(
                "association of %s from %s rejected: result %d, source %d, reason %d %s",
                request.calling_ae_title,
                association.peer_address,
                *rejection,
                association.why_unknown,
            )
            # Audited before the peer knows.
            association._server.refusals.audit(
                request.calling_ae_title,
                association.peer_address,
                f"association rejected: {association.why_unknown or _WORDS[rejection]}",
            )
            self.send_reject(*rejection)
            association.kill()
            return
        assert association.rights is not None
        answers = negotiate(
            request.presentation_context_definition_list,
            association.services,
            association.rights,
            {str(uid) for uid, role in self.requestor.role_selection.items() if role.scp_role},
        )
        accepted = [context for context in answers if context.result == ACCEPTED]
        association._accepted_cx = {context.context_id: context for context in accepted}
        association._rejected_cx = [context for context in answers if context.result != ACCEPTED]
        self._answer_roles({str(context.abstract_syntax) for context in accepted})
        self._answer_extended({str(context.abstract_syntax) for context in accepted})
        self.send_accept()
        association.is_established = True
        evt.trigger(association, evt.EVT_ESTABLISHED, {})

    def _answer_roles(self, accepted: set[str]) -> None:
        """The peer's SCU role is granted; its SCP role where we ask for something then:
        to store what a C-GET wants, to report a commitment (PS3.7 D.3.3.4)."""
        association: PeerAssociation = self.assoc
        for uid, asked in self.requestor.role_selection.items():
            if str(uid) in accepted:
                service = find_service(association.services, str(uid))
                role = SCP_SCU_RoleSelectionNegotiation()
                role.sop_class_uid = uid
                role.scu_role = bool(asked.scu_role)
                role.scp_role = bool(asked.scp_role) and service is not None and service.we_may_be_scu
                if role.scp_role:
                    association.peer_is_scp_of.add(str(uid))
                self.acceptor.add_negotiation_item(role)

    def _answer_extended(self, accepted: set[str]) -> None:
        association: PeerAssociation = self.assoc
        for uid, asked in self.requestor.sop_class_extended.items():
            service = find_service(association.services, str(uid)) if str(uid) in accepted else None
            if service is not None and service.extended is not None:
                item = SOPClassExtendedNegotiation()
                item.sop_class_uid = uid
                item.service_class_application_information = service.extended(bytes(asked))
                association.agreed[str(uid)] = item.service_class_application_information
                self.acceptor.add_negotiation_item(item)


class Messages(DIMSEServiceProvider):  # type: ignore[misc]
    """Puts messages together (PS3.7 6.3). The data set of a C-STORE goes to the spool
    fragment by fragment, as it comes; it is never in memory."""

    message: DIMSEMessage | None

    def __init__(self, assoc: "PeerAssociation", open_reception: Callable[..., Reception]) -> None:
        super().__init__(assoc)
        self._open_reception = open_reception
        self._reception: Reception | None = None
        self._unserved: list[Reception] = []
        self._lock = threading.Lock()
        self._served = threading.Event()

    def receive_primitive(self, primitive: DataTransfer) -> None:
        """Take the values of one data PDU. Called by the upper layer's thread only."""
        try:
            for context_id, control, fragment in primitive.values:
                self._take(context_id, control, fragment)
        except PduRefused as refusal:
            self.dul._refuse(str(refusal))
        except Exception as error:
            log.debug("undecodable message", exc_info=True)
            self.dul._refuse(f"a message cannot be decoded ({type(error).__name__})")

    def _take(self, context_id: int, control: int, fragment: memoryview) -> None:
        is_command, is_last = bool(control & 1), bool(control & 2)
        message = self.message
        if message is None:
            if not is_command:
                raise PduRefused("a data set without a command")
            message = self.message = DIMSEMessage()
        elif message.context_id not in (None, context_id):
            raise PduRefused("one message in two presentation contexts")
        if not is_command:
            self._take_data(message, fragment)
            if is_last:
                self._complete(message)
            return
        if message.context_id is not None:
            raise PduRefused("a second command in one message")
        if message.encoded_command_set.tell() + len(fragment) > _COMMAND_LIMIT_BYTES:
            raise PduRefused("the command set is too long")
        values = P_DATA()
        values.presentation_data_value_list = [[context_id, bytes([control]) + bytes(fragment)]]
        if message.decode_msg(values):
            self._complete(message)  # a command without a data set
        elif is_last and isinstance(message, C_STORE_RQ):
            self._reception = self._open(message, context_id)

    def _open(self, message: C_STORE_RQ, context_id: int) -> Reception:
        context = self.assoc._accepted_cx.get(context_id)
        if context is None:
            raise PduRefused("a presentation context that was not accepted")
        command = message.command_set
        reception = self._open_reception(
            sop_class_uid=str(command.AffectedSOPClassUID),
            sop_instance_uid=str(command.AffectedSOPInstanceUID),
            transfer_syntax_uid=str(context.transfer_syntax[0]),
        )
        with self._lock:
            self._unserved.append(reception)
        return reception

    def _take_data(self, message: DIMSEMessage, fragment: memoryview) -> None:
        if message.context_id is None:
            raise PduRefused("a data set before the end of its command")
        if self._reception is not None:
            self._reception.write(fragment)
        elif message.data_set.tell() + len(fragment) > _IDENTIFIER_LIMIT_BYTES:
            raise PduRefused("the identifier is too long")
        else:
            message.data_set.write(fragment)

    def _complete(self, message: DIMSEMessage) -> None:
        request = message.message_to_primitive()
        request.reception = self._reception
        self.message, self._reception = None, None
        if isinstance(request, C_CANCEL):
            if len(self.cancel_req) >= _CANCELS:  # of requests that were answered long ago
                del self.cancel_req[next(iter(self.cancel_req))]
            self.cancel_req[request.MessageIDBeingRespondedTo] = request
            return
        # A cancel that came before is of an earlier request; one that follows may be here
        # before this request is served.
        self.cancel_req.pop(request.MessageID, None)
        if request.reception is not None:
            request.DataSet = BytesIO()  # the library wants one; the bytes are in the spool
        self._served.clear()
        self.msg_queue.put((message.context_id, request))
        self.assoc.work.set()

    def is_behind(self) -> bool:
        """Whether a message waits beside the one that is being served."""
        return bool(self.msg_queue.qsize() > 0)

    def wait_until_served(self, timeout_s: float) -> None:
        """Until the waiting message was taken."""
        self._served.wait(timeout_s)

    def next_request(self) -> tuple[int, DimseServiceType] | None:
        """The message that waits, if one does."""
        context_id, request = self.get_msg(block=False)
        self._served.set()
        if context_id is None or request is None:
            return None
        return context_id, request

    def claim(self, reception: Reception) -> bool:
        """Take over a reception to store it; False where the association ended first."""
        with self._lock:
            if reception not in self._unserved:
                return False
            self._unserved.remove(reception)
            return True

    def discard_unserved(self) -> None:
        """Remove what was received and will not be answered any more. The upper layer's
        thread calls it when it ends: nothing is written afterwards."""
        with self._lock:
            left, self._unserved = self._unserved, []
        for reception in left:
            reception.discard()


class PeerAssociation(Association):  # type: ignore[misc]
    """The acceptor's side of one association."""

    is_established: bool

    def __init__(self, server: "DimseServer", admitted: Connection, secured: Secured | None) -> None:
        super().__init__(server.ae, "acceptor")
        self._server = server
        self.admitted = admitted
        self.secured = secured
        self.principal: Principal | None = None
        self.why_unknown = ""
        self.rights: frozenset[Right] | None = None
        self.services = server.services
        self.peer_is_scp_of: set[str] = set()
        """SOP classes of which the peer took the SCP role: we may send it requests."""
        self.fault = ""
        """Why the association was cut off, where the peer gave cause; for the trail."""
        self.agreed: dict[str, bytes] = {}
        """The outcome of extended negotiations by SOP class."""
        self._sent_messages = 0
        self._postponed: list[tuple[int, DimseServiceType]] = []  # came while we waited for an answer
        self.work = threading.Event()  # something arrived for _run_reactor
        self.acse = Negotiator(self)
        self.dul = UpperLayer(
            self,
            timeout_s=server.settings.association_timeout_s,
            maximum_length=server.settings.maximum_pdu_bytes,
        )
        self.dimse = Messages(self, server.open_reception)
        self.acse_timeout = server.ae.acse_timeout  # sets the timers of the new upper layer
        self.network_timeout = server.ae.network_timeout

    @property
    def archive(self) -> "Archive":
        return self._server.archive

    @property
    def is_open(self) -> bool:
        """Whether the peer is there and waits; false from its abort or hang-up on."""
        return not self._kill and self.dul.is_alive() and not self.acse.is_aborted()

    @property
    def peer_maximum_length(self) -> int:
        """The longest data PDU that the peer takes, in bytes; 0 is no limit (PS3.8 D.1)."""
        return int(self.requestor.maximum_length or 0)

    @property
    def peer_address(self) -> str:
        """The peer's IP address."""
        return self.admitted.address

    def run_reactor(self) -> None:
        try:
            super().run_reactor()
        except Exception:  # the library raises anything; one association's end is not the server's
            log.exception("the association of %s ended by an error", self.peer_address)
            self.abort()  # else the peer waits for an answer, on a connection that is not counted
        finally:
            if self.fault:
                title = str(self.requestor.ae_title or "")
                self._server.refusals.audit(title, self.peer_address, self.fault)
            self._leave()
            self._server.ended(self)

    def _leave(self) -> None:
        for service in self._negotiated_services():
            if service.ended is not None:
                try:
                    service.ended(self)
                except Exception:  # of the services only; the connection is accounted for
                    log.exception("%s for %s left something behind", service.name, self.peer_address)

    def _negotiated_services(self) -> list[Service]:
        """Those with an accepted context of this association."""
        accepted = {str(context.abstract_syntax) for context in self._accepted_cx.values()}
        return [service for service in self.services if any(map(service.serves, accepted))]

    def upper_layer_ended(self) -> None:
        """The connection is closed. Called by the upper layer's thread as its last act."""
        self.dimse.discard_unserved()
        self.work.set()

    def _run_reactor(self) -> None:
        """Serve until the peer releases, aborts or falls silent.

        The library's loop looks every millisecond; this one waits to be told.
        """
        self._is_paused = False
        while not self._kill:
            is_quiet = not self.work.wait(_TIMER_CHECK_S)
            self.work.clear()
            while not self._kill and (found := self._next()) is not None:
                context_id, request = found
                try:
                    self._serve(request, context_id)
                finally:
                    self._discard_unclaimed(request)
                self.dul._idle_timer.restart()  # storing took its time; the peer was not silent
            if self.is_established and self.acse.is_release_requested():
                self.acse.send_release(is_response=True)
                self.is_released = True
                self.is_established = False
                self.kill()
            elif self.acse.is_aborted():
                self.is_aborted = True
                self.is_established = False
                self.kill()
            elif not self.dul.is_alive():
                self.kill()
            elif self.dul.idle_timer_expired():
                log.warning("%s was silent for too long: association aborted", self.peer_address)
                self.abort()
            elif is_quiet and self.is_established and self.dimse.message is None:
                self._idle()

    def _next(self) -> tuple[int, DimseServiceType] | None:
        return self._postponed.pop() if self._postponed else self.dimse.next_request()

    def _idle(self) -> None:
        for service in self._negotiated_services():
            if service.idle is not None:
                try:
                    service.idle(self)
                except Exception:  # the peer did nothing wrong
                    log.exception("%s for %s failed", service.name, self.peer_address)

    def _discard_unclaimed(self, request: DimseServiceType) -> None:
        """Remove the data set of a request that nobody stored: refused, in a context of another
        service, without its fields. The peer may send thousands on one association."""
        reception: Reception | None = getattr(request, "reception", None)
        if reception is not None and self.dimse.claim(reception):
            reception.discard()

    def _serve(self, primitive: DimseServiceType, context_id: int) -> None:
        """One message of the peer, to the service that its context belongs to."""
        context = self._accepted_cx.get(context_id)
        if context is None:
            log.warning("%s used a context that was not accepted: association aborted", self.peer_address)
            self.abort()
            return
        if primitive.MessageID is None:
            log.warning("%s sent %s that nobody asked for", self.peer_address, primitive.msg_type)
            return
        assert self.principal is not None
        service = find_service(self.services, str(context.abstract_syntax))
        assert service is not None, "a context was accepted that no service serves"
        request = Request(
            self, service, primitive, context_id, str(context.abstract_syntax),
            str(context.transfer_syntax[0]), self.principal, self.archive.policy.scope(self.principal),
        )  # fmt: skip
        if primitive.is_valid_request:
            serve(request)
            return
        log.warning("%s sent %s without all of its fields", self.peer_address, primitive.msg_type)
        request.respond(
            Reason.CANNOT_UNDERSTAND if isinstance(primitive, C_STORE) else MISTYPED_ARGUMENT,
            ErrorComment="the command set lacks a field",
        )

    def transmit(self, pieces: Sequence[Piece]) -> None:
        """Send encoded PDUs now; a peer that is gone or does not read ends the association."""
        connection = self.dul.socket
        if connection is not None:
            connection.transmit(pieces)

    def store(
        self,
        context_id: int,
        sop_class_uid: str,
        sop_instance_uid: str,
        data_set: Iterable[Piece],
        originator: tuple[str, int] | None = None,
    ) -> int | None:
        """Send a C-STORE on this association, as C-GET does (PS3.4 C.4.3), and return the
        peer's status; None where the association ended first."""
        fields: dict[str, FieldValue] = {
            "AffectedSOPClassUID": sop_class_uid, "AffectedSOPInstanceUID": sop_instance_uid, "Priority": 0,
        }  # fmt: skip
        if originator is not None:
            fields["MoveOriginatorApplicationEntityTitle"], fields["MoveOriginatorMessageID"] = originator
        answer = self.ask("C_STORE", context_id, data_set, **fields)
        return None if answer is None or answer.Status is None else int(answer.Status)

    def ask(
        self, name: str, context_id: int, data_set: Iterable[Piece] | None, **fields: FieldValue
    ) -> Any | None:
        """Send a request of ours in the handler of another, or while the association is
        quiet, and wait for its answer (pynetdicom's primitive); None where the association
        ended first, or the peer wants to release it. A request of the peer that crosses
        ours is served afterwards."""
        self._sent_messages = self._sent_messages % 0xFFFF + 1
        number = self._sent_messages
        command = request_command(name, number, data_set is not None, **fields)
        for pdu in message_pdus(context_id, command, data_set, self.peer_maximum_length):
            if not self.is_open:
                return None
            self.transmit(pdu)
        deadline = time.monotonic() + self._server.settings.idle_timeout_s
        while self.is_open and not isinstance(self.dul.peek_next_pdu(), A_RELEASE):
            found = self.dimse.next_request()
            if found is not None:
                answer = found[1]
                if not answer.is_valid_request and answer.MessageIDBeingRespondedTo == number:
                    return answer
                if answer.is_valid_request and not self._postponed:
                    self._postponed.append(found)
                    continue
                log.warning("%s sent a message out of turn: association aborted", self.peer_address)
                self.abort(block=False)
                return None
            self.work.wait(_TIMER_CHECK_S)
            self.work.clear()
            if time.monotonic() > deadline:
                log.warning("%s did not answer a %s: association aborted", self.peer_address, name)
                self.abort(block=False)
        self.work.set()  # for the loop that serves: it has to see the end, too
        return None

    def why_rejected(self) -> Rejection | None:
        """None where the peer may associate; sets :attr:`principal` then."""
        request = self.requestor.primitive
        if str(request.application_context_name) != APPLICATION_CONTEXT_NAME:
            return APPLICATION_CONTEXT_NOT_SUPPORTED
        try:
            admitted = self._server.peers.admit(request.calling_ae_title, self.peer_address, self.secured)
        except NotRecognized as stranger:
            self.why_unknown = str(stranger)
            return CALLING_AE_TITLE_NOT_RECOGNIZED
        self.principal, self.rights = admitted.principal, admitted.rights
        if request.called_ae_title.strip() != self._server.ae_title:
            return CALLED_AE_TITLE_NOT_RECOGNIZED
        if not self._server.admission.establish(self.admitted):
            return LOCAL_LIMIT_EXCEEDED
        return None
