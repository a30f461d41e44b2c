# SPDX-License-Identifier: Apache-2.0
"""The drawn slide: a file that readers take, with a label that can be read."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import openslide
import pytest
import tifffile
import zxingcpp

from gateway.demo.paint import GLASS, Painter
from gateway.demo.slide import BARCODE, SEED, write_demo_slide
from gateway.demo.svs import Pixels


@pytest.fixture(scope="module")
def slide_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_demo_slide(tmp_path_factory.mktemp("demo") / "demo.svs", rows=3000, columns=4200)


def pixels_of(slide: openslide.OpenSlide, level: int) -> Pixels:
    return np.asarray(slide.read_region((0, 0), level, slide.level_dimensions[level]).convert("RGB"))


def test_openslide_finds_levels_and_scan_data(slide_path: Path) -> None:
    with openslide.OpenSlide(slide_path) as slide:
        assert slide.properties["openslide.vendor"] == "aperio"
        assert slide.level_dimensions == ((4200, 3000), (1050, 750))
        assert set(slide.associated_images) == {"label", "macro", "thumbnail"}
        assert float(slide.properties["openslide.mpp-x"]) == 0.5
        assert slide.properties["openslide.objective-power"] == "20"
        assert slide.properties["aperio.Barcode"] == BARCODE
        assert slide.properties["aperio.ScanScope ID"] == "CSDEMO1"


def test_tifffile_finds_an_svs_with_shared_tables(slide_path: Path) -> None:
    with tifffile.TiffFile(slide_path) as tiff:
        assert tiff.is_svs
        assert [series.name for series in tiff.series] == ["Baseline", "Thumbnail", "Label", "Macro"]
        assert tiff.pages[0].jpegtables
        assert tiff.series[0].levels[0].asarray().shape == (3000, 4200, 3)


def test_the_label_can_be_read_by_a_machine(slide_path: Path) -> None:
    with openslide.OpenSlide(slide_path) as slide:
        label = slide.associated_images["label"].convert("L")
    [found] = zxingcpp.read_barcodes(np.asarray(label))
    assert found.text == BARCODE
    assert found.format == zxingcpp.BarcodeFormat.DataMatrix


def test_tissue_is_stained_and_the_rest_is_glass(slide_path: Path) -> None:
    with openslide.OpenSlide(slide_path) as slide:
        pixels = pixels_of(slide, 0).astype(int)
    tissue = pixels.min(axis=2) < 225
    assert 0.2 < tissue.mean() < 0.7
    assert np.abs(pixels[:80].reshape(-1, 3) - GLASS).max() <= 3
    red, green, blue = (pixels[tissue].mean(axis=0)).tolist()
    assert red > blue > green  # eosin lets red through, and both stains stop green
    nuclei = (pixels.sum(axis=2) < 380).mean()
    assert 0.01 < nuclei < 0.25


def test_levels_show_the_same_picture(slide_path: Path) -> None:
    with openslide.OpenSlide(slide_path) as slide:
        full, quarter = pixels_of(slide, 0), pixels_of(slide, 1)
    reduced = full.reshape(750, 4, 1050, 4, 3).mean(axis=(1, 3))
    assert np.abs(reduced - quarter).mean() < 4


def test_blocks_meet_without_a_seam() -> None:
    painter = Painter(1500, 2000, SEED)
    whole = painter.block(256, 512, 256, 512)
    parts = [
        np.concatenate([painter.block(256 + top, 512 + left, 128, 256) for left in (0, 256)], axis=1)
        for top in (0, 128)
    ]
    assert painter.has_tissue(256, 512, 256, 512)
    assert np.abs(whole.astype(int) - np.concatenate(parts).astype(int)).max() <= 2


def test_the_same_seed_gives_the_same_bytes_in_any_number_of_processes(tmp_path: Path) -> None:
    paths = [tmp_path / name / "slide.svs" for name in "abc"]
    for path, seed, processes in zip(paths, (SEED, SEED, 6), (1, 2, 1), strict=True):
        path.parent.mkdir()
        write_demo_slide(path, rows=800, columns=1100, seed=seed, processes=processes)
    first, again, other = (path.read_bytes() for path in paths)
    assert first == again
    assert first != other


def test_progress_counts_to_its_end_and_nothing_is_left_behind(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    write_demo_slide(
        tmp_path / "a.svs", rows=600, columns=700, progress=lambda done, total: seen.append((done, total))
    )
    assert seen == [(1, 3), (2, 3), (3, 3)]
    assert [path.name for path in tmp_path.iterdir()] == ["a.svs"]


def test_an_interrupted_slide_leaves_no_file(tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_demo_slide(tmp_path / "a.svs", rows=600, columns=700, progress=interrupt)
    assert list(tmp_path.iterdir()) == []


def test_the_package_costs_nothing_until_it_draws() -> None:
    script = "import sys, gateway.demo; print('numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
