# SPDX-License-Identifier: Apache-2.0
"""Instances that go to another application entity, audited as a whole (PS3.15 A.5.3.3, A.5.3.7).

The begin of a transfer (110102) is on record before the first byte is read; what became
of it (110104, one event a study) when it ends, however it ends.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from types import TracebackType
from typing import Any

from archive.access import Action, Principal, Scope
from archive.audit import BEGIN_TRANSFERRING, INSTANCES_TRANSFERRED, AuditRecord
from archive.core import Core
from archive.errors import TooLarge
from archive.index.columns import Level
from archive.index.query import Query
from archive.retrieve import Retriever
from archive.values import ByteStream, Instance

_OUTCOMES = {(True, False): 0, (True, True): 4, (False, True): 8}  # (some sent, some failed)


@dataclass(frozen=True, slots=True)
class Reference:
    """One instance by what a sender must know of it before it opens it."""

    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str


class Transfer:
    """A context manager; ``references`` are to be sent. Nothing is written where none are."""

    def __init__(
        self,
        core: Core,
        retriever: Retriever,
        references: list[Reference],
        destination: str,
        *,
        principal: Principal,
        scope: Scope,
    ) -> None:
        self.references = references
        self._core = core
        self._retriever = retriever
        self._destination = destination
        self._principal = principal
        self._scope = scope
        self._sent: dict[str, Counter[str]] = {}
        self._failed: Counter[str] = Counter()

    def __enter__(self) -> "Transfer":
        numbers = Counter(reference.study_instance_uid for reference in self.references)
        self._write(
            AuditRecord(
                BEGIN_TRANSFERRING, "E", self._principal, 0, study, "", self._detail(number_of_instances=n)
            )
            for study, n in numbers.items()
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._write(self._record(study) for study in sorted({*self._sent, *self._failed}))

    def open(self, reference: Reference, transfer_syntax_uid: str = "") -> ByteStream:
        """The Part 10 stream, as stored or in that transfer syntax. Raises Gone when it was
        deleted since, NotFound, CannotTranscode, Damaged."""
        return self._retriever.open(
            self._instance(reference),
            principal=self._principal,
            scope=self._scope,
            base=False,
            transfer_syntax_uid=transfer_syntax_uid,
            noted=False,
        )

    def can_open(self, reference: Reference, transfer_syntax_uid: str) -> bool:
        """Whether :meth:`open` would give it so. Raises Gone, NotFound."""
        return self._retriever.can_open(self._instance(reference), transfer_syntax_uid, scope=self._scope)

    def sent(self, reference: Reference) -> None:
        """The peer has it."""
        classes = self._sent.setdefault(reference.study_instance_uid, Counter())
        classes[reference.sop_class_uid] += 1

    def failed(self, reference: Reference) -> None:
        """The peer does not have it and will not get it."""
        self._failed[reference.study_instance_uid] += 1

    def _instance(self, reference: Reference) -> Instance:
        return self._retriever.instance(
            reference.study_instance_uid,
            reference.series_instance_uid,
            reference.sop_instance_uid,
            principal=self._principal,
            scope=self._scope,
        )

    def _record(self, study: str) -> AuditRecord:
        classes, failed = self._sent.get(study, Counter()), self._failed[study]
        outcome = _OUTCOMES[(bool(classes), bool(failed))]
        detail = self._detail(
            number_of_instances=classes.total(), failed=failed, sop_classes=dict(sorted(classes.items()))
        )
        return AuditRecord(INSTANCES_TRANSFERRED, "R", self._principal, outcome, study, "", detail)

    def _detail(self, **more: object) -> dict[str, object]:
        return {"destination": self._destination, **more}

    def _write(self, records: Iterable[AuditRecord]) -> None:
        made = list(records)

        def verb() -> None:
            for record in made:
                self._core.add_audit(record)

        if made:
            self._core.index.write(verb)


def transfer(
    core: Core,
    retriever: Retriever,
    query: Query,
    destination: str,
    *,
    most: int,
    principal: Principal,
    scope: Scope,
) -> Transfer:
    """See ``Archive.transfer``."""
    core.check(principal, Action.READ)
    assert query.level is Level.INSTANCE
    rows = core.index.iterate(query, scope)
    found = [_reference(row) for row in islice(rows, most + 1)]
    if len(found) > most:
        raise TooLarge(f"more than {most} instances")
    return Transfer(core, retriever, found, destination, principal=principal, scope=scope)


def _reference(row: dict[str, Any]) -> Reference:
    return Reference(
        row["study.study_instance_uid"],
        row["series.series_instance_uid"],
        row["instance.sop_instance_uid"],
        row["instance.sop_class_uid"],
        row["instance.transfer_syntax_uid"],
    )
