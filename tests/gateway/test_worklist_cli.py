# SPDX-License-Identifier: Apache-2.0
"""``coverslip worklist``: people and scripts order, look and cancel."""

import json
from pathlib import Path

import pytest
from pydicom.dataset import Dataset

from archive.errors import BadOrder, NoSuchOrder
from gateway.cli import exit_codes
from gateway.cli.exit_codes import code_of
from tests.gateway.serving import run
from tests.support.worklist import element, item


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = tmp_path_factory.mktemp("worklist") / "data"
    assert run("migrate", "--data", str(data)).returncode == 0
    return data


def write(path: Path, value: object) -> Path:
    path.write_text(json.dumps(value))
    return path


def listed(data: Path, *keys: str) -> list[dict[str, object]]:
    done = run("worklist", "list", "--data", str(data), "--json", *keys)
    assert done.returncode == 0, done.stderr
    rows: list[dict[str, object]] = json.loads(done.stdout)
    return rows


def test_an_item_is_added_changed_listed_and_cancelled(empty: Path, tmp_path: Path) -> None:
    file = write(tmp_path / "item.json", item(1))
    data = ("--data", str(empty))
    added = json.loads(run("worklist", "add", *data, "--json", str(file)).stdout)
    assert (added["outcome"], added["study_instance_uid"]) == ("added", "2.25.10011")
    assert run("worklist", "add", *data, str(file)).stdout.startswith("unchanged\t")
    write(file, item(1, t00100040=element("CS", "F")))
    assert run("worklist", "add", *data, str(file)).stdout.startswith("changed\t")
    (row,) = listed(empty, "barcode=S26-1-A", "station=SCANNER1", "PatientID=A-1")
    assert (row["status"], row["revision"], row["identifier"]) == ("SCHEDULED", 1, added["identifier"])
    line = run("worklist", "list", *data, "accession=P26-1").stdout
    assert line.split("\t")[:4] == ["SCHEDULED", "20261124 0900", "SCANNER1", "S26-1-A"]
    done = run("worklist", "cancel", *data, added["identifier"], "--reason", "slide broken")
    assert done.returncode == 0, done.stderr
    assert listed(empty, "barcode=S26-1-A") == []
    (row,) = listed(empty, "barcode=S26-1-A", "--all")
    assert row["status"] == "CANCELED"


def test_many_are_imported_from_files_of_each_kind(empty: Path, tmp_path: Path) -> None:
    folder = tmp_path / "drop"
    folder.mkdir()
    write(folder / "one.json", item(11))
    write(folder / "two.json", [item(12), item(13)])
    (folder / "lines.jsonl").write_text("\n".join(json.dumps(item(number)) for number in (14, 15)))
    content = Dataset.from_json(item(16))
    content.SpecificCharacterSet = "ISO_IR 192"
    content.save_as(folder / "item.wl", implicit_vr=True, little_endian=True)
    (folder / "ignored.txt").write_text("nothing")
    done = run("worklist", "import", "--data", str(empty), str(folder))
    assert (done.returncode, done.stdout.count("\tadded\t")) == (0, 6), done.stdout + done.stderr
    again = run("worklist", "import", "--data", str(empty), str(folder))
    assert (again.returncode, again.stdout.count("\tunchanged\t")) == (0, 6)
    assert len(listed(empty, "name=muller^rat 1?")) == 6


def test_what_is_refused_is_named_and_the_others_are_imported(empty: Path, tmp_path: Path) -> None:
    write(tmp_path / "a.json", item(21, t00080050=element("SH", "far too long for SH")))
    write(tmp_path / "b.json", item(22))
    (tmp_path / "c.json").write_text("{")
    (tmp_path / "d.wl").write_bytes(b"\0" * 200)
    done = run("worklist", "import", "--data", str(empty), str(tmp_path))
    assert done.returncode == exit_codes.SOME_FAILED
    assert "a.json\trefused: 00080050 is longer than the 16 characters of SH" in done.stdout
    assert "c.json: not JSON" in done.stdout
    assert "far too long" not in done.stdout + done.stderr
    assert [row["identifier"] for row in listed(empty, "barcode=S26-2*")] == ["2.25.100122|STEP22"]


def test_refusals_are_one_line_and_their_code(empty: Path, tmp_path: Path) -> None:
    data = ("--data", str(empty))
    bad = write(tmp_path / "bad.json", item(1, t00100020=element("LO")))
    for arguments, code in (
        (("add", *data, str(bad)), code_of(BadOrder())),
        (("add", *data, str(write(tmp_path / "two.json", [item(1), item(2)]))), exit_codes.USAGE),
        (("add", *data, str(tmp_path / "absent.json")), code_of(OSError())),
        (("list", *data, "colour=red"), exit_codes.USAGE),
        (("cancel", *data, "nothing", "--reason", "r"), code_of(NoSuchOrder())),
    ):
        done = run("worklist", *arguments)
        assert done.returncode == code, (arguments, done.stderr)
        assert done.stderr.count("\n") == 1
