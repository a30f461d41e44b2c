# SPDX-License-Identifier: Apache-2.0
"""The Motic MDSX reader: tiles are ranges of a BKIO container."""

import base64
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest

from converters.convert import ConvertOptions, convert
from converters.errors import DamagedSlide
from converters.probe import Probe
from converters.readers.encoded_tiles import tile_bytes
from converters.readers.motic_mdsx import MoticMdsxReader
from converters.readers.motic_words import motic_words, xml_text
from converters.slide import Role, Slide, TileMap
from tests.support.make_slide import picture
from tests.support.require import require_data
from tests.support.slides.motic import BACKGROUND, MoticSlide
from tests.support.slides.motic_mdsx import write_motic_mdsx


def opened(path: Path) -> Slide:
    probe = Probe(path)
    assert MoticMdsxReader.why_not(probe) is None
    return MoticMdsxReader.open(probe)


@pytest.mark.parametrize("encoded", [True, False], ids=["base64", "plain"])
def test_every_tile_is_the_jpeg_that_was_written(tmp_path: Path, encoded: bool) -> None:
    drawn = MoticSlide()
    path = write_motic_mdsx(tmp_path, drawn, encoded=encoded)
    with opened(path) as slide:
        for layer, cells in enumerate(drawn.cells()):
            level = slide.scenes[0].levels[layer]
            assert isinstance(level.tiles, TileMap)
            assert len(level.tiles) == len(cells) == level.number_of_frames
            for (row, column), data in cells.items():
                assert tile_bytes(path, level.tiles, level.frame_index(0, 0, row, column)) == data


def test_levels_are_the_pixels_that_were_drawn(tmp_path: Path) -> None:
    with opened(write_motic_mdsx(tmp_path, MoticSlide(rows=512, columns=768))) as slide:
        level = slide.scenes[0].levels[0]
        assert level.reference is not None
        tile = level.reference(level.frame_index(0, 0, 1, 2))
        expected = picture(512, 768, 7)[256:512, 512:768]
        assert np.abs(tile.astype(int) - expected).mean() < 3


def test_all_that_the_xml_says_is_told(tmp_path: Path) -> None:
    with opened(write_motic_mdsx(tmp_path)) as slide:
        assert slide.format == "motic-mdsx"
        assert slide.scenes[0].levels[0].pixel_spacing_mm == pytest.approx((0.000519712, 0.000519712))
        assert slide.scenes[0].optical_paths[0].objective_power == 20
        assert slide.scan.barcode == "S26-123"
        assert slide.scan.acquired == datetime(2026, 3, 14, 9, 26, 53)
        assert slide.scan.properties["imagematrix.cellwidth"] == "256"


def test_label_and_preview_are_copied_as_they_are(tmp_path: Path) -> None:
    drawn = MoticSlide()
    with opened(write_motic_mdsx(tmp_path, drawn)) as slide:
        label, preview = slide.associated
        assert (label.role, label.codestream) == (Role.LABEL, drawn.label())
        assert (preview.role, preview.codestream) == (Role.OVERVIEW, drawn.macro())


def test_a_preview_of_the_scanned_areas_shape_is_a_thumbnail(tmp_path: Path) -> None:
    with opened(write_motic_mdsx(tmp_path, MoticSlide(rows=300, columns=900))) as slide:
        assert [image.role for image in slide.associated] == [Role.LABEL, Role.THUMBNAIL]


def test_tiles_of_length_zero_are_absent(tmp_path: Path) -> None:
    drawn = MoticSlide(missing=((0, 0, 1), (0, 3, 4)))
    with opened(write_motic_mdsx(tmp_path, drawn)) as slide:
        level = slide.scenes[0].levels[0]
        assert np.flatnonzero(level.tiles.absent).tolist() == [1, 19]
        assert level.absent_colour == BACKGROUND


def test_a_preview_that_is_no_picture_is_left_out_and_said(tmp_path: Path) -> None:
    drawn = MoticSlide()
    path = write_motic_mdsx(tmp_path, drawn)
    path.write_bytes(path.read_bytes().replace(drawn.macro()[:4], b"none", 1))
    with opened(path) as slide:
        assert "the overview image is left out: it is no picture that can be read" in slide.findings
        assert [image.role for image in slide.associated] == [Role.LABEL]


@pytest.mark.parametrize(
    "wrapped",
    [
        b"<a/>",
        "<a/>".encode("utf-16"),
        "<a/>\r\n\0\0".encode("utf-16-le"),
        base64.b64encode("<?xml version='1.0' encoding='GB2312'?><a/>\r\n".encode("utf-16-le")),
        base64.encodebytes("<a/>".encode("utf-16-le")) + b"\0\0\0",
        b"\xef\xbb\xbf<a/>",
    ],
)
def test_the_xml_is_found_in_each_of_its_wrappings(wrapped: bytes) -> None:
    assert xml_text(wrapped) == "<a/>"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("<Width", "<Breadth"), "the slide's XML has no usable Width"),
        (('LayerCount value="3"', 'LayerCount value="9000000"'), "the slide's XML has no usable LayerCount"),
        (('LayerCount value="3"', 'LayerCount value="5"'), "the slide's XML does not describe layer 3"),
        (('Scale value="0.5"', 'Scale value="-2"'), "layer 1 has an impossible scale"),
        (("ImageMatrix", "Matrix"), "the slide's XML has no ImageMatrix"),
        (("</MoticDigitalSlideImage>", ""), "the slide's XML (MoticDigitalSlideImage) cannot be parsed"),
        (
            ("<Version", "<!DOCTYPE a [<!ENTITY b 'c'>]><Version"),
            "the slide's XML (MoticDigitalSlideImage) cannot be parsed",
        ),
    ],
)
def test_xml_that_cannot_be_believed_is_refused(change: tuple[str, str], says: str) -> None:
    xml = MoticSlide().image_xml().replace(*change)
    with pytest.raises(DamagedSlide) as refusal:
        motic_words(xml.encode("utf-16"), b"")
    assert str(refusal.value) == says


def test_a_slide_becomes_dicom_and_every_tile_is_proven(tmp_path: Path) -> None:
    path = write_motic_mdsx(tmp_path, MoticSlide(missing=((0, 1, 1),)))
    (converted,) = convert([path], tmp_path / "out", ConvertOptions(verify=True))
    assert converted.verified_tiles == 19 + 6 + 2
    copied = [one for one in converted.instances if not one.why_not_born]
    assert len(copied) == 5  # three levels, label and macro
    assert {one.transfer_syntax_uid for one in copied} == {"1.2.840.10008.1.2.4.50"}
    assert {one.photometric for one in copied} == {"YBR_FULL_422"}


def test_the_sample_slide_opens_whole() -> None:
    path = require_data("slides/synthetic/motic.mdsx")
    with opened(path) as slide:
        levels = slide.scenes[0].levels
        assert [(level.rows, level.columns) for level in levels] == [(2048, 2048), (1024, 1024), (512, 512)]
        assert [image.role for image in slide.associated] == [Role.LABEL, Role.THUMBNAIL]
        assert levels[0].reference is not None
        assert levels[0].reference(5).shape == (512, 512, 3)
