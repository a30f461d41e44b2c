# SPDX-License-Identifier: Apache-2.0
"""Deletes, replacements and corrections as write-once objects (docs/storage-format.md).

The index can be lost; what was done to instances cannot. ``reindex`` reads all records
and then applies these entries in the order of their keys.
"""

import hashlib
import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from archive.errors import Damaged, StoreTooNew
from archive.record import BlobRef

VERSION = 1


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
class Entry:
    """One journal entry."""

    action: str  # "delete", "replace", "correct"
    actor: str
    reason: str
    time: datetime
    id: str
    targets: tuple[Target, ...] = ()
    revisions: tuple[Revision, ...] = ()

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
    time: datetime,
) -> Entry:
    return Entry(action, actor, reason, time, uuid.uuid4().hex, tuple(targets), tuple(revisions))


def encode_entry(entry: Entry) -> bytes:
    value = {
        "journal": VERSION,
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
                "blob": {"digest": r.blob.digest.hex(), "size": r.blob.size_bytes},
                "header_length": r.header_length,
                "digest": r.digest.hex(),
                "size": r.size_bytes,
            }
            for r in entry.revisions
        ],
    }
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
                    BlobRef(bytes.fromhex(r["blob"]["digest"]), int(r["blob"]["size"])),
                    int(r["header_length"]),
                    bytes.fromhex(r["digest"]),
                    int(r["size"]),
                )
                for r in value["revisions"]
            ),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise Damaged(f"a broken journal entry: {type(error).__name__}") from error
