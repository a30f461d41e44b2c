# SPDX-License-Identifier: Apache-2.0
"""Backup and restore: everything comes back, or nothing does and the reason is said."""

import json
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.gateway.serving import run, serving
from tests.support import postgres
from tests.support.make_slide import make_svs


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A data folder with a slide, and its backup."""
    folder = tmp_path_factory.mktemp("backup")
    data, backup = folder / "data", folder / "backup"
    assert run("ingest", "--create", "--data", str(data), str(make_svs(folder / "slide.svs"))).returncode == 0
    assert rows(data) != "[]\n"  # a read, which leaves its line in access/
    assert run("backup", "--data", str(data), str(backup)).returncode == 0
    return data, backup


def rows(data: Path) -> str:
    return run("find", "--level", "instance", "--data", str(data), "--json").stdout


def test_a_restored_archive_holds_the_same_verifies_and_makes_the_same_uids(
    made: tuple[Path, Path], tmp_path: Path
) -> None:
    data, backup = made
    restored = tmp_path / "restored"
    done = run("restore", str(backup), "--data", str(restored))
    assert done.returncode == 0, done.stderr
    assert rows(restored) == rows(data) != "[]\n"
    assert run("verify", "--data", str(restored)).returncode == 0
    assert (restored / "secret").read_bytes() == (data / "secret").read_bytes()
    assert {path.name for path in (data / "access").iterdir()} & {
        path.name for path in (restored / "access").iterdir()
    }


def test_a_target_that_is_not_empty_is_refused_and_untouched(made: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("x")
    done = run("restore", str(made[1]), "--data", str(tmp_path))
    assert done.returncode == 34
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def flip(path: Path) -> None:
    path.chmod(0o600)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def largest_object(backup: Path) -> Path:
    return max((backup / "store").rglob("*"), key=lambda path: path.stat().st_size)


@pytest.mark.parametrize(
    "damage",
    [
        lambda backup: flip(largest_object(backup)),
        lambda backup: largest_object(backup).unlink(),
        lambda backup: flip(backup / "database"),
        lambda backup: flip(backup / "secret"),
        lambda backup: (backup / "objects").write_text((backup / "objects").read_text()[:-80]),
        lambda backup: (backup / "backup.json").unlink(),
        lambda backup: (backup / "backup.json").write_text("{}"),
        lambda backup: (backup / "backup.json").write_text(
            (backup / "backup.json").read_text().replace('"secret"', '"../secret"')
        ),
    ],
    ids=["flipped", "missing", "database", "secret", "list", "unfinished", "manifest", "path"],
)
def test_a_damaged_backup_is_refused_and_leaves_nothing_behind(
    damage: Callable[[Path], None], made: tuple[Path, Path], tmp_path: Path
) -> None:
    backup, target = tmp_path / "backup", tmp_path / "target"
    shutil.copytree(made[1], backup)
    damage(backup)
    done = run("restore", str(backup), "--data", str(target))
    assert done.returncode == 37, done.stderr
    assert done.stderr.count("\n") == 1
    assert not target.exists() or list(target.iterdir()) == []


def test_a_backup_beside_a_running_server_copies_only_what_is_new(tmp_path: Path) -> None:
    first = make_svs(tmp_path / "first.svs", seed=1)
    second = make_svs(tmp_path / "second.svs", seed=2)
    data, backup = tmp_path / "data", tmp_path / "backup"
    with serving(data):
        run("ingest", "--create", "--data", str(data), str(first))
        run("backup", "--data", str(data), str(backup))
        before = {
            path: path.stat().st_mtime_ns for path in (backup / "store" / "blob").rglob("*") if path.is_file()
        }
        run("ingest", "--create", "--data", str(data), str(second))
        assert run("backup", "--data", str(data), str(backup)).returncode == 0
    after = {
        path: path.stat().st_mtime_ns for path in (backup / "store" / "blob").rglob("*") if path.is_file()
    }
    assert before.items() < after.items()
    assert run("restore", str(backup), "--data", str(tmp_path / "restored")).returncode == 0
    assert rows(tmp_path / "restored") == rows(data)


def test_verify_makes_a_rotten_copy_anew_and_without_it_size_is_trusted(
    made: tuple[Path, Path], tmp_path: Path
) -> None:
    data, backup = made[0], tmp_path / "backup"
    shutil.copytree(made[1], backup)
    rotten = largest_object(backup)
    flip(rotten)
    assert run("backup", "--data", str(data), str(backup)).returncode == 0
    refused = run("restore", str(backup), "--data", str(tmp_path / "restored"))
    assert refused.returncode == 37
    whole = {path: path.stat().st_mtime_ns for path in (backup / "store").rglob("*") if path.is_file()}
    done = run("backup", "--data", str(data), str(backup), "--verify")
    assert done.returncode == 0, done.stderr
    changed = {path for path, time in whole.items() if path.stat().st_mtime_ns != time}
    assert changed == {rotten}
    assert run("restore", str(backup), "--data", str(tmp_path / "restored")).returncode == 0


def test_a_copy_that_was_cut_short_is_made_anew(made: tuple[Path, Path], tmp_path: Path) -> None:
    backup = tmp_path / "backup"
    shutil.copytree(made[1], backup)
    cut = largest_object(backup)
    cut.chmod(0o600)
    cut.write_bytes(cut.read_bytes()[:-1])
    assert run("backup", "--data", str(made[0]), str(backup)).returncode == 0
    assert run("restore", str(backup), "--data", str(tmp_path / "restored")).returncode == 0


def test_a_backup_says_that_its_secret_is_in_plain_and_keeps_it_from_others(
    made: tuple[Path, Path], tmp_path: Path
) -> None:
    done = run("backup", "--data", str(made[0]), str(tmp_path / "backup"))
    assert [line for line in done.stdout.splitlines() if "secret" in line and "not encrypted" in line]
    assert stat.S_IMODE((tmp_path / "backup" / "secret").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "backup").stat().st_mode) == 0o700


def test_a_damaged_object_is_copied_and_reported(tmp_path: Path) -> None:
    data = tmp_path / "data"
    run("ingest", "--create", "--data", str(data), str(make_svs(tmp_path / "slide.svs")))
    damaged = max((data / "store" / "blob").rglob("*"), key=lambda path: path.stat().st_size)
    flip(damaged)
    done = run("backup", "--data", str(data), str(tmp_path / "backup"))
    assert done.returncode == 40
    assert f"damaged: {damaged.relative_to(data / 'store')}" in done.stdout
    again = run("backup", "--data", str(data), str(tmp_path / "backup"), "--verify")
    assert (again.returncode, again.stdout) == (40, done.stdout)


def test_a_folder_that_is_no_backup_is_not_made_one(made: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").write_bytes(b"x")
    done = run("backup", "--data", str(made[0]), str(tmp_path))
    assert done.returncode == 34
    assert [path.name for path in tmp_path.iterdir()] == ["holiday.jpg"]


def test_an_archive_on_postgresql_comes_back_into_an_empty_database(tmp_path: Path) -> None:
    data, restored = tmp_path / "data", tmp_path / "restored"
    with postgres.server() as url:
        old, new = postgres.new_database(url, "old"), postgres.new_database(url, "new")
        slide = make_svs(tmp_path / "slide.svs")
        done = run("ingest", "--create", "--data", str(data), str(slide), COVERSLIP_DATABASE_URL=old)
        assert done.returncode == 0, done.stderr
        found = run("find", "--json", "--data", str(data), COVERSLIP_DATABASE_URL=old).stdout
        done = run("backup", "--data", str(data), str(tmp_path / "backup"), COVERSLIP_DATABASE_URL=old)
        assert done.returncode == 0, done.stderr
        wrong = run("restore", str(tmp_path / "backup"), "--data", str(restored))
        assert wrong.returncode == 37
        done = run("restore", str(tmp_path / "backup"), "--data", str(restored), COVERSLIP_DATABASE_URL=new)
        assert done.returncode == 0, done.stderr
        assert run("find", "--json", "--data", str(restored), COVERSLIP_DATABASE_URL=new).stdout == found
        assert len(json.loads(found)) == 1
        assert run("verify", "--data", str(restored), COVERSLIP_DATABASE_URL=new).returncode == 0
