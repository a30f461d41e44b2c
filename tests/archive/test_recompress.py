# SPDX-License-Identifier: Apache-2.0
"""Recompressed frames: smaller in the store, the same at every door, and reversible."""

import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom.encaps import encapsulate

from archive.access import NOTHING, Action, OpenPolicy, Principal
from archive.errors import CannotDecode, CannotTranscode, NotAllowed, NotFound, StorageFull
from archive.part10.encode import encode_header
from archive.part10.frame_table import encode_direct
from archive.service import Archive
from archive.values import (
    Instance,
    NewBlob,
    NewInstance,
    NewOriginal,
    NewSlide,
    PixelDescription,
    Rendering,
    Stored,
)
from dicomweb.app import WebSettings, create_app
from gateway.ingest.pipeline import ingest_path
from tests.archive.test_integrity import contents
from tests.support.archives import ASK, SENDER, TESTER, open_archive, store_bytes
from tests.support.codec import DirectCodec
from tests.support.faults import FullDisk, flip_bit
from tests.support.instances import make_dataset, make_instance
from tests.support.make_slide import make_svs
from tests.support.require import require_data
from tests.support.tissue import (
    TILE,
    TILES,
    WITHOUT_END,
    a_day_later,
    blobs,
    only,
    recompress,
    rewritten,
    slide,
    stream,
    tissue,
    uids,
)

JPEG, JPEGXL = "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.111"
EXPLICIT = "1.2.840.10008.1.2.1"
ICC = "00480105/0/00282000"


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


def doors(archive: Archive, stored: Stored) -> dict[str, object]:
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
    found["native"] = b"".join(archive.open(instance, transfer_syntax_uid=EXPLICIT, **ASK).chunks)
    found["native frames"] = list(archive.frames(instance, [1], transfer_syntax_uid=EXPLICIT, **ASK))
    return found


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_door_gives_the_same_bytes_before_after_and_back(
    archive: Archive, tmp_path: Path, variant: str
) -> None:
    data = VARIANTS[variant]()
    stored = store_bytes(archive, data)
    before, rows = doors(archive, stored), contents(archive)
    assert before["base"] == data
    (first,) = blobs(tmp_path) - {thumbnail_digest(archive)}

    assert only(archive, stored) == ("recompressed", "")
    assert doors(archive, stored) == before
    a_day_later(archive)
    assert archive.collect_garbage(**ASK) == 1
    (second,) = blobs(tmp_path) - {thumbnail_digest(archive)}
    assert second != first
    assert doors(archive, stored) == before
    assert list(archive.verify(**ASK)) == []

    assert only(archive, stored, undo=True) == ("expanded", "")
    assert doors(archive, stored) == before
    a_day_later(archive)
    archive.collect_garbage(**ASK)
    assert blobs(tmp_path) - {thumbnail_digest(archive)} == {first}
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
    assert stream(archive, stored) == data
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
        (
            lambda: slide([*TILES[:1], *[WITHOUT_END] * 3]),
            "most of its frames are refused: the JPEG cannot be recompressed: JpegxlError",
        ),
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


def made_over(tiles: bytes, blob: NewBlob, number: int) -> NewInstance:
    """An instance of ours whose frames are the JPEGs in a blob."""
    dataset = make_dataset(study="1.2.1", series="1.2.2", sop=f"1.2.3.{number}", tile=TILE, number=number)
    starts = [tiles.index(tile) for tile in TILES]
    return NewInstance(
        dataset.SOPInstanceUID,
        encode_header(dataset, JPEG, implementation_version="TEST"),
        encode_direct(starts, [len(tile) for tile in TILES]),
        [blob],
    )


def test_frames_in_a_scanners_original_are_left_alone_and_those_in_a_blob_of_our_own_are_not(
    archive: Archive, tmp_path: Path
) -> None:
    scan = b"a scanner's header" + b"between".join(TILES)
    ours = b"".join(reversed(TILES))
    with archive.stage() as staging:
        staging.write(scan)
        staged = staging.finish()
    original = NewOriginal(staged.sha256, [("scan.tif", staged)], "generic-tiff")
    instances = [made_over(scan, NewBlob(staged), 1), made_over(ours, NewBlob(ours), 2)]
    born, own = archive.store_slide(NewSlide(original, instances, "S1"), sender=SENDER, **ASK)
    before = doors(archive, born), doors(archive, own)
    first, second = recompress(archive, born)
    assert (first.outcome, first.reason) == ("left", "its frames lie in a file that is kept for others too")
    assert second.outcome == "recompressed"
    a_day_later(archive)
    assert archive.collect_garbage(**ASK) == 1
    assert (doors(archive, born), doors(archive, own)) == before
    assert originals(archive, "1.2.2") == [scan]
    assert list(archive.verify(**ASK)) == []
    assert archive.reindex(**ASK) == 2
    assert (stream(archive, born), stream(archive, own)) == (before[0]["instance"], before[1]["instance"])


def originals(archive: Archive, series: str) -> list[bytes]:
    return [b"".join(one.chunks) for _, one in archive.original(series, **ASK)]


def test_an_ingested_slide_keeps_its_original_and_its_bytes(archive: Archive, tmp_path: Path) -> None:
    path = make_svs(tmp_path / "slide.svs", rows=600, columns=600)
    stored = ingest_path(archive, path, secret=b"s" * 32, sender=SENDER, **ASK)
    before = [stream(archive, one) for one in stored]
    assert {one.outcome for one in recompress(archive, stored[0])} <= {"left", "recompressed"}
    assert originals(archive, stored[0].series_instance_uid) == [path.read_bytes()]
    assert [stream(archive, one) for one in stored] == before
    assert list(archive.verify(**ASK)) == []


def test_a_tile_that_is_several_frames_is_stored_once(archive: Archive) -> None:
    tiles = b"".join(TILES)
    one, two = map(len, TILES[:2])
    table = encode_direct([0, 0, one, 0], [one, one, two, one])
    instance = dataclasses.replace(made_over(tiles, NewBlob(tiles), 1), frame_table=table)
    with archive.stage() as staging:
        staging.write(b"an original")
        staged = staging.finish()
    slide_ = NewSlide(NewOriginal(staged.sha256, [("x", staged)], "generic-tiff"), [instance], "S1")
    (stored,) = archive.store_slide(slide_, sender=SENDER, **ASK)
    before = doors(archive, stored)
    assert only(archive, stored) == ("recompressed", "")
    assert doors(archive, stored) == before


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
    assert blobs(tmp_path) == set()
    assert list(archive.verify(**ASK)) == []


def test_a_correction_of_a_recompressed_instance_knows_its_large_values(archive: Archive) -> None:
    stored = store_bytes(archive, rewritten(slide(), large_profile))
    recompress(archive, stored)
    archive.correct(stored.study_instance_uid, {"PatientName": "New^Name"}, reason="r", **ASK)
    home = store_bytes(archive, stream(archive, stored))
    assert home.outcome == "already"


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
