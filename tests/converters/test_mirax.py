# SPDX-License-Identifier: Apache-2.0
"""The MRXS reader: images copied or stitched as OpenSlide does, channels, planes, words, files."""

import io
import shutil
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import openslide
import pytest
from numpy.typing import NDArray
from PIL import Image

from converters.convert import ConvertOptions, convert
from converters.errors import DamagedSlide, MissingCompanion, UnsupportedCompression, UnsupportedPixels
from converters.readers import mirax
from converters.readers.mirax import MiraxReader
from converters.readers.mirax_ini import parse_slidedat
from converters.readers.mirax_stitch import fill_up, shifted
from converters.registry import companions, open_slide
from converters.slide import Illumination, Level, PixelTiles, Role, Slide, TileMap
from tests.support.level_pixels import level_pixels
from tests.support.make_slide import picture
from tests.support.require import require_data
from tests.support.slides.mrxs import CY5, FILTERS, Mrxs, base_images, encoded, write_mrxs

SAMPLE = "slides/synthetic/3dhistech.mrxs"
STITCHED = {
    "deflated positions": {"positions": "stitching", "origin": (60, 90), "jitter": 5, "levels": 5},
    "plain positions": {"positions": "vimslide", "origin": (60, 90), "jitter": 5, "levels": 3},
    "no positions": {},
    "fields left out": {"positions": "vimslide", "origin": (60, 90), "jitter": 3, "present": {0, 1, 5, 11}},
    "reduced from the start": {"positions": "vimslide", "origin": (60, 90), "jitter": 4, "first_concat": 1},
}


def seen_by_openslide(path: Path, level: Level, at: tuple[int, int] | None = None) -> NDArray[np.int64]:
    """RGB on the slide's fill colour, and the opacity as fourth; from the corner of the
    bounds, or from ``at`` (x, y) in pixels of the finest level."""
    with openslide.OpenSlide(path) as peer:
        bounds = tuple(int(peer.properties.get(f"openslide.bounds-{axis}", 0)) for axis in "xy")
        read = peer.read_region(at or bounds, level.index, (level.columns, level.rows))
    seen = np.asarray(read).astype(np.int64)
    opaque = seen[..., 3:]
    fill = np.array(level.absent_colour)
    return np.concatenate(((seen[..., :3] * opaque + fill * (255 - opaque) + 127) // 255, opaque), axis=2)


def levels_of(slide: Slide) -> list[Level]:
    return list(slide.scenes[0].levels)


def test_the_sample_says_all_it_says() -> None:
    path = require_data(SAMPLE)
    with open_slide(path) as slide:
        assert slide.format == MiraxReader.format
        assert [(level.rows, level.columns, level.downsample) for level in levels_of(slide)] == [
            (2048, 2048, 1.0),
            (1024, 1024, 2.0),
            (512, 512, 4.0),
        ]
        assert levels_of(slide)[1].pixel_spacing_mm == (0.0005, 0.0005)
        assert [source.relative_name for source in slide.sources] == [
            "3dhistech.mrxs",
            "3dhistech/Slidedat.ini",
            "3dhistech/Index.dat",
            "3dhistech/Data0000.dat",
        ]
        assert [(image.role, image.rows, image.columns) for image in slide.associated] == [
            (Role.LABEL, 463, 387),
            (Role.OVERVIEW, 431, 1280),
            (Role.THUMBNAIL, 256, 256),
        ]
        for level in levels_of(slide):
            assert np.array_equal(level_pixels(slide, level), seen_by_openslide(path, level)[..., :3])


def test_images_on_a_grid_are_copied_as_they_lie_in_the_data_files(tmp_path: Path) -> None:
    path = write_mrxs(tmp_path)
    stored = b"".join(file.read_bytes() for file in sorted((tmp_path / "scan").glob("Data*.dat")))
    with open_slide(path) as slide:
        for level in levels_of(slide):
            assert isinstance(level.tiles, TileMap)
            assert set(level.tiles.files.tolist()) == {3, 4}
            for offset, length, file in zip(
                level.tiles.offsets, level.tiles.lengths, level.tiles.files, strict=True
            ):
                content = slide.sources[file].path.read_bytes()[int(offset) : int(offset + length)]
                assert content.startswith(b"\xff\xd8")
                assert content.endswith(b"\xff\xd9")
                assert content in stored
            assert np.array_equal(level_pixels(slide, level), seen_by_openslide(path, level)[..., :3])


def test_fields_that_were_not_photographed_are_absent_tiles_from_a_corner_that_fits_all_levels(
    tmp_path: Path,
) -> None:
    path = write_mrxs(tmp_path, fields=(8, 8), positions="vimslide", present={10, 11, 18, 27})
    with open_slide(path) as slide:
        first, *others = levels_of(slide)
        # Fields 10 and 27 lie from row 1 to 3, columns 2 and 3; the corner is one of level 2's images.
        assert (first.rows, first.columns) == (1024, 512)
        assert int(first.tiles.absent.sum()) == 32 - 4 * 4
        assert first.absent_colour == (250, 240, 230)
        for level in (first, *others):
            assert isinstance(level.tiles, TileMap)
            seen = seen_by_openslide(path, level, at=(512, 0))
            there = seen[..., 3] == 255
            assert np.array_equal(level_pixels(slide, level)[there], seen[there][:, :3])


@pytest.mark.parametrize("variant", STITCHED)
def test_overlapping_photos_are_stitched_as_openslide_does(tmp_path: Path, variant: str) -> None:
    """To the grey level where photos lie at whole pixels, as they do at the finest level;
    within two where OpenSlide's interpolation rounds by itself."""
    path = write_mrxs(tmp_path, image=(104, 120), overlap=(20, 24), **STITCHED[variant])
    with open_slide(path) as slide, openslide.OpenSlide(path) as peer:
        area = [peer.properties.get(f"openslide.bounds-{edge}") for edge in ("height", "width")]
        first = levels_of(slide)[0]
        expected = (int(area[0]), int(area[1])) if area[0] else peer.dimensions[::-1]
        assert (first.rows, first.columns) == expected
        assert len(levels_of(slide)) == peer.level_count
        for level in levels_of(slide):
            assert isinstance(level.tiles, PixelTiles)
            assert level.tiles.why == "photos overlap"
            seen = seen_by_openslide(path, level)
            difference = np.abs(level_pixels(slide, level) - seen[..., :3])
            assert difference[seen[..., 3] == 255].max() <= (0 if level.index == 0 else 2)
            assert difference.mean() < 0.5
            assert difference.max() <= (0 if level.index == 0 else 4)  # at edges, opaque in part


def test_tiles_of_a_stitched_level_fit_each_other_and_empty_ones_are_known(tmp_path: Path) -> None:
    path = write_mrxs(
        tmp_path, fields=(8, 8), image=(104, 120), overlap=(20, 24), positions="vimslide", jitter=4,
        origin=(60, 90), present={9, 54}, levels=2,
    )  # fmt: skip
    with open_slide(path) as slide:
        for level in levels_of(slide):
            seen = seen_by_openslide(path, level)
            assert np.abs(level_pixels(slide, level) - seen[..., :3]).max() <= level.index
            for row in range(level.tiles_down):
                for column in range(level.tiles_across):
                    part = seen[row * 512 : (row + 1) * 512, column * 512 : (column + 1) * 512, 3]
                    assert level.tiles.absent[level.frame_index(0, 0, row, column)] == (not part.any())


@pytest.mark.parametrize("image_format", ["PNG", "BMP24"])
def test_lossless_images_give_their_very_pixels(tmp_path: Path, image_format: str) -> None:
    path = write_mrxs(tmp_path, image_format=image_format, levels=1)
    images = base_images(Mrxs(image_format=image_format))
    drawn = np.vstack([np.hstack([images[row, column] for column in range(8)]) for row in range(6)])
    with open_slide(path) as slide:
        (level,) = levels_of(slide)
        assert isinstance(level.tiles, PixelTiles)
        assert level.tiles.lossy_method == ""
        assert (level.tile_rows, level.tile_columns) == (128, 128)
        assert np.array_equal(level_pixels(slide, level), drawn)


def test_filters_are_channels_taken_from_the_blue_component_on(tmp_path: Path) -> None:
    path = write_mrxs(tmp_path, filters=FILTERS)
    with open_slide(path) as slide, openslide.OpenSlide(path) as peer:
        paths = slide.scenes[0].optical_paths
        assert [each.description for each in paths] == ["Rhodamine", "FITC", "UV"]
        assert [each.excitation_nm for each in paths] == [540, 490, 365]
        assert [each.emission_nm for each in paths] == [580, 525, 445]
        assert [each.exposure_ms for each in paths] == [66, 18, 1]
        assert [each.display_rgb for each in paths] == [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
        assert {each.illumination for each in paths} == {Illumination.EPIFLUORESCENCE}
        assert len({each.identifier for each in paths}) == 3
        for level in levels_of(slide):
            assert level.pixel_type.samples_per_pixel == 1
            seen = np.asarray(peer.read_region((0, 0), level.index, (level.columns, level.rows)))
            for channel in range(3):
                assert np.array_equal(level_pixels(slide, level, channel)[..., 0], seen[..., 2 - channel])


def test_a_fourth_filter_has_images_of_its_own(tmp_path: Path) -> None:
    slide_of = Mrxs(filters=(*FILTERS, CY5), image_format="PNG")
    path = write_mrxs(tmp_path, filters=slide_of.filters, image_format="PNG")
    images = base_images(slide_of, group=1)
    with open_slide(path) as slide:
        level = levels_of(slide)[0]
        assert level.optical_paths == 4
        assert np.array_equal(level_pixels(slide, level, 3)[:128, :128, 0], images[0, 0][..., 2])


def test_overlapping_fluorescence_is_stitched_on_black(tmp_path: Path) -> None:
    path = write_mrxs(
        tmp_path, filters=FILTERS, image=(104, 120), overlap=(20, 24), positions="vimslide", jitter=5
    )
    with open_slide(path) as slide, openslide.OpenSlide(path) as peer:
        level = levels_of(slide)[0]
        corner = tuple(int(peer.properties[f"openslide.bounds-{axis}"]) for axis in "xy")
        seen = np.asarray(peer.read_region(corner, 0, (level.columns, level.rows)))
        assert (seen[..., 3] == 0).any()
        assert np.array_equal(
            level_pixels(slide, level)[..., 0], np.where(seen[..., 3] == 0, 0, seen[..., 2])
        )


def test_two_filters_in_one_component_are_refused(tmp_path: Path) -> None:
    path = write_mrxs(tmp_path, filters=FILTERS)
    edit(path, "STORING_CHANNEL_NUMBER = 1", "STORING_CHANNEL_NUMBER = 0")
    with pytest.raises(UnsupportedPixels, match="two filters share"):
        open_slide(path)


def test_focal_planes_stand_in_the_order_of_their_heights(tmp_path: Path) -> None:
    path = write_mrxs(tmp_path, planes_um=(0.0, -1.5, 1.5))
    with open_slide(path) as slide:
        assert slide.scenes[0].focal_planes_um == (-1.5, 0.0, 1.5)
        for level in levels_of(slide):
            assert np.array_equal(
                level_pixels(slide, level, plane=1), seen_by_openslide(path, level)[..., :3]
            )
            assert not np.array_equal(
                level_pixels(slide, level, plane=0), level_pixels(slide, level, plane=1)
            )


def test_planes_may_be_unevenly_spaced(tmp_path: Path) -> None:
    with open_slide(write_mrxs(tmp_path, planes_um=(0.0, -1.5, 7.0))) as slide:
        assert slide.scenes[0].focal_planes_um == (-1.5, 0.0, 7.0)


def test_planes_of_equal_heights_have_none(tmp_path: Path) -> None:
    """So that the operator is asked for their distance."""
    with open_slide(write_mrxs(tmp_path, planes_um=(0.0, 0.0, 1.0))) as slide:
        assert slide.scenes[0].focal_planes_um == ()
        assert {level.focal_planes for level in levels_of(slide)} == {3}


def test_what_slidedat_says_is_taken_and_nothing_else(tmp_path: Path) -> None:
    path = write_mrxs(tmp_path, general={"SLIDE_UTC_CREATIONDATETIME": "05/03/2014 09:12:13"})
    with open_slide(path) as slide:
        scan = slide.scan
        assert (scan.manufacturer, scan.model_name) == ("3DHISTECH", "")  # "v0.5" names no model
        assert scan.device_serial_number == "P250-0042"
        assert scan.software_versions == ("2,0,0,27",)
        assert scan.acquired == datetime(2014, 3, 5, 11, 12, 13, tzinfo=timezone(timedelta(hours=2)))
        assert scan.properties["general.slide_name"] == "SYN-MRXS"
        assert scan.properties["general.camera_type"] == "Synthetic camera"
        assert "SLIDE_VERSION = 01.02" in scan.description
        assert slide.scenes[0].optical_paths[0].objective_power == 20
        assert levels_of(slide)[0].pixel_spacing_mm == (0.00025, 0.00025)
        assert levels_of(slide)[0].history == "JPEG 85"
        assert slide.findings == ()
    edit(path, "SLIDE_UTC_CREATIONDATETIME", "SOMETHING_ELSE")
    with open_slide(path) as slide:
        assert slide.scan.acquired == datetime(2014, 3, 5, 11, 12, 13)


def test_the_real_slidedat_is_understood() -> None:
    ini = parse_slidedat(require_data("slides/fragments/Mirax2-Fluorescence-1_Slidedat.ini").read_bytes())
    assert [len(each.values) for each in ini.hierarchies()] == [10, 3, 2]
    assert ini.others()[12].layer == "VIMSLIDE_POSITION_BUFFER"
    assert ini.real("LAYER_0_LEVEL_6_SECTION", "OVERLAP_X") == 1.5
    assert ini.data_file_names() == ["Data0000.dat", "Data0001.dat", "Data0002.dat"]


def test_label_macro_and_thumbnail_are_the_ones_openslide_shows(tmp_path: Path) -> None:
    path = write_mrxs(tmp_path)
    with open_slide(path) as slide, openslide.OpenSlide(path) as peer:
        for name, role in (("label", Role.LABEL), ("macro", Role.OVERVIEW), ("thumbnail", Role.THUMBNAIL)):
            image = slide.associated_image(role)
            assert image is not None
            assert image.codestream.startswith(b"\xff\xd8")
            assert np.array_equal(image.read(), np.asarray(peer.associated_images[name])[..., :3])


def test_the_real_stub_alone_misses_slidedat(tmp_path: Path) -> None:
    stub = require_data("slides/fragments/Mirax2-Fluorescence-1.mrxs.jpg")
    shutil.copy(stub, tmp_path / "Mirax2-Fluorescence-1.mrxs")
    for ask in (open_slide, companions):
        with pytest.raises(MissingCompanion, match=r"is missing: Slidedat\.ini$"):
            ask(tmp_path / "Mirax2-Fluorescence-1.mrxs")


def test_each_file_of_the_slide_is_named_and_missed(tmp_path: Path) -> None:
    path = write_mrxs(tmp_path)
    names = ["scan/Slidedat.ini", "scan/Index.dat", "scan/Data0000.dat", "scan/Data0001.dat"]
    assert list(companions(path)) == names
    for name, role in ((names[3], "data file 1"), (names[1], "Index.dat")):
        (tmp_path / name).unlink()
        with pytest.raises(MissingCompanion, match=f"is missing: {role}$"):
            companions(path)


def test_a_stub_without_a_byte_is_one(tmp_path: Path) -> None:
    path = write_mrxs(tmp_path)
    path.write_bytes(b"")
    with open_slide(path) as slide:
        assert len(levels_of(slide)) == 3


def test_a_photo_of_the_whole_glass_is_the_overview_where_there_is_no_other(tmp_path: Path) -> None:
    path = write_mrxs(tmp_path)
    edit(path, "ScanDataLayer_SlideThumbnail", "ScanDataLayer_WholeSlide")
    with open_slide(path) as slide:
        overview = slide.associated_image(Role.OVERVIEW)
        assert overview is not None
        assert overview.codestream.startswith(b"\xff\xd8")


def test_a_copy_with_names_in_other_letters_is_read(tmp_path: Path) -> None:
    path = write_mrxs(tmp_path)
    (tmp_path / "scan" / "Slidedat.ini").rename(tmp_path / "scan" / "SLIDEDAT.INI")
    assert companions(path)[0] == "scan/SLIDEDAT.INI"
    with open_slide(path) as slide:
        assert len(levels_of(slide)) == 3


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("FILE_1 = Data0001.dat", "FILE_1 = ../Data0001.dat", "names a file outside"),
        ("IMAGENUMBER_X = 8", "IMAGENUMBER_X = 7", "outside of the slide's grid|belongs to no camera field"),
        ("IMAGENUMBER_X = 8", "IMAGENUMBER_X = 99999999", "IMAGENUMBER_X in Slidedat.ini is out of range"),
        ("SLIDE_ID = 0", "SLIDE_ID = 9", "belongs to another slide"),
        ("HIER_0_COUNT = 3", "HIER_0_COUNT = 4097", "HIER_0_COUNT in Slidedat.ini is out of range"),
        ("[DATAFILE]", "[DATA]", "has no section DATAFILE"),
    ],
)
def test_a_slidedat_that_contradicts_the_slide_is_refused(
    tmp_path: Path, old: str, new: str, says: str
) -> None:
    path = write_mrxs(tmp_path)
    edit(path, old, new)
    with pytest.raises(DamagedSlide, match=says):
        open_slide(path)


def test_a_grid_that_would_fill_the_memory_is_refused(tmp_path: Path) -> None:
    path = write_mrxs(tmp_path)
    edit(path, "IMAGENUMBER_X = 8", "IMAGENUMBER_X = 32768")
    edit(path, "IMAGENUMBER_Y = 6", "IMAGENUMBER_Y = 32768")
    with pytest.raises(DamagedSlide, match="more images than any slide"):
        open_slide(path)


def test_images_of_an_unknown_coding_are_refused_by_its_name(tmp_path: Path) -> None:
    path = write_mrxs(tmp_path)
    edit(path, "IMAGE_FORMAT = JPEG", "IMAGE_FORMAT = WEBP")
    with pytest.raises(UnsupportedCompression, match="WEBP"):
        open_slide(path)


def test_a_level_without_a_factor_is_left_to_be_computed(tmp_path: Path) -> None:
    """As in slides before version 1.9."""
    path = write_mrxs(tmp_path)
    edit(path, "IMAGE_CONCAT_FACTOR = 1", "IMAGE_CONCAT_FACTOR = 0")
    with open_slide(path) as slide:
        assert len(levels_of(slide)) == 1
        assert slide.findings == ("zoom levels from 1 on are not read but computed",)


def test_a_shift_between_pixels_weighs_the_neighbours() -> None:
    source = np.zeros((2, 3, 1), np.uint8)
    source[:, 1] = 128
    assert shifted(source, 0.25, 0, 2, 3)[0, :, 0].tolist() == [32, 96, 0]
    assert shifted(source, -1, 0, 2, 3)[0, :, 0].tolist() == [0, 0, 128]
    assert shifted(source, 0, 1.5, 1, 3)[0, :, 0].tolist() == [0, 64, 0]


@pytest.mark.parametrize(
    "variant",
    [
        {},
        {"fields": (8, 8), "positions": "vimslide", "present": {10, 11}},
        {"image": (104, 120), "overlap": (20, 24), "positions": "stitching", "jitter": 5},
        {"filters": FILTERS},
        {"planes_um": (0.0, -1.5, 1.5)},
    ],
    ids=["copied", "sparse", "stitched", "fluorescence", "focal planes"],
)
def test_slides_become_dicom_and_pass_the_proof(tmp_path: Path, variant: dict[str, object]) -> None:
    path = write_mrxs(tmp_path, **variant)
    (tmp_path / "out").mkdir()
    convert([path], tmp_path / "out", ConvertOptions(verify=True))
    assert len(list((tmp_path / "out").rglob("*.dcm"))) >= 4


def test_pixels_that_are_full_in_part_take_what_they_have_room_for() -> None:
    generator = np.random.default_rng(5)
    cover = generator.choice(np.array([0, 1, 60, 128, 254, 255], np.uint8), (2, 40, 50))
    colours = generator.integers(0, 256, (2, 40, 50, 3)) * cover[..., np.newaxis] // 255
    under, source = np.concatenate((colours, cover[..., np.newaxis]), axis=3).astype(np.uint8)
    expected = np.array(
        [
            [added(below.tolist(), above.tolist()) for below, above in zip(*rows, strict=True)]
            for rows in zip(under, source, strict=True)
        ]
    )
    fill_up(under, source)
    np.testing.assert_array_equal(under, expected)


def added(under: list[int], source: list[int]) -> list[int]:
    """One pixel of :func:`fill_up`."""
    room, cover = 255 - under[-1], source[-1]
    if cover > room:
        scaled = [value * ((room * 255 + cover // 2) // cover) + 128 for value in source]
        source = [((value >> 8) + value) >> 8 for value in scaled]
    return [min(255, one + other) for one, other in zip(under, source, strict=True)]


def test_a_photo_without_its_end_is_refused_and_a_grey_one_is_grey() -> None:
    photo = picture(64, 96)
    whole, grey = encoded(photo, "JPEG"), encoded(photo[..., 0], "JPEG")
    np.testing.assert_array_equal(
        mirax._photo(whole, (64, 96, 3)), np.asarray(Image.open(io.BytesIO(whole)).convert("RGB"))
    )
    pixels = mirax._photo(grey, (64, 96, 3))
    assert (pixels == pixels[..., :1]).all()
    for cut in (2, len(whole) // 2):
        with pytest.raises(DamagedSlide, match="an image cannot be decoded"):
            mirax._photo(whole[:-cut], (64, 96, 3))
    with pytest.raises(DamagedSlide, match="not as large"):
        mirax._photo(whole, (64, 64, 3))


def edit(path: Path, old: str, new: str) -> None:
    """In Slidedat.ini, everywhere."""
    ini = path.with_suffix("") / "Slidedat.ini"
    text = ini.read_bytes()
    assert old.encode() in text
    ini.write_bytes(text.replace(old.encode(), new.encode()))
