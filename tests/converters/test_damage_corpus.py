# SPDX-License-Identifier: Apache-2.0
"""The damage corpus: a slide, edits of its bytes, and the refusal that they must lead to.

Each file of ``tests/corpus/damage`` names a base (what writes the slide) and cases. An edit
changes the main file, or ``file``: ``truncate`` keeps a share (up to 1) or that many bytes;
``at`` writes ``bytes`` there, ``find`` replaces the ``nth`` occurrence by ``replace`` (all
hexadecimal, lengths may differ); ``remove`` takes a file away. A case ends in ``error``, a
regular expression over the one line of the refusal (of a file that no reader knows, over the
readers' reasons as well), or in ``outcome = "converts"``; with
``finding``, a regular expression over a line of what is said of it then.
"""

import re
import shutil
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from converters.convert import ConvertOptions, convert
from converters.errors import ConversionError
from converters.workshop import Limits, Workshop
from tests.support.slides import BASES

CORPUS = Path(__file__).parents[1] / "corpus" / "damage"
FILES = {path.stem: tomllib.loads(path.read_text(encoding="utf-8")) for path in sorted(CORPUS.glob("*.toml"))}
CASES = [
    pytest.param(content["base"], case, id=f"{stem}: {case['name']}")
    for stem, content in FILES.items()
    for case in content["case"]
]


@pytest.fixture(scope="module")
def workshop() -> Iterator[Workshop]:
    with Workshop(Limits(processes=1, timeout_s=30)) as made:
        yield made


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Main file of each base, written when first asked for."""

    class Bases(dict[str, Path]):
        def __missing__(self, name: str) -> Path:
            folder = tmp_path_factory.mktemp(name)
            self[name] = BASES[name](folder)
            return self[name]

    return Bases()


def apply(edit: dict[str, Any], main: Path) -> None:
    """Change one file of the slide."""
    if "remove" in edit:
        (main.parent / edit["remove"]).unlink()
        return
    path = main.parent / edit["file"] if "file" in edit else main
    data = bytearray(path.read_bytes())
    if "truncate" in edit:
        size = edit["truncate"]
        del data[int(size * len(data)) if size <= 1 else int(size) :]
    elif "at" in edit:
        new = bytes.fromhex(edit["bytes"])
        assert -len(data) <= edit["at"] <= len(data) - len(new), "the edit lies outside of the file"
        start = edit["at"] % len(data)
        data[start : start + len(new)] = new
    else:
        old, new = bytes.fromhex(edit["find"]), bytes.fromhex(edit["replace"])
        position = -1
        for _ in range(edit.get("nth", 0) + 1):
            position = data.find(old, position + 1)
            assert position >= 0, "the edit finds nothing to replace"
        data[position : position + len(old)] = new
    path.write_bytes(data)


def test_the_corpus_is_large_enough() -> None:
    assert len(CASES) >= 150
    assert len({base for content in FILES.values() for base in [content["base"]]}) >= 15


@pytest.mark.parametrize(("base", "case"), CASES)
def test_damage_is_refused_in_one_clear_line(
    base: str, case: dict[str, Any], whole: dict[str, Path], workshop: Workshop, tmp_path: Path
) -> None:
    folder = tmp_path / "slide"
    shutil.copytree(whole[base].parent, folder)
    main = folder / whole[base].name
    for edit in case["edits"]:
        apply(edit, main)
    refusal, reasons, findings = "", list[str](), ()
    try:
        (made,) = convert([main], tmp_path / "out", ConvertOptions(verify=True), workshop=workshop)
        findings = made.findings
    except ConversionError as error:
        refusal = str(error)
        reasons = [f"{name}: {why}" for name, why in getattr(error, "refusals", {}).items()]
    if case.get("outcome") == "converts":
        assert refusal == ""
        assert any(re.search(case.get("finding", ""), line) for line in (*findings, ""))
        return
    assert refusal, "the damaged slide was converted"
    assert any(re.search(case["error"], line) for line in (refusal, *reasons)), refusal
    assert "\n" not in refusal
    assert str(tmp_path) not in refusal
    assert not (tmp_path / "out").exists()
