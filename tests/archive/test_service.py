# SPDX-License-Identifier: Apache-2.0
"""The archive's verbs over real storage and a real database."""

import io
import json
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest
from pydicom.encaps import generate_frames

from archive.errors import (
    DuplicateInstance,
    Gone,
    NoSuchBulkData,
    NoSuchFrame,
    NoSuchInstance,
    NoSuchSeries,
    NoSuchStudy,
    StudyMismatch,
    Unreadable,
)
from archive.index.query import Level, Query, parse_match
from archive.service import Archive
from archive.values import Instance, Outcome, Stored
from tests.support.archives import ASK, SENDER, open_archive, store_bytes
from tests.support.faults import flip_bit
from tests.support.instances import jpeg_tile, make_instance
from tests.support.require import DATA, require_data


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    opened = open_archive(tmp_path)
    yield opened
    opened.close()


def described(archive: Archive, stored: Stored) -> Instance:
    return archive.instance(
        stored.study_instance_uid, stored.series_instance_uid, stored.sop_instance_uid, **ASK
    )


def stream(archive: Archive, instance: Instance, **options: bool) -> bytes:
    opened = archive.open(instance, **ASK, **options)
    data = b"".join(opened.chunks)
    assert len(data) == opened.length
    return data


def test_what_was_stored_comes_back_byte_for_byte(archive: Archive) -> None:
    data = make_instance()
    instance = described(archive, store_bytes(archive, data))
    assert stream(archive, instance) == data
    assert archive.frame(instance, 3, **ASK) == jpeg_tile(2)
    assert list(archive.frames(instance, [4, 1, 4], **ASK)) == [jpeg_tile(3), jpeg_tile(0), jpeg_tile(3)]


@pytest.mark.parametrize("numbers", [[0], [5], [1, 5], [-1]])
def test_a_frame_that_is_not_there_is_refused_before_the_first_byte(
    archive: Archive, numbers: list[int]
) -> None:
    instance = described(archive, store_bytes(archive, make_instance()))
    with pytest.raises(NoSuchFrame):
        archive.frames(instance, numbers, **ASK)


def test_a_data_set_without_preamble_comes_back_as_part_10(archive: Archive) -> None:
    data = make_instance(native=True)
    bare = data[pydicom.dcmread(io.BytesIO(data)).file_meta.FileMetaInformationGroupLength + 144 :]
    instance = described(archive, store_bytes(archive, bare))
    again = pydicom.dcmread(io.BytesIO(stream(archive, instance)))
    assert again.PixelData == pydicom.dcmread(io.BytesIO(data)).PixelData
    assert store_bytes(archive, data).outcome is Outcome.ALREADY


def test_the_same_content_in_other_bytes_is_success_once(archive: Archive) -> None:
    data = make_instance()
    store_bytes(archive, data)
    rewritten = io.BytesIO()
    dataset = pydicom.dcmread(io.BytesIO(data))
    dataset.file_meta.ImplementationVersionName = "OTHER"
    dataset.save_as(rewritten)
    assert rewritten.getvalue() != data
    assert store_bytes(archive, rewritten.getvalue()).outcome is Outcome.ALREADY
    assert len(archive.slides(**ASK)) == 1
    assert archive.quarantined(**ASK) == []


def test_equal_pixels_under_another_header_keep_the_first_and_tell_an_operator(archive: Archive) -> None:
    data = make_instance(patient_name="First^Name")
    stored = store_bytes(archive, data)
    other = pydicom.dcmread(io.BytesIO(data))
    other.PatientName = "Second^Name"
    changed = io.BytesIO()
    other.save_as(changed)
    assert store_bytes(archive, changed.getvalue()).outcome is Outcome.KEPT_FIRST
    assert stream(archive, described(archive, stored)) == data
    (kept,) = archive.quarantined(**ASK)
    assert kept.sop_instance_uid == stored.sop_instance_uid


def test_other_pixels_under_the_same_uid_are_refused_and_kept_in_quarantine(archive: Archive) -> None:
    uids = {"study": "1.2.3", "series": "1.2.4", "sop": "1.2.5"}
    store_bytes(archive, make_instance(**uids))
    with pytest.raises(DuplicateInstance):
        store_bytes(archive, make_instance(**uids, tiles=[jpeg_tile(9)] * 4))
    assert [q.reason for q in archive.quarantined(**ASK)] == ["the same SOP Instance UID with other pixels"]
    assert list(archive.verify(**ASK)) == []


def test_replace_takes_the_place_of_the_first(archive: Archive) -> None:
    uids = {"study": "1.2.3", "series": "1.2.4", "sop": "1.2.5"}
    store_bytes(archive, make_instance(**uids))
    new = make_instance(**uids, tiles=[jpeg_tile(9)] * 4)
    stored = store_bytes(archive, new, replace=True)
    assert stored.outcome is Outcome.REPLACED
    assert stream(archive, described(archive, stored)) == new
    assert archive.reindex(**ASK) == 1
    assert stream(archive, described(archive, stored)) == new


def test_storing_into_another_study_than_named_is_refused(archive: Archive) -> None:
    with pytest.raises(StudyMismatch):
        store_bytes(archive, make_instance(), study_instance_uid="1.2.3")


@pytest.mark.parametrize("damage", [b"", b"garbage" * 99, make_instance()[:-100], make_instance()[:300]])
def test_what_cannot_be_read_is_refused_and_nothing_is_kept(archive: Archive, damage: bytes) -> None:
    with pytest.raises(Unreadable):
        store_bytes(archive, damage)
    assert archive.slides(**ASK) == []
    assert list(archive.verify(**ASK)) == []


def test_a_correction_shows_through_every_door_and_the_base_stays(archive: Archive) -> None:
    data = make_instance(patient_name="Wrong^Name")
    stored = store_bytes(archive, data)
    before = described(archive, stored)
    archive.correct(stored.study_instance_uid, {"PatientName": "Right^Name"}, reason="ADT", **ASK)
    instance = described(archive, stored)
    assert (instance.revision, instance.etag != before.etag) == (1, True)
    assert instance.size_bytes == archive.open(instance, **ASK).length
    revised = pydicom.dcmread(io.BytesIO(stream(archive, instance)))
    found = archive.find(Query(Level.STUDY, (parse_match("00100010", "PN", "right*"),)), **ASK)
    metadata = json.loads(archive.metadata(instance, **ASK))
    names = {
        str(revised.PatientName),
        metadata["00100010"]["Value"][0]["Alphabetic"],
        found.rows[0]["00100010"]["Value"][0]["Alphabetic"],  # type: ignore[index]
        archive.slides(**ASK)[0].patient_name,
    }
    assert names == {"Right^Name"}
    (original,) = revised.OriginalAttributesSequence
    assert original.ModifiedAttributesSequence[0].PatientName == "Wrong^Name"
    frames = list(generate_frames(revised.PixelData, number_of_frames=4))
    assert [f[: len(jpeg_tile(n))] for n, f in enumerate(frames)] == [jpeg_tile(n) for n in range(4)]
    assert stream(archive, instance, base=True) == data
    assert list(archive.verify(**ASK)) == []


def test_our_own_export_coming_home_after_a_correction_is_success(archive: Archive) -> None:
    stored = store_bytes(archive, make_instance())
    first = stream(archive, described(archive, stored))
    archive.correct(stored.study_instance_uid, {"AccessionNumber": "B2"}, reason="order", **ASK)
    exported = stream(archive, described(archive, stored))
    archive.correct(stored.study_instance_uid, {"AccessionNumber": "C3"}, reason="order", **ASK)
    assert [store_bytes(archive, data).outcome for data in (first, exported)] == [Outcome.ALREADY] * 2


def test_a_deleted_instance_is_gone_and_can_be_stored_again(archive: Archive) -> None:
    data = make_instance()
    stored = store_bytes(archive, data)
    assert archive.delete(stored.study_instance_uid, reason="test", **ASK) == 1
    with pytest.raises(Gone):
        described(archive, stored)
    with pytest.raises(Gone):
        archive.instances(stored.study_instance_uid, **ASK)
    assert archive.find(Query(Level.INSTANCE), **ASK).rows == []
    assert store_bytes(archive, data).outcome is Outcome.STORED
    assert stream(archive, described(archive, stored)) == data


def test_bulk_values_are_found_by_their_path(archive: Archive) -> None:
    instance = described(archive, store_bytes(archive, make_instance()))
    opened = archive.bulk(instance, "00480105/0/00282000", **ASK)
    assert b"".join(opened.chunks) == b"ICC0" * 4
    for path in ("00480105/7/00282000", "00480105", "nonsense", "7FE00010"):
        with pytest.raises(NoSuchBulkData):
            archive.bulk(instance, path, **ASK)


def test_unknown_uids_are_not_found_at_every_level(archive: Archive) -> None:
    stored = store_bytes(archive, make_instance())
    with pytest.raises(NoSuchStudy):
        archive.instances("1.2.3", **ASK)
    with pytest.raises(NoSuchSeries):
        archive.instances(stored.study_instance_uid, "1.2.3", **ASK)
    with pytest.raises(NoSuchInstance):
        archive.instance(stored.study_instance_uid, "1.2.3", stored.sop_instance_uid, **ASK)


def test_verify_finds_one_flipped_bit_in_a_blob_and_in_a_record(archive: Archive, tmp_path: Path) -> None:
    store_bytes(archive, make_instance())
    assert list(archive.verify(**ASK)) == []
    for kind in ("blob", "record"):
        (path,) = (p for p in (tmp_path / "store" / kind).rglob("*") if p.is_file())
        flip_bit(path, path.stat().st_size // 2)
        assert kind in {finding.kind for finding in archive.verify(**ASK)}
        flip_bit(path, path.stat().st_size // 2)


def test_the_change_feed_counts_without_gaps(archive: Archive) -> None:
    stored = store_bytes(archive, make_instance())
    archive.correct(stored.study_instance_uid, {"StudyID": "9"}, reason="r", **ASK)
    archive.delete(stored.study_instance_uid, reason="r", **ASK)
    changes = archive.changes(0, **ASK)
    assert [(c.seq, c.action) for c in changes] == [(1, "stored"), (2, "corrected"), (3, "deleted")]
    assert archive.changes(2, **ASK) == changes[2:]


def test_a_change_by_another_process_is_seen_at_once(archive: Archive, tmp_path: Path) -> None:
    stored = store_bytes(archive, make_instance())
    described(archive, stored)
    other = open_archive(tmp_path)
    other.delete(stored.study_instance_uid, reason="elsewhere", **ASK)
    other.close()
    with pytest.raises(Gone):
        described(archive, stored)


def test_staged_files_never_stay_in_the_spool(archive: Archive, tmp_path: Path) -> None:
    store_bytes(archive, make_instance())
    with pytest.raises(Unreadable):
        store_bytes(archive, b"nothing")
    with archive.stage() as staging:
        staging.write(b"abandoned")
    assert list((tmp_path / "spool").iterdir()) == []
    assert SENDER.via == "cli"


@pytest.mark.parametrize("path", sorted((DATA / "slides" / "dicom-wsi").glob("*.dcm")), ids=lambda p: p.name)
def test_every_sample_of_dicom_is_stored_and_comes_back_as_it_was(archive: Archive, path: Path) -> None:
    data = path.read_bytes()
    instance = described(archive, store_bytes(archive, data))
    assert stream(archive, instance) == data
    count = instance.number_of_frames
    if instance.has_pixel_data:
        frames = list(archive.frames(instance, range(1, count + 1), **ASK))
        dataset = pydicom.dcmread(io.BytesIO(data))
        if dataset.file_meta.TransferSyntaxUID.is_encapsulated:
            expected = list(generate_frames(dataset.PixelData, number_of_frames=count))
            assert [f.rstrip(b"\0") for f in frames] == [f.rstrip(b"\0") for f in expected]
        elif dataset.BitsAllocated > 1:
            assert dataset.PixelData[: sum(map(len, frames))] == b"".join(frames)
    assert store_bytes(archive, data).outcome is Outcome.ALREADY
    assert [f for f in archive.verify(**ASK) if f.kind != "as received"] == []


def test_the_samples_of_dicom_are_there() -> None:
    require_data("slides/dicom-wsi")
