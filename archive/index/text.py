# SPDX-License-Identifier: Apache-2.0
"""Forms in which values are compared: folded names, dates and times that sort as text."""

import re
import unicodedata
from datetime import UTC, datetime, timedelta, timezone

# PostgreSQL's B-tree refuses entries above 2,704 bytes; 600 characters of 4 bytes fit.
MAX_TEXT = 600

_COMBINING = re.compile("[\u0300-\u036f]")
_DATE = re.compile(r"(\d{4})\.?(\d\d)\.?(\d\d)")
_TIME = re.compile(r"(\d\d)(?::?(\d\d)(?::?(\d\d)(?:\.(\d{1,6}))?)?)?")
_DATETIME = re.compile(
    r"(\d{4})(?:(\d\d)(?:(\d\d)(?:(\d\d)(?:(\d\d)(?:(\d\d)(?:\.(\d{1,6}))?)?)?)?)?)?([+-]\d{4})?"
)


def clean(text: str) -> str:
    """Text that both databases take: no NUL, no half of a surrogate pair, not longer
    than an index entry may be."""
    return text.replace("\0", "").encode("utf-8", "replace").decode()[:MAX_TEXT]


def fold(text: str) -> str:
    """For comparing without case, width and diacritics: NFKC, casefold, and no
    combining marks of Latin, Greek and Cyrillic (those of kana make other letters).
    Runs of white space become one space."""
    while True:
        folded = unicodedata.normalize("NFKC", text).casefold()
        folded = _COMBINING.sub("", unicodedata.normalize("NFD", folded))
        folded = " ".join(unicodedata.normalize("NFKC", folded).split())
        if folded == text:
            return clean(folded)
        text = folded


def fold_name(text: str) -> tuple[str, str, str]:
    """The component groups of a person name (PS3.5 6.2.1), folded: alphabetic,
    ideographic, phonetic. Trailing empty components are dropped."""
    groups = [
        "^".join(fold(component) for component in group.split("^")).rstrip("^")
        for group in clean(text).split("=")[:3]
    ]
    alphabetic, ideographic, phonetic = (*groups, "", "")[:3] if len(groups) < 3 else groups
    return alphabetic, ideographic, phonetic


def date_key(text: str) -> str:
    """A DA value as YYYYMMDD; empty when it is none."""
    found = _DATE.fullmatch(text.strip())
    if not found or not ("01" <= found[2] <= "12" and "01" <= found[3] <= "31"):
        return ""
    return found[1] + found[2] + found[3]


def time_digits(text: str) -> str:
    """A TM value as its digits to the precision given, HH to HHMMSS.ffffff; empty when
    it is none."""
    found = _TIME.fullmatch(text.strip())
    if not found or found[1] > "23" or (found[2] or "0") > "59" or (found[3] or "0") > "60":
        return ""
    digits = found[1] + (found[2] or "") + (found[3] or "")
    return f"{digits}.{found[4]}" if found[4] else digits


def time_key(text: str) -> str:
    """A TM value as HHMMSS.ffffff, what is missing being 0; empty when it is none."""
    digits = time_digits(text)
    whole, _, fraction = digits.partition(".")
    return f"{whole:0<6}.{fraction:0<6}" if digits else ""


def datetime_digits(text: str) -> tuple[str, str]:
    """A DT value as its digits to the precision given, and its offset from UTC
    (``+0100``) or ""; ("", "") when it is none."""
    found = _DATETIME.fullmatch(text.strip())
    if not found:
        return "", ""
    year, month, day, hour, minute, second, fraction, offset = found.groups()
    if not ("01" <= (month or "01") <= "12" and "01" <= (day or "01") <= "31"):
        return "", ""
    if (hour or "0") > "23" or (minute or "0") > "59" or (second or "0") > "60":
        return "", ""
    if offset and not -1200 <= int(offset) <= 1400:
        return "", ""
    digits = "".join(part or "" for part in (year, month, day, hour, minute, second))
    return (f"{digits}.{fraction}" if fraction else digits), offset or ""


def datetime_key(digits: str) -> str:
    """Digits of a DT as YYYYMMDDHHMMSS.ffffff, what is missing being the first."""
    whole, _, fraction = digits.partition(".")
    return f"{whole}{'00000101000000'[len(whole) :]}.{fraction:0<6}"


def epoch_range(digits: str, offset: str) -> tuple[float, float] | None:
    """First and last second since the epoch that a DT value of this precision covers.
    Without an offset it is taken as UTC. None for a day that the calendar lacks."""
    key = datetime_key(digits)
    second = min(int(key[12:14]), 59)  # a leap second
    try:
        first = datetime(
            int(key[:4]), int(key[4:6]), int(key[6:8]), int(key[8:10]), int(key[10:12]), second,
            int(key[15:]), tzinfo=_zone(offset),
        )  # fmt: skip
        last = _next(first, digits) - timedelta(microseconds=1)
        return first.timestamp(), last.timestamp()
    except (ValueError, OverflowError):
        return None


def _next(first: datetime, digits: str) -> datetime:
    """The instant after the span that the digits name."""
    if "." in digits:
        return first + timedelta(microseconds=10 ** (6 - len(digits.partition(".")[2])))
    if len(digits) == 4:
        return first.replace(year=first.year + 1)
    if len(digits) == 6:
        return (first + timedelta(days=31)).replace(day=1)
    return (
        first
        + {
            8: timedelta(days=1),
            10: timedelta(hours=1),
            12: timedelta(minutes=1),
            14: timedelta(seconds=1),
        }[len(digits)]
    )


def _zone(offset: str) -> timezone:
    if not offset:
        return UTC
    minutes = int(offset[1:3]) * 60 + int(offset[3:5])
    return timezone(timedelta(minutes=-minutes if offset[0] == "-" else minutes))
