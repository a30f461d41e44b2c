# SPDX-License-Identifier: Apache-2.0
"""``coverslip version``."""

import click

from gateway.cli.options import as_json, print_json


@click.command("version")
@as_json
def command(as_json: bool) -> None:
    """Print this program's version and those of what it stands on.

    Example: coverslip version --json
    """
    from gateway.versions import versions

    found = versions()
    if as_json:
        print_json(found)
    else:
        for name, version in found.items():
            click.echo(f"{name} {version}")
