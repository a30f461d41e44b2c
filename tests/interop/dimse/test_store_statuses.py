# SPDX-License-Identifier: Apache-2.0
"""What DCMTK's sender is told: each status of docs/conformance-dimse.md that an instance
may be answered (PS3.4 Table B.2-1)."""

import io
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, KeyObjectSelectionDocumentStorage, generate_uid

from archive.access import Action, OpenPolicy, Principal
from archive.service import Archive
from tests.gateway.dimse.running import Scp, running, running_process
from tests.interop.dimse.test_dcmtk import STATUS, send, sop_uids
from tests.support.archives import open_archive
from tests.support.instances import WSI, make_instance

IDENTITY = {"study": "2.25.1", "series": "2.25.2", "sop": "2.25.3"}


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    archive = open_archive(tmp_path / "data")
    yield archive
    archive.close()


@pytest.fixture
def scp(archive: Archive) -> Iterator[Scp]:
    with running(archive) as scp:
        yield scp


def status(port: int, path: Path) -> int:
    """What dcmsend is answered for one file."""
    answer = send("dcmsend", port, "-d", path)
    (found,) = STATUS.findall(answer.stdout + answer.stderr)
    return int(found, 16)


def write(path: Path, dataset: pydicom.Dataset) -> Path:
    dataset.save_as(path, enforce_file_format=True)
    return path


def instance(**options: object) -> pydicom.FileDataset:
    return pydicom.dcmread(io.BytesIO(make_instance(**{**IDENTITY, **options})))  # type: ignore[arg-type]


def note(sop: str) -> Dataset:
    """A rejection note (IHE IOCM, quality reasons) that names one instance."""
    title, named, series, study = Dataset(), Dataset(), Dataset(), Dataset()
    title.CodeValue, title.CodingSchemeDesignator, title.CodeMeaning = "113001", "DCM", "Rejected"
    named.ReferencedSOPClassUID, named.ReferencedSOPInstanceUID = WSI, sop
    series.SeriesInstanceUID, series.ReferencedSOPSequence = IDENTITY["series"], [named]
    study.StudyInstanceUID, study.ReferencedSeriesSequence = IDENTITY["study"], [series]
    made = Dataset()
    made.SOPClassUID, made.SOPInstanceUID = KeyObjectSelectionDocumentStorage, generate_uid()
    made.StudyInstanceUID, made.SeriesInstanceUID = IDENTITY["study"], generate_uid()
    made.Modality, made.PatientID, made.PatientName = "KO", "P1", "Test^Slide"
    made.StudyDate, made.StudyTime, made.AccessionNumber, made.StudyID = "20260102", "030405", "A1", ""
    made.SeriesNumber = made.InstanceNumber = 1
    made.ConceptNameCodeSequence = [title]
    made.CurrentRequestedProcedureEvidenceSequence = [study]
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return made


def test_stored_and_stored_already_are_success(scp: Scp, tmp_path: Path) -> None:
    path = write(tmp_path / "one.dcm", instance())
    assert [status(scp.port, path) for _ in range(2)] == [0, 0]


def test_the_same_pixels_under_another_header_are_b006_and_the_first_is_kept(
    scp: Scp, tmp_path: Path
) -> None:
    first, second = instance(), instance(patient_name="Other^Name")
    assert status(scp.port, write(tmp_path / "first.dcm", first)) == 0
    assert status(scp.port, write(tmp_path / "second.dcm", second)) == 0xB006
    assert sop_uids(scp.archive) == {"2.25.3"}


def test_other_pixels_of_the_same_uid_are_0111(scp: Scp, tmp_path: Path) -> None:
    assert status(scp.port, write(tmp_path / "first.dcm", instance())) == 0
    assert status(scp.port, write(tmp_path / "second.dcm", instance(frames=9))) == 0x0111


def test_a_rejection_note_of_something_that_is_not_here_is_a900(scp: Scp, tmp_path: Path) -> None:
    assert status(scp.port, write(tmp_path / "note.dcm", note("2.25.99"))) == 0xA900
    assert sop_uids(scp.archive) == set()


def test_what_was_rejected_may_not_come_again_0124(scp: Scp, tmp_path: Path) -> None:
    path = write(tmp_path / "one.dcm", instance())
    assert status(scp.port, path) == 0
    assert status(scp.port, write(tmp_path / "note.dcm", note("2.25.3"))) == 0
    assert status(scp.port, path) == 0x0124


def test_who_may_not_store_is_told_0124(tmp_path: Path) -> None:
    class NoStoring(OpenPolicy):
        def allows(self, principal: Principal, action: Action) -> bool:
            return action is not Action.STORE

    archive = open_archive(tmp_path / "data", policy=NoStoring())
    try:
        with running(archive) as scp:
            assert status(scp.port, write(tmp_path / "one.dcm", instance())) == 0x0124
    finally:
        archive.close()


def test_an_instance_without_a_series_is_c000(scp: Scp, tmp_path: Path) -> None:
    dataset = instance()
    del dataset.SeriesInstanceUID
    assert status(scp.port, write(tmp_path / "one.dcm", dataset)) == 0xC000


def test_a_full_disk_is_a700(tmp_path: Path) -> None:
    path = tmp_path / "large.dcm"
    path.write_bytes(make_instance(frames=2000, native=True))  # 6 MB
    with running_process(tmp_path / "data", file_size_limit=4 << 20) as scp:
        assert status(scp.port, path) == 0xA700
