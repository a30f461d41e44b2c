# SPDX-License-Identifier: Apache-2.0
"""What a look at a watched folder gives, and what it costs."""

import os
import time
from pathlib import Path

import pytest

from gateway.ingest import listing
from gateway.ingest.listing import REFRESH_S, Tree, is_ignored


def paths(tree: Tree, now: float = 0.0, awaited: tuple[str, ...] = ()) -> list[str]:
    return [seen.path for seen in tree.look(now, awaited)]


def make(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())


def age(root: Path) -> None:
    """Set the time of all folders to an hour ago."""
    then = time.time() - 3600
    for folder, _, _ in os.walk(root, topdown=False):
        os.utime(folder, (then, then))


def test_files_of_subfolders_are_found(tmp_path: Path) -> None:
    make(tmp_path, "b.svs", "day1/a.svs", "day1/deep/c.dcm")
    assert paths(Tree(tmp_path)) == ["b.svs", "day1/a.svs", "day1/deep/c.dcm"]


@pytest.mark.parametrize(
    "name",
    [
        ".hidden.svs",
        "~$slide.svs",
        "slide.svs.part",
        "slide.svs.filepart",
        "slide.TMP",
        "a.crdownload",
        "Thumbs.db",
        "desktop.ini",
        ".DS_Store",
        "slide.svs~",
        ".nfs0001",
        "DICOMDIR",
    ],
)
def test_hidden_and_temporary_names_are_left_alone(tmp_path: Path, name: str) -> None:
    make(tmp_path, name, f".trash/{name}", ".trash/slide.svs")
    assert is_ignored(name)
    assert paths(Tree(tmp_path)) == []


def test_links_are_not_followed(tmp_path: Path) -> None:
    make(tmp_path, "outside/secret.dcm")
    watched = tmp_path / "watched"
    watched.mkdir()
    (watched / "link.dcm").symlink_to(tmp_path / "outside" / "secret.dcm")
    (watched / "loop").symlink_to(watched)
    assert paths(Tree(watched)) == []


def test_the_companion_folder_of_a_slide_holds_no_slides(tmp_path: Path) -> None:
    make(tmp_path, "one.mrxs", "one/Data0000.dat", "one/Slidedat.ini", "two.vsi", "_two_/stack1/frame_t.ets")
    assert paths(Tree(tmp_path)) == ["one.mrxs", "two.vsi"]


def test_an_unchanged_folder_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, "day1/a.svs", "day2/b.svs")
    age(tmp_path)
    tree = Tree(tmp_path)
    before = paths(tree, 0.0)
    read: list[str] = []
    scandir = os.scandir
    monkeypatch.setattr(listing.os, "scandir", lambda path: read.append(str(path)) or scandir(path))
    assert paths(tree, 1.0) == before
    assert read == []
    make(tmp_path, "day2/c.svs")
    assert paths(tree, 2.0) == ["day1/a.svs", "day2/b.svs", "day2/c.svs"]
    assert read == [str(tmp_path / "day2")]


def test_a_folder_whose_time_moved_back_is_read_again(tmp_path: Path) -> None:
    make(tmp_path, "a.svs")
    age(tmp_path)
    tree = Tree(tmp_path)
    assert paths(tree, 0.0) == ["a.svs"]
    make(tmp_path, "b.svs")
    earlier = time.time() - 7200  # a copying tool that keeps times does that
    os.utime(tmp_path, (earlier, earlier))
    assert paths(tree, 1.0) == ["a.svs", "b.svs"]


def test_a_folder_in_which_a_file_is_awaited_is_read_again(tmp_path: Path) -> None:
    make(tmp_path, "a.svs")
    age(tmp_path)
    tree = Tree(tmp_path)
    (first,) = tree.look(0.0)
    with (tmp_path / "a.svs").open("ab") as file:
        file.write(b"more")
    age(tmp_path)
    (awaited,) = tree.look(1.0, {""})
    assert awaited.size_bytes == first.size_bytes + 4


def test_a_file_replaced_in_place_is_noticed_after_a_while(tmp_path: Path) -> None:
    make(tmp_path, "a.svs")
    age(tmp_path)
    tree = Tree(tmp_path)
    (first,) = tree.look(0.0)
    with (tmp_path / "a.svs").open("ab") as file:
        file.write(b"more")
    (later,) = tree.look(REFRESH_S + 1)
    assert later != first


def test_a_folder_that_cannot_be_read_is_named_and_the_others_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path, "locked/a.svs", "open/b.svs")
    scandir = os.scandir

    def denied(path: Path) -> object:
        if str(path).endswith("locked"):  # root, as whom tests may run, is denied nothing
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(listing.os, "scandir", denied)
    tree = Tree(tmp_path)
    assert paths(tree) == ["open/b.svs"]
    assert tree.errors == {"locked": "Permission denied"}


def test_a_folder_that_is_not_there_is_an_error_not_a_crash(tmp_path: Path) -> None:
    tree = Tree(tmp_path / "unmounted")
    assert paths(tree) == []
    assert tree.errors == {"": "No such file or directory"}


def test_thousands_of_old_files_cost_little_at_each_look(tmp_path: Path) -> None:
    for folder in range(20):
        (tmp_path / str(folder)).mkdir()
        for number in range(250):
            (tmp_path / str(folder) / f"{number}.svs").touch()
    age(tmp_path)
    tree = Tree(tmp_path)
    assert len(paths(tree, 0.0)) == 5000
    started = time.process_time()
    assert len(paths(tree, 1.0)) == 5000
    assert time.process_time() - started < 0.05
