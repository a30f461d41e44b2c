# SPDX-License-Identifier: Apache-2.0
"""Progress bars on the terminal; silent where standard error is none."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


class ByteProgress:
    """Bytes done, of a total where one is known."""

    def __init__(self, bar: "object | None" = None, task: int = 0) -> None:
        self._bar, self._task = bar, task
        self.bytes = 0

    def done(self, name: str, size_bytes: int) -> None:
        """``size_bytes`` more are done."""
        self.bytes += size_bytes
        if self._bar is not None:
            self._bar.advance(self._task, size_bytes)  # type: ignore[attr-defined]


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
