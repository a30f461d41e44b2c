# SPDX-License-Identifier: Apache-2.0
"""What C-MOVE and C-GET have in common: sub-operations, counted and told (PS3.4 C.4.2, C.4.3)."""

import logging
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import chain

from archive.errors import ArchiveError, NotAllowed, TooLarge
from archive.part10.errors import Part10Error
from archive.part10.syntaxes import IMPLICIT
from archive.transfer import Reference, Transfer
from gateway.dimse.data_sets import data_set_chunks
from gateway.dimse.find import CANCELLED, IDENTIFIER_DOES_NOT_MATCH, UNABLE_TO_PROCESS, refuse
from gateway.dimse.implicit import implicit_chunks
from gateway.dimse.query_keys import BadIdentifier, parse_retrieve
from gateway.dimse.result_encoding import ResultEncoder
from gateway.dimse.services import NOT_AUTHORIZED, PENDING, SUCCESS, Request, UnreadableIdentifier

log = logging.getLogger(__name__)

# PS3.4 Tables C.4-2 and C.4-3.
CANNOT_COUNT = 0xA701
CANNOT_PERFORM = 0xA702
DESTINATION_UNKNOWN = 0xA801
ONE_OR_MORE_FAILED = 0xB000
STATUSES = frozenset((
    PENDING, SUCCESS, CANCELLED, CANNOT_COUNT, CANNOT_PERFORM, DESTINATION_UNKNOWN,
    IDENTIFIER_DOES_NOT_MATCH, UNABLE_TO_PROCESS, ONE_OR_MORE_FAILED, NOT_AUTHORIZED,
))  # fmt: skip
"""All that a C-MOVE or C-GET may be answered with."""

EXPLICIT_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
MOST_INSTANCES = 100_000  # of one request: beyond, it is to be split

_PENDING_S = 1.0  # between two pending responses
_FAILED_LIST = "00080058"
_MOST_COUNTED = 0xFFFF
_WARNINGS = frozenset((0x0001, 0x0107, 0x0116))  # beside Bxxx, PS3.7 Annex C

Contexts = Mapping[tuple[str, str], int]
"""Context identifier by abstract and transfer syntax."""


class Cancelled(Exception):
    """The peer cancelled amid a sub-operation, or is gone."""


class Suboperations:
    """The sub-operations of one request; ``left`` are those not ended yet, in order."""

    def __init__(self, request: Request, transfer: Transfer) -> None:
        self.left: dict[str, Reference] = {one.sop_instance_uid: one for one in transfer.references}
        self._request = request
        self._transfer = transfer
        self._completed = self._warning = 0
        self._failed: list[str] = []
        self._told = time.monotonic()
        self._telling = threading.Lock()

    def prepare(self, one: Reference, contexts: Contexts) -> tuple[int, Iterator[bytes | memoryview]] | None:
        """The context, and the data set with its first bytes read already; None, counted as
        failed, where there is no way. Nothing is decoded unless the peer takes nothing else."""
        try:
            number, transfer_syntax_uid, is_implicit = self._chosen(one, contexts)
            if number is None:
                log.warning("%s is not taken as %s", one.sop_instance_uid, one.transfer_syntax_uid)
                self.fail(one)
                return None
            chunks = data_set_chunks(self._transfer.open(one, transfer_syntax_uid))
            if is_implicit:
                chunks = implicit_chunks(chunks)
            return number, chain([next(chunks)], chunks)
        except (ArchiveError, Part10Error) as error:
            log.error("%s cannot be sent: %s", one.sop_instance_uid, error)
            self.fail(one)
            return None

    def _chosen(self, one: Reference, contexts: Contexts) -> tuple[int | None, str, bool]:
        """The context, the transfer syntax to open it in ("" is as stored), and whether it is
        made Implicit VR Little Endian on its way: the default, which everybody takes."""
        number = contexts.get((one.sop_class_uid, one.transfer_syntax_uid))
        if number is not None:
            return number, "", False
        for transfer_syntax_uid in (EXPLICIT_LITTLE_ENDIAN, IMPLICIT):
            number = contexts.get((one.sop_class_uid, transfer_syntax_uid))
            if number is not None and self._transfer.can_open(one, EXPLICIT_LITTLE_ENDIAN):
                return number, EXPLICIT_LITTLE_ENDIAN, transfer_syntax_uid == IMPLICIT
        return None, "", False

    def end(self, one: Reference, status: int, comment: str = "") -> None:
        """The peer's answer to one sub-operation."""
        if status != SUCCESS and status not in _WARNINGS and status >> 12 != 0xB:
            log.warning("%s refused with %#06x %s", one.sop_instance_uid, status, comment)
            self.fail(one)
            return
        del self.left[one.sop_instance_uid]
        self._transfer.sent(one)
        if status == SUCCESS:
            self._completed += 1
        else:
            self._warning += 1
        self.tell()

    def fail(self, one: Reference) -> None:
        """It cannot be sent, or was refused."""
        del self.left[one.sop_instance_uid]
        self._transfer.failed(one)
        self._failed.append(one.sop_instance_uid)
        self.tell()

    def fail_all(self) -> None:
        """None of what is left can be sent."""
        for one in list(self.left.values()):
            self.fail(one)

    def tell(self) -> None:
        """A pending response, once a second. From any thread, until :meth:`answer`."""
        with self._telling:
            if time.monotonic() - self._told >= _PENDING_S and self._request.alive:
                self._told = time.monotonic()
                self._request.respond(PENDING, None, **self._counts(), **self._remaining())

    @contextmanager
    def told_meanwhile(self) -> Iterator[None]:
        """Pending responses even while a destination takes its time to answer: requestors
        give up on who is silent."""
        ended = threading.Event()

        def run() -> None:
            while not ended.wait(_PENDING_S):
                self.tell()

        teller = threading.Thread(target=run, name="dimse-pending", daemon=True)
        teller.start()
        try:
            yield
        finally:
            ended.set()
            teller.join()

    def answer(self) -> None:
        """The final response."""
        if self.left:  # it was cancelled
            status = CANCELLED
        elif self._failed and not self._completed and not self._warning:
            status = CANNOT_PERFORM
        else:
            status = ONE_OR_MORE_FAILED if self._failed or self._warning else SUCCESS
        identifier = None
        if self._failed:
            encoder = ResultEncoder(self._request.transfer_syntax)
            identifier = encoder.encode({_FAILED_LIST: {"vr": "UI", "Value": self._failed}})
        remaining = self._remaining() if status == CANCELLED else {}
        self._request.respond(status, identifier, **self._counts(), **remaining)

    def _counts(self) -> dict[str, int]:
        return {
            "NumberOfCompletedSuboperations": min(self._completed, _MOST_COUNTED),
            "NumberOfFailedSuboperations": min(len(self._failed), _MOST_COUNTED),
            "NumberOfWarningSuboperations": min(self._warning, _MOST_COUNTED),
        }

    def _remaining(self) -> dict[str, int]:
        return {"NumberOfRemainingSuboperations": min(len(self.left), _MOST_COUNTED)}


@contextmanager
def suboperations(request: Request, destination: str) -> Iterator[Suboperations | None]:
    """What the request names, with the audit of its transfer around it; None where it was
    refused, and answered so. ``destination``: the AE title that gets it."""
    try:
        _, query = parse_retrieve(request.data_set(), request.abstract_syntax, request.agreed)
        transfer = request.archive.transfer(
            query, destination, most=MOST_INSTANCES, principal=request.principal, scope=request.scope
        )
    except UnreadableIdentifier as error:
        request.respond(UNABLE_TO_PROCESS, ErrorComment=str(error))
    except BadIdentifier as error:
        refuse(request, error)
    except TooLarge as error:
        request.respond(CANNOT_COUNT, ErrorComment=str(error))
    except NotAllowed as error:
        request.respond(NOT_AUTHORIZED, ErrorComment=str(error))
    except ArchiveError as error:
        log.warning("%s of %s failed: %s", request.name, request.principal.actor, error)
        request.respond(UNABLE_TO_PROCESS, ErrorComment=str(error))
    else:
        with transfer:
            yield Suboperations(request, transfer)
        return
    yield None
