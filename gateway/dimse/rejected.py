# SPDX-License-Identifier: Apache-2.0
"""A peer that was turned away leaves a trace (PS3.15 A.5: 110113)."""

import logging
from typing import TYPE_CHECKING

from archive.access import NOTHING, Principal
from archive.errors import ArchiveError

if TYPE_CHECKING:
    from archive.service import Archive

log = logging.getLogger(__name__)


def audit_rejection(archive: "Archive", calling_ae_title: str, address: str) -> None:
    """Audit a rejected association. Never raises: the peer must be told in any case."""
    title = "".join(c for c in calling_ae_title.strip() if c.isprintable())[:16]
    try:
        archive.refused("association rejected", principal=Principal(title, "dimse", address), scope=NOTHING)
    except ArchiveError:
        log.error("the rejection of an association could not be audited", exc_info=True)
