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
    metavar="PATH",
    type=click.Path(path_type=Path),
    help="Where to write: a file, or a folder where the slide has several. Nothing is overwritten.",
)
def command(given: Given, series: str, target: Path) -> None:
    """Write the scanner's own file of a series, bit for bit, and print the name it came by.

    The files of a slide of several (MRXS, VMS, VSI) go into a new folder, as they were laid out.

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
        files = archive.original(series, **compose.operator(archive))
        for name, stream in files:
            path = target if len(files) == 1 else target / name
            path.parent.mkdir(parents=True, exist_ok=True)
            write_stream(path, stream.chunks, progress)
            click.echo(f"{path}\t{name}")
