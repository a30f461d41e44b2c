# SPDX-License-Identifier: Apache-2.0
"""From a file to stored instances: what the watched folder, the command line and uploads
share.

A DICOM file is stored as it is. A scanner's file is copied once, kept bit for bit, and
becomes DICOM beside or inside of that copy; a file that was taken in before, under
whatever name, is recognised by its digest and gives what it became then.
"""

import contextlib
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from archive.access import Principal, Scope
from archive.part10.errors import NotPart10, Part10Error
from archive.part10.meta import read_meta
from archive.values import Sender, Stored
from converters.codecs import preload
from converters.registry import open_slide
from converters.slide import Slide
from converters.writer.born import Look, look_at
from gateway.ingest.convert import new_slide, scratch_folder

if TYPE_CHECKING:
    from archive.service import Archive

_HEAD_BYTES = 4096
_COPIED = 0.6  # the copy's share of the work, for progress


@dataclass(frozen=True, slots=True)
class Ingested:
    """``digest``: SHA-256 of the bytes that were copied."""

    digest: bytes
    stored: list[Stored]


def ingest_path(
    archive: "Archive",
    path: Path,
    *,
    principal: Principal,
    scope: Scope,
    secret: bytes,
    sender: Sender,
    progress: Callable[[float], None] | None = None,
) -> list[Stored]:
    """Take in one file; on return all of it is durable, indexed and audited.

    ``progress`` is called with 0 to 1. The file itself is left as it is. Raises
    ArchiveError (SourceChanged when it changed while it was copied) and the refusals of
    ``converters``; nothing is half-stored then.
    """
    return ingest_file(
        archive, path, principal=principal, scope=scope, secret=secret, sender=sender, progress=progress
    ).stored


def ingest_file(
    archive: "Archive",
    path: Path,
    *,
    principal: Principal,
    scope: Scope,
    secret: bytes,
    sender: Sender,
    progress: Callable[[float], None] | None = None,
) -> Ingested:
    """:func:`ingest_path`, and the digest of what was read."""
    report = progress or _ignore
    status = path.stat()
    whole = max(status.st_size, 1)
    with contextlib.ExitStack() as stack:
        looked: list[tuple[Slide, Look]] = []

        def look(copy: Path) -> None:
            if not is_dicom(copy):
                slide = stack.enter_context(open_slide(copy, modified=status.st_mtime))
                looked.append((slide, look_at(slide)))

        if not is_dicom(path):  # the first slide of a process waits for the codecs otherwise
            threading.Thread(target=preload, name="preload", daemon=True).start()
        staged = archive.stage_copy(path, lambda copied: report(min(copied / whole, 1.0) * _COPIED), look)
        stack.callback(report, 1.0)
        stack.callback(staged.path.unlink, missing_ok=True)
        if not looked:
            stored = [archive.store_file(staged, principal=principal, scope=scope, sender=sender)]
            return Ingested(staged.sha256, stored)
        known = archive.original_of(staged.sha256, principal=principal, scope=scope)
        if known:
            return Ingested(staged.sha256, known)
        slide, seen = looked[0]
        scratch = stack.enter_context(scratch_folder(staged.path.parent))
        new = new_slide(
            slide, staged, name=path.name, secret=secret, scratch=scratch, adopt=archive.adopt, look=seen
        )
        report(_COPIED + (1 - _COPIED) / 2)
        stored = archive.store_slide(new, principal=principal, scope=scope, sender=sender)
        return Ingested(staged.sha256, stored)


def is_dicom(path: Path) -> bool:
    """Whether this is a DICOM file or a bare data set (PS3.10 7.1), whole or not."""
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    try:
        read_meta(head, allow_bare=True)
    except NotPart10:
        return False
    except Part10Error:
        return True  # it says that it is one; what is wrong with it the archive tells
    return True


def _ignore(share: float) -> None:
    """Nobody wants to know."""
