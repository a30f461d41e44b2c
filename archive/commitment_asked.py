# SPDX-License-Identifier: Apache-2.0
"""Storage commitment that we ask of others for what we sent them (PS3.4 Annex J, as SCU).

The answer may come at once, or days later on an association of theirs: it is kept under
the Transaction UID, for each instance.
"""

from collections.abc import Sequence
from typing import Any

from archive.access import Principal
from archive.audit import APPLICATION_ACTIVITY, AuditRecord
from archive.core import Core
from archive.errors import NoSuchTransaction, TransactionInUse
from archive.values import Commitment

UNANSWERED = 0x0110  # Failure Reason of what a peer's answer does not name: processing failure


def _key(transaction: str) -> str:
    return f"commitment-asked/{transaction}"


class AskedCommitments:
    """What we asked of whom, and what they answered. Thread-safe."""

    def __init__(self, core: Core) -> None:
        self._core = core

    def ask(
        self, transaction: str, ae_title: str, references: Sequence[tuple[str, str]], *, principal: Principal
    ) -> None:
        """Keep a request, before it is sent. The same again is no conflict; raises
        TransactionInUse for another one."""
        core = self._core
        value = {"ae_title": ae_title, "references": [list(pair) for pair in references]}

        def commit() -> None:
            known = core.setting(_key(transaction))
            if known is None:
                core.put_setting(_key(transaction), value)
                self._audit(principal, 0, transaction, ae_title, len(references), "asked")
            elif not isinstance(known, dict) or any(known[name] != value[name] for name in value):
                raise TransactionInUse(transaction)

        core.index.write(commit)

    def answer(
        self,
        transaction: str,
        failed: Sequence[tuple[str, int]],
        committed: Sequence[str],
        *,
        principal: Principal,
    ) -> None:
        """Keep what a peer (``principal``) answered: SOP Instance UIDs, failed ones with
        their Failure Reason; what it names neither way has failed. Harmless when it comes
        twice. Raises NoSuchTransaction: not asked, or not of this peer."""
        core = self._core

        def commit() -> None:
            value = self._value(transaction)
            if value["ae_title"] != principal.actor:
                raise NoSuchTransaction(transaction)
            reasons = dict(failed)
            safe = set(committed) - set(reasons)
            missing = {sop: reasons.get(sop, UNANSWERED) for _, sop in value["references"] if sop not in safe}
            core.put_setting(_key(transaction), {**value, "failed": missing})
            outcome = 4 if missing else 0
            self._audit(
                principal, outcome, transaction, principal.actor, len(value["references"]), "answered"
            )

        core.index.write(commit)

    def result(self, transaction: str) -> Commitment:
        """What is known of the answer. Raises NoSuchTransaction."""
        value = self._value(transaction)
        if "failed" not in value:
            return Commitment(False)
        failed = {str(sop): int(reason) for sop, reason in value["failed"].items()}
        return Commitment(
            True,
            tuple((c, sop) for c, sop in value["references"] if sop not in failed),
            tuple((c, sop, failed[sop]) for c, sop in value["references"] if sop in failed),
        )

    def _value(self, transaction: str) -> dict[str, Any]:
        value = self._core.setting(_key(transaction))
        if not isinstance(value, dict):
            raise NoSuchTransaction(transaction)
        return value

    def _audit(
        self, principal: Principal, outcome: int, transaction: str, ae_title: str, number: int, what: str
    ) -> None:
        detail: dict[str, object] = {
            "commitment": transaction, "destination": ae_title, "number_of_instances": number, "step": what,
        }  # fmt: skip
        self._core.add_audit(AuditRecord(APPLICATION_ACTIVITY, "E", principal, outcome, detail=detail))
