# SPDX-License-Identifier: Apache-2.0
"""Levels made before the digest is known: the same bytes, and only for the same tiles."""

import shutil
from pathlib import Path

import pytest

from converters.registry import open_slide
from converters.writer.born import born_instances
from converters.writer.coding import DEFAULT_CODING
from converters.writer.early import EarlyLevels, early_levels
from converters.writer.tilework import TileWork
from tests.support.make_slide import make_svs


@pytest.fixture
def slide(tmp_path: Path) -> Path:
    return make_svs(tmp_path / "slide.svs", rows=1500, columns=1900, levels=(1, 2))


def made_early(path: Path, scratch: Path) -> EarlyLevels:
    scratch.mkdir(exist_ok=True)
    with open_slide(path) as opened:
        return early_levels(opened, TileWork(opened), DEFAULT_CODING, scratch)


def test_levels_made_early_are_those_made_later(slide: Path, tmp_path: Path) -> None:
    early = made_early(slide, tmp_path / "early")
    assert set(early.made) == {(0, 2), (0, 3)}
    with open_slide(slide) as opened:
        kept = {"source_digest": b"d" * 32, "secret": b"s" * 32, "scratch": tmp_path}
        later = born_instances(opened, **kept)
        sooner = born_instances(opened, **kept, early=early.of(opened))
    assert [one.header for one in later] == [one.header for one in sooner]
    computed = [(a.blobs[0], b.blobs[0]) for a, b in zip(later, sooner, strict=True) if a.computed]
    assert len(computed) == 2
    for a, b in computed:
        assert a.parent != b.parent
        assert a.read_bytes() == b.read_bytes()


def test_a_copy_of_the_same_bytes_takes_them(slide: Path, tmp_path: Path) -> None:
    early = made_early(slide, tmp_path / "early")
    with open_slide(shutil.copy(slide, tmp_path / "copy.svs")) as opened:
        assert early.of(opened) == early.made


def test_another_tile_in_the_copy_drops_them(slide: Path, tmp_path: Path) -> None:
    early = made_early(slide, tmp_path / "early")
    with open_slide(slide) as opened:
        last = int(opened.scenes[0].levels[-1].tiles.offsets[-1])
    copy = Path(shutil.copy(slide, tmp_path / "copy.svs"))
    with copy.open("r+b") as file:
        file.seek(last + 700)
        byte = file.read(1)
        file.seek(last + 700)
        file.write(bytes([byte[0] ^ 1]))
    with open_slide(copy) as opened:
        assert early.of(opened) == {}


def test_many_levels_are_left_for_later(slide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("converters.writer.early.MOST_TILES", 3)
    assert made_early(slide, tmp_path / "early").made == {}
