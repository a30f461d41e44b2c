# SPDX-License-Identifier: Apache-2.0
"""Schema 2: blobs that stand in for others (docs/adr/0011).

``instance_blob.unpacked_*`` name the blob that the instance came with, where the one
linked holds it recompressed; else they are NULL.
"""

from typing import Any

_TYPES = {
    "sqlite": {"big": "INTEGER", "blob": "BLOB"},
    "postgresql": {"big": "BIGINT", "blob": "BYTEA"},
}

_STATEMENTS = [
    "ALTER TABLE instance_blob ADD COLUMN unpacked_digest {blob}",
    "ALTER TABLE instance_blob ADD COLUMN unpacked_size_bytes {big}",
]


def apply(database: Any, dialect: str) -> None:
    """Bring the tables of schema 1 to schema 2, within the caller's transaction."""
    for sql in _STATEMENTS:
        database.execute_sql(sql.format(**_TYPES[dialect]))
