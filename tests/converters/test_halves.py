# SPDX-License-Identifier: Apache-2.0
"""Computed levels made of halves that were kept: the same as made of the frames before."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from converters.slide import Slide
from converters.workshop import Workshop
from converters.writer import recompose, tilework
from converters.writer.born import born_instances
from converters.writer.coding import CodingChoice
from converters.writer.tilework import Bench, TileWork
from tests.support.make_slide import make_svs

CODINGS = [CodingChoice(), CodingChoice("htj2k"), CodingChoice(lossy_quality=80)]


@pytest.fixture(scope="module")
def workshop() -> Iterator[Workshop]:
    with Workshop() as kept:
        yield kept


@pytest.fixture(scope="module", params=[(1500, 1900), (1281, 1025)], ids=["even", "odd"])
def slide(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows, columns = request.param
    path = tmp_path_factory.mktemp("slide") / "slide.svs"
    # a whole quarter of the finest level is missing, so that a half is missing too
    missing = [row * -(-columns // 256) + column for row in range(2) for column in range(2)]
    return make_svs(path, rows=rows, columns=columns, levels=(1,), missing_tiles=missing)


def computed(slide: Slide, bench: Bench, folder: Path, coding: CodingChoice) -> list[bytes]:
    folder.mkdir()
    made = born_instances(
        slide, source_digest=b"d" * 32, secret=b"s" * 32, scratch=folder, bench=bench, coding=coding
    )
    return [one.blobs[0].read_bytes() for one in made if one.computed and isinstance(one.blobs[0], Path)]


@pytest.mark.parametrize("coding", CODINGS, ids=lambda coding: coding.words)
def test_halves_give_the_levels_that_frames_give(
    slide: Path, workshop: Workshop, tmp_path: Path, coding: CodingChoice, monkeypatch: pytest.MonkeyPatch
) -> None:
    with workshop.open(slide) as opened:
        by_halves = computed(opened.slide, opened.bench, tmp_path / "a", coding)
        here = computed(opened.slide, TileWork(opened.slide), tmp_path / "b", coding)
        monkeypatch.setattr(recompose, "MOST_HALVES_BYTES", 0)
        by_frames = computed(opened.slide, opened.bench, tmp_path / "c", coding)
    assert len(by_frames) == 3
    assert by_halves == here == by_frames


def test_what_was_halved_is_not_decoded_again(
    slide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from converters.registry import open_slide

    decoded: list[str] = []

    def counted(frame: bytes, uid: str, *rest: object) -> object:
        decoded.append(uid)
        return decode(frame, uid, *rest)

    decode = tilework.decode
    monkeypatch.setattr(tilework, "decode", counted)
    with open_slide(slide) as opened:
        computed(opened, TileWork(opened), tmp_path / "a", CodingChoice())
    assert set(decoded) == {tilework.JPEG_UID}
