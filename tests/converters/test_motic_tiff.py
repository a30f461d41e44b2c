# SPDX-License-Identifier: Apache-2.0
"""The reader of Motic's SVS export: tiles copied, all levels found, what the description says."""

from pathlib import Path

import numpy as np
import pytest
import tifffile

from converters.convert import ConvertOptions, convert
from converters.readers.motic_tiff import MoticTiffReader
from converters.registry import open_slide
from converters.slide import Role, TileMap
from tests.support.level_pixels import level_pixels, tile_bytes
from tests.support.make_slide import picture
from tests.support.require import require_data
from tests.support.slides.motic_tiff import write_motic_tiff

SAMPLE = "slides/synthetic/motic_export.svs"


def test_the_sample_says_all_it_says() -> None:
    with open_slide(require_data(SAMPLE)) as slide:
        assert slide.format == MoticTiffReader.format
        (scene,) = slide.scenes
        assert [(level.rows, level.downsample) for level in scene.levels] == [(2048, 1), (1024, 2), (512, 4)]
        assert scene.levels[0].pixel_spacing_mm == (0.00025729, 0.00025729)
        assert scene.optical_paths[0].objective_power == 40
        assert (slide.scan.manufacturer, slide.scan.software_versions) == ("Motic", ("Motic V1.0.0",))
        assert [image.role for image in slide.associated] == [Role.THUMBNAIL]
        assert slide.findings == ()


def test_tiles_are_the_ones_of_the_file_byte_by_byte(tmp_path: Path) -> None:
    path = write_motic_tiff(tmp_path)
    with open_slide(path) as slide, tifffile.TiffFile(path) as tiff:
        data = path.read_bytes()
        pages = [page for page in tiff.pages if page.is_tiled]
        assert len(pages) == 3
        for level, page in zip(slide.scenes[0].levels, pages, strict=True):
            assert isinstance(level.tiles, TileMap)
            stored = [
                data[at : at + size] for at, size in zip(page.dataoffsets, page.databytecounts, strict=True)
            ]
            assert [tile_bytes(slide, level, index) for index in range(len(level.tiles))] == stored


def test_levels_show_the_picture(tmp_path: Path) -> None:
    with open_slide(write_motic_tiff(tmp_path, subsampling=(1, 1))) as slide:
        drawn = picture(1100, 1300, 41).astype(int)
        assert np.abs(level_pixels(slide, slide.scenes[0].levels[0]) - drawn).mean() < 2


def test_label_and_macro_are_told_by_the_second_line(tmp_path: Path) -> None:
    with open_slide(write_motic_tiff(tmp_path)) as slide:
        assert [image.role for image in slide.associated] == [Role.THUMBNAIL, Role.LABEL, Role.OVERVIEW]
        label = slide.associated_image(Role.LABEL)
        assert label is not None
        assert np.array_equal(label.read(), picture(120, 160, 42))


def test_the_thumbnail_in_jpeg_strips_decodes(tmp_path: Path) -> None:
    with open_slide(write_motic_tiff(tmp_path)) as slide, tifffile.TiffFile(tmp_path / "slide.svs") as tiff:
        thumbnail = slide.associated_image(Role.THUMBNAIL)
        assert thumbnail is not None
        assert np.array_equal(thumbnail.read(), tiff.pages[1].asarray())
        assert thumbnail.lossy_method == "ISO_10918_1"


@pytest.mark.parametrize(
    ("microns", "findings"), [("", ()), ("257.29", ("MPP cannot be a pixel size: not used",)), ("abc", ())]
)
def test_a_pixel_size_that_is_none_is_not_used(
    tmp_path: Path, microns: str, findings: tuple[str, ...]
) -> None:
    with open_slide(write_motic_tiff(tmp_path, microns=microns, power="")) as slide:
        assert slide.scenes[0].levels[0].pixel_spacing_mm is None
        assert slide.scenes[0].optical_paths[0].objective_power is None
        assert slide.findings == findings


def test_a_whole_slide_becomes_dicom_and_passes_the_proof(tmp_path: Path) -> None:
    (done,) = convert([write_motic_tiff(tmp_path)], tmp_path / "out", ConvertOptions(verify=True))
    assert {"level-0.dcm", "level-2.dcm", "label.dcm", "overview.dcm"} <= {file.name for file in done.files}
    assert done.verified_tiles == 9 + 4 + 1


def test_the_sample_becomes_dicom_and_passes_the_proof(tmp_path: Path) -> None:
    (done,) = convert([require_data(SAMPLE)], tmp_path / "out", ConvertOptions(verify=True))
    assert done.verified_tiles == 16 + 4 + 1
