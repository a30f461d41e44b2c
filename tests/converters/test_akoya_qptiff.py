# SPDX-License-Identifier: Apache-2.0
"""The QPTIFF reader: bands as optical paths, copied or decoded, and what their XML says."""

from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import tifffile

from converters.convert import ConvertOptions, convert
from converters.errors import DamagedSlide
from converters.readers.akoya_qptiff import AkoyaQptiffReader
from converters.registry import open_slide
from converters.slide import Illumination, PixelTiles, Role, TileMap
from tests.support.level_pixels import tile_bytes
from tests.support.level_values import level_values, written_values
from tests.support.make_slide import picture
from tests.support.require import require_data
from tests.support.slides.qptiff import BANDS, band, write_qptiff

SAMPLES = {
    "slides/qptiff/small_vectra.qptiff": (3, [(1440, 1920)]),
    "slides/synthetic/akoya_fluorescence.qptiff": (4, [(2048, 2048), (1024, 1024), (512, 512)]),
    "slides/synthetic/akoya_brightfield.qptiff": (1, [(2048, 2048), (1024, 1024), (512, 512)]),
}


@pytest.mark.parametrize("name", SAMPLES)
def test_samples_have_their_bands_and_levels_and_the_pixels_that_tifffile_reads(name: str) -> None:
    path = require_data(name)
    bands, sizes = SAMPLES[name]
    with open_slide(path) as slide, tifffile.TiffFile(path) as tiff:
        assert slide.format == AkoyaQptiffReader.format
        assert slide.findings == ()
        (scene,) = slide.scenes
        assert [(level.rows, level.columns) for level in scene.levels] == sizes
        assert len(scene.optical_paths) == bands
        for number, level in enumerate(scene.levels):
            pages = tiff.series[0].levels[number].pages
            for path_number, page in enumerate(pages):
                values = level_values(level, path_number)
                assert np.array_equal(values.squeeze(), page.asarray())  # type: ignore[union-attr]


def test_the_real_sample_says_all_it_says() -> None:
    with open_slide(require_data("slides/qptiff/small_vectra.qptiff")) as slide:
        paths = slide.scenes[0].optical_paths
        assert [(path.description, path.exposure_ms, path.display_rgb) for path in paths] == [
            ("DAPI", 2.63, (0, 0, 255)),
            ("FITC", 14.29, (0, 255, 0)),
            ("Cy3", 208.03, (255, 255, 0)),
        ]
        assert {path.illumination for path in paths} == {Illumination.EPIFLUORESCENCE}
        assert {path.objective_power for path in paths} == {10.0}
        assert slide.scenes[0].levels[0].pixel_spacing_mm == pytest.approx((0.00049653, 0.00049653), abs=1e-8)
        assert [(image.role, image.rows, image.columns) for image in slide.associated] == [
            (Role.THUMBNAIL, 360, 480),
            (Role.OVERVIEW, 398, 201),
            (Role.LABEL, 120, 199),
        ]
        scan = slide.scan
        assert (scan.manufacturer, scan.software_versions) == ("PerkinElmer", ("VectraPolaris 1.0",))
        assert scan.acquired == datetime(2020, 10, 30, 13, 32, 10)
        assert scan.properties["scanprofile.root.scanresolution.pixelsizemicrons"] == "0.5"


@pytest.mark.parametrize(
    "form",
    [
        {"dtype": "uint8", "compression": "lzw"},
        {"dtype": "uint16", "compression": "zstd"},
        {"dtype": "uint16", "compression": "lzw", "tile": None},
    ],
)
def test_every_band_of_every_level_decodes_to_what_was_written(tmp_path: Path, form: dict[str, Any]) -> None:
    with open_slide(write_qptiff(tmp_path, **form)) as slide:
        (scene,) = slide.scenes
        assert [level.downsample for level in scene.levels] == [1.0, 2.0, 4.0]
        assert [level.pixel_spacing_mm for level in scene.levels] == [
            pytest.approx((0.0005 * factor,) * 2) for factor in (1, 2, 4)
        ]
        for factor, level in zip((1, 2, 4), scene.levels, strict=True):
            assert isinstance(level.tiles, PixelTiles)
            for number in range(4):
                drawn = band(number, 1100, 1300, form["dtype"])[::factor, ::factor]
                assert np.array_equal(level_values(level, number)[..., 0], drawn)


def test_brightfield_tiles_are_the_ones_of_the_file_byte_by_byte(tmp_path: Path) -> None:
    path = write_qptiff(tmp_path, kind="brightfield")
    with open_slide(path) as slide, tifffile.TiffFile(path) as tiff:
        data = path.read_bytes()
        pages = [page for page in tiff.pages if page.is_tiled]
        for level, page in zip(slide.scenes[0].levels, pages, strict=True):
            assert isinstance(level.tiles, TileMap)
            stored = [
                data[at : at + size] for at, size in zip(page.dataoffsets, page.databytecounts, strict=True)
            ]
            assert [tile_bytes(slide, level, index) for index in range(len(level.tiles))] == stored
            assert level.tiles.jpeg_tables == page.jpegtables
            assert level.container_rgb is False
        assert slide.scenes[0].optical_paths[0].illumination is Illumination.BRIGHTFIELD


def test_unmixed_components_are_mapped_to_16_bits_as_declared(tmp_path: Path) -> None:
    path = write_qptiff(tmp_path, kind="component", tile=None, rows=300, columns=340)
    with open_slide(path) as slide:
        (level,) = slide.scenes[0].levels
        for number, optical_path in enumerate(slide.scenes[0].optical_paths):
            mapping = optical_path.real_world
            assert mapping is not None
            back = level_values(level, number)[..., 0] * mapping.slope + mapping.intercept
            drawn = band(number, 300, 340, "float32")
            assert np.abs(back - drawn).max() <= mapping.slope / 2 + 1e-6
            assert (mapping.intercept, mapping.explanation) == (
                float(drawn.min()),
                "float32 values, scaled to 16 bits from least to greatest",
            )


def test_label_overview_and_thumbnail_are_what_was_drawn(tmp_path: Path) -> None:
    with open_slide(write_qptiff(tmp_path)) as slide:
        label, overview = slide.associated_image(Role.LABEL), slide.associated_image(Role.OVERVIEW)
        assert label is not None
        assert overview is not None
        assert np.array_equal(label.read(), picture(120, 160, 6))
        assert np.array_equal(overview.read(), picture(300, 150, 5))
        assert slide.associated_image(Role.THUMBNAIL) is not None


def test_the_xml_fills_the_scan_and_its_paths(tmp_path: Path) -> None:
    filters = (
        "<Biomarker>CD8</Biomarker><Fluorophore>OPAL520</Fluorophore><ExposureTimeUnit>ms</ExposureTimeUnit>"
        "<ExcitationFilter><Bands><Band><Active>true</Active><Cuton>460</Cuton><Cutoff>500</Cutoff></Band></Bands>"
        "</ExcitationFilter><EmissionFilter><Bands><Band><Active>false</Active><Cuton>600</Cuton>"
        "<Cutoff>650</Cutoff></Band><Band><Active>true</Active><Cuton>500</Cuton><Cutoff>560</Cutoff></Band>"
        "</Bands></EmissionFilter>"
    )
    with open_slide(write_qptiff(tmp_path, extra=filters)) as slide:
        path = slide.scenes[0].optical_paths[0]
        assert (path.description, path.fluorophore) == ("CD8 (DAPI)", "OPAL520")
        assert (path.excitation_nm, path.emission_nm, path.exposure_ms) == (480.0, 530.0, 2630.0)
        assert (path.objective_power, path.display_rgb) == (20.0, (0, 0, 255))
        scan = slide.scan
        assert (scan.model_name, scan.barcode) == ("PhenoImager HT", "S20-00042")
        assert scan.acquired == datetime(2020, 1, 2, 3, 4, 5)
        assert scan.properties["slideid"] == "SYN-Q1"
        assert scan.description.startswith("<?xml")


def test_a_brightfield_mode_makes_grey_bands_brightfield(tmp_path: Path) -> None:
    mode = "<ScanProfile><root><Mode>im_Brightfield</Mode></root></ScanProfile>"
    with open_slide(write_qptiff(tmp_path, bands=1, levels=(1,), extra=mode)) as slide:
        assert slide.scenes[0].optical_paths[0].illumination is Illumination.BRIGHTFIELD


def test_a_level_that_lacks_a_band_is_left_out_and_said(tmp_path: Path) -> None:
    with open_slide(write_qptiff(tmp_path, levels=(1, 2), leave_out=2)) as slide:
        assert len(slide.scenes[0].levels) == 1
        assert slide.findings == ("a reduced resolution has 3 bands instead of 4: left out",)


def test_a_missing_resolution_is_not_invented(tmp_path: Path) -> None:
    with open_slide(write_qptiff(tmp_path, microns=None, levels=(1,))) as slide:
        assert slide.scenes[0].levels[0].pixel_spacing_mm is None


def test_a_file_without_full_resolution_is_refused(tmp_path: Path) -> None:
    path = write_qptiff(tmp_path, levels=(1,))
    path.write_bytes(path.read_bytes().replace(b">FullResolution<", b">FoolResolution<"))
    with pytest.raises(DamagedSlide, match=r"^no page is of the type FullResolution$"):
        open_slide(path)


def test_a_description_that_is_no_xml_is_refused(tmp_path: Path) -> None:
    path = write_qptiff(tmp_path, levels=(1,))
    path.write_bytes(path.read_bytes().replace(b"</Objective>", b"</Objectiv!>", 1))
    with pytest.raises(DamagedSlide, match=r"^the description of page 0 is not well-formed XML$"):
        open_slide(path)


def test_what_is_written_decodes_to_what_was_scanned(tmp_path: Path) -> None:
    path = write_qptiff(tmp_path, dtype="uint16", rows=600, columns=700, levels=(1, 2), bands=2)
    (done,) = convert([path], tmp_path / "out", ConvertOptions(verify=True))
    file = next(file for file in done.files if file.name == "level-0.dcm")
    for number in range(2):
        assert np.array_equal(written_values(file, number), band(number, 600, 700, "uint16"))
    dataset = pydicom.dcmread(file, stop_before_pixels=True)
    described = [item.OpticalPathDescription for item in dataset.OpticalPathSequence]
    assert all(text.startswith(name) for text, (name, _, _) in zip(described, BANDS[:2], strict=True))
    assert {"label.dcm", "overview.dcm", "overview-2.dcm"} <= {one.name for one in done.files}
    # the blended thumbnail of grey channels is an overview: viewers refuse it in a grey pyramid


@pytest.mark.parametrize("name", SAMPLES)
def test_samples_become_dicom_and_pass_the_proof(tmp_path: Path, name: str) -> None:
    (done,) = convert([require_data(name)], tmp_path / "out", ConvertOptions(verify=True))
    assert "level-0.dcm" in {file.name for file in done.files}
