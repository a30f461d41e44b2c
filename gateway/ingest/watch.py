# SPDX-License-Identifier: Apache-2.0
"""Watched folders: what settles there becomes a job, once.

A file is known by (path, inode, size, time) and then by its digest: the archive
remembers both, so neither a restart nor a second copy takes a slide in twice.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from archive.access import Principal
from gateway.ingest.belonging import (
    arrived,
    belongs_to_another,
    may_belong_to_another,
    state_of_others,
)
from gateway.ingest.completeness import why_incomplete
from gateway.ingest.listing import Tree
from gateway.ingest.settling import Seen, Settling, shown
from gateway.ingest.worker import INGEST, IngestJob, with_others
from gateway.logs import hashed
from gateway.settings import WatchSettings

if TYPE_CHECKING:
    from archive.service import Archive

log = logging.getLogger(__name__)

# A file that is quiet but incomplete is waited for that many times ``settle_s``, in which
# nothing of its slide arrived; then it is taken as it is, so that the reason is shown instead
# of nothing happening.
PATIENCE = 15
_REPEAT_ERROR_S = 60.0
# Slides of several files are looked at again, these many at each look: a file that was
# missing, or damaged, may have come after the refusal.
_AGAIN_PER_LOOK = 20


@dataclass(slots=True)
class _Watched:
    """One folder of the settings."""

    root: Path
    tree: Tree
    settling: Settling
    incomplete: dict[str, tuple[tuple[int, int], int]] = field(default_factory=dict)
    """Identity -> what had arrived of its slide, and how often it was found so."""
    sets: dict[str, tuple[Seen, str]] = field(default_factory=dict)
    """By path, main files that were given to a job and not stored as far as we know, with the state
    of their slide's other files then."""
    complained: dict[str, float] = field(default_factory=dict)  # error -> when it was logged


class Watcher:
    """Looks at the folders; :meth:`look` is one pass and never raises for a folder."""

    def __init__(self, archive: "Archive", settings: WatchSettings) -> None:
        self._archive = archive
        self._settings = settings
        self._principal = Principal("watch", "ingest")
        self._folders = [
            _Watched(Path(text), Tree(Path(text)), Settling(settings.settle_s)) for text in settings.folders
        ]

    def look(self, now: float) -> int:
        """One pass over all folders at monotonic second ``now``; how many jobs it made."""
        return sum(self._look_at(watched, now) for watched in self._folders)

    def _look_at(self, watched: _Watched, now: float) -> int:
        made = 0
        listing = watched.tree.look(now, watched.settling.waiting_folders())
        quiet = watched.settling.look(listing, now)
        for folder, why in watched.tree.errors.items():
            self._complain(watched, f"{hashed(str(watched.root / folder))}: {why}", now)
        for seen in quiet:
            try:
                made += self._take(watched, seen, now)
            except Exception:  # a busy database, a vanished share: this file waits, others go on
                log.exception("%s could not be taken yet", hashed(seen.path))
                watched.settling.put_back(seen, now)
        try:
            self._look_at_sets(watched, now)
        except Exception:  # the same: they are looked at again
            log.exception("slides of several files could not be looked at")
        return made

    def _look_at_sets(self, watched: _Watched, now: float) -> None:
        """Slides whose other files are not as they were go back to those that settle."""
        for _ in range(min(len(watched.sets), _AGAIN_PER_LOOK)):
            name = next(iter(watched.sets))
            seen, before = watched.sets[name] = watched.sets.pop(name)  # the last now
            path = watched.root / seen.path
            try:
                is_same = path.lstat().st_mtime_ns == seen.mtime_ns
                others = state_of_others(path) if is_same else ""
            except FileNotFoundError:
                is_same, others = False, ""
            except OSError:
                continue  # the share is away
            if others == before and self._archive.watched(str(watched.root), seen.identity) is None:
                continue
            del watched.sets[name]
            if is_same and others != before:
                watched.settling.put_back(seen, now)

    def _take(self, watched: _Watched, seen: Seen, now: float) -> bool:
        """Make the job for a quiet file, unless it was dealt with or is not all there."""
        folder = str(watched.root)
        if self._archive.watched(folder, seen.identity) is not None:
            return False
        path = watched.root / seen.path
        try:
            if belongs_to_another(path):
                return False
            missing = why_incomplete(path, self._settings.settle_s)
            if missing is None and may_belong_to_another(path):
                missing = "the main file of its slide is not there yet"
            there = arrived(path) if missing is not None else (0, 0)
        except FileNotFoundError:
            return False
        except OSError:
            missing = None  # the job fails with the reason, and shows it
        if missing is not None:
            before, looks = watched.incomplete.get(seen.identity, (there, 0))
            looks = looks if before == there else 0
            if looks < PATIENCE:
                watched.incomplete[seen.identity] = (there, looks + 1)
                watched.settling.put_back(seen, now)
                return False
        watched.incomplete.pop(seen.identity, None)
        others = _state_of_others(path)
        known_as = with_others(seen.identity, others)
        if others:
            watched.sets[seen.path] = (seen, others)
            if self._archive.watched(folder, known_as) is not None:
                return False
        job = IngestJob(
            path=str(watched.root / seen.path),
            name=shown(seen.path),
            folder=folder,
            identity=seen.identity,
            delete_source=self._settings.delete_source,
            others=others,
        )
        scope = self._archive.policy.scope(self._principal)
        job_id = self._archive.enqueue(
            INGEST, job.payload(), principal=self._principal, scope=scope, key=known_as
        )
        log.info("job %d: %s of %d bytes", job_id, hashed(seen.path), seen.size_bytes)
        return True

    def _complain(self, watched: _Watched, error: str, now: float) -> None:
        """Log an unreadable folder, again every minute for as long as it lasts."""
        last = watched.complained.get(error)
        if last is None or now - last >= _REPEAT_ERROR_S:
            watched.complained[error] = now
            log.error("watched folder %s", error)


def _state_of_others(path: Path) -> str:
    try:
        return state_of_others(path)
    except OSError:
        return ""  # the job fails with the reason, and shows it


def watch(
    archive: "Archive",
    settings: WatchSettings,
    secret: bytes,
    ready: Callable[[], None],
    stop: threading.Event,
) -> None:
    """Look at ``settings.folders`` (absolute paths) until ``stop`` is set.

    ``ready`` is called after the first look. ``secret`` is the site's; the jobs use it.
    """
    watcher = Watcher(archive, settings)
    watcher.look(time.monotonic())
    ready()
    while not stop.wait(settings.poll_s):
        watcher.look(time.monotonic())
