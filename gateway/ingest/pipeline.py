# SPDX-License-Identifier: Apache-2.0
"""From a file to stored instances: what the watched folder, the command line and uploads
share.

A DICOM file is stored as it is. A scanner's file is copied once, kept bit for bit, and
becomes DICOM beside or inside of that copy; a file that was taken in before, under
whatever name, is recognised by its digest and gives what it became then.
"""

import contextlib
import stat
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from archive.access import Principal, Scope
from archive.errors import SourceChanged
from archive.part10.errors import NotPart10, Part10Error
from archive.part10.meta import read_meta
from archive.values import Sender, StagedFile, Stored
from converters.errors import ConversionError, DamagedSlide, MissingCompanion
from converters.inspection import what_is_made_again
from converters.registry import companions
from converters.workshop import Opened
from converters.writer.born import ImagePixels, Look, images_left_out, images_of, look_at
from converters.writer.early import NONE_EARLY, EarlyLevels, early_levels
from converters.writer.following import Following
from converters.writer.metadata import Metadata
from gateway.ingest.convert import Converter, made_folder, manifest_digest, new_slide, scratch_folder

if TYPE_CHECKING:
    from archive.service import Archive

_HEAD_BYTES = 4096
_COPIED = 0.6  # the copy's share of the work, for progress


@dataclass(frozen=True, slots=True)
class Ingested:
    """``digest``: SHA-256 of the bytes that were copied (of the manifest of several files)."""

    digest: bytes
    stored: list[Stored]
    files: tuple[tuple[str, bytes], ...] = ()  # name beside the main file, SHA-256; the main file first
    findings: tuple[str, ...] = ()  # what of the slide is not among the instances, and why


def ingest_path(
    archive: "Archive",
    path: Path,
    *,
    principal: Principal,
    scope: Scope,
    secret: bytes,
    sender: Sender,
    progress: Callable[[float], None] | None = None,
    converter: Converter | None = None,
    metadata: Metadata | None = None,
) -> list[Stored]:
    """Take in one file; on return all of it is durable, indexed and audited.

    The main file of a slide of several takes the others along. ``progress`` is called
    with 0 to 1. The files themselves are left as they are. ``converter`` is kept for
    further slides; without one, one of its own is made. ``metadata`` is what people know
    of a scanner's slide. Raises ArchiveError (SourceChanged
    when a file changed while it was copied) and the refusals of ``converters``; nothing
    is half-stored then.
    """
    return ingest_file(
        archive, path, principal=principal, scope=scope, secret=secret, sender=sender,
        progress=progress, converter=converter, metadata=metadata,
    ).stored  # fmt: skip


def ingest_file(
    archive: "Archive",
    path: Path,
    *,
    principal: Principal,
    scope: Scope,
    secret: bytes,
    sender: Sender,
    progress: Callable[[float], None] | None = None,
    converter: Converter | None = None,
    say: Callable[[str], None] | None = None,
    metadata: Metadata | None = None,
) -> Ingested:
    """:func:`ingest_path`, and the digest of what was read. ``say`` is told what will be
    encoded again or left out, before it is. Entries of the quarantine for any of its files are resolved."""
    taken = _ingested(
        archive, path, principal, scope, secret, sender, progress or _ignore, converter, say, metadata
    )
    digests = [digest for _, digest in taken.files]
    archive.resolve_stored(digests, principal=principal, scope=scope)
    return taken


def _ingested(
    archive: "Archive",
    path: Path,
    principal: Principal,
    scope: Scope,
    secret: bytes,
    sender: Sender,
    report: Callable[[float], None],
    converter: Converter | None,
    say: Callable[[str], None] | None,
    metadata: Metadata | None,
) -> Ingested:
    if is_dicom(path):
        whole = max(path.stat().st_size, 1)
        staged = archive.stage_copy(path, lambda copied: report(min(copied / whole, 1.0) * _COPIED))
        with contextlib.ExitStack() as stack:
            stack.callback(staged.path.unlink, missing_ok=True)
            stored = [archive.store_file(staged, principal=principal, scope=scope, sender=sender)]
        report(1.0)
        return Ingested(staged.sha256, stored, ((path.name, staged.sha256),))
    with contextlib.ExitStack() as stack:
        if converter is None:
            converter = Converter()
            stack.callback(converter.close)
        converter.workshop.start()  # its libraries load beside the copy
        spool = archive.spool_path().parent
        folder = stack.enter_context(scratch_folder(spool))
        copies, opened, look, again, early = _copied(archive, path, folder, converter, report, stack)
        digest = manifest_digest(list(copies.values()))
        files = tuple((name, staged.sha256) for name, staged in copies.values())
        known = archive.original_of(digest, principal=principal, scope=scope)
        if known:
            report(1.0)
            return Ingested(digest, known, files, tuple(images_left_out(opened.slide, look.pixels)))
        if say is not None and again:
            say("; ".join(again))
        made = stack.enter_context(made_folder(spool, digest))
        new = new_slide(
            opened, look, copies, converter=converter, secret=secret, scratch=made, adopt=archive.adopt,
            metadata=metadata, early=early.of(opened.slide),
            progress=lambda done, total: report(_COPIED + (1 - _COPIED) * 0.9 * done / max(1, total)),
        )  # fmt: skip
        stored = archive.store_slide(new, principal=principal, scope=scope, sender=sender)
        report(1.0)
        return Ingested(digest, stored, files, tuple(images_left_out(opened.slide, look.pixels)))


def _copied(
    archive: "Archive",
    path: Path,
    folder: Path,
    converter: Converter,
    report: Callable[[float], None],
    stack: contextlib.ExitStack,
) -> tuple[dict[Path, tuple[str, StagedFile]], Opened, Look, list[str], EarlyLevels]:
    """Copies of a slide's files in ``folder``, laid out as scanned, the main file copied
    last (and first in the answer). Tiles are looked at while the copy's bytes are hashed,
    the other images while it is flushed; what can be made of a single file early is made
    beside its copying."""
    status = path.stat()
    names = [*companion_names(path), path.name]
    states = _states(path.parent, names)
    sizes = {name: size for name, (_, size, _) in states.items()}
    whole, before = max(sum(sizes.values()), 1), 0
    copies: dict[Path, tuple[str, StagedFile]] = {}
    begun: list[tuple[Opened, Sequence[ImagePixels] | None]] = []

    def begin(copy: Path) -> None:
        opened = converter.open(copy, status.st_mtime)
        stack.callback(opened.close)
        begun.append((opened, _pixels(opened)))

    with contextlib.ExitStack() as opened_there, ThreadPoolExecutor(1, "early") as beside:
        source = _source(path, status.st_mtime, converter, opened_there)
        following = Following(source.slide) if source else None
        numbers = {file.relative_name: at for at, file in enumerate(source.slide.sources)} if source else {}
        making = None
        if source and len(names) == 1:
            making = beside.submit(_early, source, folder, converter)
        for name in names:
            target = folder / "slide" / name
            target.parent.mkdir(parents=True, exist_ok=True)

            def copied(done: int, before: int = before) -> None:
                report(min((before + done) / whole, 1.0) * _COPIED)

            staged = archive.stage_copy(
                path.parent / name, copied, begin if name == path.name else None, target,
                partial(following.see, numbers[name]) if following and name in numbers else None,
            )  # fmt: skip
            copies[target] = (name, staged)
            before += sizes[name]
        early = making.result() if making else NONE_EARLY
    if _states(path.parent, names) != states:
        raise SourceChanged("a file of the slide changed while others were copied")
    ((opened, pixels),) = begun
    surveys = following.surveys_of(opened.slide) if following else None
    look = look_at(opened.slide, opened.bench, surveys, pixels)
    again = what_is_made_again(opened.slide, look.surveys, converter.coding)
    again += images_left_out(opened.slide, look.pixels)
    return dict(reversed(copies.items())), opened, look, again, early


def _source(path: Path, modified: float, converter: Converter, stack: contextlib.ExitStack) -> Opened | None:
    """The slide where it lies, to know what passes by. Whatever is wrong with it is not said
    here, but by the look at its copy."""
    try:
        return stack.enter_context(converter.open(path, modified))
    except (ConversionError, OSError):
        return None


def _pixels(opened: Opened) -> Sequence[ImagePixels] | None:
    """Of the other images, None where they cannot be had now: the tiles' damage is told first."""
    try:
        return images_of(opened.slide, opened.bench)
    except ConversionError:
        return None


def _states(folder: Path, names: Sequence[str]) -> dict[str, tuple[int, int, int]]:
    """Inode, size and time of each file. Raises OSError."""
    states = {name: (folder / name).stat() for name in names}
    return {name: (state.st_ino, state.st_size, state.st_mtime_ns) for name, state in states.items()}


def _early(source: Opened, folder: Path, converter: Converter) -> EarlyLevels:
    """What can be made of the file where it lies."""
    try:
        return early_levels(source.slide, source.bench, converter.coding, folder)
    except (ConversionError, OSError):
        return NONE_EARLY


def companion_names(path: Path) -> Sequence[str]:
    """Names of the other files of a slide, relative to its main file's folder: regular
    files below that folder, nothing else. Raises MissingCompanion, DamagedSlide and the
    refusals of readers."""
    names = list(dict.fromkeys(companions(path)))
    for name in names:
        parts = PurePosixPath(name).parts
        if not parts or ".." in parts or PurePosixPath(name).is_absolute() or "\\" in name or "\0" in name:
            raise DamagedSlide("the slide names a file outside of its folder")
        inside = PurePosixPath(*parts).parents[:-1]  # links could lead anywhere
        folders_are_real = all(_is(stat.S_ISDIR, path.parent / folder) for folder in inside)
        if not (folders_are_real and _is(stat.S_ISREG, path.parent / name)):
            raise MissingCompanion(f"a {PurePosixPath(name).suffix or 'data'} file")
    return names


def _is(kind: Callable[[int], bool], path: Path) -> bool:
    """Whether this is there and of the kind, and no link."""
    try:
        return kind(path.lstat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


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
