# SPDX-License-Identifier: Apache-2.0
"""What every verb of the archive shares: storage, index, rights, trail and clock."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from archive.access import Action, Policy, Principal, Scope
from archive.access_log import AccessLog
from archive.audit import SECURITY_ALERT, AuditRecord, RefusalLimiter
from archive.errors import NotAllowed
from archive.files import OpenFiles
from archive.index.database import Index
from archive.part10.budget import DEFAULT_BUDGET, ParseBudget
from archive.spool import Spool
from archive.storage.base import Storage
from archive.values import FrameCodec

LEASE_S = 24 * 3600  # nothing younger is removed by recover or garbage collection


@dataclass(frozen=True, slots=True)
class Limits:
    """Budgets of one archive; ``free_bytes`` is what must stay free on the medium."""

    parse: ParseBudget = DEFAULT_BUDGET
    free_bytes: int = 256 << 20
    commitment_s: float = 90 * 86_400  # results of storage commitment can be asked for so long
    render_tiles: int = 1024  # decoded for one picture
    render_pixels: int = 64 << 20  # likewise: 8k x 8k


_JOURNAL = "journal_time"  # setting: of the latest entry, microseconds since the epoch


def moment_of(microseconds: int) -> datetime:
    """A time from microseconds since the epoch."""
    return datetime.fromtimestamp(0, UTC) + timedelta(microseconds=microseconds)


def utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(slots=True)
class Core:
    """Owned by one ``Archive``; the verbs' modules take it as their first argument."""

    storage: Storage
    index: Index
    policy: Policy
    spool: Spool
    access: AccessLog
    run_dir: Path
    files: OpenFiles
    codec: FrameCodec | None = None
    limits: Limits = field(default_factory=Limits)
    clock: Callable[[], datetime] = utc_now
    refusals: RefusalLimiter = field(default_factory=RefusalLimiter)

    def check(self, principal: Principal, action: Action) -> None:
        """Raise NotAllowed, and leave a trace of it, unless the policy allows ``action``."""
        if not self.policy.allows(principal, action):
            self.refuse(principal, f"not allowed: {action}")
            raise NotAllowed(str(action))

    def operate(self, principal: Principal, scope: Scope, what: str) -> None:
        """For verbs that touch everything: the right, and the whole scope. NotAllowed."""
        self.check(principal, Action.OPERATE)
        if not scope.is_everything:
            self.refuse(principal, f"{what} from a limited scope")
            raise NotAllowed(what)

    def refuse(self, principal: Principal, reason: str, *, study: str = "", sop: str = "") -> None:
        """Audit a refusal in a transaction of its own, rate-limited with counts."""
        held = self.refusals.admit(principal.actor, reason)
        if held is None:
            return
        detail: dict[str, object] = {"reason": reason}
        if held:
            detail["held_back"] = held
        record = AuditRecord(SECURITY_ALERT, "E", principal, 4, study, sop, detail)
        self.index.write(lambda: self.add_audit(record))

    def add_audit(self, record: AuditRecord) -> None:
        """Insert the event; call inside ``index.write``. ``seq`` is the sequencer's."""
        who = record.principal
        self.index.insert(
            self.index.models.AuditEvent,
            time=self.now_us(),
            code=record.event_id,
            action=record.action,
            outcome=str(record.outcome),
            actor=who.actor,
            via=who.via,
            address=who.address,
            request_id=who.request_id,
            study_instance_uid=record.study_instance_uid,
            sop_instance_uid=record.sop_instance_uid,
            event=record.canonical(),
        )

    def add_change(self, action: str, study: str, series: str = "", sop: str = "") -> None:
        """Insert a line of the change feed; call inside ``index.write``."""
        self.index.insert(
            self.index.models.Change,
            time=self.now_us(),
            action=action,
            study_instance_uid=study,
            series_instance_uid=series,
            sop_instance_uid=sop,
        )

    def now_us(self) -> int:
        """Microseconds since the epoch, UTC."""
        return int(self.clock().timestamp() * 1_000_000)

    def journal_time(self, now: datetime | None = None) -> datetime:
        """A time for the next journal entry: ``now``, or later, so that it is after that of every
        entry before it, whatever a clock that was set back says. Its writer notes it
        (:meth:`note_journal_time`)."""
        last = self.setting(_JOURNAL)
        now = self.clock() if now is None else now
        return max(now, moment_of(last + 1)) if isinstance(last, int) else now

    def journal_mark(self) -> object:
        """Another one once an entry was written after which what is stored may be another."""
        return self.setting(_JOURNAL)

    def note_journal_time(self, time: datetime) -> None:
        """Call inside ``index.write``."""
        last, at = self.setting(_JOURNAL), int(time.timestamp() * 1_000_000)
        if not isinstance(last, int) or last < at:
            self.put_setting(_JOURNAL, at)

    def setting(self, name: str) -> object | None:
        model = self.index.models.Setting
        with self.index.read():
            row = model.get_or_none(model.key == name)
        return None if row is None else json.loads(row.value)

    def put_setting(self, name: str, value: object) -> None:
        """Call inside ``index.write``."""
        model = self.index.models.Setting
        text = json.dumps(value)
        model.insert(key=name, value=text).on_conflict(
            conflict_target=[model.key], update={model.value: text}
        ).execute()
