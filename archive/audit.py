# SPDX-License-Identifier: Apache-2.0
"""Audit events in the terms of DICOM PS3.15 A.5.

Changes write theirs as a row inside their own transaction; reads leave lines that become
events later (``archive.access_log``).
"""

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from archive.access import Principal

# PS3.16 CID 400: EventID codes
APPLICATION_ACTIVITY = "110100"
BEGIN_TRANSFERRING = "110102"
INSTANCES_ACCESSED = "110103"
INSTANCES_TRANSFERRED = "110104"
STUDY_DELETED = "110105"
EXPORT = "110106"
IMPORT = "110107"
ORDER_RECORD = "110109"
PROCEDURE_RECORD = "110111"
QUERY = "110112"
SECURITY_ALERT = "110113"

WINDOW_S = 300


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """One event. ``action`` is C, R, U, D or E; ``outcome`` 0, 4, 8 or 12 (PS3.15 A.5.2)."""

    event_id: str
    action: str
    principal: Principal
    outcome: int = 0
    study_instance_uid: str = ""
    sop_instance_uid: str = ""
    detail: dict[str, object] = field(default_factory=dict)

    def canonical(self) -> str:
        """RFC 8785 form of the event (no floats occur); its hash goes into the log."""
        value = {
            "event_id": self.event_id,
            "action": self.action,
            "outcome": self.outcome,
            "actor": self.principal.actor,
            "via": self.principal.via,
            "address": self.principal.address,
            "request_id": self.principal.request_id,
            "study": self.study_instance_uid,
            "instance": self.sop_instance_uid,
            **({"detail": self.detail} if self.detail else {}),
        }
        return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


class RefusalLimiter:
    """At most one refusal a second per actor and reason is written; the rest are counted
    and the count goes with the next."""

    def __init__(self, interval_s: float = 1.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._interval_s = interval_s
        self._clock = clock
        self._lock = threading.Lock()
        self._last: dict[tuple[str, str], tuple[float, int]] = {}

    def admit(self, actor: str, reason: str) -> int | None:
        """How many were held back since the last one written, or None: hold this back too."""
        now = self._clock()
        with self._lock:
            if len(self._last) > 10_000:
                self._last.clear()
            last, held = self._last.get((actor, reason), (float("-inf"), 0))
            if now - last < self._interval_s:
                self._last[(actor, reason)] = (last, held + 1)
                return None
            self._last[(actor, reason)] = (now, 0)
            return held
