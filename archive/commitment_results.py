# SPDX-License-Identifier: Apache-2.0
"""Results of storage commitment on their way to application entities (PS3.4 J.3.3).

A result is told once, by whoever has the turn: the association on which it was asked for,
a later one of the same peer, or the outbox, which asks for one. Turns are leases.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

from archive import outbox
from archive.core import Core
from archive.errors import NoSuchTransaction
from archive.values import Commitment

VIA = "dimse"
DUTY = "commitment"  # kind of the outbox's duty; its payload: {"transaction": UID}
_FIRST_CHANCE_S = 2.0
_ENDED = "commitment-ended/"
_AT_ONCE = 1000  # of results that expire
_KEPT = 1000  # results that wait for one peer that nobody can call


def key_of(transaction: str) -> str:
    """Name of the setting that keeps a request and its result."""
    return f"commitment/{transaction}"


def _untold_key(actor: str) -> str:
    return f"commitment-untold/{actor}"


def as_commitment(value: Mapping[str, Any]) -> Commitment:
    """What is kept of a request, as edges see it."""
    if "failed" not in value:
        return Commitment(False)
    failed = {sop: int(reason) for sop, reason in value["failed"].items()}
    references = [(str(sop_class), str(sop)) for sop_class, sop in value["references"]]
    return Commitment(
        True,
        tuple(pair for pair in references if pair[1] not in failed),
        tuple((sop_class, sop, failed[sop]) for sop_class, sop in references if sop in failed),
        {sop: (study, series) for sop, (study, series) in value.get("places", {}).items()},
    )


def ended_key(moment_us: int, transaction: str) -> str:
    """Name of the setting by which a result that is there is found when its time is over."""
    return f"{_ENDED}{moment_us:020d}/{transaction}"


def expire(core: Core) -> int:
    """Forget results whose time is over, and who asked for them; that a Transaction UID was
    used is remembered. Returns how many."""
    setting = core.index.models.Setting
    last = f"{_ENDED}{core.now_us() - int(core.limits.commitment_s * 1e6):020d}"
    with core.index.read():
        due = setting.select(setting.key).where((setting.key > _ENDED) & (setting.key < last)).limit(_AT_ONCE)
        keys = [key for (key,) in due.tuples()]
    for key in keys:
        core.index.write(partial(_forget, core, key))
    return len(keys)


def _forget(core: Core, key: str) -> None:
    setting = core.index.models.Setting
    transaction = key.rpartition("/")[2]
    value = core.setting(key_of(transaction))
    if isinstance(value, dict):
        if value["via"] == VIA:
            left = [uid for uid in _untold(core, value["actor"]) if uid != transaction]
            core.put_setting(_untold_key(value["actor"]), left)
        core.put_setting(key_of(transaction), {"actor": value["actor"], "via": value["via"], "expired": True})
    setting.delete().where(setting.key == key).execute()


def promise(core: Core, transaction: str, value: Mapping[str, Any]) -> None:
    """Who asked will be told (again). Call inside ``index.write``."""
    core.put_setting(key_of(transaction), {**value, "told": False})
    waiting = [uid for uid in _untold(core, value["actor"]) if uid != transaction]
    core.put_setting(_untold_key(value["actor"]), [*waiting, transaction][-_KEPT:])
    # First it is for the association of the request, where that is still open.
    outbox.add(core, value["actor"], DUTY, {"transaction": transaction}, transaction, delay_s=_FIRST_CHANCE_S)


def _untold(core: Core, actor: str) -> list[str]:
    found = core.setting(_untold_key(actor))
    return [str(uid) for uid in found] if isinstance(found, list) else []


class CommitmentResults:
    """Turns at telling. Thread-safe; several processes may ask."""

    def __init__(self, core: Core) -> None:
        self._core = core

    def untold(self, ae_title: str) -> list[str]:
        """Transactions of a peer whose results are there and not told, oldest first."""
        return _untold(self._core, ae_title)

    def take(self, transaction: str, owner: str, *, lease_s: float) -> Commitment | None:
        """The turn to tell a result, there already or not, for ``lease_s`` seconds from
        now; None where it was told or somebody else has the turn. Raises NoSuchTransaction."""
        core = self._core

        def commit() -> Commitment | None:
            value = self._value(transaction)
            now = core.now_us()
            if value.get("told") or (value.get("owner", "") not in ("", owner) and value["until"] > now):
                return None
            until = now + int(lease_s * 1e6)
            core.put_setting(key_of(transaction), {**value, "owner": owner, "until": until})
            return as_commitment(value)

        return core.index.write(commit)

    def leave(self, transaction: str, owner: str) -> None:
        """Give the turn back: the result was not told."""

        def commit() -> None:
            value = self._value(transaction)
            if value.get("owner") == owner:
                self._core.put_setting(key_of(transaction), {**value, "owner": "", "until": 0})

        self._core.index.write(commit)

    def told(self, transaction: str) -> None:
        """The peer has answered that it knows."""
        core = self._core

        def commit() -> None:
            value = self._value(transaction)
            core.put_setting(key_of(transaction), {**value, "told": True, "owner": "", "until": 0})
            left = [uid for uid in _untold(core, value["actor"]) if uid != transaction]
            core.put_setting(_untold_key(value["actor"]), left)

        core.index.write(commit)

    def is_told(self, transaction: str) -> bool:
        """Whether the peer knows. Raises NoSuchTransaction."""
        return bool(self._value(transaction).get("told"))

    def _value(self, transaction: str) -> dict[str, Any]:
        value = self._core.setting(key_of(transaction))
        if not isinstance(value, dict) or value.get("expired"):
            raise NoSuchTransaction(transaction)
        return value
