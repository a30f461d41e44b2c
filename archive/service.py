# SPDX-License-Identifier: Apache-2.0
"""The archive's one door: every verb that an edge may call."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from archive.access import Policy, Principal, Scope
from archive.index.query import Query
from archive.values import (
    ByteStream, Change, Finding, FrameCodec, Instance, Job, NewSlide, Outcome, Page,
    Quarantined, Rendering, Sender, SlideSummary, StagedFile, Stored,
)


class Archive:
    # ---- storing -------------------------------------------------------------
    def stage(self, size_hint: int = 0) -> "Staging":
        """A new spool file on the store's file system: ``write(bytes)``, then
        ``finish() -> StagedFile`` (fsynced, hashed while written in a thread) or
        ``discard()``; a context manager that discards what was not finished.
        Reserves ``size_hint`` bytes first (StorageFull)."""

    def stage_copy(self, source: Path, progress=None) -> StagedFile:
        """Copy a file into the spool, hashed beside the copy; raises SourceChanged
        when size or mtime moved under it."""

    def store_file(self, staged: StagedFile, *, principal: Principal, scope: Scope, sender: Sender,
                   study_instance_uid: str = "", replace: bool = False) -> Stored:
        """A Part 10 file into the archive. On return: durable, indexed, audited."""

    def store_slide(self, slide: NewSlide, *, principal, scope, sender: Sender) -> list[Stored]: ...
    def original_of(self, digest: bytes, *, principal, scope) -> list[Stored]:
        """What an original with this digest became earlier; [] if it is new."""

    # ---- finding ---------------------------------------------------------------
    def find(self, query: Query, *, principal, scope) -> Page: ...
    def slides(self, *, principal, scope, text: str = "", limit: int = 50, after: str = "") -> list[SlideSummary]: ...
    def changes(self, after: int, limit: int = 1000, *, principal, scope) -> list[Change]: ...

    # ---- retrieving ------------------------------------------------------------
    def instance(self, study: str, series: str, sop: str, *, principal, scope) -> Instance:
        """NoSuchInstance when absent, hidden, or not of that study and series; Gone when deleted. Cached."""
    def instances(self, study: str, series: str = "", *, principal, scope) -> Iterator[Instance]:
        """All, by series and instance number, paged by keyset; NoSuchStudy/NoSuchSeries at the call."""
    def open(self, instance: Instance, *, principal, scope, base: bool = False) -> ByteStream:
        """The Part 10 stream (``application/dicom``), audited (110104)."""
    def metadata(self, instance: Instance, *, principal, scope) -> bytes:
        """One DICOM JSON object, UTF-8, without group 2 and pixel data; each BulkDataURI
        is ``bulk:`` + its path (``bulk:006A0002/0/00660016``): the edge makes it absolute."""
    def frames(self, instance: Instance, numbers: Sequence[int], *, principal, scope,
               transfer_syntax_uid: str = "") -> Iterator[bytes]:
        """Frames (from 1) in the order asked; all numbers are checked before the first
        byte (NoSuchFrame). "" gives stored bytes; else transcoded (CannotTranscode)."""
    def frame(self, instance, number, *, principal, scope) -> bytes: """The hot path of one stored frame."""
    def frame_codecs(self, instance: Instance) -> tuple[str, ...]:
        """Transfer syntaxes its frames can be given in, the stored one first."""
    def bulk(self, instance: Instance, path: str, *, principal, scope) -> ByteStream:
        """The value at a path of tags and item numbers from 0 (``00480105/0/00282000``)."""
    def rendered(self, instance: Instance, frame_number: int, rendering: Rendering, *, principal, scope) -> bytes: ...
    def thumbnail(self, study: str, series: str = "", sop: str = "", frame_number: int = 0,
                  rendering: Rendering = Rendering(), *, principal, scope) -> bytes:
        """Never LABEL nor OVERVIEW. Kept once made (series level)."""
    def original(self, series: str, *, principal, scope) -> ByteStream: """The scanner's file; Action.READ_ORIGINAL."""

    # ---- changing --------------------------------------------------------------
    def delete(self, study: str, series: str = "", sop: str = "", *, reason: str, principal, scope) -> int: ...
    def correct(self, study: str, patch: Mapping[str, object], *, reason: str, principal, scope) -> int:
        """A new header revision of every instance of the study. ``patch``: DICOM keyword -> JSON-model value."""

    # ---- jobs and quarantine ---------------------------------------------------
    def enqueue(self, kind: str, payload: Mapping[str, object], *, principal, scope, key: str = "") -> int: ...
    def claim(self, kinds: Sequence[str], *, lease_s: float, owner: str) -> Job | None: ...
    def report(self, job_id: int, *, progress: float, message: str = "") -> None: ...
    def finish(self, job_id: int, message: str = "") -> None: ...
    def fail(self, job_id: int, message: str, *, retry: bool) -> None: ...
    def jobs(self, *, principal, scope, limit: int = 100) -> list[Job]: ...
    def quarantine(self, staged, name: str, reason: str, *, principal, scope, source: str) -> int: ...
    def quarantined(self, *, principal, scope, limit: int = 100) -> list[Quarantined]: ...

    # ---- integrity -------------------------------------------------------------
    def verify(self, *, principal, scope, repair: bool = False) -> Iterator[Finding]: ...
    def recover(self) -> list[Finding]: ...
    def reindex(self, *, principal, scope) -> int: ...
    def collect_garbage(self, *, principal, scope) -> int: ...
    def ready(self) -> dict[str, str]: """name -> "ok" or what is wrong: database, storage, disk."""
