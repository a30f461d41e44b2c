# SPDX-License-Identifier: Apache-2.0
"""Levels made in stripes: every tile once, the next level along with the scanner's coarsest, and
what an earlier run left is believed only as it was written."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from converters.registry import open_slide
from converters.slide import Level, PixelTiles, PixelType
from converters.workshop import Limits, Workshop
from converters.writer import recompose
from converters.writer.born import look_at
from converters.writer.coding import CodingChoice, FrameCoding
from converters.writer.plan import PlannedLevel, plan
from converters.writer.recompose import Recomposed
from converters.writer.tilework import Bench, TileWork
from tests.support.make_slide import make_svs

CODING = CodingChoice("htj2k").of(PixelType())
LOSSY = CodingChoice(lossy_quality=70).of(PixelType())


@pytest.fixture(scope="module")
def workshop() -> Iterator[Workshop]:
    with Workshop(Limits(processes=2, timeout_s=60)) as kept:
        yield kept


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("slide")
    return make_svs(  # Aperio's 33003 is never copied
        folder / "slide.svs",
        rows=700,
        columns=1100,
        tile=128,
        compression=33003,
        levels=(1,),
        missing_tiles=(2, 20),
    )


def made(path: Path, bench: Bench, scratch: Path, coding: FrameCoding = CODING) -> list[Recomposed]:
    scratch.mkdir(exist_ok=True)
    finer: Recomposed | None = None
    found = []
    with open_slide(path) as slide:
        for one in plan(slide, look_at(slide).surveys):
            finer = recompose.recompose(
                one, coding, bench, scratch, f"level-{one.index}", finer if one.computed else None
            )
            found.append(finer)
    return found


def frames(one: Recomposed) -> list[bytes]:
    data = one.path.read_bytes()
    return [
        data[start : start + length]
        for start, length in zip(one.starts.tolist(), one.lengths.tolist(), strict=True)
    ]


@pytest.mark.parametrize("lanes", [1, 2, 3, 8])
@pytest.mark.parametrize(("down", "across"), [(1, 1), (3, 5), (4, 4), (2, 41), (7, 40)])
def test_every_tile_is_in_one_quad_and_every_lane_has_work(lanes: int, down: int, across: int) -> None:
    tiles = PixelTiles(read=lambda _: np.zeros((1, 1, 1), np.uint8), count=2 * down * across, why="")
    level = Level(0, down * 512 - 9, across * 512 - 9, 512, 512, tiles, optical_paths=2)
    places = list(recompose._places(level, level.rows, level.columns, lanes))
    found = [tile for place in places for tile in place.tiles if tile is not None]
    assert sorted(found) == list(range(2 * down * across))
    half = -(-down // 2) * -(-across // 2)
    assert sorted(place.target for place in places) == list(range(2 * half))
    across_in_quads = -(-across // 2)
    stripes = -(-across_in_quads // -(-across_in_quads // lanes))
    assert {place.lane for place in places} == set(range(stripes))
    for place in places:
        assert 0 < place.rows <= 1024
        assert place.rows == (1024 if place.tiles[2] is not None else 512) - (
            9 if (max(tile for tile in place.tiles if tile is not None) // across + 1) % down == 0 else 0
        )


@pytest.mark.parametrize("coding", [CODING, LOSSY], ids=["lossless", "lossy"])
def test_a_level_made_along_is_the_one_computed_by_itself(
    path: Path, workshop: Workshop, tmp_path: Path, coding: FrameCoding, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_slide(path) as slide:
        here = made(path, TileWork(slide), tmp_path / "here", coding)
    with workshop.open(path) as opened:
        along = made(path, opened.bench, tmp_path / "along", coding)
        monkeypatch.setattr(recompose, "_made_along", lambda planned: None)
        alone = made(path, opened.bench, tmp_path / "alone", coding)
    assert len(along) == 5
    assert along[0].coarser is not None
    assert alone[0].coarser is None
    for one, two, three in zip(along, alone, here, strict=True):
        assert frames(one) == frames(two) == frames(three)
        assert one.blank == two.blank == three.blank
    assert frames(along[0])[2] == b""


def test_a_level_made_along_is_not_decoded_for_again(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    pixels = TileWork.pixels

    def counted(work: TileWork, scene: int, level: int, index: int) -> object:
        asked.append(index)
        return pixels(work, scene, level, index)

    monkeypatch.setattr(TileWork, "pixels", counted)
    with open_slide(path) as slide:
        made(path, TileWork(slide), tmp_path / "a")
        assert sorted(asked) == np.flatnonzero(~slide.scenes[0].levels[0].tiles.absent).tolist()


def test_what_was_finished_is_gone_on_with_the_level_made_along_too(path: Path, tmp_path: Path) -> None:
    with open_slide(path) as slide:
        planned = plan(slide, look_at(slide).surveys)
        first = recompose.recompose(planned[0], CODING, TileWork(slide), tmp_path, "level-0", None)
        assert first.coarser is not None
        expected = frames(first), frames(first.coarser)
    bench = Unasked()
    found = recompose.recompose(planned[0], CODING, bench, tmp_path, "level-0", None)
    next_one = recompose.recompose(planned[1], CODING, bench, tmp_path, "level-1", found)
    assert (frames(found), frames(next_one)) == expected
    assert next_one.path == tmp_path / "level-1.frames"
    found = recompose.recompose(planned[1], CODING, Unasked(), tmp_path, "level-1", None)
    assert frames(found) == expected[1]


def test_a_level_of_another_scene_is_not_taken_for_the_next(path: Path, tmp_path: Path) -> None:
    with open_slide(path) as slide:
        planned = plan(slide, look_at(slide).surveys)
        first = recompose.recompose(planned[0], CODING, TileWork(slide), tmp_path, "level-0", None)
        other = PlannedLevel(
            replace(planned[1].scene, index=1), 1, planned[1].rows, planned[1].columns,
            planned[1].level, planned[1].survey, 1,
        )  # fmt: skip
        with pytest.raises(IndexError):  # it asks for the tiles of scene 1, which are not there
            recompose.recompose(other, CODING, TileWork(slide), tmp_path, "other", first)


@pytest.mark.parametrize("at", [0, -1])
def test_frames_that_were_damaged_since_are_made_again(path: Path, tmp_path: Path, at: int) -> None:
    with open_slide(path) as slide:
        planned = plan(slide, look_at(slide).surveys)[0]
        first = recompose.recompose(planned, CODING, TileWork(slide), tmp_path, "level-0", None)
        whole = first.path.read_bytes()
        damaged = bytearray(whole)
        damaged[at] ^= 1
        first.path.write_bytes(damaged)
        again = recompose.recompose(planned, CODING, TileWork(slide), tmp_path, "level-0", None)
    assert again.path.read_bytes() == whole


class Unasked(TileWork):
    """A bench that must not be asked for anything."""

    def __init__(self) -> None:
        pass

    def __getattribute__(self, name: str) -> object:
        raise AssertionError(f"{name} was asked for")
