# SPDX-License-Identifier: Apache-2.0
"""What an archive needs now and then: the worker role does it beside its jobs."""

import logging
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from archive.access import Principal

if TYPE_CHECKING:
    from archive.service import Archive

log = logging.getLogger(__name__)

FOLD_S = 30.0  # access lines of finished hours become audit events
KEYS_S = 10.0  # keys that the settings name newly get their job
COLLECT_S = 3600.0  # blobs that nothing has referred to for a day go
EXPIRE_S = 600.0  # results of storage commitment go when their time is over


class Maintenance:
    """Runs each duty when it is due, in a thread of its own. Use as a context manager."""

    def __init__(self, archive: "Archive", stop: threading.Event) -> None:
        self._archive = archive
        self._stop = stop
        self._principal = Principal("maintenance", "worker")
        self._duties: list[tuple[float, Callable[[], int]]] = [
            (FOLD_S, archive.fold_access),
            (KEYS_S, self._keys),
            (COLLECT_S, self._collect),
            (EXPIRE_S, archive.expire_commitments),
        ]
        self._thread = threading.Thread(target=self._run, name="maintenance", daemon=True)

    def __enter__(self) -> "Maintenance":
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        self._thread.join()

    def _collect(self) -> int:
        scope = self._archive.policy.scope(self._principal)
        return self._archive.collect_garbage(principal=self._principal, scope=scope)

    def _keys(self) -> int:
        scope = self._archive.policy.scope(self._principal)
        return self._archive.want_keys(principal=self._principal, scope=scope)

    def _run(self) -> None:
        due = {number: time.monotonic() + every_s for number, (every_s, _) in enumerate(self._duties)}
        while not self._stop.wait(max(0.0, min(due.values()) - time.monotonic())):
            for number, (every_s, duty) in enumerate(self._duties):
                if time.monotonic() < due[number]:
                    continue
                due[number] = time.monotonic() + every_s
                try:
                    duty()
                except Exception:  # a busy database or a full disk: it is tried again when next due
                    log.exception("maintenance failed")
