# SPDX-License-Identifier: Apache-2.0
"""``coverslip quarantine-list``, ``quarantine-show`` and ``quarantine-resolve``."""

from pathlib import Path

import click

from gateway.cli.options import Given, as_json, common, print_json


@click.command("quarantine-list")
@common
@as_json
@click.option("--limit", default=100, show_default=True, help="Most entries to print, newest first.")
def command(given: Given, as_json: bool, limit: int) -> None:
    """List what could not be stored, and why.

    Example: coverslip quarantine-list --data ./data
    """
    from dataclasses import asdict

    from gateway import compose

    with compose.archive(given.settings(), codecs=False) as archive:
        entries = archive.quarantined(limit=limit, **compose.operator(archive))
    if as_json:
        print_json([asdict(entry) for entry in entries])
        return
    for entry in entries:
        click.echo(
            f"{entry.id}\t{entry.created:%Y-%m-%d %H:%M}\t{entry.source}\t{entry.name}\t{entry.reason}"
        )


@click.command("quarantine-show")
@common
@click.argument("entry", metavar="NUMBER", type=int)
@click.option(
    "-o",
    "--output",
    "target",
    required=True,
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Where to write its bytes.",
)
def show(given: Given, entry: int, target: Path) -> None:
    """Write the bytes of an entry of the quarantine to a file.

    Example: coverslip quarantine-show 3 -o ./file.dcm --data ./data
    """
    from gateway import compose
    from gateway.cli.export_cmd import write_stream
    from gateway.cli.progress import byte_progress

    with compose.archive(given.settings(), codecs=False) as archive, byte_progress("copy") as progress:
        _, stream = archive.quarantined_bytes(entry, **compose.operator(archive))
        write_stream(target, stream.chunks, progress)
    click.echo(str(target))


@click.command("quarantine-resolve")
@common
@click.argument("entry", metavar="NUMBER", type=int)
@click.option("--reason", required=True, help="What was done about it; kept in the audit trail.")
def resolve(given: Given, entry: int, reason: str) -> None:
    """Take an entry off the list once it was dealt with; its bytes go after a day.

    Example: coverslip quarantine-resolve 3 --reason "sent again by the scanner" --data ./data
    """
    from gateway import compose

    with compose.archive(given.settings(), codecs=False) as archive:
        archive.resolve(entry, reason=reason, **compose.operator(archive))
    click.echo(f"{entry}: resolved")
