# SPDX-License-Identifier: Apache-2.0
"""Empties the outbox: the worker role does it beside its jobs.

A turn is a lease that a heartbeat renews; when a worker dies, another takes the duty over
once the lease has run out. Between attempts the pause doubles from ten seconds to an hour;
after ``outbox.keep_days`` a duty is given up, and stays to be seen.
"""

import logging
import os
import socket
import threading
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from archive.errors import LeaseLost, NoSuchDuty
from gateway.delivery import Deliverer, DeliveryError
from gateway.ingest.transient import is_transient, reason_of

if TYPE_CHECKING:
    from archive.service import Archive
    from archive.values import Duty

log = logging.getLogger(__name__)

THREADS = 8  # receivers served at once
LEASE_S = 60.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 10.0, 3600.0
_POLL_S = 1.0
_REPORT_S = 1.0
_FORGET_S = 3600.0
_FORGOTTEN_AFTER_S = 30 * 86400.0


class Stopped(Exception):
    """The worker stops: the duty goes back, and may be taken up at once."""


class Outbox:
    """Threads that take turns at duties. Use as a context manager."""

    def __init__(
        self,
        archive: "Archive",
        deliverers: Sequence[Deliverer],
        stop: threading.Event,
        *,
        keep_days: float,
        threads: int = THREADS,
    ) -> None:
        self._archive = archive
        self._deliverers = {one.kind: one for one in deliverers}
        self._stop = stop
        self._keep = timedelta(days=keep_days)
        self._owner = f"{socket.gethostname()}-{os.getpid()}"
        self._idle = threading.Lock()  # one thread looks for work, the others wait for it
        self._turns: dict[int, _Turn] = {}
        names = [("outbox", self._work)] * threads + [("outbox-lease", self._renew)]
        self._threads = [threading.Thread(target=run, name=name, daemon=True) for name, run in names]
        self._forget_at = time.monotonic()

    def __enter__(self) -> "Outbox":
        if self._deliverers:
            for thread in self._threads:
                thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()

    def _work(self) -> None:
        while not self._stop.is_set():
            try:
                with self._idle:
                    duty = self._next()
                if duty is not None:
                    self.attempt(duty)
            except Exception:  # a database that is down: the duty's lease runs out, it is not lost
                log.exception("the outbox cannot be worked on")
                self._stop.wait(FIRST_PAUSE_S)

    def _next(self) -> "Duty | None":
        """Wait for the next duty; None when the worker stops."""
        while not self._stop.is_set():
            duty = self._archive.claim_duty(tuple(self._deliverers), lease_s=LEASE_S, owner=self._owner)
            if duty is not None:
                return duty
            if time.monotonic() >= self._forget_at:
                self._forget_at = time.monotonic() + _FORGET_S
                self._archive.forget_duties(_FORGOTTEN_AFTER_S)
            self._stop.wait(_POLL_S)
        return None

    def attempt(self, duty: "Duty") -> None:
        """One turn at a duty, whatever comes of it."""
        turn = self._turns[duty.id] = _Turn(self._archive, duty, self._stop)
        attempt = duty.attempts
        try:
            try:
                self._deliverers[duty.kind].deliver(duty, turn.report)
            except Stopped:
                self._archive.fail_duty(duty.id, "interrupted", 0, attempt=attempt)
            except DeliveryError as error:
                self._failed(duty, str(error), error.retry, error.holds)
            except (LeaseLost, NoSuchDuty):
                raise
            except Exception as error:  # a fault of ours, or of the medium: it may pass
                if is_transient(error):
                    self._failed(duty, reason_of(error), True, True)
                else:
                    log.exception("duty %d failed", duty.id)
                    self._failed(duty, f"internal error ({type(error).__name__})", True, False)
            else:
                self._archive.finish_duty(duty.id, turn.message, attempt=attempt)
        except (LeaseLost, NoSuchDuty):
            log.warning("duty %d was cancelled, or is somebody else's by now", duty.id)
        finally:
            del self._turns[duty.id]

    def _failed(self, duty: "Duty", message: str, retry: bool, holds: bool) -> None:
        pause: float | None = None
        if retry and datetime.now(UTC) - duty.created < self._keep:
            pause = min(FIRST_PAUSE_S * 2.0 ** min(duty.attempts - 1, 20), LONGEST_PAUSE_S)
            log.warning("%s to %s is tried again in %d s: %s", duty.kind, duty.receiver, pause, message)
        else:
            log.error("%s to %s is given up: %s", duty.kind, duty.receiver, message)
        self._archive.fail_duty(duty.id, message, pause, attempt=duty.attempts, holds=holds)

    def _renew(self) -> None:
        while not self._stop.wait(LEASE_S / 4):
            for turn in list(self._turns.values()):
                turn.renew()


class _Turn:
    """Reports of one duty, to the database once a second."""

    def __init__(self, archive: "Archive", duty: "Duty", stop: threading.Event) -> None:
        self.message = ""
        self._archive = archive
        self._duty = duty
        self._stop = stop
        self._lost = False
        self._next = 0.0

    def report(self, share: float, message: str) -> None:
        """Raises LeaseLost, Stopped."""
        self.message = message
        if self._lost:
            raise LeaseLost(self._duty.id)
        if self._stop.is_set():
            raise Stopped
        now = time.monotonic()
        if now >= self._next:
            self._next = now + _REPORT_S
            progress = {"share": round(share, 3)}
            self._archive.report_duty(
                self._duty.id,
                progress=progress,
                message=message,
                lease_s=LEASE_S,
                attempt=self._duty.attempts,
            )

    def renew(self) -> None:
        try:
            self._archive.report_duty(self._duty.id, lease_s=LEASE_S, attempt=self._duty.attempts)
        except (LeaseLost, NoSuchDuty):
            self._lost = True
        except Exception:  # a database that is away: the next beat tries again
            log.exception("a lease could not be renewed")
