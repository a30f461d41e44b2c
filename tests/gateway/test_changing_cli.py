# SPDX-License-Identifier: Apache-2.0
"""Commands that change or take out what is stored: correct, delete, original."""

import json
from pathlib import Path

import pytest

from tests.gateway.serving import Done, run
from tests.support.instances import make_instance
from tests.support.make_slide import make_svs


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_svs(tmp_path_factory.mktemp("slide") / "slide.svs")


@pytest.fixture
def data(tmp_path: Path, slide: Path) -> Path:
    assert run("ingest", "--create", "--data", str(tmp_path / "data"), str(slide)).returncode == 0
    return tmp_path / "data"


def found(data: Path, level: str = "study", *keys: str) -> list[dict[str, dict[str, list[str]]]]:
    rows = run("find", "--data", str(data), "--json", "--level", level, *keys).stdout
    return list(json.loads(rows))


def uid_of(data: Path, level: str) -> str:
    tag = {"study": "0020000D", "series": "0020000E", "instance": "00080018"}[level]
    return found(data, level)[0][tag]["Value"][0]


def refused(done: Done, code: int, complaint: str) -> None:
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    assert complaint in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_corrected_study_is_found_by_its_new_values_and_verifies(data: Path) -> None:
    done = run("correct", uid_of(data, "study"), "--set", "PatientID=A-17", "--set", "PatientName=Doe^Jane",
               "--reason", "wrong label", "--data", str(data))  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{len(found(data, 'instance'))} instances corrected\n"
    assert len(found(data, "study", "PatientID=A-17", "PatientName=Doe*")) == 1
    assert run("verify", "--data", str(data)).returncode == 0


def test_several_values_numbers_sequences_and_nothing_can_be_set(data: Path) -> None:
    item = json.dumps([{"00400031": {"vr": "UT", "Value": ["LAB"]}}])
    done = run("correct", uid_of(data, "study"), "--set", "OtherPatientNames=A^B\\C^D",
               "--set", "PregnancyStatus=4", "--set", f"IssuerOfAccessionNumberSequence={item}",
               "--set", "PatientBirthDate=", "--reason", "x", "--data", str(data))  # fmt: skip
    assert done.returncode == 0, done.stderr
    out = data.parent / "out"
    assert run("export", uid_of(data, "study"), "-o", str(out), "--data", str(data)).returncode == 0
    from pydicom import dcmread

    for path in out.rglob("*.dcm"):
        header = dcmread(path, stop_before_pixels=True)
        assert list(header.OtherPatientNames) == ["A^B", "C^D"]
        assert header.PregnancyStatus == 4
        assert header.IssuerOfAccessionNumberSequence[0].LocalNamespaceEntityID == "LAB"
        assert not header.PatientBirthDate


@pytest.mark.parametrize(
    ("change", "code", "complaint"),
    [
        ("PatientNmae=x", 2, "PatientNmae"),
        ("PatientID", 2, "PatientID"),
        ("PregnancyStatus=four", 2, "VR US"),
        ("IssuerOfAccessionNumberSequence=x", 2, "VR SQ"),
        ("Rows=5", 20, "Rows cannot be corrected"),
        ("PatientBirthDate=yesterday", 20, "PatientBirthDate"),
    ],
)
def test_a_correction_that_cannot_be_is_a_line_and_a_code(
    change: str, code: int, complaint: str, data: Path
) -> None:
    study = uid_of(data, "study")
    refused(run("correct", study, "--set", change, "--reason", "x", "--data", str(data)), code, complaint)


def test_an_unknown_study_cannot_be_corrected_or_deleted(data: Path) -> None:
    refused(run("correct", "1.2", "--set", "PatientID=x", "--reason", "x", "--data", str(data)), 6, "1.2")
    refused(run("delete", "1.2", "--reason", "x", "--yes", "--data", str(data)), 6, "1.2")
    refused(run("original", "1.2", "-o", str(data.parent / "x"), "--data", str(data)), 6, "1.2")
    assert not (data.parent / "x").exists()


def test_every_change_needs_a_reason(data: Path) -> None:
    study = uid_of(data, "study")
    refused(run("delete", study, "--yes", "--data", str(data)), 2, "--reason")
    refused(run("delete", study, "--yes", "--reason", " ", "--data", str(data)), 2, "say why")
    refused(run("correct", study, "--set", "PatientID=x", "--reason", "", "--data", str(data)), 2, "say why")


def test_delete_asks_and_without_an_answer_leaves_all_as_it_is(data: Path) -> None:
    study = uid_of(data, "study")
    asked = run("delete", study, "--reason", "x", "--data", str(data))
    assert asked.returncode == 62
    assert f"Delete {len(found(data, 'instance'))} instances of study {study}?" in asked.stderr
    assert len(found(data)) == 1
    assert run("delete", study, "--reason", "x", "--yes", "--data", str(data)).returncode == 0
    assert found(data) == []


def test_one_of_two_instances_can_be_deleted_but_not_part_of_a_born_slide(data: Path) -> None:
    study, sop = uid_of(data, "study"), uid_of(data, "instance")
    refused(
        run("delete", study, "--instance", sop, "--reason", "x", "--yes", "--data", str(data)), 23, "series"
    )
    (data.parent / "one.dcm").write_bytes(make_instance())
    assert run("ingest", str(data.parent / "one.dcm"), "--data", str(data)).returncode == 0
    [row] = [row for row in found(data, "instance") if row["0020000D"]["Value"][0] != study]
    other, series, one = (row[tag]["Value"][0] for tag in ("0020000D", "0020000E", "00080018"))
    done = run("delete", other, "--series", series, "--instance", one, "--reason", "x", "--yes",
               "--data", str(data))  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "1 instances deleted\n"), done.stderr
    assert [row["0020000D"]["Value"][0] for row in found(data)] == [study]


def test_the_original_comes_out_bit_for_bit_and_overwrites_nothing(data: Path, slide: Path) -> None:
    target = data.parent / "out.svs"
    done = run("original", uid_of(data, "series"), "-o", str(target), "--data", str(data))
    assert (done.returncode, done.stdout) == (0, f"{target}\tslide.svs\n"), done.stderr
    assert target.read_bytes() == slide.read_bytes()
    again = run("original", uid_of(data, "series"), "-o", str(target), "--data", str(data))
    refused(again, 34, "exists already")
