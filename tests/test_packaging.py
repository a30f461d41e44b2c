# SPDX-License-Identifier: Apache-2.0
"""What is installed is what is here: four import packages, static files and configuration."""

import importlib
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.support.require import ROOT, absent

PACKAGES = ("archive", "converters", "dicomweb", "gateway")


@pytest.mark.parametrize("name", PACKAGES)
def test_the_package_resolves_into_this_checkout(name: str) -> None:
    module = importlib.import_module(name)
    assert module.__file__ is not None
    assert Path(module.__file__).resolve().parent == ROOT / name


def test_config_and_docker_hold_data_only() -> None:
    assert [p for folder in ("config", "docker") for p in (ROOT / folder).rglob("*.py")] == []


def test_a_wheel_holds_every_package_the_viewer_and_the_configuration(tmp_path: Path) -> None:
    try:
        importlib.import_module("hatchling")
    except ImportError:
        absent("hatchling is not installed")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT, check=True, capture_output=True,
    )  # fmt: skip
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    sources = {str(p.relative_to(ROOT)) for name in PACKAGES for p in (ROOT / name).rglob("*.py")}
    static = {str(p.relative_to(ROOT)) for p in (ROOT / "dicomweb" / "static").rglob("*") if p.is_file()}
    assert sources | static <= names
    assert "gateway/config_data/default.toml" in names
    assert not [n for n in names if n.startswith(("tests/", "benchmarks/"))]


def test_every_source_file_names_its_licence() -> None:
    tracked = subprocess.run(
        ["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()  # fmt: skip
    lacking = []
    for name in tracked:
        text = (ROOT / name).read_text()
        if text.strip() and "SPDX-License-Identifier: Apache-2.0" not in text[:200]:
            lacking.append(name)
    assert lacking == []
