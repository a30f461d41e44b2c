# SPDX-License-Identifier: Apache-2.0
"""``coverslip restore``."""

from pathlib import Path

import click

from gateway.cli.options import Given, common
from gateway.cli.progress import byte_progress


@click.command("restore")
@common
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
def command(given: Given, folder: Path) -> None:
    """Put the backup in FOLDER into an empty data folder, every digest checked.

    Example: coverslip restore --data ./restored /backup/coverslip
    """
    from gateway.backup import restore
    from gateway.settings_check import check

    settings = given.settings()
    check(settings)
    with byte_progress("restore") as progress:
        count = restore(settings, folder, progress.done)
    click.echo(f"{count} objects restored to {settings.data}")
