# SPDX-License-Identifier: Apache-2.0
"""From bytes that arrived to what a record says of them; nothing is stored here."""

import hashlib
import io
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydicom.dataset import Dataset

from archive import packed_json
from archive.errors import Unreadable, UnsupportedSopClass, UnsupportedTransferSyntax
from archive.part10.agreement import HEAD_BYTES, Announced, disagreements
from archive.part10.budget import ParseBudget
from archive.part10.bulk import BulkValue
from archive.part10.digest import content_digest, pixel_digest
from archive.part10.errors import Part10Error, UnknownTransferSyntax
from archive.part10.frame_table import FrameTable, Kind, Range, repack
from archive.part10.json_model import to_json
from archive.part10.meta import read_meta
from archive.part10.scan import ScannedFile, scan_file
from archive.part10.stream import Part10Stream
from archive.record import BlobRef, RecordedInstance, Sections, made_base_digest
from archive.spool import Spool
from archive.values import NewBlob, NewInstance, StagedFile

_STORAGE_ROOTS = (
    "1.2.840.10008.5.1.4.1.1.",
    "1.2.840.10008.5.1.4.34.7",
    "1.2.840.10008.5.1.4.38.1",
    "1.2.840.10008.5.1.4.39.1",
    "1.2.840.10008.5.1.4.43.1",
    "1.2.840.10008.5.1.4.44.1",
    "1.2.840.10008.5.1.4.45.1",
    "1.2.840.10008.5.1.4.20.",
)

# Above this the pixel digest is left to the first collision of UIDs: it costs a second
# pass over the bytes, and the base digest guards them already.
EAGER_PIXEL_DIGEST_BYTES = 64 << 20


@dataclass(slots=True)
class Prepared:
    """One instance, ready to be put: its entry, its sections, and the blobs to keep."""

    recorded: RecordedInstance
    sections: Sections
    dataset: Dataset
    blobs: list[tuple[BlobRef, StagedFile | bytes]]


def from_file(staged: StagedFile, spool: Spool, budget: ParseBudget) -> Prepared:
    """A received Part 10 file (or bare data set). Deflated and big-endian streams are
    re-encoded under the inflation budget and the received bytes kept beside.

    Raises Unreadable, UnsupportedSopClass, UnsupportedTransferSyntax.
    """
    received: StagedFile | None = None
    scratch = spool.new_path()
    try:
        scanned = scan_file(staged.path, budget=budget, allow_bare=True, scratch=scratch)
        syntax = scanned.transfer_syntax_uid
        if scanned.reencoded:
            syntax = received_transfer_syntax(staged.path)
            received, staged = staged, spool.adopt(scratch)
    except UnknownTransferSyntax as error:
        raise UnsupportedTransferSyntax(str(error)) from error
    except Part10Error as error:
        scratch.unlink(missing_ok=True)
        raise Unreadable(str(error)) from error
    _check(scanned)
    blobs: list[tuple[BlobRef, StagedFile | bytes]] = [(BlobRef(staged.sha256, staged.size_bytes), staged)]
    if received is not None:
        blobs.append((BlobRef(received.sha256, received.size_bytes), received))
    pixels = None
    if scanned.frame_table and staged.size_bytes <= EAGER_PIXEL_DIGEST_BYTES:
        pixels = pixel_digest_of_file(scanned.frame_table, staged.path)
    refs = tuple(ref for ref, _ in blobs)
    base, base_digest, size = "file", staged.sha256, staged.size_bytes
    if not has_preamble(staged.path):
        # The data set lacks preamble and group 2: its Part 10 stream is made.
        base, base_digest = "bare", made_base_digest(scanned.header, scanned.frame_table, refs)
        size = stream_of(
            scanned.header, scanned.frame_table, scanned.transfer_syntax_uid, scanned.bulk
        ).length
    recorded = RecordedInstance(
        study_instance_uid=scanned.study_instance_uid,
        series_instance_uid=scanned.series_instance_uid,
        sop_instance_uid=scanned.sop_instance_uid,
        sop_class_uid=scanned.sop_class_uid,
        transfer_syntax_uid=scanned.transfer_syntax_uid,
        received_transfer_syntax_uid=syntax,
        base=base,
        base_digest=base_digest,
        size_bytes=size,
        received=None if received is None else received.sha256,
        blobs=refs,
        bulk=scanned.bulk,
        dataset_digest=content_digest(scanned.dataset, b"", _bulk_digests(staged.path, scanned.bulk)),
        pixel_digest=pixels,
        findings=(*scanned.findings, *_frame_findings(scanned, staged.path)),
    )
    sections = Sections(
        scanned.header,
        packed_json.pack(to_json(scanned.dataset, scanned.bulk)),
        scanned.frame_table,
    )
    return Prepared(recorded, sections, scanned.dataset, blobs)


def made(instance: NewInstance, spool: Spool, budget: ParseBudget) -> Prepared:
    """An instance of ours: a header over blobs, or a whole Part 10 file."""
    if instance.part10 is not None:
        if isinstance(instance.part10, Path):
            staged = spool.adopt(instance.part10)
        else:
            with spool.stage(len(instance.part10)) as staging:
                staging.write(instance.part10)
                staged = staging.finish()
        prepared = from_file(staged, spool, budget)
        if instance.absent_tiles:
            prepared.sections = Sections(
                prepared.sections.header,
                prepared.sections.json,
                prepared.sections.table,
                instance.absent_tiles,
            )
        return prepared
    scanned = scan_header(instance.header, budget)
    _check(scanned)
    table = FrameTable.from_bytes(instance.frame_table)  # refuses a broken one before it is kept
    stream = Part10Stream(instance.header, scanned.transfer_syntax_uid, table, ())
    described = describe_header(instance.header, budget)
    blobs = [_reference(blob) for blob in instance.blobs]
    refs = tuple(ref for ref, _ in blobs)
    recorded = RecordedInstance(
        study_instance_uid=scanned.study_instance_uid,
        series_instance_uid=scanned.series_instance_uid,
        sop_instance_uid=scanned.sop_instance_uid,
        sop_class_uid=scanned.sop_class_uid,
        transfer_syntax_uid=scanned.transfer_syntax_uid,
        received_transfer_syntax_uid=scanned.transfer_syntax_uid,
        base="made",
        base_digest=made_base_digest(instance.header, instance.frame_table, refs),
        size_bytes=stream.length,
        received=None,
        blobs=refs,
        bulk=(),
        dataset_digest=content_digest(scanned.dataset, b"", described.large),
        pixel_digest=None,
    )
    sections = Sections(
        instance.header,
        described.json,
        instance.frame_table,
        instance.absent_tiles,
    )
    return Prepared(recorded, sections, scanned.dataset, blobs)


@dataclass(frozen=True, slots=True)
class Described:
    """What is kept of header bytes besides themselves. ``json`` is gzip'd; ``large``:
    path -> SHA-256 of values above 64 KiB that the header holds itself, as ours do."""

    dataset: Dataset
    json: bytes
    large: dict[str, bytes]


def describe_header(header: bytes, budget: ParseBudget, bulk: Sequence[BulkValue] = ()) -> Described:
    """Data set, JSON and digests of header bytes; ``bulk`` are the instance's values that
    lie elsewhere. Raises Unreadable."""
    scanned = scan_header(header, budget)
    return Described(
        scanned.dataset,
        packed_json.pack(to_json(scanned.dataset, [*scanned.bulk, *bulk])),
        {b.path: hashlib.sha256(header[b.offset : b.offset + b.length]).digest() for b in scanned.bulk},
    )


def scan_header(header: bytes, budget: ParseBudget) -> ScannedFile:
    """A Part 10 header of ours, read as if it were a file. Raises Unreadable."""
    try:
        return scan_file(io.BytesIO(header), budget=budget)
    except Part10Error as error:
        raise Unreadable(str(error)) from error


def _reference(blob: NewBlob) -> tuple[BlobRef, StagedFile | bytes]:
    if isinstance(blob.source, bytes):
        return BlobRef(hashlib.sha256(blob.source).digest(), len(blob.source)), blob.source
    return BlobRef(blob.source.sha256, blob.source.size_bytes), blob.source


def stream_of(
    header: bytes, table: bytes, transfer_syntax_uid: str, bulk: Sequence[BulkValue]
) -> Part10Stream:
    """The made stream of a header over blobs; frames come from the table, the pixel data's
    tag and VR from its bulk value."""
    frames = FrameTable.from_bytes(table) if table else None
    return Part10Stream(header, transfer_syntax_uid, frames, bulk)


def has_preamble(path: Path) -> bool:
    with path.open("rb", buffering=0) as file:
        return os.pread(file.fileno(), 4, 128) == b"DICM"


def received_transfer_syntax(path: Path) -> str:
    """What group 2 of a received file says."""
    with path.open("rb") as file:
        return read_meta(file.read(1 << 16), allow_bare=True).transfer_syntax_uid


def _check(scanned: ScannedFile) -> None:
    """Storage SOP classes (PS3.4 B.5) and private ones; not directories and services."""
    if not is_stored_class(scanned.sop_class_uid):
        raise UnsupportedSopClass(scanned.sop_class_uid)


def is_stored_class(sop_class_uid: str) -> bool:
    """Whether instances of a SOP class are stored here."""
    return not sop_class_uid.startswith("1.2.840.10008.") or sop_class_uid.startswith(_STORAGE_ROOTS)


def _frame_findings(scanned: ScannedFile, path: Path) -> list[str]:
    """What the first frame's codestream says otherwise than the header around it: it is
    kept as it came, and who reads it later must know."""
    if scanned.pixel_data is None or not scanned.pixel_data.encapsulated:
        return []
    table = FrameTable.from_bytes(scanned.frame_table)
    first = next((s for s in table.segments(0) if isinstance(s, Range) and s.length), None)
    if first is None:
        return []
    with path.open("rb", buffering=0) as file:
        head = os.pread(file.fileno(), min(first.length, HEAD_BYTES), first.offset)
    dataset = scanned.dataset
    rows, columns, samples, bits = (
        _unsigned(dataset, tag) for tag in (0x00280010, 0x00280011, 0x00280002, 0x00280100)
    )
    colours = getattr(dataset.get_item(0x00280004), "value", None) if 0x00280004 in dataset else None
    text = (colours if isinstance(colours, bytes) else b"").decode("ascii", "replace").strip(" \x00")
    return disagreements(head, Announced(scanned.transfer_syntax_uid, text, rows, columns, samples, bits))


def _unsigned(dataset: Dataset, tag: int) -> int:
    """A 16-bit number of a scanned header as it was encoded, 0 where it is none."""
    value = getattr(dataset.get_item(tag), "value", None) if tag in dataset else None
    return int.from_bytes(value, "little") if isinstance(value, bytes) and len(value) == 2 else 0


def _bulk_digests(path: Path, bulk: Sequence[BulkValue]) -> dict[str, bytes]:
    """Path -> SHA-256 of the values above 64 KiB that are not pixel data."""
    digests = {}
    with path.open("rb") as file:
        for value in bulk:
            if value.is_pixel_data:
                continue
            file.seek(value.offset)
            digest = hashlib.sha256()
            left = value.length
            while left > 0 and (piece := file.read(min(left, 1 << 20))):
                digest.update(piece)
                left -= len(piece)
            digests[value.path] = digest.digest()
    return digests


def pixel_digest_of_file(table: bytes, path: Path) -> bytes:
    """Digest of the frames of a file whose table is ``table``."""
    with path.open("rb", buffering=0) as file:
        descriptor = file.fileno()
        return pixel_digest(
            frame_pieces(FrameTable.from_bytes(table), lambda r: os.pread(descriptor, r.length, r.offset))
        )


def frame_pieces(table: FrameTable, read: Callable[[Range], bytes]) -> Iterator[Iterable[bytes]]:
    """Each frame as its pieces, for :func:`archive.part10.digest.pixel_digest`."""
    for index in range(table.count):
        if table.kind is Kind.BITS:
            place, first_bit, bits = table.bits(index)
            yield [repack(read(place), first_bit, bits)]
            continue
        yield [s if isinstance(s, bytes) else read(s) for s in table.segments(index)]
