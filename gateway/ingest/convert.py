# SPDX-License-Identifier: Apache-2.0
"""A slide that a reader opened, as the archive takes it: original and instances."""

import contextlib
import fcntl
import io
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pydicom

from archive.processes import is_gone, own_name
from archive.values import NewBlob, NewInstance, NewOriginal, NewSlide, StagedFile
from converters.slide import Progress, SourceFile
from converters.verify import verify_instances
from converters.workshop import Opened, Workshop
from converters.writer.born import DicomInstance, Look, born_instances
from converters.writer.coding import DEFAULT_CODING, CodingChoice
from converters.writer.metadata import Metadata
from converters.writer.passage import digest_of
from converters.writer.recompose import Recomposed
from gateway.ingest.settling import shown

_SCRATCH = "convert"
_MADE = "made"
MADE_KEPT_S = 7 * 86400.0
"""How long frames of a conversion that was killed wait for its next attempt."""


@dataclass(frozen=True)
class Converter:
    """What turns slides into instances: kept as long as there may be more of them."""

    workshop: Workshop = field(default_factory=Workshop)
    coding: CodingChoice = DEFAULT_CODING
    verify_whole: bool = False

    def open(self, path: Path, modified: float) -> Opened:
        """The slide; the caller closes it. Raises the refusals of readers."""
        return self.workshop.open(path, modified=modified)

    def close(self) -> None:
        self.workshop.close()


def new_slide(
    opened: Opened,
    look: Look,
    copies: Mapping[Path, tuple[str, StagedFile]],
    *,
    converter: Converter,
    secret: bytes,
    scratch: Path,
    adopt: Callable[[Path], StagedFile],
    progress: Progress | None = None,
    metadata: Metadata | None = None,
    early: Mapping[tuple[int, int], Recomposed] | None = None,
) -> NewSlide:
    """What to store for a slide whose files are ``copies``: by path, name as scanned and
    staged file, the main file first.

    Tiles that are legal in DICOM stay where they are, in the original. What had to be
    made again was written to ``scratch`` (or ``early``, see :func:`born_instances`) and is
    taken by ``adopt``; it is compared with the scanner's file first. Raises the refusals of ``converters``.
    """
    digest = manifest_digest(list(copies.values()))
    made = born_instances(
        opened.slide, source_digest=digest, secret=secret, scratch=scratch, look=look,
        bench=opened.bench, coding=converter.coding, progress=progress, metadata=metadata,
        early=early,
    )  # fmt: skip
    verify_instances(opened.slide, made, opened.bench, whole=converter.verify_whole)

    def blob(source: SourceFile | bytes | Path) -> NewBlob:
        if isinstance(source, SourceFile):
            return NewBlob(copies[source.path][1])
        return NewBlob(source if isinstance(source, bytes) else adopt(source))

    slide = opened.slide
    files = [(shown(name), staged) for name, staged in copies.values()]  # names as any database takes them
    original = NewOriginal(digest, files, slide.format, slide.scan.description)
    instances = [
        NewInstance(
            one.sop_instance_uid, one.header, one.frame_table, [blob(source) for source in one.blobs],
            absent_tiles=one.absent_tiles,
        )
        for one in made
    ]  # fmt: skip
    return NewSlide(original, instances, _container_identifier(made))


def manifest_digest(files: Sequence[tuple[str, StagedFile]]) -> bytes:
    """As :func:`converters.convert.source_digest`, of files hashed already."""
    return digest_of([(name, staged.size_bytes, staged.sha256) for name, staged in files])


def _container_identifier(made: Sequence[DicomInstance]) -> str:
    """As the headers say: barcode, metadata or a made-up one have been weighed there."""
    header = pydicom.dcmread(io.BytesIO(made[0].header), specific_tags=["ContainerIdentifier"])
    return str(header.get("ContainerIdentifier", ""))


@contextlib.contextmanager
def scratch_folder(spool: Path) -> Iterator[Path]:
    """A folder for copies of a slide's files, on the store's file system; removed afterwards."""
    with tempfile.TemporaryDirectory(prefix=f"{_SCRATCH}-{own_name()}-", dir=spool) as name:
        yield Path(name)


@contextlib.contextmanager
def made_folder(spool: Path, digest: bytes) -> Iterator[Path]:
    """A folder for the levels that a slide of this digest needs made again. It goes
    afterwards, also with an error; only a process that was killed leaves it, and the next
    attempt goes on with the level where that one stopped."""
    folder = spool / f"{_MADE}-{digest.hex()[:32]}"
    folder.mkdir(exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not os.path.samestat(os.fstat(descriptor), folder.stat()):
                raise BlockingIOError  # whoever had it removed it meanwhile
        except OSError:  # somebody else converts the same slide, or nobody can tell: not into one folder
            with scratch_folder(spool) as own:
                yield own
            return
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(descriptor)


def sweep_scratch(spool: Path) -> int:
    """Remove what conversions left that nobody will go on with; returns how many folders."""
    removed = 0
    for folder in (*spool.glob(f"{_SCRATCH}-*"), *spool.glob(f"{_MADE}-*")):
        gone = None
        if folder.name.startswith(f"{_SCRATCH}-"):
            gone = is_gone(folder.name.removeprefix(f"{_SCRATCH}-"))
        with contextlib.suppress(FileNotFoundError):
            # Of a process in another container nothing is known but the age of what it left.
            if gone or (gone is None and folder.stat().st_mtime < time.time() - MADE_KEPT_S):
                shutil.rmtree(folder, ignore_errors=True)
                removed += 1
    return removed
