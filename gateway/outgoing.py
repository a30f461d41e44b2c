# SPDX-License-Identifier: Apache-2.0
"""What the worker role sends to others, put together: routing rules, outbox, deliverers."""

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from archive.access import Principal
from gateway.delivery import Deliverer
from gateway.dimse.availability import AvailabilityNotifier, AvailabilityWatch
from gateway.dimse.commitment_report import CommitmentReporter
from gateway.dimse.commitment_request import CommitmentRequest
from gateway.dimse.forwarding import Forwarder
from gateway.dimse.peers import peer_table
from gateway.dimse.sending import Sender
from gateway.outbox import Outbox
from gateway.router import Router, RulesFile

if TYPE_CHECKING:
    from archive.service import Archive
    from gateway.settings import Settings

_PRINCIPAL = Principal("outbox", "worker")


def deliverers(archive: "Archive", settings: "Settings", stop: threading.Event) -> list[Deliverer]:
    """One for each kind of duty. Raises SettingsError."""
    ae_title = settings.dimse.ae_title
    peers = peer_table(archive, settings.dimse)
    sender = Sender(archive, ae_title, _PRINCIPAL, archive.policy.scope(_PRINCIPAL), pause=stop.wait)
    return [
        Forwarder(sender, peers.destination, CommitmentRequest(archive, ae_title, _PRINCIPAL)),
        CommitmentReporter(archive, ae_title, peers.destination),
        AvailabilityNotifier(archive, ae_title, peers.destination),
    ]


@contextlib.contextmanager
def outgoing(archive: "Archive", settings: "Settings", stop: threading.Event) -> Iterator[None]:
    """Runs until ``stop`` is set. Raises SettingsError."""
    with contextlib.ExitStack() as running:
        found = deliverers(archive, settings, stop)
        running.enter_context(Outbox(archive, found, stop, keep_days=settings.outbox.keep_days))
        dimse = settings.dimse
        running.enter_context(
            AvailabilityWatch(archive, dimse.availability_peers, dimse.availability_settle_s, stop)
        )
        if settings.routing.file:
            rules = RulesFile(Path(settings.routing.file))
            running.enter_context(Router(archive, rules, stop))
        yield
