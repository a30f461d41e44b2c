# SPDX-License-Identifier: Apache-2.0
"""The conformance statement says what the program does, and no more."""

import re
from pathlib import Path

from converters.codecs.transfer_syntax import (
    EXPLICIT_LE,
    FAMILY,
    IMPLICIT_LE,
    LOSSY_ENCODERS,
    can_transcode,
    photometric_after,
)
from tests.support.require import ROOT

SECTIONS = {
    "Retrieve": ("wado", "bulk", "rendered"),
    "Search": ("qido",),
    "Store": ("stow",),
    "Tile doors": ("iiif", "deepzoom", "qupath"),
    "Delete": ("deletion",),
    "Storage commitment": ("commitments",),
    "Non-patient instances": ("non_patient",),
    "WADO-URI": ("wado_uri",),
}


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


def test_the_statement_lists_every_transfer_syntax_that_frames_are_given_in_and_its_colours():
    statement = Path(ROOT, "docs/conformance.md").read_text(encoding="utf-8")
    table = statement.partition("Frames in another transfer syntax")[2].partition("\n\n- ")[0]
    rows = re.findall(r"^\| (1\.2[0-9.]+) \| (.*) \| (\w+) \|$", table, flags=re.MULTILINE)
    given = {uid for uid in FAMILY if any(can_transcode(source, uid) for source in FAMILY if source != uid)}
    assert {uid for uid, _, _ in rows} == given - {IMPLICIT_LE}
    for uid, bits, colours in rows:
        assert colours == photometric_after("RGB", uid), uid
        assert (uid in LOSSY_ENCODERS) == bool(re.search("lossy|differences", bits)), uid
        assert can_transcode(EXPLICIT_LE, uid, 16) == ("16" in bits), uid
        if uid not in LOSSY_ENCODERS and "16" in bits:
            assert can_transcode(EXPLICIT_LE, uid, 16, pixel_representation=1) == ("unsigned" not in bits), (
                uid
            )
