# SPDX-License-Identifier: Apache-2.0
"""Reads, one line each, and how lines become audit events.

A pathologist makes thousands of frame requests a slide: each costs one appended line, and
the worker folds them to one event per actor, study and window of five minutes.
"""

import hashlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from json.encoder import encode_basestring_ascii as _quoted
from pathlib import Path

from archive.access import Principal
from archive.audit import INSTANCES_ACCESSED, INSTANCES_TRANSFERRED, QUERY, AuditRecord
from archive.spool import storage_errors

WINDOW_S = 300


@dataclass(frozen=True, slots=True)
class AccessLine:
    """One read: who, how, which study and instance, how many frames or rows."""

    time: float
    kind: str  # "frames", "instance", "metadata", "bulk", "rendered", "query"
    principal: Principal
    study_instance_uid: str
    sop_instance_uid: str
    count: int
    detail: str = ""


class AccessLog:
    """A line per read, one ``write`` each to a file per process and hour.

    Lost at power failure: at most what the kernel had not written, about a second;
    at the death of the process nothing.
    """

    def __init__(self, folder: Path, clock: Callable[[], float] = time.time) -> None:
        self.folder = folder
        self._clock = clock
        self._lock = threading.Lock()
        self._hour = -1
        self._fd = self._retired = -1
        self._pid = 0
        with storage_errors():
            folder.mkdir(parents=True, exist_ok=True)

    def note(
        self,
        kind: str,
        principal: Principal,
        study: str = "",
        sop: str = "",
        count: int = 1,
        detail: str = "",
    ) -> None:
        """Append one line of at most 4 KiB. Raises StorageFull, StorageFailed: a read that
        cannot be noted does not happen."""
        now = self._clock()
        who = principal
        line = (
            f"[{now:.6f},{_quoted(kind)},{_quoted(who.actor[:64])},{_quoted(who.via)},"
            f"{_quoted(who.address[:64])},{_quoted(who.request_id[:64])},"
            f"{_quoted(study)},{_quoted(sop)},{count:d},{_quoted(detail[:1024])}]\n"
        ).encode("ascii")
        with storage_errors():
            os.write(self._file(now), line)

    def _file(self, now: float) -> int:
        hour = int(now // 3600)
        if hour == self._hour and self._pid == os.getpid():
            return self._fd
        with self._lock:
            if hour != self._hour or self._pid != os.getpid():
                # Another thread may be about to write to the last hour's descriptor, so that
                # one is closed an hour later.
                if self._retired >= 0:
                    os.close(self._retired)
                self._retired = self._fd if self._pid == os.getpid() else -1
                self._pid = os.getpid()
                name = f"{datetime.fromtimestamp(hour * 3600, UTC):%Y%m%dT%H}-{self._pid}.jsonl"
                self._fd = os.open(
                    self.folder / name, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600
                )
                self._hour = hour
            return self._fd

    def files(self) -> list[Path]:
        return sorted(self.folder.glob("*.jsonl"))


def parse_lines(data: bytes) -> Iterator[AccessLine]:
    """Complete lines of an access file; a line that cannot be read is passed over."""
    for raw in data.split(b"\n"):
        if not raw:
            continue
        try:
            at, kind, actor, via, address, request_id, study, sop, count, detail = json.loads(raw)
        except ValueError:
            continue
        yield AccessLine(at, kind, Principal(actor, via, address, request_id), study, sop, count, detail)


def fold(lines: Iterable[AccessLine]) -> list[AuditRecord]:
    """One event per actor, door, study, kind of access and window of five minutes."""
    groups: dict[tuple[str, str, str, str, str, int], list[AccessLine]] = {}
    for line in lines:
        who = line.principal
        key = (
            who.actor,
            who.via,
            who.address,
            line.study_instance_uid,
            line.kind,
            int(line.time // WINDOW_S),
        )
        groups.setdefault(key, []).append(line)
    events = []
    for (actor, via, address, study, kind, window), members in groups.items():
        sops = sorted({m.sop_instance_uid for m in members if m.sop_instance_uid})
        detail: dict[str, object] = {
            "kind": kind,
            "requests": len(members),
            "count": sum(m.count for m in members),
            "from": _stamp(min(m.time for m in members)),
            "to": _stamp(max(m.time for m in members)),
            "window": _stamp(window * WINDOW_S),
        }
        if sops:
            detail["instances"] = sops[:100]
            detail["number_of_instances"] = len(sops)
        queries = sorted({m.detail for m in members if m.detail})
        if queries:
            detail["queries"] = queries[:20]
        event_id, action = {
            "query": (QUERY, "E"),
            "instance": (INSTANCES_TRANSFERRED, "R"),
        }.get(kind, (INSTANCES_ACCESSED, "R"))
        events.append(AuditRecord(event_id, action, Principal(actor, via, address), 0, study, "", detail))
    return events


def _stamp(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def file_digest(path: Path) -> str:
    """SHA-256 of a closed access file: it goes into the log."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
