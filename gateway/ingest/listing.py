# SPDX-License-Identifier: Apache-2.0
"""The files below a watched folder, listed cheaply: a folder in which nothing was added,
removed or awaited is not read again at every look, only one ``stat`` of it is made."""

import os
import stat
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from gateway.ingest.settling import Seen

REFRESH_S = 15.0  # a file replaced in place does not touch its folder's time
# A change within the clock's grain of the last reading would not show in the time.
_GRAIN_NS = 2_000_000_000

_TEMPORARY_ENDINGS = (
    ".tmp", ".temp", ".part", ".partial", ".filepart", ".crdownload", ".download", ".swp", ".lock", "~",
)  # fmt: skip
_TEMPORARY_BEGINNINGS = (".", "~", "$")
# A DICOMDIR only lists the instances beside it.
_SYSTEM_NAMES = frozenset({"thumbs.db", "desktop.ini", "system volume information", "lost+found", "dicomdir"})


def is_ignored(name: str) -> bool:
    """Hidden, temporary and system names: files that are not there yet, or for nobody."""
    lower = name.lower()
    return (
        lower.startswith(_TEMPORARY_BEGINNINGS)
        or lower.endswith(_TEMPORARY_ENDINGS)
        or lower in _SYSTEM_NAMES
    )


def companion_folders(file_name: str) -> tuple[str, ...]:
    """Folders beside a slide's main file that belong to it: they hold no slides."""
    stem, _, suffix = file_name.rpartition(".")
    match suffix.lower():
        case "mrxs":
            return (stem,)
        case "vsi":
            return (f"_{stem}_",)
    return ()


@dataclass(slots=True)
class _Folder:
    mtime_ns: int
    read_at_ns: int  # wall clock, to compare with mtime_ns
    refresh_at: float  # monotonic
    files: list[Seen] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)


class Tree:
    """One watched folder and all below it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._known: dict[str, _Folder] = {}
        self.errors: dict[str, str] = {}  # folder (relative) -> why it was not read at the last look

    def look(self, now: float, awaited: Collection[str] = ()) -> Iterator[Seen]:
        """Every file, sorted by folder. ``awaited``: folders to read in any case.

        What cannot be read is left out and named in :attr:`errors`; the rest is given.
        """
        self.errors = {}
        found: dict[str, _Folder] = {}
        pending = [""]
        while pending:
            name = pending.pop()
            folder = self._read(name, now, name in awaited)
            if folder is None:
                continue
            found[name] = folder
            yield from folder.files
            pending.extend(reversed(folder.folders))
        self._known = found

    def _read(self, name: str, now: float, is_awaited: bool) -> _Folder | None:
        path = self.root / name
        try:
            mtime_ns = path.stat().st_mtime_ns
            known = self._known.get(name)
            if (
                known is not None
                and not is_awaited
                and known.mtime_ns == mtime_ns
                and known.read_at_ns - mtime_ns > _GRAIN_NS
                and now < known.refresh_at
            ):
                return known
            folder = _Folder(mtime_ns, time.time_ns(), now + REFRESH_S)
            with os.scandir(path) as entries:
                self._sort(entries, name, folder)
        except OSError as error:
            self.errors[name] = os.strerror(error.errno or 0)
            return None
        return folder

    def _sort(self, entries: Iterator[os.DirEntry[str]], name: str, into: _Folder) -> None:
        owned: set[str] = set()
        for entry in entries:
            if is_ignored(entry.name):
                continue
            try:
                status = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue  # removed while we looked
            relative = f"{name}/{entry.name}" if name else entry.name
            if stat.S_ISDIR(status.st_mode):
                into.folders.append(relative)
            elif stat.S_ISREG(status.st_mode):  # links could lead anywhere
                into.files.append(Seen(relative, status.st_ino, status.st_size, status.st_mtime_ns))
                owned.update(companion_folders(entry.name))
        into.folders = sorted(one for one in into.folders if one.rpartition("/")[2] not in owned)
        into.files.sort(key=lambda seen: seen.path)
