# SPDX-License-Identifier: Apache-2.0
"""Instance Availability Notification as SCU (PS3.4 Annex R): peers are told of a study
once it has come, grown or lost something, by the outbox."""

import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from pydicom.dataset import Dataset

from archive.availability import DUTY, Reference
from archive.part10.syntaxes import EXPLICIT, IMPLICIT
from gateway.delivery import DeliveryError, Report
from gateway.dimse.requestor import Proposal, Requestor

if TYPE_CHECKING:
    from archive.service import Archive
    from archive.values import Duty
    from gateway.dimse.peers import Destination

log = logging.getLogger(__name__)

SOP_CLASS = "1.2.840.10008.5.1.4.33"
_TAKEN = frozenset({0x0000, 0x0001, 0x0107, 0x0111, 0x0116})  # the last but one: it has this notice already
_POLL_S = 2.0


class AvailabilityNotifier:
    """Delivers duties of kind ``availability``: one notice for one study."""

    kind = DUTY

    def __init__(
        self, archive: "Archive", ae_title: str, destination: Callable[[str], "Destination | None"]
    ) -> None:
        """``destination``: where a peer is called, None where it is not."""
        self._archive = archive
        self._ae_title = ae_title
        self._destination = destination

    def deliver(self, duty: "Duty", report: Report) -> None:
        """Say what is here now, and what went since the last notice. Raises DeliveryError."""
        destination = self._destination(duty.receiver)
        if destination is None:
            raise DeliveryError(f"no address is known of {duty.receiver}")
        study, notice = str(duty.payload["study"]), str(duty.payload["notice"])
        here = self._archive.availability().instances(study)
        present = {sop for _, _, sop in here}
        gone = [(str(a), str(b), str(c)) for a, b, c in duty.payload["deleted"] if c not in present]  # type: ignore[attr-defined]
        if not here and not gone:
            report(1.0, "nothing of it is left to tell of")
            return
        with Requestor.connect(
            destination, [Proposal(SOP_CLASS, (EXPLICIT, IMPLICIT))], calling_ae_title=self._ae_title
        ) as peer:
            context = peer.context_of(SOP_CLASS)
            status, _ = peer.n_create(
                context, SOP_CLASS, notice, notice_of(study, here, gone, self._ae_title)
            )
        if status not in _TAKEN:
            raise DeliveryError(f"{duty.receiver} answers the notice with status {status:#06x}", holds=False)
        report(1.0, f"{len(here)} instances here, {len(gone)} gone")


def notice_of(study: str, here: Iterable[Reference], gone: Iterable[Reference], ae_title: str) -> Dataset:
    """The attribute list of a notice (PS3.4 Table R.3.2-1)."""
    data_set = Dataset()
    data_set.ReferencedPerformedProcedureStepSequence = []
    data_set.StudyInstanceUID = study
    series: dict[str, list[Dataset]] = {}
    for availability, references in (("ONLINE", here), ("UNAVAILABLE", gone)):
        for series_uid, sop_class, sop in references:
            item = Dataset()
            item.ReferencedSOPClassUID = sop_class
            item.ReferencedSOPInstanceUID = sop
            item.InstanceAvailability = availability
            item.RetrieveAETitle = ae_title
            series.setdefault(series_uid, []).append(item)
    items = []
    for series_uid, instances in series.items():
        item = Dataset()
        item.SeriesInstanceUID = series_uid
        item.ReferencedSOPSequence = instances
        items.append(item)
    data_set.ReferencedSeriesSequence = items
    return data_set


class AvailabilityWatch:
    """A thread that follows the change feed. Use as a context manager."""

    def __init__(
        self, archive: "Archive", receivers: Sequence[str], settle_s: float, stop: threading.Event
    ) -> None:
        """``receivers``: AE titles; none: nobody is told. ``settle_s``: how long a study has
        to be quiet first."""
        self._availability = archive.availability()
        self._receivers = tuple(dict.fromkeys(title.strip() for title in receivers))
        self._settle_s = settle_s
        self._stop = stop
        self._thread = threading.Thread(target=self._run, name="availability", daemon=True)

    def __enter__(self) -> "AvailabilityWatch":
        if self._receivers:
            self._thread.start()
        else:
            self._availability.forget()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._availability.promise(self._receivers, settle_s=self._settle_s)
            except Exception:  # a database that is down: the feed is followed from where it was
                log.exception("the change feed cannot be followed")
            self._stop.wait(_POLL_S)
