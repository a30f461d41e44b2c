# SPDX-License-Identifier: Apache-2.0
"""Damaged slides: converted or refused in one line, never a crash or a hang."""

import random
from pathlib import Path

import pytest
import tifffile

from converters.errors import ConversionError
from tests.support.converted import born
from tests.support.make_slide import make_svs

TRIALS = 60


def attempt(path: Path, data: bytes) -> str:
    """ "" when it was converted, else the refusal."""
    path.write_bytes(data)
    try:
        born(path, scratch=path.parent)
    except ConversionError as refusal:
        return str(refusal)
    return ""


@pytest.fixture(scope="module", params=[7, 33005, 33003])
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    return make_svs(folder / "a.svs", rows=300, columns=300, tile=128, compression=request.param)


def test_a_truncated_slide_is_refused_in_one_line(whole: Path, tmp_path: Path) -> None:
    data = whole.read_bytes()
    for share in range(20):
        refusal = attempt(tmp_path / "cut.svs", data[: len(data) * share // 20])
        assert refusal
        assert "\n" not in refusal


def test_flipped_bytes_in_directories_and_heads_never_crash(whole: Path, tmp_path: Path) -> None:
    data = whole.read_bytes()
    spots: list[int] = []
    with tifffile.TiffFile(whole) as tiff:
        for page in tiff.pages:
            spots += range(page.offset, page.offset + 300)
            for tag in page.tags:
                spots += range(tag.valueoffset, tag.valueoffset + 32)
            for offset in page.dataoffsets[:3]:
                spots += range(offset, offset + 60)
    spots = [spot for spot in spots if spot < len(data)]
    chance = random.Random(19)
    for _ in range(TRIALS):
        harmed = bytearray(data)
        for _ in range(chance.choice((1, 1, 3))):
            harmed[chance.choice(spots)] = chance.choice((0, 255, chance.randrange(256)))
        assert "\n" not in attempt(tmp_path / "flipped.svs", bytes(harmed))
