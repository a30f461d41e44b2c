# SPDX-License-Identifier: Apache-2.0
"""The Olympus VSI reader: tags explain the stacks, .ets files hold their tiles."""

import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from converters.convert import ConvertOptions, convert
from converters.errors import DamagedSlide, MissingCompanion, UnsupportedPixels
from converters.probe import Probe
from converters.readers.encoded_tiles import tile_bytes
from converters.readers.olympus_tags import read_tree
from converters.readers.olympus_vsi import OlympusVsiReader
from converters.slide import Illumination, Level, PixelTiles, PixelType, Role, Slide, TileMap
from tests.support.make_slide import picture
from tests.support.require import require_data
from tests.support.slides.olympus_stacks import CY5, DAPI, FITC, DrawnStack, chunks, write_ets
from tests.support.slides.olympus_tags import integer, text, volume, volumes
from tests.support.slides.olympus_vsi import (
    FLUORESCENCE,
    LABEL,
    OVERVIEW,
    write_brightfield,
    write_olympus_vsi,
)

SLIDEIO = """
import sys, numpy, slideio
slide = slideio.open_slide(sys.argv[1], "VSI")
scene = slide.get_scene(int(sys.argv[2]))
slices = (0, scene.num_z_slices) if scene.num_z_slices > 1 else (0, 1)
numpy.save(sys.argv[3], scene.read_block(scene.rect, slices=slices))
"""


def opened(path: Path) -> Slide:
    probe = Probe(path)
    assert OlympusVsiReader.why_not(probe) is None
    return OlympusVsiReader.open(probe)


def joined(level: Level, optical_path: int = 0, focal_plane: int = 0) -> NDArray[np.generic]:
    """A level's pixels, decoded as the reader decodes them."""
    read = level.tiles.read if isinstance(level.tiles, PixelTiles) else level.reference
    assert read is not None
    rows = []
    for row in range(level.tiles_down):
        indices = [level.frame_index(optical_path, focal_plane, row, n) for n in range(level.tiles_across)]
        rows.append(np.concatenate([read(index) for index in indices], axis=1))
    whole = np.concatenate(rows)[: level.rows, : level.columns]
    return whole[..., 0] if whole.shape[2] == 1 else whole


def by_slideio(path: Path, scene: int, folder: Path) -> NDArray[np.generic]:
    """Decoded by an independent reader, in a process that may crash without harm."""
    target = folder / "pixels.npy"
    command = [sys.executable, "-c", SLIDEIO, str(path), str(scene), str(target)]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    pixels: NDArray[np.generic] = np.load(target)
    return pixels


@pytest.mark.parametrize("coding", ["jpeg", "j2k"])
def test_every_tile_is_the_codestream_that_was_written(tmp_path: Path, coding: str) -> None:
    drawn = DrawnStack(coding=coding)
    path = write_olympus_vsi(tmp_path, (drawn,))
    with opened(path) as slide:
        ets = slide.sources[1].path
        assert [(source.relative_name) for source in slide.sources] == [
            "olympus.vsi",
            "_olympus_/stack10001/frame_t_0.ets",
        ]
        for (column, row, number), data in chunks(drawn).items():
            level = slide.scenes[0].levels[number]
            assert isinstance(level.tiles, TileMap)
            assert level.tiles.source == 1
            assert tile_bytes(ets, level.tiles, level.frame_index(0, 0, row, column)) == data
        assert [len(level.tiles) for level in slide.scenes[0].levels] == [20, 6, 2]


def test_colours_are_those_of_the_drawing_and_of_slideio(tmp_path: Path) -> None:
    drawn = DrawnStack(rows=500, columns=620)
    path = write_olympus_vsi(tmp_path, (drawn,))
    with opened(path) as slide:
        level = slide.scenes[0].levels[0]
        assert level.container_rgb is None
        pixels = joined(level).astype(int)
        assert np.abs(pixels - drawn.pixels()).mean() < 3
        # slideio does not smooth chroma between samples, so single pixels differ
        assert np.abs(pixels - by_slideio(path, 0, tmp_path)).mean() < 0.5


def test_jpeg_2000_is_pixel_for_pixel_what_slideio_reads(tmp_path: Path) -> None:
    drawn = DrawnStack(rows=500, columns=620, coding="j2k")
    path = write_olympus_vsi(tmp_path, (drawn,))
    with opened(path) as slide:
        pixels = joined(slide.scenes[0].levels[0])
        assert np.array_equal(pixels, drawn.pixels())
        assert np.array_equal(pixels, by_slideio(path, 0, tmp_path))


def test_levels_halve_and_their_pixels_grow(tmp_path: Path) -> None:
    with opened(write_olympus_vsi(tmp_path, (DrawnStack(rows=901, columns=1101),))) as slide:
        levels = slide.scenes[0].levels
        assert [(level.rows, level.columns, level.downsample) for level in levels] == [
            (901, 1101, 1.0),
            (451, 551, 2.0),
            (226, 276, 4.0),
        ]
        assert levels[2].pixel_spacing_mm == pytest.approx((4 * 0.0003425, 4 * 0.000274))


def test_a_level_is_not_larger_than_its_tiles(tmp_path: Path) -> None:
    """513 columns halve to 257 or 256: no tile holds column 257."""
    with opened(write_olympus_vsi(tmp_path, (DrawnStack(rows=300, columns=513, levels=2),))) as slide:
        assert [(level.rows, level.columns) for level in slide.scenes[0].levels] == [(300, 513), (150, 256)]


def test_channels_and_planes_of_16_bits_are_read_as_they_were(tmp_path: Path) -> None:
    path = write_olympus_vsi(tmp_path, (FLUORESCENCE,))
    with opened(path) as slide:
        scene = slide.scenes[0]
        level = scene.levels[0]
        assert (level.optical_paths, level.focal_planes, level.number_of_frames) == (3, 2, 36)
        assert level.pixel_type == PixelType(1, 16, 16)
        assert isinstance(level.tiles, PixelTiles)
        assert level.tiles.why == "raw tiles"
        independent = by_slideio(path, 0, tmp_path)
        for channel in range(3):
            for plane in range(2):
                pixels = joined(level, channel, plane)
                assert np.array_equal(pixels, FLUORESCENCE.pixels(channel, plane))
                assert np.array_equal(pixels, independent[plane, ..., channel])
        coarse = joined(scene.levels[1], 2, 1)
        assert np.array_equal(coarse, FLUORESCENCE.level(1, 2, 1))
        assert scene.focal_planes_um == (0.0, 1.5)


def test_channels_say_what_they_are(tmp_path: Path) -> None:
    with opened(write_olympus_vsi(tmp_path, (FLUORESCENCE,))) as slide:
        paths = slide.scenes[0].optical_paths
        assert [path.description for path in paths] == ["DAPI", "FITC", "Cy5"]
        assert [path.identifier for path in paths] == ["1", "2", "3"]
        assert [path.emission_nm for path in paths] == [455.0, 518.0, 670.0]
        assert [path.exposure_ms for path in paths] == [25.0, 50.0, 75.0]
        assert paths[2].display_rgb == (2, 128, 255)
        assert {path.illumination for path in paths} == {Illumination.EPIFLUORESCENCE}


@pytest.mark.parametrize("axes", ["cz", "zc"])
@pytest.mark.parametrize("increment", [2.0, -2.0])
def test_planes_lie_from_the_lowest_up_in_any_order_of_dimensions(
    tmp_path: Path, axes: str, increment: float
) -> None:
    drawn = replace(
        FLUORESCENCE, channels=(DAPI, FITC), planes=3, axes=axes, z_increment_um=increment, coding="j2k"
    )
    with opened(write_olympus_vsi(tmp_path, (drawn,))) as slide:
        level = slide.scenes[0].levels[0]
        ets = slide.sources[1].path
        assert slide.scenes[0].focal_planes_um == (0.0, 2.0, 4.0)
        written = chunks(drawn)
        assert isinstance(level.tiles, TileMap)
        for plane in range(3):
            at = plane if increment > 0 else 2 - plane
            place = (1, at) if axes == "cz" else (at, 1)
            found = tile_bytes(ets, level.tiles, level.frame_index(1, plane, 2, 1))
            assert found == written[(1, 2, *place, 0)]


def test_bits_stored_are_those_of_the_codestream(tmp_path: Path) -> None:
    drawn = replace(FLUORESCENCE, coding="j2k")
    with opened(write_olympus_vsi(tmp_path, (drawn,))) as slide:
        assert slide.scenes[0].levels[0].pixel_type == PixelType(1, 16, 16)
        assert slide.scenes[0].levels[0].reference is None


@pytest.mark.parametrize("coding", ["raw", "bgr", "png", "bmp"])
def test_tiles_that_are_no_codestream_are_decoded_to_rgb(tmp_path: Path, coding: str) -> None:
    drawn = DrawnStack(coding=coding, rows=300, columns=400)
    with opened(write_olympus_vsi(tmp_path, (drawn,))) as slide:
        level = slide.scenes[0].levels[0]
        assert isinstance(level.tiles, PixelTiles)
        assert np.array_equal(joined(level), drawn.pixels())


def test_jpeg_2000_files_give_their_codestream(tmp_path: Path) -> None:
    drawn = DrawnStack(coding="jp2", rows=300, columns=400, levels=1)
    path = write_olympus_vsi(tmp_path, (drawn,))
    with opened(path) as slide:
        level = slide.scenes[0].levels[0]
        assert isinstance(level.tiles, TileMap)
        found = tile_bytes(slide.sources[1].path, level.tiles, 1)
        assert found.startswith(b"\xff\x4f\xff\x51")
        assert found.endswith(b"\xff\xd9")
        assert chunks(drawn)[1, 0, 0].endswith(found)
        assert np.array_equal(joined(level), drawn.pixels())


def test_label_and_overview_stacks_are_pictures_and_regions_are_scenes(tmp_path: Path) -> None:
    with opened(write_brightfield(tmp_path)) as slide:
        assert [scene.label for scene in slide.scenes] == ["20x_01", "20x_02"]
        assert [scene.index for scene in slide.scenes] == [0, 1]
        assert {scene.levels[0].tiles.source for scene in slide.scenes} == {3, 4}  # type: ignore[union-attr]
        label, overview = slide.associated
        assert (label.role, label.rows, label.columns) == (Role.LABEL, 200, 180)
        assert (overview.role, overview.rows, overview.columns) == (Role.OVERVIEW, 300, 700)
        assert label.lossy_method == "ISO_10918_1"
        assert np.abs(label.read().astype(int) - LABEL.pixels()).mean() < 3
        assert np.abs(overview.read().astype(int) - OVERVIEW.pixels()).mean() < 3
        assert slide.scenes[1].acquired == datetime(2026, 3, 14, 9, 29, 53, tzinfo=UTC)


def test_equal_optical_paths_share_their_identifier_and_others_do_not(tmp_path: Path) -> None:
    second = replace(DrawnStack(), name="20x_02", rows=500, columns=620)
    third = replace(second, name="40x_01", rows=300, columns=1000, power=40.0)
    with opened(write_olympus_vsi(tmp_path, (DrawnStack(), second, third))) as slide:
        assert [scene.optical_paths[0].identifier for scene in slide.scenes] == ["1", "1", "2"]


def test_the_page_of_the_vsi_is_the_thumbnail(tmp_path: Path) -> None:
    with opened(write_olympus_vsi(tmp_path)) as slide:
        (thumbnail,) = slide.associated
        assert thumbnail.role is Role.THUMBNAIL
        assert np.array_equal(thumbnail.read(), picture(112, 137, 7))


def test_pages_that_the_tags_name_are_label_and_macro(tmp_path: Path) -> None:
    pages = (picture(90, 80, 1), picture(60, 200, 2))
    stacks = (replace(LABEL, name="label"), replace(OVERVIEW, kind=256, name="macro image"))
    with opened(write_olympus_vsi(tmp_path, pages=pages, page_stacks=stacks)) as slide:
        label, macro = slide.associated
        assert (label.role, macro.role) == (Role.LABEL, Role.OVERVIEW)
        assert np.array_equal(label.read(), pages[0])
        assert np.array_equal(macro.read(), pages[1])


def test_all_that_the_tags_say_is_told(tmp_path: Path) -> None:
    with opened(write_olympus_vsi(tmp_path)) as slide:
        scan, path = slide.scan, slide.scenes[0].optical_paths[0]
        assert (scan.manufacturer, scan.model_name, scan.device_serial_number) == (
            "Olympus", "VS200", "SN-0042",
        )  # fmt: skip
        assert scan.software_versions == ("OLYMPUS VS-ASW 4.1.1",)
        assert scan.acquired == datetime(2026, 3, 14, 9, 26, 53, tzinfo=UTC)
        assert scan.barcode == "S26-123"
        assert scan.properties["image 1.origin (micrometres)"] == "12000.0, -3400.5"
        assert (path.objective_power, path.numerical_aperture) == (20.0, 0.8)
        assert path.illumination is Illumination.BRIGHTFIELD


def test_tiles_left_out_are_absent_and_have_the_files_colour(tmp_path: Path) -> None:
    drawn = DrawnStack(missing=((0, 0, 0), (0, 3, 4), (1, 1, 1)))
    with opened(write_olympus_vsi(tmp_path, (drawn,))) as slide:
        fine, coarse, _ = slide.scenes[0].levels
        assert np.flatnonzero(fine.tiles.absent).tolist() == [0, 19]
        assert np.flatnonzero(coarse.tiles.absent).tolist() == [4]
        assert fine.absent_colour == (240, 241, 242)


def test_a_whole_column_left_out_still_finds_its_stack(tmp_path: Path) -> None:
    drawn = DrawnStack(missing=[(0, row, 4) for row in range(4)])
    with opened(write_olympus_vsi(tmp_path, (LABEL, drawn))) as slide:
        level = slide.scenes[0].levels[0]
        assert (level.rows, level.columns) == (900, 1100)
        assert int(level.tiles.absent.sum()) == 4


def test_time_points_in_one_file_or_in_many_become_scenes(tmp_path: Path) -> None:
    form = DrawnStack(rows=300, columns=400, levels=1, coding="raw", channels=(CY5,))
    for folder, drawn in (("one", replace(form, times=3, axes="t")), ("many", replace(form, files=3))):
        (tmp_path / folder).mkdir()
        with opened(write_olympus_vsi(tmp_path / folder, (drawn,))) as slide:
            assert [scene.label for scene in slide.scenes] == [
                "20x_01 time point 1",
                "20x_01 time point 2",
                "20x_01 time point 3",
            ]
            for time, scene in enumerate(slide.scenes):
                assert np.array_equal(joined(scene.levels[0]), form.pixels(0, 0, time))


def test_more_files_in_a_stacks_folder_than_it_counts_are_left_out(tmp_path: Path) -> None:
    """As cellSens 4.1 leaves them, before and after the one that is shown."""
    path = write_olympus_vsi(tmp_path, (LABEL, DrawnStack()))
    folder = tmp_path / "_olympus_" / "stack10002"
    (folder / "frame_t_0.ets").rename(folder / "frame_t_1.ets")
    write_ets(folder / "frame_t_0.ets", DrawnStack(rows=2000, columns=300, levels=1))
    write_ets(folder / "frame_t_2.ets", DrawnStack(rows=300, columns=300, levels=1))
    with opened(path) as slide:
        assert [(scene.levels[0].rows, scene.levels[0].columns) for scene in slide.scenes] == [(900, 1100)]
        assert slide.scenes[0].label == "20x_01"
        assert slide.findings == ("image files (.ets) of a stack that the slide does not count: left out",)
    with opened(write_olympus_vsi(tmp_path / "alone", (LABEL, DrawnStack()))) as alone, opened(path) as slide:
        assert np.array_equal(joined(slide.scenes[0].levels[0]), joined(alone.scenes[0].levels[0]))


def test_a_file_that_no_stack_describes_is_told_and_left_out(tmp_path: Path) -> None:
    orphan = DrawnStack(rows=2000, columns=300, levels=1)
    path = write_olympus_vsi(tmp_path, orphan=orphan)
    with opened(path) as slide:
        assert len(slide.scenes) == 1
        assert (slide.scenes[0].levels[0].rows, slide.scenes[0].levels[0].columns) == (900, 1100)
        assert slide.findings == ("an image file (.ets) belongs to no stack of the slide: left out",)
    assert OlympusVsiReader.companions(Probe(path)) == [
        "_olympus_/stack1/frame_t_0.ets",
        "_olympus_/stack10001/frame_t_0.ets",
    ]


def test_an_unreadable_file_beside_a_whole_slide_is_told(tmp_path: Path) -> None:
    path = write_olympus_vsi(tmp_path)
    other = tmp_path / "_olympus_" / "stack1" / "frame_t_0.ets"
    other.parent.mkdir()
    other.write_bytes(b"nothing of use")
    with opened(path) as slide:
        assert slide.findings == ("an image file (.ets) that cannot be read belongs to no stack: left out",)


@pytest.mark.parametrize("without", [0, 1])
def test_a_missing_file_is_named_by_its_stack(tmp_path: Path, without: int) -> None:
    stacks = (DrawnStack(), replace(DrawnStack(), rows=300, columns=2000, levels=1))
    path = write_olympus_vsi(tmp_path, stacks, without=(without,))
    with pytest.raises(MissingCompanion, match=rf"image file \(\.ets\) of stack {without + 1} of 2$"):
        opened(path)
    with pytest.raises(MissingCompanion, match=r"image file \(\.ets\) 2 of 2$"):
        OlympusVsiReader.companions(Probe(path))


def test_a_missing_folder_is_a_missing_file(tmp_path: Path) -> None:
    path = write_olympus_vsi(tmp_path, without=(0,))
    with pytest.raises(MissingCompanion, match=r"image file \(\.ets\) 1 of 1$"):
        OlympusVsiReader.companions(Probe(path))


def test_stacks_of_another_kind_are_told_and_left_out(tmp_path: Path) -> None:
    heights = DrawnStack("heights", 16, rows=300, columns=2000, levels=1)
    with opened(write_olympus_vsi(tmp_path, (DrawnStack(), heights))) as slide:
        assert len(slide.scenes) == 1
        assert "a height map belongs to the slide: it is no image of it, and was left out" in slide.findings


def test_a_dimension_that_nothing_explains_is_refused(tmp_path: Path) -> None:
    drawn = replace(FLUORESCENCE, channels=(DAPI, FITC), planes=3, axes="cz")
    path = write_olympus_vsi(tmp_path, (drawn,))
    data = path.read_bytes()
    tag = (2023).to_bytes(4, "little")
    value = data.index(tag, data.index(tag) + 4) + 12  # the second dimension's meaning
    assert data[value : value + 4] == b"\x01\0\0\0"
    path.write_bytes(data[:value] + b"\x09\0\0\0" + data[value + 4 :])
    with pytest.raises(UnsupportedPixels, match="has a dimension that the file does not explain"):
        opened(path)


def test_floating_point_samples_are_refused_by_name(tmp_path: Path) -> None:
    path = write_olympus_vsi(tmp_path, (FLUORESCENCE,))
    ets = tmp_path / "_olympus_" / "stack10001" / "frame_t_0.ets"
    data = bytearray(ets.read_bytes())
    data[72] = 9
    ets.write_bytes(data)
    with pytest.raises(UnsupportedPixels, match="only grey of 8 or 16 bits and RGB of 8 are"):
        opened(path)


def test_a_vsi_without_external_images_is_left_to_others(tmp_path: Path) -> None:
    path = write_olympus_vsi(tmp_path)
    data = path.read_bytes()
    flag = b"\x25\x4e\0\0"
    at = data.index(flag) + 12
    path.write_bytes(data[:at] + bytes(4) + data[at + 4 :])
    assert OlympusVsiReader.why_not(Probe(path)) == "a VSI whose image is in the TIFF itself"


def tags_file(folder: Path, tags: bytes) -> Path:
    path = folder / "tags.vsi"
    path.write_bytes(b"II*\0\0\0\0\0" + tags + bytes(64))
    return path


def test_volumes_one_after_another_are_all_read(tmp_path: Path) -> None:
    parts = (volume(text(2419, "first")), b"\0\0\0\0", volume(text(2419, "second")))
    root = read_tree(tags_file(tmp_path, volume(volumes(2007, *parts, second=3))))
    (dimension,) = root.children
    assert (dimension.tag, dimension.second) == (2007, 3)
    assert [child.value for child in dimension.children] == ["first", "second"]


DAMAGES = [
    (16, 2**31, "the tags of the file are damaged"),
    (8 + 24 + 8, 24, "the tags of the file go round in circles"),
    (8 + 24 + 12, 2**31, "a tag of the file reaches beyond its end"),
    (8 + 24 + 8, 2**30, "the file ends within its tags"),
]


@pytest.mark.parametrize(("offset", "value", "says"), DAMAGES)
def test_tags_that_contradict_themselves_are_refused(
    tmp_path: Path, offset: int, value: int, says: str
) -> None:
    path = tags_file(tmp_path, volume(integer(2074, 1), integer(2074, 2)))
    data = bytearray(path.read_bytes())
    data[offset : offset + 4] = value.to_bytes(4, "little")
    path.write_bytes(data)
    with pytest.raises(DamagedSlide, match=f"^{says}$"):
        read_tree(path)


@pytest.mark.parametrize(("offset", "value", "says"), DAMAGES)
def test_a_volume_within_that_breaks_off_costs_its_own_tags_only(
    tmp_path: Path, offset: int, value: int, says: str
) -> None:
    broken = bytearray(volume(integer(2074, 1), integer(2074, 2)))
    broken[offset - 8 : offset - 4] = value.to_bytes(4, "little")
    path = tags_file(tmp_path, volume((1 << 28 | 2, 2000, None, bytes(broken)), integer(2074, 3)))
    root = read_tree(path)
    assert [child.value for child in root.children] == [None, 3], says
    assert root.value == 1


def test_dimensions_that_do_not_name_their_meaning_are_known_by_their_tags(tmp_path: Path) -> None:
    drawn = replace(FLUORESCENCE, channels=(DAPI, FITC), planes=3, axes="cz")
    path = write_olympus_vsi(tmp_path, (drawn,))
    data = path.read_bytes().replace((2023).to_bytes(4, "little"), (2999).to_bytes(4, "little"))
    path.write_bytes(data)
    with opened(path) as slide:
        level = slide.scenes[0].levels[0]
        assert (level.optical_paths, level.focal_planes) == (2, 3)
        assert np.array_equal(joined(level, 1, 2), drawn.pixels(1, 2))


def test_where_there_is_a_macro_image_the_overview_is_a_scene(tmp_path: Path) -> None:
    macro = replace(OVERVIEW, name="Macro", kind=256, rows=250, columns=750, levels=1)
    with opened(write_olympus_vsi(tmp_path, (OVERVIEW, macro, DrawnStack()))) as slide:
        assert [scene.label for scene in slide.scenes] == ["Overview", "20x_01"]
        overview = slide.associated_image(Role.OVERVIEW)
        assert overview is not None
        assert overview.columns == 750


def test_an_overview_of_unknown_pixel_size_does_not_stop_the_slide(tmp_path: Path) -> None:
    macro = replace(OVERVIEW, name="Macro", kind=256, rows=250, columns=750, levels=1)
    with opened(
        write_olympus_vsi(tmp_path, (replace(OVERVIEW, spacing_um=0.0), macro, DrawnStack()))
    ) as slide:
        assert [scene.label for scene in slide.scenes] == ["20x_01"]
        assert "a overview of unknown pixel size was left out" not in slide.findings
        assert "an overview of unknown pixel size was left out" in slide.findings


def test_tags_nested_without_end_are_refused(tmp_path: Path) -> None:
    tags = volume(integer(2074, 1))
    for _ in range(60):
        tags = volume((1 << 28 | 2, 2000, None, tags))
    with pytest.raises(DamagedSlide, match=r"^the tags of the file are nested too deeply$"):
        read_tree(tags_file(tmp_path, tags))


@pytest.mark.parametrize(
    ("stacks", "syntax", "photometric"),
    [
        ((LABEL, OVERVIEW, DrawnStack(missing=((0, 1, 1),))), "1.2.840.10008.1.2.4.50", "YBR_FULL_422"),
        ((DrawnStack(coding="j2k"),), "1.2.840.10008.1.2.4.90", "YBR_RCT"),
        ((replace(FLUORESCENCE, coding="j2k"),), "1.2.840.10008.1.2.4.90", "MONOCHROME2"),
        ((FLUORESCENCE,), "1.2.840.10008.1.2.4.90", "MONOCHROME2"),
        ((DrawnStack(coding="bgr", rows=300, columns=400),), "1.2.840.10008.1.2.4.90", "YBR_RCT"),
    ],
    ids=["jpeg", "j2k", "16-bit j2k", "16-bit raw", "bgr"],
)
def test_a_slide_becomes_dicom_and_is_proven(
    tmp_path: Path, stacks: tuple[DrawnStack, ...], syntax: str, photometric: str
) -> None:
    path = write_olympus_vsi(tmp_path, stacks)
    (converted,) = convert([path], tmp_path / "out", ConvertOptions(verify=True))
    finest = next(one for one in converted.instances if one.role is Role.VOLUME and one.level == 0)
    assert (finest.transfer_syntax_uid, finest.photometric) == (syntax, photometric)
    assert (converted.verified_tiles > 0) is (stacks[-1].coding in ("jpeg", "j2k"))


def test_lossless_pictures_are_not_called_lossy(tmp_path: Path) -> None:
    stacks = (replace(LABEL, coding="j2k"), replace(OVERVIEW, coding="png"), DrawnStack())
    with opened(write_olympus_vsi(tmp_path, stacks)) as slide:
        assert [image.lossy_method for image in slide.associated] == ["", ""]
        assert np.array_equal(slide.associated[0].read(), LABEL.pixels())


def test_the_sample_slide_is_what_slideio_reads(tmp_path: Path) -> None:
    path = require_data("slides/synthetic/olympus_vs200.vsi")
    with opened(path) as slide:
        level = slide.scenes[0].levels[0]
        assert (slide.scenes[0].label, level.rows, level.columns) == ("20x_01", 2048, 2048)
        assert slide.scenes[0].optical_paths[0].objective_power == 20
        assert [image.role for image in slide.associated] == [Role.THUMBNAIL]
        difference = np.abs(joined(level).astype(int) - by_slideio(path, 0, tmp_path))
        assert difference.mean() < 1
