# SPDX-License-Identifier: Apache-2.0
"""Storage SCU: instances of the archive to one receiver (PS3.4 Annex B).

The stored transfer syntax goes first, then Explicit and Implicit VR Little Endian where the
archive can give it uncompressed; nothing is ever compressed for a receiver. What the
receiver confirms is kept, and not sent again. An instance that the receiver refuses, or
breaks off at, does not hold up the others.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import chain
from typing import TYPE_CHECKING

from archive.access import Principal, Scope
from archive.errors import ArchiveError, Gone, NotFound
from archive.index.query import Level, Query
from archive.part10.errors import Part10Error
from archive.part10.syntaxes import EXPLICIT, IMPLICIT
from gateway.delivery import DeliveryError
from gateway.dimse.data_sets import data_set_chunks
from gateway.dimse.implicit import implicit_chunks
from gateway.dimse.peers import Destination
from gateway.dimse.requestor import MAXIMUM_CONTEXTS, Proposal, Requestor

if TYPE_CHECKING:
    from archive.service import Archive
    from archive.transfer import Reference, Transfer

log = logging.getLogger(__name__)

MOST_INSTANCES = 100_000  # of one series or study

DUPLICATE = 0x0111  # it has it already: an answer of ours got lost, most likely
_WARNINGS = frozenset((0x0001, 0x0107, 0x0116))  # beside Bxxx, PS3.7 Annex C
# Of these the same instance will be told again: SOP class not supported, data set does not
# match SOP class (PS3.4 Table B.2-1).
_FINAL = frozenset((0x0122, 0x0118))
_KEEP_S = 1.0  # confirmations are written together
_TRIES = 2  # of an instance at which associations end
_PAUSES_S = (1.0, 3.0)


class Outcome(StrEnum):
    SENT = "sent"
    WARNING = "warning"  # taken, not as it was (Bxxx)
    ALREADY = "already"  # confirmed earlier
    GONE = "gone"  # deleted since
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one instance. ``final``: trying again is of no use."""

    study_instance_uid: str
    series_instance_uid: str
    sop_class_uid: str
    sop_instance_uid: str
    size_bytes: int
    outcome: Outcome
    status: int = 0
    message: str = ""
    final: bool = False


@dataclass(frozen=True, slots=True)
class Sender:
    """Sends for ``principal``, under our AE title. ``pause`` waits some seconds."""

    archive: "Archive"
    ae_title: str
    principal: Principal
    scope: Scope
    timeout_s: float = 30.0
    response_timeout_s: float = 300.0
    pause: Callable[[float], object] = time.sleep

    def send(
        self,
        destination: Destination,
        study: str,
        series: str = "",
        *,
        only: Sequence[str] | None = None,
        again: bool = False,
        progress: Callable[[int], None] = lambda size_bytes: None,
    ) -> Iterator[Result]:
        """One result for each instance of a study or series (``only``: of these), as they
        come; ``progress`` gets the bytes that were sent. With ``again`` also what the
        receiver has confirmed.

        Raises DeliveryError where the receiver cannot be reached or does not come back
        (what was confirmed until then is kept), NoSuchStudy, NoSuchSeries, Gone.
        """
        caller = {"principal": self.principal, "scope": self.scope}
        found = {one.sop_instance_uid: one for one in self.archive.instances(study, series, **caller)}  # type: ignore[arg-type]
        query = Query(Level.INSTANCE, study_instance_uid=study, series_instance_uid=series)
        transfer = self.archive.transfer(
            query, destination.ae_title, most=MOST_INSTANCES, principal=self.principal, scope=self.scope
        )
        wanted = found.keys() if only is None else found.keys() & set(only)
        have = {} if again else self.archive.delivered(destination.ae_title, list(wanted))
        left: dict[str, Reference] = {}
        for one in transfer.references:
            uid = one.sop_instance_uid
            if uid not in wanted:
                continue
            if have.get(uid) == found[uid].revision:
                progress(found[uid].size_bytes)
                yield _result(one, found[uid].size_bytes, Outcome.ALREADY)
            else:
                left[uid] = one
        if not left:
            return
        transfer.references = list(left.values())
        sizes = {uid: one.size_bytes for uid, one in found.items()}
        revisions = {uid: one.revision for uid, one in found.items()}
        with transfer:
            run = _Run(self, transfer, destination, left, sizes, revisions, progress)
            try:
                yield from run.results()
            finally:
                run.keep()


class _Run:
    """The sending of ``left`` over as many associations as it takes."""

    def __init__(
        self,
        sender: Sender,
        transfer: "Transfer",
        destination: Destination,
        left: "dict[str, Reference]",
        sizes: dict[str, int],
        revisions: dict[str, int],
        progress: Callable[[int], None],
    ) -> None:
        self._sender = sender
        self._transfer = transfer
        self._destination = destination
        self._left = left
        self._sizes = sizes
        self._revisions = revisions
        self._progress = progress
        self._current: Reference | None = None
        self._confirmed: list[tuple[str, int]] = []
        self._keep_at = 0.0

    def results(self) -> Iterator[Result]:
        broken: Counter[str] = Counter()
        barren = 0  # associations in a row that brought nothing
        while self._left:
            before = len(self._left)
            self._current = None
            try:
                yield from self._association()
            except DeliveryError as error:
                self.keep()
                barren = barren + 1 if len(self._left) == before else 0
                given_up = self._blame(broken)
                if given_up is not None:
                    yield self._ended(given_up, Outcome.FAILED, message=str(error))
                    barren = 0
                    continue
                if not error.retry or barren > len(_PAUSES_S):
                    raise
                log.warning("sending to %s: %s", self._destination.ae_title, error)
                self._sender.pause(_PAUSES_S[max(0, barren - 1)])

    def _blame(self, broken: Counter[str]) -> "Reference | None":
        """An association ended: what was on its way goes last, or no more."""
        one = self._current
        if one is None:
            return None
        uid = one.sop_instance_uid
        broken[uid] += 1
        self._left[uid] = self._left.pop(uid)
        return one if broken[uid] >= _TRIES else None

    def _association(self) -> Iterator[Result]:
        """What one association can carry."""
        proposals, carried = proposed(self._left.values())
        sender = self._sender
        with Requestor.connect(
            self._destination,
            proposals,
            calling_ae_title=sender.ae_title,
            timeout_s=sender.timeout_s,
            response_timeout_s=sender.response_timeout_s,
        ) as peer:
            for one in carried:
                yield self._one(peer, one)

    def _one(self, peer: Requestor, one: "Reference") -> Result:
        try:
            syntax = self._syntax(peer, one)
            if not syntax:
                offered = sorted(uid for abstract, uid in peer.accepted if abstract == one.sop_class_uid)
                what = "this SOP class" if not offered else f"transfer syntax {one.transfer_syntax_uid}"
                message = f"{self._destination.ae_title} does not take {what}"
                return self._ended(one, Outcome.FAILED, message=message, final=True)
            given = "" if syntax == one.transfer_syntax_uid else EXPLICIT
            chunks = data_set_chunks(self._transfer.open(one, given))
            if given and syntax == IMPLICIT:
                chunks = implicit_chunks(chunks)
            # The first bytes are read before the receiver hears of the instance.
            ready = chain([next(chunks)], chunks)
        except (Gone, NotFound):
            return self._ended(one, Outcome.GONE)
        except (ArchiveError, Part10Error) as error:
            return self._ended(one, Outcome.FAILED, message=str(error))
        self._current = one
        number = peer.accepted[one.sop_class_uid, syntax]
        status, comment = peer.c_store(number, one.sop_class_uid, one.sop_instance_uid, self._counted(ready))
        self._current = None
        return self._answered(one, status, comment)

    def _syntax(self, peer: Requestor, one: "Reference") -> str:
        for syntax in (one.transfer_syntax_uid, EXPLICIT, IMPLICIT):
            if (one.sop_class_uid, syntax) in peer.accepted and (
                syntax == one.transfer_syntax_uid or self._transfer.can_open(one, EXPLICIT)
            ):
                return syntax
        return ""

    def _counted(self, chunks: Iterable[bytes | memoryview]) -> Iterator[bytes | memoryview]:
        try:
            for chunk in chunks:
                self._progress(len(chunk))
                yield chunk
        except (ArchiveError, Part10Error) as error:
            # Half of it is gone out: only an abort keeps the receiver from storing that.
            raise DeliveryError(str(error)) from error

    def _answered(self, one: "Reference", status: int, comment: str) -> Result:
        outcome, final = judge(status)
        message = comment
        if outcome is Outcome.FAILED:
            said = f" ({comment})" if comment else ""
            message = f"{self._destination.ae_title} refused it with status {status:#06x}{said}"
        return self._ended(one, outcome, status, message, final)

    def _ended(
        self, one: "Reference", outcome: Outcome, status: int = 0, message: str = "", final: bool = False
    ) -> Result:
        uid = one.sop_instance_uid
        del self._left[uid]
        if outcome in (Outcome.SENT, Outcome.WARNING):
            self._transfer.sent(one)
            self._confirmed.append((uid, self._revisions[uid]))
            if time.monotonic() >= self._keep_at:
                self.keep()
        elif outcome is Outcome.FAILED:
            self._transfer.failed(one)
            log.warning("%s is not sent: %s", uid, message)
        return _result(one, self._sizes[uid], outcome, status, message, final)

    def keep(self) -> None:
        """Note what the receiver confirmed."""
        if self._confirmed:
            self._sender.archive.confirm_delivered(self._destination.ae_title, self._confirmed)
            self._confirmed = []
        self._keep_at = time.monotonic() + _KEEP_S


def judge(status: int) -> tuple[Outcome, bool]:
    """What a receiver's status means, and whether trying again is of no use (PS3.4 Table
    B.2-1, PS3.7 Annex C)."""
    if status in (0, DUPLICATE):
        return Outcome.SENT, False
    if status in _WARNINGS or status >> 12 == 0xB:
        return Outcome.WARNING, False
    return Outcome.FAILED, status in _FINAL or status >> 8 == 0xA9


def proposed(references: "Iterable[Reference]") -> "tuple[list[Proposal], list[Reference]]":
    """What one association can carry: a context for each SOP class and transfer syntax,
    so that the receiver says of each whether it takes it, and the instances they are for."""
    wanted: dict[tuple[str, str], None] = {}
    carried = []
    for one in references:
        syntaxes = (one.transfer_syntax_uid, EXPLICIT, IMPLICIT)
        needed = dict.fromkeys((one.sop_class_uid, uid) for uid in syntaxes)
        if len(wanted | needed) <= MAXIMUM_CONTEXTS:
            wanted |= needed
            carried.append(one)
    return [Proposal(abstract, (syntax,)) for abstract, syntax in wanted], carried


def _result(
    one: "Reference",
    size_bytes: int,
    outcome: Outcome,
    status: int = 0,
    message: str = "",
    final: bool = False,
) -> Result:
    return Result(
        one.study_instance_uid,
        one.series_instance_uid,
        one.sop_class_uid,
        one.sop_instance_uid,
        size_bytes,
        outcome,
        status,
        message,
        final,
    )
