# SPDX-License-Identifier: Apache-2.0
"""What composition promises beside naming classes."""

import multiprocessing
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from gateway import compose
from gateway.maintenance import Maintenance
from gateway.settings import Settings, SettingsError


def secret_of(data: str) -> bytes:
    return compose.site_secret(Settings(data_dir=data))


def test_processes_that_ask_at_once_get_one_secret(tmp_path: Path) -> None:
    with multiprocessing.get_context("forkserver").Pool(4) as pool:
        found = set(pool.map(secret_of, [str(tmp_path / "data")] * 16, chunksize=1))
    assert len(found) == 1
    assert {path.name for path in (tmp_path / "data").iterdir()} == {"secret"}
    assert stat.S_IMODE((tmp_path / "data" / "secret").stat().st_mode) == 0o600
    assert len(found.pop()) == 32


def test_two_sites_have_two_secrets(tmp_path: Path) -> None:
    assert secret_of(str(tmp_path / "a")) != secret_of(str(tmp_path / "b"))


def test_a_folder_without_an_archive_is_not_made_one_by_looking(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="holds no archive"):
        with compose.archive(Settings(data_dir=str(tmp_path / "data"))):
            pass
    assert not (tmp_path / "data").exists()


def test_watched_folders_are_absolute_and_below_the_data_folder_when_relative(tmp_path: Path) -> None:
    settings = Settings(data_dir=str(tmp_path))
    assert compose.watch_settings(settings).folders == (str(tmp_path / "watch"),)


class Counting:
    """An archive whose housekeeping is counted; the first fold fails."""

    policy = compose.OpenPolicy()

    def __init__(self) -> None:
        self.folds = 0
        self.twice = threading.Event()

    def fold_access(self) -> int:
        self.folds += 1
        if self.folds == 1:
            raise OSError("busy")
        self.twice.set()
        return 0

    def collect_garbage(self, **caller: object) -> int:
        return 0

    def expire_commitments(self) -> int:
        return 0


def test_housekeeping_goes_on_after_a_failure_and_ends_with_its_role(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.maintenance.FOLD_S", 0.01)
    archive, stop = Counting(), threading.Event()
    with Maintenance(archive, stop) as maintenance:  # type: ignore[arg-type]
        assert archive.twice.wait(20)
    assert stop.is_set()
    assert not maintenance._thread.is_alive()


def test_an_archive_may_keep_as_many_files_open_as_the_system_allows(tmp_path: Path) -> None:
    """The soft limit of a shell is 1024, far below what instances and connections take."""
    probe = (
        "import resource, sys; from gateway import compose; from gateway.settings import Settings\n"
        "hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (200, hard))\n"
        "with compose.archive(Settings(data_dir=sys.argv[1]), codecs=False, migrate=True):\n"
        "    print(resource.getrlimit(resource.RLIMIT_NOFILE)[0] == hard)"
    )
    done = subprocess.run(
        [sys.executable, "-c", probe, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert done.stdout == "True\n"
