# SPDX-License-Identifier: Apache-2.0
"""The Leica SCN reader: regions, channels and planes, each from the pages that the XML names."""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import openslide
import pytest
import tifffile

from converters.errors import DamagedSlide, MissingFocalPlaneSpacing
from converters.readers.leica_scn import LeicaScnReader
from converters.registry import open_slide
from converters.slide import Illumination, PixelType, Role, TileMap
from converters.writer.metadata import Metadata
from tests.converters.test_born import header
from tests.support.converted import born
from tests.support.level_pixels import level_pixels, tile_bytes
from tests.support.require import require_data
from tests.support.slides.leica_scn import COLLECTION_NM, Region, write_leica_scn

SAMPLE = "slides/synthetic/leica_scn400.scn"
TWO = (Region(), Region(700, 600, (40_000_000, 9_000_000), 40, 250, created="2010-11-18T10:31:02Z", seed=31))
STACK = (Region(500, 700, channels=3, planes=2, levels=(1, 4)),)


def edit(path: Path, old: str, new: str) -> Path:
    data = path.read_bytes()
    assert old.encode() in data
    assert len(old) == len(new)
    path.write_bytes(data.replace(old.encode(), new.encode()))
    return path


def test_the_sample_says_all_it_says() -> None:
    with open_slide(require_data(SAMPLE)) as slide:
        assert slide.format == LeicaScnReader.format
        (scene,) = slide.scenes
        assert [(level.rows, level.columns, level.downsample) for level in scene.levels] == [
            (2048, 2048, 1.0),
            (512, 512, 4.0),
        ]
        assert scene.levels[0].pixel_spacing_mm == pytest.approx((0.0005, 0.0005))
        (path,) = scene.optical_paths
        assert (path.objective_power, path.numerical_aperture) == (20, 0.4)
        assert path.illumination is Illumination.BRIGHTFIELD
        assert [(image.role, image.rows, image.columns) for image in slide.associated] == [
            (Role.OVERVIEW, 1280, 431)
        ]
        scan = slide.scan
        assert (scan.manufacturer, scan.model_name, scan.barcode) == ("Leica", "Leica SCN400", "S11-00042")
        assert scan.software_versions == ("1.4.0.9691 2010/11/10 10:51:31",)
        assert scan.acquired == datetime(2010, 11, 18, 10, 22, 40, 240000, tzinfo=UTC)
        assert scan.properties["image[1].view.offsetx"] == "8000000"


def test_a_slide_is_not_refused_for_the_kind_of_its_macro_photograph(tmp_path: Path) -> None:
    path = write_leica_scn(tmp_path)
    with tifffile.TiffFile(path) as tiff, open_slide(path) as slide:
        shape = next(image for image in slide.associated if image.role is Role.OVERVIEW)
        page = next(page for page in tiff.pages if page.shape[:2] == (shape.rows, shape.columns))
        at = page.tags["Compression"].valueoffset
    with path.open("r+b") as file:
        file.seek(at)
        file.write((30583).to_bytes(2, "little"))  # a compression that nobody has
    with open_slide(path) as slide:
        assert slide.associated == ()
        assert any(text.startswith("the overview image is left out") for text in slide.findings)
        assert level_pixels(slide, slide.scenes[0].levels[0]).any()


def test_a_region_has_the_pixels_that_openslide_finds_at_its_place(tmp_path: Path) -> None:
    path = write_leica_scn(tmp_path)
    with open_slide(path) as slide, openslide.OpenSlide(path) as peer:
        corner = tuple(int(peer.properties[f"openslide.bounds-{name}"]) for name in ("x", "y"))
        for level in slide.scenes[0].levels:
            read = peer.read_region(corner, level.index, (level.columns, level.rows)).convert("RGB")
            assert np.abs(np.asarray(read, int) - level_pixels(slide, level)).max() <= 2


def test_every_region_is_a_scene_with_its_own_pyramid_objective_and_time(tmp_path: Path) -> None:
    """OpenSlide refuses the slide: its regions have different objectives."""
    path = write_leica_scn(tmp_path, regions=TWO)
    with open_slide(path) as slide:
        assert [scene.label for scene in slide.scenes] == ["image_0", "image_1"]
        assert [[(level.rows, level.columns) for level in scene.levels] for scene in slide.scenes] == [
            [(900, 1100), (225, 275)],
            [(700, 600), (175, 150)],
        ]
        assert [scene.levels[1].pixel_spacing_mm for scene in slide.scenes] == [
            pytest.approx((0.002, 0.002)),
            pytest.approx((0.001, 0.001)),
        ]
        paths = [scene.optical_paths[0] for scene in slide.scenes]
        assert [(path.identifier, path.objective_power) for path in paths] == [("1", 20), ("2", 40)]
        assert slide.scan.acquired == datetime(2010, 11, 18, 10, 22, 40, 240000, tzinfo=UTC)
        assert [scene.acquired for scene in slide.scenes] == [
            None,
            datetime(2010, 11, 18, 10, 31, 2, tzinfo=UTC),
        ]
        for scene, region in zip(slide.scenes, TWO, strict=True):
            difference = level_pixels(slide, scene.levels[0]) - region.pixels(0, 0).astype(int)
            assert np.abs(difference).mean() < 2


def test_regions_scanned_alike_share_an_optical_path(tmp_path: Path) -> None:
    alike = (Region(), Region(600, 500, (40_000_000, 9_000_000), seed=31))
    with open_slide(write_leica_scn(tmp_path, regions=alike)) as slide:
        first, second = (scene.optical_paths for scene in slide.scenes)
        assert first == second
        assert [path.identifier for path in first] == ["1"]


def test_regions_lie_on_the_glass_as_their_views_say(tmp_path: Path) -> None:
    """The first pixel is as far from the collection's lower right corner as its view
    says; to the right Y decreases, downwards X does."""
    with open_slide(write_leica_scn(tmp_path, regions=TWO)) as slide:
        first, second = (scene.origin_mm for scene in slide.scenes)
        assert first == pytest.approx((COLLECTION_NM[0] / 1e6 - 20, COLLECTION_NM[1] / 1e6 - 8))
        assert second == pytest.approx((COLLECTION_NM[0] / 1e6 - 40, COLLECTION_NM[1] / 1e6 - 9))


def test_channels_and_planes_are_copied_in_the_order_of_frames(tmp_path: Path) -> None:
    path = write_leica_scn(tmp_path, regions=STACK)
    with open_slide(path) as slide, tifffile.TiffFile(path) as tiff:
        (scene,) = slide.scenes
        level = scene.levels[0]
        assert (level.optical_paths, level.focal_planes, level.pixel_type) == (3, 2, PixelType(1, 8, 8))
        assert isinstance(level.tiles, TileMap)
        assert len(level.tiles) == level.number_of_frames == 12
        data = path.read_bytes()
        stored = []
        for page in tiff.pages[1:7]:
            ranges = zip(page.dataoffsets, page.databytecounts, strict=True)
            stored += [data[at : at + size] for at, size in ranges]
        assert [tile_bytes(slide, level, index) for index in range(12)] == stored
        for channel in range(3):
            for plane in range(2):
                difference = level_pixels(slide, level, channel, plane)[..., 0] - STACK[0].pixels(
                    channel, plane
                ).astype(int)
                assert np.abs(difference).mean() < 2


def test_channels_have_their_names_filters_and_exposures(tmp_path: Path) -> None:
    with open_slide(write_leica_scn(tmp_path, regions=STACK)) as slide:
        paths = slide.scenes[0].optical_paths
        assert [path.identifier for path in paths] == ["1", "2", "3"]
        assert [path.description for path in paths] == ["405|Empty", "L5|Empty", "TX2|Empty"]
        assert [path.excitation_nm for path in paths] == [405, 480, 560]
        assert [path.emission_nm for path in paths] == [470, 527, 645]
        assert [path.exposure_ms for path in paths] == [105, 146, 78.5]
        assert [path.display_rgb for path in paths] == [(0, 0, 255), (0, 255, 0), (255, 0, 0)]
        assert {path.illumination for path in paths} == {Illumination.EPIFLUORESCENCE}
        assert tuple(slide.scenes[0].focal_planes_um) == (0, 1.5)


def test_of_two_macro_photographs_the_one_in_bright_field_is_the_overview(tmp_path: Path) -> None:
    path = write_leica_scn(tmp_path, regions=STACK, fluorescent_macro=True)
    with open_slide(path) as slide:
        (overview,) = slide.associated
        assert overview.read().shape == (320, 110, 3)
        assert any("several macro photographs" in finding for finding in slide.findings)


def test_a_label_of_its_own_page_is_read(tmp_path: Path) -> None:
    with open_slide(write_leica_scn(tmp_path, label=True)) as slide:
        label = slide.associated_image(Role.LABEL)
        assert label is not None
        assert label.read().shape == (120, 100, 3)


def test_a_slide_without_macro_photograph_is_read(tmp_path: Path) -> None:
    with open_slide(write_leica_scn(tmp_path, macro=False)) as slide:
        assert not slide.associated
        assert len(slide.scenes) == 1


def test_a_barcode_of_the_older_schema_is_taken_as_it_stands(tmp_path: Path) -> None:
    path = write_leica_scn(tmp_path, barcode="UzE2", old_schema=True)
    with open_slide(path) as slide:
        assert slide.scan.barcode == "UzE2"


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('ifd="2"', 'ifd="9"', "names a page that the file lacks"),
        ('ifd="2"', 'ifd="x"', "impossible numbers"),
        ('ifd="2"', 'ifd="0"', "not as large as the description says"),
        ('sizeX="550000"', 'sizeX="-50000"', "missing or impossible"),
        ('offsetX="8000000"', 'offsetX="80000z0"', "missing or impossible"),
        ("<view", "<wiew", "no pixels or no view"),
        ("<collection", "<kollection", "not well-formed"),
    ],
)
def test_a_description_that_cannot_be_is_refused(tmp_path: Path, old: str, new: str, says: str) -> None:
    path = edit(write_leica_scn(tmp_path), old, new)
    with pytest.raises(DamagedSlide, match=says):
        open_slide(path)


def test_the_distance_of_planes_is_asked_for_where_it_is_not_stated(tmp_path: Path) -> None:
    path = edit(write_leica_scn(tmp_path, regions=STACK), 'spacingZ="1500"', 'spacingZ="0000"')
    with pytest.raises(MissingFocalPlaneSpacing):
        born(path)
    made = header(born(path, Metadata(focal_plane_spacing_um=1.5))[0])
    assert made.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].SpacingBetweenSlices == 0.0015


def test_a_coarser_level_without_all_planes_is_left_out(tmp_path: Path) -> None:
    path = write_leica_scn(tmp_path, regions=STACK)
    edit(path, 'r="1" c="2" z="1"', 'r="1" c="2" z="0"')
    with open_slide(path) as slide:
        assert len(slide.scenes[0].levels) == 1
        assert any("lacks channels or planes" in finding for finding in slide.findings)
