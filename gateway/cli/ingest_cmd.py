# SPDX-License-Identifier: Apache-2.0
"""``coverslip ingest``."""

from pathlib import Path

import click

from gateway.cli.options import Given, as_json, common, print_json
from gateway.cli.paths import each, files_of
from gateway.cli.progress import byte_progress


@click.command("ingest")
@common
@as_json
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--metadata",
    metavar="FILE.json",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Patient, study, specimen and pixel size, where scanners' files do not know them.",
)
@click.option("--create", is_flag=True, help="Make an archive in the folder of --data if it holds none.")
def command(
    given: Given, as_json: bool, paths: tuple[Path, ...], metadata: Path | None, create: bool
) -> None:
    """Take DICOM or scanner files, or folders of them, into the archive.

    Works beside a running server. What is in the archive already is recognised and not
    stored twice, so an interrupted run is simply run again. A file is acknowledged, a
    line each, once it is durable and findable.

    A folder that --data names must hold an archive, made by serve, migrate or --create: a
    mistyped name would get one of its own. That of the settings is made when it is needed.

    Example: coverslip ingest --data ./data slide.svs /export/dicom
    """
    from archive.values import Outcome, Sender
    from converters.convert import metadata_file
    from gateway import compose
    from gateway.ingest.pipeline import ingest_file
    from gateway.settings import SettingsError

    settings = given.settings()
    known = metadata_file(metadata) if metadata is not None else None
    files = files_of(paths)
    if given.data is not None and not create and not compose.holds_archive(settings):
        raise SettingsError(f"{settings.data} holds no archive: correct --data, or add --create")
    sizes = {path: path.stat().st_size for path in files}
    report: list[dict[str, object]] = []
    with compose.archive(settings, migrate=True) as archive, compose.converter(settings) as converter:
        caller = compose.operator(archive)
        secret = compose.site_secret(settings)
        with byte_progress("ingest", sum(sizes.values())) as progress:

            def take(path: Path) -> None:
                before = progress.bytes
                try:
                    taken = ingest_file(
                        archive,
                        path,
                        secret=secret,
                        sender=Sender("cli", caller["principal"].actor),
                        converter=converter,
                        metadata=known,
                        progress=lambda share: progress.to(before + int(share * sizes[path])),
                        **caller,
                    )
                finally:
                    progress.to(before + sizes[path])
                stored = taken.stored
                outcomes = sorted({str(one.outcome) for one in stored})
                if not as_json:
                    click.echo(f"{path}: {len(stored)} instances {', '.join(outcomes)}")
                    for finding in taken.findings:
                        click.echo(f"  note: {finding}")
                if known is not None and outcomes == [str(Outcome.ALREADY)]:
                    click.echo(
                        f"coverslip: {path}: stored already: the metadata was not applied; see `coverslip "
                        "correct`, or delete it first",
                        err=True,
                    )
                report.append(
                    {
                        "path": str(path),
                        "study_instance_uid": stored[0].study_instance_uid if stored else "",
                        "findings": list(taken.findings),
                        "instances": [
                            {"sop_instance_uid": one.sop_instance_uid, "outcome": one.outcome}
                            for one in stored
                        ],
                    }
                )

            try:
                each(files, take)
            finally:
                if as_json:
                    print_json(report)
