# SPDX-License-Identifier: Apache-2.0
"""The packed form of a blob by itself: any range reads as in the first blob."""

import hashlib
import zlib
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archive import packed
from archive.errors import Damaged, StoreTooNew
from archive.packed import PackedFile, Place, ahead, pack


class Memory:
    """Bytes as a stored object."""

    def __init__(self, data: bytes) -> None:
        self.data, self.size = data, len(data)

    def pread(self, offset: int, length: int, /) -> bytes:
        return self.data[offset : offset + length]


def packed_of(data: bytes, places: Sequence[Place]) -> bytes:
    """With zlib in the place of JPEG XL, where that is smaller."""
    out = bytearray()

    pack(Memory(data), hashlib.sha256(data).digest(), places, zlib.compress, out.extend)
    return bytes(out)


def opened(data: bytes) -> PackedFile:
    return PackedFile(Memory(data), zlib.decompress)


@st.composite
def blobs(draw: st.DrawFn) -> tuple[bytes, list[Place]]:
    """Bytes and frames in them: adjacent or apart, compressible or not."""
    data, places = b"", []
    for gap, length, fill in draw(
        st.lists(st.tuples(st.integers(0, 40), st.integers(1, 60), st.booleans()), max_size=8)
    ):
        data += draw(st.binary(min_size=gap, max_size=gap))
        places.append(Place(len(data), length))
        data += b"a" * length if fill else draw(st.binary(min_size=length, max_size=length))
    return data + draw(st.binary(max_size=40)), places


@given(blobs(), st.integers(0, 600), st.integers(0, 600))
def test_any_range_reads_as_in_the_first_blob(
    blob: tuple[bytes, list[Place]], offset: int, length: int
) -> None:
    data, places = blob
    file = opened(packed_of(data, places))
    assert (file.size, file.digest) == (len(data), hashlib.sha256(data).digest())
    assert file.pread(offset, length) == data[offset : offset + length]
    assert b"".join(file.chunks(offset, length)) == data[offset : offset + length]
    assert b"".join(file.chunks_ahead()) == data
    for place in places:
        frame = data[place.offset : place.offset + place.length]
        stored = file.stored(*place)
        assert stored is None or (len(stored) < place.length and zlib.decompress(stored) == frame)
        assert file.stored(place.offset, place.length + 1) is None


def test_long_stretches_between_frames_come_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed, "READ_BYTES", 10)
    data = bytes(range(95)) + b"a" * 50 + bytes(range(33))
    file = opened(packed_of(data, [Place(95, 50)]))
    pieces = list(file.chunks(0, file.size))
    assert b"".join(pieces) == data
    assert [len(piece) for piece in pieces] == [10] * 9 + [5, 50] + [10] * 3 + [3]


@pytest.mark.parametrize("position", range(0, 64, 3))
def test_a_damaged_head_is_refused_or_told_by_what_comes_out(position: int) -> None:
    data = bytes(100) + b"a" * 100
    damaged = bytearray(packed_of(data, [Place(100, 100)]))
    damaged[position] ^= 0x40
    try:
        file = opened(bytes(damaged))
        told = b"".join(file.chunks(0, file.size)) != data or file.digest != hashlib.sha256(data).digest()
    except (Damaged, StoreTooNew):
        told = True
    assert told or position in range(10, 16)  # flags and a reserved word: the blob's digest guards them


@pytest.mark.parametrize("cut", [0, 8, 63, 64, 80, 150])
def test_a_packed_blob_that_ends_early_is_damaged(cut: int) -> None:
    whole = packed_of(bytes(100) + b"a" * 100, [Place(100, 100)])
    with pytest.raises(Damaged):
        opened(whole[:cut]).pread(0, 200)


@pytest.mark.parametrize("field", range(0, 24, 4))
def test_a_damaged_index_is_told(field: int) -> None:
    data = bytes(100) + b"a" * 100 + bytes(100)
    whole = bytearray(packed_of(data, [Place(100, 100)]))
    whole[len(whole) - 24 + field] ^= 1
    with pytest.raises((Damaged, zlib.error)):
        opened(bytes(whole)).pread(0, 300)


def test_a_frame_of_another_length_is_damaged() -> None:
    whole = packed_of(b"a" * 100, [Place(0, 100)])
    with pytest.raises(Damaged, match="its length"):
        PackedFile(Memory(whole), lambda stored: b"b" * 99).pread(0, 100)


def test_a_newer_form_is_refused() -> None:
    whole = bytearray(packed_of(b"a" * 100, [Place(0, 100)]))
    whole[8] = packed.VERSION + 1
    with pytest.raises(StoreTooNew):
        opened(bytes(whole))


def test_a_source_that_ends_early_is_damaged() -> None:
    source = Memory(b"a" * 50)
    source.size = 100
    with pytest.raises(Damaged):
        pack(source, bytes(32), [Place(0, 40)], zlib.compress, bytearray().extend)


def test_ahead_keeps_the_order_works_on_few_and_ends_with_the_first_error() -> None:
    taken: list[int] = []

    def items() -> Sequence[int]:
        for number in range(1000):
            taken.append(number)
            yield number  # type: ignore[misc]

    def work(number: int) -> int:
        if number == 20:
            raise LookupError
        return number * 2

    found: list[int] = []
    with pytest.raises(LookupError):
        found.extend(ahead(work, items()))
    assert found == [number * 2 for number in range(20)]
    assert len(taken) < 40
