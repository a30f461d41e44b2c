# SPDX-License-Identifier: Apache-2.0
"""Non-patient instances in the index: their rows, what they are found by, and both from
the Part 10 file. Functions that write are called inside ``Index.write``."""

import gzip
import hashlib
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset

from archive.access import NOTHING, Scope
from archive.core import Core
from archive.errors import Damaged
from archive.index import attributes
from archive.index.attributes import MATCHED_VRS, AttributeRow
from archive.indexing import execute, refer, release
from archive.journal import KeptObject
from archive.non_patient_classes import INVENTORIES
from archive.part10.bulk import BulkValue
from archive.part10.digest import content_digest
from archive.part10.errors import Part10Error
from archive.part10.json_model import to_json
from archive.part10.scan import ScannedFile, scan_file
from archive.part10.stream import Part10Stream
from archive.part10.syntaxes import EXPLICIT
from archive.record import BlobRef, blob_key
from archive.rows import microseconds

MAX_BYTES = 64 << 20  # of one file: it is read as a whole
OWNER = "non_patient"  # of blobs
_ELEMENT_CHARACTERS = 16 << 10  # of what a search may return or match
_SUMMARY_CHARACTERS = 256 << 10
_DEPTH = 4
_COLUMNS = (
    "id", "category", "sop_class_uid", "sop_instance_uid", "transfer_syntax_uid", "digest", "size_bytes",
    "content_digest",
)  # fmt: skip
SELECTED = ", ".join(f"n.{name}" for name in _COLUMNS)


@dataclass(frozen=True, slots=True)
class NonPatientInstance:
    """One non-patient instance. ``digest``: SHA-256 of its Part 10 file of ``size_bytes``."""

    id: int
    category: str
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    digest: bytes
    size_bytes: int
    content_digest: bytes


@dataclass(frozen=True, slots=True)
class Described:
    """What the index keeps of a file. ``summary``: DICOM JSON of its small attributes."""

    transfer_syntax_uid: str
    content_digest: bytes
    summary: bytes
    keys: tuple[AttributeRow, ...]


def sees(scope: Scope, category: str) -> bool:
    """Whether a scope sees a category: one that sees nothing sees none of them."""
    return scope.is_everything or (scope != NOTHING and category != INVENTORIES)


def describe(scanned: ScannedFile, data: bytes) -> Described:
    """From a scanned file and its bytes."""
    full = json.loads(to_json(scanned.dataset, scanned.bulk))
    summary: dict[str, Any] = {}
    left = _SUMMARY_CHARACTERS
    for tag, element in full.items():
        size = len(json.dumps(element, ensure_ascii=False))
        if size <= min(left, _ELEMENT_CHARACTERS) and "BulkDataURI" not in element:
            summary[tag] = element
            left -= size
    text = json.dumps(summary, separators=(",", ":"), ensure_ascii=False).encode()
    return Described(
        scanned.transfer_syntax_uid,
        content_digest(scanned.dataset, b"", bulk_digests(scanned.bulk, data)),
        gzip.compress(text, mtime=0),
        tuple(_keys(scanned.dataset, summary)),
    )


def bulk_digests(bulk: tuple[BulkValue, ...], data: bytes) -> dict[str, bytes]:
    return {b.path: hashlib.sha256(data[b.offset : b.offset + b.length]).digest() for b in bulk}


def _keys(dataset: Dataset, summary: Mapping[str, Any]) -> list[AttributeRow]:
    return attributes.extract(dataset, dict(_paths(summary, "", 0)))


def _paths(json_object: Mapping[str, Any], prefix: str, depth: int) -> Iterator[tuple[str, str]]:
    for tag, element in json_object.items():
        path, vr = f"{prefix}{tag}", str(element.get("vr"))
        if vr == "SQ" and depth < _DEPTH:
            for item in element.get("Value", ()):
                yield from _paths(item, f"{path}.", depth + 1)
        elif vr in MATCHED_VRS:
            yield path, vr


def scan_bytes(core: Core, data: bytes) -> ScannedFile:
    """A stored file, read again. Raises Damaged."""
    try:
        return scan_file(io.BytesIO(data), budget=core.limits.parse, of_patient=False)
    except Part10Error as error:
        raise Damaged(f"a non-patient instance cannot be read: {error}") from error


def scan_path(core: Core, path: Path, scratch: Path) -> ScannedFile:
    """A file that came, re-encoded to ``scratch`` where that must be. Raises Part10Error."""
    return scan_file(path, budget=core.limits.parse, allow_bare=True, scratch=scratch, of_patient=False)


def explicit(scanned: ScannedFile, data: bytes) -> bytes:
    """The same file in Explicit VR Little Endian, with preamble and group 2."""
    plan = Part10Stream(scanned.header, EXPLICIT, None, scanned.bulk)
    return b"".join(
        part if isinstance(part, bytes) else data[part.offset : part.offset + part.length]
        for part in plan.parts()
    )


def read_blob(core: Core, digest: bytes, size_bytes: int) -> bytes:
    """The whole file. Raises Damaged."""
    with core.storage.open(blob_key(digest)) as file:
        data = file.pread(0, size_bytes)
    if len(data) != size_bytes:
        raise Damaged("the file of a non-patient instance is incomplete")
    return data


def instance_of(core: Core, sop: str) -> NonPatientInstance | None:
    """By SOP Instance UID."""
    with core.index.read():
        row = execute(
            core, f"SELECT {SELECTED} FROM non_patient n WHERE n.sop_instance_uid = ?", sop
        ).fetchone()
    return None if row is None else from_columns(row)


def from_columns(row: Any) -> NonPatientInstance:
    """From columns as :data:`SELECTED` names them."""
    number, category, sop_class, sop, syntax, digest, size, content = row[: len(_COLUMNS)]
    return NonPatientInstance(
        int(number), category, sop_class, sop, syntax, bytes(digest), int(size), bytes(content)
    )


def all_instances(core: Core) -> Iterator[NonPatientInstance]:
    """Every one, by pages, in the order they were stored."""
    last = 0
    while True:
        with core.index.read():
            sql = f"SELECT {SELECTED} FROM non_patient n WHERE n.id > ? ORDER BY n.id LIMIT 500"
            page = [from_columns(row) for row in execute(core, sql, last).fetchall()]
        if not page:
            return
        yield from page
        last = page[-1].id


def summary_of(core: Core, number: int) -> bytes:
    """The gzip'd summary of one; b"" when it has gone."""
    with core.index.read():
        row = execute(core, "SELECT summary FROM non_patient WHERE id = ?", number).fetchone()
    return b"" if row is None else bytes(row[0])


def add(core: Core, kept: KeptObject, described: Described, time: datetime) -> None:
    """Raises MissingBlob."""
    execute(
        core,
        "INSERT INTO non_patient (category, sop_class_uid, sop_instance_uid, transfer_syntax_uid, digest, "
        "size_bytes, content_digest, summary, stored) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        kept.category, kept.sop_class_uid, kept.sop_instance_uid, described.transfer_syntax_uid,
        kept.blob.digest, kept.blob.size_bytes, described.content_digest, described.summary,
        microseconds(time),
    )  # fmt: skip
    sql = "SELECT id FROM non_patient WHERE sop_instance_uid = ?"
    number = int(execute(core, sql, kept.sop_instance_uid).fetchone()[0])
    for key in described.keys:
        execute(
            core,
            "INSERT INTO non_patient_key (non_patient_id, path, folded, num, date) VALUES (?, ?, ?, ?, ?)",
            number, key.path, key.folded, key.num, key.date,
        )  # fmt: skip
    refer(core, kept.blob, OWNER, number, time)


def remove(core: Core, found: NonPatientInstance, time: datetime) -> None:
    """Its bytes go a day later."""
    execute(core, "DELETE FROM non_patient_key WHERE non_patient_id = ?", found.id)
    execute(core, "DELETE FROM non_patient WHERE id = ?", found.id)
    release(core, OWNER, found.id, time)


def kept_of(found: NonPatientInstance) -> KeptObject:
    """What the journal says of it."""
    ref = BlobRef(found.digest, found.size_bytes)
    return KeptObject(found.category, found.sop_class_uid, found.sop_instance_uid, ref)
