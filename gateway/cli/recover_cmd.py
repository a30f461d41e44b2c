# SPDX-License-Identifier: Apache-2.0
"""``coverslip recover``."""

import click

from gateway.cli.options import Given, as_json, common, print_findings


@click.command("recover")
@common
@as_json
def command(given: Given, as_json: bool) -> None:
    """Finish or undo what a crash left half done; what is recent is left alone.

    `serve` does this by itself before it starts.

    Example: coverslip recover --data ./data
    """
    from gateway import compose

    with compose.archive(given.settings(), codecs=False) as archive:
        print_findings(archive.recover(), as_json)
