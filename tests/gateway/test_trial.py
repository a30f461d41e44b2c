# SPDX-License-Identifier: Apache-2.0
"""What a new user met, and how it is answered now."""

from pathlib import Path

from tests.support.archives import ASK, open_archive, store_bytes
from tests.support.faults import flip_bit
from tests.support.instances import make_instance
from tests.support.make_slide import make_svs
from tests.support.server import coverslip

DAMAGED, SOME_FAILED, DAMAGED_SLIDE, USAGE, NOT_FOUND = 19, 41, 32, 2, 6  # docs/errors.md


def test_damaged_bytes_are_never_exported_and_the_rest_is(tmp_path: Path) -> None:
    archive = open_archive(tmp_path / "site")
    bad = store_bytes(archive, make_instance())
    (blob,) = (p for p in (tmp_path / "site" / "store" / "blob").rglob("*") if p.is_file())
    good = store_bytes(archive, make_instance(native=True))
    archive.close()
    flip_bit(blob, blob.stat().st_size // 2)
    alone = coverslip(
        "export", bad.study_instance_uid, "-o", tmp_path / "one", "--data", tmp_path / "site", check=False
    )
    assert (alone.returncode, list((tmp_path / "one").rglob("*.dcm"))) == (DAMAGED, [])
    both = coverslip(
        "export", bad.study_instance_uid, good.study_instance_uid, "-o", tmp_path / "two", "--data",
        tmp_path / "site", check=False,
    )  # fmt: skip
    assert both.returncode == SOME_FAILED
    assert [p.stem for p in (tmp_path / "two").rglob("*.dcm")] == [good.sop_instance_uid]


def test_a_truncated_slide_is_told_in_one_line_of_its_kind(tmp_path: Path) -> None:
    path = make_svs(tmp_path / "slide.svs", rows=600, columns=600)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    done = coverslip("inspect", path, check=False)
    assert (done.returncode, len(done.stderr.splitlines())) == (DAMAGED_SLIDE, 1)
    assert "the file ends" in done.stderr


def test_a_slide_cut_in_its_first_directory_is_told_the_same(tmp_path: Path) -> None:
    path = make_svs(tmp_path / "slide.svs")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    for command in (["inspect", path], ["convert", path, "-o", tmp_path / "out"]):
        done = coverslip(*command, check=False)
        assert (done.returncode, len(done.stderr.splitlines())) == (DAMAGED_SLIDE, 1)


def test_a_key_without_a_name_is_a_wrong_command_line(tmp_path: Path) -> None:
    open_archive(tmp_path / "site").close()
    assert coverslip("find", "=x", "--data", tmp_path / "site", check=False).returncode == USAGE


def test_without_a_command_there_is_help(tmp_path: Path) -> None:
    done = coverslip(check=False)
    assert done.returncode == USAGE
    assert len((done.stdout + done.stderr).splitlines()) > 10


def test_a_data_folder_that_is_none_gives_no_new_secret(tmp_path: Path) -> None:
    path = make_svs(tmp_path / "slide.svs", rows=300, columns=300)
    done = coverslip("convert", path, "-o", tmp_path / "out", "--data", tmp_path / "typo", check=False)
    assert done.returncode == USAGE
    assert not (tmp_path / "typo").exists()


def test_an_entry_of_the_quarantine_can_be_taken_out_and_resolved(tmp_path: Path) -> None:
    site = tmp_path / "site"
    archive = open_archive(site)
    with archive.stage() as staging:
        staging.write(b"nothing of use")
        staged = staging.finish()
    number = archive.quarantine(staged, "bad.svs", "no reader knows this file", source="watch", **ASK)
    archive.close()
    coverslip("quarantine-show", number, "-o", tmp_path / "bad.svs", "--data", site)
    assert (tmp_path / "bad.svs").read_bytes() == b"nothing of use"
    coverslip("quarantine-resolve", number, "--reason", "sent again", "--data", site)
    assert coverslip("quarantine-list", "--data", site).stdout == ""
    assert (
        coverslip("quarantine-resolve", number, "--reason", "x", "--data", site, check=False).returncode == 6
    )


def test_a_slide_is_found_by_the_name_of_its_file(tmp_path: Path) -> None:
    site = tmp_path / "site"
    coverslip(
        "ingest", "--create", make_svs(tmp_path / "Meier Block B2.svs", rows=300, columns=300), "--data", site
    )
    archive = open_archive(site)
    (slide,) = archive.slides(text="block b2", **ASK)
    assert slide.file_name == "Meier Block B2.svs"
    assert archive.slides(text="nobody", **ASK) == []
    archive.close()


def test_metadata_for_a_slide_that_is_stored_already_is_not_dropped_in_silence(tmp_path: Path) -> None:
    slide, known = make_svs(tmp_path / "a.svs", rows=300, columns=300), tmp_path / "known.json"
    known.write_text('{"patient": {"name": "Doe^Jane", "identifier": "4711"}}')
    options = ("--data", str(tmp_path / "data"), "--metadata", str(known))
    first = coverslip("ingest", "--create", *options, str(slide))
    again = coverslip("ingest", "--create", *options, str(slide))
    assert "not applied" not in first.stderr
    assert "stored already: the metadata was not applied" in again.stderr
