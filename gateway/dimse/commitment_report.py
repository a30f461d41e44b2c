# SPDX-License-Identifier: Apache-2.0
"""Results of storage commitment told on an association of ours (PS3.4 J.3.3): the outbox
does it where the peer did not wait for them."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from pydicom.dataset import Dataset

from archive.commitment_results import DUTY
from archive.errors import NoSuchTransaction
from archive.part10.syntaxes import EXPLICIT, IMPLICIT
from gateway.delivery import DeliveryError, Report
from gateway.dimse.commitment import SOP_CLASS, WELL_KNOWN_INSTANCE, result_of
from gateway.dimse.requestor import Proposal, Requestor

if TYPE_CHECKING:
    from archive.service import Archive
    from archive.values import Duty
    from gateway.dimse.peers import Destination

_TURN_S = 600.0  # longer than one attempt may take


class CommitmentReporter:
    """Delivers duties of kind ``commitment``."""

    kind = DUTY

    def __init__(
        self, archive: "Archive", ae_title: str, destination: Callable[[str], "Destination | None"]
    ) -> None:
        """``destination``: where a peer is called, None where it is not."""
        self._results = archive.commitment_results()
        self._ae_title = ae_title
        self._destination = destination

    def deliver(self, duty: "Duty", report: Report) -> None:
        """Tell the result, unless the peer knows it already. Raises DeliveryError."""
        transaction = str(duty.payload["transaction"])
        owner = f"duty {duty.id}"
        try:
            found = self._results.take(transaction, owner, lease_s=_TURN_S)
            if found is None:
                if self._results.is_told(transaction):
                    return
                raise DeliveryError(f"{duty.receiver} is told on an association of its own", holds=False)
        except NoSuchTransaction as error:
            raise DeliveryError(str(error), retry=False) from None
        told = False
        try:
            self._tell(duty.receiver, *result_of(transaction, found, self._ae_title))
            self._results.told(transaction)
            told = True
        finally:
            if not told:
                self._results.leave(transaction, owner)

    def _tell(self, ae_title: str, event_type: int, information: Dataset) -> None:
        destination = self._destination(ae_title)
        if destination is None:
            raise DeliveryError(
                f"{ae_title} has no address: it is told when it associates for storage commitment",
                holds=False,
            )
        with Requestor.connect(
            destination,
            [Proposal(SOP_CLASS, (EXPLICIT, IMPLICIT))],
            calling_ae_title=self._ae_title,
            roles={SOP_CLASS: (False, True)},
        ) as requestor:
            context = requestor.context_of(SOP_CLASS)
            status, _ = requestor.n_event_report(
                context, SOP_CLASS, WELL_KNOWN_INSTANCE, event_type, information
            )
        if status != 0:
            raise DeliveryError(f"{ae_title} answers the result with status {status:#06x}", holds=False)
