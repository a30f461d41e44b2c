# SPDX-License-Identifier: Apache-2.0
"""A scope that sees nothing shows nothing and changes nothing, through every verb."""

import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from archive.access import EVERYTHING, NOTHING, Action, OpenPolicy, Principal, Scope
from archive.errors import ArchiveError, NotAllowed, NotFound
from archive.index.query import Level, Query
from archive.index.worklist import WorklistQuery
from archive.non_patient import NonPatientQuery
from archive.peer import Peer
from archive.service import Archive
from archive.values import NewInstance, NewOriginal, NewSlide, Rendering, Stored
from archive.worklist import NewItem
from tests.support.archives import ASK, SENDER, TESTER, open_archive, store_bytes
from tests.support.instances import make_instance
from tests.support.non_patient import palette, written
from tests.support.worklist import item, performed, schedule

STRANGER = {"principal": Principal("stranger", "dicomweb"), "scope": NOTHING}
# Verbs without a scope: what the process itself does, never on behalf of somebody.
INTERNAL = {
    "stage", "stage_copy", "spool_path", "adopt", "claim", "report", "finish", "fail", "watched",
    "note_watched", "recover", "fold_access", "ready", "statistics", "close", "assembly", "run_commitment",
    "commitment_results", "expire_commitments", "asked_commitments", "availability",
    "known_peers", "followed", "claim_duty", "report_duty", "finish_duty", "fail_duty", "duty_counts",
    "forget_duties", "confirm_delivered", "delivered",
}  # fmt: skip


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    opened = open_archive(tmp_path)
    yield opened
    opened.close()


def state(archive: Archive) -> tuple[object, ...]:
    """All that an owner can see."""
    return (
        archive.slides(**ASK), archive.changes(0, **ASK), archive.jobs(**ASK), archive.quarantined(**ASK),
        [archive.find(Query(level), **ASK).rows for level in Level],
        list(archive.worklist(WorklistQuery(), **ASK)),
    )  # fmt: skip


def calls(archive: Archive, stored: Stored) -> dict[str, Callable[[], Any]]:
    study, series, sop = stored.study_instance_uid, stored.series_instance_uid, stored.sop_instance_uid
    instance = archive.instance(study, series, sop, **ASK)

    def staged() -> Any:
        with archive.stage() as staging:
            staging.write(make_instance())
            return staging.finish()

    original = NewOriginal(b"\0" * 32, [], "aperio-svs")
    kept = ("color-palettes", store_bytes(archive, written(palette())).sop_instance_uid)
    return {
        "store_file": lambda: archive.store_file(staged(), sender=SENDER, **STRANGER),
        "store_slide": lambda: archive.store_slide(
            NewSlide(original, [NewInstance("", part10=make_instance())], "S1"), sender=SENDER, **STRANGER
        ),
        "original_of": lambda: archive.original_of(b"\0" * 32, **STRANGER),
        "find": lambda: [r for level in Level for r in archive.find(Query(level), **STRANGER).rows],
        "find_all": lambda: [r for level in Level for r in archive.find_all(Query(level), **STRANGER)],
        "find_patients": lambda: list(archive.find_patients(Query(Level.STUDY), **STRANGER)),
        "transfer": lambda: archive.transfer(Query(Level.INSTANCE), "AE", **STRANGER).references,
        "slides": lambda: archive.slides(**STRANGER),
        "changes": lambda: archive.changes(0, **STRANGER),
        "instance": lambda: archive.instance(study, series, sop, **STRANGER),
        "instances": lambda: list(archive.instances(study, **STRANGER)),
        "sender_of": lambda: archive.sender_of(instance, **STRANGER),
        "open": lambda: archive.open(instance, **STRANGER),
        "metadata": lambda: archive.metadata(instance, **STRANGER),
        "metadata_pieces": lambda: archive.metadata_pieces(instance, **STRANGER),
        "bulk_paths": lambda: archive.bulk_paths(instance, **STRANGER),
        "pixel_data": lambda: archive.pixel_data(instance, **STRANGER),
        "can_be_native": lambda: archive.can_be_native(instance, scope=NOTHING),
        "stored_frames": lambda: archive.stored_frames(study, series, sop, **STRANGER),
        "stored_frames_now": lambda: archive.stored_frames_now(study, series, sop, **STRANGER) or [],
        "frame": lambda: archive.frame(instance, 1, **STRANGER),
        "frames": lambda: list(archive.frames(instance, [1], **STRANGER)),
        "can_transcode": lambda: archive.can_transcode(instance, "1.2.840.10008.1.2.1", scope=NOTHING),
        "can_open": lambda: archive.can_open(instance, "1.2.840.10008.1.2.1", scope=NOTHING),
        "bulk": lambda: archive.bulk(instance, "00480105/0/00282000", **STRANGER),
        "rendered": lambda: archive.rendered(instance, 1, Rendering(), **STRANGER),
        "pyramid": lambda: archive.pyramid("", series, **STRANGER),
        "tile": lambda: archive.tile(instance, 0, 0, **STRANGER),
        "thumbnail": lambda: archive.thumbnail(study, series, **STRANGER),
        "original": lambda: archive.original(series, **STRANGER),
        "schedule": lambda: archive.schedule([NewItem(item())], source="s", **STRANGER),
        "unschedule": lambda: archive.unschedule("i", reason="r", source="s", **STRANGER),
        "worklist": lambda: list(archive.worklist(WorklistQuery(), **STRANGER)),
        "order_history": lambda: archive.order_history("i", **STRANGER),
        "begin_performed_step": lambda: archive.begin_performed_step("", performed(1), **STRANGER),
        "update_performed_step": lambda: archive.update_performed_step("2.25.1", {}, **STRANGER),
        "performed_step": lambda: archive.performed_step("2.25.1", **STRANGER),
        "delete": lambda: archive.delete(study, reason="r", **STRANGER),
        "store_non_patient": lambda: archive.store_non_patient(staged(), sender=SENDER, **STRANGER),
        "find_non_patient": lambda: (
            archive.find_non_patient(NonPatientQuery("color-palettes"), **STRANGER).rows
        ),
        "non_patient": lambda: archive.non_patient(*kept, **STRANGER),
        "open_non_patient": lambda: archive.open_non_patient(*kept, **STRANGER),
        "non_patient_metadata": lambda: archive.non_patient_metadata(*kept, **STRANGER),
        "non_patient_bulk": lambda: archive.non_patient_bulk(*kept, "00281201", **STRANGER),
        "delete_non_patient": lambda: archive.delete_non_patient(*kept, reason="r", **STRANGER),
        "reject": lambda: archive.reject(study, code="113001", **STRANGER),
        "readmit": lambda: archive.readmit(study, reason="r", **STRANGER),
        "correct": lambda: archive.correct(study, {"StudyID": "1"}, reason="r", **STRANGER),
        "recompress": lambda: list(archive.recompress(study, reason="r", **STRANGER)),
        "promise": lambda: archive.promise("AE", "forward", {}, **STRANGER),
        "promise_following": lambda: archive.promise_following("routing", None, 1, [], **STRANGER),
        "duties": lambda: archive.duties(**STRANGER),
        "retry_duty": lambda: archive.retry_duty(1, **STRANGER),
        "cancel_duty": lambda: archive.cancel_duty(1, "why", **STRANGER),
        "enqueue": lambda: archive.enqueue("ingest", {}, **STRANGER),
        "jobs": lambda: archive.jobs(**STRANGER),
        "quarantine": lambda: archive.quarantine(staged(), "n", "r", source="s", **STRANGER),
        "quarantined": lambda: archive.quarantined(**STRANGER),
        "refused": lambda: archive.refused("unknown peer", **STRANGER) or [],
        "check": lambda: archive.check(instance, **STRANGER) or [],
        "resolve_stored": lambda: archive.resolve_stored([b"\0" * 32], **STRANGER) or [],
        "request_commitment": lambda: archive.request_commitment("2.25.1", [("1.2", sop)], **STRANGER) or [],
        "commitment": lambda: archive.commitment("2.25.2", **STRANGER),
        "resolve": lambda: archive.resolve(1, reason="r", **STRANGER),
        "quarantined_bytes": lambda: archive.quarantined_bytes(1, **STRANGER),
        "verify": lambda: list(archive.verify(**STRANGER)),
        "reindex": lambda: archive.reindex(**STRANGER),
        "want_keys": lambda: archive.want_keys(**STRANGER),
        "index_keys": lambda: archive.index_keys(lambda _: None, **STRANGER),
        "collect_garbage": lambda: archive.collect_garbage(**STRANGER),
        "peers": lambda: archive.peers(**STRANGER),
        "put_peer": lambda: archive.put_peer(Peer("A"), **STRANGER),
        "remove_peer": lambda: archive.remove_peer("A", **STRANGER),
    }


def test_every_verb_takes_a_scope_or_is_internal(archive: Archive) -> None:
    stored = store_bytes(archive, make_instance())
    verbs = {
        name for name, member in inspect.getmembers(Archive, inspect.isfunction) if not name.startswith("_")
    }
    assert verbs - INTERNAL == set(calls(archive, stored))
    for name in verbs - INTERNAL:
        assert "scope" in inspect.signature(getattr(Archive, name)).parameters, name


def test_a_deny_all_scope_shows_nothing_and_changes_nothing(archive: Archive) -> None:
    stored = store_bytes(archive, make_instance())
    archive.enqueue("ingest", {"a": 1}, **ASK)
    schedule(archive, item())
    before = state(archive)
    for name, call in calls(archive, stored).items():
        try:
            shown = call()
        except (NotFound, NotAllowed):
            shown = []
        assert shown == [], name
        assert state(archive) == before, name


def test_hidden_and_absent_are_told_alike(archive: Archive) -> None:
    stored = store_bytes(archive, make_instance())
    uids = (stored.study_instance_uid, stored.series_instance_uid, stored.sop_instance_uid)
    with pytest.raises(NotFound) as hidden:
        archive.instance(*uids, **STRANGER)
    other = open_archive(Path(archive._core.spool.folder).parent / "other")
    with pytest.raises(NotFound) as absent:
        other.instance(*uids, **ASK)
    other.close()
    assert (type(hidden.value), str(hidden.value)) == (type(absent.value), str(absent.value))


def test_a_scope_of_one_study_sees_and_fills_that_study_only(archive: Archive) -> None:
    mine = store_bytes(archive, make_instance(study="1.2.1"))
    theirs = store_bytes(archive, make_instance(study="1.2.2"))
    limited = {"principal": TESTER, "scope": Scope("study.study_instance_uid = ?", ("1.2.1",))}
    assert [s.study_instance_uid for s in archive.slides(**limited)] == ["1.2.1"]
    assert {c.study_instance_uid for c in archive.changes(0, **limited)} == {"1.2.1"}
    assert archive.find(Query(Level.INSTANCE), **limited).remaining == 0
    with pytest.raises(NotFound):
        archive.instance(
            theirs.study_instance_uid, theirs.series_instance_uid, theirs.sop_instance_uid, **limited
        )
    assert store_bytes(archive, make_instance(study="1.2.1"), **limited).study_instance_uid == "1.2.1"
    for study in ("1.2.2", "1.2.3"):
        with pytest.raises(NotAllowed):
            store_bytes(archive, make_instance(study=study), **limited)
    assert mine.outcome == "stored"


class ReadOnly(OpenPolicy):
    def allows(self, principal: Principal, action: Action) -> bool:
        return action in (Action.SEARCH, Action.READ)


def test_a_refused_action_leaves_an_audit_record(tmp_path: Path) -> None:
    archive = open_archive(tmp_path, policy=ReadOnly())
    with pytest.raises(NotAllowed):
        store_bytes(archive, make_instance())
    with pytest.raises(ArchiveError):
        archive.delete("1.2", reason="r", principal=TESTER, scope=EVERYTHING)
    index = archive._core.index
    with index.read():
        events = [(e.code, e.outcome, e.seq) for e in index.models.AuditEvent.select()]
    assert events == [("110113", "4", 1), ("110113", "4", 2)]
    archive.close()
