# SPDX-License-Identifier: Apache-2.0
"""The archive's one door: every verb that an edge may call.

Rights, audit, matching, integrity and change records are behind it; edges authenticate,
translate and delegate. Each verb takes the ``principal`` who asks and the ``scope`` of
studies that the policy gives it (``archive.policy.scope(principal)``). What the scope
does not see does not exist: :class:`archive.errors.NotFound`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from archive import (
    bulk_data,
    catalogue,
    commitment,
    folding,
    garbage,
    ingest,
    integrity,
    lifecycle,
    matching_keys,
    network,
    non_patient,
    origin,
    outbox,
    performed,
    pictures,
    readmission,
    recompress,
    recovery,
    rejection,
    results,
    transfer,
    work,
    worklist,
)
from archive.access import Policy, Principal, Scope
from archive.access_log import AccessLog
from archive.assemble import Assembly
from archive.availability import Availability
from archive.commitment_asked import AskedCommitments
from archive.commitment_results import CommitmentResults
from archive.commitment_results import expire as expire_commitments
from archive.core import Core, Limits
from archive.drawing import Drawing
from archive.errors import ArchiveError
from archive.files import OpenFiles
from archive.index.database import Index
from archive.index.query import Query
from archive.index.worklist import WorklistQuery
from archive.non_patient import NonPatientQuery
from archive.non_patient_index import NonPatientInstance
from archive.peer import Peer
from archive.processes import writer_mark
from archive.retrieve import Retriever
from archive.spool import Spool, SpoolFile, Staging
from archive.storage.base import Storage
from archive.stored_frames import StoredFrames
from archive.transfer import Transfer
from archive.values import (
    ByteStream,
    Change,
    Commitment,
    Deflated,
    Duty,
    Finding,
    FrameCodec,
    Instance,
    Job,
    NewSlide,
    Page,
    Promise,
    Pyramid,
    Quarantined,
    Recompressed,
    Rendering,
    Sender,
    SlideSummary,
    StagedFile,
    Stored,
)
from archive.worklist import FormerValue, NewItem, Scheduled, WorklistItem

STORE_VERSION = b'{"store": 1}'
JOB_LEASE_S = 60.0


class Archive:
    """Everything that must survive a restart. Thread-safe; open it after a fork."""

    def __init__(
        self,
        storage: Storage,
        index: Index,
        *,
        policy: Policy,
        data_dir: Path,
        codec: FrameCodec | None = None,
        limits: Limits | None = None,
        extended_keys: Mapping[str, str] | None = None,
    ) -> None:
        """``data_dir`` holds spool, access lines and run files; the spool must be on the
        storage's file system where that is local. The index must be migrated.
        ``extended_keys``: further attributes to match on (``matching_keys.parse_keys``)."""
        run_dir = data_dir / "run"
        run_dir.mkdir(parents=True, exist_ok=True)
        self._core = Core(
            storage=storage,
            index=index,
            policy=policy,
            spool=Spool(data_dir / "spool"),
            access=AccessLog(data_dir / "access"),
            run_dir=run_dir,
            files=OpenFiles(storage),
            codec=codec,
            limits=limits or Limits(),
        )
        self._retriever = Retriever(self._core)
        self._drawing = Drawing(self._core, self._retriever)
        self._mark: Path | None = None
        matching_keys.want(self._core, extended_keys or {})
        ingest.check_store_version(storage, STORE_VERSION)

    @property
    def policy(self) -> Policy:
        return self._core.policy

    # ---- storing ---------------------------------------------------------------

    def stage(self, size_hint: int = 0) -> Staging:
        """A new spool file: ``write(bytes)``, then ``finish() -> SpoolFile``; a context
        manager that discards what was not finished. ``size_hint`` bytes are reserved first.
        Raises StorageFull, StorageFailed."""
        self._writes(size_hint)
        return self._core.spool.stage(size_hint)

    def assembly(self) -> Assembly:
        """Where metadata and bulk values that come apart are put together (PS3.18 10.5):
        ``begin``, ``write`` for each value, then ``assemble`` for each data set; a context
        manager. Raises StorageFull, StorageFailed."""
        self._writes(0)
        return Assembly(self._core.spool, self._writes)

    def stage_copy(
        self,
        source: Path,
        progress: Callable[[int], None] | None = None,
        meanwhile: Callable[[Path], None] | None = None,
        target: Path | None = None,
        seen: Callable[[int, memoryview], int] | None = None,
    ) -> SpoolFile:
        """Copy a file into the spool, hashed beside the copy; ``progress`` gets the bytes
        copied so far, ``meanwhile`` the copy's path while it is still being hashed and
        flushed; ``target`` is where in the spool, if it matters; ``seen`` is shown all
        bytes of the copy (see ``archive.spool.Seen``). Raises SourceChanged, Unreadable,
        StorageFull."""
        self._writes(0)
        return self._core.spool.copy(source, progress, meanwhile, target, seen)

    def spool_path(self) -> Path:
        """A fresh path in the spool, for those that must write a file themselves."""
        self._writes(0)
        return self._core.spool.new_path()

    def adopt(self, path: Path, sha256: bytes | None = None) -> SpoolFile:
        """A file written to :meth:`spool_path`: fsynced, and hashed unless it was."""
        return self._core.spool.adopt(path, sha256)

    def _changes(self) -> None:
        """Mark this process as one that may leave unfinished work."""
        if self._mark is None:
            self._mark = writer_mark(self._core.run_dir)

    def _writes(self, size_bytes: int) -> None:
        """As :meth:`_changes`, and keep a reserve on the medium."""
        self._changes()
        free = self._core.storage.free_bytes()
        if free is not None and free < self._core.limits.free_bytes + size_bytes:
            raise ingest.full(free)

    def store_file(
        self,
        staged: StagedFile,
        *,
        principal: Principal,
        scope: Scope,
        sender: Sender,
        study_instance_uid: str = "",
        replace: bool = False,
    ) -> Stored:
        """A Part 10 file (or bare data set) into the archive. On return it is durable,
        indexed and audited; the sender may delete its copy. The staged file is consumed.

        Raises Unreadable, UnsupportedSopClass, UnsupportedTransferSyntax, StudyMismatch,
        DuplicateInstance, StorageFull, NotAllowed. PS3.4 B.2.3. A rejection note takes what
        it names out for every door (RejectionRefused); that may not come again (Rejected).
        """
        if not study_instance_uid and non_patient.is_non_patient(staged.path):
            return self.store_non_patient(staged, principal=principal, scope=scope, sender=sender)
        return rejection.store_file(
            self._core,
            staged,
            principal=principal,
            scope=scope,
            sender=sender,
            study_instance_uid=study_instance_uid,
            replace=replace,
        )

    def store_non_patient(
        self,
        staged: StagedFile,
        *,
        category: str = "",
        sop_instance_uid: str = "",
        principal: Principal,
        scope: Scope,
        sender: Sender,
    ) -> Stored:
        """A colour palette, hanging protocol or the like (PS3.4 Annex GG), durable, indexed and
        audited; ``Stored`` names no study. ``category`` (``non_patient_classes.CATEGORIES``) and
        UID: what it must be, if given. Raises as :meth:`store_file`, and TooLarge."""
        return non_patient.store(
            self._core,
            staged,
            category=category,
            sop_instance_uid=sop_instance_uid,
            principal=principal,
            scope=scope,
            sender=sender,
        )

    def store_slide(
        self, slide: NewSlide, *, principal: Principal, scope: Scope, sender: Sender
    ) -> list[Stored]:
        """What one scanner file became: original and instances, all or nothing. Staged
        files are consumed. Raises as :meth:`store_file`."""
        return ingest.store_slide(self._core, slide, principal=principal, scope=scope, sender=sender)

    def original_of(self, digest: bytes, *, principal: Principal, scope: Scope) -> list[Stored]:
        """What an original with this digest became earlier; [] if it is new."""
        return ingest.original_of(self._core, digest, principal=principal, scope=scope)

    def refused(self, reason: str, *, principal: Principal, scope: Scope) -> None:
        """An edge turned somebody away before any verb: leave a trace of it (110113),
        rate-limited by actor and reason. ``reason`` holds no value of a patient."""
        self._core.refuse(principal, reason)

    # ---- finding ---------------------------------------------------------------

    def find(self, query: Query, *, principal: Principal, scope: Scope) -> Page:
        """Rows as DICOM JSON objects (PS3.4 C.2.2, PS3.18 10.6). Raises BadQuery."""
        return catalogue.find(self._core, query, principal=principal, scope=scope)

    def find_all(self, query: Query, *, principal: Principal, scope: Scope) -> Iterator[dict[str, object]]:
        """All rows of a query as DICOM JSON objects, fetched as they are taken, with nothing
        but what ``query.include`` names and the UIDs of the level and those above."""
        return results.find_all(self._core, query, principal=principal, scope=scope)

    def find_patients(
        self, query: Query, *, principal: Principal, scope: Scope
    ) -> Iterator[dict[str, object]]:
        """The patients of the studies that a query matches, likewise, by Patient ID and its
        issuer; names and the like as in the newest of the studies."""
        return results.find_patients(self._core, query, principal=principal, scope=scope)

    def slides(
        self, *, principal: Principal, scope: Scope, text: str = "", limit: int = 50, after: str = ""
    ) -> list[SlideSummary]:
        """The work list, newest first; ``after`` is the last line's ``cursor``."""
        return catalogue.slides(
            self._core, principal=principal, scope=scope, text=text, limit=limit, after=after
        )

    def changes(self, after: int, limit: int = 1000, *, principal: Principal, scope: Scope) -> list[Change]:
        """The change feed after ``seq`` ``after``, oldest first."""
        return catalogue.changes(self._core, after, limit, principal=principal, scope=scope)

    # ---- non-patient instances ---------------------------------------------------

    def find_non_patient(self, query: NonPatientQuery, *, principal: Principal, scope: Scope) -> Page:
        """Rows as DICOM JSON objects, in the order they were stored. Raises BadQuery."""
        return non_patient.find(self._core, query, principal=principal, scope=scope)

    def non_patient(
        self, category: str, sop: str, *, principal: Principal, scope: Scope
    ) -> NonPatientInstance:
        """One descriptor. Raises NoSuchInstance."""
        return non_patient.get(self._core, category, sop, principal=principal, scope=scope)

    def open_non_patient(
        self, category: str, sop: str, *, explicit: bool = False, principal: Principal, scope: Scope
    ) -> bytes:
        """The Part 10 file, 64 MiB at most, as it is stored or in Explicit VR Little Endian.
        Raises NoSuchInstance, Damaged."""
        return non_patient.read(
            self._core, category, sop, explicit=explicit, principal=principal, scope=scope
        )

    def non_patient_metadata(self, category: str, sop: str, *, principal: Principal, scope: Scope) -> bytes:
        """One DICOM JSON object, as :meth:`metadata` gives it."""
        return non_patient.metadata(self._core, category, sop, principal=principal, scope=scope)

    def non_patient_bulk(
        self, category: str, sop: str, path: str, *, principal: Principal, scope: Scope
    ) -> bytes:
        """A large value that metadata name by its path. Raises NoSuchBulkData."""
        return non_patient.bulk(self._core, category, sop, path, principal=principal, scope=scope)

    def delete_non_patient(
        self, category: str, sop: str, *, reason: str, principal: Principal, scope: Scope
    ) -> None:
        """Delete one; its UID may be used again. Raises NoSuchInstance."""
        self._changes()
        non_patient.delete(self._core, category, sop, reason=reason, principal=principal, scope=scope)

    # ---- retrieving ------------------------------------------------------------

    def instance(self, study: str, series: str, sop: str, *, principal: Principal, scope: Scope) -> Instance:
        """One descriptor. Raises NoSuchInstance when it is absent, hidden, or not of that
        study and series; Gone when it was deleted."""
        return self._retriever.instance(study, series, sop, principal=principal, scope=scope)

    def sender_of(self, instance: Instance, *, principal: Principal, scope: Scope) -> Sender:
        """Who brought it, and by which door."""
        return origin.sender_of(self._retriever, instance, principal=principal, scope=scope)

    def instances(
        self, study: str, series: str = "", *, principal: Principal, scope: Scope
    ) -> Iterator[Instance]:
        """All of a study or series, by series and instance number. Raises NoSuchStudy,
        NoSuchSeries, Gone at the call, not later."""
        return self._retriever.instances(study, series, principal=principal, scope=scope)

    def open(
        self,
        instance: Instance,
        *,
        principal: Principal,
        scope: Scope,
        base: bool = False,
        transfer_syntax_uid: str = "",
    ) -> ByteStream:
        """The Part 10 stream; of the base, as received, when ``base`` (a right of its own).
        With ``transfer_syntax_uid`` in that one, if :meth:`can_open` (CannotTranscode)."""
        return self._retriever.open(
            instance, principal=principal, scope=scope, base=base, transfer_syntax_uid=transfer_syntax_uid
        )

    def transfer(
        self, query: Query, destination: str, *, most: int = 100_000, principal: Principal, scope: Scope
    ) -> Transfer:
        """The instances that a query names, to be sent to another application entity: a
        context manager that audits begin and end. Raises TooLarge for more than ``most``."""
        return transfer.transfer(
            self._core,
            self._retriever,
            query,
            destination,
            most=most,
            principal=principal,
            scope=scope,
        )

    def can_open(self, instance: Instance, transfer_syntax_uid: str, *, scope: Scope) -> bool:
        """Whether :meth:`open` would give this transfer syntax: the stored one, and Explicit
        VR Little Endian where it has an encoding and the codec can decode."""
        return self._retriever.can_open(instance, transfer_syntax_uid, scope=scope)

    def check(self, instance: Instance, *, principal: Principal, scope: Scope) -> None:
        """Read all that an instance is made of and compare it with its digests: what is
        handed out afterwards is what was stored. Raises Damaged."""
        self._retriever.check(instance, principal=principal, scope=scope)

    def metadata(self, instance: Instance, *, principal: Principal, scope: Scope) -> bytes:
        """One DICOM JSON object, UTF-8, without group 2 and pixel data (PS3.18 F). Each
        BulkDataURI is ``bulk:`` and a path, for the edge to make absolute."""
        return self._retriever.metadata(instance, principal=principal, scope=scope)

    def metadata_pieces(
        self, instance: Instance, *, principal: Principal, scope: Scope
    ) -> Sequence[Deflated]:
        """The same object as it was compressed when it came, cut where ``bulk:`` stands:
        between each two pieces the edge puts what makes the path a URL."""
        return bulk_data.metadata_pieces(self._retriever, instance, principal=principal, scope=scope)

    def stored_frames(
        self, study: str, series: str, sop: str, *, principal: Principal, scope: Scope
    ) -> StoredFrames:
        """An instance with what reads its frames as stored: :meth:`instance` and
        :meth:`frame` with one look for both. Raises as :meth:`instance` does."""
        return self._retriever.stored_frames(study, series, sop, principal=principal, scope=scope)

    def stored_frames_now(
        self, study: str, series: str, sop: str, *, principal: Principal, scope: Scope
    ) -> StoredFrames | None:
        """The same if neither disk nor database server has to be waited for, and nothing is
        to be refused; else None: ask :meth:`stored_frames`, where one may wait."""
        return self._retriever.stored_frames_now(study, series, sop, principal=principal, scope=scope)

    def frame(self, instance: Instance, number: int, *, principal: Principal, scope: Scope) -> bytes:
        """One frame (from 1) as stored, without padding. Raises NoSuchFrame."""
        return self._retriever.frame(instance, number, principal=principal, scope=scope)

    def frames(
        self,
        instance: Instance,
        numbers: Sequence[int],
        *,
        principal: Principal,
        scope: Scope,
        transfer_syntax_uid: str = "",
    ) -> Iterator[bytes]:
        """Frames (from 1) in the order asked, as stored or, with a transfer syntax, in it.
        Every number is checked at the call (NoSuchFrame), and whether it can be transcoded
        (CannotTranscode); CannotDecode may come later."""
        return self._retriever.frames(
            instance, numbers, principal=principal, scope=scope, transfer_syntax_uid=transfer_syntax_uid
        )

    def can_transcode(self, instance: Instance, transfer_syntax_uid: str, *, scope: Scope) -> bool:
        """Whether :meth:`frames` would give this transfer syntax."""
        return self._retriever.can_transcode(instance, transfer_syntax_uid, scope=scope)

    def pixel_data(self, instance: Instance, *, principal: Principal, scope: Scope) -> ByteStream:
        """All frames as one native, little-endian value, decoded one by one where they are
        encapsulated. Raises NoSuchFrame where there are none, CannotTranscode."""
        return bulk_data.pixel_data(self._retriever, instance, principal=principal, scope=scope)

    def can_be_native(self, instance: Instance, *, scope: Scope) -> bool:
        """Whether :meth:`pixel_data` would give them."""
        return bulk_data.can_be_native(self._retriever, self._retriever.behind(instance, scope))

    def bulk_paths(self, instance: Instance, *, principal: Principal, scope: Scope) -> list[str]:
        """The paths of every bulk value that metadata names; pixel data have none."""
        return bulk_data.bulk_paths(self._retriever, instance, principal=principal, scope=scope)

    def bulk(self, instance: Instance, path: str, *, principal: Principal, scope: Scope) -> ByteStream:
        """The value at a path of tags and item numbers from 0 (``00480105/0/00282000``).
        Raises NoSuchBulkData."""
        return self._retriever.bulk(instance, path, principal=principal, scope=scope)

    def rendered(
        self,
        instance: Instance,
        frame_number: int,
        rendering: Rendering,
        *,
        principal: Principal,
        scope: Scope,
    ) -> bytes:
        """A frame as a picture, or the total pixel matrix when ``frame_number`` is 0, drawn
        from the coarsest level of its pyramid that is fine enough. Raises NoSuchFrame, BadView,
        TooLarge (more would be decoded than the limits allow), CannotDecode, CannotTranscode."""
        return self._drawing.rendered(instance, frame_number, rendering, principal=principal, scope=scope)

    def pyramid(self, study: str, uid: str, *, principal: Principal, scope: Scope) -> Pyramid:
        """The levels of a series' largest image, or of the image that an instance is part of;
        never a label or an overview. ``study`` may be "". Raises NotFound."""
        return self._drawing.pyramid(study, uid, principal=principal, scope=scope)

    def tile(
        self, instance: Instance, row: int, column: int, *, principal: Principal, scope: Scope
    ) -> bytes | None:
        """A tile of an instance's grid, counted from 0, as the stored JPEG that every browser
        shows right; None where there is none, and :meth:`rendered` draws it."""
        return self._drawing.tile(instance, row, column, principal=principal, scope=scope)

    def thumbnail(
        self,
        study: str,
        series: str = "",
        sop: str = "",
        rendering: Rendering | None = None,
        *,
        principal: Principal,
        scope: Scope,
    ) -> bytes:
        """A small picture of a study, series or instance; never of a label or an overview,
        which may show one. A series' default one is kept once made."""
        return pictures.thumbnail(
            self._core,
            self._retriever,
            self._drawing,
            study,
            series,
            sop,
            rendering,
            principal=principal,
            scope=scope,
        )

    def original(self, series: str, *, principal: Principal, scope: Scope) -> list[tuple[str, ByteStream]]:
        """Names and bytes of the scanner's own files, the main one first; a name may hold
        "/" (the right ``read_original``)."""
        return pictures.original(self._core, series, principal=principal, scope=scope)

    # ---- worklist ----------------------------------------------------------------

    def schedule(
        self, items: Sequence[NewItem], *, source: str, principal: Principal, scope: Scope
    ) -> list[Scheduled]:
        """Add worklist items, or change those that have the same identifier; in parts, each all
        or nothing, after all were checked. ``source``: who says so. Raises BadOrder."""
        return worklist.schedule(self._core, items, source=source, principal=principal, scope=scope)

    def unschedule(
        self, identifier: str, *, reason: str, source: str, principal: Principal, scope: Scope
    ) -> None:
        """Cancel an item; it stays, and scheduling it again brings it back. Raises NoSuchOrder."""
        worklist.unschedule(
            self._core, identifier, reason=reason, source=source, principal=principal, scope=scope
        )

    def worklist(self, query: WorklistQuery, *, principal: Principal, scope: Scope) -> Iterator[WorklistItem]:
        """Items by scheduled start, oldest first (PS3.4 Annex K); read a page at a time."""
        return worklist.search(self._core, query, principal=principal, scope=scope)

    def order_history(self, identifier: str, *, principal: Principal, scope: Scope) -> list[FormerValue]:
        """What an item was before, oldest first. Raises NoSuchOrder."""
        return worklist.history(self._core, identifier, principal=principal, scope=scope)

    def begin_performed_step(
        self,
        sop_instance_uid: str,
        attributes: Mapping[str, object],
        *,
        stations: tuple[str, ...] | None = None,
        principal: Principal,
        scope: Scope,
    ) -> str:
        """Create a performed procedure step, IN PROGRESS (PS3.4 F.7.2.1), and start the scheduled
        steps that it names; its UID, a new one for "". ``attributes``: DICOM JSON model;
        ``stations``: whose scheduled steps may be started, beside those for no station in
        particular, None for all. Raises StepRefused."""
        return performed.begin(
            self._core, sop_instance_uid, attributes, stations=stations, principal=principal, scope=scope
        )

    def update_performed_step(
        self, sop_instance_uid: str, changes: Mapping[str, object], *, principal: Principal, scope: Scope
    ) -> tuple[str, ...]:
        """Set attributes of a step IN PROGRESS, or end it (PS3.4 F.7.2.2); the tags of those
        that may not change and were left. Raises StepRefused."""
        return performed.update(self._core, sop_instance_uid, changes, principal=principal, scope=scope)

    def performed_step(
        self, sop_instance_uid: str, *, principal: Principal, scope: Scope
    ) -> dict[str, Mapping[str, object]]:
        """A step's attributes in the DICOM JSON model. Raises StepRefused."""
        return performed.get(self._core, sop_instance_uid, principal=principal, scope=scope)

    # ---- changing --------------------------------------------------------------

    def delete(
        self, study: str, series: str = "", sop: str = "", *, reason: str, principal: Principal, scope: Scope
    ) -> int:
        """Delete a study, series or instance; returns how many instances. Blobs stay for a
        day. Raises Held for part of a born slide, NoSuchStudy and its kin, Gone."""
        self._changes()
        return lifecycle.delete(
            self._core, study, series, sop, reason=reason, principal=principal, scope=scope
        )

    def reject(
        self,
        study: str,
        series: str = "",
        sop: str = "",
        *,
        code: str,
        reason: str = "",
        principal: Principal,
        scope: Scope,
    ) -> tuple[Stored, int]:
        """Reject a study, series or instance by a rejection note of ours (IHE IOCM), which is
        stored in the study; returns it, and how many instances it names. ``code``: of CID 7011
        (``archive.rejected.CODES``). Needs the rights to delete and to store. Raises BadQuery,
        RejectionRefused, Held, NoSuchStudy and its kin, Gone."""
        self._changes()
        return rejection.reject(
            self._core, study, series, sop, code=code, reason=reason, principal=principal, scope=scope
        )

    def readmit(
        self, study: str, series: str = "", sop: str = "", *, reason: str, principal: Principal, scope: Scope
    ) -> int:
        """Take back what rejected a study, series or instance; returns how many instances are
        here again, as they were. Notes with nothing left to reject are deleted. Raises
        NoSuchStudy and its kin where nothing rejected is kept."""
        self._changes()
        return readmission.readmit(
            self._core, study, series, sop, reason=reason, principal=principal, scope=scope
        )

    def correct(
        self, study: str, patch: Mapping[str, object], *, reason: str, principal: Principal, scope: Scope
    ) -> int:
        """A new header revision of every instance of a study; returns how many. ``patch``:
        DICOM keyword -> value (PS3.18 F forms for sequences). Raises BadQuery."""
        self._changes()
        return lifecycle.correct(self._core, study, patch, reason=reason, principal=principal, scope=scope)

    def recompress(
        self,
        study: str,
        series: str = "",
        *,
        reason: str,
        principal: Principal,
        scope: Scope,
        undo: bool = False,
        progress: Callable[[str, int], None] | None = None,
    ) -> Iterator[Recompressed]:
        """Store the JPEG frames of a study or series as JPEG XL, bit for bit reversible, or
        with ``undo`` as they came; yields what became of each instance as it is done.

        Every door gives the same bytes as before. ``progress`` gets SOP Instance UID and
        bytes of each frame, from several threads. Raises NoSuchStudy, NoSuchSeries,
        CannotTranscode (no codec); while it goes StorageFull, Busy: what is done is done,
        and the next call goes on from there.
        """
        self._changes()
        return recompress.recompress(
            self._core,
            study,
            series,
            undo=undo,
            reason=reason,
            principal=principal,
            scope=scope,
            progress=progress,
        )

    # ---- jobs, quarantine, watched folders ---------------------------------------

    def enqueue(
        self,
        kind: str,
        payload: Mapping[str, object],
        *,
        principal: Principal,
        scope: Scope,
        key: str = "",
    ) -> int:
        """A job; the same ``key`` while one waits or runs is the same job."""
        return work.enqueue(self._core, kind, payload, principal=principal, scope=scope, key=key)

    def claim(self, kinds: Sequence[str], *, lease_s: float = JOB_LEASE_S, owner: str) -> Job | None:
        """The next due job, for ``lease_s`` seconds; after that others may claim it."""
        return work.claim(self._core, kinds, lease_s=lease_s, owner=owner)

    def report(
        self,
        job_id: int,
        *,
        progress: float,
        message: str = "",
        lease_s: float = JOB_LEASE_S,
        attempt: int | None = None,
    ) -> None:
        """Progress (0 to 1), and a renewed lease. With the ``attempt`` of the claimed job,
        LeaseLost is raised when it is somebody else's by now; so below."""
        work.report(self._core, job_id, progress=progress, message=message, lease_s=lease_s, attempt=attempt)

    def finish(self, job_id: int, message: str = "", *, attempt: int | None = None) -> None:
        """Done."""
        work.finish(self._core, job_id, message, attempt=attempt)

    def fail(self, job_id: int, message: str, *, retry: bool, attempt: int | None = None) -> None:
        """Failed; tried again if ``retry``, with pauses that grow to ten minutes."""
        work.fail(self._core, job_id, message, retry=retry, attempt=attempt)

    def jobs(self, *, principal: Principal, scope: Scope, limit: int = 100) -> list[Job]:
        """The latest jobs, newest first."""
        return work.jobs(self._core, principal=principal, scope=scope, limit=limit)

    def quarantine(
        self, staged: StagedFile, name: str, reason: str, *, principal: Principal, scope: Scope, source: str
    ) -> int:
        """Keep what could not be stored, with the reason for an operator."""
        return work.quarantine(
            self._core, staged, name, reason, principal=principal, scope=scope, source=source
        )

    def quarantined(self, *, principal: Principal, scope: Scope, limit: int = 100) -> list[Quarantined]:
        """What waits in quarantine, newest first."""
        return work.quarantined(self._core, principal=principal, scope=scope, limit=limit)

    def resolve(self, entry: int, *, reason: str, principal: Principal, scope: Scope) -> None:
        """An operator has dealt with an entry of the quarantine: it is no longer shown, and
        its bytes go after a day unless something else keeps them. Raises NotFound."""
        work.resolve(self._core, entry, reason=reason, principal=principal, scope=scope)

    def resolve_stored(self, digests: Sequence[bytes], *, principal: Principal, scope: Scope) -> int:
        """Files of these SHA-256 were refused once and are stored now, as part of a slide
        that is whole at last: their entries of the quarantine are resolved. Returns how many."""
        return work.resolve_stored(self._core, digests, principal=principal, scope=scope)

    def quarantined_bytes(self, entry: int, *, principal: Principal, scope: Scope) -> tuple[str, ByteStream]:
        """Name and bytes of an entry of the quarantine. Raises NotFound."""
        return work.quarantined_bytes(self._core, entry, principal=principal, scope=scope)

    def watched(self, folder: str, identity: str) -> str | None:
        """What became of a file of a watched folder; None if it is new."""
        return work.watched(self._core, folder, identity)

    def note_watched(
        self, folder: str, identity: str, *, outcome: str, reason: str = "", digest: bytes | None = None
    ) -> None:
        """Remember it, so that it is never taken twice."""
        work.note_watched(self._core, folder, identity, outcome=outcome, reason=reason, digest=digest)

    # ---- integrity -------------------------------------------------------------

    def verify(self, *, principal: Principal, scope: Scope, repair: bool = False) -> Iterator[Finding]:
        """Re-hash everything and compare index, records and blobs; yields what is wrong."""
        return integrity.verify(self._core, principal=principal, scope=scope, repair=repair)

    def request_commitment(
        self,
        transaction: str,
        references: Sequence[tuple[str, str]],
        *,
        again: bool = False,
        places: Mapping[str, tuple[str, str]] | None = None,
        principal: Principal,
        scope: Scope,
    ) -> None:
        """Ask for the safekeeping of instances (SOP class and instance UID) under a new
        Transaction UID; a job answers. With ``again`` the same request of the same
        principal is answered again. ``places``: by SOP Instance UID, the study and series that
        it must be in. Raises TransactionInUse, BadQuery. PS3.4 J.3."""
        commitment.request_commitment(
            self._core,
            transaction,
            references,
            again=again,
            places=places,
            principal=principal,
            scope=scope,
        )

    def commitment_results(self) -> CommitmentResults:
        """Turns at telling peers what became of their requests."""
        return CommitmentResults(self._core)

    def asked_commitments(self) -> AskedCommitments:
        """What we asked of other archives, and what they answered."""
        return AskedCommitments(self._core)

    def availability(self) -> Availability:
        """Notices of what came and went."""
        return Availability(self._core)

    def commitment(self, transaction: str, *, principal: Principal, scope: Scope) -> Commitment:
        """The answer, for who asked. Raises NoSuchTransaction, TransactionExpired."""
        return commitment.commitment(self._core, transaction, principal=principal)

    def expire_commitments(self) -> int:
        """Forget answers whose time is over (``Limits.commitment_s``); returns how many."""
        return expire_commitments(self._core)

    def run_commitment(
        self, transaction: str, progress: Callable[[float], None] = lambda share: None
    ) -> tuple[int, int]:
        """The job of a request: re-hash all bytes of its instances, in the scope of who
        asked; returns how many there are and how many of them failed."""
        return commitment.run_commitment(self._core, self._retriever, transaction, progress)

    # ---- the outbox ------------------------------------------------------------

    def promise(
        self,
        receiver: str,
        kind: str,
        payload: Mapping[str, object],
        *,
        key: str = "",
        delay_s: float = 0.0,
        principal: Principal,
        scope: Scope,
    ) -> int:
        """Owe something to a receiver; durable on return. The same ``key`` while undone is
        the same duty (lists of its payload are joined). Returns its number."""
        return outbox.promise(
            self._core, receiver, kind, payload, key=key, delay_s=delay_s, principal=principal, scope=scope
        )

    def followed(self, follower: str) -> int | None:
        """Up to which ``seq`` of the change feed ``follower`` has made its promises; None:
        it has not begun."""
        return outbox.followed(self._core, follower)

    def promise_following(
        self,
        follower: str,
        before: int | None,
        after: int,
        promises: Sequence[Promise],
        *,
        principal: Principal,
        scope: Scope,
    ) -> bool:
        """Make promises and move the follower's position from ``before`` to ``after``, all
        or nothing; False, and nothing done, where another process has moved it."""
        return outbox.promise_following(
            self._core, follower, before, after, promises, principal=principal, scope=scope
        )

    def claim_duty(self, kinds: Sequence[str], *, lease_s: float, owner: str) -> Duty | None:
        """The next turn, or None. Per receiver and kind in the order of the promises and
        one at a time; a duty whose lease ran out is claimed again."""
        return outbox.claim(self._core, kinds, lease_s=lease_s, owner=owner)

    def report_duty(
        self,
        duty_id: int,
        *,
        progress: Mapping[str, object] | None = None,
        message: str = "",
        lease_s: float,
        attempt: int,
    ) -> None:
        """Show how far it is, and renew the lease of this attempt. Raises LeaseLost."""
        outbox.report(
            self._core, duty_id, progress=progress, message=message, lease_s=lease_s, attempt=attempt
        )

    def finish_duty(self, duty_id: int, message: str = "", *, attempt: int) -> None:
        """It is done, unless it was promised again meanwhile: then it waits. Raises LeaseLost."""
        outbox.finish(self._core, duty_id, message, attempt=attempt)

    def fail_duty(
        self, duty_id: int, message: str, retry_in_s: float | None, *, attempt: int, holds: bool = True
    ) -> None:
        """Try again later, or give it up (None): it stays to be seen. Without ``holds``
        those behind it may go first meanwhile. Raises LeaseLost."""
        outbox.fail(self._core, duty_id, message, retry_in_s, attempt=attempt, holds=holds)

    def duties(
        self,
        *,
        receiver: str = "",
        kind: str = "",
        state: str = "",
        limit: int = 100,
        principal: Principal,
        scope: Scope,
    ) -> list[Duty]:
        """The outbox, latest first. Raises BadQuery for an unknown state."""
        return outbox.duties(
            self._core,
            receiver=receiver,
            kind=kind,
            state=state,
            limit=limit,
            principal=principal,
            scope=scope,
        )

    def duty_counts(self) -> dict[str, int]:
        """How many duties there are in each state, for metrics."""
        return outbox.counts(self._core)

    def retry_duty(self, duty_id: int, *, principal: Principal, scope: Scope) -> None:
        """Have it tried at once, one that was given up as well. Raises NoSuchDuty, BadQuery."""
        outbox.retry(self._core, duty_id, principal=principal, scope=scope)

    def cancel_duty(self, duty_id: int, reason: str, *, principal: Principal, scope: Scope) -> None:
        """Owe it no more. Raises NoSuchDuty, BadQuery (it is over)."""
        outbox.cancel(self._core, duty_id, reason, principal=principal, scope=scope)

    def forget_duties(self, older_than_s: float) -> int:
        """Remove duties that were done or cancelled so long ago; returns how many."""
        return outbox.forget(self._core, older_than_s)

    def confirm_delivered(self, receiver: str, instances: Sequence[tuple[str, int]]) -> None:
        """A receiver has these (SOP Instance UID, header revision)."""
        outbox.confirm(self._core, receiver, instances)

    def delivered(self, receiver: str, sop_instance_uids: Sequence[str]) -> dict[str, int]:
        """Of these, the ones that the receiver confirmed, with their header revision."""
        return outbox.delivered(self._core, receiver, sop_instance_uids)

    # ---- upkeep ----------------------------------------------------------------

    def recover(self, *, everything: bool = False) -> list[Finding]:
        """Finish what killed processes left: run before anything is served."""
        return recovery.recover(self._core, everything=everything)

    def reindex(self, *, principal: Principal, scope: Scope) -> int:
        """Rebuild the index from storage; returns the number of instances. Nothing else
        may write meanwhile."""
        found = recovery.reindex(self._core, principal=principal, scope=scope)
        self._retriever.handles.clear()
        return found

    @property
    def matching_keys(self) -> Mapping[str, str]:
        """What :meth:`find` matches on besides columns: VR by dotted tag path."""
        return self._core.index.matching_keys

    def want_keys(self, *, principal: Principal, scope: Scope) -> int:
        """Enqueue the job that brings the keys of what is stored up to date; its id, 0 when
        they are."""
        return matching_keys.enqueue(self._core, principal=principal, scope=scope)

    def index_keys(self, progress: Callable[[float], None], *, principal: Principal, scope: Scope) -> int:
        """That job's work; returns how many instances were read."""
        return matching_keys.index_keys(self._core, progress, principal=principal, scope=scope)

    def collect_garbage(self, *, principal: Principal, scope: Scope) -> int:
        """Remove blobs that nobody has kept for a day; returns how many."""
        return garbage.collect_garbage(self._core, principal=principal, scope=scope)

    def fold_access(self) -> int:
        """Turn finished access lines into audit events; returns how many."""
        return folding.fold_access(self._core)

    def known_peers(self) -> tuple[Peer, ...]:
        """The remote application entities that operators named here, by AE title."""
        return network.known_peers(self._core)

    def peers(self, *, principal: Principal, scope: Scope) -> tuple[Peer, ...]:
        """The same, for an operator."""
        return network.peers(self._core, principal=principal, scope=scope)

    def put_peer(self, peer: Peer, *, principal: Principal, scope: Scope) -> bool:
        """Keep a peer under its AE title; whether that is new. Raises BadQuery: too many."""
        return network.put_peer(self._core, peer, principal=principal, scope=scope)

    def remove_peer(self, ae_title: str, *, principal: Principal, scope: Scope) -> None:
        """Forget a peer. Raises NoSuchPeer."""
        network.remove_peer(self._core, ae_title, principal=principal, scope=scope)

    def ready(self) -> dict[str, str]:
        """``database``, ``storage``, ``disk`` -> "ok" or what is wrong."""
        return catalogue.ready(self._core)

    def statistics(self) -> dict[str, float]:
        """Sizes and hit rates of caches, for metrics."""
        handles, files = self._retriever.handles, self._core.files
        return {
            "instance_cache_hits": handles.hits,
            "instance_cache_misses": handles.misses,
            "file_cache_hits": files.hits,
            "file_cache_misses": files.misses,
        }

    def close(self) -> None:
        """Finish writes and release everything."""
        self._retriever.handles.clear()
        self._core.files.clear()
        self._core.index.close()
        if self._mark is not None:
            self._mark.unlink(missing_ok=True)


__all__ = ["Archive", "ArchiveError"]
