# SPDX-License-Identifier: Apache-2.0
"""JPEG frames stored as JPEG XL, and back: a second blob, proven first (docs/adr/0011).

An instance at a time, all or nothing: the second blob, the journal's entry, the
transaction. Killed in between, ``recover`` completes what the journal says; run again,
the verb goes on where it was.
"""

import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from archive.access import Action, Principal, Scope
from archive.audit import INSTANCES_ACCESSED, AuditRecord
from archive.blobs import (
    JPEG_BASELINE,
    JPEGXL_RECOMPRESSION,
    Blob,
    Restorer,
    describe_pixels,
    open_blob,
    open_packed,
)
from archive.core import Core
from archive.errors import (
    Busy,
    CannotDecode,
    CannotTranscode,
    Damaged,
    NoSuchSeries,
    NoSuchStudy,
)
from archive.indexing import execute, has_blob
from archive.ingest import full
from archive.journal import EXPAND, RECOMPRESS, Move, Target, new_entry
from archive.lifecycle import journalled
from archive.moving import held, move_blob
from archive.packed import PackedFile, Place, exactly, pack, pieces
from archive.part10.frame_table import FrameTable, Kind, Range
from archive.record import BlobRef, blob_key
from archive.retrieve import digest_of
from archive.rows import Row, find_row, rows_below
from archive.spool import SpoolFile, storage_errors
from archive.storage.local import LocalFile
from archive.values import Recompressed, Recompression

Progress = Callable[[str, int], None]


class _Left(Exception):
    """This instance is left as it is; the text says why."""


class _Irreversible(Exception):
    """What was written does not give back what was stored."""


@dataclass(frozen=True, slots=True)
class _Request:
    principal: Principal
    reason: str
    progress: Progress


def recompress(
    core: Core,
    study: str,
    series: str,
    *,
    undo: bool,
    reason: str,
    principal: Principal,
    scope: Scope,
    progress: Progress | None,
) -> Iterator[Recompressed]:
    """See ``Archive.recompress``."""
    core.check(principal, Action.OPERATE)
    uids = [row.sop_instance_uid for page in rows_below(core, study, series, scope) for row in page]
    if not uids:
        raise NoSuchSeries(series) if series else NoSuchStudy(study)
    if core.codec is None:
        raise CannotTranscode("no codec is configured")
    request = _Request(principal, reason, progress or (lambda name, size_bytes: None))
    change = _expand if undo else _recompress

    def walk() -> Iterator[Recompressed]:
        for uid in uids:
            row = find_row(core, uid)
            if row is None or row.study_instance_uid != study:
                continue  # went meanwhile
            before = 0
            try:
                before = stored_bytes(core, row)
                yield _told(row, before, *change(core, row, request))
            except _Left as left:
                yield _told(row, before, Recompression.LEFT, before, str(left))
            except (_Irreversible, Damaged, CannotDecode) as error:
                yield _told(row, before, Recompression.FAILED, before, str(error))

    return walk()


def stored_bytes(core: Core, row: Row) -> int:
    """Size of an instance's blobs. Raises Damaged when one is missing."""
    return sum(core.files.get(key).size for key in row.blob_keys)


def _told(row: Row, before: int, outcome: Recompression, after: int, reason: str = "") -> Recompressed:
    return Recompressed(row.series_instance_uid, row.sop_instance_uid, outcome, before, after, reason)


# ---- what may be recompressed --------------------------------------------------------


def _held(core: Core, row: Row) -> str:
    with core.index.read():
        return held(core, row.id)


def frame_places(table: FrameTable) -> tuple[int, list[Place]]:
    """The number of the blob that holds all frames, and their places by offset. Raises
    _Left for frames that are not each one range of one blob."""
    if table.kind is Kind.BITS or not table.count:
        raise _Left("it has no JPEG frames")
    columns = _direct(table) if table.kind is Kind.DIRECT else _gathered(table)
    offsets, lengths, blobs = columns
    if np.any(blobs != blobs[0]):
        raise _Left("its frames lie in several blobs")
    order = np.argsort(offsets, kind="stable")
    offsets, lengths = offsets[order], lengths[order]
    new = np.append(True, (offsets[1:] != offsets[:-1]) | (lengths[1:] != lengths[:-1]))
    offsets, lengths = offsets[new], lengths[new]  # several frames may be one tile
    if np.any(offsets[1:] < offsets[:-1] + lengths[:-1]) or np.any(lengths >= 1 << 32):
        raise _Left("its frames overlap")
    found = zip(offsets.tolist(), lengths.tolist(), strict=True)
    return int(blobs[0]), [Place(offset, length) for offset, length in found if length]


_Columns = tuple[NDArray[np.uint64], NDArray[np.uint64], NDArray[np.uint64]]


def _direct(table: FrameTable) -> _Columns:
    entries = table.direct_entries()
    if any(table.prefixes) or np.any(entries["skip"]):
        raise _Left("its frames share tables that lie elsewhere")
    offsets, lengths, blobs = (entries[name].astype(np.uint64) for name in ("offset", "length", "blob"))
    return offsets, lengths, blobs


def _gathered(table: FrameTable) -> _Columns:
    rows = []
    for index in range(table.count):
        segments = table.segments(index)
        if len(segments) != 1 or not isinstance(segments[0], Range):
            raise _Left("its frames are of several pieces")
        rows.append((segments[0].offset, segments[0].length, segments[0].blob_index))
    offsets, lengths, blobs = np.array(rows, dtype=np.uint64).T
    return offsets, lengths, blobs


def _kept_by_others(core: Core, row: Row, position: int) -> bool:
    """Whether somebody else keeps a blob of an instance: a scanner's original above all."""
    digest = bytes.fromhex(row.blob_keys[position].rpartition("/")[2])
    with core.index.read():
        found = execute(
            core,
            "SELECT 1 FROM blob_ref r JOIN blob b ON b.id = r.blob_id "
            "WHERE b.digest = ? AND NOT (r.owner_kind = 'instance' AND r.owner_id = ?)",
            digest,
            row.id,
        ).fetchone()
    return found is not None


# ---- recompress ------------------------------------------------------------------------


def _recompress(core: Core, row: Row, request: _Request) -> tuple[Recompression, int]:
    if row.transfer_syntax_uid != JPEG_BASELINE or not row.table[1]:
        raise _Left("it has no JPEG frames")
    if any(first is not None for first in row.unpacked):
        return Recompression.ALREADY, stored_bytes(core, row)
    if why := _held(core, row):
        raise _Left(why)
    record = core.files.get(row.record_key)
    position, places = frame_places(FrameTable.open(record.fileno(), *row.table))
    if position >= len(row.blob_keys):
        raise Damaged("the frame table names a blob that the instance does not have")
    if _kept_by_others(core, row, position):
        raise _Left("its frames lie in a file that is kept for others too")
    first = open_blob(core, row, position)
    ref = BlobRef(bytes.fromhex(row.blob_keys[position].rpartition("/")[2]), first.size)
    if places and places[-1].offset + places[-1].length > first.size:
        raise Damaged("the frame table names bytes behind the end of the blob")
    _have_room(core, first.size)
    staged = _packed(core, row, first, ref, places, request)
    try:
        _prove(core, row, staged, first, ref)
        packed = BlobRef(staged.sha256, staged.size_bytes)
        core.storage.put_file(blob_key(packed.digest), staged.path, sha256=packed.digest)
    finally:
        staged.path.unlink(missing_ok=True)
    _commit(core, row, Move(_target(row), position, ref, packed), request, packs=True)
    return Recompression.RECOMPRESSED, stored_bytes(core, row) - ref.size_bytes + packed.size_bytes


def _packed(
    core: Core, row: Row, first: Blob, ref: BlobRef, places: list[Place], request: _Request
) -> SpoolFile:
    """The second blob in the spool. Raises _Left when it would not be smaller."""
    codec = core.codec
    assert codec is not None
    pixels = describe_pixels(row)

    refused: list[Exception] = []

    def squeeze(frame: bytes) -> bytes:
        try:
            squeezed = codec.transcode(frame, pixels, JPEGXL_RECOMPRESSION)
        except (CannotDecode, CannotTranscode) as error:
            refused.append(error)
            squeezed = frame  # damaged, or of a kind that JPEG XL does not know: it stays as it is
        request.progress(row.sop_instance_uid, len(frame))
        return squeezed

    with core.spool.stage() as staging:
        pack(first, ref.digest, places, squeeze, staging.write)
        if 2 * len(refused) > len(places):
            raise _Left(f"most of its frames are refused: {refused[0]}")
        if staging.size_bytes >= first.size:
            raise _Left("there is nothing to gain")
        return staging.finish()


def _prove(core: Core, row: Row, staged: SpoolFile, first: Blob, ref: BlobRef) -> None:
    """Rebuild the first blob from the second: every piece is compared with what is stored,
    all of them with the digest. Raises _Irreversible, Damaged."""
    digest, done = hashlib.sha256(), 0
    with storage_errors():
        written = LocalFile(os.open(staged.path, os.O_RDONLY | os.O_CLOEXEC), staged.size_bytes)
    with written:
        for piece in PackedFile(written, Restorer(core, row)).chunks_ahead():
            if piece != exactly(first, done, len(piece)):
                raise _Irreversible("a frame does not come back bit for bit")
            digest.update(piece)
            done += len(piece)
    if done != ref.size_bytes:
        raise _Irreversible("the blob does not come back in its length")
    if digest.digest() != ref.digest:
        raise Damaged("the stored bytes differ from their digest")


# ---- and back --------------------------------------------------------------------------


def _expand(core: Core, row: Row, request: _Request) -> tuple[Recompression, int]:
    after = 0
    outcome = Recompression.ALREADY
    for position, first in enumerate(row.unpacked):
        stored = core.files.get(row.blob_keys[position])
        if first is None:
            after += stored.size
            continue
        if not _is_there(core, first):
            _rebuild(core, row, position, first, request)
        packed = BlobRef(bytes.fromhex(row.blob_keys[position].rpartition("/")[2]), stored.size)
        _commit(core, row, Move(_target(row), position, first, packed), request, packs=False)
        after += first.size_bytes
        outcome = Recompression.EXPANDED
    return outcome, after


def _is_there(core: Core, first: BlobRef) -> bool:
    """Whether storage has the first blob still, whole: it is condemned for a day."""
    key = blob_key(first.digest)
    if core.storage.stat(key) != first.size_bytes:
        return False
    with core.storage.open(key) as file:
        return digest_of(pieces(file, 0, file.size)) == first.digest


def _rebuild(core: Core, row: Row, position: int, first: BlobRef, request: _Request) -> None:
    """The first blob out of the one that holds it. Raises _Irreversible, Damaged."""
    _have_room(core, first.size_bytes)
    with core.spool.stage(first.size_bytes) as staging:
        for piece in open_packed(core, row, position).chunks_ahead():
            staging.write(piece)
            request.progress(row.sop_instance_uid, len(piece))
        staged = staging.finish()
    try:
        if staged.sha256 != first.digest:
            raise _Irreversible("the blob does not come back as it came")
        core.storage.put_file(blob_key(first.digest), staged.path, sha256=first.digest)
    finally:
        staged.path.unlink(missing_ok=True)


# ---- both ------------------------------------------------------------------------------


def _target(row: Row) -> Target:
    return Target(row.record_key, row.sop_instance_uid)


def _have_room(core: Core, size_bytes: int) -> None:
    free = core.storage.free_bytes()
    if free is not None and free < core.limits.free_bytes + size_bytes:
        raise full(free)


def _commit(core: Core, row: Row, move: Move, request: _Request, *, packs: bool) -> None:
    """The journal's entry, then the blobs' exchange with its audit event and its change."""
    now = core.clock()
    action, done = (RECOMPRESS, "recompressed") if packs else (EXPAND, "expanded")
    entry = new_entry(action, request.principal.actor, request.reason, moves=[move], time=now)
    there = move.blob if packs else move.packed

    def commit() -> None:
        uid = row.sop_instance_uid
        if not has_blob(core, move.target.record, uid, move.position, there.digest):
            raise Busy("the instance was changed meanwhile; try again")
        if packs and (why := held(core, row.id)):
            raise _Left(why)
        move_blob(core, row.id, move, pack=packs, time=now)
        core.add_change(done, row.study_instance_uid, row.series_instance_uid, uid)
        detail: dict[str, object] = {
            "action": action,
            "reason": request.reason,
            "blob": [move.blob.digest.hex(), move.blob.size_bytes],
            "packed": [move.packed.digest.hex(), move.packed.size_bytes],
        }
        core.add_audit(
            AuditRecord(INSTANCES_ACCESSED, "U", request.principal, 0, row.study_instance_uid, uid, detail)
        )

    journalled(core, entry, commit)
