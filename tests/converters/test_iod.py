# SPDX-License-Identifier: Apache-2.0
"""The gate of IOD completeness: it passes what we write, and names what is taken away."""

import io
import json
from pathlib import Path

import pydicom
import pytest

from converters.errors import VerificationFailed
from converters.registry import open_slide
from converters.slide import Role
from converters.verify import verify_instances
from converters.writer.iod import TABLE, problems
from tests.support import iod_tables
from tests.support.converted import born
from tests.support.make_slide import make_svs
from tests.support.slides.mrxs import write_stitched_mrxs
from tests.support.slides.zeiss_czi import write_mosaic


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_svs(tmp_path_factory.mktemp("iod") / "a.svs", rows=300, columns=300)


def headers(path: Path) -> list[pydicom.Dataset]:
    return [pydicom.dcmread(io.BytesIO(instance.header)) for instance in born(path)]


def test_the_table_is_what_the_generator_gives() -> None:
    kept = json.loads(TABLE.read_text(encoding="ascii"))
    assert kept["required"] == json.loads(iod_tables.text())["required"]


def test_every_header_of_ours_is_complete(slide: Path, tmp_path: Path) -> None:
    for name in ("mrxs", "czi"):
        (tmp_path / name).mkdir()
    for path in (slide, write_stitched_mrxs(tmp_path / "mrxs"), write_mosaic(tmp_path / "czi")):
        for header in headers(path):
            assert problems(header) == []


@pytest.mark.parametrize(
    ("keyword", "says"),
    [
        ("AcquisitionDateTime", "AcquisitionDateTime (Type 1) is missing"),
        ("PatientSex", "PatientSex (Type 2) is missing"),
        ("FrameOfReferenceUID", "FrameOfReferenceUID (Type 1) is missing"),
        ("PositionReferenceIndicator", "PositionReferenceIndicator (Type 2) is missing"),
        ("ImagedVolumeDepth", "ImagedVolumeDepth (Type 1C: Image Type VOLUME or THUMBNAIL) is missing"),
        ("NumberOfOpticalPaths", "NumberOfOpticalPaths (Type 1C: TILED_FULL) is missing"),
        ("PlanarConfiguration", "PlanarConfiguration (Type 1C: colour) is missing"),
        ("LossyImageCompressionRatio", "LossyImageCompressionRatio (Type 1C: Lossy Image Compression 01)"),
    ],
)
def test_what_is_missing_is_named(slide: Path, keyword: str, says: str) -> None:
    header = headers(slide)[-4]
    del header[keyword]
    assert any(problem.startswith(says) for problem in problems(header)), problems(header)


def test_an_empty_type_1_and_a_hole_in_a_sequence_are_found(slide: Path) -> None:
    header = headers(slide)[0]
    header.Manufacturer = ""
    del header.SpecimenDescriptionSequence[0].SpecimenUID
    del header.OpticalPathSequence[0].ICCProfile
    del header.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence
    assert set(problems(header)) == {
        "Manufacturer (Type 1) is empty",
        "SpecimenDescriptionSequence/SpecimenUID (Type 1) is missing",
        "OpticalPathSequence/ICCProfile (Type 1C: colour) is missing",
        "SharedFunctionalGroupsSequence/PixelMeasuresSequence is missing",
    }


def test_a_label_without_barcode_is_incomplete(slide: Path) -> None:
    (label,) = (h for h in headers(slide) if h.ImageType[2] == Role.LABEL)
    assert problems(label) == []
    del label.BarcodeValue
    assert problems(label) == ["BarcodeValue (Type 2: a label) is missing"]


def test_verification_stops_an_incomplete_header(slide: Path) -> None:
    instances = born(slide)
    from dataclasses import replace

    from archive.part10.encode import encode_header

    header = pydicom.dcmread(io.BytesIO(instances[0].header))
    header.Manufacturer = ""
    broken = encode_header(header, instances[0].transfer_syntax_uid, implementation_version="TEST")
    with open_slide(slide) as opened, pytest.raises(VerificationFailed, match="Manufacturer"):
        verify_instances(opened, [replace(instances[0], header=broken), *instances[1:]])
