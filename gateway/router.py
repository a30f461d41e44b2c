# SPDX-License-Identifier: Apache-2.0
"""Follows the change feed and promises what the routing rules say; the worker role runs it.

Position and promises move in one transaction: what is stored is routed exactly once,
whichever worker dies or competes. What was stored before rules were first there is no
news, and not sent.
"""

import logging
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from archive.access import Principal
from archive.errors import Gone, NotFound
from archive.values import Change, Instance, Promise
from gateway.dimse.forwarding import KIND
from gateway.ingest.transient import is_transient
from gateway.routing import Facts, Rules, load_rules
from gateway.settings_read import SettingsError

if TYPE_CHECKING:
    from archive.service import Archive
    from gateway.compose import Caller

log = logging.getLogger(__name__)

FOLLOWER = "routing"
_NEWS = frozenset(("stored", "replaced"))
_CHANGES = 500
_POLL_S = 1.0
_PRINCIPAL = Principal("routing", "worker")


class RulesFile:
    """The rules as they stand in the file now; while it is broken, as they stood before."""

    def __init__(self, path: Path) -> None:
        """Raises SettingsError."""
        self._path = path
        self._rules = load_rules(path)
        self._seen = self._state()

    def __call__(self) -> Rules:
        state = self._state()
        if state != self._seen:
            self._seen = state
            try:
                self._rules = load_rules(self._path)
            except SettingsError as error:
                log.error("the routing rules stay as they were: %s", error)
        return self._rules

    def _state(self) -> tuple[int, int]:
        try:
            found = self._path.stat()
        except OSError:
            return (0, 0)
        return found.st_mtime_ns, found.st_size


def facts_of(archive: "Archive", instance: Instance, caller: "Caller") -> Facts:
    """What rules may ask of an instance."""
    return Facts(
        instance,
        lambda: archive.sender_of(instance, **caller),
        lambda: archive.metadata(instance, **caller),
    )


class Router:
    """Reads the feed in a thread of its own. Use as a context manager."""

    def __init__(self, archive: "Archive", rules: Callable[[], Rules], stop: threading.Event) -> None:
        self._archive = archive
        self._rules = rules
        self._stop = stop
        self._thread = threading.Thread(target=self._run, name="routing", daemon=True)

    def __enter__(self) -> "Router":
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                if self.follow():
                    continue
            except Exception:  # a database that is away: nothing is lost, the position stays
                log.exception("routing failed")
            self._stop.wait(_POLL_S)

    @property
    def _caller(self) -> "Caller":
        return {"principal": _PRINCIPAL, "scope": self._archive.policy.scope(_PRINCIPAL)}

    def follow(self) -> int:
        """Route the next changes; returns how many there were."""
        caller = self._caller
        before = self._archive.followed(FOLLOWER)
        if before is None:
            self._archive.promise_following(FOLLOWER, None, self._end(), [], **caller)
            return 0
        changes = self._archive.changes(before, _CHANGES, **caller)
        if changes:
            promises = self.promises(changes)
            self._archive.promise_following(FOLLOWER, before, changes[-1].seq, promises, **caller)
        return len(changes)

    def promises(self, changes: Iterable[Change]) -> list[Promise]:
        """What the rules make of changes: a duty for each rule, series and receiver."""
        rules = self._rules()
        found: dict[tuple[str, str, str], list[str]] = {}
        made: dict[tuple[str, str, str], Promise] = {}
        for change in changes:
            if change.action not in _NEWS or not change.sop_instance_uid:
                continue
            study, series, sop = (
                change.study_instance_uid, change.series_instance_uid, change.sop_instance_uid,
            )  # fmt: skip
            try:
                instance = self._archive.instance(study, series, sop, **self._caller)
                facts = facts_of(self._archive, instance, self._caller)
                for rule, why_not in rules.decisions(facts):
                    if why_not is not None:
                        continue
                    for receiver in rule.receivers(facts):
                        key = (receiver, rule.name, series)
                        uids = found.setdefault(key, [])
                        uids.append(sop)
                        payload = {"study": study, "series": series, "rule": rule.name,
                                   "commit": rule.commit, "instances": uids}  # fmt: skip
                        made[key] = Promise(receiver, KIND, payload, f"{rule.name}/{series}", rule.delay_s)
            except (Gone, NotFound):
                continue  # it was deleted since
            except Exception as error:
                if is_transient(error):
                    raise  # all of it is read again
                # A damaged header, or values that are not of their VR: nothing else waits for it.
                log.exception("rules cannot be asked of %s: it is not sent on by all of them", sop)
        return list(made.values())

    def _end(self) -> int:
        """The last position of the feed."""
        last = 0
        while changes := self._archive.changes(last, 10_000, **self._caller):
            last = changes[-1].seq
        return last
