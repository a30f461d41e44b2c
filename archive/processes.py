# SPDX-License-Identifier: Apache-2.0
"""Which process left this behind, and is it still running?

Processes of several containers may share a data folder: their ids mean nothing to each
other, so a name holds the machine's boot and the id's name space too. Of a process in
another name space nothing is known but the age of what it left.
"""

import os
from functools import cache
from pathlib import Path


@cache
def _space() -> str:
    """This boot and this name space of process ids."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text()[:8]
        return f"{boot}.{os.stat('/proc/self/ns/pid').st_ino:x}"
    except OSError:
        return "unknown"


def _started(pid: int) -> str:
    """When a process began, in the kernel's ticks: tells a reused id from the old one."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return "0"


@cache
def _named(pid: int) -> str:
    return f"{_space()}-{pid}-{_started(pid)}"


os.register_at_fork(after_in_child=_named.cache_clear)  # an ancestor's id may be used again


def own_name() -> str:
    """A name for what this process leaves behind: space, id and start."""
    return _named(os.getpid())


def is_gone(name: str) -> bool | None:
    """Whether the process that made a name (:func:`own_name`, anything may follow) has
    ended; None if it lives in another name space, so that nobody here can tell."""
    space, _, rest = name.partition("-")
    pid, _, rest = rest.partition("-")
    start = rest.partition("-")[0]
    if space != _space() or not pid.isdigit():
        return None
    return not Path(f"/proc/{pid}").exists() or _started(int(pid)) != start


def writer_mark(run_dir: Path) -> Path:
    """A file per process that may write, removed when it ends in order: what a killed
    one leaves tells the next start to look for unfinished work."""
    folder = run_dir / "writers"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / own_name()
    path.touch()
    return path


def stale_marks(run_dir: Path) -> list[Path]:
    """Marks of processes that have ended, or of which nobody can tell."""
    folder = run_dir / "writers"
    return [p for p in folder.iterdir() if is_gone(p.name) is not False] if folder.is_dir() else []
