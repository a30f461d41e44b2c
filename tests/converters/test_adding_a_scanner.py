# SPDX-License-Identifier: Apache-2.0
"""The example of docs/adding-a-scanner.md works as it stands there."""

import json
import re
import subprocess
import sysconfig
import tomllib
import venv
from pathlib import Path

import pydicom
import pytest

from converters.registry import readers
from tests.support.require import ROOT

PAGE = ROOT / "docs" / "adding-a-scanner.md"
BLOCK = re.compile(r"^```\w+ (\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks() -> dict[str, str]:
    """The page's named blocks: file name to text."""
    return dict(BLOCK.findall(PAGE.read_text(encoding="utf-8")))


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python where the page's package is installed beside Coverslip, as pip would do it."""
    home = tmp_path_factory.mktemp("environment")
    venv.create(home, with_pip=False, symlinks=True)
    site = next((home / "lib").glob("python*")) / "site-packages"
    (site / "coverslip.pth").write_text(f"{sysconfig.get_path('purelib')}\n{ROOT}\n", encoding="utf-8")
    texts = blocks()
    package = site / "tinyscan" / "reader.py"
    package.parent.mkdir()
    package.write_text(texts["tinyscan/reader.py"], encoding="utf-8")
    project = tomllib.loads(texts["pyproject.toml"])["project"]
    named = site / f"{project['name']}-{project['version']}.dist-info"
    named.mkdir()
    metadata = f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    (named / "METADATA").write_text(metadata, encoding="utf-8")
    lines = ["[coverslip.readers]"]
    lines += [f"{key} = {value}" for key, value in project["entry-points"]["coverslip.readers"].items()]
    (named / "entry_points.txt").write_text("\n".join(lines), encoding="utf-8")
    (home / "draw.py").write_text(texts["draw.py"], encoding="utf-8")
    return home / "bin" / "python"


@pytest.fixture(scope="module")
def slide(python: Path) -> Path:
    path = python.parent.parent / "example.tiny"
    run(python, str(python.parent.parent / "draw.py"), str(path))
    return path


def run(python: Path, *arguments: str) -> str:
    """What the command printed; it must succeed."""
    done = subprocess.run(
        [str(python), *arguments], capture_output=True, text=True, timeout=120, cwd=python.parent
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_pages_reader_is_asked_and_claims_its_file(python: Path, slide: Path) -> None:
    told = json.loads(run(python, "-m", "gateway", "inspect", "--json", str(slide)))
    assert "tinyscan" in json.dumps(told)
    assert all(reader.format != "tinyscan" for reader in readers())  # not without being installed


def test_a_slide_of_the_pages_scanner_becomes_dicom(python: Path, slide: Path, tmp_path: Path) -> None:
    run(python, "-m", "gateway", "convert", str(slide), "--output", str(tmp_path), "--verify")
    finest = pydicom.dcmread(tmp_path / "example" / "level-0.dcm")
    assert (finest.TotalPixelMatrixRows, finest.TotalPixelMatrixColumns) == (700, 900)
    assert finest.Manufacturer == "TinyScan"
    assert finest.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.4.50"
    assert finest.ContainerIdentifier == "S26-1"
    jpegs = slide.read_bytes().split(b"\xff\xd8\xff\xe0")
    assert finest.PixelData.count(jpegs[1]) == 1  # copied, not encoded again


def test_damage_is_refused_in_one_line(python: Path, slide: Path) -> None:
    cut = slide.with_name("cut.tiny")
    cut.write_bytes(slide.read_bytes()[:3000])
    done = subprocess.run(
        [str(python), "-m", "gateway", "inspect", str(cut)],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=python.parent,
    )
    assert done.returncode != 0
    assert "tiles of level 0 lie beyond the end of the file" in done.stdout + done.stderr


def test_the_page_holds_the_blocks_that_are_tested() -> None:
    assert list(blocks()) == ["tinyscan/reader.py", "pyproject.toml", "draw.py"]
