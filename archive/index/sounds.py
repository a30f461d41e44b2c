# SPDX-License-Identifier: Apache-2.0
"""How names sound: keys of fuzzy matching (PS3.4 C.2.2.2.1.1 leaves the method to us).

A word of Latin letters becomes groups of letters that are taken for each other when
heard or typed, as Soundex does: ``b p f v w``, ``c g k q x s z j``, ``d t``, ``l``, ``m n``, ``r``;
``h`` and vowels behind the first letter are not heard, a repeated group is heard once.
The first letter counts by its group too (``Karl``, ``Carl``), and the code is not cut.
Words in other scripts sound as they are written, folded.
"""

import re

from archive.index.text import fold

MAX_SOUND = 32

_SPLIT = re.compile(r"[\s^=,.\-'’_]+")
_LATIN = re.compile(r"[a-z]+")
# Spellings of one sound, before letters are looked at one by one.
_SPELLINGS = (
    ("ph", "f"), ("sch", "s"), ("sh", "s"), ("ch", "k"), ("ck", "k"), ("tz", "z"), ("ts", "z"),
    ("dt", "t"), ("th", "t"),
)  # fmt: skip
_SPECIAL = str.maketrans({"ø": "o", "æ": "a", "œ": "o", "ł": "l", "đ": "d", "ð": "d", "þ": "t", "ı": "i"})
_GROUPS = {
    letter: code
    for code, letters in {
        "1": "bpfvw", "2": "cgkqxszj", "3": "dt", "4": "l", "5": "mn", "6": "r", "0": "aeiouy",
    }.items()
    for letter in letters
}  # fmt: skip


def sound(word: str) -> str:
    """The key of one word; ``""`` for a word without letters or digits."""
    word = fold(word).translate(_SPECIAL)
    if not _LATIN.fullmatch(word):
        return word[:MAX_SOUND]
    for spelling, letter in _SPELLINGS:
        word = word.replace(spelling, letter)
    codes: list[str] = []
    last = ""
    for position, letter in enumerate(word):
        code = _GROUPS.get(letter, "")  # "h" is no sound, and separates none
        if code == "0":
            if not position:
                codes.append(code)
        elif code and code != last:
            codes.append(code)
        last = code or last
    # A word of "h" alone still has to be something.
    return ("".join(codes) or word)[:MAX_SOUND]


def words(name: str) -> list[str]:
    """The words of a person name, of all its component groups, wildcards left in."""
    return [word for word in _SPLIT.split(name) if word]


def name_sounds(name: str) -> list[str]:
    """The distinct keys of a name's words."""
    return list(dict.fromkeys(key for word in words(name) if (key := sound(word))))
