# SPDX-License-Identifier: Apache-2.0
"""Storage commitment (PS3.4 Annex J, PS3.18 Chapter 13): a promise that was checked.

A request is kept under its transaction UID and becomes a job. The job reads every byte
that each instance is made of and compares it with its SHA-256; only then the instance is
committed. Whatever door asked, the answer is the same. Who asked over DIMSE must be told:
that is a duty of the outbox, promised in the transaction that keeps the result.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from enum import IntEnum

from archive import commitment_results
from archive.access import NOTHING, Action, Principal, Scope
from archive.audit import APPLICATION_ACTIVITY, AuditRecord
from archive.core import Core
from archive.errors import (
    ArchiveError,
    BadQuery,
    Busy,
    NoSuchTransaction,
    NotAllowed,
    TransactionExpired,
    TransactionInUse,
)
from archive.non_patient_classes import CATEGORY_OF
from archive.non_patient_index import instance_of, read_blob, sees
from archive.part10.meta import is_uid
from archive.prepare import is_stored_class
from archive.retrieve import Retriever
from archive.rows import find_row, visible
from archive.values import Commitment

KIND = "commitment"
MAX_REFERENCES = 20_000


class CommitmentFailure(IntEnum):
    """Failure Reason (PS3.3 C.14.1.1)."""

    PROCESSING_FAILURE = 0x0110
    NO_SUCH_INSTANCE = 0x0112
    CLASS_INSTANCE_CONFLICT = 0x0119
    SOP_CLASS_NOT_SUPPORTED = 0x0122


Reference = tuple[str, str]
"""SOP Class and SOP Instance UID."""


def request_commitment(
    core: Core,
    transaction: str,
    references: Sequence[Reference],
    *,
    again: bool,
    places: Mapping[str, tuple[str, str]] | None = None,
    principal: Principal,
    scope: Scope,
) -> None:
    """See ``Archive.request_commitment``."""
    core.check(principal, Action.READ)
    if scope == NOTHING:
        core.refuse(principal, "commitment for who sees nothing")
        raise NotAllowed(str(Action.READ))
    if not references or len(references) > MAX_REFERENCES:
        raise BadQuery(f"a request names 1 to {MAX_REFERENCES} instances")
    if not all(is_uid(text) for text in (transaction, *(uid for pair in references for uid in pair))):
        raise BadQuery("a request names a transaction and instances by UIDs")
    value: dict[str, object] = {
        "actor": principal.actor,
        "via": principal.via,
        "address": principal.address,
        "roles": sorted(principal.roles),
        "references": [list(pair) for pair in references],
    }
    if places:
        value["places"] = {sop: list(place) for sop, place in places.items()}
    model = core.index.models.Job

    def commit() -> None:
        known = core.setting(commitment_results.key_of(transaction))
        if isinstance(known, dict):
            asked = ("actor", "via", "references")
            if not again or any(known.get(name) != value[name] for name in asked):
                raise TransactionInUse(transaction)
            if "failed" in known:
                commitment_results.promise(core, transaction, known)
            return
        core.put_setting(commitment_results.key_of(transaction), value)
        now = core.now_us()
        payload = json.dumps({"transaction": transaction})
        model.create(kind=KIND, key=transaction, payload=payload, created=now, updated=now)
        detail: dict[str, object] = {"commitment": transaction, "number_of_instances": len(references)}
        core.add_audit(AuditRecord(APPLICATION_ACTIVITY, "E", principal, detail=detail))

    core.index.write(commit)


def commitment(core: Core, transaction: str, *, principal: Principal) -> Commitment:
    """See ``Archive.commitment``."""
    core.check(principal, Action.READ)
    value = core.setting(commitment_results.key_of(transaction))
    if not isinstance(value, dict) or value["actor"] != principal.actor:
        raise NoSuchTransaction(transaction)
    kept_us = int(core.limits.commitment_s * 1e6)
    if value.get("expired") or core.now_us() - value.get("ended", core.now_us()) > kept_us:
        raise TransactionExpired(transaction)
    return commitment_results.as_commitment(value)


def run_commitment(
    core: Core, retriever: Retriever, transaction: str, progress: Callable[[float], None]
) -> tuple[int, int]:
    """See ``Archive.run_commitment``."""
    value = core.setting(commitment_results.key_of(transaction))
    if not isinstance(value, dict):
        raise NoSuchTransaction(transaction)
    principal = Principal(
        value["actor"], value["via"], value["address"], transaction, frozenset(value["roles"])
    )
    references, places = value["references"], value.get("places", {})
    if "failed" in value:  # by a worker that died before it could say so
        return len(references), len(value["failed"])
    failed: dict[str, int] = {}
    for number, (sop_class, sop) in enumerate(references):
        reason = _failure(core, retriever, principal, sop_class, sop, places.get(sop))
        if reason is not None:
            failed[sop] = int(reason)
        progress((number + 1) / len(references))
    detail: dict[str, object] = {
        "commitment": transaction,
        "number_of_instances": len(references),
        "failed": len(failed),
    }
    record = AuditRecord(APPLICATION_ACTIVITY, "E", principal, 4 if failed else 0, detail=detail)

    def commit() -> None:
        # Read again: who asked may have taken the turn to be told meanwhile.
        known = core.setting(commitment_results.key_of(transaction))
        assert isinstance(known, dict)
        ended = core.now_us()
        result = {**known, "failed": failed, "ended": ended}
        core.put_setting(commitment_results.ended_key(ended, transaction), True)
        core.put_setting(commitment_results.key_of(transaction), result)
        if value["via"] == commitment_results.VIA:
            commitment_results.promise(core, transaction, result)
        core.add_audit(record)

    core.index.write(commit)
    return len(references), len(failed)


def _failure(
    core: Core,
    retriever: Retriever,
    principal: Principal,
    sop_class: str,
    sop: str,
    place: Sequence[str] | None,
) -> CommitmentFailure | None:
    """Why an instance is not committed; None when all its bytes are what they should be."""
    row = find_row(core, sop)
    scope = core.policy.scope(principal)
    if row is None and sop_class in CATEGORY_OF and place is None:
        return _failure_of_non_patient(core, sop_class, sop, scope)
    if row is None or not (scope.is_everything or visible(core, row.study_id, scope)):
        if not is_stored_class(sop_class):
            return CommitmentFailure.SOP_CLASS_NOT_SUPPORTED
        return CommitmentFailure.NO_SUCH_INSTANCE
    if place is not None and [row.study_instance_uid, row.series_instance_uid] != list(place):
        return CommitmentFailure.NO_SUCH_INSTANCE  # not there
    if row.sop_class_uid != sop_class:
        return CommitmentFailure.CLASS_INSTANCE_CONFLICT
    try:
        retriever.check(row.describe(), principal=principal, scope=scope)
    except Busy:
        raise  # the job is tried again
    except ArchiveError:
        return CommitmentFailure.PROCESSING_FAILURE
    return None


def _failure_of_non_patient(core: Core, sop_class: str, sop: str, scope: Scope) -> CommitmentFailure | None:
    found = instance_of(core, sop)
    if found is None or not sees(scope, found.category):
        return CommitmentFailure.NO_SUCH_INSTANCE
    if found.sop_class_uid != sop_class:
        return CommitmentFailure.CLASS_INSTANCE_CONFLICT
    try:
        data = read_blob(core, found.digest, found.size_bytes)
    except ArchiveError:
        return CommitmentFailure.PROCESSING_FAILURE
    same = hashlib.sha256(data).digest() == found.digest
    return None if same else CommitmentFailure.PROCESSING_FAILURE
