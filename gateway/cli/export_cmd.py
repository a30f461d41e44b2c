# SPDX-License-Identifier: Apache-2.0
"""``coverslip export``."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gateway.cli.options import Given, common
from gateway.cli.paths import each
from gateway.cli.progress import ByteProgress, byte_progress

if TYPE_CHECKING:
    from collections.abc import Iterator


@click.command("export")
@common
@click.argument("studies", metavar="STUDY...", nargs=-1, required=True)
@click.option(
    "-o",
    "--output",
    "folder",
    required=True,
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where to write.",
)
@click.option("--original", "base", is_flag=True, help="The streams as received, before corrections.")
@click.option("--deidentify", is_flag=True, help="Not built yet: refused.")
def command(given: Given, studies: tuple[str, ...], folder: Path, base: bool, deidentify: bool) -> None:
    """Write studies as Part 10 files: DIR/STUDY/SERIES/INSTANCE.dcm.

    Stored bytes are compared with their digests before they leave; damaged ones are
    refused. The bytes are those of DICOMweb's `GET instance` and of C-MOVE. A file appears when
    it is complete; one that was there is replaced.

    Example: coverslip export 2.25.1234 -o ./out --data ./data
    """
    if deidentify:
        raise click.UsageError("--deidentify is not part of this release", click.get_current_context())
    from gateway import compose

    settings = given.settings()
    with compose.archive(settings) as archive, byte_progress("export") as progress:
        caller = compose.operator(archive)

        def work(study: str) -> None:
            for instance in archive.instances(study, **caller):
                # What leaves must be what was stored: all bytes against their digests first.
                archive.check(instance, **caller)
                names = (study, instance.series_instance_uid, instance.sop_instance_uid + ".dcm")
                stream = archive.open(instance, base=base, **caller)
                write_stream(folder.joinpath(*names), stream.chunks, progress)
                click.echo(str(folder.joinpath(*names)))

        each(studies, work)


def write_stream(path: Path, chunks: "Iterator[bytes]", progress: ByteProgress) -> None:
    """Write a file that appears when it is complete; ``progress`` gets the bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")
    try:
        with temporary.open("wb") as file:
            for chunk in chunks:
                file.write(chunk)
                progress.done(path.name, len(chunk))
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
