# SPDX-License-Identifier: Apache-2.0
"""Who asks, what they may do, and which rows they see.

Decides; knows neither HTTP nor AE titles. Edges authenticate and make a
:class:`Principal`; a :class:`Policy` turns it into a :class:`Scope`, the SQL predicate
that every query carries, and into yes or no for each :class:`Action`.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol


class Action(StrEnum):
    """What a verb of the archive does, for policy and audit."""

    SEARCH = "search"
    READ = "read"
    READ_BASE = "read_base"  # the stream as received, before corrections
    READ_ORIGINAL = "read_original"  # the scanner's own file: patient data
    STORE = "store"
    REPLACE = "replace"
    CORRECT = "correct"
    SCHEDULE = "schedule"  # orders of the worklist
    DELETE = "delete"
    OPERATE = "operate"  # jobs, quarantine, verify, reindex, garbage collection


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks. ``actor`` is a user name, an AE title or a role of ours; ``via`` the
    door (``dicomweb``, ``dimse``, ``cli``, ``ingest``, ``worker``)."""

    actor: str
    via: str
    address: str = ""
    request_id: str = ""
    roles: frozenset[str] = field(default_factory=frozenset)


@dataclass(frozen=True, slots=True)
class Scope:
    """An SQL predicate over the row of ``study`` (aliased ``study`` in every query).

    ``sql`` uses ``?`` for its parameters; the index adapts it to the database.
    """

    sql: str
    parameters: tuple[object, ...] = ()

    @property
    def is_everything(self) -> bool:
        return self.sql == "1 = 1"


EVERYTHING = Scope("1 = 1")
NOTHING = Scope("1 = 0")


class Policy(Protocol):
    """One decision function; implementations must be pure and fast (per request)."""

    def scope(self, principal: Principal) -> Scope:
        """Which studies the principal sees."""

    def allows(self, principal: Principal, action: Action) -> bool:
        """Whether the principal may do ``action`` at all, within its scope."""


class OpenPolicy:
    """``auth.mode = "open"``: everybody on this machine sees and does everything."""

    def scope(self, principal: Principal) -> Scope:
        return EVERYTHING

    def allows(self, principal: Principal, action: Action) -> bool:
        return True
