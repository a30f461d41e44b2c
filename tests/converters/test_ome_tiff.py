# SPDX-License-Identifier: Apache-2.0
"""The OME-TIFF reader: planes found, regions and time points as scenes, what the XML says."""

import re
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import tifffile

from converters.convert import ConvertOptions, convert
from converters.errors import DamagedSlide, MissingCompanion, MissingFocalPlaneSpacing
from converters.readers.ome_tiff import OmeTiffReader
from converters.readers.ome_xml import parse_ome
from converters.registry import companions, open_slide
from converters.slide import Illumination, PixelTiles, Role, Slide, TileMap
from converters.writer.metadata import Metadata
from tests.support.converted import born
from tests.support.level_pixels import tile_bytes
from tests.support.level_values import level_values, written_values
from tests.support.make_slide import picture
from tests.support.require import require_data
from tests.support.slides.ome_tiff import (
    CHANNELS,
    FLUORS,
    MARKERS,
    Image,
    colour,
    document,
    grey,
    write_brightfield,
    write_lunaphore,
    write_ome,
    write_ome_files,
)

SAMPLES = {
    "slides/ome-tiff/qupath-cells.ome.tif": (1, 1, 1),
    "slides/ome-tiff/qupath-cells-2c.ome.tif": (2, 1, 1),
    "slides/ome-tiff/qupath-cells-2z.ome.tif": (1, 2, 1),
    "slides/synthetic/brightfield_jpeg_pyramid.ome.tiff": (1, 1, 3),
    "slides/synthetic/lunaphore_comet.ome.tiff": (5, 1, 3),
}
"""Channels, planes, levels."""
LIT = "the file does not say how channels were lit: taken for fluorescence"


def check_planes(slide: Slide, image: Image, *, scene: int = 0, time: int = 0) -> None:
    """Every path and plane of the finest level has the values that were written."""
    level = slide.scenes[scene].levels[0]
    channels, depth = image.pixels.shape[1:3]
    assert (level.optical_paths, level.focal_planes) == (channels, depth)
    for path in range(channels):
        for plane in range(depth):
            assert np.array_equal(level_values(level, path, plane)[..., 0], image.pixels[time, path, plane])


@pytest.mark.parametrize("name", SAMPLES)
def test_samples_have_their_planes_and_become_dicom(tmp_path: Path, name: str) -> None:
    path = require_data(name)
    with open_slide(path) as slide:
        assert slide.format == OmeTiffReader.format
        (scene,) = slide.scenes
        first = scene.levels[0]
        assert (first.optical_paths, first.focal_planes, len(scene.levels)) == SAMPLES[name]
    (done,) = convert([path], tmp_path / "out", ConvertOptions(verify=True))
    assert "level-0.dcm" in {file.name for file in done.files}


@pytest.mark.parametrize("name", SAMPLES)
def test_samples_have_the_pixels_that_tifffile_reads(name: str) -> None:
    path = require_data(name)
    with open_slide(path) as slide, tifffile.TiffFile(path) as tiff:
        for number, level in enumerate(slide.scenes[0].levels):
            pages = list(tiff.series[0].levels[number].pages)
            for at, page in enumerate(pages):
                values = level_values(level, *divmod(at, level.focal_planes)).squeeze()
                read = page.asarray()  # type: ignore[union-attr]
                assert np.array_equal(values, np.moveaxis(read, 0, -1) if read.shape[0] == 3 else read)


def test_the_distance_of_planes_is_asked_for_where_it_is_not_stated() -> None:
    path = require_data("slides/ome-tiff/multi-channel-z-series.ome.tif")
    with open_slide(path) as slide:
        assert (slide.scenes[0].levels[0].focal_planes, slide.scenes[0].focal_planes_um) == (5, ())
    with pytest.raises(MissingFocalPlaneSpacing):
        born(path, Metadata(pixel_spacing_mm=(0.001, 0.001)))
    assert born(path, Metadata(pixel_spacing_mm=(0.001, 0.001), focal_plane_spacing_um=2))


def test_lunaphores_channels_have_all_that_is_known(tmp_path: Path) -> None:
    with open_slide(write_lunaphore(tmp_path)) as slide:
        (scene,) = slide.scenes
        assert [path.description for path in scene.optical_paths] == list(MARKERS)
        for number, path in enumerate(scene.optical_paths):
            fluor = MARKERS[number].split("_")[0]
            assert (path.fluorophore, path.excitation_nm, path.emission_nm) == (fluor, *FLUORS[fluor])
            assert path.exposure_ms == 20 + number
            assert path.display_rgb == (255, number, 0)
            assert path.illumination is Illumination.EPIFLUORESCENCE
        assert [path.identifier for path in scene.optical_paths] == ["1", "2", "3", "4", "5"]
        scan = slide.scan
        assert (scan.manufacturer, scan.model_name) == ("Lunaphore", "COMET")
        assert scan.software_versions == ("Writer 1.2",)
        assert scan.acquired == datetime(2023, 5, 4, 10, 11, 12)
        assert scan.properties["instrument"] == "Lunaphore COMET"
        assert scene.label == "COMET cycle stack"
        assert slide.findings == ()


def test_every_channel_of_every_level_decodes_to_what_was_written(tmp_path: Path) -> None:
    drawn = grey(5, rows=900, columns=1000, dtype="uint16")
    with open_slide(write_lunaphore(tmp_path)) as slide:
        levels = slide.scenes[0].levels
        assert [level.pixel_spacing_mm for level in levels] == [
            pytest.approx((0.00023 * factor,) * 2) for factor in (1, 2, 4)
        ]
        for level, factor in zip(levels, (1, 2, 4), strict=True):
            for number in range(5):
                assert np.array_equal(
                    level_values(level, number)[..., 0], drawn[0, number, 0, ::factor, ::factor]
                )


@pytest.mark.parametrize("compression", ["jpeg", "jpeg2000"])
def test_brightfield_tiles_are_the_ones_of_the_file_byte_by_byte(tmp_path: Path, compression: str) -> None:
    path = write_brightfield(tmp_path, compression=compression)
    with open_slide(path) as slide, tifffile.TiffFile(path) as tiff:
        data = path.read_bytes()
        pages = [tiff.pages.first, *tiff.pages.first.pages]
        (scene,) = slide.scenes
        for level, page in zip(scene.levels, pages, strict=True):
            assert isinstance(level.tiles, TileMap)
            stored = [
                data[at : at + size] for at, size in zip(page.dataoffsets, page.databytecounts, strict=True)
            ]
            assert [tile_bytes(slide, level, index) for index in range(len(level.tiles))] == stored
        assert scene.optical_paths[0].illumination is Illumination.BRIGHTFIELD


def test_label_and_macro_are_told_by_their_names(tmp_path: Path) -> None:
    with open_slide(write_brightfield(tmp_path)) as slide:
        assert [image.role for image in slide.associated] == [Role.LABEL, Role.OVERVIEW]
        assert np.array_equal(slide.associated[0].read(), picture(120, 160, 62))
        assert [scene.label for scene in slide.scenes] == ["region"]


def test_the_instrument_is_taken_from_the_xml(tmp_path: Path) -> None:
    with open_slide(write_brightfield(tmp_path)) as slide:
        scan, path = slide.scan, slide.scenes[0].optical_paths[0]
        assert (scan.manufacturer, scan.model_name, scan.device_serial_number) == ("Maker", "M-7", "0042")
        assert (path.objective_power, path.numerical_aperture) == (20.0, 0.75)
        assert scan.description.startswith("<?xml")


@pytest.mark.parametrize("order", ["XYZCT", "XYZTC", "XYCTZ", "XYCZT", "XYTCZ", "XYTZC"])
def test_every_dimension_order_finds_every_plane(tmp_path: Path, order: str) -> None:
    pixels = grey(2, 3, 2, rows=40, columns=50, dtype="uint8")
    image = Image(pixels, microns=(0.5, 0.5, 2.0), order=order)
    with open_slide(write_ome(tmp_path, [image])) as slide:
        assert [scene.label for scene in slide.scenes] == ["time point 1", "time point 2"]
        for time in range(2):
            check_planes(slide, image, scene=time, time=time)
            assert slide.scenes[time].focal_planes_um == (0.0, 2.0, 4.0)
        assert [path.identifier for path in slide.scenes[1].optical_paths] == ["1", "2"]
        assert slide.findings == (LIT,)


def test_time_points_have_their_own_time(tmp_path: Path) -> None:
    planes = '<Plane TheZ="0" TheC="0" TheT="1" DeltaT="90" DeltaTUnit="s"/>'
    image = Image(
        grey(1, 1, 2, rows=40, columns=50, dtype="uint8"), planes=planes, acquired="2023-05-04T10:11:12+02:00"
    )
    with open_slide(write_ome(tmp_path, [image])) as slide:
        zone = timezone(timedelta(hours=2))
        assert slide.scan.acquired == datetime(2023, 5, 4, 10, 11, 12, tzinfo=zone)
        assert [scene.acquired for scene in slide.scenes] == [
            None,
            datetime(2023, 5, 4, 10, 12, 42, tzinfo=zone),
        ]


def test_images_are_scenes(tmp_path: Path) -> None:
    images = [
        Image(colour(200, 220), name="left"),
        Image(colour(100, 120, 7), name="right", microns=(0.25, 0.25, None), acquired=""),
    ]
    with open_slide(write_ome(tmp_path, images)) as slide:
        assert [(scene.index, scene.label) for scene in slide.scenes] == [(0, "left"), (1, "right")]
        for scene, image in zip(slide.scenes, images, strict=True):
            assert np.array_equal(level_values(scene.levels[0]), image.pixels[0, 0, 0])
        assert slide.scenes[1].levels[0].pixel_spacing_mm == (0.00025, 0.00025)


@pytest.mark.parametrize("compression", [33003, 33004, 34712])
@pytest.mark.parametrize("mct", [True, False])
def test_jpeg_2000_of_bioformats_is_rgb_under_each_of_its_numbers(
    tmp_path: Path, compression: int, mct: bool
) -> None:
    """Aperio calls YCbCr 33003; Bio-Formats, and QuPath with it, RGB."""
    form = {
        "tile": (256, 256),
        "compression": compression,
        "compressionargs": {"mct": mct, "reversible": True, "level": 0, "codecformat": "j2k"},
    }
    path = write_ome(tmp_path, [Image(colour(300, 400), form=form)])
    with open_slide(path) as slide:
        assert isinstance(slide.scenes[0].levels[0].tiles, TileMap)
    (done,) = convert([path], tmp_path / "out", ConvertOptions(verify=True))
    finest = next(file for file in done.files if file.name == "level-0.dcm")
    assert pydicom.dcmread(finest).PhotometricInterpretation == ("YBR_RCT" if mct else "RGB")
    assert np.array_equal(written_values(finest), picture(300, 400, 61))


def test_colours_stored_apart_are_joined(tmp_path: Path) -> None:
    form = {"planarconfig": "separate", "compression": "lzw"}
    with open_slide(write_ome(tmp_path, [Image(colour(200, 220), form=form)])) as slide:
        assert np.array_equal(level_values(slide.scenes[0].levels[0]), picture(200, 220, 61))


@pytest.mark.parametrize("channels", ["", '<Channel Name="R"/><Channel Name="G"/><Channel Name="B"/>'])
def test_colours_are_colours_without_samples_per_pixel(tmp_path: Path, channels: str) -> None:
    image = Image(colour(200, 220))
    start, _, rest = document([image]).partition("<Channel")
    text = start + channels + rest.partition("/>")[2]
    path = tmp_path / "slide.ome.tiff"
    with tifffile.TiffWriter(path) as writer:
        writer.write(image.raster()[0], photometric="rgb", metadata=None, description=text.encode())
    with open_slide(path) as slide:
        (scene,) = slide.scenes
        assert [path.illumination for path in scene.optical_paths] == [Illumination.BRIGHTFIELD]
        assert np.array_equal(level_values(scene.levels[0]), picture(200, 220, 61))


def test_colours_of_16_bits_become_three_paths_of_grey(tmp_path: Path) -> None:
    image = Image(colour(200, 220).astype(np.uint16) * 200)
    with open_slide(write_ome(tmp_path, [image])) as slide:
        (scene,) = slide.scenes
        assert [path.description for path in scene.optical_paths] == ["red", "green", "blue"]
        assert {path.illumination for path in scene.optical_paths} == {Illumination.BRIGHTFIELD}
        for number in range(3):
            assert np.array_equal(
                level_values(scene.levels[0], number)[..., 0], image.pixels[0, 0, 0, ..., number]
            )


@pytest.mark.parametrize("dtype", ["int8", "int16", "uint32", "float32"])
def test_values_that_dicom_cannot_hold_are_mapped_as_declared(tmp_path: Path, dtype: str) -> None:
    image = Image(grey(2, rows=100, columns=120, dtype=dtype), channels=CHANNELS[:2])
    with open_slide(write_ome(tmp_path, [image])) as slide:
        (scene,) = slide.scenes
        for number, path in enumerate(scene.optical_paths):
            mapping = path.real_world
            assert mapping is not None
            back = level_values(scene.levels[0], number)[..., 0] * mapping.slope + mapping.intercept
            error = np.abs(back - image.pixels[0, number, 0].astype(float)).max()
            assert error <= (0 if "int" in dtype and dtype != "uint32" else mapping.slope / 2 * 1.001)


def test_a_palette_is_a_look_up_table_of_grey_unless_it_is_one_of_colours(tmp_path: Path) -> None:
    ramp = np.zeros((3, 256), np.uint16)
    ramp[1] = np.arange(256) * 257
    image = Image(
        grey(1, rows=100, columns=120, dtype="uint8"), form={"photometric": "palette", "colormap": ramp}
    )
    with open_slide(write_ome(tmp_path, [image])) as slide:
        check_planes(slide, image)
        assert slide.scenes[0].optical_paths[0].display_rgb == (0, 255, 0)
    colours = np.random.default_rng(1).integers(0, 65536, (3, 256), np.uint16)
    image.form = {"photometric": "palette", "colormap": colours}
    with open_slide(write_ome(tmp_path, [image])) as slide:
        expected = (colours >> 8).astype(np.uint8).T[image.pixels[0, 0, 0]]
        assert np.array_equal(level_values(slide.scenes[0].levels[0]), expected)


@pytest.mark.parametrize(
    ("positions", "step", "order"),
    [((10, 11.5, 13), 1.5, (0, 1, 2)), ((13, 11.5, 10), 1.5, (2, 1, 0))],
)
def test_focal_planes_come_lowest_first(
    tmp_path: Path, positions: tuple[float, ...], step: float, order: tuple[int, ...]
) -> None:
    planes = "".join(
        f'<Plane TheZ="{z}" TheC="0" TheT="0" PositionZ="{height}" PositionZUnit="µm"/>'
        for z, height in enumerate(positions)
    )
    image = Image(grey(1, 3, rows=40, columns=50, dtype="uint8"), planes=planes)
    with open_slide(write_ome(tmp_path, [image])) as slide:
        assert slide.scenes[0].focal_planes_um == (0.0, step, 2 * step)
        for plane, z in enumerate(order):
            level = slide.scenes[0].levels[0]
            assert np.array_equal(level_values(level, 0, plane)[..., 0], image.pixels[0, 0, z])


@pytest.mark.parametrize(("heights", "order"), [((1, 2, 5), (0, 1, 2)), ((5, 1, 2), (1, 2, 0))])
def test_uneven_focal_planes_keep_their_heights(
    tmp_path: Path, heights: tuple[int, ...], order: tuple[int, ...]
) -> None:
    planes = "".join(
        f'<Plane TheZ="{z}" TheC="0" TheT="0" PositionZ="{height}" PositionZUnit="µm"/>'
        for z, height in enumerate(heights)
    )
    image = Image(grey(1, 3, rows=40, columns=50, dtype="uint8"), planes=planes)
    path = write_ome(tmp_path, [image])
    with open_slide(path) as slide:
        assert slide.scenes[0].focal_planes_um == (0.0, 1.0, 4.0)
        for plane, z in enumerate(order):
            level = slide.scenes[0].levels[0]
            assert np.array_equal(level_values(level, 0, plane)[..., 0], image.pixels[0, 0, z])
    (done,) = convert([path], tmp_path / "out")
    finest = pydicom.dcmread(done.folder / "level-0.dcm")
    assert finest.DimensionOrganizationType == "TILED_SPARSE"
    found = [
        frame.PlanePositionSlideSequence[0].ZOffsetInSlideCoordinateSystem
        for frame in finest.PerFrameFunctionalGroupsSequence
    ]
    assert [float(height) for height in found] == pytest.approx([0.0, 1.0, 4.0])


@pytest.mark.parametrize("companion", [False, True])
def test_planes_in_other_files_are_found(tmp_path: Path, companion: bool) -> None:
    path = write_ome_files(tmp_path, companion=companion)
    others = ["slide_1.ome.tiff", "slide_2.ome.tiff"]
    assert list(companions(path)) == (["slide.companion.ome"] if companion else []) + others
    image = Image(grey(3, rows=300, columns=400, dtype="uint16"))
    with open_slide(path) as slide:
        check_planes(slide, image)
        assert [source.relative_name for source in slide.sources] == ["slide_0.ome.tiff", *others]
        assert [path.description for path in slide.scenes[0].optical_paths] == list(MARKERS[:3])
    with open_slide(tmp_path / "slide_1.ome.tiff") as slide:  # each file is the whole slide
        check_planes(slide, image)


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("slide_2.ome.tiff", "image file 2 of the 2 beside the first"),
        ("slide.companion.ome", "the companion with the OME-XML"),
    ],
)
def test_a_missing_file_is_named_by_its_part(tmp_path: Path, name: str, what: str) -> None:
    path = write_ome_files(tmp_path, companion=True)
    (tmp_path / name).unlink()
    for ask in (open_slide, companions):
        with pytest.raises(MissingCompanion, match=f"^a file of the slide is missing: {what}$"):
            ask(path)


def test_copied_channels_come_from_their_own_files(tmp_path: Path) -> None:
    names = ["slide_0.ome.tiff", "slide_1.ome.tiff"]
    image = Image(grey(2, rows=300, columns=400, dtype="uint8"), channels=CHANNELS[:2])
    text = document([image], files=names)
    for number, name in enumerate(names):
        with tifffile.TiffWriter(tmp_path / name) as writer:
            writer.write(
                image.pixels[0, number, 0], tile=(128, 128), compression="jpeg", photometric="minisblack",
                metadata=None, description=text.encode(),
            )  # fmt: skip
    with open_slide(tmp_path / names[0]) as slide:
        (level,) = slide.scenes[0].levels
        assert isinstance(level.tiles, TileMap)
        assert level.tiles.files.tolist() == [0] * 12 + [1] * 12
        values = level_values(level, 1)[..., 0].astype(int)
        assert np.abs(values - image.pixels[0, 1, 0]).mean() < 2
    (done,) = convert([tmp_path / names[0]], tmp_path / "out", ConvertOptions(verify=True))
    assert done.verified_tiles == 24


@pytest.mark.parametrize("uuid", [True, False])
def test_a_renamed_file_is_still_its_own(tmp_path: Path, uuid: bool) -> None:
    """By its UUID, whatever now has its old name; or else because it is the only one."""
    image = Image(grey(1, rows=40, columns=50, dtype="uint8"))
    text = document([image], files=["another.ome.tiff"])
    if uuid:
        (tmp_path / "another.ome.tiff").write_bytes(b"another file")
    else:
        text = re.sub(r"urn:uuid:[^<\"]*", "", text)
    path = tmp_path / "slide.ome.tiff"
    with tifffile.TiffWriter(path) as writer:
        writer.write(image.raster()[0], metadata=None, description=text.encode())
    assert companions(path) == ()
    with open_slide(path) as slide:
        check_planes(slide, image)


@pytest.mark.parametrize("name", ["../other.tiff", "/etc/other.tiff", "C:\\other.tiff", "a/../../b.tiff"])
def test_a_file_outside_of_the_folder_is_never_opened(tmp_path: Path, name: str) -> None:
    path = write_ome_files(tmp_path)
    with tifffile.TiffFile(path) as tiff:
        text = tiff.pages.first.description.replace("slide_1.ome.tiff", name)
    with tifffile.TiffWriter(path) as writer:
        writer.write(np.zeros((300, 400), np.uint16), metadata=None, description=text.encode())
    for ask in (open_slide, companions):
        with pytest.raises(DamagedSlide, match="outside of the slide's folder"):
            ask(path)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('SizeX="50"', 'SizeX="51"', "the OME-XML and the pages differ in size"),
        ('SizeX="50"', 'SizeX="-1"', "the OME-XML has an impossible image size"),
        ('SizeZ="1"', 'SizeZ="9999999"', "an image of more than 1000000 planes"),
        ('PlaneCount="2"', 'PlaneCount="3"', "the OME-XML places planes outside of their image"),
        ('IFD="0"', 'IFD="1"', "the OME-XML counts more planes than the file has pages"),
        ('IFD="0"', 'IFD="x"', "the OME-XML has an impossible IFD"),
        ('IFD="0"', 'IFD="0" FirstC="2"', "the OME-XML places planes outside of their image"),
        ('"XYCZT"', '"XYQZT"', "the OME-XML has an impossible DimensionOrder"),
        ('SizeC="2"', 'SizeC="3"', "the channels of the OME-XML do not add up to SizeC"),
        ("</Image>", "</Imago>", "the OME-XML is not well-formed XML"),
        ("<OME ", "<!DOCTYPE a [<!ENTITY b 'c'>]><OME ", "the OME-XML is not well-formed XML"),
    ],
)
def test_xml_that_contradicts_itself_or_the_pages_is_refused(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    image = Image(grey(2, rows=40, columns=50, dtype="uint8"))
    text = document([image])
    assert old in text
    path = tmp_path / "slide.ome.tiff"
    with tifffile.TiffWriter(path) as writer:
        for number, plane in enumerate(image.raster()):
            description = text.replace(old, new).encode() if number == 0 else None
            writer.write(plane, metadata=None, description=description)
    with pytest.raises(DamagedSlide, match=f"^{message}$"):
        open_slide(path)


def test_planes_that_the_scanner_left_out_are_absent_and_said(tmp_path: Path) -> None:
    image = Image(grey(2, rows=40, columns=50, dtype="uint8"), channels=CHANNELS[:2])
    text = document([image]).replace('PlaneCount="2"', 'PlaneCount="1"')
    path = tmp_path / "slide.ome.tiff"
    with tifffile.TiffWriter(path) as writer:
        writer.write(image.raster()[0], metadata=None, description=text.encode())
    with open_slide(path) as slide:
        (level,) = slide.scenes[0].levels
        assert level.tiles.absent.tolist() == [False, True]
        assert slide.findings == ("planes are missing: shown black",)


@pytest.mark.parametrize(
    ("attributes", "spacing"),
    [
        ({}, 0.0005),
        ({"unit": "nm", "size": "500"}, 0.0005),
        ({"unit": "mm", "size": "0.0005"}, 0.0005),
        ({"unit": "pixel", "size": "1"}, None),
        ({"unit": "µm", "size": "352.8"}, None),
        ({"unit": "µm", "size": "nan"}, None),
    ],
)
def test_lengths_are_read_with_their_units(
    tmp_path: Path, attributes: dict[str, str], spacing: float | None
) -> None:
    image = Image(grey(1, rows=40, columns=50, dtype="uint8"))
    text = document([image])
    for axis in "XY":
        new = f'PhysicalSize{axis}="{attributes.get("size", "0.5")}"'
        unit = attributes.get("unit")
        new += f' PhysicalSize{axis}Unit="{unit}"' if unit else ""
        text = text.replace(f'PhysicalSize{axis}="0.5"', new)
    path = tmp_path / "slide.ome.tiff"
    with tifffile.TiffWriter(path) as writer:
        writer.write(image.raster()[0], metadata=None, description=text.encode())
    with open_slide(path) as slide:
        found = slide.scenes[0].levels[0].pixel_spacing_mm
        assert found == (None if spacing is None else pytest.approx((spacing, spacing)))


def test_colours_are_signed_and_illumination_is_told() -> None:
    channel = 'Color="-8388353" IlluminationType="Transmitted" ContrastMethod="Phase"'
    image = Image(grey(1, rows=4, columns=5, dtype="uint8"), channels=[channel])
    found = parse_ome(document([image])).images[0].channels[0]
    assert (found.rgb, found.contrast, found.illumination) == ((255, 128, 0), "Phase", "Transmitted")


def test_phase_contrast_is_told(tmp_path: Path) -> None:
    channel = 'IlluminationType="Transmitted" ContrastMethod="Phase"'
    image = Image(grey(1, rows=40, columns=50, dtype="uint8"), channels=[channel])
    with open_slide(write_ome(tmp_path, [image])) as slide:
        assert slide.scenes[0].optical_paths[0].illumination is Illumination.PHASE_CONTRAST
        assert slide.findings == ()


def test_what_is_written_decodes_to_what_was_scanned(tmp_path: Path) -> None:
    image = Image(
        grey(2, 2, rows=300, columns=310, dtype="uint16"), channels=CHANNELS[:2], microns=(0.5, 0.5, 1.5)
    )
    other = Image(colour(100, 120), name="second")
    (done,) = convert([write_ome(tmp_path, [image, other])], tmp_path / "out", ConvertOptions(verify=True))
    files = {file.name: file for file in done.files}
    for path in range(2):
        for plane in range(2):
            found = written_values(files["level-0.dcm"], path * 2 + plane)
            assert np.array_equal(found, image.pixels[0, path, plane])
    assert np.array_equal(written_values(files["scene-1-level-0.dcm"]), picture(100, 120, 61))
    dataset: Any = pydicom.dcmread(files["level-0.dcm"], stop_before_pixels=True)
    assert (dataset.TotalPixelMatrixFocalPlanes, dataset.NumberOfOpticalPaths) == (2, 2)
    assert isinstance(dataset.OpticalPathSequence[0].OpticalPathDescription, str)


def test_level_zero_of_a_scan_is_decoded_only_where_it_must_be(tmp_path: Path) -> None:
    image = Image(colour(300, 320), form={"tile": (128, 128), "compression": "zlib"})
    with open_slide(write_ome(tmp_path, [image])) as slide:
        tiles = slide.scenes[0].levels[0].tiles
        assert isinstance(tiles, PixelTiles)
        assert tiles.why == "no legal form in DICOM for compression deflate"
