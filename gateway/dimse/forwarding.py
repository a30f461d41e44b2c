# SPDX-License-Identifier: Apache-2.0
"""Duties of the outbox to send instances on (kind ``forward``).

Payload: ``study``, ``series`` ("" for all), ``instances`` (absent for all), ``commit``
(ask for storage commitment afterwards), ``rule`` (which routing rule promised it).
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from archive.errors import Gone, NotFound
from gateway.delivery import DeliveryError, Report
from gateway.dimse.peers import Destination
from gateway.dimse.sending import Outcome, Result, Sender

if TYPE_CHECKING:
    from archive.values import Duty

KIND = "forward"


class AskCommitment(Protocol):
    """Asks a receiver to take responsibility; raises DeliveryError."""

    def __call__(self, destination: Destination, references: Sequence[tuple[str, str]]) -> object: ...


class Forwarder:
    """Delivers what ``coverslip send --later`` and the routing rules promised."""

    kind = KIND

    def __init__(
        self,
        sender: Sender,
        destination: Callable[[str], Destination | None],
        ask_commitment: AskCommitment | None = None,
    ) -> None:
        """``destination``: where a peer is called, None where it is not."""
        self._sender = sender
        self._destination = destination
        self._ask_commitment = ask_commitment

    def deliver(self, duty: "Duty", report: Report) -> None:
        """Raises DeliveryError, not before all was tried that can be."""
        destination = self._destination(duty.receiver)
        if destination is None:
            raise DeliveryError(f"no address is known of {duty.receiver}")
        study, series = str(duty.payload["study"]), str(duty.payload.get("series", ""))
        instances = duty.payload.get("instances")
        only = [str(uid) for uid in instances] if isinstance(instances, list) else None
        results: list[Result] = []
        told = _Told(report)
        try:
            for result in self._sender.send(destination, study, series, only=only, progress=told.bytes):
                results.append(result)
                told.results(len(results), len(only or ()))
        except (Gone, NotFound):
            report(1.0, "nothing of it is left")
            return
        failed = [one for one in results if one.outcome is Outcome.FAILED]
        done = [one for one in results if one.outcome not in (Outcome.FAILED, Outcome.GONE)]
        if failed:
            final = all(one.final for one in failed)
            raise DeliveryError(
                f"{len(failed)} of {len(results)} not sent: {failed[0].message}", retry=not final, holds=False
            )
        if duty.payload.get("commit") and done and self._ask_commitment is not None:
            references = [(one.sop_class_uid, one.sop_instance_uid) for one in done]
            self._ask_commitment(destination, references)
        report(1.0, f"{len(done)} sent")


class _Told:
    """Progress of one duty in words."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._megabytes = 0.0
        self._line = ""
        self._share = 0.0

    def bytes(self, size_bytes: int) -> None:
        self._megabytes += size_bytes / 1e6
        self._report(self._share, f"{self._line}{self._megabytes:.0f} MB")

    def results(self, number: int, total: int) -> None:
        self._share = number / total if total else 0.0
        of = f" of {total}" if total else ""
        self._line = f"{number}{of} instances, "
        self._report(self._share, f"{self._line}{self._megabytes:.0f} MB")
