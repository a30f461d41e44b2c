# SPDX-License-Identifier: Apache-2.0
"""A store of the releases before schema 3, brought to it with its rows."""

import json
from collections.abc import Callable

import pytest

from archive.access import EVERYTHING
from archive.index import migrations
from archive.index.attributes import EXTRACTED
from archive.index.database import Index
from archive.index.migrations.v3 import KEYS_BEFORE
from archive.index.query import Level, Query, parse_match

OLD_ROWS = [
    "INSERT INTO study (id, study_instance_uid, study_date, patient_name, created, updated) "
    "VALUES (7, '1.7', '20200102', 'Müller^Jörg', 0, 0), (8, '1.8', '20210102', '', 0, 0), "
    "(9, '1.9', '', '', 0, 0)",
    "INSERT INTO series (id, study_id, series_instance_uid, modality, created, updated) "
    "VALUES (3, 7, '1.7.1', 'SM', 0, 0), (4, 8, '1.8.1', 'SM', 0, 0), (5, 9, '1.9.1', 'SM', 0, 0)",
    "INSERT INTO instance (id, study_id, series_id, sop_instance_uid, sop_class_uid, transfer_syntax_uid, "
    "base_digest, dataset_digest, content_digest, pixel_digest, stored) VALUES "
    + ", ".join(
        f"({n}, {n}, {n - 4}, '1.{n}.1.1', '1.2', '1.2', {{0}}, {{0}}, {{0}}, {{0}}, 0)" for n in (7, 8, 9)
    ),
    "INSERT INTO attribute (instance_id, path, folded) VALUES (7, '00400512', 'C'), (9, '00400512', 'C'), "
    "(8, '00400512', 'C')",
]  # fmt: skip


@pytest.fixture
def migrated(open_index: Callable[[], Index], monkeypatch: pytest.MonkeyPatch) -> Index:
    """Three studies of schema 2, by dates and out of order, migrated."""
    with monkeypatch.context() as before:
        before.setattr(migrations, "MIGRATIONS", migrations.MIGRATIONS[:2])
        before.setattr(migrations, "LATEST", 2)
        index = open_index()
        index.migrate()
        digest = "X'00'" if index.dialect == "sqlite" else "'\\x00'::bytea"
        for sql in OLD_ROWS:
            index.write(lambda sql=sql: index.database.execute_sql(sql.format(digest)))
    index.migrate()
    return index


@pytest.mark.parametrize("level", list(Level))
def test_old_rows_get_their_place(migrated: Index, level: Level) -> None:
    for path, vr, text in (("00400512", "LO", "C"), ("00080060", "CS", "SM"), ("00100020", "LO", "")):
        rows = migrated.find(Query(level, (parse_match(path, vr, text),)), EVERYTHING).rows
        assert [row["study.id"] for row in rows] == [8, 7, 9], "newest first, without a date last"
    (row,) = migrated.find(
        Query(level, (parse_match("00080020", "DA", "20200101-20201231"),)), EVERYTHING
    ).rows
    assert row["study.place"] == (20200102 << 36) + 7


def test_old_names_get_their_sounds(migrated: Index) -> None:
    match = parse_match("00100010", "PN", "Miller", fuzzy=True)
    (row,) = migrated.find(Query(Level.STUDY, (match,)), EVERYTHING).rows
    assert row["study.id"] == 7


def test_the_keys_that_old_rows_have_are_noted(migrated: Index) -> None:
    assert migrated.complete_keys() == KEYS_BEFORE
    assert migrated.matching_keys.keys() == KEYS_BEFORE.keys()
    assert migrated.matching_keys.keys() < EXTRACTED.keys()
    with migrated.read() as database:
        ((noted,),) = database.execute_sql("SELECT value FROM setting WHERE key = 'matching_keys'").fetchall()
    assert json.loads(noted) == KEYS_BEFORE


def test_new_rows_find_their_place_by_themselves(migrated: Index) -> None:
    """What a writer leaves at 0 is filled in by triggers."""
    models = migrated.models
    study = migrated.write(
        lambda: migrated.insert(models.Study, study_instance_uid="1.10", study_date="20300101")
    )
    series = migrated.write(lambda: migrated.insert(models.Series, study=study, series_instance_uid="1.10.1"))
    with migrated.read():
        assert models.Study.get_by_id(study).place == (20300101 << 36) + study
        assert models.Series.get_by_id(series).place == (20300101 << 36) + study
