# SPDX-License-Identifier: Apache-2.0
"""The conformance statement says what the program does, and no more."""

import re
from pathlib import Path

from pydicom.datadict import keyword_for_tag, tag_for_keyword

from archive.errors import Reason, StoreWarning
from archive.index.attributes import EXTRACTED
from archive.index.columns import COLUMNS
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


def test_the_statement_lists_every_failure_and_warning_reason_of_a_store_request():
    statement = Path(ROOT, "docs/conformance.md").read_text(encoding="utf-8")
    table = statement.partition("| code | Failure Reason")[2].partition("\n\n")[0]
    stored = {reason for reason in Reason if reason is not Reason.NO_SUCH_SOP_INSTANCE}
    listed = re.findall(r"^\| ([0-9A-F]{4}) \| (warning: )?", table, flags=re.MULTILINE)
    assert {int(code, 16) for code, warning in listed if not warning} == stored
    assert {int(code, 16) for code, warning in listed if warning} == set(StoreWarning)


def test_the_statement_lists_every_key_of_searches():
    statement = Path(ROOT, "docs/conformance.md").read_text(encoding="utf-8")
    section = statement.partition("## Search")[2].partition("\n## ")[0]
    rows = re.findall(
        r"^\| (.*) \| (?:studies|series|instances|tried row by row) \|$", section, flags=re.MULTILINE
    )
    named = {word for word in re.findall(r"\w+", " ".join(rows)) if tag_for_keyword(word)}
    matched = (path for path, column in COLUMNS.items() if column.matchable)
    keys = [path.split(".") for path in (*matched, *EXTRACTED)]
    assert named == {keyword_for_tag(tag) for path in keys for tag in path}
