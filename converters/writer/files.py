# SPDX-License-Identifier: Apache-2.0
"""Instances as Part 10 files: complete and durable, or not there at all."""

import fcntl
import glob
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from archive.part10.frame_table import FrameTable
from archive.part10.stream import Part10Stream
from converters.errors import TargetExists
from converters.slide import Progress, SourceFile
from converters.writer.born import DicomInstance
from converters.writer.dual_tiff import wrapping
from converters.writer.pieces import pieces


def part10_stream(instance: DicomInstance) -> Part10Stream:
    """The instance's one and only Part 10 form (DESIGN 1.1); its ranges count in ``blobs``."""
    table = FrameTable.from_bytes(instance.frame_table)
    return Part10Stream(instance.header, instance.transfer_syntax_uid, table, ())


def part10_chunks(instance: DicomInstance) -> Iterator[bytes]:
    """The bytes of that form, in pieces of about 1 MiB. Raises DamagedSlide when a
    blob ends early, OSError when it cannot be read."""
    with ExitStack() as stack:
        blobs: list[int | bytes] = []
        for blob in instance.blobs:
            if isinstance(blob, bytes):
                blobs.append(blob)
            else:
                path = blob.path if isinstance(blob, SourceFile) else blob
                blobs.append(stack.enter_context(path.open("rb")).fileno())
        yield from pieces(part10_stream(instance).parts(), blobs)


def part10_bytes(instance: DicomInstance) -> bytes:
    """The whole form at once: for label, overview and thumbnail."""
    return b"".join(part10_chunks(instance))


def file_name(instance: DicomInstance) -> str:
    """``level-0.dcm`` (the finest), ``level-0-part-1.dcm``, ``label.dcm``; with the scene in
    front from the second on."""
    scene = f"scene-{instance.scene}-" if instance.scene else ""
    kind = f"level-{instance.level}" if instance.role == "VOLUME" else instance.role.value.lower()
    part = f"-part-{instance.part}" if instance.part else ""
    return f"{scene}{kind}{part}.dcm"


def file_names(instances: Sequence[DicomInstance]) -> list[str]:
    """:func:`file_name` of each; a second image of a kind is ``overview-2.dcm``."""
    names: list[str] = []
    for instance in instances:
        name = file_name(instance)
        stem, number = name.removesuffix(".dcm"), 1
        while name in names:
            number += 1
            name = f"{stem}-{number}.dcm"
        names.append(name)
    return names


def write_files(
    instances: Sequence[DicomInstance],
    folder: Path,
    progress: Progress | None = None,
    *,
    dual_tiff: bool = False,
) -> list[Path]:
    """Write each instance into ``folder``, which must not exist yet; with ``dual_tiff``,
    levels that can be are TIFF files besides.

    All is written and fsynced under another name beside it, then renamed: on any
    error nothing is left. Raises TargetExists, OSError (disk full).
    """
    if folder.exists():
        raise TargetExists(folder.name)
    folder.parent.mkdir(parents=True, exist_ok=True)
    total = sum(part10_stream(instance).length for instance in instances)
    done = 0
    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}.partial-", dir=folder.parent))
    try:
        for instance, name in zip(instances, file_names(instances), strict=True):
            with (partial / name).open("xb") as file:
                for chunk in part10_chunks(instance):
                    file.write(chunk)
                    done += len(chunk)
                    if progress is not None:
                        progress(done, total)
                tiff = wrapping(instance, part10_stream(instance)) if dual_tiff else None
                if tiff is not None:
                    file.write(tiff.padding)
                    file.seek(0)
                    file.write(tiff.preamble)
                file.flush()
                os.fsync(file.fileno())
        partial.chmod(0o755)
        _sync_folder(partial)
        try:
            partial.rename(folder)
        except OSError:
            if folder.exists():
                raise TargetExists(folder.name) from None
            raise
        _sync_folder(folder.parent)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return [folder / name for name in file_names(instances)]


@contextmanager
def scratch_beside(folder: Path) -> Iterator[Path]:
    """A hidden folder beside ``folder`` for frames that are ours. It goes at the end, or
    with an error; only a process that was killed leaves it, for the next to go on from.
    Raises TargetExists where ``folder`` is there, or being made by somebody else."""
    if folder.exists():
        raise TargetExists(folder.name)
    scratch = folder.parent / f".{folder.name}.scratch"
    parent_was_there = folder.parent.exists()
    scratch.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(scratch, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise TargetExists(folder.name) from None
        for left in folder.parent.glob(f".{glob.escape(folder.name)}.partial-*"):
            shutil.rmtree(left, ignore_errors=True)  # of a run that was killed: the lock is ours
        try:
            yield scratch
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
            if not parent_was_there:
                with suppress(OSError):  # there is something in it
                    folder.parent.rmdir()
    finally:
        os.close(descriptor)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
