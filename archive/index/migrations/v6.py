# SPDX-License-Identifier: Apache-2.0
"""Schema 6: non-patient instances (PS3.18 Chapter 12) and what they are found by.

``summary``: gzip'd DICOM JSON of what a search may return. ``non_patient_key`` holds values
as ``attribute`` does.
"""

from typing import Any

_TYPES = {
    "sqlite": {
        "id": "INTEGER PRIMARY KEY AUTOINCREMENT", "text": "TEXT", "big": "INTEGER", "blob": "BLOB",
        "real": "REAL",
    },
    "postgresql": {
        "id": "BIGSERIAL PRIMARY KEY", "text": 'TEXT COLLATE "C"', "big": "BIGINT", "blob": "BYTEA",
        "real": "DOUBLE PRECISION",
    },
}  # fmt: skip

_STATEMENTS = [
    """CREATE TABLE non_patient (
        id {id},
        category {text} NOT NULL,
        sop_class_uid {text} NOT NULL,
        sop_instance_uid {text} NOT NULL UNIQUE,
        transfer_syntax_uid {text} NOT NULL,
        digest {blob} NOT NULL,
        size_bytes {big} NOT NULL,
        content_digest {blob} NOT NULL,
        summary {blob} NOT NULL,
        stored {big} NOT NULL
    )""",
    "CREATE INDEX non_patient_by_category ON non_patient (category, id)",
    """CREATE TABLE non_patient_key (
        non_patient_id {big} NOT NULL REFERENCES non_patient (id) ON DELETE CASCADE,
        path {text} NOT NULL,
        folded {text},
        num {real},
        date {text}
    )""",
    "CREATE INDEX non_patient_key_by_owner ON non_patient_key (non_patient_id, path)",
    *(
        f"CREATE INDEX non_patient_key_by_{column} ON non_patient_key (path, {column}, non_patient_id) "
        f"WHERE {column} IS NOT NULL"
        for column in ("folded", "num", "date")
    ),
]


def apply(database: Any, dialect: str) -> None:
    """Bring the tables of schema 5 to schema 6, within the caller's transaction."""
    for sql in _STATEMENTS:
        database.execute_sql(sql.format(**_TYPES[dialect]))
