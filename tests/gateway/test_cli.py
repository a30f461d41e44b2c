# SPDX-License-Identifier: Apache-2.0
"""The commands, run as a person or a script runs them, over a temporary data folder."""

import hashlib
import json
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from threading import Event

import click
import pydicom
import pytest

from converters.writer.metadata import read_metadata
from gateway.cli.convert_cmd import command as convert_command
from gateway.cli.main import coverslip
from gateway.cli.paths import each
from gateway.settings import ConvertSettings
from tests.gateway.serving import run, serving
from tests.support.damaged_label import damage_label
from tests.support.instances import make_instance
from tests.support.make_slide import make_svs
from tests.support.require import ROOT
from tests.support.slides.zeiss_czi import write_slide

COMMON = {"config", "as_json"}


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_svs(tmp_path_factory.mktemp("slide") / "slide.svs")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, slide: Path) -> Path:
    """A data folder that holds one slide. Tests leave it as it is."""
    folder = tmp_path_factory.mktemp("cli") / "data"
    done = run("ingest", "--create", "--data", str(folder), str(slide))
    assert done.returncode == 0, done.stderr
    return folder


def study_of(data: Path) -> str:
    rows = json.loads(run("find", "--data", str(data), "--json").stdout)
    (uid,) = [row["0020000D"]["Value"][0] for row in rows]
    return str(uid)


def digests(folder: Path) -> set[str]:
    return {hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*.dcm")}


def one_line(text: str) -> str:
    assert text.endswith("\n")
    assert text.count("\n") == 1
    return text.removesuffix("\n")


def test_a_slide_that_was_taken_in_is_found_exported_and_verified(
    data: Path, slide: Path, tmp_path: Path
) -> None:
    study = study_of(data)
    exported = run("export", study, "-o", str(tmp_path / "out"), "--data", str(data))
    assert exported.returncode == 0
    converted = run("convert", str(slide), "-o", str(tmp_path / "made"), "--data", str(data), "--verify")
    assert converted.returncode == 0, converted.stderr
    assert digests(tmp_path / "out") == digests(tmp_path / "made") != set()
    assert {path.relative_to(tmp_path / "out").parts[0] for path in (tmp_path / "out").rglob("*.dcm")} == {
        study
    }
    verified = run("verify", "--data", str(data))
    assert (verified.returncode, verified.stdout, verified.stderr) == (0, "", "")


def test_taking_a_slide_in_again_stores_nothing_twice(data: Path, slide: Path) -> None:
    before = run("find", "--level", "instance", "--data", str(data), "--json").stdout
    again = run("ingest", "--create", "--data", str(data), "--json", str(slide))
    (report,) = json.loads(again.stdout)
    assert {one["outcome"] for one in report["instances"]} == {"already"}
    assert run("find", "--level", "instance", "--data", str(data), "--json").stdout == before


def test_of_several_files_the_bad_ones_are_named_and_the_others_taken(tmp_path: Path, slide: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.svs").write_bytes(slide.read_bytes())
    (folder / "b.svs").write_bytes(b"")
    (folder / "c.svs").write_bytes(slide.read_bytes()[:5000])
    (folder / ".hidden").write_bytes(b"")
    done = run("ingest", "--create", "--data", str(tmp_path / "data"), str(folder))
    assert done.returncode == 41
    named = [line.partition(": ")[2].partition(": ")[0] for line in done.stderr.splitlines()]
    assert named == [str(folder / "b.svs"), str(folder / "c.svs")]
    assert done.stdout.startswith(f"{folder / 'a.svs'}: ")
    assert run("verify", "--data", str(tmp_path / "data")).returncode == 0


@pytest.mark.parametrize("is_json", [False, True])
def test_what_is_left_out_of_a_slide_is_told(is_json: bool, tmp_path: Path) -> None:
    path = damage_label(make_svs(tmp_path / "slide.svs"))
    finding = "the label image is left out: LZW data begin with an impossible code"
    for command in (
        ["ingest", "--create", "--data", str(tmp_path / "d")],
        ["convert", "-o", str(tmp_path / "o")],
    ):
        done = run(*command, str(path), *(["--json"] if is_json else []))
        assert done.returncode == 0, done.stderr
        if is_json:
            assert finding in json.loads(done.stdout)[0]["findings"]
        else:
            assert f"  note: {finding}\n" in done.stdout


def test_a_mistyped_data_folder_gets_no_archive(slide: Path, data: Path, tmp_path: Path) -> None:
    assert run("ingest", "--data", str(tmp_path / "mistyped"), str(slide)).returncode == 3
    assert not (tmp_path / "mistyped").exists()
    assert run("ingest", "--data", str(data), str(slide)).returncode == 0


def test_the_folder_of_the_settings_is_made_when_it_is_needed(slide: Path, tmp_path: Path) -> None:
    configured = str(tmp_path / "site")
    assert run("ingest", str(slide), COVERSLIP_DATA_DIR=configured).returncode == 0
    assert run("find", COVERSLIP_DATA_DIR=configured).returncode == 0


@pytest.mark.parametrize(
    ("content", "code"), [(b"", 30), (b"garbage" * 100, 30), (b"\0" * 128 + b"DICM" + b"\xff" * 50, 11)]
)
def test_one_bad_file_gives_one_line_and_its_code(content: bytes, code: int, tmp_path: Path) -> None:
    (tmp_path / "bad.svs").write_bytes(content)
    done = run("ingest", "--create", "--data", str(tmp_path / "data"), str(tmp_path / "bad.svs"))
    assert done.returncode == code, done.stderr
    assert one_line(done.stderr).startswith("coverslip: ")
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        (["nonsense"], 2, "No such command 'nonsense'"),
        (["ingest"], 2, "Missing argument 'PATH"),
        (["serve", "--dimse", "70000"], 2, "70000"),
        (["find", "--set", "x", "--data", "."], 2, "KEY=VALUE"),
        (["find", "--set", "http.bnid=x"], 3, "did you mean http.bind?"),
        (["find", "--config", "absent.toml"], 3, "absent.toml"),
        (["find", "--data", "absent"], 3, "holds no archive"),
        (["ingest", "absent.svs", "--data", "new"], 38, "absent.svs"),
        (["ingest", __file__, "--data", "mistyped"], 3, "mistyped holds no archive: correct --data, or add"),
        (["inspect", "absent.svs"], 38, "absent.svs"),
        (["restore", ".", "--data", "new"], 37, "no finished backup"),
        (["export", "1.2", "-o", "x", "--deidentify"], 2, "not part of this release"),
    ],
)  # fmt: skip
def test_a_refusal_is_one_line_and_a_code(
    arguments: list[str], code: int, complaint: str, tmp_path: Path
) -> None:
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert complaint in one_line(done.stderr)
    assert done.stdout == ""


def test_an_unknown_study_is_a_refusal(data: Path, tmp_path: Path) -> None:
    done = run("export", "1.2.3", "-o", str(tmp_path), "--data", str(data))
    assert (done.returncode, done.stderr) == (6, "coverslip: no study 1.2.3\n")


def test_keys_narrow_what_is_found(data: Path) -> None:
    assert run("find", "--data", str(data), "StudyDate=20260101-20261231").stdout.count("\n") == 1
    assert run("find", "--data", str(data), "StudyDate=-20200101").stdout == ""
    assert (
        run("find", "--data", str(data), "PatientID=UNKNOWN-*", "--level", "series").stdout.count("\n") == 1
    )
    wrong = run("find", "--data", str(data), "StudyDate=yesterday")
    assert wrong.returncode == 20
    unknown = run("find", "--data", str(data), "PatientNmae=x")
    assert unknown.returncode == 2


def test_inspect_tells_levels_and_why_a_reader_refused(slide: Path, tmp_path: Path) -> None:
    told = run("inspect", str(slide))
    assert told.returncode == 0
    assert "level 0: 900 x 700" in told.stdout
    assert json.loads(run("inspect", "--json", str(slide)).stdout)["format"] == "aperio-svs"
    (tmp_path / "no.svs").write_bytes(b"no")
    refused = run("inspect", str(tmp_path / "no.svs"))
    assert refused.returncode == 30
    assert "aperio-svs: not a TIFF" in refused.stdout


def test_a_dicom_file_is_taken_in_and_comes_out_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "one.dcm"
    path.write_bytes(make_instance())
    assert run("ingest", "--create", "--data", str(tmp_path / "data"), str(path)).returncode == 0
    study = study_of(tmp_path / "data")
    run("export", study, "-o", str(tmp_path / "out"), "--data", str(tmp_path / "data"))
    assert digests(tmp_path / "out") == {hashlib.sha256(path.read_bytes()).hexdigest()}


def test_ingest_works_beside_a_running_server_which_shows_the_slide_at_once(
    tmp_path: Path, slide: Path
) -> None:
    with serving(tmp_path / "data") as server:
        assert json.loads(server.get("/api/slides")[1])["slides"] == []
        assert run("ingest", "--create", "--data", str(tmp_path / "data"), str(slide)).returncode == 0
        assert len(json.loads(server.get("/api/slides")[1])["slides"]) == 1
        refused = run("reindex", "--data", str(tmp_path / "data"))
        assert refused.returncode == 4
        assert "is served already" in one_line(refused.stderr)


def test_reindex_finds_again_what_storage_holds(tmp_path: Path, slide: Path) -> None:
    data = tmp_path / "data"
    run("ingest", "--create", "--data", str(data), str(slide))
    before = run("find", "--level", "instance", "--data", str(data), "--json").stdout
    for path in data.glob("coverslip.db*"):
        path.unlink()
    done = run("reindex", "--data", str(data))
    assert done.returncode == 0, done.stderr
    assert run("find", "--level", "instance", "--data", str(data), "--json").stdout == before
    assert run("verify", "--data", str(data)).returncode == 0


def test_verify_names_a_flipped_bit_and_says_so_by_its_code(tmp_path: Path, slide: Path) -> None:
    data = tmp_path / "data"
    run("ingest", "--create", "--data", str(data), str(slide))
    largest = max((data / "store" / "blob").rglob("*"), key=lambda path: path.stat().st_size)
    largest.chmod(0o600)
    with largest.open("r+b") as file:
        file.seek(1000)
        file.write(b"flipped")
    done = run("verify", "--data", str(data), "--json")
    assert done.returncode == 40
    assert largest.name in done.stdout


def test_the_secret_is_made_once_and_is_nobody_elses(data: Path, slide: Path) -> None:
    secret = data / "secret"
    before = secret.read_bytes()
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    assert len(bytes.fromhex(before.decode())) == 32
    run("ingest", "--create", "--data", str(data), str(slide))
    assert secret.read_bytes() == before
    assert stat.S_IMODE(data.stat().st_mode) == 0o700


def test_config_check_shows_origins_and_no_password(tmp_path: Path) -> None:
    done = run("config", "check", "--json", "--set", "http.threads=9", cwd=tmp_path,
               COVERSLIP_DATABASE_URL="postgresql://me:hunter2@host/db")  # fmt: skip
    shown = json.loads(done.stdout)
    assert shown["http.threads"] == {"value": 9, "origin": "flag"}
    assert shown["database_url"] == {"value": "***", "origin": "COVERSLIP_DATABASE_URL"}
    assert shown["dimse.bind"]["origin"] == "config/default.toml"
    assert (
        "hunter2"
        not in done.stdout
        + run(
            "config", "check", cwd=tmp_path, COVERSLIP_DATABASE_URL="postgresql://me:hunter2@host/db"
        ).stdout
    )


def test_a_coverslip_toml_in_the_working_directory_is_used(tmp_path: Path) -> None:
    (tmp_path / "coverslip.toml").write_text('[dimse]\nae_title = "HERE"\n')
    shown = json.loads(run("config", "check", "--json", cwd=tmp_path).stdout)
    assert shown["dimse.ae_title"] == {"value": "HERE", "origin": "coverslip.toml"}


def test_doctor_finds_a_taken_port_and_nothing_else_wrong(tmp_path: Path) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        bind = f"127.0.0.1:{taken.getsockname()[1]}"
        done = run("doctor", "--json", "--data", str(tmp_path), "--set", f"http.bind={bind}",
                   "--set", "dimse.bind=127.0.0.1:0")  # fmt: skip
    checks = {check["name"]: check for check in json.loads(done.stdout)}
    assert done.returncode == 40
    assert [name for name, check in checks.items() if check["state"] == "bad"] == ["http port"]
    assert checks["decoding"]["state"] == "ok"


def test_a_full_disk_is_a_clear_refusal_and_leaves_nothing(tmp_path: Path, slide: Path) -> None:
    data = tmp_path / "data"
    done = run(
        "ingest", "--create", "--data", str(data), str(slide), COVERSLIP_LIMITS_FREE_BYTES=str(1 << 60)
    )
    assert done.returncode == 17
    assert "space" in one_line(done.stderr)
    assert list((data / "store").rglob("blob/*")) == []
    assert os.listdir(data / "spool") == []


def test_slides_converted_at_once_are_reported_in_order_and_each_on_its_own(tmp_path: Path) -> None:
    folder = tmp_path / "slides"
    folder.mkdir()
    for name in "abcd":
        make_svs(folder / f"{name}.svs", rows=1500 if name == "a" else 300)  # the first takes longest
    whole = (folder / "b.svs").read_bytes()
    (folder / "b.svs").write_bytes(whole[: len(whole) // 2])
    one = run("convert", str(folder), "-o", str(tmp_path / "one"))
    three = run("convert", str(folder), "-o", str(tmp_path / "three"), "--jobs", "3", "--verify", "--json")
    assert (one.returncode, three.returncode) == (41, 41)
    told = [line.partition(":")[0] for line in one.stdout.splitlines() if not line.startswith(" ")]
    assert told == [str(tmp_path / "one" / name) for name in "acd"]
    assert [Path(row["source"]).name for row in json.loads(three.stdout)] == ["a.svs", "c.svs", "d.svs"]
    assert str(folder / "b.svs") in one_line(three.stderr)
    assert sorted(path.name for path in (tmp_path / "three").iterdir()) == ["a", "c", "d"]
    assert digests(tmp_path / "one") == digests(tmp_path / "three")


def test_convert_divides_levels_and_makes_tiffs_when_asked(tmp_path: Path, slide: Path) -> None:
    parts = run("convert", str(slide), "-o", str(tmp_path / "parts"), "--concatenate", "5", "--verify")
    assert parts.returncode == 0, parts.stderr
    assert len(list((tmp_path / "parts" / "slide").glob("level-0-part-*.dcm"))) == 3
    bytes_ = run("convert", str(slide), "-o", str(tmp_path / "bytes"), "--concatenate-bytes", "1")
    assert bytes_.returncode == 0, bytes_.stderr
    assert len(list((tmp_path / "bytes" / "slide").glob("level-0-part-*.dcm"))) == 12
    both = run("convert", str(slide), "-o", str(tmp_path / "both"), "--dual-tiff", "--concatenate", "5")
    assert both.stdout.splitlines()[1:] == ["  note: level-0 is no TIFF: it is divided into parts"]
    assert (tmp_path / "both" / "slide" / "level-1.dcm").read_bytes()[:2] == b"II"
    assert run("convert", str(slide), "-o", str(tmp_path / "none"), "--concatenate", "0").returncode == 2


def test_convert_gives_regions_series_of_their_own_when_asked(tmp_path: Path) -> None:
    source = write_slide(tmp_path)
    done = run("convert", str(source), "-o", str(tmp_path / "out"), "--series-per-region")
    assert done.returncode == 0, done.stderr
    series = {
        pydicom.dcmread(path, stop_before_pixels=True).SeriesInstanceUID
        for path in (tmp_path / "out").rglob("*.dcm")
    }
    assert len(series) == 2


def test_a_fault_of_ours_does_not_wait_for_the_slides_under_way() -> None:
    under_way, told, finished = Event(), [], []

    def work(number: int) -> int:
        if number == 2:
            raise ZeroDivisionError
        if number == 3:
            finished.append(under_way.wait(60))
        return number

    try:
        with pytest.raises(ZeroDivisionError):
            each([1, 2, 3, 4], work, at_once=2, tell=told.append)
        assert not finished
    finally:
        under_way.set()
    assert told == [1]


def test_the_page_on_converting_names_every_option_and_setting() -> None:
    page = (ROOT / "docs" / "converting.md").read_text()
    for parameter in convert_command.params:
        if isinstance(parameter, click.Option) and parameter.name not in COMMON:
            assert any(name in page for name in parameter.opts), parameter.name
    for setting in fields(ConvertSettings):
        assert f"`convert.{setting.name}`" in page
    for command, option in options_named(page):
        assert option in options_of(command)


def options_of(command: str) -> set[str]:
    found = coverslip.get_command(click.Context(coverslip), command)
    assert found is not None, command
    return {name for one in found.params for name in one.opts}


def options_named(page: str) -> Iterator[tuple[str, str]]:
    """The options on a page, each with the command that it is given to; convert where none is."""
    option = r"(?<![\w-])--[a-z][a-z-]+"
    elsewhere = re.compile(r"`coverslip (?!convert)([a-z-]+)([^`]*)`")
    for command, rest in elsewhere.findall(page):
        for name in re.findall(option, rest):
            yield command, name
    for name in re.findall(option, elsewhere.sub("", page)):
        yield "convert", name


def test_the_metadata_on_the_page_are_of_the_form_that_is_read() -> None:
    page = (ROOT / "docs" / "converting.md").read_text()
    known = read_metadata(page.partition("```json\n")[2].partition("```")[0])
    assert (known.patient_name, known.container_identifier) == ("Doe^Jane", "S26-0042-A1-1")
    assert [step.action for step in known.specimens[0].steps] == ["embedding", "staining"]
