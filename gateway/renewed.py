# SPDX-License-Identifier: Apache-2.0
"""What is made of files, made again when they change: no restart for a new certificate."""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

from gateway.settings_read import SettingsError

T = TypeVar("T")
Signature = tuple[tuple[int, int, int] | None, ...]

log = logging.getLogger(__name__)

CHECK_S = 1.0  # how late a change may be seen


class Renewed(Generic[T]):
    """The value of ``make``, for any thread. A change that ``make`` refuses (SettingsError)
    is logged, and the value before stays in use."""

    def __init__(self, paths: Sequence[Path], make: Callable[[], T]) -> None:
        """Raises what ``make`` raises."""
        self._paths = list(paths)
        self._make = make
        self._lock = threading.Lock()
        self._seen = self._signature()
        self._checked = time.monotonic()
        self._value = make()

    def current(self) -> T:
        with self._lock:
            now = time.monotonic()
            if now - self._checked >= CHECK_S:
                self._checked = now
                self._look()
            return self._value

    def _look(self) -> None:
        signature = self._signature()
        if signature == self._seen:
            return
        self._seen = signature
        names = ", ".join(path.name for path in self._paths)
        try:
            self._value = self._make()
        except SettingsError as error:
            log.error("%s changed and cannot be used, what was read before stays: %s", names, error)
        else:
            log.info("%s read again", names)

    def _signature(self) -> Signature:
        return tuple(map(_signature, self._paths))


def _signature(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
