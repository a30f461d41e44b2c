# SPDX-License-Identifier: Apache-2.0
"""A scanner's file in the archive: one original, several instances, one fate."""

import io
import json
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest

from archive.errors import Held
from archive.service import Archive
from archive.values import Outcome, Stored
from gateway.ingest.pipeline import ingest_path
from tests.support.archives import ASK, SENDER, open_archive, store_bytes
from tests.support.make_slide import make_svs, srgb_profile

ICC_PATH = "00480105/0/00282000"


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    opened = open_archive(tmp_path / "site")
    yield opened
    opened.close()


def ingest(archive: Archive, path: Path) -> list[Stored]:
    return ingest_path(archive, path, secret=b"s" * 32, sender=SENDER, **ASK)


def streams(archive: Archive, stored: list[Stored]) -> list[bytes]:
    found = []
    for one in stored:
        instance = archive.instance(
            one.study_instance_uid, one.series_instance_uid, one.sop_instance_uid, **ASK
        )
        opened = archive.open(instance, **ASK)
        data = b"".join(opened.chunks)
        assert len(data) == opened.length == instance.size_bytes
        found.append(data)
    return found


def test_the_original_is_kept_bit_for_bit_and_pixels_are_stored_once(
    archive: Archive, tmp_path: Path
) -> None:
    path = make_svs(tmp_path / "slide.svs", rows=900, columns=900)
    stored = ingest(archive, path)
    ((name, original),) = archive.original(stored[0].series_instance_uid, **ASK)
    assert (name, b"".join(original.chunks)) == ("slide.svs", path.read_bytes())
    kept = sum(p.stat().st_size for p in (tmp_path / "site" / "store").rglob("*") if p.is_file())
    small = sum(map(len, streams(archive, stored))) - path.stat().st_size
    assert kept < path.stat().st_size + max(small, 0) + (1 << 20)


def test_the_same_slide_again_is_recognised_by_its_bytes(archive: Archive, tmp_path: Path) -> None:
    path = make_svs(tmp_path / "slide.svs", rows=300, columns=300)
    first = ingest(archive, path)
    again = ingest(archive, path.rename(tmp_path / "other-name.svs"))
    assert {s.sop_instance_uid for s in again} == {s.sop_instance_uid for s in first}
    assert {s.outcome for s in again} == {Outcome.ALREADY}
    assert len(archive.slides(**ASK)) == 1


def test_an_export_coming_home_is_success_before_and_after_a_correction(
    archive: Archive, tmp_path: Path
) -> None:
    stored = ingest(archive, make_svs(tmp_path / "slide.svs", rows=300, columns=300, icc=True))
    base = streams(archive, stored)
    archive.correct(stored[0].study_instance_uid, {"PatientID": "P7"}, reason="order", **ASK)
    for data in (*base, *streams(archive, stored)):
        assert store_bytes(archive, data).outcome is Outcome.ALREADY
    assert archive.quarantined(**ASK) == []


def test_a_large_colour_profile_is_bulk_through_every_door(archive: Archive, tmp_path: Path) -> None:
    profile = bytearray(srgb_profile())
    profile += bytes(140_000 - len(profile))
    profile[:4] = len(profile).to_bytes(4, "big")
    stored = ingest(archive, make_svs(tmp_path / "slide.svs", rows=300, columns=300, icc=bytes(profile)))
    for reason in ("", "order"):
        if reason:
            archive.correct(stored[0].study_instance_uid, {"PatientID": "P7"}, reason=reason, **ASK)
        for one, data in zip(stored, streams(archive, stored), strict=True):
            instance = archive.instance(
                one.study_instance_uid, one.series_instance_uid, one.sop_instance_uid, **ASK
            )
            header = pydicom.dcmread(io.BytesIO(data), stop_before_pixels=True)
            value = header.OpticalPathSequence[0].get("ICCProfile", b"")
            if len(value) < 100_000:
                continue
            path = json.loads(archive.metadata(instance, **ASK))["00480105"]["Value"][0]
            assert path["00282000"] == {"vr": "OB", "BulkDataURI": f"bulk:{ICC_PATH}"}
            assert b"".join(archive.bulk(instance, ICC_PATH, **ASK).chunks) == value
            assert store_bytes(archive, data).outcome is Outcome.ALREADY
    assert archive.reindex(**ASK) == len(stored)
    assert list(archive.verify(**ASK)) == []


def test_one_instance_of_a_born_slide_cannot_be_deleted_alone(archive: Archive, tmp_path: Path) -> None:
    stored = ingest(archive, make_svs(tmp_path / "slide.svs", rows=600, columns=600))
    one = stored[0]
    with pytest.raises(Held):
        archive.delete(
            one.study_instance_uid, one.series_instance_uid, one.sop_instance_uid, reason="r", **ASK
        )
    assert archive.delete(one.study_instance_uid, one.series_instance_uid, reason="r", **ASK) == len(stored)
    assert archive.slides(**ASK) == []
    assert ingest(archive, tmp_path / "slide.svs")[0].outcome is Outcome.STORED


def test_a_killed_slide_is_whole_or_absent(archive: Archive, tmp_path: Path) -> None:
    path = make_svs(tmp_path / "slide.svs", rows=300, columns=300)
    stored = ingest(archive, path)
    core = archive._core
    with core.index.read():
        keys = {
            r[0]
            for r in core.index.models.Instance.select(core.index.models.Instance.base_record_key).tuples()
        }
    assert len(keys) == 1  # one record: all instances or none
    assert len(stored) > 1
