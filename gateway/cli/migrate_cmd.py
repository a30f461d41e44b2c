# SPDX-License-Identifier: Apache-2.0
"""``coverslip migrate``."""

import click

from gateway.cli.options import Given, common


@click.command("migrate")
@common
@click.option("--recover", is_flag=True, help="Then finish or undo what a crash left half done.")
def command(given: Given, recover: bool) -> None:
    """Create the data folder, or bring an older one to this release's form.

    A database of a single file is copied beside itself first. A newer release's folder
    is refused and left untouched. `serve` does this by itself.

    Example: coverslip migrate --data ./data
    """
    from gateway import compose
    from gateway.settings_check import check

    settings = given.settings("migrate")
    check(settings)
    with compose.archive(settings, codecs=False, migrate=True) as archive:
        if recover:
            archive.recover()
