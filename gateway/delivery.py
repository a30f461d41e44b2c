# SPDX-License-Identifier: Apache-2.0
"""Giving receivers what the outbox owes them: what a deliverer is, and how it fails."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from archive.values import Duty

Report = Callable[[float, str], None]
"""Share done (0 to 1) and a line for operators. Call it often: it raises where the duty is
no longer ours."""


class DeliveryError(Exception):
    """An attempt to deliver failed; with ``retry`` a later one may succeed. Unless it
    ``holds``, what is owed to the same receiver besides need not wait for that.

    ``str()`` is one line without a value of a patient: operators see it beside the duty.
    """

    def __init__(self, message: str, *, retry: bool = True, holds: bool = True) -> None:
        super().__init__(message)
        self.retry = retry
        self.holds = holds


class Deliverer(Protocol):
    """Does duties of one kind. What it does may be done twice without harm: a process may
    die between the receiver's answer and our note of it."""

    @property
    def kind(self) -> str: ...

    def deliver(self, duty: "Duty", report: Report) -> None:
        """Raises DeliveryError; anything else is taken for a fault that may pass."""
