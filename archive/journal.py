# SPDX-License-Identifier: Apache-2.0
"""What was done to instances, and what is kept beside them, as write-once objects
(docs/storage-format.md).

The index can be lost; what was done to instances cannot. ``reindex`` reads all records
and then applies these entries in the order of their keys.
"""

import hashlib
import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from archive.errors import Damaged, StoreTooNew
from archive.record import BlobRef

RECOMPRESS, EXPAND = "recompress", "expand"
REJECT, READMIT = "reject", "readmit"
KEEP, FORGET = "keep", "forget"
REPLACE = "replace"
TOMBSTONED = frozenset(("delete", REJECT))
VERSION = 3  # of readmissions and objects; of entries with moves 2; all others are of version 1


@dataclass(frozen=True, slots=True)
class Target:
    """An instance as one record brought it."""

    record: str  # the record's key
    sop_instance_uid: str


@dataclass(frozen=True, slots=True)
class Revision:
    """A new header of an instance: one blob, the Part 10 header and then the gzip'd
    DICOM JSON. ``digest`` is the header's SHA-256."""

    target: Target
    revision: int
    blob: BlobRef
    header_length: int
    digest: bytes
    size_bytes: int  # of the instance's stream at this revision


@dataclass(frozen=True, slots=True)
class Move:
    """Blob number ``position`` of an instance, as it came and recompressed. Which of the two
    the instance has afterwards, the entry's action says."""

    target: Target
    position: int
    blob: BlobRef
    packed: BlobRef


@dataclass(frozen=True, slots=True)
class KeptObject:
    """A non-patient instance: all there is to it is its Part 10 file."""

    category: str  # as PS3.18 Table 12.1.1-1 names it
    sop_class_uid: str
    sop_instance_uid: str
    blob: BlobRef


@dataclass(frozen=True, slots=True)
class Entry:
    """One journal entry."""

    # "delete", "reject", "readmit", "replace", "correct", "recompress", "expand", "keep", "forget"
    action: str
    actor: str
    reason: str
    time: datetime
    id: str
    targets: tuple[Target, ...] = ()
    revisions: tuple[Revision, ...] = ()
    moves: tuple[Move, ...] = ()
    objects: tuple[KeptObject, ...] = ()
    pointer: str = ""  # SOP Instance UID of what tells more: the note of a rejection

    @property
    def version(self) -> int:
        """What a release must know to read it."""
        if self.objects or self.action == READMIT:
            return 3
        return 2 if self.moves else 1

    @property
    def key(self) -> str:
        """Sorts by time, and holds the digest of the entry's bytes."""
        return key_of(self.time, encode_entry(self))


def key_of(time: datetime, data: bytes) -> str:
    """The key of an entry's bytes."""
    stamp = time.astimezone(UTC)
    return f"journal/{stamp:%Y/%m/%d}/{stamp:%H%M%S%f}-{hashlib.sha256(data).hexdigest()}"


def new_entry(
    action: str,
    actor: str,
    reason: str,
    *,
    targets: Sequence[Target] = (),
    revisions: Sequence[Revision] = (),
    moves: Sequence[Move] = (),
    objects: Sequence[KeptObject] = (),
    pointer: str = "",
    time: datetime,
) -> Entry:
    return Entry(
        action, actor, reason, time, uuid.uuid4().hex, tuple(targets), tuple(revisions), tuple(moves),
        tuple(objects), pointer,
    )  # fmt: skip


def _blob(ref: BlobRef) -> dict[str, object]:
    return {"digest": ref.digest.hex(), "size": ref.size_bytes}


def _ref(value: Mapping[str, Any]) -> BlobRef:
    return BlobRef(bytes.fromhex(value["digest"]), int(value["size"]))


def encode_entry(entry: Entry) -> bytes:
    value: dict[str, object] = {
        "journal": entry.version,
        "id": entry.id,
        "time": entry.time.astimezone(UTC).isoformat(timespec="microseconds"),
        "action": entry.action,
        "actor": entry.actor,
        "reason": entry.reason,
        "instances": [[t.record, t.sop_instance_uid] for t in entry.targets],
        "revisions": [
            {
                "record": r.target.record,
                "sop_instance_uid": r.target.sop_instance_uid,
                "revision": r.revision,
                "blob": _blob(r.blob),
                "header_length": r.header_length,
                "digest": r.digest.hex(),
                "size": r.size_bytes,
            }
            for r in entry.revisions
        ],
    }
    if entry.moves:
        value["moves"] = [
            {
                "record": m.target.record,
                "sop_instance_uid": m.target.sop_instance_uid,
                "position": m.position,
                "blob": _blob(m.blob),
                "packed": _blob(m.packed),
            }
            for m in entry.moves
        ]
    if entry.pointer:
        value["pointer"] = entry.pointer
    if entry.objects:
        value["objects"] = [
            {
                "category": o.category,
                "sop_class_uid": o.sop_class_uid,
                "sop_instance_uid": o.sop_instance_uid,
                "blob": _blob(o.blob),
            }
            for o in entry.objects
        ]
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def decode_entry(key: str, data: bytes) -> Entry:
    """The entry that is stored under ``key``. Raises Damaged, StoreTooNew."""
    if hashlib.sha256(data).hexdigest() != key.rpartition("-")[2]:
        raise Damaged("a journal entry differs from its digest")
    try:
        value = json.loads(data)
        if value["journal"] > VERSION:
            raise StoreTooNew(f"a journal entry of version {value['journal']}")
        return Entry(
            action=value["action"],
            actor=value["actor"],
            reason=value["reason"],
            time=datetime.fromisoformat(value["time"]),
            id=value["id"],
            targets=tuple(Target(record, sop) for record, sop in value["instances"]),
            revisions=tuple(
                Revision(
                    Target(r["record"], r["sop_instance_uid"]),
                    int(r["revision"]),
                    _ref(r["blob"]),
                    int(r["header_length"]),
                    bytes.fromhex(r["digest"]),
                    int(r["size"]),
                )
                for r in value["revisions"]
            ),
            moves=tuple(
                Move(
                    Target(m["record"], m["sop_instance_uid"]),
                    int(m["position"]),
                    _ref(m["blob"]),
                    _ref(m["packed"]),
                )
                for m in value.get("moves", [])
            ),
            objects=tuple(
                KeptObject(o["category"], o["sop_class_uid"], o["sop_instance_uid"], _ref(o["blob"]))
                for o in value.get("objects", [])
            ),
            pointer=str(value.get("pointer", "")),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise Damaged(f"a broken journal entry: {type(error).__name__}") from error
