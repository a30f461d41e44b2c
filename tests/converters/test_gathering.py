# SPDX-License-Identifier: Apache-2.0
"""Frames of many pieces, put together at once: the bytes that one after another gives."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from archive.part10.frame_table import FrameTable, Range, Segment, encode_gather
from archive.part10.stream import Part10Stream
from converters.errors import DamagedSlide
from converters.writer import gathering
from converters.writer.gathering import gathered_chunks
from converters.writer.pieces import pieces
from tests.archive.part10.test_stream import header

JPEG = "1.2.840.10008.1.2.4.50"
FILE_BYTES = 50_000


def frames(count: int = 40) -> list[list[Segment]]:
    """Of pieces of two blobs and literals, of any length, odd ones too."""
    generator = np.random.default_rng(3)
    made: list[list[Segment]] = []
    for frame in range(count):
        pieces_of: list[Segment] = [b"\xff\xd8" + bytes([frame])]
        for _ in range(int(generator.integers(1, 30))):
            offset, length = int(generator.integers(0, 45_000)), int(generator.integers(1, 900))
            pieces_of.append(Range(int(generator.integers(0, 2)), offset, length))
        made.append([*pieces_of, b"\xff\xd9"])
    return made


@pytest.fixture
def blobs(tmp_path: Path) -> Iterator[list[int | bytes]]:
    (tmp_path / "file").write_bytes(os.urandom(FILE_BYTES))
    fd = os.open(tmp_path / "file", os.O_RDONLY)
    yield [fd, os.urandom(FILE_BYTES)]
    os.close(fd)


def stream_of(table: FrameTable) -> Part10Stream:
    return Part10Stream(header(JPEG), JPEG, table, ())


@pytest.mark.parametrize(
    ("batch", "span"), [(4 << 20, 32 << 20), (5000, 32 << 20), (1, 1 << 20), (5000, 100)]
)
def test_frames_are_those_of_the_pieces(
    blobs: list[int | bytes], monkeypatch: pytest.MonkeyPatch, batch: int, span: int
) -> None:
    monkeypatch.setattr(gathering, "BATCH_BYTES", batch)
    monkeypatch.setattr(gathering, "SPAN_BYTES", span)
    table = FrameTable.from_bytes(encode_gather(frames()))
    stream = stream_of(table)
    found = list(gathered_chunks(stream, table, blobs))
    assert b"".join(found) == b"".join(pieces(stream.parts(), blobs))
    assert sum(map(len, found)) == stream.length
    assert (len(found) > 3) is (batch < 4 << 20)


@pytest.mark.parametrize("span", [32 << 20, 100])
def test_a_file_that_became_shorter_is_damage(
    blobs: list[int | bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, span: int
) -> None:
    monkeypatch.setattr(gathering, "SPAN_BYTES", span)
    os.truncate(tmp_path / "file", FILE_BYTES // 2)
    table = FrameTable.from_bytes(encode_gather(frames()))
    with pytest.raises(DamagedSlide, match="became shorter"):
        list(gathered_chunks(stream_of(table), table, blobs))


@pytest.mark.parametrize("span", [32 << 20, 100])
def test_bytes_that_are_too_short_are_damage(
    blobs: list[int | bytes], monkeypatch: pytest.MonkeyPatch, span: int
) -> None:
    monkeypatch.setattr(gathering, "SPAN_BYTES", span)
    table = FrameTable.from_bytes(encode_gather(frames()))
    with pytest.raises(DamagedSlide, match="beyond the end"):
        list(gathered_chunks(stream_of(table), table, [blobs[0], bytes(100)]))
