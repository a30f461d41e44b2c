# SPDX-License-Identifier: Apache-2.0
"""A file's bytes, mapped where it is a real file."""

import io
import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, NamedTuple

PathOrFile = str | os.PathLike[str] | BinaryIO


class Source(NamedTuple):
    """A file's bytes, and its descriptor where it is a real file."""

    data: bytes | mmap.mmap
    descriptor: int | None = None


@contextmanager
def mapped(path_or_file: PathOrFile) -> Iterator[Source]:
    """The whole file as a read-only buffer; an open file stays open and need not stand
    at its beginning. The file must not shrink meanwhile (spool files do not)."""
    if isinstance(path_or_file, str | os.PathLike):
        with open(path_or_file, "rb") as file, mapped(file) as source:
            yield source
        return
    try:
        descriptor = path_or_file.fileno()
    except (AttributeError, io.UnsupportedOperation):
        path_or_file.seek(0)
        yield Source(path_or_file.read())
        return
    if not os.fstat(descriptor).st_size:  # cannot be mapped
        yield Source(b"")
        return
    with mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ) as data:
        yield Source(data, descriptor)
