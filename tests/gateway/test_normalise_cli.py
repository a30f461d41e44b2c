# SPDX-License-Identifier: Apache-2.0
"""Received DICOM on the command line: stored as it came, looked at, made anew on the way out."""

import json
from pathlib import Path

import pydicom
import pytest
from pydicom.encaps import generate_frames

from tests.gateway.serving import run
from tests.support.make_slide import picture
from tests.support.slides.dicom_wsi import J2K, NATIVE, STUDY, write_dicom_wsi, write_image


@pytest.fixture(scope="module")
def received(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of one series, and of one object of another."""
    folder = tmp_path_factory.mktemp("received")
    write_dicom_wsi(folder)
    write_image(
        folder / "photo.dcm", picture(64, 64), number=9, tile=64, transfer_syntax_uid=NATIVE,
        change=lambda header: header.update(
            {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.77.1.4", "SeriesInstanceUID": "2.25.8"}
        ),
    )  # fmt: skip
    return folder


def test_a_series_in_a_folder_is_converted_once(received: Path, tmp_path: Path) -> None:
    done = run("convert", str(received), "-o", str(tmp_path / "out"), "--verify", "--json")
    assert done.returncode != 0  # the photograph is none
    assert "VL Photographic Image Storage" in done.stderr
    (report,) = json.loads(done.stdout)
    assert Path(report["source"]).name == "level0.dcm"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["level0"]


def test_inspect_says_what_is_wrong_with_a_received_image(tmp_path: Path) -> None:
    def wrong(header: pydicom.Dataset) -> None:
        header.PhotometricInterpretation = "RGB"
        del header.FocusMethod

    path = write_image(tmp_path / "image.dcm", picture(64, 64), transfer_syntax_uid=J2K, change=wrong)
    done = run("inspect", str(path))
    assert done.returncode == 0, done.stderr
    assert "note: the frames are YBR_RCT, Photometric Interpretation says something else\n" in done.stdout
    assert "note: FocusMethod (Type 1) is missing\n" in done.stdout


def test_export_normalised_makes_new_instances_of_what_was_stored(received: Path, tmp_path: Path) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    stored = run("ingest", "--create", "--data", str(data), str(received))
    assert stored.returncode == 0, stored.stderr
    plain = run("export", STUDY, "-o", str(tmp_path / "plain"), "--data", str(data))
    assert plain.returncode == 0, plain.stderr
    kept = {path.read_bytes() for path in (tmp_path / "plain").rglob("*.dcm")}
    assert kept == {path.read_bytes() for path in received.glob("*.dcm")}

    done = run("export", STUDY, "-o", str(out), "--normalise", "--data", str(data))
    assert done.returncode == 0, done.stderr
    assert "no whole slide image, left out" in done.stderr
    assert [path.name for path in out.iterdir()] == [STUDY]
    (series,) = (out / STUDY).iterdir()
    assert sorted(map(str, series.iterdir())) == sorted(done.stdout.split())
    source = pydicom.dcmread(received / "level0.dcm")
    level = pydicom.dcmread(series / "level-0.dcm")
    assert level.SeriesInstanceUID == series.name != source.SeriesInstanceUID
    assert level.SOPInstanceUID != source.SOPInstanceUID
    assert level.StudyInstanceUID == STUDY
    assert list(generate_frames(level.PixelData, number_of_frames=12)) == list(
        generate_frames(source.PixelData, number_of_frames=12)
    )
    again = run("export", STUDY, "-o", str(out), "--normalise", "--data", str(data))
    assert again.returncode != 0
    assert "exists already" in again.stderr


def test_verify_tells_of_frames_that_are_not_what_their_header_says(tmp_path: Path) -> None:
    def wrong(header: pydicom.Dataset) -> None:
        header.PhotometricInterpretation = "RGB"

    path = write_image(tmp_path / "image.dcm", picture(64, 64), transfer_syntax_uid=J2K, change=wrong)
    assert run("ingest", "--create", "--data", str(tmp_path / "data"), str(path)).returncode == 0
    found = json.loads(run("verify", "--data", str(tmp_path / "data"), "--json").stdout)
    assert "the frames are YBR_RCT, Photometric Interpretation says something else" in json.dumps(found)
