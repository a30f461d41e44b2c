# SPDX-License-Identifier: Apache-2.0
"""``coverslip reject``, and taking it back."""

from pathlib import Path

import pytest

from tests.gateway.serving import run
from tests.gateway.test_changing_cli import found, refused, uid_of
from tests.support.make_slide import make_svs

KOS = "1.2.840.10008.5.1.4.1.1.88.59"


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_svs(tmp_path_factory.mktemp("slide") / "slide.svs")


@pytest.fixture
def data(tmp_path: Path, slide: Path) -> Path:
    assert run("ingest", "--create", "--data", str(tmp_path / "data"), str(slide)).returncode == 0
    return tmp_path / "data"


def test_a_slide_is_rejected_and_comes_back_with_all_its_bytes(data: Path) -> None:
    study, before = uid_of(data, "study"), found(data, "instance")
    done = run("reject", study, "--code", "quality", "--reason", "blurred", "--yes", "--data", str(data))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{len(before)} instances rejected by 2.25.")
    assert [row["00080016"]["Value"] for row in found(data, "instance")] == [[KOS]]
    done = run("reject", study, "--undo", "--reason", "it is sharp", "--data", str(data))
    assert (done.returncode, done.stdout) == (0, f"{len(before)} instances are here again\n"), done.stderr
    assert found(data, "instance") == before
    assert run("verify", "--data", str(data)).returncode == 0


def test_what_cannot_be_rejected_or_taken_back_is_one_line(data: Path) -> None:
    study = uid_of(data, "study")
    refused(run("reject", study, "--data", str(data)), 2, "--code or --undo")
    refused(run("reject", study, "--undo", "--data", str(data)), 2, "say why")
    refused(run("reject", "1.2", "--code", "safety", "--yes", "--data", str(data)), 6, "1.2")
    refused(run("reject", study, "--undo", "--reason", "x", "--data", str(data)), 6, study)
