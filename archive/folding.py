# SPDX-License-Identifier: Apache-2.0
"""The worker's turn at the access lines: finished windows become audit events."""

from archive.access import Principal
from archive.access_log import WINDOW_S, file_digest, fold, parse_lines
from archive.audit import APPLICATION_ACTIVITY, AuditRecord
from archive.core import Core

_FOLDER = Principal("coverslip", "worker")
_READ_BYTES = 8 << 20


def fold_access(core: Core) -> int:
    """Turn the access lines of finished windows into audit events; returns how many.

    The file's position moves in the same transaction as its events, so that a line is
    counted once. A file whose hour is over leaves its digest in the log.
    """
    made = 0
    now = core.clock().timestamp()
    for path in core.access.files():
        name = f"access:{path.name}"
        state = core.setting(name)
        position, closed = (0, False) if not isinstance(state, list) else (int(state[0]), bool(state[1]))
        if closed:
            continue
        over = path.stat().st_mtime < now - 3600
        with path.open("rb") as file:
            file.seek(position)
            data = file.read(_READ_BYTES)
        data = data[: data.rfind(b"\n") + 1]
        if not over:
            data = _finished(data, now)
        events = fold(parse_lines(data))
        position += len(data)
        done = over and position >= path.stat().st_size - 4096 and not data
        if done:
            detail: dict[str, object] = {"access_file": path.name, "sha256": file_digest(path)}
            events.append(AuditRecord(APPLICATION_ACTIVITY, "E", _FOLDER, 0, detail=detail))
        if not events and not done:
            continue

        def commit(
            seen: object = state,
            events: list[AuditRecord] = events,
            name: str = name,
            at: int = position,
            end: bool = done,
        ) -> bool:
            if core.setting(name) != seen:
                return False  # another worker was faster
            for event in events:
                core.add_audit(event)
            core.put_setting(name, [at, end])
            return True

        if core.index.write(commit):
            made += len(events)
            if done:
                path.rename(path.with_suffix(".closed"))
    return made


def _finished(data: bytes, now: float) -> bytes:
    """The leading lines whose window of five minutes is over."""
    end = 0
    limit = int(now // WINDOW_S)
    for raw in data.splitlines(keepends=True):
        line = next(parse_lines(raw), None)
        if line is not None and int(line.time // WINDOW_S) >= limit:
            break
        end += len(raw)
    return data[:end]
