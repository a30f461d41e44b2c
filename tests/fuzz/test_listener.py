# SPDX-License-Identifier: Apache-2.0
"""Half a minute of random conversations, and all that ever broke the listener."""

from pathlib import Path

import pytest

from tests.fuzz.conversations import conversations, from_bytes, to_bytes
from tests.fuzz.listener import CORPUS, fuzz, honest, listening, say, trouble

SECONDS = 25.0


# pydicom warns of what it decodes, and an error of it would look like an absent value.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


@pytest.mark.parametrize("seed", [1, 2])
def test_a_damaged_conversation_harms_nobody(seed: int) -> None:
    assert fuzz(SECONDS, seed) == []


def test_the_conversations_themselves_are_understood(tmp_path: Path) -> None:
    with listening(tmp_path / "data") as listener:
        for name, pdus in conversations().items():
            assert say(listener.port, pdus), name
        assert "aborted" not in listener.said()
        assert honest(listener.port)


def test_what_once_broke_the_listener_does_not_any_more(tmp_path: Path) -> None:
    with listening(tmp_path / "data") as listener:
        for path in sorted(CORPUS.glob("*.pdus")):
            assert trouble(listener, from_bytes(path.read_bytes())) == "", path.name
        assert honest(listener.port)


def test_a_conversation_is_kept_as_it_was() -> None:
    for pdus in conversations().values():
        assert from_bytes(to_bytes(pdus)) == pdus
