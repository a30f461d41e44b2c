# SPDX-License-Identifier: Apache-2.0
"""``coverslip original``."""

from pathlib import Path

import click

from gateway.cli.options import Given, common
from gateway.cli.progress import byte_progress


@click.command("original")
@common
@click.argument("series", metavar="SERIES")
@click.option(
    "-o",
    "--output",
    "target",
    required=True,
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Where to write; a file that is there is not overwritten.",
)
def command(given: Given, series: str, target: Path) -> None:
    """Write the scanner's own file of a series, bit for bit, and print the name it came by.

    It may hold a label, a macro picture and names that corrections have changed in DICOM.

    Example: coverslip original 2.25.1234 -o slide.svs --data ./data
    """
    from gateway import compose
    from gateway.cli.export_cmd import write_stream
    from gateway.errors import TargetNotEmpty

    if target.exists():
        raise TargetNotEmpty(f"{target} exists already")
    with (
        compose.archive(given.settings(), codecs=False) as archive,
        byte_progress("original") as progress,
    ):
        name, stream = archive.original(series, **compose.operator(archive))
        write_stream(target, stream.chunks, progress)
    click.echo(f"{target}\t{name}")
