# SPDX-License-Identifier: Apache-2.0
"""The Ventana BIF reader: areas as scenes, tiles copied where they abut, stitched where they
overlap."""

from datetime import datetime
from pathlib import Path

import numpy as np
import openslide
import pytest
import tifffile
from numpy.typing import NDArray

from converters.errors import DamagedSlide, UnsupportedPixels
from converters.readers.ventana_bif import VentanaBifReader
from converters.registry import open_slide
from converters.slide import PixelTiles, Role, TileMap
from tests.support.level_pixels import level_pixels, tile_bytes
from tests.support.require import require_data
from tests.support.slides.ventana_bif import Area, stored_planes, write_ventana_bif

SAMPLE = "slides/synthetic/ventana_dp200.bif"
TILE = 256
SEAMS = Area(overlap_x=21, overlap_y=10)
UNEVEN = Area(overlap_x=(0, 24, 7), overlap_y=(6, 19))
APART = (
    Area((2, 2), (0, 0), position=(9000, 2000)),
    Area((3, 2), (2, 4), overlap_x=30, position=(3000, 500), seed=51),
    Area((1, 1), (0, 2), scanned=False),
)


def assert_shows(pixels: NDArray[np.uint8], area: Area, plane: int = 0) -> None:
    """A shift by a pixel, or a tile in the wrong place, is beyond JPEG's own difference."""
    difference = np.abs(pixels - area.pixels(TILE, plane).astype(int))
    assert difference.mean() < 1
    assert difference.max() < 32


def peer_pixels(path: Path, rows: int, columns: int) -> NDArray[np.uint8]:
    with openslide.OpenSlide(path) as peer:
        return np.asarray(peer.read_region((0, 0), 0, (columns, rows)).convert("RGB"), dtype=np.uint8)


def test_the_sample_says_all_it_says() -> None:
    path = require_data(SAMPLE)
    with open_slide(path) as slide:
        assert slide.format == VentanaBifReader.format
        (scene,) = slide.scenes
        assert [(level.rows, level.columns, level.downsample) for level in scene.levels] == [
            (2048, 2048, 1.0),
            (1024, 1024, 2.0),
            (512, 512, 4.0),
        ]
        assert [level.pixel_spacing_mm for level in scene.levels] == [
            pytest.approx((0.000465 * factor,) * 2) for factor in (1, 2, 4)
        ]
        assert scene.optical_paths[0].objective_power == 20
        assert {level.absent_colour for level in scene.levels} == {(235, 235, 235)}
        assert [(image.role, image.rows, image.columns) for image in slide.associated] == [
            (Role.OVERVIEW, 431, 1280),
            (Role.THUMBNAIL, 256, 256),
        ]
        scan = slide.scan
        assert (scan.manufacturer, scan.model_name) == ("Ventana Medical Systems", "VENTANA DP 200")
        assert (scan.device_serial_number, scan.barcode) == ("2000515", "S19-00042")
        assert scan.software_versions == ("1.1.0.15854",)
        assert scan.acquired is None
        pixels = level_pixels(slide, scene.levels[0])
    assert np.abs(pixels.astype(int) - peer_pixels(path, 2048, 2048)).max() <= 2


def test_tiles_that_abut_are_the_ones_of_the_file_byte_by_byte(tmp_path: Path) -> None:
    """They are stored row by row; only joints number them along the stage's way."""
    path = write_ventana_bif(tmp_path)
    with open_slide(path) as slide, tifffile.TiffFile(path) as tiff:
        data = path.read_bytes()
        (scene,) = slide.scenes
        assert len(scene.levels) == 3
        for level, page in zip(scene.levels, tiff.pages[2:], strict=True):
            ranges = zip(page.dataoffsets, page.databytecounts, strict=True)
            assert [tile_bytes(slide, level, index) for index in range(len(level.tiles))] == [
                data[at : at + size] for at, size in ranges
            ]
        pixels = level_pixels(slide, scene.levels[0])
    assert np.array_equal(pixels, peer_pixels(path, *pixels.shape[:2]))


@pytest.mark.parametrize("legacy", [False, True])
def test_overlapping_tiles_are_stitched_as_openslide_does(tmp_path: Path, legacy: bool) -> None:
    path = write_ventana_bif(tmp_path, areas=(SEAMS,), legacy=legacy)
    with open_slide(path) as slide:
        (level,) = slide.scenes[0].levels
        assert isinstance(level.tiles, PixelTiles)
        assert (level.tiles.why, level.tiles.lossy_method) == ("tiles overlap", "ISO_10918_1")
        pixels = level_pixels(slide, level)
    assert pixels.shape == (3 * TILE - 2 * 10, 4 * TILE - 3 * 21, 3)
    assert np.array_equal(pixels, peer_pixels(path, *pixels.shape[:2]))


@pytest.mark.parametrize("direction", [("RIGHT", "UP"), ("LEFT", "UP"), ("LEFT", "DOWN")])
def test_gaps_of_different_overlap_are_stitched_each_by_its_own(
    tmp_path: Path, direction: tuple[str, str]
) -> None:
    """OpenSlide takes a mean for all, and refuses LEFT, which a DP 200 writes."""
    with open_slide(write_ventana_bif(tmp_path, areas=(UNEVEN,), direction=direction)) as slide:
        (level,) = slide.scenes[0].levels
        truth = UNEVEN.pixels(TILE)
        assert (level.rows, level.columns) == truth.shape[:2] == (3 * TILE - 25, 4 * TILE - 31)
        assert_shows(level_pixels(slide, level), UNEVEN)


def test_joints_of_little_confidence_do_not_move_tiles(tmp_path: Path) -> None:
    with open_slide(write_ventana_bif(tmp_path, areas=(SEAMS,), doubtful=True)) as slide:
        assert slide.scenes[0].levels[0].columns == 4 * TILE - 3 * 21


def test_where_no_joint_is_certain_the_doubtful_ones_are_weighed(tmp_path: Path) -> None:
    with open_slide(write_ventana_bif(tmp_path, areas=(SEAMS,), confidence=60)) as slide:
        assert slide.scenes[0].levels[0].columns == 4 * TILE - 3 * 21


def test_coarser_levels_of_unstitched_tiles_are_left_to_be_computed(tmp_path: Path) -> None:
    with open_slide(write_ventana_bif(tmp_path, areas=(SEAMS,))) as slide:
        assert len(slide.scenes[0].levels) == 1
        assert any("coarser levels hold unstitched tiles" in finding for finding in slide.findings)


def test_every_area_scanned_is_a_scene_in_its_place(tmp_path: Path) -> None:
    """The page packs areas to whole tiles; Pos-X and Pos-Y say where they lie."""
    path = write_ventana_bif(tmp_path, areas=APART)
    with open_slide(path) as slide:
        assert [scene.label for scene in slide.scenes] == ["AOI 0", "AOI 1"]
        first, second = slide.scenes
        assert [(level.rows, level.columns) for level in first.levels] == [(512, 512), (256, 256), (128, 128)]
        assert [(level.rows, level.columns) for level in second.levels] == [(768, 512 - 30)]
        for scene, area in zip(slide.scenes, APART[:2], strict=True):
            assert_shows(level_pixels(slide, scene.levels[0]), area)
        assert first.origin_mm == pytest.approx((2000 * 0.00025, (9000 + 512) * 0.00025))
        assert second.origin_mm == pytest.approx((500 * 0.00025, (3000 + 768) * 0.00025))


def test_a_level_that_no_tile_border_cuts_at_an_area_is_left_to_be_computed(tmp_path: Path) -> None:
    area = Area((2, 2), (2, 1))
    path = write_ventana_bif(tmp_path, areas=(Area((2, 1)), area))
    with open_slide(path) as slide:
        assert [len(scene.levels) for scene in slide.scenes] == [3, 1]
        assert_shows(level_pixels(slide, slide.scenes[1].levels[0]), area)


def test_tiles_beyond_the_area_are_cut_off(tmp_path: Path) -> None:
    """A DP 200's page is padded by a column that nobody scanned."""
    with open_slide(write_ventana_bif(tmp_path, grid=(4, 6))) as slide:
        assert [(level.rows, level.columns) for level in slide.scenes[0].levels] == [
            (768, 1024),
            (384, 512),
            (192, 256),
        ]
        assert_shows(level_pixels(slide, slide.scenes[0].levels[0]), Area())


@pytest.mark.parametrize("area", [Area(), SEAMS])
def test_tiles_never_scanned_are_the_scanners_white(tmp_path: Path, area: Area) -> None:
    with open_slide(write_ventana_bif(tmp_path, areas=(area,), missing=(5,))) as slide:
        level = slide.scenes[0].levels[0]
        pixels = level_pixels(slide, level)
        assert (pixels[300:460, 300:430] == 235).all()
        assert (pixels[:200, :200].reshape(-1, 3).min(axis=0) < 200).all()
        assert level.tiles.absent.sum() == (1 if isinstance(level.tiles, TileMap) else 0)


def test_a_stitched_tile_is_absent_where_all_below_it_were_never_scanned(tmp_path: Path) -> None:
    area = Area((5, 5), overlap_x=4)
    missing = [row * 5 + column for row in range(3) for column in range(3)]
    with open_slide(write_ventana_bif(tmp_path, areas=(area,), missing=missing)) as slide:
        assert np.flatnonzero(slide.scenes[0].levels[0].tiles.absent).tolist() == [0]


@pytest.mark.parametrize("area", [Area((2, 3)), Area((2, 3), overlap_x=24)])
@pytest.mark.parametrize("planes", [3, 4])
def test_focal_planes_are_put_in_order_of_height(tmp_path: Path, area: Area, planes: int) -> None:
    """Stored are the nominal plane, nearer ones, farther ones."""
    path = write_ventana_bif(tmp_path, areas=(area,), planes=planes)
    assert stored_planes(planes)[0] == 1
    with open_slide(path) as slide:
        (scene,) = slide.scenes
        assert tuple(scene.focal_planes_um) == tuple(1.5 * plane for plane in range(planes))
        for level in scene.levels:
            assert level.focal_planes == planes
            assert len(level.tiles) == level.number_of_frames
        for plane in range(planes):
            assert_shows(level_pixels(slide, scene.levels[0], plane=plane), area, plane)


def test_a_tiff_without_stitching_information_is_one_region(tmp_path: Path) -> None:
    path = write_ventana_bif(tmp_path, encode_info=False, legacy=True)
    with open_slide(path) as slide:
        (scene,) = slide.scenes
        assert [(level.rows, level.columns) for level in scene.levels] == [
            (768, 1024),
            (384, 512),
            (192, 256),
        ]
        assert scene.origin_mm is None
        pixels = level_pixels(slide, scene.levels[0])
    assert np.abs(pixels.astype(int) - peer_pixels(path, 768, 1024)).mean() < 2


def test_an_old_scanner_says_less(tmp_path: Path) -> None:
    with open_slide(write_ventana_bif(tmp_path, legacy=True)) as slide:
        scan = slide.scan
        assert (scan.model_name, scan.device_serial_number, scan.barcode) == ("iScan", "BI10N0306", "")
        assert scan.acquired == datetime(2012, 10, 29, 21, 12, 59)
        assert slide.scenes[0].levels[0].absent_colour is None
        assert slide.scenes[0].origin_mm is None
        assert [image.role for image in slide.associated] == [Role.OVERVIEW, Role.THUMBNAIL]


def test_the_label_is_cut_from_the_photograph_where_the_file_says(tmp_path: Path) -> None:
    with open_slide(write_ventana_bif(tmp_path, label_boundary=130)) as slide:
        overview, label = (slide.associated_image(role) for role in (Role.OVERVIEW, Role.LABEL))
        assert overview is not None
        assert label is not None
        assert (label.rows, label.columns, label.lossy_method) == (130, 140, "")
        assert np.array_equal(label.read(), overview.read()[:130])


def test_without_a_boundary_the_label_stays_in_the_photograph(tmp_path: Path) -> None:
    with open_slide(write_ventana_bif(tmp_path)) as slide:
        assert [image.role for image in slide.associated] == [Role.OVERVIEW]
        assert any("label is part of the overview" in finding for finding in slide.findings)
        assert any("probability image" in finding for finding in slide.findings)


def test_a_slide_without_photograph_of_the_glass_is_read(tmp_path: Path) -> None:
    """Whatever its name: the reader of generic TIFFs leaves it."""
    path = write_ventana_bif(tmp_path, label=False).rename(tmp_path / "slide.tif")
    with open_slide(path) as slide:
        assert not slide.associated
        assert slide.scan.device_serial_number == "2000515"


def test_origins_under_other_names_belong_to_areas_in_their_order(tmp_path: Path) -> None:
    path = write_ventana_bif(tmp_path, areas=APART)
    data = path.read_bytes()
    path.write_bytes(data.replace(b"<AOI0 ", b"<AREA ").replace(b"<AOI1 ", b"<ARE1 "))
    assert path.read_bytes() != data
    with open_slide(path) as slide:
        for scene, area in zip(slide.scenes, APART[:2], strict=True):
            assert_shows(level_pixels(slide, scene.levels[0]), area)


def test_an_older_version_of_the_stitching_information_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedPixels, match="version that is not read"):
        open_slide(write_ventana_bif(tmp_path, version=1))


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('Tile1="9"', 'Tile1="0"', "names a tile that its area lacks"),
        ('Tile1="9"', 'Tile1="3"', "not between neighbouring tiles"),
        ('OverlapX="0"', 'OverlapX="z"', "impossible numbers"),
        ('NumRows="3"', 'NumRows="9"', "more tiles than its page"),
        ('Width="256"', 'Width="255"', "not as large as those of its page"),
        ('OriginX="0"', 'OriginX="9"', "does not begin at a tile"),
        ('AOIScanned="1" AOIIndex', 'AOIScanned="0" AOIIndex', "no scanned area"),
        ("level=1 mag=20", "level=2 mag=20", "claim the same level"),
        ("level=0 mag=40", "level-0 mag=40", "some levels are missing"),
        ("<EncodeInfo", "<Encode nfo", "not well-formed"),
    ],
)
def test_stitching_information_that_cannot_be_is_refused(
    tmp_path: Path, old: str, new: str, says: str
) -> None:
    path = write_ventana_bif(tmp_path)
    data = path.read_bytes()
    assert old.encode() in data
    path.write_bytes(data.replace(old.encode(), new.encode()))
    with pytest.raises(DamagedSlide, match=says):
        open_slide(path)


def test_a_damaged_tile_below_a_stitched_one_is_told(tmp_path: Path) -> None:
    path = write_ventana_bif(tmp_path, areas=(SEAMS,))
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[2]
        at, size = page.dataoffsets[0], page.databytecounts[0]
    data = bytearray(path.read_bytes())
    data[at : at + size] = bytes(size)
    path.write_bytes(data)
    with open_slide(path) as slide:
        tiles = slide.scenes[0].levels[0].tiles
        assert isinstance(tiles, PixelTiles)
        with pytest.raises(DamagedSlide, match="cannot be decoded"):
            tiles.read(0)
