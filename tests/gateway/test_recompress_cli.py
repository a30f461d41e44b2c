# SPDX-License-Identifier: Apache-2.0
"""The command that recompresses, with real processes that decode, and what comes after it."""

import json
from pathlib import Path

import pytest

from tests.gateway.serving import Done, run
from tests.support.instances import make_instance
from tests.support.make_slide import make_svs
from tests.support.tissue import slide, tissue

STUDY = "1.2.3"


@pytest.fixture(scope="module")
def sent() -> dict[str, bytes]:
    """What is stored, by name in an export."""
    return {
        f"{STUDY}/1.2.3.{series}/1.2.3.{series}.1.dcm": slide(
            [tissue(10 * series + n, size=128) for n in range(4)],
            study=STUDY,
            series=f"1.2.3.{series}",
            sop=f"1.2.3.{series}.1",
        )
        for series in (1, 2)
    }


@pytest.fixture
def data(tmp_path: Path, sent: dict[str, bytes]) -> Path:
    for number, content in enumerate(sent.values()):
        (tmp_path / f"{number}.dcm").write_bytes(content)
    done = run(
        "ingest",
        "--create",
        "--data",
        str(tmp_path / "data"),
        *(str(tmp_path / f"{n}.dcm") for n in range(len(sent))),
    )
    assert done.returncode == 0, done.stderr
    return tmp_path / "data"


def exported(data: Path) -> dict[str, bytes]:
    out = data.parent / "out"
    done = run("export", STUDY, "-o", str(out), "--data", str(data))
    assert done.returncode == 0, done.stderr
    return {p.relative_to(out).as_posix(): p.read_bytes() for p in out.rglob("*.dcm")}


def recompress(data: Path, *arguments: str) -> Done:
    return run("recompress", *arguments, "--data", str(data))


def test_a_recompressed_study_is_smaller_exports_the_same_and_comes_back(
    data: Path, sent: dict[str, bytes]
) -> None:
    done = recompress(data, STUDY)
    assert done.returncode == 0, done.stderr
    *lines, summary = done.stdout.splitlines()
    assert [line.split("\t")[:2] for line in lines] == [
        ["1.2.3.1.1", "recompressed"],
        ["1.2.3.2.1", "recompressed"],
    ]
    assert summary.startswith("2 of 2 instances changed: ")
    assert summary.endswith("% less")
    assert exported(data) == sent
    assert run("verify", "--data", str(data)).returncode == 0
    again = recompress(data, STUDY)
    assert (again.returncode, again.stdout.splitlines()[-1]) == (0, "0 of 2 instances changed")
    undone = recompress(data, STUDY, "--undo")
    assert (undone.returncode, undone.stdout.count("\texpanded\t")) == (0, 2), undone.stderr
    assert exported(data) == sent
    assert run("verify", "--data", str(data)).returncode == 0


def test_json_names_every_instance_and_one_series_can_be_named(data: Path) -> None:
    done = recompress(data, STUDY, "--series", "1.2.3.2", "--json", "--reason", "old")
    assert done.returncode == 0, done.stderr
    (one,) = json.loads(done.stdout)
    assert one.pop("size_after_bytes") < one.pop("size_before_bytes")
    assert one == {
        "series_instance_uid": "1.2.3.2",
        "sop_instance_uid": "1.2.3.2.1",
        "outcome": "recompressed",
        "reason": "",
    }


def test_a_backup_holds_the_recompressed_form_and_brings_it_back(data: Path, sent: dict[str, bytes]) -> None:
    assert recompress(data, STUDY).returncode == 0
    backup, restored = data.parent / "backup", data.parent / "restored"
    assert run("backup", "--data", str(data), str(backup)).returncode == 0
    assert run("restore", str(backup), "--data", str(restored)).returncode == 0
    assert run("verify", "--data", str(restored)).returncode == 0
    assert exported(restored) == sent
    assert run("reindex", "--data", str(restored)).returncode == 0
    assert exported(restored) == sent


def test_damage_that_makes_it_fail_is_told_and_ends_with_its_code(data: Path, sent: dict[str, bytes]) -> None:
    path = max((data / "store" / "blob").rglob("*"), key=lambda p: p.stat().st_size)
    path.chmod(0o600)
    content = bytearray(path.read_bytes())
    content[20] ^= 1
    path.write_bytes(content)
    done = recompress(data, STUDY)
    assert done.returncode == 41
    assert "failed: the stored bytes differ from their digest" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("1 of 2 instances changed")


def test_what_is_left_says_why_and_is_no_failure(data: Path) -> None:
    (data.parent / "small.dcm").write_bytes(make_instance(study="1.2.4"))
    assert run("ingest", str(data.parent / "small.dcm"), "--data", str(data)).returncode == 0
    done = recompress(data, "1.2.4")
    assert (done.returncode, done.stderr) == (0, "")
    assert "left: there is nothing to gain" in done.stdout
    slide_path = make_svs(data.parent / "slide.svs", rows=300, columns=300)
    taken = run("ingest", "--json", str(slide_path), "--data", str(data))
    study = json.loads(taken.stdout)[0]["study_instance_uid"]
    done = recompress(data, study)
    assert done.returncode == 0, done.stderr
    assert "left: its frames " in done.stdout


def test_an_unknown_study_is_one_line_and_a_code(data: Path) -> None:
    for arguments in (["9.9"], [STUDY, "--series", "9.9"]):
        done = recompress(data, *arguments)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (6, "", 1)
