# SPDX-License-Identifier: Apache-2.0
"""Tiles looked at while their files pass by, in windows of any size: as if read one by one."""

import hashlib
from pathlib import Path

import numpy as np
import pytest

from converters.errors import DamagedSlide
from converters.registry import open_slide
from converters.slide import Slide
from converters.writer import passage
from converters.writer.following import Following
from converters.writer.passage import digest_of, pass_by
from converters.writer.survey import Survey, expected_survey, survey
from gateway.demo.svs import YCBCR, TileFormat
from tests.converters.test_survey import complete, slide_of, tiles_of
from tests.support.make_slide import make_svs


def surveyed(slide: Slide) -> dict[tuple[int, int], Survey]:
    return {(0, level.index): survey(level, slide.sources) for level in slide.scenes[0].levels}


def same(one: Survey, other: Survey) -> bool:
    arrays = np.array_equal(one.kind_ids, other.kind_ids) and np.array_equal(one.lengths, other.lengths)
    return arrays and (one.kinds, one.why_not_copied, one.findings) == (
        other.kinds, other.why_not_copied, other.findings,
    )  # fmt: skip


def followed_by_windows(slide: Slide, window: int) -> Following:
    """Every file shown in pieces of ``window`` bytes, each with what must be seen again."""
    following = Following(slide)
    for number, source in enumerate(slide.sources):
        data = source.path.read_bytes()
        start = end = 0
        while end < len(data):
            end = min(len(data), end + window)
            start = following.see(number, start, memoryview(data)[start:end])
    return following


@pytest.mark.parametrize("window", [1000, 4096, 50_000, 1 << 20])
@pytest.mark.parametrize("variant", [{}, {"missing_tiles": (1,)}, {"compression": 33005}])
def test_what_passes_by_is_surveyed_as_what_is_read(
    tmp_path: Path, window: int, variant: dict[str, object]
) -> None:
    path = make_svs(tmp_path / "a.svs", **variant)  # type: ignore[arg-type]
    with open_slide(path) as slide:
        found, expected = followed_by_windows(slide, window).surveys(), surveyed(slide)
        assert found.keys() == expected.keys()
        assert all(same(found[place], expected[place]) for place in expected)


def test_kinds_are_numbered_by_frame_wherever_tiles_lie(tmp_path: Path) -> None:
    form = TileFormat(photometric=YCBCR)
    abbreviated = tiles_of(form)
    path = slide_of(tmp_path / "a.svs", [*abbreviated[:3], complete(abbreviated[3], form)], form)
    with open_slide(path) as slide:
        level = slide.scenes[0].levels[0]
        order = np.array([3, 1, 2, 0])  # the first frame lies last
        level.tiles.offsets[:], level.tiles.lengths[:] = (
            level.tiles.offsets[order],
            level.tiles.lengths[order],
        )
        found = followed_by_windows(slide, 4096).surveys()[0, 0]
        assert found.kind_ids.tolist() == [0, 1, 1, 1]
        assert same(found, survey(level, slide.sources))


def test_a_tile_that_is_none_leaves_its_level_to_who_reads_it_again(tmp_path: Path) -> None:
    form = TileFormat(photometric=YCBCR)
    path = slide_of(tmp_path / "a.svs", [*tiles_of(form)[:3], b"\x00" * 200], form)
    with open_slide(path) as slide:
        assert followed_by_windows(slide, 4096).surveys() == {}
        with pytest.raises(DamagedSlide, match="tile 4 of level 0 is damaged"):
            survey(slide.scenes[0].levels[0], slide.sources)


def test_the_digest_is_that_of_every_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passage, "WINDOW_BYTES", 10_000)
    path = make_svs(tmp_path / "a.svs")
    passed: list[int] = []
    with open_slide(path) as slide:
        following = Following(slide)
        files = pass_by(slide, [following], passed.append)
        assert files == [("a.svs", path.stat().st_size, hashlib.sha256(path.read_bytes()).digest())]
        assert digest_of(files) == files[0][2]
        found, expected = following.surveys(), surveyed(slide)
        assert all(same(found[place], expected[place]) for place in expected)
    assert passed[-1] == path.stat().st_size
    assert len(passed) > 5


def test_a_few_tiles_tell_what_all_are_only_where_they_are_alike(tmp_path: Path) -> None:
    form = TileFormat(photometric=YCBCR)
    tiles = tiles_of(form)
    alike, unlike = slide_of(tmp_path / "a.svs", tiles, form), tmp_path / "b.svs"
    slide_of(unlike, [complete(tiles[0], form), *tiles[1:]], form)
    with open_slide(alike) as slide:
        level = slide.scenes[0].levels[0]
        expected = expected_survey(level, slide.sources)
        assert expected is not None
        assert same(expected, survey(level, slide.sources))
    with open_slide(unlike) as slide:
        assert expected_survey(slide.scenes[0].levels[0], slide.sources) is None
