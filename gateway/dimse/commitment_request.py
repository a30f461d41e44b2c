# SPDX-License-Identifier: Apache-2.0
"""Storage commitment asked of a receiver for what we sent it (PS3.4 Annex J, as SCU).

The answer comes on this association, or later on one of the receiver's; either way the
archive keeps it under the Transaction UID.
"""

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydicom.uid import generate_uid

from archive.access import Principal
from archive.errors import ArchiveError, BadQuery
from archive.part10.syntaxes import EXPLICIT, IMPLICIT
from archive.values import Commitment
from gateway.delivery import DeliveryError
from gateway.dimse.commitment import SOP_CLASS, WELL_KNOWN_INSTANCE, answer_of, request_of
from gateway.dimse.peers import Destination
from gateway.dimse.requestor import Event, Proposal, Requestor

if TYPE_CHECKING:
    from archive.service import Archive

log = logging.getLogger(__name__)

_REQUEST = 1  # Action Type ID, PS3.4 Table J.3-1
_AT_ONCE = 5_000  # instances of one transaction: what we take an answer about in one message
_WAIT_S = 5.0  # for an answer on the same association


class CommitmentRequest:
    """Asks on an association of its own, after the instances have arrived."""

    def __init__(
        self, archive: "Archive", ae_title: str, principal: Principal, wait_s: float = _WAIT_S
    ) -> None:
        self._archive = archive
        self._ae_title = ae_title
        self._principal = principal
        self._wait_s = wait_s

    def __call__(self, destination: Destination, references: Sequence[tuple[str, str]]) -> list[str]:
        """Ask for instances (SOP class and instance UID); the Transaction UIDs. Raises
        DeliveryError."""
        asked = []
        with Requestor.connect(
            destination,
            [Proposal(SOP_CLASS, (EXPLICIT, IMPLICIT))],
            calling_ae_title=self._ae_title,
            roles={SOP_CLASS: (True, False)},
        ) as peer:
            context = peer.context_of(SOP_CLASS)  # none: nothing is asked, and no answer waited for
            for start in range(0, len(references), _AT_ONCE):
                some = list(references[start : start + _AT_ONCE])
                transaction = str(generate_uid(prefix=None))
                self._archive.asked_commitments().ask(
                    transaction, destination.ae_title, some, principal=self._principal
                )
                status, _ = peer.n_action(
                    context,
                    SOP_CLASS,
                    WELL_KNOWN_INSTANCE,
                    _REQUEST,
                    request_of(transaction, some),
                )
                if status != 0:
                    raise DeliveryError(
                        f"{destination.ae_title} answers a request for storage commitment with {status:#06x}",
                        holds=False,
                    )
                asked.append(transaction)
            try:
                for _ in asked:
                    event = peer.await_event(self._wait_s)
                    if event is None:
                        break
                    self._keep(destination, event)
            except DeliveryError as error:
                # It was asked; the answer comes on an association of the receiver's.
                log.info("%s", error)
        return asked

    def results(self, transactions: Sequence[str]) -> list[Commitment]:
        """What is known of the answers by now."""
        return [self._archive.asked_commitments().result(uid) for uid in transactions]

    def _keep(self, destination: Destination, event: Event) -> None:
        if event.data_set is None:
            return
        try:
            transaction, committed, failed = answer_of(event.data_set)
            self._archive.asked_commitments().answer(
                transaction, failed, committed, principal=Principal(destination.ae_title, "dimse")
            )
        except (BadQuery, ArchiveError) as refusal:
            log.warning("an answer to a request for storage commitment is of no use: %s", refusal)
