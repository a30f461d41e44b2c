# SPDX-License-Identifier: Apache-2.0
"""Retrieve SCP: C-MOVE, to configured peers only (PS3.4 C.4.2)."""

import contextlib
import logging
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator

from archive.errors import ArchiveError
from archive.part10.errors import Part10Error
from archive.transfer import Reference
from gateway.delivery import DeliveryError
from gateway.dimse.peers import Destination
from gateway.dimse.query_keys import MOVE, agree_to_retrieve, sop_classes
from gateway.dimse.requestor import AssociationRejected, Requestor
from gateway.dimse.retrieval import (
    CANNOT_PERFORM,
    DESTINATION_UNKNOWN,
    Cancelled,
    Suboperations,
    suboperations,
)
from gateway.dimse.rights import Right
from gateway.dimse.sending import proposed
from gateway.dimse.services import Request, Service

log = logging.getLogger(__name__)

# An association that breaks is made anew for what is left, with these pauses between.
RETRIES_S = (1.0, 2.0, 4.0)
_TRIES = 2  # of one instance that breaks associations
_PERMANENT = 1  # result of a rejection, PS3.8 Table 9-21

Destinations = Callable[[str], Destination | None]


def service(ae_title: str, destinations: Destinations) -> Service:
    """``ae_title`` is our own; ``destinations`` knows where peers are, by their title."""

    def on_request(request: Request) -> None:
        on_c_move(request, ae_title.strip(), destinations)

    return Service("Move", sop_classes(MOVE), Right.MOVE, {"C_MOVE": on_request}, extended=agree_to_retrieve)


def on_c_move(request: Request, ae_title: str, destinations: Destinations) -> None:
    """Send what the identifier names to the Move Destination."""
    title = str(request.primitive.MoveDestination or "").strip()
    try:
        destination = destinations(title) if title and title != ae_title else None
    except DeliveryError as error:
        log.error("C-MOVE of %s: %s", request.principal.actor, error)
        request.respond(CANNOT_PERFORM, ErrorComment=str(error))
        return
    if destination is None or is_here(destination, _port(request)):
        log.warning("C-MOVE of %s to %r refused", request.principal.actor, title)
        with contextlib.suppress(ArchiveError):  # the peer is told in any case
            request.archive.refused("C-MOVE to nobody", principal=request.principal, scope=request.scope)
        request.respond(DESTINATION_UNKNOWN, ErrorComment="no destination of that AE title")
        return
    with suboperations(request, title) as found:
        if found is not None:
            with found.told_meanwhile():
                _send(request, found, destination, ae_title)
            if request.alive:
                found.answer()


def _port(request: Request) -> int:
    """Where the peer reached us."""
    here = request.association.acceptor.address_info
    return 0 if here is None else int(here.port)


def is_here(destination: Destination, port: int) -> bool:
    """Whether that is our own listener: instances would go round in circles (a host that
    cannot be resolved is not: the connection will tell)."""
    if destination.port != port:
        return False
    try:
        found = socket.getaddrinfo(destination.host, 0, type=socket.SOCK_DGRAM)
    except OSError:
        return False
    return any(_is_local(family, address) for family, _, _, _, address in found)


def _is_local(family: int, address: tuple[object, ...]) -> bool:
    with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.bind(address)  # only an address of this machine can be bound
        return True
    return False


def _send(request: Request, found: Suboperations, destination: Destination, ae_title: str) -> None:
    """Until nothing is left, the peer cancels, or the destination does not come back."""
    breaks = 0  # in a row, without an instance that arrived
    blamed: Counter[str] = Counter()
    while found.left and not _is_over(request):
        before = len(found.left)
        courier = _Courier(request, found)
        try:
            courier.carry(destination, ae_title)
        except Cancelled:
            return
        except (ArchiveError, Part10Error) as error:
            assert courier.current is not None
            log.error("%s cannot be sent: %s", courier.current.sop_instance_uid, error)
            found.fail(courier.current)
        except DeliveryError as error:
            log.warning("C-MOVE of %s: %s", request.principal.actor, error)
            if _is_over(request):
                return
            breaks = breaks + 1 if len(found.left) == before else 1
            if courier.current is not None:
                uid = courier.current.sop_instance_uid
                blamed[uid] += 1
                if blamed[uid] >= _TRIES:
                    found.fail(courier.current)
            permanent = isinstance(error, AssociationRejected) and error.result == _PERMANENT
            if permanent or not error.retry or breaks > len(RETRIES_S):
                found.fail_all()
                return
            _pause(request, found, RETRIES_S[breaks - 1])


def _is_over(request: Request) -> bool:
    """Whether nobody waits for the rest; it may come to be at any time."""
    return request.cancelled


def _pause(request: Request, found: Suboperations, seconds: float) -> None:
    until = time.monotonic() + seconds
    while not request.cancelled and (left := until - time.monotonic()) > 0:
        found.tell()
        time.sleep(min(left, 0.1))


class _Courier:
    """One association with the destination. ``current``: what was being sent when it broke."""

    def __init__(self, request: Request, found: Suboperations) -> None:
        self.current: Reference | None = None
        self._request = request
        self._found = found

    def carry(self, destination: Destination, ae_title: str) -> None:
        """Send what one association can carry. Raises DeliveryError, Cancelled; ArchiveError
        and Part10Error for what turned out damaged on its way."""
        originator = (self._request.principal.actor, self._request.message_id)
        proposals, references = proposed(self._found.left.values())
        with Requestor.connect(destination, proposals, calling_ae_title=ae_title) as peer:
            for one in references:
                if self._request.cancelled:
                    return
                prepared = self._found.prepare(one, peer.accepted)
                if prepared is None:
                    continue
                number, chunks = prepared
                self.current = one
                status, comment = peer.c_store(
                    number,
                    one.sop_class_uid,
                    one.sop_instance_uid,
                    self._watched(chunks),
                    move_originator=originator,
                )
                self.current = None
                self._found.end(one, status, comment)

    def _watched(self, chunks: Iterator[bytes | memoryview]) -> Iterator[bytes | memoryview]:
        for chunk in chunks:
            if self._request.cancelled:
                raise Cancelled
            self._found.tell()
            yield chunk
