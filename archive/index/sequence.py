# SPDX-License-Identifier: Apache-2.0
"""The sequencer: gap-free ``seq`` and leaf hashes for audit events and changes.

Rows are inserted without ``seq``. Identifiers are no order to read by: on PostgreSQL
they commit out of order, and a reader of "id above the last" loses rows.

A leaf is ``SHA-256(0x00 || entry)`` (RFC 9162 2.1.1); the entry is the canonical JSON
array ``[seq, time in microseconds, hex of SHA-256(salt || event)]``; the event of an
audit row is its ``event`` text, that of a change the canonical JSON of its columns.
Taking the salt away makes an event unprovable without breaking the log.
"""

import hashlib
import json
from typing import Any

_PAGE = 1000
_ADVISORY_LOCK = 0x436F7665_72736C70  # "Coverslp"
_CHANGE_EVENT = ("action", "study_instance_uid", "series_instance_uid", "sop_instance_uid")


def canonical(value: object) -> bytes:
    """JSON as it is hashed: sorted keys, no spaces, UTF-8."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def leaf_hash(seq: int, time_us: int, salt: bytes, event: bytes) -> bytes:
    """The leaf of one event: 32 bytes."""
    salted = hashlib.sha256(bytes(salt) + event).hexdigest()
    return hashlib.sha256(b"\x00" + canonical([seq, time_us, salted])).digest()


def change_event(action: str, study: str, series: str, sop: str) -> bytes:
    """The event of a change row, as hashed."""
    return canonical(dict(zip(_CHANGE_EVENT, (action, study, series, sop), strict=True)))


def assign(database: Any, dialect: str) -> int:
    """Number what is not numbered yet; returns how many rows. Within a transaction.

    On SQLite the one writer holds the write lock. On PostgreSQL an advisory lock is
    held until the commit, and the snapshot is taken after it: READ COMMITTED.
    """
    if dialect == "postgresql":
        database.execute_sql("SELECT pg_advisory_xact_lock(%s)", (_ADVISORY_LOCK,))
    return _assign_audit(database) + _assign_changes(database)


def _assign_audit(database: Any) -> int:
    done = 0
    while rows := _unsequenced(database, "audit_event", "event"):
        first = _last(database, "audit_event") + 1
        leaves = [
            (seq, leaf_hash(seq, time_us, salt, event.encode()), row_id)
            for seq, (row_id, time_us, salt, event) in enumerate(rows, first)
        ]
        done += _number(database, "audit_event", leaves)
        if len(rows) < _PAGE:
            break
    return done


def _assign_changes(database: Any) -> int:
    done = 0
    while rows := _unsequenced(database, "change", ", ".join(_CHANGE_EVENT)):
        first = _last(database, "change") + 1
        leaves = [
            (seq, leaf_hash(seq, time_us, salt, change_event(*columns)), row_id)
            for seq, (row_id, time_us, salt, *columns) in enumerate(rows, first)
        ]
        done += _number(database, "change", leaves)
        if len(rows) < _PAGE:
            break
    return done


def _unsequenced(database: Any, table: str, columns: str) -> list[Any]:
    cursor = database.execute_sql(
        f"SELECT id, time, salt, {columns} FROM {table} WHERE seq IS NULL ORDER BY id LIMIT {_PAGE}"
    )
    rows: list[Any] = cursor.fetchall()
    return rows


def _last(database: Any, table: str) -> int:
    row = database.execute_sql(f"SELECT max(seq) FROM {table}").fetchone()
    return int(row[0] or 0)


def _number(database: Any, table: str, leaves: list[tuple[int, bytes, int]]) -> int:
    mark = database.param
    database.connection().cursor().executemany(
        f"UPDATE {table} SET seq = {mark}, leaf_hash = {mark} WHERE id = {mark}", leaves
    )
    return len(leaves)
