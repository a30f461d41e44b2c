# SPDX-License-Identifier: Apache-2.0
"""Which errors pass by themselves, so that the same job may succeed later."""

import errno
import os
from collections.abc import Iterator

import peewee

from archive.errors import Busy, SourceChanged, StorageFailed, StorageFull

# Errors of the operating system that say something of the file or its name. All others are
# of the machine, the share or the hour: no space, no descriptors, no rights yet, a dead NFS
# server.
_LASTING = frozenset(
    (
        errno.ENOENT,
        errno.ENOTDIR,
        errno.EISDIR,
        errno.ELOOP,
        errno.ENAMETOOLONG,
        errno.EINVAL,
        errno.EOVERFLOW,
    )
)
_PASSING = (StorageFull, StorageFailed, Busy, SourceChanged, peewee.OperationalError, peewee.InterfaceError)


def is_transient(error: BaseException) -> bool:
    """Whether ``error``, or what it came of, says nothing of the file itself."""
    return any(
        isinstance(one, _PASSING) or (isinstance(one, OSError) and one.errno not in (None, *_LASTING))
        for one in _chain(error)
    )


def reason_of(error: BaseException) -> str:
    """What an operator is told; neither a path nor a database's own words."""
    if isinstance(error, OSError):
        return f"input or output error: {os.strerror(error.errno or 0)}"
    if isinstance(error, peewee.PeeweeException):
        return "the database cannot be reached"
    return str(error)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error and what it was raised of: a reader may say "cannot be read" of a bad disk."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__
