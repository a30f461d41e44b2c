# SPDX-License-Identifier: Apache-2.0
"""Instances as Part 10 files: complete and durable, or not there at all."""

import fcntl
import glob
import os
import shutil
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from archive.part10.frame_table import FrameTable, Kind
from archive.part10.stream import Part10Stream
from archive.part10.writeback import start_writeback
from converters.errors import TargetExists
from converters.slide import Progress, Slide, SourceFile
from converters.writer.ahead import FramesAhead, can_be_ahead
from converters.writer.born import DicomInstance
from converters.writer.dual_tiff import wrapping
from converters.writer.gathering import gathered_chunks
from converters.writer.pieces import pieces

MOST_PENDING = 8  # pieces of 1 MiB
FLUSH_BYTES = 64 << 20
MOST_AHEAD = 8  # files that are open, with their buffers, while the slide passes by


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
        stream, table = part10_stream(instance), FrameTable.from_bytes(instance.frame_table)
        if table.kind is Kind.GATHER:
            yield from gathered_chunks(stream, table, blobs)
        else:
            yield from pieces(stream.parts(), blobs)


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


class PartialFolder:
    """Instances as files of ``folder``, which must not exist yet: written and fsynced under
    another name beside it, renamed by :meth:`finish`. A context manager: with an error, or
    unfinished, nothing is left. With ``dual_tiff``, levels that can be are TIFF files
    besides. Raises TargetExists, OSError (disk full)."""

    def __init__(self, folder: Path, progress: Progress | None = None, *, dual_tiff: bool = False) -> None:
        if folder.exists():
            raise TargetExists(folder.name)
        folder.parent.mkdir(parents=True, exist_ok=True)
        self._folder, self._progress, self._dual_tiff = folder, progress, dual_tiff
        self._written: set[str] = set()
        self._done = self._total = 0
        self._ahead: dict[str, FramesAhead] = {}
        self._partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}.partial-", dir=folder.parent))

    def write_ahead(self, instances: Sequence[DicomInstance], slide: Slide) -> list[FramesAhead]:
        """Begin the files of those whose frames can be written while the slide's files pass
        by. The instances are as they will be but for the slide's digest, as far as is known:
        a file that turns out otherwise is written again."""
        if self._dual_tiff:
            return []
        named = [(one, name) for one, name in zip(instances, file_names(instances), strict=True)]
        named.sort(key=lambda one: one[0].pixel_bytes, reverse=True)
        for instance, name in named[:MOST_AHEAD]:
            if can_be_ahead(instance):
                self._ahead[name] = FramesAhead(self._partial / name, instance, slide)
                self._total += part10_stream(instance).length
        return list(self._ahead.values())

    def passing(self, slide: Slide) -> Callable[[int], None] | None:
        """Progress of the files that were begun, while the slide's files pass by."""
        progress, whole = self._progress, sum(source.size_bytes for source in slide.sources)
        total = self._total

        def passed(size: int) -> None:
            self._done = total * size // max(1, whole)
            if progress is not None:
                progress(self._done, total)

        return passed if self._ahead else None

    def write(self, instances: Sequence[DicomInstance]) -> list[Path]:
        """Write those that are not written yet; what is named by its number among others
        of its kind must come with them. Gives the file of each, where it is until the end."""
        new = [
            (instance, name)
            for instance, name in zip(instances, file_names(instances), strict=True)
            if instance.sop_instance_uid not in self._written
        ]
        new = [(instance, name) for instance, name in new if not self._was_ahead(instance, name)]
        self._total += sum(part10_stream(instance).length for instance, _ in new)
        for instance, name in new:
            with (self._partial / name).open("xb") as file:
                for written in _written_beside(file.fileno(), part10_chunks(instance)):
                    self._done += written
                    if self._progress is not None:
                        self._progress(self._done, self._total)
                file.seek(0, os.SEEK_END)
                tiff = wrapping(instance, part10_stream(instance)) if self._dual_tiff else None
                if tiff is not None:
                    file.write(tiff.padding)
                    file.seek(0)
                    file.write(tiff.preamble)
                file.flush()
                os.fsync(file.fileno())
            self._written.add(instance.sop_instance_uid)
        return [self._partial / name for name in file_names(instances)]

    def _was_ahead(self, instance: DicomInstance, name: str) -> bool:
        ahead = self._ahead.pop(name, None)
        if ahead is None:
            return False
        with closing(ahead):
            if not ahead.finish(instance):
                ahead.path.unlink()
                return False
        self._written.add(instance.sop_instance_uid)
        return True

    def finish(self, instances: Sequence[DicomInstance]) -> list[Path]:
        """Write the rest and give the folder its name; the file of each instance."""
        self.write(instances)
        self._partial.chmod(0o755)
        _sync_folder(self._partial)
        try:
            self._partial.rename(self._folder)
        except OSError:
            if self._folder.exists():
                raise TargetExists(self._folder.name) from None
            raise
        _sync_folder(self._folder.parent)
        return [self._folder / name for name in file_names(instances)]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for ahead in self._ahead.values():
            ahead.close()
        shutil.rmtree(self._partial, ignore_errors=True)


def _written_beside(fd: int, chunks: Iterable[bytes]) -> Iterator[int]:
    """Write while the next pieces are put together; gives the length of each once it is
    written. Raises OSError."""
    size = flushed = 0
    with ThreadPoolExecutor(1, "write") as writer:
        pending: deque[Future[int]] = deque()
        for chunk in chunks:
            pending.append(writer.submit(_write, fd, chunk))
            size += len(chunk)
            if size - flushed >= FLUSH_BYTES:
                flushed = size
                writer.submit(start_writeback, fd)
            if len(pending) > MOST_PENDING:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def _write(fd: int, chunk: bytes) -> int:
    view = memoryview(chunk)
    while view:
        view = view[os.write(fd, view) :]
    return len(chunk)


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
            if not os.path.samestat(os.fstat(descriptor), scratch.stat()):
                raise BlockingIOError  # whoever had it removed it meanwhile
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
