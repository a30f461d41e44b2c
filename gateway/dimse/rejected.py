# SPDX-License-Identifier: Apache-2.0
"""A peer that was turned away leaves a trace (PS3.15 A.5: 110113)."""

import logging
from typing import TYPE_CHECKING

from pynetdicom.events import Event

from archive.access import NOTHING, Principal
from archive.errors import ArchiveError

if TYPE_CHECKING:
    from archive.service import Archive

log = logging.getLogger(__name__)


def on_rejected(event: Event, archive: "Archive") -> None:
    """Audit a rejected association; it is told so afterwards. Never raises."""
    association = event.assoc
    title = "".join(c for c in str(association.requestor.ae_title) if c.isprintable())[:16]
    peer = Principal(title, "dimse", association.peer_address)
    try:
        archive.refused("association rejected", principal=peer, scope=NOTHING)
    except ArchiveError:
        log.error("the rejection of an association could not be audited", exc_info=True)
