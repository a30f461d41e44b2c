# SPDX-License-Identifier: Apache-2.0
"""Schema 1, as released. Never edited afterwards: a change is a new module.

Placeholders in braces are the types of each database (``_TYPES``). Times are
microseconds since the epoch, UTC. Text compares by code point on both databases
(``COLLATE "C"``), so that ordering and prefix ranges agree. Absent text is ``''``.
"""

from typing import Any

_TYPES = {
    "sqlite": {
        "id": "INTEGER PRIMARY KEY AUTOINCREMENT",
        "text": "TEXT",
        "int": "INTEGER",
        "big": "INTEGER",
        "bool": "INTEGER",
        "false": "0",
        "double": "REAL",
        "blob": "BLOB",
    },
    "postgresql": {
        "id": "BIGSERIAL PRIMARY KEY",
        "text": 'TEXT COLLATE "C"',
        "int": "INTEGER",
        "big": "BIGINT",
        "bool": "BOOLEAN",
        "false": "FALSE",
        "double": "DOUBLE PRECISION",
        "blob": "BYTEA",
    },
}

_TABLES = [
    """CREATE TABLE protocol_study (
        id {id},
        identifier {text} NOT NULL UNIQUE,
        title {text} NOT NULL DEFAULT '',
        glp {bool} NOT NULL DEFAULT {false},
        blinded {bool} NOT NULL DEFAULT {false},
        created {big} NOT NULL
    )""",
    """CREATE TABLE study (
        id {id},
        study_instance_uid {text} NOT NULL UNIQUE,
        patient_id {text} NOT NULL DEFAULT '',
        issuer_of_patient_id {text} NOT NULL DEFAULT '',
        patient_name {text} NOT NULL DEFAULT '',
        patient_name_folded {text} NOT NULL DEFAULT '',
        patient_name_ideographic {text} NOT NULL DEFAULT '',
        patient_name_phonetic {text} NOT NULL DEFAULT '',
        patient_birth_date {text} NOT NULL DEFAULT '',
        patient_sex {text} NOT NULL DEFAULT '',
        study_date {text} NOT NULL DEFAULT '',
        study_time {text} NOT NULL DEFAULT '',
        study_time_key {text} NOT NULL DEFAULT '',
        accession_number {text} NOT NULL DEFAULT '',
        referring_physician_name {text} NOT NULL DEFAULT '',
        referring_physician_name_folded {text} NOT NULL DEFAULT '',
        study_id {text} NOT NULL DEFAULT '',
        study_description {text} NOT NULL DEFAULT '',
        timezone_offset_from_utc {text} NOT NULL DEFAULT '',
        protocol_study_id {big} REFERENCES protocol_study (id),
        sensitivity {int} NOT NULL DEFAULT 0,
        uid_status {text} NOT NULL DEFAULT 'received',
        unmatched {bool} NOT NULL DEFAULT {false},
        number_of_series {big} NOT NULL DEFAULT 0,
        number_of_instances {big} NOT NULL DEFAULT 0,
        size_bytes {big} NOT NULL DEFAULT 0,
        modalities {text} NOT NULL DEFAULT '',
        created {big} NOT NULL,
        updated {big} NOT NULL
    )""",
    """CREATE TABLE original (
        id {id},
        digest {blob} NOT NULL UNIQUE,
        name {text} NOT NULL DEFAULT '',
        format {text} NOT NULL DEFAULT '',
        description {text} NOT NULL DEFAULT '',
        size_bytes {big} NOT NULL DEFAULT 0,
        files {text} NOT NULL DEFAULT '[]',
        unmatched {bool} NOT NULL DEFAULT {false},
        held {bool} NOT NULL DEFAULT {false},
        created {big} NOT NULL
    )""",
    """CREATE TABLE series (
        id {id},
        study_id {big} NOT NULL REFERENCES study (id),
        series_instance_uid {text} NOT NULL UNIQUE,
        modality {text} NOT NULL DEFAULT '',
        series_number {big},
        series_description {text} NOT NULL DEFAULT '',
        series_date {text} NOT NULL DEFAULT '',
        series_time {text} NOT NULL DEFAULT '',
        performed_procedure_step_start_date {text} NOT NULL DEFAULT '',
        performed_procedure_step_start_time {text} NOT NULL DEFAULT '',
        performed_procedure_step_start_time_key {text} NOT NULL DEFAULT '',
        body_part_examined {text} NOT NULL DEFAULT '',
        laterality {text} NOT NULL DEFAULT '',
        manufacturer {text} NOT NULL DEFAULT '',
        manufacturer_model_name {text} NOT NULL DEFAULT '',
        device_serial_number {text} NOT NULL DEFAULT '',
        station_name {text} NOT NULL DEFAULT '',
        container_identifier {text} NOT NULL DEFAULT '',
        frame_of_reference_uid {text} NOT NULL DEFAULT '',
        total_pixel_matrix_rows {big} NOT NULL DEFAULT 0,
        total_pixel_matrix_columns {big} NOT NULL DEFAULT 0,
        original_id {big} REFERENCES original (id),
        unmatched {bool} NOT NULL DEFAULT {false},
        held {bool} NOT NULL DEFAULT {false},
        number_of_instances {big} NOT NULL DEFAULT 0,
        size_bytes {big} NOT NULL DEFAULT 0,
        search_text {text} NOT NULL DEFAULT '',
        created {big} NOT NULL,
        updated {big} NOT NULL
    )""",
    """CREATE TABLE instance (
        id {id},
        study_id {big} NOT NULL REFERENCES study (id),
        series_id {big} NOT NULL REFERENCES series (id),
        sop_instance_uid {text} NOT NULL UNIQUE,
        sop_class_uid {text} NOT NULL,
        transfer_syntax_uid {text} NOT NULL,
        instance_number {big},
        modality {text} NOT NULL DEFAULT '',
        image_type {text} NOT NULL DEFAULT '',
        content_date {text} NOT NULL DEFAULT '',
        content_time {text} NOT NULL DEFAULT '',
        number_of_frames {big} NOT NULL DEFAULT 0,
        rows {big} NOT NULL DEFAULT 0,
        columns {big} NOT NULL DEFAULT 0,
        samples_per_pixel {int} NOT NULL DEFAULT 0,
        bits_allocated {int} NOT NULL DEFAULT 0,
        bits_stored {int} NOT NULL DEFAULT 0,
        pixel_representation {int} NOT NULL DEFAULT 0,
        planar_configuration {int} NOT NULL DEFAULT 0,
        photometric_interpretation {text} NOT NULL DEFAULT '',
        lossy {bool} NOT NULL DEFAULT {false},
        has_pixel_data {bool} NOT NULL DEFAULT {false},
        total_pixel_matrix_rows {big} NOT NULL DEFAULT 0,
        total_pixel_matrix_columns {big} NOT NULL DEFAULT 0,
        size_bytes {big} NOT NULL DEFAULT 0,
        revision {int} NOT NULL DEFAULT 0,
        record_key {text} NOT NULL DEFAULT '',
        base_record_key {text} NOT NULL DEFAULT '',
        header_offset {big} NOT NULL DEFAULT 0,
        header_length {big} NOT NULL DEFAULT 0,
        json_offset {big} NOT NULL DEFAULT 0,
        json_length {big} NOT NULL DEFAULT 0,
        table_offset {big} NOT NULL DEFAULT 0,
        table_length {big} NOT NULL DEFAULT 0,
        bulk {text} NOT NULL DEFAULT '[]',
        absent_offset {big} NOT NULL DEFAULT 0,
        absent_length {big} NOT NULL DEFAULT 0,
        absent_tiles {bool} NOT NULL DEFAULT {false},
        base_digest {blob} NOT NULL,
        dataset_digest {blob} NOT NULL,
        content_digest {blob} NOT NULL,
        pixel_digest {blob} NOT NULL,
        origin {text} NOT NULL DEFAULT 'received',
        original_id {big} REFERENCES original (id),
        stored {big} NOT NULL
    )""",
    """CREATE TABLE blob (
        id {id},
        digest {blob} NOT NULL UNIQUE,
        size_bytes {big} NOT NULL,
        state {text} NOT NULL DEFAULT 'live' CHECK (state IN ('live', 'condemned', 'gone')),
        condemned_at {big},
        created {big} NOT NULL
    )""",
    """CREATE TABLE blob_ref (
        id {id},
        blob_id {big} NOT NULL REFERENCES blob (id),
        owner_kind {text} NOT NULL,
        owner_id {big} NOT NULL,
        UNIQUE (blob_id, owner_kind, owner_id)
    )""",
    """CREATE TABLE instance_blob (
        instance_id {big} NOT NULL REFERENCES instance (id) ON DELETE CASCADE,
        position {int} NOT NULL,
        blob_id {big} NOT NULL REFERENCES blob (id),
        PRIMARY KEY (instance_id, position)
    )""",
    """CREATE TABLE header_revision (
        id {id},
        instance_id {big} NOT NULL REFERENCES instance (id) ON DELETE CASCADE,
        revision {int} NOT NULL,
        record_key {text} NOT NULL,
        header_offset {big} NOT NULL DEFAULT 0,
        header_length {big} NOT NULL DEFAULT 0,
        json_offset {big} NOT NULL DEFAULT 0,
        json_length {big} NOT NULL DEFAULT 0,
        bulk {text} NOT NULL DEFAULT '[]',
        digest {blob} NOT NULL,
        dataset_digest {blob} NOT NULL,
        reason {text} NOT NULL DEFAULT '',
        time {big} NOT NULL,
        UNIQUE (instance_id, revision)
    )""",
    """CREATE TABLE attribute (
        id {id},
        instance_id {big} NOT NULL REFERENCES instance (id) ON DELETE CASCADE,
        path {text} NOT NULL,
        folded {text},
        num {double},
        date {text}
    )""",
    """CREATE TABLE tombstone (
        id {id},
        level {text} NOT NULL,
        study_instance_uid {text} NOT NULL,
        series_instance_uid {text} NOT NULL DEFAULT '',
        sop_instance_uid {text} NOT NULL DEFAULT '',
        protocol_study_id {big},
        sensitivity {int} NOT NULL DEFAULT 0,
        pointer {text} NOT NULL DEFAULT '',
        reason {text} NOT NULL DEFAULT '',
        time {big} NOT NULL
    )""",
    """CREATE TABLE derivative (
        id {id},
        series_id {big} NOT NULL REFERENCES series (id) ON DELETE CASCADE,
        kind {text} NOT NULL,
        digest {blob} NOT NULL,
        media_type {text} NOT NULL,
        created {big} NOT NULL,
        UNIQUE (series_id, kind)
    )""",
    """CREATE TABLE job (
        id {id},
        kind {text} NOT NULL,
        key {text} NOT NULL DEFAULT '',
        payload {text} NOT NULL DEFAULT '{{}}',
        state {text} NOT NULL DEFAULT 'waiting'
            CHECK (state IN ('waiting', 'running', 'done', 'failed')),
        lease_owner {text} NOT NULL DEFAULT '',
        lease_until {big} NOT NULL DEFAULT 0,
        attempts {int} NOT NULL DEFAULT 0,
        not_before {big} NOT NULL DEFAULT 0,
        progress {double} NOT NULL DEFAULT 0,
        message {text} NOT NULL DEFAULT '',
        study_instance_uid {text} NOT NULL DEFAULT '',
        created {big} NOT NULL,
        updated {big} NOT NULL
    )""",
    """CREATE TABLE quarantine (
        id {id},
        name {text} NOT NULL DEFAULT '',
        reason {text} NOT NULL DEFAULT '',
        source {text} NOT NULL DEFAULT '',
        size_bytes {big} NOT NULL DEFAULT 0,
        file {text} NOT NULL DEFAULT '',
        digest {blob},
        sop_instance_uid {text} NOT NULL DEFAULT '',
        resolved {big},
        created {big} NOT NULL
    )""",
    """CREATE TABLE watched_file (
        id {id},
        folder {text} NOT NULL,
        identity {text} NOT NULL,
        digest {blob},
        outcome {text} NOT NULL DEFAULT '',
        reason {text} NOT NULL DEFAULT '',
        time {big} NOT NULL,
        UNIQUE (folder, identity)
    )""",
    """CREATE TABLE setting (
        key {text} PRIMARY KEY,
        value {text} NOT NULL DEFAULT ''
    )""",
    """CREATE TABLE audit_event (
        id {id},
        time {big} NOT NULL,
        code {text} NOT NULL DEFAULT '',
        action {text} NOT NULL DEFAULT '',
        outcome {text} NOT NULL DEFAULT '',
        actor {text} NOT NULL DEFAULT '',
        via {text} NOT NULL DEFAULT '',
        address {text} NOT NULL DEFAULT '',
        request_id {text} NOT NULL DEFAULT '',
        study_instance_uid {text} NOT NULL DEFAULT '',
        series_instance_uid {text} NOT NULL DEFAULT '',
        sop_instance_uid {text} NOT NULL DEFAULT '',
        protocol_study_id {big},
        event {text} NOT NULL,
        salt {blob} NOT NULL,
        seq {big},
        leaf_hash {blob}
    )""",
    """CREATE TABLE change (
        id {id},
        time {big} NOT NULL,
        action {text} NOT NULL,
        study_instance_uid {text} NOT NULL DEFAULT '',
        series_instance_uid {text} NOT NULL DEFAULT '',
        sop_instance_uid {text} NOT NULL DEFAULT '',
        protocol_study_id {big},
        sensitivity {int} NOT NULL DEFAULT 0,
        salt {blob} NOT NULL,
        seq {big},
        leaf_hash {blob}
    )""",
]

_INDEXES = [
    "CREATE INDEX study_by_date ON study (study_date DESC, id DESC)",
    "CREATE INDEX study_by_patient_id ON study (patient_id)",
    "CREATE INDEX study_by_patient_name ON study (patient_name_folded)",
    "CREATE INDEX study_by_patient_ideographic ON study (patient_name_ideographic)",
    "CREATE INDEX study_by_patient_phonetic ON study (patient_name_phonetic)",
    "CREATE INDEX study_by_accession ON study (accession_number)",
    "CREATE INDEX study_by_protocol ON study (protocol_study_id, id)",
    "CREATE INDEX series_by_study ON series (study_id, id)",
    "CREATE INDEX series_by_container ON series (container_identifier)",
    "CREATE INDEX series_by_modality ON series (modality, study_id)",
    "CREATE INDEX series_by_created ON series (created DESC, id DESC)",
    "CREATE INDEX series_by_original ON series (original_id)",
    "CREATE INDEX instance_by_study ON instance (study_id, id)",
    "CREATE INDEX instance_by_series ON instance (series_id, id)",
    "CREATE INDEX instance_by_record ON instance (record_key)",
    "CREATE INDEX instance_by_base_record ON instance (base_record_key)",
    "CREATE INDEX instance_by_original ON instance (original_id)",
    "CREATE INDEX blob_condemned ON blob (condemned_at, id) WHERE state = 'condemned'",
    "CREATE INDEX blob_ref_by_owner ON blob_ref (owner_kind, owner_id)",
    "CREATE INDEX instance_blob_by_blob ON instance_blob (blob_id)",
    "CREATE INDEX header_revision_by_record ON header_revision (record_key)",
    "CREATE INDEX attribute_by_text ON attribute (path, folded, instance_id) WHERE folded IS NOT NULL",
    "CREATE INDEX attribute_by_num ON attribute (path, num, instance_id) WHERE num IS NOT NULL",
    "CREATE INDEX attribute_by_date ON attribute (path, date, instance_id) WHERE date IS NOT NULL",
    "CREATE INDEX attribute_by_instance ON attribute (instance_id, path)",
    "CREATE INDEX tombstone_by_study ON tombstone (study_instance_uid)",
    "CREATE INDEX tombstone_by_series ON tombstone (series_instance_uid) WHERE series_instance_uid <> ''",
    "CREATE INDEX tombstone_by_instance ON tombstone (sop_instance_uid) WHERE sop_instance_uid <> ''",
    "CREATE UNIQUE INDEX job_key ON job (kind, key) WHERE key <> '' AND state IN ('waiting', 'running')",
    "CREATE INDEX job_to_claim ON job (kind, state, not_before, id)",
    "CREATE INDEX job_by_updated ON job (updated DESC, id DESC)",
    "CREATE INDEX quarantine_by_created ON quarantine (created DESC, id DESC)",
    "CREATE UNIQUE INDEX audit_event_by_seq ON audit_event (seq)",
    "CREATE INDEX audit_event_unsequenced ON audit_event (id) WHERE seq IS NULL",
    "CREATE INDEX audit_event_by_study ON audit_event (study_instance_uid, seq)",
    "CREATE UNIQUE INDEX change_by_seq ON change (seq)",
    "CREATE INDEX change_unsequenced ON change (id) WHERE seq IS NULL",
]

# Columns that the sequencer alone fills, once; all others never change.
_SEQUENCED = ("seq", "leaf_hash")


def _columns(table: str) -> list[str]:
    """Names of a table's columns, read from its statement above."""
    body = next(sql for sql in _TABLES if sql.startswith(f"CREATE TABLE {table} "))
    return [line.split()[0] for line in body.splitlines()[1:-1]]


def _append_only_sqlite(table: str) -> list[str]:
    same = " AND ".join(f"NEW.{name} IS OLD.{name}" for name in _columns(table) if name not in _SEQUENCED)
    refuse = f"SELECT RAISE(ABORT, '{table} is append-only');"
    return [
        f"""CREATE TRIGGER {table}_no_update BEFORE UPDATE ON {table}
            WHEN NOT (OLD.seq IS NULL AND NEW.seq IS NOT NULL AND NEW.leaf_hash IS NOT NULL AND {same})
            BEGIN {refuse} END""",
        f"CREATE TRIGGER {table}_no_delete BEFORE DELETE ON {table} BEGIN {refuse} END",
        f"""CREATE TRIGGER {table}_unsequenced BEFORE INSERT ON {table}
            WHEN NEW.seq IS NOT NULL OR NEW.leaf_hash IS NOT NULL BEGIN {refuse} END""",
    ]


def _append_only_postgresql(table: str) -> list[str]:
    same = " AND ".join(
        f"NEW.{name} IS NOT DISTINCT FROM OLD.{name}" for name in _columns(table) if name not in _SEQUENCED
    )
    return [
        f"""CREATE FUNCTION {table}_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN RAISE EXCEPTION '{table} is append-only'; END $$""",
        f"""CREATE TRIGGER {table}_no_update BEFORE UPDATE ON {table} FOR EACH ROW
            WHEN (NOT (OLD.seq IS NULL AND NEW.seq IS NOT NULL AND NEW.leaf_hash IS NOT NULL AND {same}))
            EXECUTE FUNCTION {table}_refuse()""",
        f"""CREATE TRIGGER {table}_no_delete BEFORE DELETE ON {table} FOR EACH ROW
            EXECUTE FUNCTION {table}_refuse()""",
        f"""CREATE TRIGGER {table}_no_truncate BEFORE TRUNCATE ON {table}
            EXECUTE FUNCTION {table}_refuse()""",
        f"""CREATE TRIGGER {table}_unsequenced BEFORE INSERT ON {table} FOR EACH ROW
            WHEN (NEW.seq IS NOT NULL OR NEW.leaf_hash IS NOT NULL)
            EXECUTE FUNCTION {table}_refuse()""",
    ]


def apply(database: Any, dialect: str) -> None:
    """Make every table, index and trigger of schema 1, within the caller's transaction."""
    types = _TYPES[dialect]
    append_only = _append_only_sqlite if dialect == "sqlite" else _append_only_postgresql
    statements = [sql.format(**types) for sql in _TABLES] + _INDEXES
    for table in ("audit_event", "change"):
        statements += append_only(table)
    for sql in statements:
        database.execute_sql(sql)
