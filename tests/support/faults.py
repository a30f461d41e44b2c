# SPDX-License-Identifier: Apache-2.0
"""Faults as small wrappers around real parts; production code has no hooks for them."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from archive.errors import StorageFull
from archive.storage.local import LocalStorage


def kill_myself() -> None:
    """As a power cut for the process: no handler, no finally, no flush."""
    os.kill(os.getpid(), signal.SIGKILL)


class Doomed:
    """A part whose ``method`` dies ``before`` or ``after`` its work, when ``matches``
    says so of the first argument."""

    def __init__(
        self,
        part: Any,
        method: str,
        when: str,
        matches: Callable[[Any], bool],
        fate: Callable[[], None] = kill_myself,
    ) -> None:
        self._part, self._method, self._when, self._matches, self._fate = part, method, when, matches, fate

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._part, name)
        if name != self._method:
            return found

        def call(*args: Any, **named: Any) -> Any:
            hit = self._matches(args[0])
            if hit and self._when == "before":
                self._fate()
            result = found(*args, **named)
            if hit and self._when == "after":
                self._fate()
            return result

        return call


class FullDisk(LocalStorage):
    """A store that has no room left for keys that begin with ``prefix``."""

    def __init__(self, root: Path, prefix: str) -> None:
        super().__init__(root)
        self.prefix = prefix

    def put_file(self, key: str, path: Path, *, sha256: bytes) -> None:
        if key.startswith(self.prefix):
            raise StorageFull("no space left in the store")
        super().put_file(key, path, sha256=sha256)

    def put_bytes(self, key: str, data: bytes) -> None:
        if key.startswith(self.prefix):
            raise StorageFull("no space left in the store")
        super().put_bytes(key, data)


def flip_bit(path: Path, offset: int) -> None:
    """Change one bit of a stored object, which is read-only for everybody else."""
    path.chmod(0o600)
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(bytes(data))
