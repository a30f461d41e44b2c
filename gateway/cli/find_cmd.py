# SPDX-License-Identifier: Apache-2.0
"""``coverslip find``."""

from typing import TYPE_CHECKING

import click

from gateway.cli.options import Given, as_json, common, print_json

if TYPE_CHECKING:
    from archive.index.query import Match

SHOWN = {
    "study": ("StudyDate", "PatientID", "AccessionNumber", "ModalitiesInStudy", "StudyInstanceUID"),
    "series": ("Modality", "SeriesDescription", "StudyInstanceUID", "SeriesInstanceUID"),
    "instance": ("SOPClassUID", "InstanceNumber", "SeriesInstanceUID", "SOPInstanceUID"),
}


def _match(text: str) -> "Match":
    from pydicom.datadict import dictionary_VR, tag_for_keyword

    from archive.index.query import parse_match

    keyword, equals, value = text.partition("=")
    tag = tag_for_keyword(keyword)
    if not equals or not keyword or tag is None:
        raise click.BadParameter(
            f"{text!r} is not KEYWORD=VALUE, such as PatientID=123*", param_hint="KEY=VALUE"
        )
    return parse_match(f"{tag:08X}", dictionary_VR(tag), value)


@click.command("find")
@common
@as_json
@click.option(
    "--level", type=click.Choice(list(SHOWN)), default="study", show_default=True, help="What to find."
)
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, help="Most rows to print.")
@click.argument("keys", metavar="[KEY=VALUE]...", nargs=-1)
def command(given: Given, as_json: bool, level: str, limit: int, keys: tuple[str, ...]) -> None:
    """Search by DICOM keywords, with * and ?, ranges of dates, several values by \\.

    Prints tab-separated columns, or DICOM JSON (PS3.18 Annex F).

    Example: coverslip find --data ./data PatientID='A-*' StudyDate=20260101-
    """
    from pydicom.datadict import tag_for_keyword

    from archive.index.query import Level, Query
    from gateway import compose

    matches = tuple(_match(key) for key in keys)
    with compose.archive(given.settings(), codecs=False) as archive:
        query = Query(Level[level.upper()], matches, limit=limit)
        page = archive.find(query, **compose.operator(archive))
    if as_json:
        print_json(page.rows)
        return
    for row in page.rows:
        tags = [f"{tag_for_keyword(keyword) or 0:08X}" for keyword in SHOWN[level]]
        click.echo("\t".join(_text(row.get(tag)) for tag in tags))


def _text(attribute: object) -> str:
    """A DICOM JSON attribute's values as text."""
    values = attribute.get("Value", []) if isinstance(attribute, dict) else []
    return "\\".join(str(value) for value in values)
