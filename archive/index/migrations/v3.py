# SPDX-License-Identifier: Apache-2.0
"""Schema 3: every row knows its place in a result, and names have sounds.

``place`` orders studies: ``study date as a number << 36 | study id``, newest first when
read downwards; series, instances and ``attribute`` rows repeat their study's. So an
index on ``(key, place, …)`` gives a key's rows in the order of a result, however many
there are. Triggers fill in what a writer leaves at 0, and follow a corrected date.
"""

import json
from typing import Any

from archive.index.sounds import name_sounds

# What the releases of schema 1 and 2 kept in ``attribute``; a job adds what is newer.
KEYS_BEFORE = {
    "00080008": "CS", "00080019": "UI", "0008002A": "DT", "00081032.00080100": "SH",
    "00081115.0020000E": "UI", "00081115.0008114A.00081155": "UI", "00101002.00100020": "LO",
    "00200052": "UI", "00209161": "UI", "00209311": "CS", "00400275.00400009": "SH",
    "00400275.00401001": "SH", "00400512": "LO", "00400560.00400551": "LO", "00400560.00400554": "UI",
    "00400560.00082228.00080100": "SH", "0040A043.00080100": "SH", "0040A491": "CS", "0040A493": "CS",
    "00480105.00480112": "DS", "00700080": "CS", "22000005": "LT",
}  # fmt: skip

_TYPES = {
    "sqlite": {"big": "INTEGER", "text": "TEXT", "id": "INTEGER PRIMARY KEY AUTOINCREMENT"},
    "postgresql": {"big": "BIGINT", "text": 'TEXT COLLATE "C"', "id": "BIGSERIAL PRIMARY KEY"},
}
_PLACE = {
    "sqlite": "(CAST({0}study_date AS INTEGER) << 36) + {0}id",
    "postgresql": "(coalesce(nullif({0}study_date, ''), '0')::bigint << 36) + {0}id",
}

_TABLES = [
    "ALTER TABLE study ADD COLUMN place {big} NOT NULL DEFAULT 0",
    "ALTER TABLE series ADD COLUMN place {big} NOT NULL DEFAULT 0",
    "ALTER TABLE instance ADD COLUMN place {big} NOT NULL DEFAULT 0",
    "ALTER TABLE attribute ADD COLUMN place {big} NOT NULL DEFAULT 0",
    "ALTER TABLE attribute ADD COLUMN series_id {big} NOT NULL DEFAULT 0",
    """CREATE TABLE name_sound (
        id {id},
        study_id {big} NOT NULL REFERENCES study (id) ON DELETE CASCADE,
        path {text} NOT NULL,
        sound {text} NOT NULL
    )""",
]

_DROPPED = (
    "study_by_date", "study_by_patient_id", "study_by_patient_name", "study_by_patient_ideographic",
    "study_by_patient_phonetic", "study_by_accession", "series_by_modality", "attribute_by_text",
    "attribute_by_num", "attribute_by_date",
)  # fmt: skip

_FILL = [
    "UPDATE study SET place = {place}",
    "UPDATE series SET place = (SELECT s.place FROM study s WHERE s.id = series.study_id)",
    "UPDATE instance SET place = (SELECT s.place FROM study s WHERE s.id = instance.study_id)",
    "UPDATE attribute SET place = (SELECT i.place FROM instance i WHERE i.id = attribute.instance_id), "
    "series_id = (SELECT i.series_id FROM instance i WHERE i.id = attribute.instance_id)",
]

# By table and key: (key, place, …) covers what a page needs.
_KEYS = {
    "study": (
        "patient_id", "patient_birth_date", "patient_name_folded", "patient_name_ideographic",
        "patient_name_phonetic", "accession_number", "referring_physician_name_folded", "study_id",
        "study_description",
    ),
    "series": (
        "modality", "series_number", "series_description", "series_date",
        "performed_procedure_step_start_date", "body_part_examined", "manufacturer",
        "manufacturer_model_name", "device_serial_number", "station_name",
    ),
    "instance": (
        "sop_class_uid", "transfer_syntax_uid", "instance_number", "content_date",
        "total_pixel_matrix_columns", "total_pixel_matrix_rows", "number_of_frames",
        "photometric_interpretation",
    ),
}  # fmt: skip
_BEHIND = {"study": "place DESC", "series": "place DESC, id", "instance": "place DESC, series_id, id"}

_INDEXES = [
    "CREATE UNIQUE INDEX study_by_place ON study (place DESC)",
    "CREATE INDEX series_by_place ON series (place DESC, id)",
    "CREATE INDEX instance_by_place ON instance (place DESC, series_id, id)",
    *(
        f"CREATE INDEX {table}_by_{key} ON {table} ({key}, {_BEHIND[table]})"
        for table, keys in _KEYS.items()
        for key in keys
    ),
    *(
        f"CREATE INDEX attribute_by_{column} ON attribute "
        f"(path, {column}, place DESC, series_id, instance_id) WHERE {column} IS NOT NULL"
        for column in ("folded", "num", "date")
    ),
    "CREATE INDEX name_sound_by_sound ON name_sound (path, sound, study_id)",
    "CREATE INDEX name_sound_by_study ON name_sound (study_id)",
]

_FOLLOW = """
    UPDATE series SET place = {place} WHERE study_id = NEW.id;
    UPDATE instance SET place = {place} WHERE study_id = NEW.id;
    UPDATE attribute SET place = {place}
        WHERE instance_id IN (SELECT i.id FROM instance i WHERE i.study_id = NEW.id);
"""

_SQLITE_TRIGGERS = [
    """CREATE TRIGGER study_placed AFTER INSERT ON study WHEN NEW.place = 0 BEGIN
        UPDATE study SET place = {place} WHERE id = NEW.id; END""",
    *(
        f"""CREATE TRIGGER {table}_placed AFTER INSERT ON {table} WHEN NEW.place = 0 BEGIN
        UPDATE {table} SET place = (SELECT s.place FROM study s WHERE s.id = NEW.study_id)
            WHERE id = NEW.id; END"""
        for table in ("series", "instance")
    ),
    """CREATE TRIGGER study_moved AFTER UPDATE OF study_date ON study
        WHEN OLD.study_date IS NOT NEW.study_date BEGIN
        UPDATE study SET place = {place} WHERE id = NEW.id;"""
    + _FOLLOW
    + " END",
]

_POSTGRESQL_TRIGGERS = [
    """CREATE FUNCTION study_place() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN NEW.place := {place}; RETURN NEW; END $$""",
    """CREATE FUNCTION place_below() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN SELECT s.place INTO NEW.place FROM study s WHERE s.id = NEW.study_id; RETURN NEW; END $$""",
    "CREATE FUNCTION study_follow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
    + _FOLLOW
    + " RETURN NULL; END $$",
    """CREATE TRIGGER study_placed BEFORE INSERT OR UPDATE OF study_date ON study FOR EACH ROW
        EXECUTE FUNCTION study_place()""",
    *(
        f"""CREATE TRIGGER {table}_placed BEFORE INSERT ON {table} FOR EACH ROW
        WHEN (NEW.place = 0) EXECUTE FUNCTION place_below()"""
        for table in ("series", "instance")
    ),
    """CREATE TRIGGER study_moved AFTER UPDATE OF study_date ON study FOR EACH ROW
        WHEN (OLD.study_date IS DISTINCT FROM NEW.study_date) EXECUTE FUNCTION study_follow()""",
]

_NAMES = {"00100010": "patient_name", "00080090": "referring_physician_name"}
_PAGE = 1000


def apply(database: Any, dialect: str) -> None:
    """Bring the tables of schema 2 to schema 3, within the caller's transaction."""
    types = _TYPES[dialect]
    if dialect == "postgresql":
        database.execute_sql("SET LOCAL statement_timeout = 0")  # millions of rows move
    for sql in _TABLES:
        database.execute_sql(sql.format(**types))
    for name in _DROPPED:
        database.execute_sql(f"DROP INDEX {name}")
    for sql in _FILL:
        database.execute_sql(sql.format(place=_PLACE[dialect].format("")))
    _add_sounds(database)
    for sql in _INDEXES:
        database.execute_sql(sql)
    triggers = _SQLITE_TRIGGERS if dialect == "sqlite" else _POSTGRESQL_TRIGGERS
    for sql in triggers:
        database.execute_sql(sql.format(place=_PLACE[dialect].format("NEW.")))
    keys = json.dumps(KEYS_BEFORE)
    database.execute_sql(
        f"INSERT INTO setting (key, value) SELECT 'matching_keys', '{keys}' "
        "WHERE EXISTS (SELECT 1 FROM instance)"
    )


def _add_sounds(database: Any) -> None:
    mark, last = database.param, 0
    while True:
        rows = database.execute_sql(
            f"SELECT id, {', '.join(_NAMES.values())} FROM study WHERE id > {mark} ORDER BY id LIMIT {_PAGE}",
            (last,),
        ).fetchall()
        found = [
            (study, path, sound)
            for study, *names in rows
            for path, name in zip(_NAMES, names, strict=True)
            for sound in name_sounds(name)
        ]
        database.connection().cursor().executemany(
            f"INSERT INTO name_sound (study_id, path, sound) VALUES ({mark}, {mark}, {mark})", found
        )
        if len(rows) < _PAGE:
            return
        last = rows[-1][0]
