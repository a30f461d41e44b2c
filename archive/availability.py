# SPDX-License-Identifier: Apache-2.0
"""Which studies changed, for those who are told of it (Instance Availability Notification,
PS3.4 Annex R).

The change feed is followed to a position that is kept. A study is announced once nothing of
it has changed for a while: a slide arrives level by level. Position and promises move in
one transaction, so nothing is announced twice or forgotten.
"""

from collections.abc import Sequence
from typing import Any

from pydicom.uid import generate_uid

from archive import outbox
from archive.core import Core
from archive.indexing import execute
from archive.rows import Row

DUTY = "availability"
_STATE = "availability"
_CHANGES = 1000
_OF_ORDERS = ("order-", "step-")  # changes that no instance has part in
_DELETED = 20_000  # of one study in one notice

Reference = tuple[str, str, str]
"""Series, SOP Class and SOP Instance UID."""


def note_deleted(core: Core, rows: Sequence[Row]) -> None:
    """Remember what goes, while its SOP class is known. Call inside ``index.write``."""
    state = core.setting(_STATE)
    if not isinstance(state, dict):
        return  # nobody is told
    for row in rows:
        gone = _study(state, row.study_instance_uid, core.now_us())["deleted"]
        if len(gone) < _DELETED:
            gone.append([row.series_instance_uid, row.sop_class_uid, row.sop_instance_uid])
    core.put_setting(_STATE, state)


def _study(state: dict[str, Any], study: str, now: int) -> dict[str, Any]:
    found: dict[str, Any] = state["studies"].setdefault(study, {"latest": now, "deleted": []})
    found["latest"] = now
    return found


class Availability:
    """The notices that are due, and what they say."""

    def __init__(self, core: Core) -> None:
        self._core = core

    def promise(self, receivers: Sequence[str], *, settle_s: float) -> int:
        """Follow the change feed and promise a notice of each study that has been quiet
        for ``settle_s`` seconds to each receiver (AE titles); returns how many studies.
        The first call begins at the feed's end: what was there before is no news."""
        core = self._core
        with core.index.read():
            last = execute(core, "SELECT COALESCE(MAX(seq), 0) FROM change").fetchone()[0]
        state = core.setting(_STATE)
        if isinstance(state, dict) and state["seq"] == last and not state["studies"]:
            return 0

        def commit() -> int:
            state = core.setting(_STATE)
            if not isinstance(state, dict):
                core.put_setting(_STATE, {"seq": last, "studies": {}})
                return 0
            rows = execute(
                core,
                "SELECT seq, time, study_instance_uid, action FROM change WHERE seq > ? ORDER BY seq LIMIT ?",
                state["seq"],
                _CHANGES,
            ).fetchall()
            for seq, time, study, action in rows:
                state["seq"] = seq
                if study and not action.startswith(_OF_ORDERS):
                    _study(state, study, time)
            quiet = core.now_us() - int(settle_s * 1e6)
            due = [uid for uid, found in state["studies"].items() if found["latest"] <= quiet]
            if len(rows) == _CHANGES:
                due = []  # more of a study may follow at once
            for study in due:
                deleted = state["studies"].pop(study)["deleted"]
                for receiver in receivers:
                    payload = {"study": study, "deleted": deleted, "notice": generate_uid(prefix=None)}
                    outbox.add(core, receiver, DUTY, payload, "")
            if rows or due:
                core.put_setting(_STATE, state)
            return len(due)

        return core.index.write(commit)

    def forget(self) -> None:
        """Nobody is told any more: begin anew if somebody is, one day."""
        if self._core.setting(_STATE) is not None:
            model = self._core.index.models.Setting
            self._core.index.write(lambda: model.delete().where(model.key == _STATE).execute())

    def instances(self, study: str) -> list[Reference]:
        """What is here of a study, series by series."""
        with self._core.index.read():
            rows = execute(
                self._core,
                "SELECT s.series_instance_uid, i.sop_class_uid, i.sop_instance_uid FROM instance i "
                "JOIN series s ON s.id = i.series_id JOIN study t ON t.id = i.study_id "
                "WHERE t.study_instance_uid = ? ORDER BY s.id, i.id",
                study,
            ).fetchall()
        return [(str(series), str(sop_class), str(sop)) for series, sop_class, sop in rows]
