# SPDX-License-Identifier: Apache-2.0
"""How names sound."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archive.index.sounds import MAX_SOUND, name_sounds, sound


@pytest.mark.parametrize(
    "alike",
    [
        ["Müller", "Mueller", "Muller", "Miller", "MÜLLER"],
        ["Meyer", "Meier", "Maier", "Mayr"],
        ["Schmidt", "Schmitt", "Schmid", "Smith"],
        ["Karl", "Carl"],
        ["Philipp", "Filip"],
        ["Johansson", "Johanson"],
        ["Sørensen", "Sorensen", "Soerensen"],
        ["Łukasz", "Lukas"],
    ],
)
def test_spellings_of_a_name_sound_alike(alike: list[str]) -> None:
    assert len({sound(name) for name in alike}) == 1


@pytest.mark.parametrize(("one", "other"), [("Müller", "Meier"), ("Anna", "Hanna"), ("Novak", "Kowalski")])
def test_other_names_do_not(one: str, other: str) -> None:
    assert sound(one) != sound(other)


def test_all_words_of_all_groups_count_once() -> None:
    assert name_sounds("Yamada^Tarou=山田^太郎=やまだ^たろう") == [
        sound("yamada"),
        sound("tarou"),
        "山田",
        "太郎",
        "やまだ",
        "たろう",
    ]
    assert name_sounds("Meyer-Maier^Anna Luise") == [sound("meyer"), sound("anna"), sound("luise")]
    assert name_sounds("") == name_sounds("^^=") == []


@given(st.text(max_size=80))
def test_any_text_has_a_sound_that_an_index_takes(text: str) -> None:
    for key in name_sounds(text):
        assert 0 < len(key) <= MAX_SOUND
