# SPDX-License-Identifier: Apache-2.0
"""The VMS and VMU readers: matrices of JPEGs as one level, uncompressed NGR, the index."""

import io
from pathlib import Path

import numpy as np
import openslide
import pytest
from numpy.typing import NDArray
from PIL import Image

from converters.errors import DamagedSlide, MissingCompanion, UnsupportedPixels
from converters.probe import Probe
from converters.readers.hamamatsu_vms import HamamatsuVmsReader
from converters.registry import open_slide
from converters.slide import GatherMap, Level, PixelTiles, Role
from tests.support.level_pixels import level_pixels, tile_bytes
from tests.support.make_slide import picture
from tests.support.require import require_data
from tests.support.slides.restart_jpeg import encode_jpeg, intervals, starts
from tests.support.slides.vms import write_vms, write_vmu

SAMPLE = "slides/synthetic/hamamatsu_vms/SYN-VMS-40x - 2010-01-12 13.24.05.vms"
REAL_INDEX = "slides/fragments/CMU-1-40x.vms"


def peer_pixels(path: Path, level: Level) -> NDArray[np.uint8]:
    with openslide.OpenSlide(path) as peer:
        number = peer.level_dimensions.index((level.columns, level.rows))
        return np.asarray(
            peer.read_region((0, 0), number, (level.columns, level.rows)).convert("RGB"), np.uint8
        )


def test_the_sample_has_the_pixels_that_openslide_reads() -> None:
    path = require_data(SAMPLE)
    with open_slide(path) as slide:
        assert slide.format == HamamatsuVmsReader.format
        levels = slide.scenes[0].levels
        assert [(level.rows, level.columns, level.downsample) for level in levels] == [
            (2048, 2048, 1.0),
            (256, 256, 8.0),
        ]
        for level in levels:
            assert isinstance(level.tiles, GatherMap)
            assert np.array_equal(peer_pixels(path, level), level_pixels(slide, level))


@pytest.mark.parametrize("subsampling", ["444", "422", "420"])
def test_tiles_are_the_intervals_of_each_file_bit_by_bit(tmp_path: Path, subsampling: str) -> None:
    path = write_vms(tmp_path, subsampling=subsampling)
    strip = 16 if subsampling == "420" else 8
    with open_slide(path) as slide:
        level = slide.scenes[0].levels[0]
        assert (level.rows, level.columns) == (816, 1536)
        assert (level.tile_rows, level.tile_columns) == (512, 512)
        for index in range(6):
            row, column = divmod(index, 3)
            place = (column // 2, row)
            name = "slide.jpg" if place == (0, 0) else f"slide({place[0]},{place[1]}).jpg"
            across = (2, 1)[place[0]]
            theirs = intervals((tmp_path / name).read_bytes())[column % 2 :: across]
            tile = tile_bytes(slide, level, index)
            assert intervals(tile)[: len(theirs)] == theirs
            assert len(theirs) == (512, 304)[row] // strip
            assert [tile[at - 1] & 7 for at in starts(tile)[1:]] == [n % 8 for n in range(512 // strip - 1)]


def test_pixels_are_those_of_openslide_exactly(tmp_path: Path) -> None:
    path = write_vms(tmp_path)
    with open_slide(path) as slide:
        for level in slide.scenes[0].levels:
            rows = level.rows // 8 * 8  # OpenSlide leaves a strip out that is not whole
            assert np.array_equal(peer_pixels(path, level)[:rows], level_pixels(slide, level)[:rows])
            assert level.reference is not None
            for index in range(level.number_of_frames):
                tile = np.asarray(Image.open(io.BytesIO(tile_bytes(slide, level, index))))
                assert np.array_equal(level.reference(index), tile)


def test_tiles_are_as_high_as_files_divide(tmp_path: Path) -> None:
    """384 rows are 48 strips: no tile may reach into the next file, so none has 64 strips."""
    path = write_vms(tmp_path, heights=(768, 384))
    with open_slide(path) as slide:
        level = slide.scenes[0].levels[0]
        assert (level.tile_rows, level.tiles_down) == (384, 3)
        assert np.array_equal(peer_pixels(path, level), level_pixels(slide, level))


@pytest.mark.parametrize("heights", [(500, 300), (536, 304)])
def test_files_that_end_within_a_tile_are_decoded(tmp_path: Path, heights: tuple[int, int]) -> None:
    """500 rows end within a strip; 67 strips have no divisor, and tiles of one are too low."""
    path = write_vms(tmp_path, heights=heights, subsampling="444")
    with open_slide(path) as slide:
        level = slide.scenes[0].levels[0]
        assert isinstance(level.tiles, PixelTiles)
        assert "files" in level.tiles.why
        assert (level.tile_rows, level.tile_columns) == (512, 512)
        rows = [
            np.concatenate([np.asarray(Image.open(tmp_path / name)) for name in names], axis=1)
            for names in (("slide.jpg", "slide(1,0).jpg"), ("slide(0,1).jpg", "slide(1,1).jpg"))
        ]
        assert np.array_equal(level_pixels(slide, level), np.concatenate(rows))


def test_layers_are_focal_planes_where_their_distance_is_stated(tmp_path: Path) -> None:
    path = write_vms(tmp_path, layers=2, layer_spacing_nm=1500)
    with open_slide(path) as slide:
        scene = slide.scenes[0]
        assert scene.focal_planes_um == (0.0, 1.5)
        assert len(scene.levels) == 1  # the map has one plane alone
        for plane in (0, 1):
            mine = level_pixels(slide, scene.levels[0], plane=plane).astype(int)
            assert np.abs(mine - picture(816, 1536, 7 + plane)).mean() < 2
    with open_slide(write_vms(tmp_path, layers=2)) as slide:
        assert slide.scenes[0].focal_planes_um == ()
        assert slide.scenes[0].levels[0].focal_planes == 2


def test_what_the_index_says(tmp_path: Path) -> None:
    with open_slide(write_vms(tmp_path)) as slide:
        scene = slide.scenes[0]
        assert scene.optical_paths[0].objective_power == 40.0
        assert scene.levels[0].pixel_spacing_mm == pytest.approx((0.000228, 0.000228))
        assert scene.levels[1].pixel_spacing_mm == pytest.approx((0.000912, 0.000912))
        assert scene.origin_mm == pytest.approx(
            (13 + 2.34 + 408 * 0.000228, 38 - 4.876667 + 768 * 0.000228), abs=1e-6
        )
        assert slide.scan.properties["reference"] == "SYN-VMS"
        macro = slide.associated_image(Role.OVERVIEW)
        assert macro is not None
        assert np.array_equal(macro.read(), np.asarray(Image.open(tmp_path / "slide_macro.jpg")))


def test_uncompressed_colours_are_reduced_to_eight_bits(tmp_path: Path) -> None:
    path = write_vmu(tmp_path)
    with open_slide(path) as slide:
        assert any("12 bits" in text for text in slide.findings)
        assert (slide.scan.model_name, slide.scan.device_serial_number) == ("C9600-02", "000042")
        for level in slide.scenes[0].levels:
            assert isinstance(level.tiles, PixelTiles)
            assert not level.tiles.lossy_method
            assert np.array_equal(peer_pixels(path, level), level_pixels(slide, level))
        assert np.array_equal(level_pixels(slide, slide.scenes[0].levels[0]), picture(700, 900))


def test_companions_are_all_files_that_the_index_names(tmp_path: Path) -> None:
    path = write_vms(tmp_path)
    names = ["slide.jpg", "slide(1,0).jpg", "slide(0,1).jpg", "slide(1,1).jpg", "slide_map2.jpg"]
    assert HamamatsuVmsReader.companions(Probe(path)) == (*names, "slide_macro.jpg", "slide.opt")
    (tmp_path / "slide.opt").unlink()  # a hint, of which nothing depends
    assert HamamatsuVmsReader.companions(Probe(path)) == (*names, "slide_macro.jpg")


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("slide(1,0).jpg", "image file of column 1, row 0"),
        ("slide(1,0,1).jpg", "image file of column 0, row 1, layer 1"),
        ("slide_map2.jpg", "map image"),
        ("slide_macro.jpg", "macro image"),
    ],
)
def test_a_missing_file_is_named_by_its_part(tmp_path: Path, name: str, what: str) -> None:
    path = write_vms(tmp_path, layers=2)
    (tmp_path / name).unlink()
    with pytest.raises(MissingCompanion) as caught:
        open_slide(path)
    assert caught.value.what == what


def test_a_real_index_without_its_images_is_refused(tmp_path: Path) -> None:
    text = require_data(REAL_INDEX).read_bytes()
    path = tmp_path / "CMU-1.vms"
    path.write_bytes(text)
    with pytest.raises(MissingCompanion, match=r"image file of column 0, row 0$"):
        open_slide(path)
    name = "CMU-1-40x - 2010-01-12 13.24.05"
    for place in ("", "(1,0)", "(0,1)"):
        (tmp_path / f"{name}{place}.jpg").touch()
    with pytest.raises(MissingCompanion, match=r"image file of column 1, row 1$"):
        open_slide(path)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b"NoJpegRows=2", b"NoJpegRows=0", "how many images"),
        (b"NoJpegRows=2", b"NoJpegRows=\xb2", "how many images"),
        (b"NoJpegColumns=2", b"NoJpegColumns=1", "outside of the matrix"),
        (b"NoJpegColumns=2", b"NoJpegColumns=3", "names no image file of column 2, row 0"),
        (b"ImageFile(1,0)=", b"ImageFile(0,0)=", "an image twice"),
        (b"ImageFile(1,0)=slide(1,0).jpg", b"ImageFile(1,0)=", "names no file"),
        (b"NoJpegColumns=2", b"NoJpegColumns=99999999999", "how many images"),
    ],
)
def test_an_index_that_contradicts_itself_is_refused(
    tmp_path: Path, old: bytes, new: bytes, message: str
) -> None:
    path = write_vms(tmp_path)
    text = path.read_bytes()
    assert old in text
    path.write_bytes(text.replace(old, new))
    with pytest.raises(DamagedSlide, match=message):
        open_slide(path)


def test_files_whose_edges_do_not_meet_are_refused(tmp_path: Path) -> None:
    path = write_vms(tmp_path)
    (tmp_path / "slide(1,1).jpg").write_bytes(encode_jpeg(picture(296, 512), interval_columns=512))
    with pytest.raises(DamagedSlide, match="not as large as their neighbours"):
        open_slide(path)


def test_an_ngr_is_checked_against_its_size_and_kind(tmp_path: Path) -> None:
    path = write_vmu(tmp_path)
    raw = tmp_path / "raw.ngr"
    data = raw.read_bytes()
    raw.write_bytes(data[:-1])
    with pytest.raises(DamagedSlide, match=r"^the image file of column 0, row 0 ends too early$"):
        open_slide(path)
    raw.write_bytes(data[:12] + (301).to_bytes(4, "little") + data[16:])  # no whole columns
    with pytest.raises(DamagedSlide, match="impossible size"):
        open_slide(path)
    raw.write_bytes(data)
    path.write_bytes(path.read_bytes().replace(b"BitsPerPixel=36", b"BitsPerPixel=48"))
    with pytest.raises(UnsupportedPixels):
        open_slide(path)
