# SPDX-License-Identifier: Apache-2.0
"""Literals and ranges joined into pieces: every byte, in order, whatever the order of the ranges."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from archive.part10.frame_table import Range
from converters.errors import DamagedSlide
from converters.writer.pieces import PIECE_BYTES, pieces

SIZE = 5 * PIECE_BYTES // 2


@pytest.fixture
def data() -> bytes:
    return np.random.default_rng(1).bytes(SIZE)


@pytest.fixture
def descriptor(tmp_path: Path, data: bytes) -> Iterator[int]:
    path = tmp_path / "blob"
    path.write_bytes(data)
    opened = os.open(path, os.O_RDONLY)
    yield opened
    os.close(opened)


@pytest.mark.parametrize("step", [1000, 70_001, PIECE_BYTES + 7])
@pytest.mark.parametrize("shuffled", [False, True])
def test_every_byte_comes_in_order(descriptor: int, data: bytes, step: int, shuffled: bool) -> None:
    starts = list(range(0, SIZE, step))
    if shuffled:
        np.random.default_rng(2).shuffle(starts)
    parts: list[bytes | Range] = []
    expected = b""
    for number, start in enumerate(starts):
        length = min(step, SIZE - start)
        parts += [f"{number};".encode(), Range(number % 2, start, length)]
        expected += f"{number};".encode() + data[start : start + length]
    found = list(pieces(parts, [descriptor, data]))
    assert b"".join(found) == expected
    assert all(PIECE_BYTES <= len(piece) < 2 * PIECE_BYTES + 100 for piece in found[:-1])


def test_scattered_ranges_are_read_alone(descriptor: int, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    pread = os.pread

    def counted(fd: int, size: int, offset: int) -> bytes:
        read.append(size)
        return pread(fd, size, offset)

    monkeypatch.setattr(os, "pread", counted)
    scattered = [Range(0, start, 100) for start in range(SIZE - 100, 0, -100_000)]
    list(pieces(scattered, [descriptor]))
    assert sum(read) == 100 * len(scattered)
    read.clear()
    list(pieces([Range(0, start, 100) for start in range(0, SIZE - 99, 100)], [descriptor]))
    assert len(read) < 30


@pytest.mark.parametrize("as_bytes", [False, True])
def test_a_blob_that_ends_early_is_damaged(descriptor: int, data: bytes, as_bytes: bool) -> None:
    with pytest.raises(DamagedSlide):
        list(pieces([Range(0, SIZE - 10, 20)], [data if as_bytes else descriptor]))
