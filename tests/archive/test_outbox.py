# SPDX-License-Identifier: Apache-2.0
"""What we owe is kept, in order, done by one at a time and by nobody twice."""

import itertools
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from archive.errors import BadQuery, LeaseLost, NoSuchDuty
from archive.index import migrations
from archive.index.database import Index
from archive.service import Archive
from archive.values import Duty, DutyState, Promise
from tests.support import postgres
from tests.support.archives import ASK, open_archive
from tests.support.require import ROOT

KINDS = ("forward",)
_numbers = itertools.count()
_urls: dict[int, str] = {}


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    with postgres.server() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def archive(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Archive]:
    url = ""
    if request.param == "postgresql":
        url = postgres.new_database(request.getfixturevalue("cluster"), f"outbox_{next(_numbers)}")
    opened = open_archive(tmp_path, url=url)
    _urls[id(opened)] = url
    yield opened
    opened.close()


class Clock:
    """Time that passes when told to."""

    def __init__(self, archive: Archive) -> None:
        self.now = datetime(2026, 1, 1, tzinfo=UTC)
        archive._core.clock = lambda: self.now

    def advance(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


def promise(archive: Archive, receiver: str = "PACS", number: int = 0, **options: object) -> int:
    return archive.promise(receiver, "forward", {"number": number}, **options, **ASK)  # type: ignore[arg-type]


def claim(archive: Archive, owner: str = "us") -> Duty | None:
    return archive.claim_duty(KINDS, lease_s=60, owner=owner)


def claimed(archive: Archive) -> Duty:
    duty = claim(archive)
    assert duty is not None
    return duty


def test_a_receivers_duties_come_in_order_and_one_at_a_time(archive: Archive) -> None:
    ids = [promise(archive, number=number) for number in range(3)]
    for expected in ids:
        duty = claimed(archive)
        assert duty.id == expected
        assert claim(archive) is None
        archive.finish_duty(duty.id, attempt=duty.attempts)
    assert claim(archive) is None


def test_receivers_do_not_wait_for_each_other_but_within_one_all_wait_for_the_first(
    archive: Archive,
) -> None:
    clock = Clock(archive)
    first, second = promise(archive), promise(archive)
    other = promise(archive, "OTHER")
    duty = claimed(archive)
    assert duty.id == first
    archive.fail_duty(duty.id, "it is down", 30, attempt=duty.attempts)
    duty = claimed(archive)
    assert duty.id == other
    assert claim(archive) is None
    clock.advance(31)
    duty = claimed(archive)
    assert (duty.id, duty.attempts, duty.message) == (first, 2, "it is down")
    archive.finish_duty(duty.id, attempt=2)
    assert claimed(archive).id == second


def test_what_was_refused_for_itself_does_not_hold_up_those_behind_it(archive: Archive) -> None:
    clock = Clock(archive)
    first, second = promise(archive), promise(archive)
    duty = claimed(archive)
    archive.fail_duty(duty.id, "refused", 30, attempt=1, holds=False)
    duty = claimed(archive)
    assert duty.id == second
    clock.advance(31)
    assert claim(archive) is None, "one at a time, also then"
    archive.finish_duty(duty.id, attempt=1)
    assert claimed(archive).id == first


def test_a_delayed_duty_waits_and_holds_nobody_up(archive: Archive) -> None:
    clock = Clock(archive)
    late = promise(archive, delay_s=30)
    soon = promise(archive)
    duty = claimed(archive)
    assert duty.id == soon
    archive.finish_duty(duty.id, attempt=1)
    assert claim(archive) is None
    clock.advance(31)
    assert claimed(archive).id == late


def test_a_duty_whose_owner_died_is_done_by_another_and_the_first_is_told(archive: Archive) -> None:
    clock = Clock(archive)
    promise(archive)
    mine = claimed(archive)
    clock.advance(61)
    theirs = claim(archive, "another")
    assert theirs is not None
    assert (theirs.id, theirs.attempts) == (mine.id, 2)
    for late in (
        lambda: archive.finish_duty(mine.id, attempt=1),
        lambda: archive.fail_duty(mine.id, "no", 1, attempt=1),
        lambda: archive.report_duty(mine.id, lease_s=60, attempt=1),
    ):
        with pytest.raises(LeaseLost):
            late()
    archive.finish_duty(theirs.id, attempt=2)


def test_a_report_renews_the_lease_and_shows_how_far_it_is(archive: Archive) -> None:
    clock = Clock(archive)
    promise(archive)
    duty = claimed(archive)
    clock.advance(50)
    archive.report_duty(duty.id, progress={"sent": 3}, message="3 of 9", lease_s=60, attempt=1)
    clock.advance(50)
    assert claim(archive) is None
    (shown,) = archive.duties(**ASK)
    assert (shown.progress, shown.message, shown.state) == ({"sent": 3}, "3 of 9", DutyState.RUNNING)


def test_the_same_key_is_one_duty_that_takes_up_what_is_new(archive: Archive) -> None:
    def add(*uids: str) -> int:
        return archive.promise("PACS", "forward", {"instances": list(uids)}, key="series", **ASK)

    first = add("1", "2")
    assert add("2", "3") == first
    duty = claimed(archive)
    assert duty.payload == {"instances": ["1", "2", "3"]}
    # What runs may have passed this by already.
    assert add("4") == first
    archive.finish_duty(duty.id, attempt=1)
    duty = claimed(archive)
    assert duty.payload == {"instances": ["1", "2", "3", "4"]}
    archive.finish_duty(duty.id, attempt=2)
    assert claim(archive) is None
    assert add("5") != first


def test_what_a_duty_takes_up_is_as_young_as_it_is(archive: Archive) -> None:
    clock = Clock(archive)

    def created_after(uid: str) -> datetime:
        archive.promise("PACS", "forward", {"instances": [uid]}, key="series", **ASK)
        (duty,) = archive.duties(**ASK)
        return duty.created

    first = created_after("1")
    clock.advance(86400)
    assert created_after("1") == first  # nothing is new
    assert created_after("2") == first + timedelta(seconds=86400)


def test_what_a_duty_took_up_while_it_ran_is_not_given_up_with_the_rest(archive: Archive) -> None:
    def add(uid: str) -> int:
        return archive.promise("PACS", "forward", {"instances": [uid]}, key="series", **ASK)

    first = add("1")
    claimed(archive)
    assert add("2") == first
    archive.fail_duty(first, "the receiver does not take this class", None, attempt=1)
    duty = claimed(archive)
    assert (duty.id, duty.payload) == (first, {"instances": ["1", "2"]})
    archive.fail_duty(first, "the receiver does not take this class", None, attempt=2)
    assert claim(archive) is None


def test_given_up_and_cancelled_duties_stay_to_be_seen_and_can_be_tried_again(archive: Archive) -> None:
    one, two = promise(archive), promise(archive)
    duty = claimed(archive)
    archive.fail_duty(duty.id, "given up", None, attempt=1)
    archive.cancel_duty(two, "not needed", **ASK)
    assert claim(archive) is None
    assert {d.id: d.state for d in archive.duties(**ASK)} == {one: "failed", two: "cancelled"}
    assert archive.duty_counts() == {"waiting": 0, "running": 0, "done": 0, "failed": 1, "cancelled": 1}
    archive.retry_duty(one, **ASK)
    assert claimed(archive).id == one
    with pytest.raises(BadQuery):
        archive.retry_duty(one, **ASK)
    with pytest.raises(NoSuchDuty):
        archive.cancel_duty(99, "why", **ASK)
    with pytest.raises(BadQuery):
        archive.duties(state="lost", **ASK)
    assert [d.id for d in archive.duties(state="running", receiver="PACS", **ASK)] == [one]


def test_a_cancelled_duty_that_runs_tells_its_owner(archive: Archive) -> None:
    promise(archive)
    duty = claimed(archive)
    archive.cancel_duty(duty.id, "stop", **ASK)
    with pytest.raises(LeaseLost):
        archive.report_duty(duty.id, lease_s=60, attempt=1)


def test_done_duties_are_forgotten_after_a_while_and_open_ones_never(archive: Archive) -> None:
    clock = Clock(archive)
    promise(archive)
    promise(archive)
    archive.finish_duty(claimed(archive).id, attempt=1)
    clock.advance(100)
    assert archive.forget_duties(200) == 0
    assert archive.forget_duties(50) == 1
    assert len(archive.duties(**ASK)) == 1


def test_a_follower_promises_exactly_once_whoever_else_follows(archive: Archive) -> None:
    promises = [Promise("PACS", "forward", {}, "a"), Promise("OTHER", "forward", {}, "a")]
    assert archive.followed("routing") is None
    assert archive.promise_following("routing", None, 5, promises, **ASK)
    assert not archive.promise_following("routing", None, 7, promises, **ASK)
    assert archive.followed("routing") == 5
    assert len(archive.duties(**ASK)) == 2
    assert archive.promise_following("routing", 5, 9, [], **ASK)
    assert archive.followed("routing") == 9


def test_what_a_receiver_confirmed_is_known_by_revision(archive: Archive) -> None:
    archive.confirm_delivered("PACS", [("1.2.1", 0), ("1.2.2", 0)])
    archive.confirm_delivered("PACS", [("1.2.2", 3)])
    assert archive.delivered("PACS", ["1.2.1", "1.2.2", "1.2.3"]) == {"1.2.1": 0, "1.2.2": 3}
    assert archive.delivered("OTHER", ["1.2.1"]) == {}


CLAIMER = """
import sys
from pathlib import Path
from tests.support.archives import open_archive
archive = open_archive(Path(sys.argv[1]), url=sys.argv[2])
print("ready", flush=True)
sys.stdin.readline()
while (duty := archive.claim_duty(("forward",), lease_s=60, owner=sys.argv[3])) is not None:
    print(duty.id, duty.receiver, flush=True)
    archive.finish_duty(duty.id, attempt=duty.attempts)
archive.close()
"""


def test_two_processes_share_the_work_and_do_nothing_twice(archive: Archive, tmp_path: Path) -> None:
    ids = [promise(archive, f"PACS{number % 5}", number) for number in range(60)]
    url = _urls[id(archive)]
    claimers = [
        subprocess.Popen(
            [sys.executable, "-c", CLAIMER, str(tmp_path), url, name],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for name in ("one", "two")
    ]  # fmt: skip
    for claimer in claimers:
        assert claimer.stdout is not None
        assert claimer.stdout.readline() == "ready\n"
    outputs: list[list[str]] = []
    for claimer in claimers:
        assert claimer.stdin is not None
        claimer.stdin.write("\n")
        claimer.stdin.flush()
    for claimer in claimers:
        out, _ = claimer.communicate(timeout=60)
        assert claimer.returncode == 0
        outputs.append(out.splitlines())
    done = [int(line.split()[0]) for lines in outputs for line in lines]
    # A claimer may end while the other still has the only lane's turn: the rest is left, not lost.
    while (duty := claim(archive)) is not None:
        done.append(duty.id)
        archive.finish_duty(duty.id, attempt=duty.attempts)
    assert sorted(done) == ids
    for lines in outputs:
        for receiver in {line.split()[1] for line in lines}:
            order = [int(line.split()[0]) for line in lines if line.split()[1] == receiver]
            assert order == sorted(order)


def test_a_killed_owner_loses_nothing_and_a_promise_is_durable_when_it_returns(tmp_path: Path) -> None:
    script = (
        "import sys, os\nfrom pathlib import Path\n"
        "from tests.support.archives import ASK, open_archive\n"
        "archive = open_archive(Path(sys.argv[1]))\n"
        "archive.promise('PACS', 'forward', {'number': 1}, **ASK)\n"
        "archive.claim_duty(('forward',), lease_s=0.0, owner='doomed')\n"
        "os.kill(os.getpid(), 9)\n"
    )
    dead = subprocess.run([sys.executable, "-c", script, str(tmp_path)], cwd=ROOT, check=False, timeout=60)
    assert dead.returncode == -9
    archive = open_archive(tmp_path)
    duty = claimed(archive)
    assert (duty.payload, duty.attempts) == ({"number": 1}, 2)
    archive.close()


def test_a_store_of_schema_3_gets_its_outbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"sqlite:///{tmp_path / 'old.db'}"
    with monkeypatch.context() as before:
        before.setattr(migrations, "LATEST", 3)
        old = Index.open(url, run_dir=tmp_path / "run")
        old.migrate()
        old.close()
    index = Index.open(url, run_dir=tmp_path / "run")
    index.migrate()
    with index.read():
        assert index.models.Duty.select().count() == 0
    index.close()
