# SPDX-License-Identifier: Apache-2.0
"""A peer that was turned away, or cut off, leaves a trace (PS3.15 A.5: 110113).

One a second for each address and reason: who floods us chooses its AE titles at will.
"""

import logging
from typing import TYPE_CHECKING

from archive.access import NOTHING, Principal
from archive.audit import RefusalLimiter

if TYPE_CHECKING:
    from archive.service import Archive

log = logging.getLogger(__name__)


class Refusals:
    """Writes them for one listener."""

    def __init__(self, archive: "Archive") -> None:
        self._archive = archive
        self._limiter = RefusalLimiter()

    def audit(self, calling_ae_title: str, address: str, reason: str) -> None:
        """An association was rejected or cut off for ``reason`` (a fixed text).

        Never raises: the peer must be told, and its threads must end, in any case.
        """
        held = self._limiter.admit(address, reason)
        if held is None:
            return
        if held:
            reason = f"{reason} ({held} more from that address)"
        title = "".join(c for c in calling_ae_title.strip() if c.isprintable())[:16]
        try:
            self._archive.refused(reason, principal=Principal(title, "dimse", address), scope=NOTHING)
        except Exception:  # a database that is away raises its own
            log.error("%s: this could not be audited", reason, exc_info=True)
