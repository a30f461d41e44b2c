# SPDX-License-Identifier: Apache-2.0
"""Progress bars on the terminal; silent where standard error is none."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


class ByteProgress:
    """Bytes done, of a total where one is known."""

    def __init__(self, bar: "Progress | None" = None, task: "TaskID | None" = None) -> None:
        self._bar, self._task = bar, task
        self.bytes = 0
        self._shares: dict[int, tuple[int, int]] = {}

    def to(self, done: int, total: int | None = None) -> None:
        """``done`` bytes are done in all."""
        self.bytes = done
        if self._bar is not None and self._task is not None:
            if total is None:
                self._bar.update(self._task, completed=done)
            else:
                self._bar.update(self._task, completed=done, total=total)

    def done(self, name: str, size_bytes: int) -> None:
        """``size_bytes`` more are done."""
        self.to(self.bytes + size_bytes)

    def of_total(self, done: int, total: int) -> None:
        """``done`` of ``total`` bytes of the present slide are done."""
        self.to(done, total)

    def share(self) -> Callable[[int, int], None]:
        """:meth:`of_total` for one of several slides at once: the bar shows their sum."""
        number = len(self._shares)
        self._shares[number] = (0, 0)

        def told(done: int, total: int) -> None:
            self._shares[number] = (done, total)
            shares = list(self._shares.values())
            self.to(sum(share[0] for share in shares), sum(share[1] for share in shares))

        return told


@contextmanager
def byte_progress(title: str, total_bytes: int | None = None) -> Iterator[ByteProgress]:
    """A bar on standard error, so that output stays clean for programs."""
    if not sys.stderr.isatty():
        yield ByteProgress()
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        yield ByteProgress(bar, bar.add_task(title, total=total_bytes))
