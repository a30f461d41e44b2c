# SPDX-License-Identifier: Apache-2.0
"""Non-patient instances, rejections and commitments on PostgreSQL."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from archive.index.matching import parse_match
from archive.non_patient import NonPatientQuery
from archive.service import Archive
from tests.support import postgres
from tests.support.archives import ASK, open_archive, store_bytes
from tests.support.instances import make_instance
from tests.support.non_patient import ROOT, hanging_protocol, palette, written


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    with postgres.server() as url:
        opened = open_archive(tmp_path, url=postgres.new_database(url, "doors"))
        yield opened
        opened.close()


def found(archive: Archive, path: str, vr: str, text: str) -> list[object]:
    query = NonPatientQuery("color-palettes", (parse_match(path, vr, text, empty=True),))
    return [row["00080018"]["Value"][0] for row in archive.find_non_patient(query, **ASK).rows]  # type: ignore[index]


def test_all_of_it_works_there_as_well(archive: Archive) -> None:
    for made in (palette(), palette(4, "COOL"), hanging_protocol()):
        store_bytes(archive, written(made))
    for _ in range(2):
        assert found(archive, "00700080", "CS", "HOT*") == [f"{ROOT}.1"]
        assert found(archive, "00080012", "DA", "20260101-") == [f"{ROOT}.1", f"{ROOT}.4"]
        assert found(archive, "00281101", "US", "256") == [f"{ROOT}.1", f"{ROOT}.4"]
        assert found(archive, "00720002", "SH", '""') == [f"{ROOT}.1", f"{ROOT}.4"]
        archive.reindex(**ASK)
    archive.delete_non_patient("color-palettes", f"{ROOT}.4", reason="r", **ASK)
    stored = store_bytes(archive, make_instance())
    archive.reject(stored.study_instance_uid, code="113001", **ASK)
    archive.reindex(**ASK)
    assert archive.readmit(stored.study_instance_uid, reason="r", **ASK) == 1
    archive.request_commitment("2.25.1", [(stored.sop_class_uid, stored.sop_instance_uid)], **ASK)
    assert archive.run_commitment("2.25.1") == (1, 0)
    assert archive.expire_commitments() == 0
    assert [f.detail for f in archive.verify(**ASK)] == []
