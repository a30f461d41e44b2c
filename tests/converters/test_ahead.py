# SPDX-License-Identifier: Apache-2.0
"""Frames written before their header: the same files, and none from a guess gone wrong."""

import errno
import os
from pathlib import Path

import pytest

from converters.convert import ConvertOptions, convert
from converters.writer import direct, files, passage
from converters.writer.ahead import FramesAhead
from converters.writer.coding import CodingChoice
from converters.writer.direct import BUFFER_BYTES, DirectFile
from converters.writer.files import PartialFolder
from gateway.demo.svs import YCBCR, TileFormat
from tests.converters.test_survey import complete, slide_of, tiles_of
from tests.support.make_slide import make_svs


def written(path: Path, out: Path) -> dict[str, bytes]:
    (done,) = convert([path], out)
    return {file.name: file.read_bytes() for file in done.files}


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """What each file that was begun ahead came to."""
    told: list[bool] = []
    finish = FramesAhead.finish

    def telling(self: FramesAhead, instance: object) -> bool:
        told.append(finish(self, instance))  # type: ignore[arg-type]
        return told[-1]

    monkeypatch.setattr(FramesAhead, "finish", telling)
    return told


@pytest.mark.parametrize("variant", [{}, {"missing_tiles": (1,)}, {"compression": 33005}])
def test_levels_written_ahead_are_those_written_afterwards(
    tmp_path: Path, told: list[bool], monkeypatch: pytest.MonkeyPatch, variant: dict[str, object]
) -> None:
    path = make_svs(tmp_path / "a.svs", **variant)  # type: ignore[arg-type]
    monkeypatch.setattr(passage, "WINDOW_BYTES", 30_000)
    ahead = written(path, tmp_path / "ahead")
    assert told
    assert all(told)
    monkeypatch.setattr(PartialFolder, "write_ahead", lambda *_: [])
    assert written(path, tmp_path / "afterwards") == ahead


def test_a_guess_that_was_wrong_is_written_again(tmp_path: Path, told: list[bool]) -> None:
    form = TileFormat(photometric=YCBCR)
    tiles = tiles_of(form, 100)
    right = slide_of(tmp_path / "a.svs", tiles, form, 10)
    wrong = slide_of(tmp_path / "b.svs", [*tiles[:1], complete(tiles[1], form), *tiles[2:]], form, 10)
    written(right, tmp_path / "right")
    assert told == [True]
    found = written(wrong, tmp_path / "wrong")
    assert told == [True, False]  # the second tile is none of the few that were looked at
    assert complete(tiles[1], form) in found["level-0.dcm"]
    assert sorted(found) == sorted(file.name for file in (tmp_path / "wrong" / "b").iterdir())


def test_a_level_that_turns_out_to_be_no_copy_is_made_again_in_any_form(
    tmp_path: Path, told: list[bool]
) -> None:
    form, other = TileFormat(photometric=YCBCR), TileFormat(photometric=YCBCR, subsampling="422")
    tiles = tiles_of(form, 100)
    tiles[1] = complete(tiles_of(other, 1)[0], other)
    path = slide_of(tmp_path / "a.svs", tiles, form, 10)
    for lossless in ("none", "jpeg2000"):
        options = ConvertOptions(coding=CodingChoice(lossless))
        (done,) = convert([path], tmp_path / lossless, options)
        assert not done.instances[-1].born
    assert told == [False, False]


def test_only_so_many_files_are_open_while_a_slide_passes_by(
    tmp_path: Path, told: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "MOST_AHEAD", 1)
    path = make_svs(tmp_path / "a.svs")
    written(path, tmp_path / "one")
    assert told == [True]


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("size", [0, 1, 5000, BUFFER_BYTES, 4 * BUFFER_BYTES + 17])
@pytest.mark.parametrize("reserved", [0, 10, 4096, 70_001])
def test_a_file_has_its_bytes_in_order(
    tmp_path: Path, size: int, reserved: int, cached: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if cached:
        monkeypatch.setattr(direct, "_past_the_cache", lambda _: -1)
    lead, body = os.urandom(reserved), os.urandom(size)
    file = DirectFile(tmp_path / "file", reserved)
    for at in range(0, size, 700_001):
        file.append(body[at : at + 1000], body[at + 1000 : at + 700_001])
    assert file.position == reserved + size
    file.finish(lead)
    file.close()
    assert (tmp_path / "file").read_bytes() == lead + body


def test_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    file = DirectFile(tmp_path / "file", 100)
    file.append(bytes(BUFFER_BYTES // 2))
    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(OSError, match="No space left"):
        file.append(bytes(10 * BUFFER_BYTES))
    file.close()


def test_a_medium_with_other_blocks_gets_its_bytes_through_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pwrite = os.pwrite
    refused: list[int] = []

    def aligned_to_more(fd: int, data: memoryview, position: int) -> int:
        if fd == file._direct:
            refused.append(position)
            raise OSError(errno.EINVAL, "Invalid argument")
        return pwrite(fd, data, position)

    monkeypatch.setattr(os, "pwrite", aligned_to_more)
    monkeypatch.setattr(direct, "_past_the_cache", lambda path: os.open(path, os.O_WRONLY))
    body = os.urandom(3 * BUFFER_BYTES)
    file = DirectFile(tmp_path / "file", 100)
    file.append(body)
    file.finish(bytes(100))
    file.close()
    assert refused
    assert (tmp_path / "file").read_bytes() == bytes(100) + body
