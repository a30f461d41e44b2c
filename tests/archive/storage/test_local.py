# SPDX-License-Identifier: Apache-2.0
"""The local back end: the contract, and what only a file system can do."""

import errno
import hashlib
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from archive.errors import ArchiveError, Damaged, StorageFailed, StorageFull
from archive.storage.local import LocalStorage
from tests.contracts.storage import StorageContract, sha256
from tests.support.require import absent


class TestLocalStorage(StorageContract):
    @pytest.fixture
    def storage(self, tmp_path: Path) -> LocalStorage:
        return LocalStorage(tmp_path / "store")


class Crash(BaseException):
    """The power goes: no handler may swallow it."""


@pytest.fixture
def store(tmp_path: Path) -> LocalStorage:
    return LocalStorage(tmp_path / "store")


def spooled(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "spooled"
    path.write_bytes(data)
    return path


def test_a_put_on_the_same_file_system_copies_nothing(tmp_path: Path, store: LocalStorage) -> None:
    path = spooled(tmp_path, b"x" * 1000)
    inode = path.stat().st_ino

    store.put_file("blob/ab/cd/x", path, sha256=sha256(b"x" * 1000))

    assert store.local_path("blob/ab/cd/x").stat().st_ino == inode
    assert store.local_path("blob/ab/cd/x").stat().st_nlink == 1


def test_a_put_from_another_file_system_is_checked_and_moved(store: LocalStorage, tmp_path: Path) -> None:
    with other_file_system(tmp_path) as folder:
        path = folder / "file"
        path.write_bytes(b"travelled")
        store.put_file("a", path, sha256=sha256(b"travelled"))
        assert not path.exists()

        path.write_bytes(b"damaged on the way")
        with pytest.raises(Damaged):
            store.put_file("b", path, sha256=sha256(b"as it was sent"))
        assert path.exists()

    assert list(store.keys()) == ["a"]
    assert list(store.open_ranges("a", [(0, 9)])) == [b"travelled"]
    assert list((tmp_path / "store" / ".incoming").iterdir()) == []


@pytest.mark.parametrize("call", ["os.fsync", "os.link", "os.mkdir", "os.unlink"])
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("put", ["file", "bytes"])
def test_a_crash_at_any_step_leaves_all_or_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, when: str, put: str
) -> None:
    """Every call of every kind is the last one, in turn, until a put goes through."""
    data = b"all or nothing"
    for survived in range(100):
        root = tmp_path / f"{survived}"
        store = LocalStorage(root / "store")
        path = spooled(root, data)
        with monkeypatch.context() as patch:
            crash_on(patch, call, when, survived)
            try:
                if put == "file":
                    store.put_file("blob/ab/cd/x", path, sha256=sha256(data))
                else:
                    store.put_bytes("blob/ab/cd/x", data)
            except Crash:
                crashed = True
            else:
                crashed = False
        after = LocalStorage(root / "store")
        assert after.stat("blob/ab/cd/x") in (None, len(data))
        if after.stat("blob/ab/cd/x") is not None:
            assert list(after.open_ranges("blob/ab/cd/x", [(0, len(data))])) == [data]
        # The sender did not hear "stored", so it comes again.
        after.put_file("blob/ab/cd/x", spooled(root, data), sha256=sha256(data))
        assert list(after.keys()) == ["blob/ab/cd/x"]
        after.sweep(older_than_s=-1)
        assert list((root / "store" / ".incoming").iterdir()) == []
        if not crashed:
            assert survived > 0 or call == "os.unlink", "the crash was never reached"
            return
    pytest.fail("never went through")


def crash_on(patch: pytest.MonkeyPatch, call: str, when: str, survived: int) -> None:
    name = call.rpartition(".")[2]
    real = getattr(os, name)
    left = [survived]

    def crashing(*arguments: object, **named: object) -> object:
        left[0] -= 1
        if left[0] >= 0:
            return real(*arguments, **named)
        if when == "after":
            real(*arguments, **named)
        raise Crash

    patch.setattr(os, name, crashing)


def test_a_name_is_given_only_to_what_is_durable_and_then_made_durable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: LocalStorage
) -> None:
    """The order of system calls is the promise: file, name, then every directory."""
    done: list[str] = []
    root = tmp_path / "store"

    def note(name: str, describe: Callable[..., str]) -> None:
        real = getattr(os, name)

        def noting(*arguments: object, **named: object) -> object:
            done.append(f"{name} {describe(*arguments)}")
            return real(*arguments, **named)

        monkeypatch.setattr(os, name, noting)

    def relative(path: object) -> str:
        return str(Path(str(path)).relative_to(tmp_path))

    note("fsync", lambda fd: relative(os.readlink(f"/proc/self/fd/{fd}")))
    note("mkdir", lambda path, mode=0: relative(path))
    note("link", lambda source, target: relative(target))

    store.put_file("blob/ab/x", spooled(tmp_path, b"x"), sha256=sha256(b"x"))

    assert done == [
        "mkdir store/blob", "mkdir store/blob/ab",
        "fsync spooled", "fsync store", "fsync store/blob",
        "link store/blob/ab/x", "fsync store/blob/ab",
    ]  # fmt: skip
    assert root.is_dir()


def test_directories_another_process_made_are_synced_before_they_are_relied_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: LocalStorage
) -> None:
    (tmp_path / "store" / "blob" / "ab").mkdir(parents=True)
    synced: list[str] = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (synced.append(os.readlink(f"/proc/self/fd/{fd}")), real(fd)))

    store.put_bytes("blob/ab/x", b"x")

    assert {str(tmp_path / "store"), str(tmp_path / "store" / "blob")} <= set(synced)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (errno.ENOSPC, StorageFull), (errno.EDQUOT, StorageFull), (errno.EIO, StorageFailed),
        (errno.EACCES, StorageFailed), (errno.EROFS, StorageFailed),
    ],
)  # fmt: skip
@pytest.mark.parametrize("call", ["fsync", "link", "mkdir"])
def test_an_error_of_the_medium_is_named_without_its_path(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    store: LocalStorage,
    call: str,
    code: int,
    expected: type[ArchiveError],
) -> None:
    path = spooled(tmp_path, b"x")

    def fail(*arguments: object, **named: object) -> None:
        raise OSError(code, os.strerror(code), str(tmp_path))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(expected) as told:
            store.put_file("a/b", path, sha256=sha256(b"x"))

    assert str(tmp_path) not in str(told.value)
    assert errno.errorcode[code] in str(told.value)
    assert path.read_bytes() == b"x"
    assert list(store.keys()) == []


def test_a_file_system_without_hard_links_is_served_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: LocalStorage
) -> None:
    def refuse(*arguments: object) -> None:
        raise OSError(errno.EPERM, "no hard links here")

    monkeypatch.setattr(os, "link", refuse)

    store.put_file("a", spooled(tmp_path, b"x"), sha256=sha256(b"x"))
    store.put_bytes("a", b"x")
    with pytest.raises(Damaged):
        store.put_bytes("a", b"y")

    assert list(store.open_ranges("a", [(0, 1)])) == [b"x"]
    assert list(store.keys()) == ["a"]


def test_a_full_disk_keeps_nothing_of_the_object(tmp_path: Path) -> None:
    with other_file_system(tmp_path, size="1m") as folder:
        store = LocalStorage(folder / "store")
        store.put_bytes("small", b"x")

        with pytest.raises(StorageFull):
            store.put_bytes("large", os.urandom(2_000_000))

        assert list(store.keys()) == ["small"]
        assert list((folder / "store" / ".incoming").iterdir()) == []
        free = store.free_bytes()
        assert free is not None
        assert free > 500_000


def test_stored_files_are_read_only(store: LocalStorage) -> None:
    store.put_bytes("a", b"x")

    assert store.local_path("a").stat().st_mode & 0o777 == 0o440


def test_one_positioned_read_is_one_system_call(monkeypatch: pytest.MonkeyPatch, store: LocalStorage) -> None:
    store.put_bytes("a", b"0123456789")
    calls: list[tuple[int, int]] = []
    real = os.pread
    monkeypatch.setattr(os, "pread", lambda fd, n, at: (calls.append((n, at)), real(fd, n, at))[1])

    with store.open("a") as file:
        assert file.pread(2, 3) == b"234"

    assert calls == [(3, 2)]


def test_unfinished_copies_are_no_objects_and_are_swept(tmp_path: Path, store: LocalStorage) -> None:
    part = tmp_path / "store" / ".incoming" / "1-left-by-a-crash"
    part.write_bytes(b"half")

    assert list(store.keys()) == []
    assert store.sweep(86_400) == 0, "it may still be written"
    os.utime(part, (0, 0))
    assert store.sweep(86_400) == 1
    assert not part.exists()


def test_a_truncated_object_is_damage_while_it_is_read(store: LocalStorage) -> None:
    store.put_bytes("a", b"0123456789")
    path = store.local_path("a")
    stream = store.open_ranges("a", [(0, 4), (4, 6)])
    assert next(stream) == b"0123"
    path.chmod(0o600)
    os.truncate(path, 5)

    with pytest.raises(Damaged):
        next(stream)


def test_a_put_over_a_damaged_object_is_not_acknowledged(tmp_path: Path, store: LocalStorage) -> None:
    store.put_bytes("a", b"content")
    path = store.local_path("a")
    path.chmod(0o600)
    path.write_bytes(b"CONTENT")

    with pytest.raises(Damaged):
        store.put_file("a", spooled(tmp_path, b"content"), sha256=hashlib.sha256(b"content").digest())


@contextmanager
def other_file_system(tmp_path: Path, size: str = "8m") -> Iterator[Path]:
    """A folder on a small file system of its own."""
    folder = Path(tempfile.mkdtemp(dir=tmp_path))
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        absent("mounting a tmpfs is not permitted")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)
