# SPDX-License-Identifier: Apache-2.0
"""``coverslip convert``."""

from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

import click

from gateway.cli.options import Given, as_json, common, print_json
from gateway.cli.paths import each, files_of, once_per_series
from gateway.cli.progress import byte_progress

if TYPE_CHECKING:
    from converters.convert import Converted


def _levels(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    try:
        return tuple(sorted({int(part) for part in text.split(",")}))
    except ValueError:
        raise click.BadParameter(f"{text!r} is not a list such as 0,2", param_hint="--levels") from None


@click.command("convert")
@common
@as_json
@click.argument("sources", metavar="SRC...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    "folder",
    required=True,
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where to write; a folder for each slide.",
)
@click.option(
    "--metadata",
    metavar="FILE.json",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Patient, study and specimen, where the file does not know them.",
)
@click.option("--levels", metavar="0,2", help="Only these pyramid levels; 0 is the finest.")
@click.option("--verify", is_flag=True, help="Read the files again and compare them with the scanner's.")
@click.option(
    "--lossless",
    type=click.Choice(("jpeg2000", "htj2k", "jpeg-ls", "none")),
    help="Form of frames that cannot be copied.  [default: the setting convert.lossless]",
)
@click.option(
    "--lossy",
    "lossy_quality",
    type=click.IntRange(1, 100),
    metavar="QUALITY",
    help="Encode such frames with loss instead, at this quality (1 to 100).",
)
@click.option(
    "--concatenate",
    "part_frames",
    type=click.IntRange(1),
    metavar="FRAMES",
    help="Divide levels of more frames into several files, a concatenation.",
)
@click.option(
    "--concatenate-bytes",
    "part_bytes",
    type=click.IntRange(1),
    metavar="BYTES",
    help="Divide levels whose frames have more bytes likewise.",
)
@click.option(
    "--series-per-region",
    is_flag=True,
    help="A series for each region of the slide; OpenSlide takes a series for one slide.",
)
@click.option(
    "--dual-tiff",
    is_flag=True,
    help="Make level files readable as TIFF too; they are not the bytes that the archive serves.",
)
@click.option(
    "--jobs",
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    help="How many SRC to convert at once.",
)
def command(
    given: Given,
    as_json: bool,
    sources: tuple[Path, ...],
    folder: Path,
    metadata: Path | None,
    levels: str | None,
    verify: bool,
    lossless: str | None,
    lossy_quality: int | None,
    part_frames: int | None,
    part_bytes: int | None,
    series_per_region: bool,
    dual_tiff: bool,
    jobs: int,
) -> None:
    """Turn scanner files into DICOM Part 10 files; no server needed.

    UIDs follow from the file and a secret: that of the site when --data names its data
    folder (then the files equal what that archive serves), else a public one.

    Example: coverslip convert slide.svs -o ./out --verify
    """
    from converters.convert import ConvertOptions, convert, metadata_file
    from converters.workshop import Limits, Workshop
    from converters.writer.coding import CodingChoice
    from converters.writer.concatenation import PartLimit
    from converters.writer.uids import PUBLIC_SECRET

    settings = given.settings()
    secret = PUBLIC_SECRET
    if given.data is not None:
        from gateway import compose

        if not (settings.data / "secret").exists():
            raise click.UsageError(f"{settings.data} is no data folder: it has no secret")
        secret = compose.site_secret(settings)
    options = ConvertOptions(
        levels=_levels(levels),
        metadata=metadata_file(metadata) if metadata is not None else None,
        verify=verify,
        secret=secret,
        coding=CodingChoice(
            lossless or settings.convert.lossless,
            lossy_quality or settings.convert.lossy_quality or None,
        ),
        part_limit=PartLimit(part_frames or 0, part_bytes or 0) if part_frames or part_bytes else None,
        series_per_region=series_per_region,
        dual_tiff=dual_tiff,
        limits=Limits(settings.convert.processes, settings.convert.memory_bytes, settings.convert.timeout_s),
    )
    report: list[dict[str, object]] = []
    ended = Event()

    def tell(made: "Converted") -> None:
        report.append(
            {
                "source": str(made.source),
                "files": [str(file) for file in made.files],
                "encoded_again": list(made.encoded_again),
                "findings": list(made.findings),
                "verified_tiles": made.verified_tiles,
            }
        )
        if not as_json:
            checked = f", {made.verified_tiles} tiles verified" if verify else ""
            click.echo(f"{made.folder}: {len(made.files)} files{checked}")
            for line in made.encoded_again:
                click.echo(f"  {line}")
            for finding in made.findings:
                click.echo(f"  note: {finding}")

    with byte_progress("convert") as progress, Workshop(options.limits) as workshop:

        def work(path: Path) -> "Converted":
            told = progress.share() if jobs > 1 else progress.of_total

            def report_progress(done: int, total: int) -> None:
                if ended.is_set():
                    raise click.Abort  # in a thread: nothing of this slide is left
                told(done, total)

            return convert([path], folder, options, report_progress, workshop)[0]

        try:
            each(once_per_series(files_of(sources)), work, at_once=jobs, tell=tell)
        finally:
            ended.set()
            if as_json:
                print_json(report)
