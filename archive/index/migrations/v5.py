# SPDX-License-Identifier: Apache-2.0
"""Schema 5: the worklist, its keys and former values, and performed procedure steps.

``place`` orders items: ``scheduled start date as a number << 36 | item_id``; it is an
item's own, and ``worklist_key`` rows go by it. ``active`` is 1 until the step is over
(completed, discontinued, cancelled): of a site's history little is active, so every index
has it before the place. Columns that ``study`` has too have the same name, for the
predicate of a scope; there is no ``id``, so that one over a study's id fails.
"""

from typing import Any

_TYPES = {
    "sqlite": {
        "id": "INTEGER PRIMARY KEY AUTOINCREMENT", "text": "TEXT", "big": "INTEGER", "int": "INTEGER",
        "blob": "BLOB", "clustered": " WITHOUT ROWID",
    },
    "postgresql": {
        "id": "BIGSERIAL PRIMARY KEY", "text": 'TEXT COLLATE "C"', "big": "BIGINT", "int": "INTEGER",
        "blob": "BYTEA", "clustered": "",
    },
}  # fmt: skip

_TABLES = [
    """CREATE TABLE worklist_item (
        item_id {id},
        place {big} NOT NULL,
        active {int} NOT NULL,
        identifier {text} NOT NULL UNIQUE,
        status {text} NOT NULL,
        study_instance_uid {text} NOT NULL,
        patient_id {text} NOT NULL,
        issuer_of_patient_id {text} NOT NULL,
        patient_name_folded {text} NOT NULL,
        patient_name_ideographic {text} NOT NULL,
        patient_name_phonetic {text} NOT NULL,
        patient_birth_date {text} NOT NULL,
        patient_sex {text} NOT NULL,
        accession_number {text} NOT NULL,
        requested_procedure_id {text} NOT NULL,
        scheduled_procedure_step_id {text} NOT NULL,
        modality {text} NOT NULL,
        start_date {text} NOT NULL,
        start_time {text} NOT NULL,
        protocol_study_id {big} REFERENCES protocol_study (id),
        sensitivity {int} NOT NULL,
        source {text} NOT NULL,
        revision {int} NOT NULL,
        content {blob} NOT NULL,
        created {big} NOT NULL,
        updated {big} NOT NULL
    )""",
    """CREATE TABLE worklist_key (
        path {text} NOT NULL,
        folded {text} NOT NULL,
        active {int} NOT NULL,
        place {big} NOT NULL,
        position {int} NOT NULL,
        PRIMARY KEY (path, folded, active, place, position)
    ){clustered}""",
    """CREATE TABLE worklist_revision (
        item_id {big} NOT NULL REFERENCES worklist_item (item_id) ON DELETE CASCADE,
        revision {int} NOT NULL,
        status {text} NOT NULL,
        content {blob} NOT NULL,
        source {text} NOT NULL,
        until {big} NOT NULL,
        PRIMARY KEY (item_id, revision)
    )""",
    """CREATE TABLE performed_step (
        step_id {id},
        sop_instance_uid {text} NOT NULL UNIQUE,
        status {text} NOT NULL,
        actor {text} NOT NULL,
        content {blob} NOT NULL,
        created {big} NOT NULL,
        updated {big} NOT NULL
    )""",
    """CREATE TABLE performed_step_item (
        step_id {big} NOT NULL REFERENCES performed_step (step_id) ON DELETE CASCADE,
        item_id {big} NOT NULL REFERENCES worklist_item (item_id) ON DELETE CASCADE,
        PRIMARY KEY (step_id, item_id)
    )""",
]

_KEYS = (
    "study_instance_uid", "patient_id", "patient_name_folded", "patient_name_ideographic",
    "patient_name_phonetic", "patient_birth_date", "accession_number", "requested_procedure_id",
    "scheduled_procedure_step_id", "modality", "status",
)  # fmt: skip

_INDEXES = [
    "CREATE UNIQUE INDEX worklist_item_by_place ON worklist_item (place)",
    "CREATE INDEX worklist_item_active ON worklist_item (place) WHERE active = 1",
    "CREATE INDEX worklist_key_by_place ON worklist_key (place, path)",
    *(f"CREATE INDEX worklist_item_by_{key} ON worklist_item ({key}, active, place)" for key in _KEYS),
    "CREATE INDEX performed_step_item_by_item ON performed_step_item (item_id, step_id)",
]


def apply(database: Any, dialect: str) -> None:
    """Bring the tables of schema 4 to schema 5, within the caller's transaction."""
    for sql in _TABLES:
        database.execute_sql(sql.format(**_TYPES[dialect]))
    for sql in _INDEXES:
        database.execute_sql(sql)
