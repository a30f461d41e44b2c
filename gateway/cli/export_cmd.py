# SPDX-License-Identifier: Apache-2.0
"""``coverslip export``."""

import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gateway.cli.options import Given, common
from gateway.cli.paths import each, once_per_series
from gateway.cli.progress import ByteProgress, byte_progress

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.settings import Settings


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
@click.option(
    "--normalise",
    is_flag=True,
    help="Whole slide images made anew in normal form: new instances with new UIDs.",
)
@click.option("--deidentify", is_flag=True, help="Not built yet: refused.")
def command(
    given: Given, studies: tuple[str, ...], folder: Path, base: bool, normalise: bool, deidentify: bool
) -> None:
    """Write studies as Part 10 files: DIR/STUDY/SERIES/INSTANCE.dcm.

    Stored bytes are compared with their digests before they leave; damaged ones are
    refused. The bytes are those of DICOMweb's `GET instance` and of C-MOVE. A file appears when
    it is complete; one that was there is replaced.

    --normalise writes DIR/STUDY/SERIES/level-0.dcm … instead, as `coverslip convert` makes
    them of received DICOM: other instances in a series of their own, with new UIDs, that
    name those they were made from. Patient, study and specimen stay, frames are copied where
    their codestream is legal. Series of other objects are left out, and said so.

    Example: coverslip export 2.25.1234 -o ./out --data ./data
    """
    if deidentify:
        raise click.UsageError("--deidentify is not part of this release", click.get_current_context())
    from gateway import compose

    settings = given.settings()
    with compose.archive(settings) as archive, byte_progress("export") as progress:
        caller = compose.operator(archive)

        def written(study: str, root: Path) -> "Iterator[Path]":
            for instance in archive.instances(study, **caller):
                # What leaves must be what was stored: all bytes against their digests first.
                archive.check(instance, **caller)
                names = (study, instance.series_instance_uid, instance.sop_instance_uid + ".dcm")
                stream = archive.open(instance, base=base, **caller)
                write_stream(root.joinpath(*names), stream.chunks, progress)
                yield root.joinpath(*names)

        def work(study: str) -> None:
            if not normalise:
                for path in written(study, folder):
                    click.echo(str(path))
                return
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".normalise-", dir=folder) as scratch:
                files = list(written(study, Path(scratch) / "received"))
                for path in _normalised(files, Path(scratch) / "made", folder / study, settings, progress):
                    click.echo(str(path))

        each(studies, work)


def _normalised(
    received: list[Path], scratch: Path, folder: Path, settings: "Settings", progress: ByteProgress
) -> "Iterator[Path]":
    """Make the slides among exported files anew: ``folder``/SERIES/*.dcm."""
    import pydicom

    from converters.convert import ConvertOptions, convert
    from converters.errors import TargetExists
    from converters.readers.dicom_series import read_head
    from converters.workshop import Limits
    from converters.writer.coding import CodingChoice
    from gateway import compose

    chosen = settings.convert
    options = ConvertOptions(
        verify=True,
        secret=compose.site_secret(settings),
        coding=CodingChoice(chosen.lossless, chosen.lossy_quality or None),
        limits=Limits(chosen.processes, chosen.memory_bytes, chosen.timeout_s),
    )
    for path in once_per_series(received):
        head = read_head(path)
        if head is None or not head.is_slide:
            print(f"coverslip: {path.stem}: no whole slide image, left out", file=sys.stderr)
            continue
        (made,) = convert([path], scratch, options, progress.of_total)
        series = str(pydicom.dcmread(made.files[0], specific_tags=["SeriesInstanceUID"]).SeriesInstanceUID)
        if (folder / series).exists():
            raise TargetExists(series)
        folder.mkdir(parents=True, exist_ok=True)
        os.rename(made.folder, folder / series)
        yield from (folder / series / file.name for file in made.files)


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
