# SPDX-License-Identifier: Apache-2.0
"""The record: one object per ingest, and the point of all or nothing.

Byte layout in docs/storage-format.md. A record is built in memory (headers and frame
tables, never pixels) and read by positioned reads.
"""

import dataclasses
import hashlib
import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from archive.errors import Damaged, StoreTooNew
from archive.part10.bulk import BulkValue

MAGIC = b"CSRECORD"
VERSION = 1
_HEAD = struct.Struct("<8sHHIQ")

Section = tuple[int, int]  # offset from the start of the record, length


class Readable(Protocol):
    """A stored file: positioned reads only."""

    size: int

    def pread(self, offset: int, length: int) -> bytes: ...


@dataclass(frozen=True, slots=True)
class BlobRef:
    digest: bytes
    size_bytes: int


@dataclass(frozen=True, slots=True)
class RecordedInstance:
    """One instance's entry. Sections are (0, 0) when empty; on the way in the bytes
    themselves are given to :func:`encode_record`."""

    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    received_transfer_syntax_uid: str
    base: str  # "file" or "made"
    base_digest: bytes
    size_bytes: int  # of the base stream
    received: bytes | None
    blobs: tuple[BlobRef, ...]
    bulk: tuple[BulkValue, ...]  # in blob 0
    dataset_digest: bytes
    pixel_digest: bytes | None
    findings: tuple[str, ...] = ()
    header: Section = (0, 0)
    json: Section = (0, 0)
    table: Section = (0, 0)
    absent: Section = (0, 0)


@dataclass(frozen=True, slots=True)
class RecordedOriginal:
    """The scanner's own file, kept beside what became of it."""

    digest: bytes
    format: str
    description: str
    unmatched: bool
    container_identifier: str
    files: tuple[tuple[str, BlobRef], ...]


@dataclass(frozen=True, slots=True)
class Sections:
    """The bytes of one instance's sections."""

    header: bytes
    json: bytes
    table: bytes = b""
    absent: bytes = b""


@dataclass(frozen=True, slots=True)
class Record:
    id: str
    time: str
    sender: dict[str, str]
    original: RecordedOriginal | None
    instances: tuple[RecordedInstance, ...] = field(default_factory=tuple)


def made_base_digest(header: bytes, table: bytes, blobs: Sequence[BlobRef]) -> bytes:
    """What fixes the stream of a made instance without reading its pixels again."""
    digest = hashlib.sha256(b"coverslip-base-1")
    for part in (hashlib.sha256(header).digest(), hashlib.sha256(table).digest()):
        digest.update(part)
    for blob in blobs:
        digest.update(blob.digest)
    return digest.digest()


def record_key(data_digest: bytes) -> str:
    name = data_digest.hex()
    return f"record/{name[:2]}/{name[2:4]}/{name}"


def blob_key(digest: bytes) -> str:
    name = digest.hex()
    return f"blob/{name[:2]}/{name[2:4]}/{name}"


def encode_record(record: Record, sections: Sequence[Sections]) -> tuple[bytes, Record]:
    """The record's bytes, and the record with its sections' places filled in."""
    placed = record.instances
    while True:  # the manifest's length moves the sections, whose offsets are in the manifest
        manifest = _manifest(record, placed)
        position = _aligned(_HEAD.size + len(manifest))
        again: list[RecordedInstance] = []
        for instance, content in zip(record.instances, sections, strict=True):
            places: list[Section] = []
            for part in (content.header, content.json, content.table, content.absent):
                places.append((position, len(part)) if part else (0, 0))
                position = _aligned(position + len(part))
            again.append(_at(instance, *places))
        if tuple(again) == placed:
            break
        placed = tuple(again)
    out = bytearray(_HEAD.pack(MAGIC, VERSION, 0, len(manifest), position))
    out += manifest
    for content in sections:
        for part in (content.header, content.json, content.table, content.absent):
            if part:
                out += bytes(_aligned(len(out)) - len(out))
                out += part
    out += bytes(position - len(out))
    return bytes(out), Record(record.id, record.time, record.sender, record.original, placed)


def _at(instance: RecordedInstance, *places: Section) -> RecordedInstance:
    header, json_, table, absent = places
    return dataclasses.replace(instance, header=header, json=json_, table=table, absent=absent)


def _aligned(position: int) -> int:
    return (position + 7) & ~7


def _blob(ref: BlobRef) -> dict[str, object]:
    return {"digest": ref.digest.hex(), "size": ref.size_bytes}


def _manifest(record: Record, instances: Sequence[RecordedInstance]) -> bytes:
    original = record.original
    value = {
        "record": VERSION,
        "id": record.id,
        "time": record.time,
        "sender": record.sender,
        "original": None
        if original is None
        else {
            "digest": original.digest.hex(),
            "format": original.format,
            "description": original.description,
            "unmatched": original.unmatched,
            "container_identifier": original.container_identifier,
            "files": [{"name": name, **_blob(ref)} for name, ref in original.files],
        },
        "instances": [
            {
                "study_instance_uid": i.study_instance_uid,
                "series_instance_uid": i.series_instance_uid,
                "sop_instance_uid": i.sop_instance_uid,
                "sop_class_uid": i.sop_class_uid,
                "transfer_syntax_uid": i.transfer_syntax_uid,
                "received_transfer_syntax_uid": i.received_transfer_syntax_uid,
                "base": i.base,
                "base_digest": i.base_digest.hex(),
                "size": i.size_bytes,
                "received": None if i.received is None else i.received.hex(),
                "blobs": [_blob(ref) for ref in i.blobs],
                "bulk": [list(b) for b in i.bulk],
                "dataset_digest": i.dataset_digest.hex(),
                "pixel_digest": None if i.pixel_digest is None else i.pixel_digest.hex(),
                "findings": list(i.findings),
                "header": list(i.header),
                "json": list(i.json),
                "table": list(i.table),
                "absent": list(i.absent),
            }
            for i in instances
        ],
    }
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def read_record(file: Readable) -> Record:
    """The manifest of a stored record. Raises Damaged, StoreTooNew."""
    head = file.pread(0, _HEAD.size)
    if len(head) < _HEAD.size or head[:8] != MAGIC:
        raise Damaged("not a record")
    _, version, _, manifest_length, total = _HEAD.unpack(head)
    if version > VERSION:
        raise StoreTooNew(f"a record of version {version}; this release reads up to {VERSION}")
    if total != file.size:
        raise Damaged(f"a record of {file.size} bytes that says {total}")
    try:
        return _parse(json.loads(file.pread(_HEAD.size, manifest_length)))
    except (ValueError, KeyError, TypeError) as error:
        raise Damaged(f"a record whose manifest is broken: {error}") from error


def _ref(value: dict[str, Any]) -> BlobRef:
    return BlobRef(bytes.fromhex(value["digest"]), int(value["size"]))


def _section(value: list[int]) -> Section:
    return (int(value[0]), int(value[1]))


def _parse(value: dict[str, Any]) -> Record:
    original = value["original"]
    return Record(
        id=value["id"],
        time=value["time"],
        sender=dict(value["sender"]),
        original=None
        if original is None
        else RecordedOriginal(
            digest=bytes.fromhex(original["digest"]),
            format=original["format"],
            description=original["description"],
            unmatched=bool(original["unmatched"]),
            container_identifier=original["container_identifier"],
            files=tuple((f["name"], _ref(f)) for f in original["files"]),
        ),
        instances=tuple(
            RecordedInstance(
                study_instance_uid=i["study_instance_uid"],
                series_instance_uid=i["series_instance_uid"],
                sop_instance_uid=i["sop_instance_uid"],
                sop_class_uid=i["sop_class_uid"],
                transfer_syntax_uid=i["transfer_syntax_uid"],
                received_transfer_syntax_uid=i["received_transfer_syntax_uid"],
                base=i["base"],
                base_digest=bytes.fromhex(i["base_digest"]),
                size_bytes=int(i["size"]),
                received=None if i["received"] is None else bytes.fromhex(i["received"]),
                blobs=tuple(_ref(b) for b in i["blobs"]),
                bulk=tuple(BulkValue(*b) for b in i["bulk"]),
                dataset_digest=bytes.fromhex(i["dataset_digest"]),
                pixel_digest=None if i["pixel_digest"] is None else bytes.fromhex(i["pixel_digest"]),
                findings=tuple(i["findings"]),
                header=_section(i["header"]),
                json=_section(i["json"]),
                table=_section(i["table"]),
                absent=_section(i["absent"]),
            )
            for i in value["instances"]
        ),
    )
