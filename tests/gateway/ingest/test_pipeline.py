# SPDX-License-Identifier: Apache-2.0
"""From a file to stored instances."""

import fcntl
import os
import shutil
from contextlib import ExitStack
from pathlib import Path

import pytest

from archive.errors import ArchiveError, SourceChanged, Unreadable
from archive.index import query
from archive.processes import own_name
from archive.service import Archive
from archive.values import Outcome
from converters.errors import DamagedSlide, UnreadableSlide
from converters.slide import Level
from converters.workshop import Opened
from converters.writer import born
from converters.writer.survey import Survey, survey
from gateway.ingest import pipeline
from gateway.ingest.convert import Converter, made_folder, scratch_folder, sweep_scratch
from gateway.ingest.pipeline import ingest_path, is_dicom
from tests.support.archives import ASK, SENDER
from tests.support.instances import make_instance
from tests.support.make_slide import JPEG2000_YCBCR, make_svs
from tests.support.require import require_data
from tests.support.slides.mrxs import write_mrxs

SECRET = bytes(range(32))


def ingest(archive: Archive, path: Path, **options: object) -> list[object]:
    return list(
        ingest_path(archive, path, secret=SECRET, sender=SENDER, **ASK, **options)  # type: ignore[arg-type]
    )


def spool(tmp_path: Path) -> list[Path]:
    return list((tmp_path / "data" / "spool").iterdir())


def test_a_slides_tiles_are_those_of_the_file_and_stored_once(archive: Archive, tmp_path: Path) -> None:
    path = tmp_path / "slide.svs"
    make_svs(path)
    stored = ingest_path(archive, path, secret=SECRET, sender=SENDER, **ASK)
    base = max(
        (archive.instance(one.study_instance_uid, one.series_instance_uid, one.sop_instance_uid, **ASK)
         for one in stored),
        key=lambda instance: instance.number_of_frames,
    )  # fmt: skip
    tile = entropy_coded(archive.frame(base, 1, **ASK))
    blobs = [one.read_bytes() for one in (tmp_path / "data/store/blob").rglob("*") if one.is_file()]
    assert [blob for blob in blobs if tile in blob] == [path.read_bytes()]
    assert spool(tmp_path) == []


def test_tiles_are_looked_at_as_they_are_copied_and_not_again(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_svs(tmp_path / "slide.svs")
    again: list[int] = []

    def looked_at(level: Level, sources: object) -> Survey:
        again.append(level.index)
        return survey(level, sources)  # type: ignore[arg-type]

    monkeypatch.setattr(born, "survey", looked_at)
    ingest(archive, path)
    assert again == []
    changed = tmp_path / "changed.svs"
    changed.write_bytes(path.read_bytes() + b"x")
    monkeypatch.setattr(pipeline, "_source", lambda *_: None)  # as where it cannot be opened there
    ingest(archive, changed)
    assert again == [0, 1]


def test_a_slide_that_is_replaced_before_it_is_copied_is_looked_at_again(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, other = make_svs(tmp_path / "slide.svs"), make_svs(tmp_path / "other.svs", seed=8, rows=900)
    again: list[int] = []

    def looked_at(level: Level, sources: object) -> Survey:
        again.append(level.index)
        return survey(level, sources)  # type: ignore[arg-type]

    def elsewhere(_: Path, modified: float, converter: Converter, stack: ExitStack) -> Opened:
        return stack.enter_context(converter.open(other, modified))

    monkeypatch.setattr(born, "survey", looked_at)
    monkeypatch.setattr(pipeline, "_source", elsewhere)
    stored = ingest(archive, path)
    assert again == [0, 1]
    assert len(stored) == 5


def entropy_coded(jpeg: bytes) -> bytes:
    """From after the start of scan to the end marker."""
    start = jpeg.index(b"\xff\xda")
    return jpeg[start : jpeg.rindex(b"\xff\xd9") + 2]


def test_the_same_bytes_again_give_what_they_became_before(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "slide.svs"
    make_svs(path)
    first = ingest_path(archive, path, secret=SECRET, sender=SENDER, **ASK)
    os.rename(path, tmp_path / "renamed.svs")
    monkeypatch.delattr(pipeline, "new_slide")  # nothing is converted again
    again = ingest_path(archive, tmp_path / "renamed.svs", secret=SECRET, sender=SENDER, **ASK)
    assert {one.sop_instance_uid for one in again} == {one.sop_instance_uid for one in first}
    assert {one.outcome for one in again} == {Outcome.ALREADY}


def test_tiles_without_a_legal_form_are_made_again_and_leave_nothing_behind(
    archive: Archive, tmp_path: Path
) -> None:
    path = tmp_path / "slide.svs"
    make_svs(path, compression=JPEG2000_YCBCR)
    assert ingest(archive, path)
    assert spool(tmp_path) == []


def test_a_dicom_file_is_stored_as_it_is(archive: Archive, tmp_path: Path) -> None:
    path = tmp_path / "level.dcm"
    path.write_bytes(make_instance())
    (stored,) = ingest_path(archive, path, secret=SECRET, sender=SENDER, **ASK)
    found = archive.instance(
        stored.study_instance_uid, stored.series_instance_uid, stored.sop_instance_uid, **ASK
    )
    assert b"".join(archive.open(found, **ASK).chunks) == path.read_bytes()


def test_a_data_set_without_preamble_and_group_2_is_stored(archive: Archive, tmp_path: Path) -> None:
    data = make_instance(native=True)
    length = int.from_bytes(data[140:144], "little")
    path = tmp_path / "bare.dcm"
    path.write_bytes(data[144 + length :])
    assert is_dicom(path)
    assert len(ingest(archive, path)) == 1


@pytest.mark.parametrize("content", [b"", b"no slide", bytes(5000), b"II*\0" + bytes(100)])
def test_what_nobody_reads_is_refused_and_leaves_nothing(
    archive: Archive, tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "file.svs"
    path.write_bytes(content)
    with pytest.raises((UnreadableSlide, DamagedSlide)):
        ingest(archive, path)
    assert spool(tmp_path) == []
    assert archive.find(query.Query(query.Level.INSTANCE), **ASK).rows == []


def test_a_cut_off_dicom_file_is_refused_as_such(archive: Archive, tmp_path: Path) -> None:
    path = tmp_path / "cut.dcm"
    path.write_bytes(make_instance()[:-200])
    with pytest.raises(Unreadable):
        ingest(archive, path)
    assert spool(tmp_path) == []


@pytest.mark.parametrize("name", ["openslide-unreadable.svs", "histolab-broken.svs"])
def test_a_broken_slide_is_refused_with_a_reason(archive: Archive, tmp_path: Path, name: str) -> None:
    from converters.errors import ConversionError

    with pytest.raises((ConversionError, ArchiveError)) as refusal:
        ingest(archive, require_data(f"slides/svs/{name}"))
    assert str(refusal.value)
    assert spool(tmp_path) == []


def test_a_source_that_changes_while_it_is_copied_is_not_stored(archive: Archive, tmp_path: Path) -> None:
    path = tmp_path / "level.dcm"
    path.write_bytes(make_instance(frames=100))

    grown: list[float] = []

    def grow(share: float) -> None:
        if not grown:
            grown.append(share)
            with path.open("ab") as file:
                file.write(b"more")

    with pytest.raises(SourceChanged):
        ingest(archive, path, progress=grow)
    assert spool(tmp_path) == []


def test_progress_goes_from_nothing_to_all(archive: Archive, tmp_path: Path) -> None:
    path = tmp_path / "slide.svs"
    make_svs(path)
    shares: list[float] = []
    ingest(archive, path, progress=shares.append)
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


def test_scratch_of_a_process_that_is_gone_is_removed(tmp_path: Path) -> None:
    space = own_name().partition("-")[0]
    gone = tmp_path / f"convert-{space}-4194999-1-abc"  # beyond the largest process id there is
    another = tmp_path / f"convert-{os.getpid()}.elsewhere-{os.getpid()}-1-abc"
    for folder in (gone, another):
        folder.mkdir()
        (folder / "level.frames").write_bytes(b"x")
    with scratch_folder(tmp_path) as mine:
        assert sweep_scratch(tmp_path) == 1
        assert mine.exists()
    # That of a container whose processes nobody here knows waits until it is old.
    assert list(tmp_path.iterdir()) == [another]
    os.utime(another, (0, 0))
    assert sweep_scratch(tmp_path) == 1


def test_a_slide_whose_name_is_no_utf_8_is_stored_under_a_name_for_people(
    archive: Archive, tmp_path: Path
) -> None:
    main = write_mrxs(tmp_path)
    odd = os.fsdecode(b"caf\xe9")
    os.rename(tmp_path / "scan", tmp_path / odd)
    main = main.rename(tmp_path / f"{odd}.mrxs")
    stored = ingest_path(archive, main, secret=SECRET, sender=SENDER, **ASK)
    names = [name for name, _ in archive.original(stored[0].series_instance_uid, **ASK)]
    assert names[0] == r"caf\xe9.mrxs"
    assert r"caf\xe9/Slidedat.ini" in names
    again = ingest_path(archive, main, secret=SECRET, sender=SENDER, **ASK)
    assert {one.sop_instance_uid for one in again} == {one.sop_instance_uid for one in stored}


def test_a_folder_that_another_removed_is_not_made_things_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flock = fcntl.flock

    def too_late(descriptor: int, how: int) -> None:
        shutil.rmtree(tmp_path / f"made-{bytes(16).hex()}")  # as the one does that had the lock
        flock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", too_late)
    with made_folder(tmp_path, bytes(32)) as folder:
        assert folder.is_dir()


def test_files_of_a_slide_that_change_while_others_are_copied_are_not_mixed(
    archive: Archive, tmp_path: Path
) -> None:
    main = write_mrxs(tmp_path)
    other = tmp_path / "scan" / "Slidedat.ini"

    def change(share: float) -> None:
        if share > 0.5:
            os.utime(other, (1, 1))

    with pytest.raises(SourceChanged):
        ingest(archive, main, progress=change)
    assert spool(tmp_path) == []
