# SPDX-License-Identifier: Apache-2.0
"""When a file counts as quiet: once, and not before."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from gateway.ingest.settling import Seen, Settling

SLIDE = Seen("a/slide.svs", inode=7, size_bytes=100, mtime_ns=1)


def test_a_file_is_given_once_it_was_unchanged_for_the_whole_time() -> None:
    settling = Settling(2.0)
    assert settling.look([SLIDE], 0.0) == []
    assert settling.look([SLIDE], 1.9) == []
    assert settling.look([SLIDE], 2.0) == [SLIDE]
    assert settling.look([SLIDE], 9.0) == []


def test_a_file_that_grows_starts_anew() -> None:
    settling = Settling(2.0)
    settling.look([SLIDE], 0.0)
    grown = replace(SLIDE, size_bytes=200)
    assert settling.look([grown], 2.0) == []
    assert settling.look([grown], 3.9) == []
    assert settling.look([grown], 4.0) == [grown]


def test_a_file_that_changes_after_it_was_given_is_given_again() -> None:
    settling = Settling(1.0)
    settling.look([SLIDE], 0.0)
    assert settling.look([SLIDE], 1.0) == [SLIDE]
    changed = replace(SLIDE, mtime_ns=2)
    assert settling.look([changed], 2.0) == []
    assert settling.look([changed], 3.0) == [changed]


def test_a_file_that_was_put_back_is_given_again_later() -> None:
    settling = Settling(1.0)
    settling.look([SLIDE], 0.0)
    assert settling.look([SLIDE], 1.0) == [SLIDE]
    settling.put_back(SLIDE, 1.0)
    assert settling.look([SLIDE], 1.5) == []
    assert settling.look([SLIDE], 2.0) == [SLIDE]


def test_a_file_that_disappears_is_forgotten() -> None:
    settling = Settling(1.0)
    settling.look([SLIDE], 0.0)
    settling.look([], 0.5)
    assert settling.waiting_folders() == set()
    assert settling.look([SLIDE], 1.0) == []


def test_folders_of_waiting_files_are_known() -> None:
    settling = Settling(1.0)
    settling.look([SLIDE, Seen("top.svs", 8, 1, 1)], 0.0)
    assert settling.waiting_folders() == {"a", ""}


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[float, list[Seen]]]:
    """Listings of up to three files that come, change and go, at growing times."""
    now, history = 0.0, []
    state: dict[str, Seen] = {}
    for _ in range(draw(st.integers(1, 25))):
        now += draw(st.sampled_from([0.25, 1.0, 3.0]))
        for path in ("a", "b", "c/d"):
            match draw(st.sampled_from(["keep", "keep", "change", "remove"])):
                case "change":
                    state[path] = Seen(path, draw(st.integers(1, 2)), draw(st.integers(0, 2)), int(now * 4))
                case "remove":
                    state.pop(path, None)
        history.append((now, list(state.values())))
    return history


@given(histories(), st.sampled_from([0.0, 1.0, 2.5]))
def test_what_is_given_was_unchanged_long_enough_and_is_given_once(
    history: list[tuple[float, list[Seen]]], settle_s: float
) -> None:
    settling = Settling(settle_s)
    unchanged_since: dict[Seen, float] = {}
    given_while_present: set[Seen] = set()
    for now, listing in history:
        unchanged_since = {seen: unchanged_since.get(seen, now) for seen in listing}
        given_while_present &= set(listing)
        quiet = settling.look(listing, now)
        due = {
            seen
            for seen in listing
            if now - unchanged_since[seen] >= settle_s and seen not in given_while_present
        }
        assert set(quiet) == due
        assert len(quiet) == len(due)
        given_while_present |= due
