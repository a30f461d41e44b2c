# SPDX-License-Identifier: Apache-2.0
"""What every storage back end promises: subclass :class:`StorageContract` and give it a
``storage`` fixture. Nothing here knows where the bytes are."""

import hashlib
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from archive.errors import Damaged
from archive.storage.base import Storage

BAD_KEYS = [
    "", "/", "/absolute", "a/", "a//b", "..", "a/../b", "./a", ".hidden", "a/.hidden", "a\\b",
    "a\0b", "ä", "a b", "a/" + "b" * 201, "/".join("abcdefgh" for _ in range(80)),
]  # fmt: skip


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


class StorageContract:
    """Tests only; the subclass brings the back end."""

    @pytest.fixture
    def new_file(self, tmp_path: Path) -> Callable[[bytes], Path]:
        """Writes a file as a spool would leave it; on the store's file system if that is
        below ``tmp_path``."""

        def write(data: bytes) -> Path:
            path = tmp_path / f"spooled-{len(list(tmp_path.iterdir()))}"
            path.write_bytes(data)
            return path

        return write

    def test_a_stored_file_is_read_back_whole_and_leaves_the_spool(
        self, storage: Storage, new_file: Callable[[bytes], Path]
    ) -> None:
        data = os.urandom(300_000)
        path = new_file(data)

        storage.put_file("blob/ab/cd/one", path, sha256=sha256(data))

        with storage.open("blob/ab/cd/one") as file:
            assert file.size == len(data)
            assert file.pread(0, len(data)) == data
            assert os.pread(file.fileno(), 7, 11) == data[11:18]
        assert not path.exists()
        assert storage.stat("blob/ab/cd/one") == len(data)
        assert storage.local_path("blob/ab/cd/one").read_bytes() == data

    def test_stored_bytes_are_read_back(self, storage: Storage) -> None:
        storage.put_bytes("record/r", b"twelve bytes")
        storage.put_bytes("store.json", b"")

        assert b"".join(storage.open_ranges("record/r", [(0, 12)])) == b"twelve bytes"
        assert storage.stat("store.json") == 0

    def test_a_read_beyond_the_end_gives_what_there_is(self, storage: Storage) -> None:
        storage.put_bytes("a", b"0123456789")

        with storage.open("a") as file:
            assert file.pread(8, 100) == b"89"
            assert file.pread(10, 1) == b""

    def test_the_same_content_again_is_success(
        self, storage: Storage, new_file: Callable[[bytes], Path]
    ) -> None:
        storage.put_bytes("a", b"content")
        path = new_file(b"content")

        storage.put_bytes("a", b"content")
        storage.put_file("a", path, sha256=sha256(b"content"))

        assert not path.exists()
        assert list(storage.open_ranges("a", [(0, 7)])) == [b"content"]

    @pytest.mark.parametrize("other", [b"CONTENT", b"longer content", b""])
    def test_other_content_under_a_key_is_refused_and_changes_nothing(
        self, storage: Storage, new_file: Callable[[bytes], Path], other: bytes
    ) -> None:
        storage.put_bytes("a", b"content")
        path = new_file(other)

        with pytest.raises(Damaged):
            storage.put_bytes("a", other)
        with pytest.raises(Damaged):
            storage.put_file("a", path, sha256=sha256(other))

        assert list(storage.open_ranges("a", [(0, 7)])) == [b"content"]
        assert path.read_bytes() == other, "the refused file is still the caller's"
        assert list(storage.keys()) == ["a"]

    @settings(
        # The suite is inherited, and its fixture is fresh for a key that is the content's own.
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors],
        max_examples=40,
        deadline=None,
    )
    @given(data=st.binary(max_size=400), picks=st.data())
    def test_ranges_come_in_the_order_asked(
        self, storage: Storage, data: bytes, picks: st.DataObject
    ) -> None:
        key = "ranges/" + sha256(data).hex()
        storage.put_bytes(key, data)
        place = st.integers(0, len(data))
        pairs = picks.draw(st.lists(st.tuples(place, place).map(sorted), max_size=6))

        got = list(storage.open_ranges(key, [(start, stop - start) for start, stop in pairs]))

        assert got == [data[start:stop] for start, stop in pairs]

    @pytest.mark.parametrize("bad", [(0, 11), (10, 1), (11, 0), (-1, 2), (3, -1)])
    def test_a_range_outside_the_object_is_refused_before_the_first_byte(
        self, storage: Storage, bad: tuple[int, int]
    ) -> None:
        storage.put_bytes("a", b"0123456789")

        with pytest.raises(Damaged):
            storage.open_ranges("a", [(0, 4), bad])

    def test_what_is_missing_is_damage_not_an_empty_answer(self, storage: Storage) -> None:
        assert storage.stat("nothing") is None
        for ask in (storage.open, storage.modified, storage.local_path):
            with pytest.raises(Damaged):
                ask("nothing")
        with pytest.raises(Damaged):
            list(storage.open_ranges("nothing", []))

    def test_delete_removes_and_may_be_repeated(self, storage: Storage) -> None:
        storage.put_bytes("a/b", b"x")

        storage.delete("a/b")
        storage.delete("a/b")

        assert storage.stat("a/b") is None
        assert list(storage.keys()) == []
        storage.put_bytes("a/b", b"another")
        assert storage.stat("a/b") == 7

    def test_keys_are_sorted_and_start_with_the_prefix(self, storage: Storage) -> None:
        keys = ["a", "a-b/c", "a.b", "a0", "b/a", "b/a-x", "b/a/c", "b0", "blob/ab/cd/1", "blob/ab/ce/2"]
        for key in reversed([key for key in keys if key not in ("a", "b/a")]):
            storage.put_bytes(key, b"x")

        stored = sorted(key for key in keys if key not in ("a", "b/a"))
        assert list(storage.keys()) == stored
        for prefix in (
            "a",
            "a-",
            "b/",
            "b/a",
            "blob",
            "blob/",
            "blob/ab/c",
            "blob/ab/cd/1",
            "none",
            "none/at",
        ):
            assert list(storage.keys(prefix)) == [key for key in stored if key.startswith(prefix)]

    @pytest.mark.parametrize("key", BAD_KEYS)
    def test_a_key_that_could_leave_the_store_is_refused(
        self, storage: Storage, key: str, new_file: Callable[[bytes], Path]
    ) -> None:
        path = new_file(b"x")
        with pytest.raises(ValueError):
            storage.put_bytes(key, b"x")
        with pytest.raises(ValueError):
            storage.put_file(key, path, sha256=sha256(b"x"))
        for ask in (storage.open, storage.stat, storage.delete, storage.modified, storage.local_path):
            with pytest.raises(ValueError):
                ask(key)
        assert path.exists()
        assert list(storage.keys()) == []

    def test_many_threads_may_put_the_same_key_at_once(
        self, storage: Storage, new_file: Callable[[bytes], Path]
    ) -> None:
        data = os.urandom(50_000)
        paths = [new_file(data) for _ in range(8)]
        start = threading.Barrier(len(paths))
        failures: list[BaseException] = []

        def put(path: Path) -> None:
            start.wait()
            try:
                storage.put_file("blob/00/11/same", path, sha256=sha256(data))
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=put, args=(path,)) for path in paths]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert failures == []
        assert list(storage.keys()) == ["blob/00/11/same"]
        assert list(storage.open_ranges("blob/00/11/same", [(0, len(data))])) == [data]

    def test_of_two_contents_put_at_once_one_is_kept_and_the_other_refused(self, storage: Storage) -> None:
        contents = [bytes([number]) * 20_000 for number in range(6)]
        start = threading.Barrier(len(contents))
        refused: list[bytes] = []

        def put(data: bytes) -> None:
            start.wait()
            try:
                storage.put_bytes("a", data)
            except Damaged:
                refused.append(data)

        threads = [threading.Thread(target=put, args=(data,)) for data in contents]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        (kept,) = storage.open_ranges("a", [(0, 20_000)])
        assert len(refused) == len(contents) - 1
        assert kept in contents
        assert kept not in refused

    def test_an_open_file_outlives_its_delete(self, storage: Storage) -> None:
        storage.put_bytes("a", b"still here")

        with storage.open("a") as file:
            storage.delete("a")
            assert file.pread(0, 10) == b"still here"

    def test_the_time_of_writing_is_known(self, storage: Storage) -> None:
        storage.put_bytes("a", b"x")
        storage.put_bytes("b", b"x")

        assert 1.6e9 < storage.modified("a") <= storage.modified("b")
