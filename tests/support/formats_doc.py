# SPDX-License-Identifier: Apache-2.0
"""The tables in ``docs/formats.md``: what each row was proven on, out of samples.toml.

They stand between ``<!-- proof: ROW -->`` and ``<!-- end -->``; the one of all rows is
called "all". Run ``python -m tests.support.formats_doc --write`` after a change; a test
compares.
"""

import re
import sys
from collections.abc import Sequence

from tests.support.require import ROOT
from tests.support.samples import ORIGINS, ROWS, Expected, expectations

DOC = ROOT / "docs" / "formats.md"
BLOCK = re.compile(r"(<!-- proof: ([^\n]+?) -->\n).*?(<!-- end -->)", re.DOTALL)
COUNTED = (("scenes", "scenes"), ("paths", "channels"), ("planes", "planes"))
KINDS = (("copied", "copied"), ("encoded", "encoded again"), ("computed", "computed"))


def result(one: Expected) -> str:
    """What becomes of a slide, in words."""
    if one.refused:
        return f"refused: {one.refused}"
    levels = ", ".join(f"{one.levels[key]} {word}" for key, word in KINDS if key in one.levels)
    words = [f"levels: {levels}"]
    words += [f"{getattr(one, key)} {word}" for key, word in COUNTED if getattr(one, key) > 1]
    if one.images:
        words.append(", ".join(one.images))
    told = " and ".join(key.rpartition("_")[0].replace("_", " ") for key in one.given)
    return (f"asks for {told}; then " if told else "") + "; ".join(words)


def proof(entries: Sequence[Expected]) -> str:
    """The table of a row: its files, then the slides drawn for tests."""
    lines = ["| slide | origin | holds | becomes |", "|---|---|---|---|"]
    ordered = sorted(entries, key=lambda one: (ORIGINS.index(one.origin), bool(one.base)))
    lines += [f"| {_name(one)} | {one.origin} | {one.holds} | {result(one)} |" for one in ordered]
    return "\n".join(lines) + "\n"


def _name(one: Expected) -> str:
    return f"`{one.path.rpartition('/')[2]}`" if one.path else one.base.replace("_", " ")


def summary(entries: Sequence[Expected]) -> str:
    """How many slides of each origin convert and how many are refused, by row."""
    lines = [f"| row | {' | '.join(ORIGINS)} |", "|---" * (len(ORIGINS) + 1) + "|"]
    for row in ROWS:
        cells = []
        for origin in ORIGINS:
            found = [one for one in entries if (one.row, one.origin) == (row, origin)]
            refused = sum(bool(one.refused) for one in found)
            words = [f"{len(found) - refused} converted"] if len(found) > refused else []
            words += [f"{refused} refused"] if refused else []
            cells.append(", ".join(words) or "none")
        lines.append(f"| {row} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def written(text: str) -> str:
    """The document with its tables as they should be. Raises KeyError for an unknown row."""
    entries = expectations()
    tables = {row: proof([one for one in entries if one.row == row]) for row in ROWS}
    tables["all"] = summary(entries)
    return BLOCK.sub(lambda found: found[1] + tables[found[2]] + found[3], text)


def rows_in(text: str) -> list[str]:
    """The rows that have a table, in their order."""
    return [found[2] for found in BLOCK.finditer(text)]


if __name__ == "__main__":
    current = DOC.read_text(encoding="utf-8")
    if "--write" in sys.argv:
        DOC.write_text(written(current), encoding="utf-8")
    elif written(current) != current:
        sys.exit("docs/formats.md is out of date: run with --write")
