# SPDX-License-Identifier: Apache-2.0
"""The SVSLIDE reader: channels joined as OpenSlide does, focal planes, words, a database that lies."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path

import numpy as np
import openslide
import pytest

from converters.convert import ConvertOptions, convert
from converters.errors import DamagedSlide, UnreadableSlide, UnsupportedPixels
from converters.readers import sakura_database
from converters.readers.sakura_svslide import SakuraReader
from converters.registry import companions, open_slide
from converters.slide import PixelTiles, Role
from tests.support.level_pixels import level_pixels
from tests.support.require import require_data
from tests.support.slides.svslide import UNIQUE, write_svslide

SAMPLE = "slides/synthetic/sakura_visiontek.svslide"


def assert_pixels_as_openslide(path: Path, plane: int = 0) -> None:
    with open_slide(path) as slide, openslide.OpenSlide(path) as peer:
        levels = slide.scenes[0].levels
        assert [(level.columns, level.rows) for level in levels] == list(peer.level_dimensions)
        assert tuple(level.downsample for level in levels) == peer.level_downsamples
        for level in levels:
            seen = np.asarray(peer.read_region((0, 0), level.index, (level.columns, level.rows)))
            there = seen[..., 3] == 255
            assert np.array_equal(level_pixels(slide, level, plane=plane)[there], seen[there][:, :3])


def test_the_sample_says_all_it_says() -> None:
    path = require_data(SAMPLE)
    with open_slide(path) as slide:
        assert slide.format == SakuraReader.format
        first = slide.scenes[0].levels[0]
        assert (first.rows, first.columns, first.tile_rows) == (2048, 2048, 512)
        assert first.pixel_spacing_mm == (0.00046, 0.00046)
        assert slide.scan.acquired == datetime(2014, 3, 5, 11, 12, 13)
        assert slide.scan.properties["slide.description"] == "Synthetic"
        assert slide.scenes[0].optical_paths[0].objective_power == 20
        assert [(image.role, image.rows, image.columns) for image in slide.associated] == [
            (Role.LABEL, 463, 387),
            (Role.OVERVIEW, 431, 1280),
            (Role.THUMBNAIL, 256, 256),
        ]
    assert_pixels_as_openslide(path)


@pytest.mark.parametrize("variant", [{}, {"tile_table": False, "associated": False}, {"tile": 200}])
def test_channels_are_joined_to_the_pixels_that_openslide_gives(
    tmp_path: Path, variant: dict[str, bool]
) -> None:
    path = write_svslide(tmp_path, **variant)
    assert_pixels_as_openslide(path)
    assert companions(path) == ()


def test_what_the_file_says_is_taken_and_nothing_else(tmp_path: Path) -> None:
    with open_slide(write_svslide(tmp_path)) as slide:
        scan = slide.scan
        assert (scan.manufacturer, scan.model_name, scan.device_serial_number) == ("Sakura", "", "")
        assert scan.properties["slide.creator"] == "SYN"
        assert scan.properties["scan.scanid"] == "00000000-0000-0000-0000-00000000000b"
        assert "slide.keywords = kidney" in scan.description
        assert slide.findings == ()
        assert slide.scenes[0].levels[2].pixel_spacing_mm == pytest.approx((0.00184, 0.00184))
        for level in slide.scenes[0].levels:
            assert isinstance(level.tiles, PixelTiles)
            assert level.tiles.lossy_method == "ISO_10918_1"


def test_a_time_in_another_form_is_read_and_none_is_said_to_be_none(tmp_path: Path) -> None:
    for number, (text, moment) in enumerate(
        [
            ("2014-03-05T11:12:13.1234567", datetime(2014, 3, 5, 11, 12, 13, 123456)),
            ("03/05/2014 11:12:13", datetime(2014, 3, 5, 11, 12, 13)),
            ("yesterday", None),
        ]
    ):
        (tmp_path / str(number)).mkdir()
        with open_slide(write_svslide(tmp_path / str(number), scanned=text)) as slide:
            assert slide.scan.acquired == moment
            assert bool(slide.findings) == (moment is None)


def test_label_macro_and_thumbnail_are_the_ones_openslide_shows(tmp_path: Path) -> None:
    path = write_svslide(tmp_path)
    with open_slide(path) as slide, openslide.OpenSlide(path) as peer:
        for name, role in (("label", Role.LABEL), ("macro", Role.OVERVIEW), ("thumbnail", Role.THUMBNAIL)):
            image = slide.associated_image(role)
            assert image is not None
            assert image.codestream
            assert np.array_equal(image.read(), np.asarray(peer.associated_images[name])[..., :3])


def test_tiles_that_were_not_scanned_are_absent(tmp_path: Path) -> None:
    path = write_svslide(tmp_path, missing={(0, 1), (2, 3)})
    with open_slide(path) as slide:
        first, second, _ = slide.scenes[0].levels
        assert np.flatnonzero(first.tiles.absent).tolist() == [1, 2 * first.tiles_across + 3]
        assert not second.tiles.absent.any()
    assert_pixels_as_openslide(path)


def test_focal_planes_stand_in_the_order_of_their_heights(tmp_path: Path) -> None:
    path = write_svslide(tmp_path, heights=(0.002, 0.0, -0.002))
    with open_slide(path) as slide:
        assert slide.scenes[0].focal_planes_um == (-2.0, 0.0, 2.0)
        assert {level.focal_planes for level in slide.scenes[0].levels} == {3}
        assert slide.findings == ("heights of focal planes are taken to be in millimetres",)
        first = slide.scenes[0].levels[0]
        assert not np.array_equal(level_pixels(slide, first, plane=0), level_pixels(slide, first, plane=2))
    assert_pixels_as_openslide(path, plane=1)  # OpenSlide shows the middle one


def test_focal_planes_of_unknown_heights_have_none(tmp_path: Path) -> None:
    """So that the operator is asked for their distance."""
    path = write_svslide(tmp_path, heights=(0.0, 0.0, 0.0))
    with open_slide(path) as slide:
        assert slide.scenes[0].focal_planes_um == ()
        assert slide.scenes[0].levels[0].focal_planes == 3
    assert_pixels_as_openslide(path, plane=1)


@contextmanager
def changed(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(path)) as database:
        yield database
        database.commit()


TILE = "where id = 'T;0|0;1;2;0'"
SECOND_SCAN = """insert into SVHRScanDataXPO select 2, ParentSlide, ScanId, Date, Description, Name,
    PosOnSlideMm, ResolutionMmPerPix, NominalLensMagnification, ThumbnailImage, TotalDataSizeBytes,
    FocussingMethod, FocusStack from SVHRScanDataXPO"""
OTHER_MAGIC = f"update {UNIQUE} set data = 'SVSomethingElse!' where id = '++MagicBytes'"


@pytest.mark.parametrize(
    ("statement", "error", "says"),
    [
        (f"delete from {UNIQUE} {TILE}", DamagedSlide, "lacks one of its three"),
        (f"update {UNIQUE} set id = 'T;7|0;1;2;0' {TILE}", DamagedSlide, "between the places"),
        (f"update {UNIQUE} set id = 'T;0|0;1;3;0' {TILE}", UnsupportedPixels, "unknown form"),
        (f"update {UNIQUE} set data = x'00' where id = 'Header'", DamagedSlide, "header is too short"),
        (f"delete from {UNIQUE} where id like 'T;%'", DamagedSlide, "no tiles"),
        (OTHER_MAGIC, DamagedSlide, "none of a slide"),
        ("update DataManagerSQLiteConfigXPO set TableName = 'none'", DamagedSlide, "does not name its table"),
        ("drop table DataManagerSQLiteConfigXPO", DamagedSlide, "none of a slide"),
        (SECOND_SCAN, UnsupportedPixels, "several slides or scans"),
    ],
)  # fmt: skip
def test_a_database_that_contradicts_itself_is_refused(
    tmp_path: Path, statement: str, error: type[Exception], says: str
) -> None:
    path = write_svslide(tmp_path)
    with changed(path) as database:
        database.execute(statement)
    with pytest.raises(error, match=says):
        open_slide(path)


def test_a_view_in_a_tables_place_is_never_asked(tmp_path: Path) -> None:
    """It could hide a query without end."""
    path = write_svslide(tmp_path)
    with changed(path) as database:
        database.execute("drop table SVSlideDataXPO")
        database.execute(
            "create view SVSlideDataXPO as with recursive n(i) as (select 1 union all select i + 1 from n)"
            " select i as OID, i as SlideId, i as m_labelScan from n"
        )
    with open_slide(path) as slide:
        assert "slide.slideid" not in slide.scan.properties


def test_a_damaged_name_in_sqlites_own_words_is_a_refusal(tmp_path: Path) -> None:
    path = write_svslide(tmp_path)
    path.write_bytes(path.read_bytes().replace(b"SVSlideDataXPO", b"SVSlide\xfbataXPO", 1))
    with pytest.raises(DamagedSlide, match="the database is damaged"):
        open_slide(path)


def test_a_query_without_end_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sakura_database, "MAX_STEPS", 2)
    database = sakura_database.Database(write_svslide(tmp_path))
    endless = "with recursive n(i) as (select 1 union all select i + 1 from n) select count(*) from n"
    with closing(database), pytest.raises(DamagedSlide, match="the database is damaged"):
        list(database._rows(endless))


def test_a_slide_is_left_as_it_was(tmp_path: Path) -> None:
    path = write_svslide(tmp_path)
    before = path.read_bytes()
    with open_slide(path) as slide:
        level_pixels(slide, slide.scenes[0].levels[2])
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["scan.svslide"]


def test_another_database_is_not_claimed(tmp_path: Path) -> None:
    path = write_svslide(tmp_path)
    other = path.rename(tmp_path / "index.sqlite")
    with pytest.raises(UnreadableSlide) as refusal:
        open_slide(other)
    assert "does not end in .svslide" in refusal.value.refusals["sakura-svslide"]


@pytest.mark.parametrize("variant", [{}, {"missing": {(0, 1)}}, {"heights": (-0.002, 0.0, 0.002)}])
def test_slides_become_dicom_and_pass_the_proof(tmp_path: Path, variant: dict[str, object]) -> None:
    path = write_svslide(tmp_path, rows=600, columns=700, **variant)
    (tmp_path / "out").mkdir()
    convert([path], tmp_path / "out", ConvertOptions(verify=True))
    assert len(list((tmp_path / "out").rglob("*.dcm"))) >= 4
