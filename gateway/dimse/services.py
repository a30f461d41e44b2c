# SPDX-License-Identifier: Apache-2.0
"""What a service of ours is: SOP classes, the right that a peer needs, and its handlers.

A handler runs in its association's thread, translates, and delegates to the archive.
"""

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pydicom.dataset import Dataset

from archive.access import Principal, Scope
from archive.part10.budget import ParseBudget
from archive.part10.dataset import as_dataset
from archive.part10.errors import Part10Error
from archive.part10.walker import normalise
from gateway.dimse.identifiers import encode_data_set
from gateway.dimse.messages_out import FieldValue, Piece, message_pdus, response_command
from gateway.dimse.rights import Right

if TYPE_CHECKING:
    from archive.service import Archive
    from gateway.dimse.association import PeerAssociation

log = logging.getLogger(__name__)

SUCCESS = 0x0000
PENDING = 0xFF00
PENDING_WITHOUT_OPTIONAL_KEYS = 0xFF01
PROCESSING_FAILURE = 0x0110
NOT_AUTHORIZED = 0x0124
UNRECOGNIZED_OPERATION = 0x0211
MISTYPED_ARGUMENT = 0x0212
_PENDING = frozenset({PENDING, PENDING_WITHOUT_OPTIONAL_KEYS})

IMPLICIT_LITTLE_ENDIAN = "1.2.840.10008.1.2"
EXPLICIT_BIG_ENDIAN = "1.2.840.10008.1.2.2"

# A query or an attribute list is small: what takes more is not honest.
_BUDGET = ParseBudget(depth=16, elements=20_000, items=10_000, values=10_000, header_bytes=4 << 20)
_COALESCED_BYTES = 64 * 1024
_COALESCED_S = 0.02

# Where the primitives of pynetdicom keep the data set of a request.
_DATA_SETS = (
    "Identifier", "AttributeList", "ModificationList", "ActionInformation", "EventInformation", "DataSet",
)  # fmt: skip


class UnreadableIdentifier(Exception):
    """The data set of a request is damaged, or beyond the budget."""


@dataclass(frozen=True, slots=True)
class Service:
    """SOP classes that one module serves as SCP. ``handlers``: by the class name of
    pynetdicom's primitive (``C_FIND``)."""

    name: str
    sop_classes: frozenset[str]
    right: Right
    handlers: Mapping[str, Callable[["Request"], None]]
    takes: Callable[[str], bool] | None = None
    """Further SOP classes, by question: storage has no end of them."""
    transfer_syntaxes: frozenset[str] | None = None
    """Encodings that are accepted; None: the uncompressed ones."""
    we_may_be_scu: bool = False
    """Whether a peer's proposal of its SCP role is granted (C-GET stores on it)."""
    idle: Callable[["PeerAssociation"], None] | None = None
    """Called about twice a second while an association with a context of it is quiet."""
    ended: Callable[["PeerAssociation"], None] | None = None
    """Called once such an association has ended."""

    extended: Callable[[bytes], bytes] | None = None
    """The answer to a SOP class extended negotiation (PS3.7 D.3.3.5); None: none is given."""

    def serves(self, sop_class_uid: str) -> bool:
        return sop_class_uid in self.sop_classes or (self.takes is not None and self.takes(sop_class_uid))


@dataclass(eq=False)
class Request:
    """One request of a peer while it is served."""

    association: "PeerAssociation"
    service: Service
    primitive: Any
    context_id: int
    abstract_syntax: str
    transfer_syntax: str
    principal: Principal
    scope: Scope
    _held: list[Piece] = field(default_factory=list)
    _held_bytes: int = 0
    _flushed: float = field(default_factory=time.monotonic)
    answered: bool = False
    """Whether a final response was sent."""

    @property
    def archive(self) -> "Archive":
        return self.association.archive

    @property
    def name(self) -> str:
        """As the standard names it, with an underscore: ``C_FIND``."""
        return type(self.primitive).__name__

    @property
    def message_id(self) -> int:
        return int(self.primitive.MessageID)

    @property
    def agreed(self) -> bytes:
        """What was agreed on in the extended negotiation of the SOP class; may be empty."""
        return self.association.agreed.get(self.abstract_syntax, b"")

    @property
    def alive(self) -> bool:
        """Whether somebody still waits for an answer."""
        return self.association.is_open

    @property
    def cancelled(self) -> bool:
        """Whether a C-CANCEL for this request came, or the association ended."""
        return not self.alive or self.message_id in self.association.dimse.cancel_req

    @cached_property
    def encoded(self) -> bytes:
        """The request's data set as it came; empty where it brought none."""
        for name in _DATA_SETS:
            stream = getattr(self.primitive, name, None)
            if stream is not None:
                return bytes(stream.getvalue())
        return b""

    def data_set(self) -> Dataset:
        """The identifier, attribute list or information of the request.

        Raises UnreadableIdentifier.
        """
        data = self.encoded
        try:
            return as_dataset(
                normalise(
                    data, 0, len(data), implicit=self.transfer_syntax == IMPLICIT_LITTLE_ENDIAN,
                    budget=_BUDGET, big_endian=self.transfer_syntax == EXPLICIT_BIG_ENDIAN,
                )
            )  # fmt: skip
        except Part10Error as error:
            raise UnreadableIdentifier(str(error)) from error

    def respond(self, status: int, data_set: Dataset | bytes | None = None, **fields: FieldValue) -> None:
        """Send a response; ``fields`` by keyword of the command set (PS3.7 Annex E).

        ``bytes`` must be in the context's transfer syntax. Pending responses are held
        back until a PDU's worth is there or 20 ms have passed.
        """
        if isinstance(data_set, Dataset):
            data_set = encode_data_set(data_set, self.transfer_syntax)
        for keyword in ("AffectedSOPClassUID", "AffectedSOPInstanceUID"):
            asked = getattr(self.primitive, keyword, None)
            if asked is None:
                asked = getattr(self.primitive, keyword.replace("Affected", "Requested"), None)
            if asked is not None:
                fields.setdefault(keyword, str(asked))
        command = response_command(self.name, self.message_id, status, data_set is not None, **fields)
        pdus = message_pdus(
            self.context_id, command, None if data_set is None else [data_set],
            self.association.peer_maximum_length,
        )  # fmt: skip
        for pdu in pdus:
            self._held += pdu
            self._held_bytes += sum(map(len, pdu))
        is_final = status not in _PENDING
        self.answered = self.answered or is_final
        if (
            is_final
            or self._held_bytes >= _COALESCED_BYTES
            or time.monotonic() - self._flushed >= _COALESCED_S
        ):
            self.flush()

    def flush(self) -> None:
        """Send what is held back. A peer that is gone is noticed by :attr:`alive`."""
        held, self._held, self._held_bytes = self._held, [], 0
        self._flushed = time.monotonic()
        if held:
            self.association.transmit(held)


def serve(request: Request) -> None:
    """Run the handler; whatever it does, the peer gets one final answer."""
    handler = request.service.handlers.get(request.name)
    if handler is None:
        request.respond(UNRECOGNIZED_OPERATION)
        return
    if request.association.rights is None or request.service.right not in request.association.rights:
        # A context may be there for our own requests only: what a C-GET wants is stored on it.
        request.respond(NOT_AUTHORIZED)
        return
    try:
        handler(request)
    except Exception:  # a handler's error must not end the association without an answer
        log.exception("%s from %s failed", request.name, request.principal.actor)
    if not request.answered and request.alive:
        request.respond(PROCESSING_FAILURE)


def find_service(services: Sequence[Service], sop_class_uid: str) -> Service | None:
    """Which service an abstract syntax belongs to; the first that takes it."""
    return next((service for service in services if service.serves(sop_class_uid)), None)


def sop_classes(services: Iterable[Service]) -> list[tuple[str, str]]:
    """(name of the service, SOP class UID) of all that are named, for the documents."""
    return [(service.name, uid) for service in services for uid in sorted(service.sop_classes)]
