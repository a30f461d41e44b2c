# SPDX-License-Identifier: Apache-2.0
"""The CZI reader: pixels as ZEISS's own library composes them, and all that the file says."""

import io
import struct
from datetime import UTC, datetime
from pathlib import Path

import imagecodecs
import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydicom.encaps import generate_frames
from pydicom.uid import JPEGBaseline8Bit
from pylibCZIrw import czi as pyczi

from converters.convert import ConvertOptions, convert
from converters.errors import (
    ConversionError,
    DamagedSlide,
    MissingFocalPlaneSpacing,
    UnsupportedCompression,
    UnsupportedPixels,
)
from converters.readers.jpeg_xr_head import is_lossless, size
from converters.registry import open_slide
from converters.slide import Illumination, Level, PixelTiles, Role, Scene, TileMap
from tests.support.converted import born
from tests.support.require import require_data
from tests.support.slides import zeiss_czi as made
from tests.support.slides.czi_writer import (
    JPEG_XR,
    UNCOMPRESSED,
    ZSTD_0,
    ZSTD_1,
    CziWriter,
    metadata_xml,
)

REAL = {
    # file: scenes, (rows, columns) of the first, levels, channels, planes, findings
    "czi/1_tileregion.czi": (1, (570, 1480), 2, 1, 1),
    "czi/CD_s_1_t_3_c_2_z_5.czi": (3, (170, 240), 1, 2, 5),
    "czi/CellDivision_T3_Z6_CH1_X300_Y200_DCV_ZSTD.czi": (3, (200, 300), 1, 1, 6),
    "czi/DAPI_GFP.czi": (1, (640, 640), 1, 2, 1),
    "czi/RGB-8bit.czi": (1, (624, 924), 1, 1, 1),
    "czi/WellD6-7_S2.czi": (2, (440, 544), 2, 1, 1),
    "czi/mosaic_test.czi": (1, (624, 1756), 1, 1, 1),
    "czi/newCZI_compressed.czi": (1, (512, 512), 1, 1, 1),
    "czi/s_1_t_1_c_1_z_1.czi": (1, (325, 475), 1, 1, 1),
    "czi/tiles.czi": (1, (512, 510), 1, 2, 1),
    "czi/tiles_z.czi": (1, (512, 510), 1, 2, 2),
    "synthetic/zeiss_brightfield_raw.czi": (1, (2048, 2048), 1, 1, 1),
    "synthetic/zeiss_brightfield_zstd1.czi": (1, (2048, 2048), 1, 1, 1),
    "synthetic/zeiss_fluorescence_2ch_2z.czi": (1, (1024, 1024), 1, 2, 2),
}


def whole(level: Level, path: int = 0, plane: int = 0) -> NDArray[np.generic]:
    """A level's plane from its decoded tiles."""
    tiles = level.tiles
    assert isinstance(tiles, PixelTiles)
    rows = [
        np.concatenate(
            [tiles.read(level.frame_index(path, plane, row, column)) for column in range(level.tiles_across)],
            axis=1,
        )
        for row in range(level.tiles_down)
    ]
    return np.concatenate(rows)[: level.rows, : level.columns]


def vendors(
    path: Path, *, scene: int | None = None, zoom: float | None = None, **plane: int
) -> NDArray[np.generic]:
    """What ZEISS's library draws, as RGB or grey, on white or black."""
    with pyczi.open_czi(str(path)) as document:
        colour = document.get_channel_pixel_type(plane.get("C", 0)).startswith("Bgr")
        background = (1.0, 1.0, 1.0) if colour else (0.0, 0.0, 0.0)
        pixels = document.read(
            plane={"C": 0, "Z": 0, "T": 0, **plane}, scene=scene, zoom=zoom, background_pixel=background
        )
    return pixels[..., ::-1] if colour else pixels


def written(folder: Path, name: str = "level-0.dcm") -> NDArray[np.generic]:
    """The first plane of a converted level, decoded by a library that we do not encode with."""
    (path,) = folder.rglob(name)
    dataset = pydicom.dcmread(path)
    frames = [
        imagecodecs.jpeg2k_decode(frame)
        for frame in generate_frames(dataset.PixelData, number_of_frames=int(dataset.NumberOfFrames))
    ]
    across = -(-dataset.TotalPixelMatrixColumns // dataset.Columns)
    down = -(-dataset.TotalPixelMatrixRows // dataset.Rows)
    rows = [np.concatenate(frames[row * across : (row + 1) * across], axis=1) for row in range(down)]
    return np.concatenate(rows)[: dataset.TotalPixelMatrixRows, : dataset.TotalPixelMatrixColumns]


def only(path: Path) -> Scene:
    with open_slide(path) as slide:
        (scene,) = slide.scenes
        return scene


@pytest.mark.parametrize("name", REAL)
def test_every_sample_has_the_pixels_that_the_vendors_library_reads(name: str) -> None:
    path = require_data(f"slides/{name}")
    scenes, size, levels, channels, planes = REAL[name]
    with open_slide(path) as slide, pyczi.open_czi(str(path)) as document:
        first = slide.scenes[0]
        assert (len(slide.scenes), len(first.levels)) == (scenes, levels)
        assert (first.levels[0].rows, first.levels[0].columns) == size
        assert slide.findings == ()
        boxes = sorted(document.scenes_bounding_rectangle) or [None]
        times = document.total_bounding_box["T"][1]
        for number, scene in enumerate(slide.scenes):
            level = scene.levels[0]
            assert (level.optical_paths, level.focal_planes) == (channels, planes)
            assert (len(scene.optical_paths), len(scene.focal_planes_um)) == (channels, planes)
            for path_number in range(channels):
                for plane in range(planes):
                    expected = vendors(
                        path, scene=boxes[number // times], C=path_number, Z=plane, T=number % times
                    )
                    assert np.array_equal(whole(level, path_number, plane), expected)
        assert all(image.read().shape[:2] == (image.rows, image.columns) for image in slide.associated)


def test_a_real_mosaic_says_what_took_it() -> None:
    with open_slide(require_data("slides/czi/1_tileregion.czi")) as slide:
        scan, scene = slide.scan, slide.scenes[0]
        assert (scan.manufacturer, scan.model_name) == ("Carl Zeiss Microscopy", "Celldiscoverer 7")
        assert scan.software_versions == ("ZEN (blue edition) 3.6.095.00000",)
        assert scan.acquired == datetime(2022, 9, 30, 11, 3, 6, 216808, tzinfo=UTC)
        assert scan.description.startswith("<ImageDocument>") or "<ImageDocument" in scan.description
        assert scan.properties["information.image.dimensions.channels.channel.emissionwavelength"] == "509"
        assert scene.label == "TR1"
        assert scene.origin_mm is None
        (path,) = scene.optical_paths
        assert (path.description, path.fluorophore, path.illumination) == (
            "EGFP",
            "EGFP",
            Illumination.EPIFLUORESCENCE,
        )
        assert (path.excitation_nm, path.emission_nm, path.exposure_ms) == (488, 509, 2)
        assert (path.objective_power, path.numerical_aperture, path.display_rgb) == (5, 0.35, (0, 255, 91))
        assert [level.pixel_spacing_mm for level in scene.levels] == [(0.0004, 0.0004), (0.0008, 0.0008)]
        assert [image.role for image in slide.associated] == [Role.THUMBNAIL]


def test_the_coarser_level_of_a_real_slide_is_the_one_in_the_file() -> None:
    path = require_data("slides/czi/1_tileregion.czi")
    with open_slide(path) as slide:
        level = slide.scenes[0].levels[1]
        assert (level.rows, level.columns, level.downsample) == (285, 740, 2)
        assert np.array_equal(whole(level), vendors(path, scene=0, zoom=0.5))


def test_transmitted_light_is_no_fluorescence() -> None:
    with open_slide(require_data("slides/czi/s_1_t_1_c_1_z_1.czi")) as slide:
        (path,) = slide.scenes[0].optical_paths
        assert path.illumination is Illumination.BRIGHTFIELD
        assert (path.fluorophore, path.exposure_ms, path.objective_power) == ("", 10, 20)


def test_time_points_are_scenes_of_their_own_with_their_own_time() -> None:
    with open_slide(require_data("slides/czi/CD_s_1_t_3_c_2_z_5.czi")) as slide:
        assert [scene.label for scene in slide.scenes] == ["time point 1", "time point 2", "time point 3"]
        times = [scene.acquired for scene in slide.scenes]
        assert times[0] is not None
        assert times[1] is not None
        assert (times[1] - times[0]).total_seconds() == 60.075
        assert slide.scenes[0].focal_planes_um == pytest.approx((0, 0.32, 0.64, 0.96, 1.28))


@pytest.mark.parametrize("compression", ["uncompressed:", "zstd0:ExplicitLevel=1", "zstd1:ExplicitLevel=1"])
def test_brightfield_of_the_vendors_writer(tmp_path: Path, compression: str) -> None:
    path = made.write_brightfield(tmp_path, compression=compression)
    scene = only(path)
    (level,) = scene.levels
    assert (level.rows, level.columns, level.tile_rows, level.tile_columns) == (1024, 1280, 256, 256)
    assert level.pixel_spacing_mm == (0.00022, 0.00022)
    with open_slide(path) as slide:
        found = whole(slide.scenes[0].levels[0])
    assert np.array_equal(found, made.drawn())
    assert np.array_equal(found, vendors(path))
    assert scene.optical_paths[0].description == "TL Brightfield"
    assert scene.optical_paths[0].illumination is Illumination.BRIGHTFIELD


def test_channels_are_optical_paths_and_z_are_focal_planes(tmp_path: Path) -> None:
    path = made.write_fluorescence(tmp_path)
    with open_slide(path) as slide:
        (scene,) = slide.scenes
        (level,) = scene.levels
        for channel in range(2):
            for plane in range(2):
                found = whole(level, channel, plane)
                assert found.dtype == np.uint16
                assert np.array_equal(found, made.grey16(channel, plane))
        assert [one.description for one in scene.optical_paths] == ["DAPI", "Cy5"]
        assert [one.identifier for one in scene.optical_paths] == ["1", "2"]
        assert scene.focal_planes_um == (0.0, 1.5)
        assert level.pixel_type.bits_stored == 16


def test_focal_planes_without_a_distance_are_not_given_one(tmp_path: Path) -> None:
    with pytest.raises(MissingFocalPlaneSpacing):
        born(made.write_fluorescence(tmp_path, scale_z=0.0))


def test_scenes_keep_their_own_boxes_however_far_apart(tmp_path: Path) -> None:
    path = made.write_scenes(tmp_path)
    with open_slide(path) as slide:
        sizes = [(scene.levels[0].rows, scene.levels[0].columns) for scene in slide.scenes]
        assert sizes == [(200, 250), (300, 350), (400, 450)]
        for number, scene in enumerate(slide.scenes):
            size = sizes[number][0]
            assert np.array_equal(whole(scene.levels[0]), made.drawn(size, size + 50, number))


@pytest.mark.parametrize("numbered", [True, False])
def test_tiles_that_overlap_are_drawn_in_the_order_of_m(tmp_path: Path, numbered: bool) -> None:
    path = made.write_mosaic(tmp_path, numbered=numbered)
    with open_slide(path) as slide:
        (level,) = slide.scenes[0].levels
        found = whole(level)
        assert np.array_equal(found, vendors(path, scene=0))
        assert isinstance(level.tiles, PixelTiles)
        assert level.tiles.why == "tiles overlap, or lie on no grid"
        if numbered:  # tile 0 has M 4, tile 1 has M 1: 0 lies on top
            overlap = np.s_[:200, 400 - made.OVERLAP : 400]
            assert np.array_equal(found[overlap], made.mosaic_tile(0)[overlap])


def test_bare_glass_is_white_and_its_tiles_are_absent(tmp_path: Path) -> None:
    with open_slide(made.write_mosaic(tmp_path)) as slide:
        (level,) = slide.scenes[0].levels
        absent = level.tiles.absent.reshape(level.tiles_down, level.tiles_across)
        assert absent.tolist() == [[False, False, False, True], [False, False, False, False]]
        assert (whole(level)[:512, 1536:] == 255).all()
        assert level.absent_colour == (255, 255, 255)


def test_jpeg_tiles_on_a_grid_are_copied_as_they_are(tmp_path: Path) -> None:
    path = made.write_slide(tmp_path)
    data = path.read_bytes()
    with open_slide(path) as slide:
        for number, scene in enumerate(slide.scenes):
            level = scene.levels[0]
            assert isinstance(level.tiles, TileMap)
            assert (level.tile_rows, level.tile_columns, len(level.tiles)) == (256, 256, 10)
            pixels = made.drawn(512, 1280, 30 + number)
            for index, (offset, length) in enumerate(
                zip(level.tiles.offsets.tolist(), level.tiles.lengths.tolist(), strict=True)
            ):
                tile = np.array(Image.open(io.BytesIO(data[offset : offset + length])))
                top, left = index // 5 * 256, index % 5 * 256
                assert np.abs(tile.astype(int) - pixels[top : top + 256, left : left + 256]).max() < 12


def test_a_level_of_jpeg_with_smaller_tiles_at_the_edge_is_decoded(tmp_path: Path) -> None:
    with open_slide(made.write_slide(tmp_path)) as slide:
        level = slide.scenes[1].levels[1]
        assert (level.rows, level.columns, level.downsample) == (256, 640, 2)
        assert isinstance(level.tiles, PixelTiles)
        assert level.tiles.lossy_method == "ISO_10918_1"
        assert np.abs(whole(level).astype(int) - made.drawn(512, 1280, 31)[::2, ::2]).max() < 12


def test_a_whole_slide_says_all_it_says(tmp_path: Path) -> None:
    with open_slide(made.write_slide(tmp_path)) as slide:
        assert slide.findings == ()
        assert [scene.label for scene in slide.scenes] == ["ScanRegion0", "ScanRegion1"]
        scan = slide.scan
        assert (scan.manufacturer, scan.model_name) == ("Carl Zeiss Microscopy", "Axioscan 7")
        assert (scan.barcode, scan.device_serial_number) == ("S24-1234 A1", "")
        assert scan.acquired == datetime(2024, 5, 6, 7, 8, 9, 123456, tzinfo=UTC)
        path = slide.scenes[0].optical_paths[0]
        assert (path.objective_power, path.numerical_aperture, path.exposure_ms) == (20, 0.8, 0.2)


def test_a_slide_is_not_refused_for_a_label_of_another_kind(tmp_path: Path) -> None:
    label, whole = CziWriter(), CziWriter()
    label.add(made.drawn(90, 80), 0, 0, C=0)
    whole.add(made.drawn(64, 80), 0, 0, C=0)
    data = label.to_bytes(metadata_xml())
    unknown = struct.pack("<2si", b"DV", 3), struct.pack("<2si", b"DV", 9)  # 32-bit float colours
    assert unknown[0] in data
    whole.attach("Label", "CZI", data.replace(*unknown))
    with open_slide(whole.save(tmp_path / "slide.czi", metadata_xml())) as slide:
        assert slide.associated == ()
        assert [text for text in slide.findings if text.startswith("the label image is left out")]


def test_label_preview_and_thumbnail_are_attachments(tmp_path: Path) -> None:
    with open_slide(made.write_slide(tmp_path)) as slide:
        label = slide.associated_image(Role.LABEL)
        overview = slide.associated_image(Role.OVERVIEW)
        thumbnail = slide.associated_image(Role.THUMBNAIL)
        assert label is not None
        assert overview is not None
        assert thumbnail is not None
        assert np.array_equal(label.read(), made.drawn(120, 90, 8))
        assert (label.lossy_method, label.compression) == ("", "none")
        assert np.abs(overview.read().astype(int) - made.drawn(150, 400, 9)).max() < 12
        assert (overview.lossy_method, overview.compression) == ("ISO_29199_2", "JPEG XR")
        assert (thumbnail.rows, thumbnail.columns) == (80, 100)
        assert thumbnail.codestream[:2] == b"\xff\xd8"
        assert np.array_equal(thumbnail.read(), imagecodecs.jpeg8_decode(thumbnail.codestream))


@pytest.mark.parametrize("compression", [UNCOMPRESSED, JPEG_XR, ZSTD_0, ZSTD_1])
def test_every_compression_decodes_as_the_vendors_library_does(tmp_path: Path, compression: int) -> None:
    for pixels in (
        made.drawn(200, 300),
        made.drawn(200, 300)[..., :1].copy(),
        made.grey16(1, 1, 200, 300),
        made.drawn(200, 300).astype(np.uint16) * 257,
    ):
        path = made.write_samples(tmp_path, pixels, compression=compression)
        if pixels.shape[2] == 3 and pixels.itemsize == 2 and compression == ZSTD_1:
            continue  # the vendor's reader (6.1) does not give back what its own writer wrote
        with open_slide(path) as slide:
            (level,) = slide.scenes[0].levels
            found = whole(level)
        expected = vendors(path)
        if pixels.shape[2] == 3:
            expected = (expected >> (8 * (pixels.itemsize - 1))).astype(np.uint8)
        assert np.array_equal(found, expected)


@pytest.mark.parametrize("quality", [1.0, 0.99, 0.5, 0.2])
def test_jpeg_xr_is_lossy_only_where_it_is(tmp_path: Path, quality: float) -> None:
    for pixels in (made.drawn(64, 80), made.drawn(64, 80)[..., 1].copy(), made.grey16(0, 0, 64, 80)[..., 0]):
        data = imagecodecs.jpegxr_encode(pixels, level=quality)
        assert is_lossless(data) == np.array_equal(imagecodecs.jpegxr_decode(data), pixels)
        assert size(data) == (64, 80)
        assert not any(is_lossless(data[:length]) for length in range(0, 150, 7))
    path = made.write_samples(tmp_path, made.grey16(0, 0, 64, 80), data=data)
    with open_slide(path) as slide:
        tiles = slide.scenes[0].levels[0].tiles
        assert isinstance(tiles, PixelTiles)
        assert tiles.lossy_method == ("" if quality == 1.0 else "ISO_29199_2")


def test_an_outdated_pyramid_is_not_trusted(tmp_path: Path) -> None:
    with open_slide(made.write_slide(tmp_path, stale=True)) as slide:
        assert [len(scene.levels) for scene in slide.scenes] == [1, 1]
        assert slide.findings == ("the level of 2 to 1 is out of date or incomplete: computed anew",)


def test_a_pyramid_with_a_hole_is_not_trusted(tmp_path: Path) -> None:
    with open_slide(made.write_slide(tmp_path, hole=True)) as slide:
        assert [len(scene.levels) for scene in slide.scenes] == [1, 1]
        assert len(slide.findings) == 1


def test_a_stack_that_goes_down_is_turned_lowest_first(tmp_path: Path) -> None:
    with open_slide(made.write_channels(tmp_path)) as slide:
        (scene,) = slide.scenes
        assert scene.focal_planes_um == (0.0, 2.0)
        assert np.array_equal(whole(scene.levels[0], 1, 0), made.grey16(1, 1, 200, 300))
        assert [path.emission_nm for path in scene.optical_paths] == [465, 668]
        assert scene.optical_paths[0].exposure_ms == 25


def test_colour_and_grey_channels_become_two_scenes(tmp_path: Path) -> None:
    with open_slide(made.write_channels(tmp_path, times=2, colour=True)) as slide:
        assert [scene.label for scene in slide.scenes] == [
            "time point 1, colour",
            "time point 1, grey",
            "time point 2, colour",
            "time point 2, grey",
        ]
        assert [path.identifier for path in slide.scenes[0].optical_paths] == ["3"]
        assert slide.scenes[2].acquired == datetime(2024, 5, 6, 7, 9, 9, tzinfo=UTC)
        assert np.array_equal(whole(slide.scenes[0].levels[0]), made.drawn(200, 300))
        assert np.array_equal(whole(slide.scenes[3].levels[0], 0, 1), made.grey16(0, 0, 200, 300) + 1)


def test_floats_are_mapped_and_the_mapping_is_declared(tmp_path: Path) -> None:
    values = np.linspace(-3, 7, 200 * 300, dtype=np.float32).reshape(200, 300, 1)
    path = made.write_samples(tmp_path, values)
    with open_slide(path) as slide:
        (scene,) = slide.scenes
        mapping = scene.optical_paths[0].real_world
        assert mapping is not None
        stored = whole(scene.levels[0])
        assert stored.dtype == np.uint16
        assert (stored.min(), stored.max()) == (0, 65535)
        back = mapping.intercept + mapping.slope * stored.astype(np.float64)
        assert np.abs(back - values).max() <= mapping.slope / 2 + 1e-6


@pytest.mark.parametrize("bits", [10, 12, 16])
def test_colours_of_sixteen_bits_keep_their_upper_eight(tmp_path: Path, bits: int) -> None:
    pixels = made.drawn(100, 120).astype(np.uint16) << (bits - 8)
    with open_slide(made.write_samples(tmp_path, pixels, bits=bits, compression=ZSTD_1)) as slide:
        assert np.array_equal(whole(slide.scenes[0].levels[0]), made.drawn(100, 120))
        assert slide.findings == ("colours of 16 bits are kept in 8",)


def test_views_and_phases_are_refused_in_one_line(tmp_path: Path) -> None:
    writer = CziWriter()
    for view in range(3):
        writer.add(made.grey16(0, 0, 64, 64), 0, 0, C=0, V=view)
    path = writer.save(tmp_path / "views.czi", metadata_xml())
    with pytest.raises(UnsupportedPixels, match=r"^3 images of each place \(dimension V\) are not read$"):
        open_slide(path)


def test_an_unknown_compression_is_named(tmp_path: Path) -> None:
    path = made.write_samples(tmp_path, made.drawn(64, 64))
    data = path.read_bytes()
    where = data.index(b"ZISRAWDIRECTORY") + 32 + 128 + 18
    path.write_bytes(data[:where] + b"\x02" + data[where + 1 :])
    with (
        open_slide(path) as slide,
        pytest.raises(UnsupportedCompression, match="unsupported compression LZW"),
    ):
        whole(slide.scenes[0].levels[0])


def test_an_unknown_pixel_size_is_not_invented(tmp_path: Path) -> None:
    writer = CziWriter()
    writer.add(made.drawn(64, 64), 0, 0, C=0)
    scene = only(writer.save(tmp_path / "a.czi", metadata_xml(spacing_um=None)))
    assert scene.levels[0].pixel_spacing_mm is None


def test_xml_with_entities_is_refused(tmp_path: Path) -> None:
    writer = CziWriter()
    writer.add(made.drawn(64, 64), 0, 0, C=0)
    bomb = '<!DOCTYPE a [<!ENTITY a "aaaaaaaa">]><ImageDocument><Metadata>&a;</Metadata></ImageDocument>'
    with pytest.raises(DamagedSlide, match=r"^the metadata XML is damaged$"):
        open_slide(writer.save(tmp_path / "a.czi", bomb))


def test_what_is_written_decodes_to_what_was_scanned(tmp_path: Path) -> None:
    path = made.write_mosaic(tmp_path)
    convert([path], tmp_path / "out", ConvertOptions(verify=True))
    assert np.array_equal(written(tmp_path / "out"), vendors(path, scene=0))


def test_a_whole_slide_becomes_dicom_and_passes_the_proof(tmp_path: Path) -> None:
    (done,) = convert([made.write_slide(tmp_path)], tmp_path / "out", ConvertOptions(verify=True))
    names = {file.name for file in done.files}
    assert {"level-0.dcm", "scene-1-level-0.dcm", "label.dcm", "overview.dcm", "thumbnail.dcm"} <= names
    datasets = {file.name: pydicom.dcmread(file, stop_before_pixels=True) for file in done.files}
    assert datasets["level-0.dcm"].file_meta.TransferSyntaxUID == JPEGBaseline8Bit
    assert datasets["level-0.dcm"].PyramidUID != datasets["scene-1-level-0.dcm"].PyramidUID
    assert datasets["label.dcm"].BarcodeValue == "S24-1234 A1"


@pytest.mark.parametrize("seed", range(6))
def test_flipped_bytes_give_a_slide_or_one_clear_line(tmp_path: Path, seed: int) -> None:
    original = made.write_slide(tmp_path, compression=ZSTD_1).read_bytes()
    generator = np.random.default_rng(seed)
    lines, whole_ones = set(), 0
    head = len(original) - original.index(b"ZISRAWDIRECTORY")
    for _ in range(25):
        data = bytearray(original)
        for _ in range(4):  # mostly where structure is
            at = generator.integers(len(data) - head, len(data)) if generator.random() < 0.7 else 0
            data[int(at) or int(generator.integers(32, 544))] = int(generator.integers(256))
        path = tmp_path / "flipped.czi"
        path.write_bytes(data)
        try:
            with open_slide(path) as slide:
                for scene in slide.scenes:
                    for level in scene.levels:
                        if isinstance(level.tiles, PixelTiles) and len(level.tiles) < 100:
                            level.tiles.read(0)
            whole_ones += 1
        except ConversionError as error:
            lines.add(str(error))
    assert whole_ones
    assert not any("\n" in line or "no reader" in line for line in lines)
