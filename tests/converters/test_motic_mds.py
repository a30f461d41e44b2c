# SPDX-License-Identifier: Apache-2.0
"""The Motic MDS reader: streams of a compound file are tiles, in one piece or in many."""

import time
from datetime import datetime
from pathlib import Path

import numpy as np
import olefile
import pytest

from converters.convert import ConvertOptions, convert
from converters.errors import DamagedSlide
from converters.probe import Probe
from converters.readers.compound_file import CompoundFile
from converters.readers.encoded_tiles import tile_bytes
from converters.readers.motic_mds import MoticMdsReader
from converters.slide import GatherMap, Role, Slide, TileMap
from tests.support.make_slide import picture
from tests.support.require import require_data
from tests.support.slides.compound import write_compound_file
from tests.support.slides.motic import BACKGROUND, MoticSlide
from tests.support.slides.motic_mds import write_motic_mds


def opened(path: Path) -> Slide:
    probe = Probe(path)
    assert MoticMdsReader.why_not(probe) is None
    return MoticMdsReader.open(probe)


@pytest.mark.parametrize("scattered", [False, True], ids=["in one piece", "scattered"])
@pytest.mark.parametrize("sector", [512, 4096])
def test_every_tile_is_its_streams_bytes(tmp_path: Path, scattered: bool, sector: int) -> None:
    drawn = MoticSlide()
    path = write_motic_mds(tmp_path, drawn, scattered=scattered, sector=sector)
    cells = drawn.cells()
    with opened(path) as slide, olefile.OleFileIO(path) as independent:
        levels = slide.scenes[0].levels
        assert len(levels) == 3
        for layer, level in enumerate(levels):
            assert isinstance(level.tiles, TileMap | GatherMap)
            assert len(level.tiles) == level.number_of_frames
            for (row, column), data in cells[layer].items():
                found = tile_bytes(path, level.tiles, level.frame_index(0, 0, row, column))
                name = f"DSI0/{1 / 2**layer:g}/{row:04d}_{column:04d}"
                assert found == data == independent.openstream(name).read()
        assert isinstance(levels[0].tiles, GatherMap) is scattered


def test_small_tiles_lie_in_the_mini_stream_and_are_ranges_too(tmp_path: Path) -> None:
    drawn = MoticSlide(rows=300, columns=300, tile=64, layers=2)
    path = write_motic_mds(tmp_path, drawn)
    assert max(map(len, drawn.cells()[0].values())) < 4096
    with opened(path) as slide:
        level = slide.scenes[0].levels[0]
        assert isinstance(level.tiles, TileMap)
        for (row, column), data in drawn.cells()[0].items():
            assert tile_bytes(path, level.tiles, level.frame_index(0, 0, row, column)) == data


def test_levels_are_the_pixels_that_were_drawn(tmp_path: Path) -> None:
    drawn = MoticSlide(rows=500, columns=700)
    with opened(write_motic_mds(tmp_path, drawn)) as slide:
        level = slide.scenes[0].levels[0]
        assert (level.rows, level.columns, level.tile_rows, level.tile_columns) == (500, 700, 256, 256)
        assert level.reference is not None
        whole = np.zeros((512, 768, 3), np.uint8)
        for row in range(2):
            for column in range(3):
                tile = level.reference(level.frame_index(0, 0, row, column))
                whole[row * 256 : row * 256 + 256, column * 256 : column * 256 + 256] = tile
        difference = np.abs(whole[:500, :700].astype(int) - picture(500, 700, 7))
        assert difference.mean() < 3
        assert [(found.rows, found.columns, found.downsample) for found in slide.scenes[0].levels] == [
            (500, 700, 1.0),
            (250, 350, 2.0),
            (125, 175, 4.0),
        ]


def test_all_that_the_xml_says_is_told(tmp_path: Path) -> None:
    with opened(write_motic_mds(tmp_path)) as slide:
        scan, path = slide.scan, slide.scenes[0].optical_paths[0]
        assert slide.scenes[0].levels[1].pixel_spacing_mm == pytest.approx((0.001039424, 0.001039424))
        assert path.objective_power == 20
        assert (scan.manufacturer, scan.barcode) == ("Motic", "S26-123")
        assert scan.acquired == datetime(2026, 3, 14, 9, 26, 53)
        assert scan.properties["scale"] == "0.519712"
        assert scan.properties["imagematrix.layer1.scale"] == "0.5"
        assert scan.description.startswith("<Property>")


def test_label_and_macro_are_copied_as_they_are(tmp_path: Path) -> None:
    drawn = MoticSlide()
    with opened(write_motic_mds(tmp_path, drawn)) as slide:
        label, macro = slide.associated
        assert (label.role, label.rows, label.columns) == (Role.LABEL, 200, 180)
        assert (macro.role, macro.rows, macro.columns) == (Role.OVERVIEW, 160, 480)
        assert (label.codestream, macro.codestream) == (drawn.label(), drawn.macro())
        assert np.abs(label.read().astype(int) - picture(200, 180, 8)).mean() < 3
    with opened(write_motic_mds(tmp_path, pictures=False, name="bare.mds")) as slide:
        assert slide.associated == ()


def test_cells_without_a_stream_are_absent_and_have_the_slides_colour(tmp_path: Path) -> None:
    drawn = MoticSlide(missing=((0, 0, 0), (0, 1, 2), (1, 0, 0)))
    with opened(write_motic_mds(tmp_path, drawn)) as slide:
        fine, coarse, _ = slide.scenes[0].levels
        assert np.flatnonzero(fine.tiles.absent).tolist() == [0, 7]
        assert np.flatnonzero(coarse.tiles.absent).tolist() == [0]
        assert fine.absent_colour == BACKGROUND


def test_a_layer_without_any_tile_is_left_out_and_told(tmp_path: Path) -> None:
    with opened(write_motic_mds(tmp_path, MoticSlide(missing=((2, 0, 0), (2, 0, 1))))) as slide:
        assert len(slide.scenes[0].levels) == 2
        assert list(slide.findings) == ["layer 2 is listed but has no tiles: left out"]


def test_a_slide_without_its_finest_tiles_is_refused(tmp_path: Path) -> None:
    everything = [(0, row, column) for row in range(4) for column in range(5)]
    with pytest.raises(DamagedSlide, match=r"^the finest layer has no tiles$"):
        opened(write_motic_mds(tmp_path, MoticSlide(missing=everything)))


def test_a_pixel_size_that_cannot_be_one_is_not_taken(tmp_path: Path) -> None:
    with opened(write_motic_mds(tmp_path, MoticSlide(scale="0"))) as slide:
        assert slide.scenes[0].levels[0].pixel_spacing_mm is None


def test_another_compound_file_is_not_ours(tmp_path: Path) -> None:
    path = write_compound_file(tmp_path / "letter.doc", {"WordDocument": b"text"})
    assert MoticMdsReader.why_not(Probe(path)) == "a compound file without the storage DSI0"
    (tmp_path / "a.mds").write_bytes(b"II*\0")
    assert MoticMdsReader.why_not(Probe(tmp_path / "a.mds")) == "not a compound file (OLE2)"


def test_forty_thousand_streams_are_found_within_seconds(tmp_path: Path) -> None:
    tree = {f"{n:06d}": n.to_bytes(4, "little") * 16 for n in range(40_000)}
    path = write_compound_file(tmp_path / "many.mds", {"DSI0": tree}, scattered=True)
    before = time.process_time()
    file = CompoundFile(path, path.stat().st_size)
    children = file.children(file.children()["DSI0"])
    tiles = file.tiles(list(children.values()), 40_000, [int(name) for name in children])
    assert time.process_time() - before < 10
    assert tile_bytes(path, tiles, 39_999) == (39_999).to_bytes(4, "little") * 16


@pytest.mark.parametrize("scattered", [False, True], ids=["in one piece", "scattered"])
def test_a_slide_becomes_dicom_and_every_tile_is_proven(tmp_path: Path, scattered: bool) -> None:
    path = write_motic_mds(tmp_path, MoticSlide(missing=((0, 1, 1),)), scattered=scattered)
    (converted,) = convert([path], tmp_path / "out", ConvertOptions(verify=True))
    assert converted.verified_tiles == 19 + 6 + 2
    copied = [one for one in converted.instances if not one.why_not_born]
    assert len(copied) == 5  # three levels, label and macro
    assert {one.transfer_syntax_uid for one in copied} == {"1.2.840.10008.1.2.4.50"}
    assert {one.photometric for one in copied} == {"YBR_FULL_422"}


def test_the_sample_slide_has_the_streams_that_olefile_reads() -> None:
    path = require_data("slides/synthetic/motic.mds")
    with opened(path) as slide, olefile.OleFileIO(path) as independent:
        levels = slide.scenes[0].levels
        assert [(level.rows, level.columns) for level in levels] == [(2048, 2048), (1024, 1024), (512, 512)]
        for level in levels:
            for row in range(level.tiles_down):
                for column in range(level.tiles_across):
                    assert isinstance(level.tiles, TileMap | GatherMap)
                    found = tile_bytes(path, level.tiles, level.frame_index(0, 0, row, column))
                    name = f"DSI0/{1 / level.downsample:g}/{row:04d}_{column:04d}"
                    assert found == independent.openstream(name).read()
        assert {image.role for image in slide.associated} == {Role.LABEL, Role.OVERVIEW}
