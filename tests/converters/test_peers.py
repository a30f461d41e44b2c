# SPDX-License-Identifier: Apache-2.0
"""Converted files as others read them: OpenSlide, wsidicom, pydicom, dciodvfy.

The original, decoded by tifffile, is the measure.
"""

import subprocess
import warnings
from pathlib import Path

import numpy as np
import openslide
import pydicom
import pytest
import tifffile
import wsidicom
from numpy.typing import NDArray

from converters.convert import ConvertOptions, convert
from converters.writer import plan
from tests.support.converted import REAL, SYNTHETIC
from tests.support.make_slide import make_svs
from tests.support.require import require_data, require_tool

SAMPLES = (*REAL, *SYNTHETIC, "jpeg rgb", "jpeg 422", "jpeg 420", "jpeg 444", "jpeg 2000")
GENERATED: dict[str, dict[str, object]] = {
    "jpeg rgb": {"icc": True},
    "jpeg 422": {"photometric": "YCBCR", "subsampling": "422"},
    "jpeg 420": {"photometric": "YCBCR", "subsampling": "420"},
    "jpeg 444": {"photometric": "YCBCR", "subsampling": "444", "describe_levels": False},
    "jpeg 2000": {"compression": 33005, "icc": True},
}
Pixels = NDArray[np.uint8]


@pytest.fixture(scope="module", params=SAMPLES)
def converted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(the original, the folder of its DICOM files)"""
    folder = tmp_path_factory.mktemp("peers")
    if request.param in GENERATED:
        source = make_svs(folder / "slide.svs", **GENERATED[request.param])  # type: ignore[arg-type]
    else:
        source = require_data(request.param)
    return source, convert([source], folder / "out")[0].folder


@pytest.fixture(scope="module")
def originals(converted: tuple[Path, Path]) -> list[Pixels]:
    with tifffile.TiffFile(converted[0]) as tiff:
        return [page.asarray() for page in tiff.pages if page.is_tiled]


def difference(one: Pixels, other: Pixels) -> int:
    assert one.shape == other.shape
    return int(np.abs(one.astype(int) - other.astype(int)).max())


def test_openslide_reads_the_scanners_pixels(converted: tuple[Path, Path], originals: list[Pixels]) -> None:
    with openslide.OpenSlide(converted[1] / "level-0.dcm") as slide:
        assert slide.level_count >= len(originals)
        for level, original in enumerate(originals):
            rows, columns = original.shape[:2]
            region = np.asarray(slide.read_region((0, 0), level, (columns, rows)))[..., :3]
            assert difference(region, original) == 0


def test_openslide_finds_the_same_slide_in_both(converted: tuple[Path, Path]) -> None:
    with (
        openslide.OpenSlide(converted[0]) as original,
        openslide.OpenSlide(converted[1] / "level-0.dcm") as slide,
    ):
        for name in ("openslide.mpp-x", "openslide.mpp-y", "openslide.objective-power"):
            assert float(slide.properties[name]) == pytest.approx(float(original.properties[name]))
        assert set(slide.associated_images) == set(original.associated_images)
        for name, image in original.associated_images.items():
            assert difference(np.asarray(slide.associated_images[name]), np.asarray(image)) == 0


def test_wsidicom_reads_the_scanners_pixels(converted: tuple[Path, Path], originals: list[Pixels]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own deprecations
        with wsidicom.WsiDicom.open(converted[1]) as slide:
            assert len(slide.levels) >= len(originals)
            for level, original in zip(slide.levels, originals, strict=False):
                rows, columns = original.shape[:2]
                region = np.asarray(slide.read_region((0, 0), level.level, (columns, rows)))[..., :3]
                assert difference(region, original) == 0


def test_pydicom_reads_the_scanners_pixels(converted: tuple[Path, Path], originals: list[Pixels]) -> None:
    for number, original in enumerate(originals):
        image = pydicom.dcmread(converted[1] / f"level-{number}.dcm")
        frames = image.pixel_array.reshape(-1, image.Rows, image.Columns, 3)
        across = -(-image.TotalPixelMatrixColumns // image.Columns)
        rows = [np.concatenate(frames[at : at + across], axis=1) for at in range(0, len(frames), across)]
        whole = np.concatenate(rows)[: original.shape[0], : original.shape[1]]
        # YCbCr to RGB: pydicom computes in floating point, libjpeg in integers; its
        # OpenJPEG is another build than tifffile's and rounds the 9/7 wavelet otherwise
        allowed = 0 if image.PhotometricInterpretation == "RGB" else 1
        assert difference(whole, original) <= allowed


def test_dciodvfy_finds_no_error(converted: tuple[Path, Path]) -> None:
    dciodvfy = require_tool("dciodvfy")
    files = sorted(converted[1].glob("*.dcm"))
    assert files
    for file in files:
        report = subprocess.run([dciodvfy, str(file)], capture_output=True, text=True, check=False).stderr
        assert report.strip() == "VLWholeSlideMicroscopyImage", f"{file.name}: {report}"


def test_dcentvfy_finds_the_series_consistent(converted: tuple[Path, Path]) -> None:
    dcentvfy = require_tool("dcentvfy")
    files = [str(file) for file in sorted(converted[1].glob("*.dcm"))]
    report = subprocess.run([dcentvfy, *files], capture_output=True, text=True, check=False)
    assert "Error" not in report.stderr + report.stdout


@pytest.mark.parametrize("compression", [7, 33003])
def test_a_slide_whose_most_tiles_are_absent_is_sparse_and_readable(tmp_path: Path, compression: int) -> None:
    absent = (0, 1, 2, 3, 5, 8, 10, 11)
    source = make_svs(tmp_path / "slide.svs", compression=compression, levels=(1,), missing_tiles=absent)
    (made,) = convert([source], tmp_path / "out", ConvertOptions(verify=True))
    image = pydicom.dcmread(made.folder / "level-0.dcm")
    assert (image.DimensionOrganizationType, image.NumberOfFrames) == ("TILED_SPARSE", 4)
    places = [frame.PlanePositionSlideSequence[0] for frame in image.PerFrameFunctionalGroupsSequence]
    assert [
        (p.RowPositionInTotalImagePixelMatrix, p.ColumnPositionInTotalImagePixelMatrix) for p in places
    ] == [(257, 1), (257, 513), (257, 769), (513, 257)]
    spacing = image.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing[0]
    origin = image.TotalPixelMatrixOriginSequence[0].XOffsetInSlideCoordinateSystem
    assert float(places[0].XOffsetInSlideCoordinateSystem) == pytest.approx(origin - 256 * spacing)
    report = subprocess.run(
        [require_tool("dciodvfy"), str(made.folder / "level-0.dcm")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    # dciodvfy expects the full grid whatever Dimension Organization Type says
    errors = [line for line in report.stderr.splitlines() if line.startswith("Error")]
    assert [line.partition(" got ")[0] for line in errors] == [
        "Error - NumberOfFrames does not match expected value for tiled total pixel matrix"
    ]
    with tifffile.TiffFile(source) as tiff:
        expected = tiff.pages[0].asarray()
    with openslide.OpenSlide(made.folder / "level-0.dcm") as slide:
        found = np.asarray(slide.read_region((0, 0), 0, (900, 700)))
    for index in range(12):
        top, left = index // 4 * 256, index % 4 * 256
        tile = found[top : top + 256, left : left + 256]
        if index in absent:
            assert not tile[..., 3].any()
        elif compression == 7:
            assert np.array_equal(tile[..., :3], expected[top : top + 256, left : left + 256])


def test_computed_levels_that_stay_plain_are_read_by_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make_svs(tmp_path / "a.svs", rows=1500, columns=2000, levels=(1, 4))
    encoded = convert([source], tmp_path / "encoded")[0]
    monkeypatch.setattr(plan, "PLAIN_SHARE", 1)
    plain = convert([source], tmp_path / "plain")[0]
    syntaxes = [
        {one.transfer_syntax_uid for one in done.instances if one.computed} for done in (encoded, plain)
    ]
    assert syntaxes == [{"1.2.840.10008.1.2.4.90"}, {"1.2.840.10008.1.2.1"}]
    assert plain.encoded_again == ("level 2: not written by the scanner, computed without loss (none)",)
    with (
        openslide.OpenSlide(plain.folder / "level-0.dcm") as slide,
        openslide.OpenSlide(encoded.folder / "level-0.dcm") as other,
        wsidicom.WsiDicom.open(plain.folder) as opened,
    ):
        size = slide.level_dimensions[-1]
        assert size == (250, 188)
        pixels = [np.asarray(one.read_region((0, 0), 2, size))[..., :3] for one in (slide, other)]
        assert difference(*pixels) == 0
        level = opened.pyramids[0].levels[-1].level
        assert difference(np.asarray(opened.read_region((0, 0), level, size)), pixels[0]) == 0
    tool = require_tool("dciodvfy")
    told = subprocess.run([tool, plain.folder / "level-2.dcm"], capture_output=True, text=True, check=False)
    assert "Error" not in told.stderr
