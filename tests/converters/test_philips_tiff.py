# SPDX-License-Identifier: Apache-2.0
"""The Philips TIFF reader: padding cropped, tiles copied, what the XML says."""

import io
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import openslide
import pytest
import tifffile
from PIL import Image

from converters.errors import DamagedSlide
from converters.readers.philips_tiff import PhilipsTiffReader
from converters.registry import open_slide
from converters.slide import Role, TileMap
from tests.support.level_pixels import level_pixels, tile_bytes
from tests.support.require import require_data
from tests.support.slides.philips_tiff import write_philips_tiff

SAMPLE = "slides/synthetic/philips_dp.tiff"


def test_the_sample_says_all_it_says() -> None:
    with open_slide(require_data(SAMPLE)) as slide:
        assert slide.format == PhilipsTiffReader.format
        assert [(level.rows, level.columns, level.downsample) for level in slide.scenes[0].levels] == [
            (2048, 2048, 1.0),
            (1024, 1024, 2.0),
            (512, 512, 4.0),
        ]
        assert [(image.role, image.rows, image.columns) for image in slide.associated] == [
            (Role.LABEL, 463, 387),
            (Role.OVERVIEW, 431, 1280),
        ]
        scan = slide.scan
        assert (scan.manufacturer, scan.device_serial_number, scan.barcode) == (
            "PHILIPS",
            "FMT0123",
            "S16-00042",
        )
        assert scan.software_versions == ("1.8.6824", "20180906_R51")
        assert scan.acquired == datetime(2016, 7, 18, 12, 23)


def test_levels_have_the_sizes_and_pixels_that_openslide_reads(tmp_path: Path) -> None:
    """Every level is padded to whole tiles of its own; all but the first are cropped."""
    path = write_philips_tiff(tmp_path)
    with open_slide(path) as slide, openslide.OpenSlide(path) as peer:
        levels = slide.scenes[0].levels
        assert [(level.columns, level.rows) for level in levels] == list(peer.level_dimensions)
        assert [(level.rows, level.columns) for level in levels] == [(1536, 1536), (768, 768), (384, 384)]
        for level in levels:
            read = peer.read_region((0, 0), level.index, (level.columns, level.rows)).convert("RGB")
            assert np.abs(np.asarray(read, int) - level_pixels(slide, level)).max() <= 2


def test_tiles_are_the_ones_of_the_file_byte_by_byte(tmp_path: Path) -> None:
    path = write_philips_tiff(tmp_path)
    with open_slide(path) as slide, tifffile.TiffFile(path) as tiff:
        data = path.read_bytes()
        for level, page in zip(slide.scenes[0].levels, tiff.pages, strict=True):
            stored = [
                data[at : at + size] for at, size in zip(page.dataoffsets, page.databytecounts, strict=True)
            ]
            assert [tile_bytes(slide, level, index) for index in range(len(level.tiles))] == stored
            assert isinstance(level.tiles, TileMap)
            assert level.tiles.jpeg_tables == page.jpegtables


def test_a_whole_tile_of_padding_is_left_out_and_a_missing_row_is_absent(tmp_path: Path) -> None:
    """The file says 1536 x 1536 and 3 x 3 tiles for what is 768 x 768 by its spacing; or
    too little."""
    path = write_philips_tiff(tmp_path, tile=256, levels=(1, 2))
    with tifffile.TiffFile(path) as tiff:
        stored = [len(page.dataoffsets) for page in tiff.pages]
        tags = tiff.pages[1].tags
        places = [tags[name].valueoffset for name in ("ImageLength", "TileOffsets", "TileByteCounts")]
        counts = [tags[name].offset + 4 for name in ("TileOffsets", "TileByteCounts")]
        assert stored == [30, 9]
    data = bytearray(path.read_bytes())
    data[places[0] : places[0] + 4] = (512).to_bytes(4, "little")  # three rows of tiles become two
    for at in counts:
        data[at : at + 8] = (6).to_bytes(8, "little")
    path.write_bytes(data)
    with open_slide(path) as slide:
        level = slide.scenes[0].levels[1]
        assert (level.rows, level.columns) == (640, 768)
        assert np.flatnonzero(level.tiles.absent).tolist() == [6, 7, 8]


def test_tiles_that_were_never_scanned_are_absent_and_white(tmp_path: Path) -> None:
    path = write_philips_tiff(tmp_path, missing=(1, 5))
    with open_slide(path) as slide:
        level = slide.scenes[0].levels[0]
        assert np.flatnonzero(level.tiles.absent).tolist() == [1, 5]
        assert level.absent_colour == (255, 255, 255)
        assert (level_pixels(slide, level)[:512, 512:1024] == 255).all()


def test_pixel_spacing_is_the_images_own_and_grows_with_the_downsample(tmp_path: Path) -> None:
    """The representations repeat it rounded to six digits."""
    with open_slide(write_philips_tiff(tmp_path, spacing_mm=(0.0002468, 0.0002477))) as slide:
        assert [level.pixel_spacing_mm for level in slide.scenes[0].levels] == [
            (0.0002468, 0.0002477),
            (0.0004936, 0.0004954),
            (0.0009872, 0.0009908),
        ]
        assert slide.scenes[0].origin_mm is None


@pytest.mark.parametrize("role", [Role.LABEL, Role.OVERVIEW])
def test_pictures_of_the_xml_are_whole_jpegs(tmp_path: Path, role: Role) -> None:
    path = write_philips_tiff(tmp_path)
    with open_slide(path) as slide, openslide.OpenSlide(path) as peer:
        image = slide.associated_image(role)
        assert image is not None
        with Image.open(io.BytesIO(image.codestream)) as decoded:
            assert decoded.size == (image.columns, image.rows)
        name = {Role.LABEL: "label", Role.OVERVIEW: "macro"}[role]
        peers = np.asarray(peer.associated_images[name].convert("RGB"), int)
        assert np.abs(peers - image.read()).max() <= 2


def test_pictures_in_pages_stand_in_for_those_of_the_xml(tmp_path: Path) -> None:
    path = write_philips_tiff(tmp_path, pictures_in_xml=False, pictures_in_pages=True)
    with open_slide(path) as slide, tifffile.TiffFile(path) as tiff:
        assert len(slide.scenes[0].levels) == 3
        for role, number in ((Role.OVERVIEW, 3), (Role.LABEL, 4)):
            image = slide.associated_image(role)
            assert image is not None
            assert np.array_equal(image.read(), tiff.pages[number].asarray())


def test_the_description_is_kept_without_its_pictures(tmp_path: Path) -> None:
    with open_slide(write_philips_tiff(tmp_path, barcode="Ä-1")) as slide:
        assert slide.scan.barcode == "Ä-1"
        assert "PIM_DP_IMAGE_DATA" in slide.scan.description
        assert len(slide.scan.description) < 6000
        assert slide.scan.properties["dicom_manufacturer"] == "PHILIPS"
        assert slide.scan.model_name == "UFS Scanner"
        assert slide.scenes[0].optical_paths[0].objective_power == 40
        assert slide.scenes[0].levels[0].history == "PHILIPS_DP_1_0 PHILIPS_TIFF_1_0 3 15"


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("20160718122300.5", datetime(2016, 7, 18, 12, 23, 0, 500000)),
        ("20160718122300+0200", datetime(2016, 7, 18, 12, 23, tzinfo=timezone(timedelta(hours=2)))),
        ("20161318122300", None),
        ("20160718122300+9900", None),
        ("yesterday", None),
        ("", None),
    ],
)
def test_the_time_of_scanning_is_taken_as_stated(tmp_path: Path, text: str, moment: datetime | None) -> None:
    with open_slide(write_philips_tiff(tmp_path, levels=(1,), rows=300, columns=300, acquired=text)) as slide:
        assert slide.scan.acquired == moment
        assert (slide.scan.acquired is None) == bool(slide.findings)
        if moment is not None:
            assert slide.scan.acquired is not None
            assert slide.scan.acquired.tzinfo == moment.tzinfo


def test_an_entity_in_the_xml_is_refused(tmp_path: Path) -> None:
    path = write_philips_tiff(tmp_path)
    old = b'<?xml version="1.0" encoding="UTF-8" ?>'
    new = b'<!DOCTYPE a [<!ENTITY b "c">]>'.ljust(len(old))
    data = path.read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, new))
    with pytest.raises(DamagedSlide, match="not well-formed XML"):
        open_slide(path)
