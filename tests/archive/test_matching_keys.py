# SPDX-License-Identifier: Apache-2.0
"""Keys of the site: found once all that is stored has them, old rows included."""

import io
from pathlib import Path

import pytest
from pydicom import dcmread

from archive.errors import BadQuery
from archive.index.attributes import EXTRACTED
from archive.index.query import Level, Query, parse_match
from archive.matching_keys import parse_keys
from archive.service import Archive
from tests.support.archives import ASK, open_archive, store_bytes
from tests.support.instances import make_instance

NAMES = ["ImageComments", "SpecimenDescriptionSequence.SpecimenDetailedDescription"]


def remarked(text: str) -> bytes:
    """Part 10 bytes of an instance with ImageComments."""
    dataset = dcmread(io.BytesIO(make_instance()))
    dataset.ImageComments = text
    out = io.BytesIO()
    dataset.save_as(out)
    return out.getvalue()


def found(archive: Archive, path: str, text: str) -> int:
    match = parse_match(path, archive.matching_keys.get(path, "LT"), text)
    return len(archive.find(Query(Level.INSTANCE, (match,)), **ASK).rows)


def again(archive: Archive, names: list[str]) -> Archive:
    """The same archive as a process with other settings opens it."""
    core = archive._core
    return Archive(
        core.storage, core.index, policy=archive.policy, data_dir=core.run_dir.parent,
        extended_keys=parse_keys(names),
    )  # fmt: skip


def work_off(archive: Archive) -> int:
    assert archive.want_keys(**ASK)
    job = archive.claim(["matching_keys"], owner="me")
    count = archive.index_keys(lambda _: None, **ASK)
    archive.finish(job.id)
    return count


@pytest.fixture
def stored(tmp_path: Path) -> Archive:
    """Three instances, stored before anybody wanted other keys."""
    archive = open_archive(tmp_path)
    for number in range(3):
        store_bytes(archive, remarked(f"remark {number}"))
    yield archive
    archive.close()


def test_a_new_key_counts_once_everything_stored_has_it(stored: Archive) -> None:
    archive = again(stored, NAMES)
    assert "00204000" not in archive.matching_keys
    assert found(archive, "00204000", "remark 1") == 3, "a key that does not count yet is ignored"

    store_bytes(archive, remarked("remark 1"))
    assert work_off(archive) == 4

    assert archive.matching_keys.keys() - EXTRACTED.keys() == parse_keys(NAMES).keys()
    assert found(archive, "00204000", "remark 1") == 2
    assert found(archive, "00204000", "remark 7") == 0
    assert archive.want_keys(**ASK) == 0, "nothing is left to do"
    assert archive.jobs(**ASK)[0].state == "done"


def test_other_processes_hear_when_a_key_is_complete(stored: Archive) -> None:
    reader, worker = again(stored, NAMES), again(stored, NAMES)
    assert not reader.matching_keys.keys() - EXTRACTED.keys()
    work_off(worker)
    assert found(reader, "00204000", "remark 2") == 1


def test_a_key_that_is_no_longer_named_goes_with_its_rows(stored: Archive) -> None:
    work_off(again(stored, NAMES))
    archive = again(stored, [])
    assert "00204000" not in archive.matching_keys
    work_off(archive)
    model = archive._core.index.models.Attribute
    with archive._core.index.read():
        assert not model.select().where(model.path == "00204000").exists()


def test_a_job_goes_on_where_it_was(stored: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("archive.matching_keys.SLICE_S", -1.0)
    monkeypatch.setattr("archive.rows.PAGE_ROWS", 2)
    archive = again(stored, NAMES)
    assert archive.index_keys(lambda _: None, **ASK) == 2
    assert "00204000" not in archive.matching_keys
    assert archive.index_keys(lambda _: None, **ASK) == 1
    assert found(archive, "00204000", "remark 0") == 1


def test_a_rebuilt_index_has_the_keys_of_the_site(stored: Archive) -> None:
    archive = again(stored, NAMES)
    archive.reindex(**ASK)
    assert found(archive, "00204000", "remark 0") == 1
    assert archive.want_keys(**ASK) == 0


def test_a_store_of_the_release_before_gets_the_keys_of_this_one(stored: Archive) -> None:
    """Its migration notes which keys it had; see ``migrations.v3``."""
    core = stored._core
    old = {path: vr for path, vr in EXTRACTED.items() if path != "00400512"}
    attribute = core.index.models.Attribute
    core.index.write(lambda: attribute.delete().where(attribute.path == "00400512").execute())
    core.index.write(lambda: core.put_setting("matching_keys", old))

    archive = again(stored, [])
    assert "00400512" not in archive.matching_keys
    work_off(archive)
    assert "00400512" in archive.matching_keys
    with core.index.read():
        assert attribute.select().where(attribute.path == "00400512").count() == 3


def test_a_new_store_notes_its_keys_for_the_releases_to_come(tmp_path: Path) -> None:
    archive = open_archive(tmp_path)
    assert archive.want_keys(**ASK) == 0
    assert archive._core.setting("matching_keys") == EXTRACTED
    archive.close()


def test_private_keys_are_named_with_their_vr() -> None:
    assert parse_keys(["00091001:LO", " PatientComments "]) == {"00091001": "LO", "00104000": "LT"}
    assert parse_keys(["PatientID", "ContainerIdentifier"]) == {}, "they are there anyway"


@pytest.mark.parametrize("name", ["Nonsense", "00091001", "PixelData", "SpecimenDescriptionSequence", ""])
def test_what_cannot_be_a_key_is_refused(name: str) -> None:
    with pytest.raises(BadQuery):
        parse_keys([name])


def test_a_corrected_name_is_found_by_its_new_sound_only(stored: Archive) -> None:
    def heard(name: str) -> int:
        match = parse_match("00100010", "PN", name, fuzzy=True)
        return len(stored.find(Query(Level.STUDY, (match,)), **ASK).rows)

    (study, *_) = stored.find(Query(Level.STUDY), **ASK).rows
    uid = study["0020000D"]["Value"][0]
    stored.correct(uid, {"PatientName": "Kowalczyk^Zofia"}, reason="typed wrong", **ASK)
    assert heard("Covaltschik") == 1
    stored.correct(uid, {"PatientName": "Brandt^Ute"}, reason="typed wrong again", **ASK)
    assert (heard("Covaltschik"), heard("Brant")) == (0, 1)
