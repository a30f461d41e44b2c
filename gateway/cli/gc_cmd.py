# SPDX-License-Identifier: Apache-2.0
"""``coverslip gc``."""

import click

from gateway.cli.options import Given, common


@click.command("gc")
@common
def command(given: Given) -> None:
    """Remove stored bytes that nothing refers to since a day or more.

    Example: coverslip gc --data ./data
    """
    from gateway import compose

    with compose.archive(given.settings(), codecs=False) as archive:
        count = archive.collect_garbage(**compose.operator(archive))
    click.echo(f"{count} objects removed")
