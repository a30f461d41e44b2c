# SPDX-License-Identifier: Apache-2.0
"""The conformance statement says what the program does, and no more."""

import re
from pathlib import Path

from tests.support.require import ROOT

SECTIONS = {"Retrieve": ("wado", "rendered"), "Search": ("qido",), "Store": ("stow",)}


def stated(statement: str, section: str) -> set[str]:
    text = statement.partition(f"## {section}")[2].partition("\n## ")[0]
    return set(re.findall(r"^\| `([^`]+)` \|", text, flags=re.MULTILINE))


def test_the_statement_lists_every_resource_of_the_program_and_no_other(app):
    statement = Path(ROOT, "docs/conformance.md").read_text(encoding="utf-8")
    for section, blueprints in SECTIONS.items():
        routes = {
            re.sub(r"<(?:[^:<>]+:)?([^<>]+)>", r"{\1}", rule.rule).removeprefix("/dicom-web")
            for rule in app.url_map.iter_rules()
            if rule.endpoint.partition(".")[0] in blueprints
        }
        assert stated(statement, section) == routes, section
