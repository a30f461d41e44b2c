# SPDX-License-Identifier: Apache-2.0
"""The NDPI and NDPIS readers: restart intervals put together as tiles, nothing decoded."""

import io
import os
from datetime import datetime
from pathlib import Path

import imagecodecs
import numpy as np
import openslide
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from converters.errors import DamagedSlide, MissingCompanion, UnsupportedPixels
from converters.readers.hamamatsu_ndpi import HamamatsuNdpiReader, HamamatsuNdpisReader
from converters.readers.jpeg_image import JpegImage, JpegRegions, open_image
from converters.readers.jpeg_mosaic import Mosaic, mosaic_tiles
from converters.readers.ndpi_directory import read_directories
from converters.registry import open_slide
from converters.slide import GatherMap, Illumination, Level, PixelTiles, Role, Slide
from tests.support.level_pixels import level_pixels, tile_bytes
from tests.support.make_slide import picture, shrink
from tests.support.require import require_data
from tests.support.slides.ndpi import ASCII, JPEG_XR, write_ndpi, write_ndpis, write_wide_ndpi
from tests.support.slides.restart_jpeg import encode_jpeg, head_length, intervals, joined, starts

SAMPLE = "slides/synthetic/hamamatsu_nanozoomer.ndpi"
REAL_FRAME = "slides/fragments/opentile_ndpi_frame_2048x512.jpg"


def level_jpeg(path: Path, page: int) -> bytes:
    """The whole JPEG of a page, found by our own directories (checked against tifffile)."""
    with path.open("rb") as file:
        directory = read_directories(file.fileno(), path.stat().st_size)[page]
        offset, length = directory.integer(273), directory.integer(279)
        assert offset is not None
        assert length is not None
        return os.pread(file.fileno(), length, offset)


def peer_pixels(path: Path, level: Level) -> NDArray[np.int64]:
    """A level by OpenSlide, which halves levels besides."""
    with openslide.OpenSlide(path) as peer:
        number = peer.level_dimensions.index((level.columns, level.rows))
        region = peer.read_region((0, 0), number, (level.columns, level.rows)).convert("RGB")
    return np.asarray(region, np.int64)


def test_the_sample_has_the_pixels_that_openslide_reads() -> None:
    path = require_data(SAMPLE)
    with open_slide(path) as slide:
        assert slide.format == HamamatsuNdpiReader.format
        levels = slide.scenes[0].levels
        assert [(level.rows, level.columns, level.tile_rows, level.tile_columns) for level in levels] == [
            (4096, 4096, 512, 512),
            (2048, 2048, 512, 512),
            (1024, 1024, 1024, 1024),
        ]
        assert all(isinstance(level.tiles, GatherMap) for level in levels)
        for level in levels:
            assert np.array_equal(peer_pixels(path, level), level_pixels(slide, level))
        assert [(image.role, image.rows, image.columns) for image in slide.associated] == [
            (Role.OVERVIEW, 431, 1280)
        ]


@pytest.mark.parametrize("subsampling", ["444", "422", "420"])
def test_tiles_are_the_intervals_bit_by_bit_with_markers_numbered_anew(
    tmp_path: Path, subsampling: str
) -> None:
    """Only heads and the numbers of markers may differ: no coefficient is touched."""
    path = write_ndpi(tmp_path, subsampling=subsampling)
    strip = 16 if subsampling == "420" else 8
    original = intervals(level_jpeg(path, 0))
    assert len(original) == 1008 // strip * 4
    with open_slide(path) as slide:
        level = slide.scenes[0].levels[0]
        number = 512 // strip
        for index in range(level.number_of_frames):
            row, column = divmod(index, 4)
            tile = tile_bytes(slide, level, index)
            mine = intervals(tile)
            lines = range(row * number, min((row + 1) * number, 1008 // strip))
            assert mine[: len(lines)] == [original[line * 4 + column] for line in lines]
            assert len(mine) == number
            assert [tile[at - 1] & 7 for at in starts(tile)[1:]] == [n % 8 for n in range(number - 1)]


@pytest.mark.parametrize("subsampling", ["444", "422"])
def test_pixels_are_those_of_openslide_exactly(tmp_path: Path, subsampling: str) -> None:
    path = write_ndpi(tmp_path, subsampling=subsampling)
    with open_slide(path) as slide:
        for level in slide.scenes[0].levels[:1]:
            assert np.array_equal(peer_pixels(path, level), level_pixels(slide, level))


@pytest.mark.parametrize(("subsampling", "most"), [("444", 0), ("422", 8), ("420", 16)])
def test_against_the_undivided_jpeg_only_chroma_at_seams_differs(
    tmp_path: Path, subsampling: str, most: int
) -> None:
    """Decoders interpolate halved chroma from neighbours, which a tile's edge has not: the
    column at each side of a seam, and under 4:2:0 the row too. Luma is the same."""
    path = write_ndpi(tmp_path, subsampling=subsampling)
    whole = as_ycbcr(level_jpeg(path, 0))
    with open_slide(path) as slide:
        level = slide.scenes[0].levels[0]
        mine = np.empty((1024, 2048, 3), np.int64)
        for index in range(8):
            top, left = index // 4 * 512, index % 4 * 512
            mine[top : top + 512, left : left + 512] = as_ycbcr(tile_bytes(slide, level, index))
    different = np.abs(mine[:1008] - whole)
    assert not different[..., 0].any()
    assert different.max() <= most
    inner = np.ones(different.shape[:2], bool)
    inner[:, 511::512] = inner[:, 512::512] = False
    if subsampling == "420":
        inner[511::512] = inner[512::512] = False
        inner[-1] = False  # the last row has the blank below for a neighbour
    assert not different[inner].any()


def as_ycbcr(jpeg: bytes) -> NDArray[np.int64]:
    return np.asarray(imagecodecs.jpeg8_decode(jpeg, outcolorspace="YCBCR"), np.int64)


def test_what_lies_below_the_image_is_white(tmp_path: Path) -> None:
    """1008 rows are one strip and a half tile short: the rest is encoded in the image's own
    tables."""
    with open_slide(write_ndpi(tmp_path, rows=1000)) as slide:
        level = slide.scenes[0].levels[0]
        tile = np.asarray(Image.open(io.BytesIO(tile_bytes(slide, level, 5))))
    assert tile.shape == (512, 512, 3)
    assert (tile[1000 - 512 :] == 255).all()
    assert (tile[: 1000 - 512] < 250).any()


def test_tables_without_a_code_for_white_repeat_the_last_strip(tmp_path: Path) -> None:
    """Tables made for one picture hold the codes of that picture alone."""
    pixels = np.full((40, 512), 90, np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", optimize=True, restart_marker_blocks=32)
    tall = joined(
        stream.getvalue()[: head_length(stream.getvalue())], intervals(stream.getvalue()) * 14, 560, 512
    )
    image = opened(tmp_path, tall)
    cut = mosaic_tiles([Mosaic(((image,),))])
    assert isinstance(cut.tiles, GatherMap)
    assert cut.reference is not None
    assert (cut.reference(2) == 90).all()
    assert not cut.tiles.literal[-2]  # the last strip's own bytes


def opened(folder: Path, jpeg: bytes) -> JpegImage:
    path = folder / "level.jpg"
    path.write_bytes(jpeg)
    return open_image(os.open(path, os.O_RDONLY), 0, 0, len(jpeg), what="the JPEG")


def test_levels_without_restart_markers_are_one_tile(tmp_path: Path) -> None:
    path = write_ndpi(tmp_path)
    with open_slide(path) as slide:
        level = slide.scenes[0].levels[2]
        assert (level.rows, level.columns) == (63, 128)
        assert (level.tile_rows, level.tile_columns, level.downsample) == (63, 128, 16.0)
        tile, original = tile_bytes(slide, level, 0), level_jpeg(path, 2)
        assert tile[head_length(tile) :] == original[head_length(original) :]


def test_a_level_wider_than_a_jpeg_takes_its_size_from_the_directory(tmp_path: Path) -> None:
    path = write_wide_ndpi(tmp_path)
    assert b"\xff\xc0\x00\x11\x08\x04\x00\x00\x00" in level_jpeg(path, 0)[:1000]  # 0 columns
    with open_slide(path) as slide, openslide.OpenSlide(path) as peer:
        level = slide.scenes[0].levels[0]
        assert (level.rows, level.columns, level.tiles_across) == (1024, 67584, 33)
        assert (level.columns, level.rows) == peer.level_dimensions[0]
        region = peer.read_region((32 * 2048, 512), 0, (2048, 512)).convert("RGB")
        tile = np.asarray(Image.open(io.BytesIO(tile_bytes(slide, level, 65))))
        assert np.array_equal(np.asarray(region), tile)


def test_focal_planes_are_sorted_by_height(tmp_path: Path) -> None:
    path = write_ndpi(tmp_path, planes_nm=(2000, 0, -2000), map_image=True)
    with open_slide(path) as slide:
        scene = slide.scenes[0]
        assert scene.focal_planes_um == (0.0, 2.0, 4.0)
        assert [level.focal_planes for level in scene.levels] == [3, 3, 3]
        for plane, seed in enumerate((9, 8, 7)):
            mine = level_pixels(slide, scene.levels[0], plane=plane).astype(int)
            assert np.abs(mine - picture(1008, 2048, seed)).mean() < 2


@pytest.mark.parametrize("stated", ["absent", "wrong"])
def test_intervals_are_searched_for_where_their_offsets_are_not_right(tmp_path: Path, stated: str) -> None:
    right = write_ndpi(tmp_path)
    path = write_ndpi(tmp_path, name="other.ndpi", mcu_starts=stated)
    with open_slide(path) as slide, open_slide(right) as expected:
        assert any("searched for" in text for text in slide.findings) is (stated == "wrong")
        for mine, theirs in zip(slide.scenes[0].levels, expected.scenes[0].levels, strict=True):
            assert np.array_equal(level_pixels(slide, mine), level_pixels(expected, theirs))


def test_offsets_beyond_4_gib_are_followed(tmp_path: Path) -> None:
    """The file is a hole but for its end."""
    path = write_ndpi(tmp_path, base=(1 << 32) + 12, levels=(1, 4))
    assert path.stat().st_blocks * 512 < 1 << 24
    with open_slide(path) as slide, tifffile.TiffFile(path) as peer:
        level = slide.scenes[0].levels[0]
        assert peer.pages.first.dataoffsets[0] > 1 << 32
        assert np.array_equal(level_pixels(slide, level), peer.pages.first.asarray())


def test_what_tags_and_property_map_say(tmp_path: Path) -> None:
    with open_slide(write_ndpi(tmp_path)) as slide:
        scan, scene = slide.scan, slide.scenes[0]
        assert (scan.manufacturer, scan.model_name) == ("Hamamatsu", "C9600-12")
        assert (scan.device_serial_number, scan.software_versions) == ("870003", ("NDP.scan 2.5.88",))
        assert scan.acquired == datetime(2011, 2, 28, 10, 21, 50)
        assert scan.barcode == "S26-0815 A1"
        assert scan.properties["product"] == "NanoZoomer 2.0-HT"
        assert scan.properties["reference"] == "A1"  # short, and yet out of line
        assert scan.properties["xoffsetfromslidecentre"] == "4876667"
        (path,) = scene.optical_paths
        assert path.objective_power == 20.0
        assert path.illumination is Illumination.BRIGHTFIELD
        assert [level.downsample for level in scene.levels] == [1.0, 4.0, 16.0]
        spacings = [level.pixel_spacing_mm for level in scene.levels]
        assert spacings == [pytest.approx((0.000455 * n, 0.000455 * n), rel=1e-6) for n in (1, 4, 16)]
        # the centre lies 4.9 mm right of and 2.3 mm above the middle of a glass of 26 x 76 mm
        assert scene.origin_mm == pytest.approx(
            (13 + 2.34 + 504 * 0.000455, 38 - 4.876667 + 1024 * 0.000455), abs=1e-5
        )
        macro = slide.associated_image(Role.OVERVIEW)
        assert macro is not None
        assert np.array_equal(macro.read(), np.asarray(Image.open(io.BytesIO(macro.codestream))))
        assert slide.associated_image(Role.LABEL) is None


def test_a_set_of_files_has_an_optical_path_for_each(tmp_path: Path) -> None:
    path = write_ndpis(tmp_path)
    with open_slide(path) as slide:
        assert slide.format == HamamatsuNdpisReader.format
        scene = slide.scenes[0]
        assert [(item.description, item.emission_nm) for item in scene.optical_paths] == [
            ("DAPI", 455.0), ("FITC", 525.0), ("TRITC", 605.0),
        ]  # fmt: skip
        assert {item.illumination for item in scene.optical_paths} == {Illumination.EPIFLUORESCENCE}
        assert [source.relative_name for source in slide.sources] == [
            "set.ndpis", "set-DAPI.ndpi", "set-FITC.ndpi", "set-TRITC.ndpi",
        ]  # fmt: skip
        level = scene.levels[0]
        assert level.pixel_type.samples_per_pixel == 1
        assert isinstance(level.tiles, GatherMap)
        for channel, source in enumerate(slide.sources[1:]):
            whole = Image.open(io.BytesIO(level_jpeg(source.path, 0)))
            assert np.array_equal(level_pixels(slide, level, path=channel)[..., 0], np.asarray(whole))
        last = np.asarray(Image.open(io.BytesIO(tile_bytes(slide, level, level.number_of_frames - 1))))
        assert not last[600 - 512 :].any()  # below the image there is no light


def test_a_channel_of_a_colour_jpeg_is_the_colour_of_its_wavelength(tmp_path: Path) -> None:
    with open_slide(write_ndpis(tmp_path, grey=False)) as slide:
        level = slide.scenes[0].levels[0]
        assert isinstance(level.tiles, PixelTiles)
        assert level.tiles.lossy_method == "ISO_10918_1"
        for channel, band in enumerate((2, 1, 0)):
            jpeg = level_jpeg(slide.sources[1 + channel].path, 0)
            whole = np.asarray(Image.open(io.BytesIO(jpeg)))
            assert np.array_equal(level_pixels(slide, level, path=channel)[..., 0], whole[..., band])


def test_without_a_wavelength_the_shading_data_tell_the_colour_of_a_channel(tmp_path: Path) -> None:
    """Scanners leave the wavelength out; the first colour would be nearly black then."""
    lit = [f";NDP Shading Data\r;Version=0005\r;TransmittanceR={r}\r;TransmittanceG={g}\r;TransmittanceB={b}"
           for r, g, b in (("-", "-", "10%"), ("-", "10%", "-"), ("1%", "-", "-"))]  # fmt: skip
    path = write_ndpis(tmp_path, channels=(("A", 0.0), ("B", 0.0), ("C", 0.0)), grey=False, properties=lit)
    with open_slide(path) as slide:
        for channel, band in enumerate((2, 1, 0)):
            whole = np.asarray(Image.open(io.BytesIO(level_jpeg(slide.sources[1 + channel].path, 0))))
            pixels = level_pixels(slide, slide.scenes[0].levels[0], path=channel)
            assert np.array_equal(pixels[..., 0], whole[..., band])


def test_a_colour_picture_of_a_channel_that_nothing_explains_is_refused(tmp_path: Path) -> None:
    path = write_ndpis(tmp_path, channels=(("A", 0.0), ("B", 0.0)), grey=False)
    with pytest.raises(UnsupportedPixels, match=r"does not say which colour of it$"):
        open_slide(path)


def test_a_set_without_one_of_its_files_is_refused(tmp_path: Path) -> None:
    path = write_ndpis(tmp_path)
    (tmp_path / "set-FITC.ndpi").unlink()
    with pytest.raises(MissingCompanion, match=r"^a file of the slide is missing: NDPI of channel 2$"):
        open_slide(path)


def test_a_set_does_not_reach_into_other_folders(tmp_path: Path) -> None:
    """Scanners write where the files lay on their own disk; names count alone."""
    path = write_ndpis(tmp_path)
    text = path.read_bytes().replace(b"=set-DAPI", rb"=D:\scans\..\..\set-DAPI")
    path.write_bytes(text)
    with open_slide(path) as slide:
        assert slide.sources[1].path == tmp_path / "set-DAPI.ndpi"
    path.write_bytes(text.replace(b"Image1=set-FITC.ndpi", b"Image1=.."))
    with pytest.raises(DamagedSlide, match="names no file"):
        open_slide(path)


def test_jpeg_xr_is_decoded_in_sixteen_bits(tmp_path: Path) -> None:
    with open_slide(write_ndpi(tmp_path, compression=JPEG_XR)) as slide:
        level = slide.scenes[0].levels[1]
        assert (level.pixel_type.bits_allocated, level.pixel_type.samples_per_pixel) == (16, 1)
        assert isinstance(level.tiles, PixelTiles)
        expected = shrink(picture(1008, 2048), 4)[..., :1].astype(np.uint16) * 16 + 5
        assert (level.tile_rows, level.tile_columns) == (512, 512)  # as the finest
        assert np.array_equal(level.tiles.read(0)[:252], expected)


def test_jpeg_xr_in_tiles_is_put_together(tmp_path: Path) -> None:
    path = write_ndpi(tmp_path, rows=700, columns=900, levels=(1, 4), compression=JPEG_XR, xr_tile=320)
    with open_slide(path) as slide:
        for level, factor in zip(slide.scenes[0].levels, (1, 4), strict=True):
            assert isinstance(level.tiles, PixelTiles)
            whole = picture(700, 900)
            expected = (whole if factor == 1 else shrink(whole, factor))[..., :1].astype(np.uint16) * 16 + 5
            tiles = [level.tiles.read(index) for index in range(level.number_of_frames)]
            across = [
                np.concatenate(tiles[row * level.tiles_across : (row + 1) * level.tiles_across], axis=1)
                for row in range(level.tiles_down)
            ]
            assert np.array_equal(np.concatenate(across)[: level.rows, : level.columns], expected)


def test_barcode_and_label_text_are_tags_too(tmp_path: Path) -> None:
    path = write_ndpi(tmp_path, properties="", tags_of_all={65468: (ASCII, ""), 65469: (ASCII, "S26-7")})
    with open_slide(path) as slide:
        assert (slide.scan.barcode, slide.scan.label_text) == ("S26-7", "A1")


@pytest.mark.parametrize(
    ("named", "expected"),
    [("Brightfield", Illumination.BRIGHTFIELD), ("DAPI", Illumination.EPIFLUORESCENCE)],
)
def test_a_filter_set_may_be_none(tmp_path: Path, named: str, expected: Illumination) -> None:
    with open_slide(write_ndpi(tmp_path, channel=(named, 0.0))) as slide:
        assert slide.scenes[0].optical_paths[0].illumination is expected


def test_intervals_that_make_no_tiles_are_decoded(tmp_path: Path) -> None:
    """Intervals of 40 units in rows of 64: each begins where the one before ended."""
    pixels = picture(700, 512)
    image = opened(tmp_path, encode_jpeg(pixels, interval_columns=320))
    cut = mosaic_tiles([Mosaic(((image,),))])
    assert isinstance(cut.tiles, PixelTiles)
    assert "intervals" in cut.tiles.why
    whole = np.asarray(Image.open(tmp_path / "level.jpg"))
    assert np.array_equal(cut.tiles.read(0), whole[:512])
    last = cut.tiles.read(1)
    assert np.array_equal(last[:188], whole[512:])
    assert (last[188:] == 255).all()


def test_intervals_longer_than_a_jpeg_is_wide_are_decoded_folded(tmp_path: Path) -> None:
    """9009 units follow each other in an interval of nine rows: decoded as three rows of 3003."""
    jpeg = encode_jpeg(picture(144, 8008), interval_columns=8008 * 9)
    image = opened(tmp_path, jpeg)
    assert image.strip == (72, 8008)
    whole = np.asarray(Image.open(io.BytesIO(jpeg)))
    assert np.array_equal(JpegRegions(image).region(60, 100, 40, 7000), whole[60:100, 100:7100])


def test_planes_with_other_tables_keep_their_own(tmp_path: Path) -> None:
    images = []
    for quality in (60, 95):
        folder = tmp_path / str(quality)
        folder.mkdir()
        jpeg = encode_jpeg(picture(600, 512), interval_columns=512, quality=quality)
        images.append(opened(folder, jpeg))
    tiles = mosaic_tiles([Mosaic(((image,),)) for image in images]).tiles
    assert isinstance(tiles, GatherMap)
    for image, first in zip(images, (0, 2), strict=True):
        piece = int(tiles.index[first])
        head = tiles.literals[int(tiles.offsets[piece]) :][: int(tiles.lengths[piece])]
        assert head == image.head.resized(512, 512)


def test_markers_out_of_their_order_are_not_followed(tmp_path: Path) -> None:
    """Where they are stated, and where they are searched for."""
    jpeg = bytearray(encode_jpeg(picture(80, 512), interval_columns=512))
    begins = np.array(starts(jpeg), np.uint64)
    jpeg[int(begins[4]) - 1] = 0xD6
    path = tmp_path / "level.jpg"
    path.write_bytes(jpeg)
    with path.open("rb") as file:
        for stated in (begins, None):
            with pytest.raises(DamagedSlide, match=r"^the JPEG has not the 10 restart intervals"):
                open_image(file.fileno(), 0, 0, len(jpeg), what="the JPEG", stated=stated)


def test_a_real_frame_keeps_its_pixels(tmp_path: Path) -> None:
    """256 units an interval, as the scanner wrote them (opentile joined the strips, and wrote a
    marker after the last)."""
    data = require_data(REAL_FRAME).read_bytes()
    image = opened(tmp_path, data)
    assert image.strip == (8, 2048)
    assert image.intervals is not None
    assert len(image.intervals) == 64
    cut = mosaic_tiles([Mosaic(((image,),))])
    assert isinstance(cut.tiles, GatherMap)
    assert cut.reference is not None
    whole = np.asarray(Image.open(io.BytesIO(data)))
    assert np.array_equal(cut.reference(0), whole)
    assert np.array_equal(JpegRegions(image).region(100, 200, 300, 400), whole[100:400, 200:600])
    assert intervals(data)[:64] == [data[a:b] for a, b in zip(*bounds(image), strict=True)]


def bounds(image: JpegImage) -> tuple[list[int], list[int]]:
    assert image.intervals is not None
    return image.intervals.begins.tolist(), image.intervals.ends.tolist()


def test_references_are_what_tiles_decode_to(tmp_path: Path) -> None:
    with open_slide(write_ndpi(tmp_path, subsampling="422", planes_nm=(0, 500))) as slide:
        for level in slide.scenes[0].levels:
            assert level.reference is not None
            for index in range(level.number_of_frames):
                tile = np.asarray(Image.open(io.BytesIO(tile_bytes(slide, level, index))))
                assert np.array_equal(level.reference(index), tile)


def test_a_closed_slide_leaves_no_file_open(tmp_path: Path) -> None:
    path = write_ndpis(tmp_path)
    before = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0
    slide: Slide = open_slide(path)
    slide.close()
    (tmp_path / "set-TRITC.ndpi").write_bytes(b"II*\0")
    with pytest.raises(DamagedSlide):
        open_slide(path)
    after = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0
    assert after == before
