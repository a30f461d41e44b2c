# SPDX-License-Identifier: Apache-2.0
"""``coverslip correct``."""

import json

import click

from gateway.cli.options import Given, located

_WHOLE = ("US", "SS", "UL", "SL", "UV", "SV")
_REAL = ("FL", "FD")


def _value(text: str, vr: str) -> object:
    """A value as ``Archive.correct`` takes it; ValueError."""
    if not text:
        return None
    if vr == "SQ":
        return json.loads(text)
    if vr in ("LT", "ST", "UT"):
        return text  # one value, backslashes and all
    kind = int if vr in _WHOLE else float if vr in _REAL else str
    values = [kind(part) for part in text.split("\\")]
    return values[0] if len(values) == 1 else values


def _patch(texts: tuple[str, ...]) -> dict[str, object]:
    from pydicom.datadict import dictionary_VR, tag_for_keyword

    patch: dict[str, object] = {}
    for text in texts:
        keyword, equals, value = text.partition("=")
        tag = tag_for_keyword(keyword)
        if not equals or tag is None:
            raise click.BadParameter(
                f"{keyword!r} is not the keyword of an attribute: write it as PatientID=123",
                param_hint="--set",
            )
        if keyword in patch:
            raise click.BadParameter(f"{keyword} is there twice", param_hint="--set")
        vr = dictionary_VR(tag)
        try:
            patch[keyword] = _value(value, vr)
        except ValueError:
            raise click.BadParameter(f"{keyword}: not a value of VR {vr}", param_hint="--set") from None
    return patch


@click.command("correct")
@located
@click.argument("study", metavar="STUDY")
@click.option(
    "--set",
    "changes",
    metavar="KEYWORD=VALUE",
    multiple=True,
    required=True,
    help="An attribute's new value; empty clears it; may be repeated.",
)
@click.option("--reason", required=True, metavar="TEXT", help="Why; kept in the audit trail.")
def command(given: Given, study: str, changes: tuple[str, ...], reason: str) -> None:
    """Correct who, which order or which specimen a study is of, in all of its instances.

    Pixels and what was received stay as they are; former values are kept in the headers
    (Original Attributes Sequence). Several values are separated by \\; the value of a
    sequence is a list of data sets in DICOM JSON (PS3.18 Annex F).

    Example: coverslip correct 2.25.1234 --set PatientID=A-17 --set PatientName=Doe^Jane
    --reason "wrong label" --data ./data
    """
    from gateway import compose

    if not reason.strip():
        raise click.BadParameter("say why", param_hint="--reason")
    patch = _patch(changes)
    with compose.archive(given.settings(), codecs=False) as archive:
        count = archive.correct(study, patch, reason=reason, **compose.operator(archive))
    click.echo(f"{count} instances corrected")
