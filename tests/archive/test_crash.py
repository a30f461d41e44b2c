# SPDX-License-Identifier: Apache-2.0
"""Kill -9 at every step of an ingest leaves all or nothing (docs/storage-format.md)."""

import subprocess
import sys
from pathlib import Path

import pytest

from archive.errors import NotFound, StorageFull
from archive.service import Archive
from tests.support.archives import ASK, open_archive, store_bytes
from tests.support.faults import FullDisk
from tests.support.instances import jpeg_tile, make_instance
from tests.support.require import ROOT

STEPS = [
    ("blob", "before", False),
    ("blob", "after", False),
    ("record", "before", False),
    ("record", "after", True),
    ("transaction", "before", True),
    ("transaction", "after", True),
    ("commit", "before", True),
    ("commit", "after", True),
]


def holds(archive: Archive) -> bool:
    return bool(archive.slides(**ASK))


@pytest.mark.parametrize(("part", "when", "whole"), STEPS)
def test_a_kill_at_any_step_of_storing_leaves_all_or_nothing(
    tmp_path: Path, part: str, when: str, whole: bool
) -> None:
    data = make_instance()
    file = tmp_path / "in.dcm"
    file.write_bytes(data)
    open_archive(tmp_path / "site").close()
    died = subprocess.run(
        [sys.executable, "-m", "tests.support.doomed", str(tmp_path / "site"), str(file), part, when],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert died.returncode == -9, died.stderr
    assert "acknowledged" not in died.stdout

    survivor = open_archive(tmp_path / "site")
    survivor.recover()
    assert list(survivor.verify(**ASK)) == []
    assert holds(survivor) is whole
    assert not list((tmp_path / "site" / "spool").iterdir())
    again = store_bytes(survivor, data)
    assert again.outcome == ("already" if whole else "stored")
    assert list(survivor.verify(**ASK)) == []
    survivor.close()


@pytest.mark.parametrize("verb", ["replace", "delete", "correct"])
@pytest.mark.parametrize(
    ("part", "when", "done"),
    [("journal", "before", False), ("journal", "after", True), ("commit", "before", True)],
)
def test_a_kill_while_changing_leaves_the_old_state_or_the_new(
    tmp_path: Path, verb: str, part: str, when: str, done: bool
) -> None:
    uids = {"study": "1.2.3", "series": "1.2.4", "sop": "1.2.5"}
    old, new = make_instance(**uids), make_instance(**uids, tiles=[jpeg_tile(9)] * 4)
    first = open_archive(tmp_path / "site")
    store_bytes(first, old)
    first.close()
    file = tmp_path / "in.dcm"
    file.write_bytes(new)
    died = subprocess.run(
        [sys.executable, "-m", "tests.support.doomed", str(tmp_path / "site"), str(file), part, when, verb],
        cwd=ROOT, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert died.returncode == -9, died.stderr

    survivor = open_archive(tmp_path / "site")
    survivor.recover()
    assert list(survivor.verify(**ASK)) == []
    if verb == "delete":
        assert holds(survivor) is not done
    else:
        (slide,) = survivor.slides(**ASK)
        instance = survivor.instance("1.2.3", "1.2.4", "1.2.5", **ASK)
        if verb == "correct":
            assert (slide.patient_name, instance.revision) == (
                ("Right^Name", 1) if done else ("Test^Slide", 0)
            )
        else:
            stored = b"".join(survivor.open(instance, **ASK).chunks)
            assert stored == (new if done else old)
    survivor.close()


def test_what_was_acknowledged_survives_a_kill_right_after(tmp_path: Path) -> None:
    file = tmp_path / "in.dcm"
    file.write_bytes(make_instance())
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.doomed", str(tmp_path / "site"), str(file), "none", "-"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.startswith("acknowledged")
    survivor = open_archive(tmp_path / "site")
    assert survivor.recover() == []
    assert holds(survivor)
    survivor.close()


@pytest.mark.parametrize("prefix", ["blob/", "record/"])
def test_a_full_disk_refuses_the_instance_and_keeps_nothing_half(tmp_path: Path, prefix: str) -> None:
    archive = open_archive(tmp_path, storage=FullDisk(tmp_path / "store", "none"))
    core_storage = archive._core.storage
    assert isinstance(core_storage, FullDisk)
    core_storage.prefix = prefix
    data = make_instance()
    with pytest.raises(StorageFull):
        store_bytes(archive, data)
    assert not holds(archive)
    core_storage.prefix = "none"
    stored = store_bytes(archive, data)
    assert stored.outcome == "stored"
    assert list(archive.verify(**ASK)) == []
    archive.close()


def test_an_instance_that_was_never_stored_is_not_found(tmp_path: Path) -> None:
    archive = open_archive(tmp_path)
    with pytest.raises(NotFound):
        archive.instance("1.2", "1.3", "1.4", **ASK)
    archive.close()
