# SPDX-License-Identifier: Apache-2.0
"""``coverslip quarantine-list``."""

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
