# SPDX-License-Identifier: Apache-2.0
"""Files named on the command line, and what becomes of several when some fail."""

import os
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

from gateway.cli.errors import CannotRead, Finished
from gateway.cli.exit_codes import SOME_FAILED, code_of

T = TypeVar("T")
R = TypeVar("R")


def files_of(paths: Iterable[Path]) -> list[Path]:
    """The files named, and those in the folders named, sorted; hidden ones left out, and
    those that are part of another file's slide.

    Raises CannotRead for a path, or a folder below it, that cannot be read.
    """
    from gateway.ingest.belonging import belongs_to_another
    from gateway.ingest.listing import companion_folders

    found: list[Path] = []

    def unreadable(error: OSError) -> None:
        raise CannotRead(f"{error.filename}: {error.strerror}")

    for path in paths:
        if path.is_dir():
            inside: list[Path] = []
            for folder, names, files in os.walk(path, onerror=unreadable):
                owned = {owned for name in files for owned in companion_folders(name)}
                names[:] = [name for name in names if not name.startswith(".") and name not in owned]
                here = [Path(folder, name) for name in files if not name.startswith(".")]
                inside += [path for path in here if not belongs_to_another(path)]
            found += sorted(inside)
        elif path.exists():
            found.append(path)
        else:
            raise CannotRead(f"{path}: no such file or folder")
    return found


def once_per_series(paths: Sequence[Path]) -> list[Path]:
    """The same without DICOM files that are of another one's series in the same folder: of
    each series the main file stays, which takes the others along."""
    from converters.readers import dicom_series

    return dicom_series.once_per_series(paths)


def each(
    paths: Sequence[T],
    work: Callable[[T], R],
    *,
    at_once: int = 1,
    tell: Callable[[R], None] = lambda result: None,
) -> None:
    """``work`` on every path (or UID). One: its refusal is the command's. Several: the others
    go on, each refusal is a line on standard error, and Finished ends the command.

    ``at_once`` of them are worked on in threads; ``tell`` gets their results in the order of
    ``paths`` all the same. What ends the command (a fault of ours, an interrupt) does not
    wait for those under way.
    """
    if len(paths) == 1:
        tell(work(paths[0]))
        return
    if at_once == 1:
        _each(paths, (partial(work, path) for path in paths), tell)
        return
    pool = ThreadPoolExecutor(at_once, "each")
    try:
        _each(paths, [pool.submit(work, path).result for path in paths], tell)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _each(paths: Sequence[T], results: Iterable[Callable[[], R]], tell: Callable[[R], None]) -> None:
    failed = 0
    for path, result in zip(paths, results, strict=True):
        try:
            tell(result())
        except Exception as error:
            if code_of(error) is None:
                raise  # a fault of ours
            failed += 1
            print(f"coverslip: {path}: {' '.join(str(error).split())}", file=sys.stderr)
    if failed:
        raise Finished(SOME_FAILED)
