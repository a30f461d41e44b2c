# SPDX-License-Identifier: Apache-2.0
"""When a file of a watched folder is quiet: pure state over directory listings.

SMB and NFS tell no changes and scanners write for minutes, so a file is taken once its
identity was the same at every look for ``settle_s`` seconds.
"""

from collections.abc import Iterable
from dataclasses import dataclass


def shown(name: str) -> str:
    r"""A file name as text that every database takes: bytes that are no UTF-8 become ``\xff``."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


@dataclass(frozen=True, slots=True)
class Seen:
    """One file in one listing. ``path`` is relative to the watched folder."""

    path: str
    inode: int
    size_bytes: int
    mtime_ns: int

    @property
    def identity(self) -> str:
        """The same text for the same unchanged file, also after a restart."""
        return f"{self.inode}:{self.size_bytes}:{self.mtime_ns}:{shown(self.path)}"

    @property
    def folder(self) -> str:
        return self.path.rpartition("/")[0]


@dataclass(slots=True)
class _Waiting:
    seen: Seen
    since: float


class Settling:
    """The files of one watched folder, from look to look. Times are monotonic seconds.

    Every identity is given out once; a file that changes is a new one.
    """

    def __init__(self, settle_s: float) -> None:
        self._settle_s = settle_s
        self._waiting: dict[str, _Waiting] = {}
        self._given: dict[str, Seen] = {}

    def look(self, listing: Iterable[Seen], now: float) -> list[Seen]:
        """Take one complete listing; return the files that are quiet now."""
        quiet: list[Seen] = []
        present: set[str] = set()
        for seen in listing:
            present.add(seen.path)
            if self._given.get(seen.path) == seen:
                continue
            self._given.pop(seen.path, None)
            waiting = self._waiting.get(seen.path)
            if waiting is None or waiting.seen != seen:
                waiting = self._waiting[seen.path] = _Waiting(seen, now)
            if now - waiting.since >= self._settle_s:
                quiet.append(seen)
        for path in self._waiting.keys() - present:
            del self._waiting[path]
        for path in self._given.keys() - present:
            del self._given[path]
        for seen in quiet:
            del self._waiting[seen.path]
            self._given[seen.path] = seen
        return quiet

    def put_back(self, seen: Seen, now: float) -> None:
        """It was quiet but not ready: give it again after another ``settle_s``."""
        if self._given.pop(seen.path, None) is not None:
            self._waiting[seen.path] = _Waiting(seen, now)

    def waiting_folders(self) -> set[str]:
        """Folders (relative) in which a file is not quiet yet."""
        return {waiting.seen.folder for waiting in self._waiting.values()}
