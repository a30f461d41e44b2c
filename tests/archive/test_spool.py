# SPDX-License-Identifier: Apache-2.0
"""Files on their way in: whole, hashed as they lie there, gone when refused."""

import hashlib
import os
from pathlib import Path

import pytest

from archive import spool as spool_module
from archive.errors import SourceChanged, Unreadable
from archive.spool import Spool

MIB = 1 << 20


@pytest.mark.parametrize("size", [0, 1, MIB, 32 * MIB, 32 * MIB + 1, 70 * MIB - 5])
@pytest.mark.parametrize("in_kernel", [True, False, None])
def test_a_copy_has_the_bytes_and_the_digest_of_its_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, in_kernel: bool | None
) -> None:
    if in_kernel is None:  # as some file systems do
        monkeypatch.setattr(os, "copy_file_range", lambda *_: 0)
    elif not in_kernel:

        def unsupported(*arguments: object) -> int:
            raise OSError(18, "cross-device")

        monkeypatch.setattr(os, "copy_file_range", unsupported)
    source = tmp_path / "source"
    source.write_bytes(os.urandom(min(size, MIB)) + bytes(max(0, size - MIB)))
    seen: list[int] = []
    staged = Spool(tmp_path / "spool").copy(source, seen.append)
    assert staged.path.read_bytes() == source.read_bytes()
    assert staged.sha256 == hashlib.sha256(source.read_bytes()).digest()
    assert staged.size_bytes == size
    assert seen[-1:] == ([size] if size else [])


@pytest.mark.parametrize("size", [1, 70 * MIB - 5])
def test_who_looks_on_sees_all_bytes_of_the_copy_and_again_what_is_asked_for(
    tmp_path: Path, size: int
) -> None:
    source = tmp_path / "source"
    source.write_bytes(os.urandom(size))
    shown = bytearray()
    starts: list[int] = []

    def look(position: int, data: memoryview) -> int:
        starts.append(position)
        shown[position:] = data
        return max(0, position + len(data) - 4000)  # in the midst of a page

    staged = Spool(tmp_path / "spool").copy(source, seen=look)
    assert shown == source.read_bytes()
    assert staged.sha256 == hashlib.sha256(shown).digest()
    assert starts == sorted(starts)
    assert (len(starts) > 1) is (size > 32 * MIB)


def test_an_onlooker_that_fails_leaves_no_digest_of_half_a_copy(tmp_path: Path) -> None:
    def fail(position: int, data: memoryview) -> int:
        raise ZeroDivisionError

    source = tmp_path / "source"
    source.write_bytes(bytes(3 * MIB))
    with pytest.raises(ZeroDivisionError):
        Spool(tmp_path / "spool").copy(source, seen=fail)
    assert list((tmp_path / "spool").iterdir()) == []


def test_a_source_that_changes_while_it_is_copied_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(bytes(20 * MIB))

    def grow(copied: int) -> None:
        with source.open("ab") as file:
            file.write(bytes(9 * MIB))

    with pytest.raises(SourceChanged):
        Spool(tmp_path / "spool").copy(source, grow)
    assert list((tmp_path / "spool").iterdir()) == []
    assert source.stat().st_size < 100 * MIB  # it did not run after the end for ever


def test_what_is_asked_meanwhile_may_refuse_and_leaves_nothing(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(bytes(3 * MIB))

    def refuse(path: Path) -> None:
        assert path.stat().st_size == 3 * MIB
        raise Unreadable("no")

    with pytest.raises(Unreadable):
        Spool(tmp_path / "spool").copy(source, None, refuse)
    assert list((tmp_path / "spool").iterdir()) == []


def test_a_source_that_cannot_be_opened_is_named_by_its_reason(tmp_path: Path) -> None:
    with pytest.raises(Unreadable, match="No such file"):
        Spool(tmp_path / "spool").copy(tmp_path / "absent")


@pytest.mark.parametrize("size", [0, 10, 3 * MIB + 7])
def test_what_is_written_piece_by_piece_has_its_digest(tmp_path: Path, size: int) -> None:
    data = os.urandom(size)
    with Spool(tmp_path / "spool").stage(size * 2) as staging:
        for start in range(0, size, 65_537):
            staging.write(data[start : start + 65_537])
        staged = staging.finish()
    assert staged.path.read_bytes() == data
    assert staged.sha256 == hashlib.sha256(data).digest()


def test_an_adopted_file_is_hashed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = Spool(tmp_path / "spool")
    path = spool.new_path()
    path.write_bytes(b"abc")
    digest = hashlib.sha256(b"abc").digest()
    assert spool.adopt(path).sha256 == digest
    monkeypatch.delattr(spool_module, "hash_file")
    assert spool.adopt(path, digest).sha256 == digest
