# SPDX-License-Identifier: Apache-2.0
"""A slide that a reader opened, as the archive takes it: original and instances."""

import contextlib
import io
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pydicom

from archive.values import NewBlob, NewInstance, NewOriginal, NewSlide, StagedFile
from converters.slide import Slide, SourceFile
from converters.writer.born import DicomInstance, Look, born_instances

_SCRATCH = "convert"


def new_slide(
    slide: Slide,
    staged: StagedFile,
    *,
    name: str,
    secret: bytes,
    scratch: Path,
    adopt: Callable[[Path], StagedFile],
    look: Look | None = None,
) -> NewSlide:
    """What to store for ``slide``, whose only source is ``staged``, called ``name``.

    Tiles that are legal in DICOM stay where they are, in the original. What had to be
    made again was written to ``scratch`` and is taken by ``adopt``.
    ``look``: what was read of it already. Raises the refusals of ``converters``.
    """
    made = born_instances(slide, source_digest=staged.sha256, secret=secret, scratch=scratch, look=look)

    def blob(source: SourceFile | bytes | Path) -> NewBlob:
        if isinstance(source, SourceFile):
            return NewBlob(staged)
        return NewBlob(source if isinstance(source, bytes) else adopt(source))

    original = NewOriginal(staged.sha256, [(name, staged)], slide.format, slide.scan.description)
    instances = [
        NewInstance(
            one.sop_instance_uid, one.header, one.frame_table, [blob(source) for source in one.blobs],
            absent_tiles=one.absent_tiles,
        )
        for one in made
    ]  # fmt: skip
    return NewSlide(original, instances, _container_identifier(made))


def _container_identifier(made: Sequence[DicomInstance]) -> str:
    """As the headers say: barcode, metadata or a made-up one have been weighed there."""
    header = pydicom.dcmread(io.BytesIO(made[0].header), specific_tags=["ContainerIdentifier"])
    return str(header.get("ContainerIdentifier", ""))


@contextlib.contextmanager
def scratch_folder(spool: Path) -> Iterator[Path]:
    """A folder for what is made again, on the store's file system; removed afterwards."""
    with tempfile.TemporaryDirectory(prefix=f"{_SCRATCH}-{os.getpid()}-", dir=spool) as name:
        yield Path(name)


def sweep_scratch(spool: Path) -> int:
    """Remove the scratch folders of processes that are gone; returns how many."""
    removed = 0
    for folder in spool.glob(f"{_SCRATCH}-*-*"):
        pid = folder.name.split("-")[1]
        if pid.isdigit() and not Path(f"/proc/{pid}").exists():
            shutil.rmtree(folder, ignore_errors=True)
            removed += 1
    return removed
