# SPDX-License-Identifier: Apache-2.0
"""Recompressed frames: smaller in the store, the same at every door, and reversible."""

import io
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread
from pydicom.encaps import encapsulate

from archive.access import NOTHING, Action, OpenPolicy, Principal
from archive.errors import CannotDecode, CannotTranscode, Damaged, NotAllowed, NotFound, StorageFull
from archive.service import Archive
from archive.values import Instance, PixelDescription, Recompressed, Rendering, Stored
from dicomweb.app import WebSettings, create_app
from gateway.ingest.pipeline import ingest_path
from tests.archive.test_integrity import contents
from tests.support import postgres
from tests.support.archives import ASK, SENDER, TESTER, open_archive, store_bytes
from tests.support.codec import DirectCodec
from tests.support.faults import FullDisk, flip_bit
from tests.support.instances import make_instance
from tests.support.make_slide import make_svs, noisy_tile
from tests.support.require import ROOT, require_data

JPEG, JPEGXL = "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.111"
EXPLICIT = "1.2.840.10008.1.2.1"
ICC = "00480105/0/00282000"
TILE = 96


def tissue(seed: int, *, mode: str = "RGB", parity: int = 0, quality: int = 85, size: int = TILE) -> bytes:
    """A baseline JPEG with the entropy of tissue. ``parity`` of its length: 0 hides no
    padding, 1 has some."""
    pixels = Image.fromarray(noisy_tile(np.random.default_rng(seed), size)).convert(mode)
    out = io.BytesIO()
    pixels.save(out, "JPEG", quality=quality, subsampling=2 if mode == "RGB" else -1)
    data = out.getvalue()
    if len(data) % 2 == parity:
        return data
    return data[:2] + b"\xff\xfe\x00\x03\x20" + data[2:]


TILES = tuple(tissue(seed) for seed in range(4))
WITHOUT_END = TILES[2][:-2]  # libjpeg takes it


def slide(tiles: Sequence[bytes] = TILES, **attributes: Any) -> bytes:
    edge = Image.open(io.BytesIO(tiles[0])).width
    return make_instance(tiles=tiles, tile=edge, frames=len(tiles), **attributes)


def rewritten(data: bytes, change: Callable[[Any], None]) -> bytes:
    """Part 10 bytes with something changed by pydicom."""
    dataset = dcmread(io.BytesIO(data))
    change(dataset)
    out = io.BytesIO()
    dataset.save_as(out, enforce_file_format=True)
    return out.getvalue()


def grey(dataset: Any) -> None:
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    del dataset.PlanarConfiguration


def large_profile(dataset: Any) -> None:
    dataset.OpticalPathSequence[0].ICCProfile = bytes(range(256)) * 400


def trailing_padding(dataset: Any) -> None:
    dataset.DataSetTrailingPadding = bytes(300)


def no_offsets(dataset: Any) -> None:
    dataset.PixelData = encapsulate(list(TILES), has_bot=False)


VARIANTS = {
    "a basic offset table": lambda: slide(),
    "an extended offset table": lambda: slide(eot=True),
    "no offset table": lambda: rewritten(slide(), no_offsets),
    "odd frames and padding": lambda: slide([tissue(n, parity=1) for n in range(4)]),
    "odd frames and their lengths": lambda: slide([tissue(n, parity=1) for n in range(4)], eot=True),
    "grey frames": lambda: rewritten(slide([tissue(n, mode="L") for n in range(4)]), grey),
    "a large value in a sequence": lambda: rewritten(slide(), large_profile),
    "one frame": lambda: slide(TILES[:1]),
    "trailing padding": lambda: rewritten(slide(), trailing_padding),
    "a frame that JPEG XL refuses among others": lambda: slide([*TILES[:2], WITHOUT_END, TILES[3]]),
}  # fmt: skip


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    opened = open_archive(tmp_path, codec=DirectCodec())
    yield opened
    opened.close()


def uids(stored: Stored) -> tuple[str, str, str]:
    return stored.study_instance_uid, stored.series_instance_uid, stored.sop_instance_uid


def recompress(archive: Archive, stored: Stored, **more: Any) -> list[Recompressed]:
    return list(archive.recompress(stored.study_instance_uid, **{"reason": "r", **ASK, **more}))


def only(archive: Archive, stored: Stored, **more: Any) -> tuple[str, str]:
    (one,) = recompress(archive, stored, **more)
    return str(one.outcome), one.reason


def doors(archive: Archive, stored: Stored, *, native: bool = True) -> dict[str, object]:
    """What every way out gives."""
    instance: Instance = archive.instance(*uids(stored), **ASK)
    numbers = range(1, instance.number_of_frames + 1)
    stream = archive.open(instance, **ASK)
    found: dict[str, object] = {
        "descriptor": instance,
        "etag": stream.etag,
        "length": stream.length,
        "instance": b"".join(stream.chunks),
        "base": b"".join(archive.open(instance, base=True, **ASK).chunks),
        "metadata": archive.metadata(instance, **ASK),
        "frame": [archive.frame(instance, n, **ASK) for n in numbers],
        "frames": list(archive.frames(instance, list(numbers), **ASK)),
        "icc": b"".join(archive.bulk(instance, ICC, **ASK).chunks),
        "rendered": archive.rendered(instance, 1, Rendering(media_type="image/png"), **ASK),
        "whole": archive.rendered(instance, 0, Rendering(media_type="image/png"), **ASK),
        "thumbnail": archive.thumbnail(*uids(stored)[:2], **ASK),
    }
    archive.check(instance, **ASK)
    if native:
        found["native"] = b"".join(archive.open(instance, transfer_syntax_uid=EXPLICIT, **ASK).chunks)
        found["native frames"] = list(archive.frames(instance, [1], transfer_syntax_uid=EXPLICIT, **ASK))
    return found


def blobs(folder: Path) -> dict[str, int]:
    return {p.name: p.stat().st_size for p in (folder / "store" / "blob").rglob("*") if p.is_file()}


def a_day_later(archive: Archive) -> None:
    later = archive._core.clock() + timedelta(hours=25)
    archive._core.clock = lambda: later


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_door_gives_the_same_bytes_before_after_and_back(
    archive: Archive, tmp_path: Path, variant: str
) -> None:
    data = VARIANTS[variant]()
    stored = store_bytes(archive, data)
    before, rows = doors(archive, stored), contents(archive)
    assert before["base"] == data
    (first,) = set(blobs(tmp_path)) - {thumbnail_digest(archive)}

    assert only(archive, stored) == ("recompressed", "")
    assert doors(archive, stored) == before
    a_day_later(archive)
    assert archive.collect_garbage(**ASK) == 1
    (second,) = set(blobs(tmp_path)) - {thumbnail_digest(archive)}
    assert second != first
    assert doors(archive, stored) == before
    assert list(archive.verify(**ASK)) == []

    assert only(archive, stored, undo=True) == ("expanded", "")
    assert doors(archive, stored) == before
    a_day_later(archive)
    archive.collect_garbage(**ASK)
    assert set(blobs(tmp_path)) - {thumbnail_digest(archive)} == {first}
    assert contents(archive)["Instance"] == rows["Instance"]
    assert list(archive.verify(**ASK)) == []


def thumbnail_digest(archive: Archive) -> str:
    model = archive._core.index.models.Derivative
    with archive._core.index.read():
        return bytes(model.get().digest).hex()


@pytest.mark.parametrize(
    "name", ["google_camelyon_jpeg", "google_test_jpeg_dicom", "google_wsi2dcm_jpeg", "panimg_full_no_bot"]
)
def test_instances_of_other_makers_come_out_as_they_came(archive: Archive, name: str) -> None:
    data = require_data(f"slides/dicom-wsi/{name}.dcm").read_bytes()
    stored = store_bytes(archive, data)
    instance = archive.instance(*uids(stored), **ASK)
    frames = list(archive.frames(instance, range(1, instance.number_of_frames + 1), **ASK))
    outcome, reason = only(archive, stored)
    if instance.transfer_syntax_uid != JPEG:
        assert (outcome, reason) == ("left", "it has no JPEG frames")
    assert b"".join(archive.open(instance, **ASK).chunks) == data
    assert list(archive.frames(instance, range(1, instance.number_of_frames + 1), **ASK)) == frames
    assert [f for f in archive.verify(**ASK) if f.kind != "as received"] == []


def test_a_recompressed_slide_is_a_fifth_smaller(archive: Archive) -> None:
    stored = store_bytes(archive, slide([tissue(n, quality=75, size=256) for n in range(4)]))
    (one,) = recompress(archive, stored)
    assert 0.75 * one.size_before_bytes < one.size_after_bytes < 0.82 * one.size_before_bytes


def test_frames_asked_in_jpeg_xl_are_given_as_stored(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = store_bytes(archive, slide([*TILES[:3], WITHOUT_END]))
    instance = archive.instance(*uids(stored), **ASK)
    made = list(archive.frames(instance, [3, 1, 2], transfer_syntax_uid=JPEGXL, **ASK))
    recompress(archive, stored)
    asked: list[str] = []
    transcode = DirectCodec.transcode

    def counting(self: DirectCodec, frame: bytes, source: PixelDescription, uid: str) -> bytes:
        asked.append(source.transfer_syntax_uid)
        return transcode(self, frame, source, uid)

    monkeypatch.setattr(DirectCodec, "transcode", counting)
    assert list(archive.frames(instance, [3, 1, 2], transfer_syntax_uid=JPEGXL, **ASK)) == made
    assert asked == []
    with pytest.raises(CannotDecode):  # the fourth was kept as it is
        list(archive.frames(instance, [4], transfer_syntax_uid=JPEGXL, **ASK))


def test_http_gives_the_same_bytes_before_and_after(archive: Archive) -> None:
    stored = store_bytes(archive, slide())
    client = create_app(archive, WebSettings()).test_client()
    study, series, sop = uids(stored)
    root = f"/dicom-web/studies/{study}/series/{series}/instances/{sop}"
    asks = [
        (root, 'multipart/related; type="application/dicom"; transfer-syntax=*'),
        (root, "application/dicom"),
        (f"{root}/metadata", "application/dicom+json"),
        (f"{root}/frames/2", 'multipart/related; type="image/jpeg"'),
        (f"{root}/frames/2", "image/jpeg; transfer-syntax=" + JPEG),
        (f"{root}/frames/1,4", 'multipart/related; type="image/jpeg"; transfer-syntax=*'),
        (f"{root}/frames/3", f'multipart/related; type="image/jxl"; transfer-syntax={JPEGXL}'),
        (f"{root}/frames/3/rendered", "image/png"),
    ]

    def answers() -> list[tuple[int, bytes, str]]:
        got = [client.get(path, headers={"Accept": accept}) for path, accept in asks]
        return [(r.status_code, r.data, r.headers.get("ETag", "")) for r in got]

    before = answers()
    assert {status for status, _, _ in before} == {200}
    recompress(archive, stored)
    assert answers() == before


# ---- what is left ----------------------------------------------------------------------


def fragmented(dataset: Any) -> None:
    dataset.PixelData = encapsulate(list(TILES), fragments_per_frame=2)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: make_instance(native=True), "it has no JPEG frames"),
        (lambda: make_instance(), "there is nothing to gain"),
        (lambda: rewritten(slide(), fragmented), "its frames are of several pieces"),
    ],
)
def test_what_cannot_be_recompressed_is_left_and_says_why(
    archive: Archive, make: Callable[[], bytes], reason: str
) -> None:
    stored = store_bytes(archive, make())
    before = state(archive)
    assert only(archive, stored) == ("left", reason)
    assert state(archive) == before


def state(archive: Archive) -> tuple[object, ...]:
    """All that may change."""
    index, core = archive._core.index, archive._core
    with index.read():
        places = list(index.models.InstanceBlob.select().dicts())
        live = sorted((bytes(b.digest), b.state) for b in index.models.Blob.select())
        events = index.models.AuditEvent.select().count()
    spooled = list(core.spool.folder.iterdir())
    return places, live, events, sorted(core.storage.keys("")), archive.changes(0, **ASK), spooled


@pytest.mark.parametrize(
    ("hold", "reason"),
    [
        ("UPDATE series SET held = {true}", "it is under a hold"),
        (
            "UPDATE study SET protocol_study_id = (SELECT id FROM protocol_study)",
            "it belongs to a GLP study",
        ),
    ],
)
def test_nothing_is_recompressed_under_a_hold_or_glp(archive: Archive, hold: str, reason: str) -> None:
    stored = store_bytes(archive, slide())
    index = archive._core.index
    index.write(lambda: index.models.ProtocolStudy.create(identifier="P", glp=True))
    index.write(lambda: index.database.execute_sql(hold.format(true=1)))
    before = state(archive)
    assert only(archive, stored) == ("left", reason)
    assert state(archive) == before


def test_a_hold_that_comes_meanwhile_holds(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    stored = store_bytes(archive, slide())
    index = archive._core.index
    transcode = DirectCodec.transcode

    def hold_first(self: DirectCodec, frame: bytes, source: PixelDescription, uid: str) -> bytes:
        index.write(lambda: index.database.execute_sql("UPDATE series SET held = 1"))
        return transcode(self, frame, source, uid)

    monkeypatch.setattr(DirectCodec, "transcode", hold_first)
    assert only(archive, stored) == ("left", "it is under a hold")
    assert list(archive._core.storage.keys("journal/")) == []
    assert list(archive.verify(**ASK)) == []


def test_a_born_slide_and_its_original_are_left_alone(archive: Archive, tmp_path: Path) -> None:
    path = make_svs(tmp_path / "slide.svs", rows=600, columns=600)
    stored = ingest_path(archive, path, secret=b"s" * 32, sender=SENDER, **ASK)
    found = recompress(archive, stored[0])
    original = b"".join(archive.original(stored[0].series_instance_uid, **ASK)[1].chunks)
    assert original == path.read_bytes()
    levels = {s.sop_instance_uid for s in stored if pixels_of(archive, s) == "made"}
    assert levels
    assert {one.outcome for one in found if one.sop_instance_uid in levels} == {"left"}
    assert list(archive.verify(**ASK)) == []


def pixels_of(archive: Archive, stored: Stored) -> str:
    handle = archive._retriever.handles.get(stored.sop_instance_uid)
    assert handle is not None
    return handle.row.base


# ---- what goes wrong -------------------------------------------------------------------


def test_a_reconstruction_that_differs_changes_nothing(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = store_bytes(archive, slide())
    transcode = DirectCodec.transcode

    def broken(self: DirectCodec, frame: bytes, source: PixelDescription, uid: str) -> bytes:
        made = transcode(self, frame, source, uid)
        return made[:-1] + bytes([made[-1] ^ 1]) if uid == JPEG else made

    before = state(archive)
    monkeypatch.setattr(DirectCodec, "transcode", broken)
    assert only(archive, stored) == ("failed", "a frame does not come back bit for bit")
    assert state(archive) == before


def test_damaged_stored_bytes_are_not_packed_away(archive: Archive, tmp_path: Path) -> None:
    data = slide()
    stored = store_bytes(archive, data)
    (path,) = [p for p in (tmp_path / "store" / "blob").rglob("*") if p.is_file()]
    flip_bit(path, 10)  # of the preamble: no decoder sees it
    before = state(archive)
    assert only(archive, stored) == ("failed", "the stored bytes differ from their digest")
    assert state(archive) == before


def test_a_frame_that_is_no_jpeg_stays_as_it_is_among_the_others(archive: Archive) -> None:
    stored = store_bytes(archive, slide([*TILES[:3], TILES[3][:200]]))
    instance = archive.instance(*uids(stored), **ASK)
    frames = [archive.frame(instance, n, **ASK) for n in (1, 2, 3, 4)]
    assert only(archive, stored) == ("recompressed", "")
    assert [archive.frame(instance, n, **ASK) for n in (1, 2, 3, 4)] == frames
    assert list(archive.verify(**ASK)) == []


def test_a_full_disk_stops_it_and_the_next_run_goes_on(tmp_path: Path) -> None:
    storage = FullDisk(tmp_path / "store", "none")
    archive = open_archive(tmp_path, codec=DirectCodec(), storage=storage)
    first = store_bytes(archive, slide(study="1.2.1", series="1.2.1.1", number=1))
    store_bytes(archive, slide([tissue(9)] * 4, study="1.2.1", series="1.2.1.1", number=2))
    running = archive.recompress("1.2.1", reason="r", **ASK)
    assert next(running).outcome == "recompressed"
    storage.prefix = "blob/"
    with pytest.raises(StorageFull):
        next(running)
    storage.prefix = "none"
    assert [one.outcome for one in recompress(archive, first)] == ["already", "recompressed"]
    assert [one.outcome for one in recompress(archive, first)] == ["already", "already"]
    assert [one.outcome for one in recompress(archive, first, undo=True)] == ["expanded", "expanded"]
    assert [one.outcome for one in recompress(archive, first, undo=True)] == ["already", "already"]
    assert list(archive.verify(**ASK)) == []
    assert not list((tmp_path / "spool").iterdir())
    archive.close()


def test_one_series_is_recompressed_and_another_is_not(archive: Archive) -> None:
    for series in ("1.2.1.1", "1.2.1.2"):
        stored = store_bytes(archive, slide(study="1.2.1", series=series))
    found = recompress(archive, stored, series="1.2.1.2")
    assert [(one.series_instance_uid, one.outcome) for one in found] == [("1.2.1.2", "recompressed")]
    with pytest.raises(NotFound):
        recompress(archive, stored, series="1.2.1.3")


def test_who_may_not_operate_or_see_may_not_recompress(tmp_path: Path) -> None:
    class ReadOnly(OpenPolicy):
        def allows(self, principal: Principal, action: Action) -> bool:
            return action is not Action.OPERATE

    archive = open_archive(tmp_path, codec=DirectCodec())
    stored = store_bytes(archive, slide())
    with pytest.raises(NotFound):
        recompress(archive, stored, scope=NOTHING)
    archive.close()
    archive = open_archive(tmp_path, codec=DirectCodec(), policy=ReadOnly())
    with pytest.raises(NotAllowed):
        recompress(archive, stored)
    archive.close()


def test_each_change_is_one_event_one_line_of_the_feed_and_one_entry(archive: Archive) -> None:
    stored = store_bytes(archive, slide())
    recompress(archive, stored, reason="old study")
    recompress(archive, stored, undo=True)
    index = archive._core.index
    with index.read():
        rows = index.models.AuditEvent.select().order_by(index.models.AuditEvent.seq)
        events = [json.loads(e.event) for e in rows]
    changes = [e["detail"]["action"] for e in events if e["action"] == "U"]
    assert changes == ["recompress", "expand"]
    assert events[1]["detail"]["reason"] == "old study"
    assert events[1]["actor"] == TESTER.actor
    feed = [c.action for c in archive.changes(0, **ASK)]
    assert feed == ["stored", "recompressed", "expanded"]
    assert len(list(archive._core.storage.keys("journal/"))) == 2


def test_without_a_codec_frames_are_refused_in_one_clear_line_and_all_else_is_read(
    archive: Archive, tmp_path: Path
) -> None:
    stored = store_bytes(archive, rewritten(slide(), large_profile))
    before = doors(archive, stored)
    recompress(archive, stored)
    bare = open_archive(tmp_path)
    instance = bare.instance(*uids(stored), **ASK)
    assert bare.metadata(instance, **ASK) == before["metadata"]
    assert b"".join(bare.bulk(instance, ICC, **ASK).chunks) == before["icc"]
    with pytest.raises(CannotTranscode, match="stored recompressed, and there is no codec"):
        bare.frame(instance, 1, **ASK)
    with pytest.raises(CannotTranscode, match="no codec is configured"):
        recompress(bare, stored, undo=True)
    assert {f.kind for f in bare.verify(**ASK)} == {"recompressed"}
    bare.close()


# ---- what is done with it afterwards ---------------------------------------------------


def test_a_recompressed_instance_can_be_corrected_replaced_and_deleted(
    archive: Archive, tmp_path: Path
) -> None:
    data = slide(study="1.2.3", series="1.2.4", sop="1.2.5")
    stored = store_bytes(archive, data)
    recompress(archive, stored)
    archive.correct("1.2.3", {"PatientName": "New^Name"}, reason="r", **ASK)
    corrected = doors(archive, stored)
    assert corrected["base"] == data
    recompress(archive, stored, undo=True)
    assert doors(archive, stored) == corrected
    recompress(archive, stored)
    assert doors(archive, stored) == corrected
    assert store_bytes(archive, data).outcome == "already"
    store_bytes(archive, slide(TILES[::-1], study="1.2.3", series="1.2.4", sop="1.2.5"), replace=True)
    assert only(archive, stored) == ("recompressed", "")
    archive.delete("1.2.3", reason="r", **ASK)
    a_day_later(archive)
    archive.collect_garbage(**ASK)
    assert blobs(tmp_path) == {}
    assert list(archive.verify(**ASK)) == []


def test_the_same_instance_again_is_compared_with_the_frames_as_they_came(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    from archive import prepare

    monkeypatch.setattr(prepare, "EAGER_PIXEL_DIGEST_BYTES", 0)
    data = slide()
    stored = store_bytes(archive, data)
    recompress(archive, stored)
    assert store_bytes(archive, data).outcome == "already"


def test_another_process_reads_on_while_the_first_blob_goes(archive: Archive, tmp_path: Path) -> None:
    data = slide()
    stored = store_bytes(archive, data)
    other = open_archive(tmp_path, codec=DirectCodec())
    instance = other.instance(*uids(stored), **ASK)
    running = other.open(instance, **ASK)
    recompress(archive, stored)
    a_day_later(archive)
    assert archive.collect_garbage(**ASK) == 1
    assert b"".join(running.chunks) == data
    assert b"".join(other.open(instance, **ASK).chunks) == data
    other.close()


# ---- kills -----------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["recompress", "expand"])
@pytest.mark.parametrize(
    ("part", "when", "done"),
    [
        ("blob", "before", False),
        ("blob", "after", False),
        ("journal", "before", False),
        ("journal", "after", True),
        ("commit", "before", True),
        ("transaction", "before", True),
        ("transaction", "after", True),
        ("commit", "after", True),
    ],
)
def test_a_kill_at_any_step_leaves_one_form_or_the_other_and_the_same_bytes(
    tmp_path: Path, verb: str, part: str, when: str, done: bool
) -> None:
    data = slide()
    first = open_archive(tmp_path / "site", codec=DirectCodec())
    stored = store_bytes(first, data)
    if verb == "expand":
        recompress(first, stored)
    first.close()
    died = subprocess.run(
        [sys.executable, "-m", "tests.support.doomed", str(tmp_path / "site"), "-", part, when, verb],
        cwd=ROOT, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert died.returncode == -9, died.stderr

    survivor = open_archive(tmp_path / "site", codec=DirectCodec())
    survivor.recover()
    assert is_packed(survivor) == [done is (verb == "recompress")]
    assert list(survivor.verify(**ASK)) == []
    assert not list((tmp_path / "site" / "spool").iterdir())
    instance = survivor.instance(*uids(stored), **ASK)
    assert b"".join(survivor.open(instance, **ASK).chunks) == data
    again = only(survivor, stored, undo=verb == "expand")[0]
    assert again == ("already" if done else "recompressed" if verb == "recompress" else "expanded")
    assert b"".join(survivor.open(instance, **ASK).chunks) == data
    a_day_later(survivor)
    survivor.collect_garbage(**ASK)
    assert len(blobs(tmp_path / "site")) == 1
    assert survivor.reindex(**ASK) == 1
    assert b"".join(survivor.open(instance, **ASK).chunks) == data
    assert list(survivor.verify(**ASK)) == []
    survivor.close()


# ---- the journal -----------------------------------------------------------------------


def filled(archive: Archive) -> None:
    """Recompressed; recompressed and back; corrected and recompressed; replaced since."""
    for number in range(4):
        store_bytes(archive, slide(study=f"1.2.{number}", series=f"1.3.{number}", sop=f"1.4.{number}"))
        list(archive.recompress(f"1.2.{number}", reason="r", **ASK))
    list(archive.recompress("1.2.1", undo=True, reason="r", **ASK))
    archive.correct("1.2.2", {"PatientID": "P9"}, reason="r", **ASK)
    again = slide(TILES[::-1], study="1.2.3", series="1.3.3", sop="1.4.3")
    store_bytes(archive, again, replace=True)


def places(archive: Archive) -> list[object]:
    index = archive._core.index
    with index.read() as database:
        return sorted(
            (sop, position, bytes(digest), None if first is None else (bytes(first), size))
            for sop, position, digest, first, size in database.execute_sql(
                "SELECT i.sop_instance_uid, l.position, b.digest, l.unpacked_digest, l.unpacked_size_bytes "
                "FROM instance_blob l JOIN instance i ON i.id = l.instance_id "
                "JOIN blob b ON b.id = l.blob_id"
            ).fetchall()
        )


def streams(archive: Archive) -> dict[str, bytes]:
    return {
        f"1.4.{n}": b"".join(
            archive.open(archive.instance(f"1.2.{n}", f"1.3.{n}", f"1.4.{n}", **ASK), **ASK).chunks
        )
        for n in range(4)
    }


def is_packed(archive: Archive) -> list[bool]:
    return [place[3] is not None for place in places(archive)]  # type: ignore[index]


def rebuilds(archive: Archive) -> None:
    filled(archive)
    a_day_later(archive)
    archive.collect_garbage(**ASK)
    before = contents(archive), places(archive), streams(archive)
    assert is_packed(archive) == [True, False, True, False]
    assert archive.reindex(**ASK) == 4
    assert (contents(archive), places(archive), streams(archive)) == before
    assert list(archive.verify(**ASK)) == []
    assert archive.recover(everything=True) == []
    assert (contents(archive), places(archive), streams(archive)) == before


def test_reindex_gives_the_forms_that_were_there(archive: Archive) -> None:
    rebuilds(archive)


def test_the_same_on_postgresql(tmp_path: Path) -> None:
    with postgres.server() as cluster:
        url = postgres.new_database(cluster, "recompress")
        archive = open_archive(tmp_path, codec=DirectCodec(), url=url)
        rebuilds(archive)
        archive.delete("1.2.0", reason="r", **ASK)
        archive.close()


def test_a_lost_database_is_rebuilt_with_the_forms_that_are_in_storage(
    archive: Archive, tmp_path: Path
) -> None:
    filled(archive)
    before = places(archive), streams(archive)
    archive.close()
    for path in tmp_path.glob("coverslip.db*"):
        path.unlink()
    rebuilt = open_archive(tmp_path, codec=DirectCodec())
    rebuilt.reindex(**ASK)
    assert (places(rebuilt), streams(rebuilt)) == before
    rebuilt.close()


def test_an_entry_whose_second_blob_is_gone_stops_neither_recover_nor_reindex(
    archive: Archive, tmp_path: Path
) -> None:
    """As after a kill between entry and commit, and a garbage collection before recover."""
    data = slide(study="1.2.0", series="1.3.0", sop="1.4.0")
    stored = store_bytes(archive, data)
    (first,) = blobs(tmp_path)
    recompress(archive, stored)
    (second,) = set(blobs(tmp_path)) - {first}
    store = tmp_path / "store"
    shutil.copytree(store, tmp_path / "copy")
    recompress(archive, stored, undo=True)
    (undone,) = set(archive._core.storage.keys("journal/")) - {
        p.relative_to(tmp_path / "copy").as_posix() for p in (tmp_path / "copy").rglob("*") if p.is_file()
    }
    archive._core.storage.delete(undone)
    archive._core.storage.delete(f"blob/{second[:2]}/{second[2:4]}/{second}")
    index = archive._core.index
    index.write(lambda: index.models.Blob.delete().where(index.models.Blob.state != "live").execute())

    (finding,) = archive.recover(everything=True)
    assert (finding.kind, finding.repaired) == ("journal", False)
    assert "missing" in finding.detail
    assert archive.reindex(**ASK) == 1
    instance = archive.instance(*uids(stored), **ASK)
    assert b"".join(archive.open(instance, **ASK).chunks) == data


def test_recover_does_not_bring_back_what_was_undone(archive: Archive) -> None:
    stored = store_bytes(archive, slide())
    recompress(archive, stored)
    recompress(archive, stored, undo=True)
    recompress(archive, stored)
    recompress(archive, stored, undo=True)
    before = places(archive)
    assert archive.recover(everything=True) == []
    assert places(archive) == before


def test_entries_of_other_actions_keep_their_version(archive: Archive) -> None:
    stored = store_bytes(archive, slide())
    recompress(archive, stored)
    archive.delete(stored.study_instance_uid, reason="r", **ASK)
    found = {}
    for key in archive._core.storage.keys("journal/"):
        with archive._core.storage.open(key) as file:
            entry = json.loads(file.pread(0, file.size))
        found[entry["action"]] = (entry["journal"], "moves" in entry)
    assert found == {"recompress": (2, True), "delete": (1, False)}


# ---- damage ----------------------------------------------------------------------------


def second_blob(archive: Archive, tmp_path: Path) -> Path:
    (place,) = places(archive)
    name = place[2].hex()  # type: ignore[index]
    return tmp_path / "store" / "blob" / name[:2] / name[2:4] / name


@pytest.mark.parametrize("part", ["head", "header", "frame", "index"])
def test_verify_tells_damage_of_the_second_blob_and_nothing_damaged_is_exported(
    archive: Archive, tmp_path: Path, part: str
) -> None:
    stored = store_bytes(archive, slide())
    recompress(archive, stored)
    path = second_blob(archive, tmp_path)
    size = path.stat().st_size
    flip_bit(path, {"head": 30, "header": 100, "frame": size // 2, "index": size - 20}[part])
    archive._core.files.clear()
    found = {f.kind for f in archive.verify(**ASK)}
    assert found == {"blob", "recompressed"}
    archive._retriever.handles.clear()
    with pytest.raises((Damaged, CannotDecode)):
        archive.check(archive.instance(*uids(stored), **ASK), **ASK)
    assert only(archive, stored, undo=True)[0] == "failed"


def test_verify_tells_a_second_blob_that_is_missing(archive: Archive, tmp_path: Path) -> None:
    stored = store_bytes(archive, slide())
    recompress(archive, stored)
    second_blob(archive, tmp_path).unlink()
    archive._core.files.clear()
    assert {f.kind for f in archive.verify(**ASK)} == {"blob", "recompressed"}
    archive._retriever.handles.clear()
    with pytest.raises(Damaged):
        archive.instance(*uids(stored), **ASK)


def test_verify_tells_a_first_blob_that_was_damaged_before_it_went(archive: Archive, tmp_path: Path) -> None:
    stored = store_bytes(archive, slide())
    recompress(archive, stored)
    first = archive.instance(*uids(stored), **ASK).base_digest.hex()
    flip_bit(tmp_path / "store" / "blob" / first[:2] / first[2:4] / first, 500)
    assert [(f.kind, f.subject) for f in archive.verify(**ASK)] == [("blob", first)]


def test_verify_tells_a_lost_entry_of_the_journal(archive: Archive) -> None:
    stored = store_bytes(archive, slide())
    recompress(archive, stored)
    (key,) = archive._core.storage.keys("journal/")
    archive._core.storage.delete(key)
    found = [(f.kind, f.subject) for f in archive.verify(**ASK)]
    assert found == [("journal", stored.sop_instance_uid)]
