# SPDX-License-Identifier: Apache-2.0
"""The reader of TIFFs without a vendor's mark: levels found, whatever they are coded in."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from converters.convert import ConvertOptions, convert
from converters.errors import ConversionError, MissingPixelSpacing, UnsupportedCompression, UnsupportedPixels
from converters.probe import Probe
from converters.readers.generic_tiff import GenericTiffReader
from converters.registry import claiming, open_slide
from converters.slide import Level, PixelTiles, Role, TileMap
from converters.writer.metadata import Metadata
from tests.support.level_pixels import tile_bytes
from tests.support.level_values import level_values, written_values
from tests.support.make_slide import make_svs, picture, srgb_profile
from tests.support.require import require_data
from tests.support.slides.generic_tiff import as_aperio_jpeg_2000, write_generic_tiff
from tests.support.slides.leica_scn import write_leica_scn
from tests.support.slides.motic_tiff import write_motic_tiff
from tests.support.slides.ndpi import write_ndpi
from tests.support.slides.olympus_vsi import write_brightfield as write_vsi
from tests.support.slides.ome_tiff import write_brightfield as write_ome
from tests.support.slides.philips_tiff import write_philips_tiff
from tests.support.slides.qptiff import write_qptiff
from tests.support.slides.trestle import write_trestle
from tests.support.slides.ventana_bif import write_ventana_bif

RGB = picture(1100, 1300, 31)
SPACING = Metadata(pixel_spacing_mm=(0.0005, 0.0005))
SAMPLES = {
    "slides/synthetic/generic_pyramid_jpeg.tiff": ("", [(2048, 2048), (1024, 1024), (512, 512)]),
    "slides/synthetic/generic_pyramid_j2k.tiff": ("", [(2048, 2048), (1024, 1024), (512, 512)]),
    "slides/generic-tiff/cytomine_test-image.tiff": ("MPP", [(862, 896)]),
    "slides/generic-tiff/openslide_boxes.tiff": ("MPP", [(250, 300), (125, 150), (62, 75), (31, 37)]),
    "slides/generic-tiff/panimg_valid_tiff.tif": ("MPP", [(205, 205), (102, 102)]),
    "slides/generic-tiff/pathml_smalltif.tif": ("MPP", [(480, 640)]),
    "slides/generic-tiff/large_image_yb10kx5k.zstd.tiff": (
        "MPP",
        [(5000, 10000), (2500, 5000), (1250, 2500), (625, 1250), (312, 625)],
    ),
}
"""What the file lacks, and its levels."""


def levels_of(path: Path) -> list[Level]:
    with open_slide(path) as slide:
        assert slide.format == GenericTiffReader.format
        return list(slide.scenes[0].levels)


@pytest.mark.parametrize("name", SAMPLES)
def test_samples_convert_or_ask_for_the_pixel_size(tmp_path: Path, name: str) -> None:
    path = require_data(name)
    lacks, sizes = SAMPLES[name]
    assert [(level.rows, level.columns) for level in levels_of(path)] == sizes
    if lacks:
        with pytest.raises(MissingPixelSpacing):
            convert([path], tmp_path / "out")
        assert not any(tmp_path.rglob("*.dcm"))
    if "large_image" not in name:  # the others are small
        (done,) = convert([path], tmp_path / "out", ConvertOptions(metadata=SPACING, verify=True))
        assert "level-0.dcm" in {file.name for file in done.files}


@pytest.mark.parametrize("name", [name for name in SAMPLES if "pyramid" not in name])
def test_samples_that_are_decoded_have_the_pixels_that_tifffile_reads(name: str) -> None:
    path = require_data(name)
    with open_slide(path) as slide, tifffile.TiffFile(path) as tiff:
        level = slide.scenes[0].levels[-1]
        page = list(tiff.pages)[level.index]
        assert np.array_equal(level_values(level).squeeze(), page.asarray())


def test_a_compression_that_nobody_knows_is_named() -> None:
    with pytest.raises(UnsupportedCompression, match=r"^unsupported compression 52479 in page 0$"):
        open_slide(require_data("slides/generic-tiff/openslide_unopenable.tiff"))


@pytest.mark.parametrize(
    "form",
    [
        {"compression": "zlib"},
        {"compression": "zstd", "bigtiff": True},
        {"compression": "lzw", "below": True},
        {"compression": "zlib", "tile": None},
        {"compression": None, "tile": None, "flagged": False},
        {"compression": "webp", "compressionargs": {"lossless": True}},
    ],
)
def test_every_level_decodes_to_what_was_written(tmp_path: Path, form: dict[str, Any]) -> None:
    with open_slide(write_generic_tiff(tmp_path, **form)) as slide:
        levels = slide.scenes[0].levels
        assert [level.downsample for level in levels] == [1.0, 2.0, 4.0]
        for level, factor in zip(levels, (1, 2, 4), strict=True):
            assert isinstance(level.tiles, PixelTiles)
            assert level.pixel_spacing_mm == pytest.approx((0.0005 * factor,) * 2)
            assert np.array_equal(level_values(level), RGB[::factor, ::factor])
        assert slide.findings == ()


@pytest.mark.parametrize("coding", ["jpeg", "jpeg2000", "33005"])
@pytest.mark.parametrize("below", [False, True])
def test_tiles_are_the_ones_of_the_file_byte_by_byte(tmp_path: Path, coding: str, below: bool) -> None:
    path = write_generic_tiff(tmp_path, compression=coding.replace("33005", "jpeg2000"), below=below)
    if coding == "33005":
        as_aperio_jpeg_2000(path)
    with open_slide(path) as slide, tifffile.TiffFile(path) as tiff:
        data = path.read_bytes()
        pages = [tiff.pages.first, *tiff.pages.first.pages] if below else list(tiff.pages)
        for level, page in zip(slide.scenes[0].levels, pages, strict=True):
            assert isinstance(level.tiles, TileMap)
            stored = [
                data[at : at + size] for at, size in zip(page.dataoffsets, page.databytecounts, strict=True)
            ]
            assert [tile_bytes(slide, level, index) for index in range(len(level.tiles))] == stored


def test_what_is_written_decodes_to_what_was_scanned(tmp_path: Path) -> None:
    path = write_generic_tiff(tmp_path, compression="zstd", levels=(1, 2))
    (done,) = convert([path], tmp_path / "out", ConvertOptions(verify=True))
    for name, factor in (("level-0.dcm", 1), ("level-1.dcm", 2)):
        file = next(file for file in done.files if file.name == name)
        assert np.array_equal(written_values(file), RGB[::factor, ::factor])


def test_label_and_macro_are_told_by_their_descriptions(tmp_path: Path) -> None:
    with open_slide(write_generic_tiff(tmp_path, named=True)) as slide:
        assert [image.role for image in slide.associated] == [Role.LABEL, Role.OVERVIEW]
        assert np.array_equal(slide.associated[0].read(), picture(120, 160, 5))


def test_the_icc_profile_is_kept(tmp_path: Path) -> None:
    with open_slide(write_generic_tiff(tmp_path, icc=True)) as slide:
        assert slide.scenes[0].optical_paths[0].icc_profile == srgb_profile()


@pytest.mark.parametrize("microns", [None, 0.01, 352.8])
def test_a_resolution_that_no_microscope_has_is_not_believed(tmp_path: Path, microns: float | None) -> None:
    path = write_generic_tiff(tmp_path, microns=microns)
    assert levels_of(path)[0].pixel_spacing_mm is None
    with pytest.raises(MissingPixelSpacing):
        convert([path], tmp_path / "out")


def test_colours_of_16_bits_become_three_paths_of_grey(tmp_path: Path) -> None:
    wide = RGB.astype(np.uint16) * 200
    with open_slide(write_generic_tiff(tmp_path, pixels=wide, compression="zlib")) as slide:
        (scene,) = slide.scenes
        assert [path.description for path in scene.optical_paths] == ["red", "green", "blue"]
        for number in range(3):
            assert np.array_equal(level_values(scene.levels[1], number)[..., 0], wide[::2, ::2, number])


def test_floats_are_mapped_and_the_mapping_declared(tmp_path: Path) -> None:
    values = RGB[..., 0].astype(np.float32) / 3 - 20
    path = write_generic_tiff(tmp_path, pixels=values, compression="zlib", photometric="minisblack")
    with open_slide(path) as slide:
        mapping = slide.scenes[0].optical_paths[0].real_world
        assert mapping is not None
        for level, factor in zip(slide.scenes[0].levels, (1, 2, 4), strict=True):
            back = level_values(level)[..., 0] * mapping.slope + mapping.intercept
            assert np.abs(back - values[::factor, ::factor]).max() <= mapping.slope / 2 + 1e-5


def test_a_page_of_another_shape_is_left_out_and_said(tmp_path: Path) -> None:
    path = tmp_path / "slide.tiff"
    with tifffile.TiffWriter(path) as writer:
        for shown in (RGB, RGB[:300, :900]):
            writer.write(shown, photometric="rgb", metadata=None, compression="zlib")
    with open_slide(path) as slide:
        assert len(slide.scenes[0].levels) == 1
        assert slide.findings == ("page 1 is no reduced picture of the first: left out",)


def test_a_small_colour_page_beside_a_grey_image_is_its_thumbnail(tmp_path: Path) -> None:
    path = tmp_path / "slide.tiff"
    with tifffile.TiffWriter(path) as writer:
        writer.write(RGB[..., 0], metadata=None)
        writer.write(np.ascontiguousarray(RGB[::8, ::8]), photometric="rgb", metadata=None)
    with open_slide(path) as slide:
        assert [image.role for image in slide.associated] == [Role.THUMBNAIL]
        assert np.array_equal(slide.associated[0].read(), RGB[::8, ::8])


def test_the_finest_level_may_come_last(tmp_path: Path) -> None:
    path = write_generic_tiff(tmp_path, compression="zlib", levels=(4, 2, 1), flagged=False)
    with open_slide(path) as slide:
        levels = slide.scenes[0].levels
        assert [level.downsample for level in levels] == [1.0, 2.0, 4.0]
        assert np.array_equal(level_values(levels[0]), RGB)


def test_a_transparency_mask_is_left_out_and_said(tmp_path: Path) -> None:
    path = tmp_path / "slide.tiff"
    with tifffile.TiffWriter(path) as writer:
        writer.write(RGB, photometric="rgb", metadata=None, compression="zlib")
        writer.write(RGB[..., 0] > 9, metadata=None, subfiletype=4)
    with open_slide(path) as slide:
        assert slide.findings == ("page 1 is a transparency mask: left out",)


def test_pages_of_one_size_are_refused(tmp_path: Path) -> None:
    path = write_generic_tiff(tmp_path, levels=(1, 1), flagged=False)
    with pytest.raises(UnsupportedPixels, match=r"^several pages as large as the first"):
        open_slide(path)


VENDORS = {
    "Aperio": lambda folder: make_svs(folder / "slide.svs"),
    "Philips": write_philips_tiff,
    "Leica SCN": write_leica_scn,
    "Ventana": write_ventana_bif,
    "Hamamatsu NDPI": write_ndpi,
    "Akoya/PerkinElmer QPTIFF": write_qptiff,
    "OME": write_ome,
    "Trestle": write_trestle,
    "Motic": write_motic_tiff,
    "Olympus VSI": write_vsi,
}


@pytest.mark.parametrize("vendor", VENDORS)
def test_a_vendors_mark_is_respected_and_one_reader_claims_the_file(tmp_path: Path, vendor: str) -> None:
    path = VENDORS[vendor](tmp_path)
    probe = Probe(path)
    try:
        assert GenericTiffReader.why_not(probe) == f"the TIFF has the mark of {vendor}"
    finally:
        probe.close()
    assert claiming(path) is not GenericTiffReader  # which raises where two claim it


def test_a_dicom_file_that_is_a_tiff_too_is_no_generic_one(tmp_path: Path) -> None:
    path = write_generic_tiff(tmp_path)
    data = bytearray(path.read_bytes())
    data[128:132] = b"DICM"
    path.write_bytes(data)
    probe = Probe(path)
    assert GenericTiffReader.why_not(probe) == "a DICOM file, whose preamble is a TIFF's header"
    probe.close()


@pytest.mark.parametrize("seed", range(8))
def test_flipped_bytes_give_a_slide_or_one_clear_line(tmp_path: Path, seed: int) -> None:
    path = write_generic_tiff(tmp_path, rows=300, columns=400, compression="zlib", tile=128)
    data = bytearray(path.read_bytes())
    generator = np.random.default_rng(seed)
    for at in generator.integers(0, 600, 5):
        data[at] = generator.integers(0, 256)
    path.write_bytes(data)
    message = ""
    try:
        with open_slide(path) as slide:
            for level in slide.scenes[0].levels:
                assert level.number_of_frames == len(level.tiles)
    except ConversionError as refusal:
        message = str(refusal)
    assert "\n" not in message
