# SPDX-License-Identifier: Apache-2.0
"""The SVS writer, read back by OpenSlide and tifffile."""

from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import openslide
import pytest
import tifffile

from gateway.demo.svs import Pixels, split_jpeg
from gateway.demo.tiff import Page, TiffWriter
from tests.support.make_slide import JPEG, JPEG2000_RGB, JPEG2000_YCBCR, big_svs, make_svs, picture


def level_0(path: Path) -> Pixels:
    with openslide.OpenSlide(path) as slide:
        return np.asarray(slide.read_region((0, 0), 0, slide.dimensions).convert("RGB"))


def mean_error(left: Pixels, right: Pixels) -> float:
    return float(np.abs(left.astype(int) - right.astype(int)).mean())


@pytest.mark.parametrize(
    ("compression", "photometric", "subsampling"),
    [
        (JPEG, "RGB", "444"),
        (JPEG, "YCBCR", "444"),
        (JPEG, "YCBCR", "422"),
        (JPEG, "YCBCR", "420"),
        (JPEG2000_RGB, "RGB", "444"),
        (JPEG2000_YCBCR, "RGB", "444"),
    ],
)
def test_openslide_sees_the_colours_that_were_drawn(
    tmp_path: Path, compression: int, photometric: str, subsampling: str
) -> None:
    path = make_svs(
        tmp_path / "a.svs", compression=compression, photometric=photometric, subsampling=subsampling
    )
    assert mean_error(level_0(path), picture(700, 900)) < 1.5


@pytest.mark.parametrize("bigtiff", [False, True])
def test_pages_come_in_aperios_order(tmp_path: Path, bigtiff: bool) -> None:
    path = make_svs(tmp_path / "a.svs", levels=(1, 4, 16), bigtiff=bigtiff, icc=True)
    with tifffile.TiffFile(path) as tiff:
        assert tiff.is_svs
        assert tiff.is_bigtiff is bigtiff
        assert [page.shape[:2] for page in tiff.pages] == [
            (700, 900),
            (199, 256),
            (175, 225),
            (43, 56),
            (120, 160),
            (249, 320),
        ]
        assert [page.is_tiled for page in tiff.pages] == [True, False, True, True, False, False]
        assert [int(page.tags["NewSubfileType"].value) for page in tiff.pages] == [0, 0, 0, 0, 1, 9]


def test_tiles_are_abbreviated_and_say_nothing_about_their_colours(tmp_path: Path) -> None:
    path = make_svs(tmp_path / "a.svs")
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[0]
        tile = path.read_bytes()[page.dataoffsets[0] :][: page.databytecounts[0]]
        assert page.jpegtables[:4] == b"\xff\xd8\xff\xdb"
    assert tile[:4] == b"\xff\xd8\xff\xc0"
    assert [tile[12 + 3 * n] for n in range(3)] == [0, 1, 2]
    assert split_jpeg(tile)[1] == tile


def test_the_label_is_lossless(tmp_path: Path) -> None:
    path = make_svs(tmp_path / "a.svs", label=picture(333, 217))
    with openslide.OpenSlide(path) as slide:
        label = np.asarray(slide.associated_images["label"].convert("RGB"))
    assert np.array_equal(label, picture(333, 217))


def test_the_description_carries_the_scan(tmp_path: Path) -> None:
    zone = timezone(timedelta(hours=-5))
    path = make_svs(
        tmp_path / "a.svs",
        barcode="S26-1;A;1",
        scanned=datetime(2026, 1, 2, 3, 4, 5, tzinfo=zone),
        mpp=0.2525,
    )
    with openslide.OpenSlide(path) as slide:
        properties = slide.properties
        assert properties["aperio.Barcode"] == "S26-1;A;1"
        assert properties["aperio.Date"] == "01/02/26"
        assert properties["aperio.Time"] == "03:04:05"
        assert properties["aperio.Time Zone"] == "GMT-05:00"
        assert float(properties["openslide.mpp-x"]) == pytest.approx(0.2525)
        assert properties["openslide.objective-power"] == "20"


def test_resolution_can_be_left_out(tmp_path: Path) -> None:
    with openslide.OpenSlide(make_svs(tmp_path / "a.svs", mpp=None)) as slide:
        assert "openslide.mpp-x" not in slide.properties


def test_a_missing_tile_has_no_bytes_and_its_neighbours_stay(tmp_path: Path) -> None:
    path = make_svs(tmp_path / "a.svs", missing_tiles=[1])
    with tifffile.TiffFile(path) as tiff:
        assert tiff.pages[0].databytecounts[1] == 0
        pixels = tiff.pages[0].asarray()
    assert mean_error(pixels[:, :256], picture(700, 900)[:, :256]) < 1.5
    assert mean_error(pixels[:256, 512:], picture(700, 900)[:256, 512:]) < 1.5


def test_a_page_with_too_few_tiles_is_refused(tmp_path: Path) -> None:
    with TiffWriter(tmp_path / "a.tif") as tiff, pytest.raises(ValueError, match="4 segments, got 1"):
        tiff.write_page(Page(512, 512, JPEG, 2, tile=(256, 256)), [b"x"])


def test_a_big_slide_has_the_size_asked_and_decodes_anywhere(tmp_path: Path) -> None:
    path = big_svs(tmp_path / "big.svs", 6_000_000)
    assert 6_000_000 <= path.stat().st_size < 9_000_000
    with openslide.OpenSlide(path) as slide:
        assert slide.level_count == 3
        columns, rows = slide.dimensions
        corner = slide.read_region((columns - 256, rows - 256), 0, (256, 256)).convert("RGB")
    assert np.asarray(corner).std() > 10
