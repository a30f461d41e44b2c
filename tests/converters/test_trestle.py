# SPDX-License-Identifier: Apache-2.0
"""The Trestle reader: tiles copied, or stitched as OpenSlide does where they overlap."""

from pathlib import Path

import numpy as np
import openslide
import pytest
import tifffile

from converters.convert import ConvertOptions, convert
from converters.errors import DamagedSlide, MissingPixelSpacing
from converters.readers.trestle import TrestleReader
from converters.registry import companions, open_slide
from converters.slide import PixelTiles, Role, TileMap
from tests.support.level_pixels import tile_bytes
from tests.support.level_values import level_values
from tests.support.require import require_data
from tests.support.slides.trestle import write_trestle

SAMPLE = "slides/synthetic/trestle.tif"
OVERLAPS = [(32, 16), (8, 0)]
STITCHED = "tiles overlap: stitched by the standard overlaps, those of single tiles are not read"


def test_the_sample_says_all_it_says() -> None:
    with open_slide(require_data(SAMPLE)) as slide:
        assert slide.format == TrestleReader.format
        (scene,) = slide.scenes
        assert [(level.rows, level.downsample) for level in scene.levels] == [(2048, 1), (1024, 2), (512, 4)]
        assert scene.optical_paths[0].objective_power == 20
        assert slide.scan.software_versions == ("MedScan",)
        assert slide.scan.properties["background color"] == "E6E6E6"
        assert [(image.role, image.rows, image.columns) for image in slide.associated] == [
            (Role.OVERVIEW, 431, 1280)
        ]
        assert [source.relative_name for source in slide.sources] == ["trestle.tif", "trestle.Full"]


def test_the_sample_does_not_state_its_pixel_size(tmp_path: Path) -> None:
    with pytest.raises(MissingPixelSpacing):
        convert([require_data(SAMPLE)], tmp_path / "out")


def test_the_resolution_is_micrometres_per_pixel(tmp_path: Path) -> None:
    with open_slide(write_trestle(tmp_path)) as slide:
        spacings = [level.pixel_spacing_mm for level in slide.scenes[0].levels]
        assert spacings == [pytest.approx((0.0004 * factor,) * 2) for factor in (1, 2, 4)]


def test_tiles_that_do_not_overlap_are_the_ones_of_the_file_byte_by_byte(tmp_path: Path) -> None:
    path = write_trestle(tmp_path)
    with open_slide(path) as slide, tifffile.TiffFile(path) as tiff:
        data = path.read_bytes()
        for level, page in zip(slide.scenes[0].levels, tiff.pages, strict=True):
            assert isinstance(level.tiles, TileMap)
            stored = [
                data[at : at + size] for at, size in zip(page.dataoffsets, page.databytecounts, strict=True)
            ]
            assert [tile_bytes(slide, level, index) for index in range(len(level.tiles))] == stored
        assert slide.findings == ()


def test_tiles_that_overlap_are_stitched_as_openslide_does(tmp_path: Path) -> None:
    """Where two tiles show one place differently, it tells which lies on top."""
    path = write_trestle(tmp_path, overlaps=OVERLAPS, grain=True)
    with open_slide(path) as slide, openslide.OpenSlide(path) as peer:
        levels = slide.scenes[0].levels
        assert [(level.columns, level.rows) for level in levels] == list(peer.level_dimensions)
        assert [type(level.tiles) for level in levels] == [PixelTiles, PixelTiles, TileMap]
        for level in levels:
            read = peer.read_region((0, 0), level.index, (level.columns, level.rows)).convert("RGB")
            assert np.array_equal(level_values(level), np.asarray(read))
        assert slide.findings == (STITCHED,)


def test_stitched_levels_have_the_size_and_scale_of_the_picture(tmp_path: Path) -> None:
    with open_slide(write_trestle(tmp_path, overlaps=OVERLAPS)) as slide:
        levels = slide.scenes[0].levels
        assert [(level.rows, level.columns) for level in levels] == [(1000, 1300), (500, 650), (250, 325)]
        assert [level.downsample for level in levels] == [1.0, 2.0, 4.0]
        assert isinstance(levels[0].tiles, PixelTiles)
        assert (levels[0].tiles.why, levels[0].tiles.lossy_method) == ("tiles overlap", "ISO_10918_1")


def test_the_macro_is_a_companion_that_may_be_absent(tmp_path: Path) -> None:
    path = write_trestle(tmp_path)
    assert companions(path) == ("slide.Full",)
    with open_slide(path) as slide:
        macro = slide.associated_image(Role.OVERVIEW)
        assert macro is not None
        assert macro.codestream == (tmp_path / "slide.Full").read_bytes()
    (tmp_path / "slide.Full").unlink()
    assert companions(path) == ()
    with open_slide(path) as slide:
        assert slide.associated == ()
        assert slide.findings == ("there is no .Full file with the macro beside the slide",)


def test_a_macro_that_is_no_picture_is_left_out_and_said(tmp_path: Path) -> None:
    path = write_trestle(tmp_path)
    (tmp_path / "slide.Full").write_bytes(b"no picture")
    with open_slide(path) as slide:
        assert len(slide.sources) == 1
        assert slide.findings == ("the overview image is left out: it is no picture that can be read",)


@pytest.mark.parametrize(
    ("overlaps", "message"),
    [
        ("256 0", "the overlap of page 0 is not less than its tiles"),
        ("x 8 8", "the overlaps of the tiles are no numbers"),
        ("-8 8 ", "the overlaps of the tiles are no numbers"),
    ],
)
def test_impossible_overlaps_are_refused(tmp_path: Path, overlaps: str, message: str) -> None:
    path = write_trestle(tmp_path)
    text = f"OverlapsXY= {overlaps}".ljust(len("OverlapsXY= 0 0 0 0 0 0"))
    path.write_bytes(path.read_bytes().replace(b"OverlapsXY= 0 0 0 0 0 0", text.encode()))
    with pytest.raises(DamagedSlide, match=f"^{message}$"):
        open_slide(path)


@pytest.mark.parametrize("overlaps", [(), OVERLAPS])
def test_a_whole_slide_becomes_dicom_and_passes_the_proof(
    tmp_path: Path, overlaps: list[tuple[int, int]]
) -> None:
    (done,) = convert(
        [write_trestle(tmp_path, overlaps=overlaps)], tmp_path / "out", ConvertOptions(verify=True)
    )
    assert {"level-0.dcm", "level-2.dcm", "overview.dcm"} <= {file.name for file in done.files}
