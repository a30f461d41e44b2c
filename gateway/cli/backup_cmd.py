# SPDX-License-Identifier: Apache-2.0
"""``coverslip backup``."""

from pathlib import Path

import click

from gateway.cli.exit_codes import FINDINGS
from gateway.cli.options import Given, common
from gateway.cli.progress import byte_progress


@click.command("backup")
@common
@click.argument("folder", type=click.Path(path_type=Path))
def command(given: Given, folder: Path) -> None:
    """Copy database, storage and the site's secret to FOLDER, beside a running server too.

    A second backup into the same folder copies only what is new. The folder holds
    patient data and the secret: keep it as safe as the archive.

    Example: coverslip backup --data ./data /backup/coverslip
    """
    from gateway import compose
    from gateway.backup import backup
    from gateway.cli.errors import Finished

    settings = given.settings()
    with byte_progress("backup") as progress:
        count, damaged = backup(settings, compose.storage(settings), folder, progress.done)
    click.echo(f"{count} objects in {folder}")
    for key in damaged:
        click.echo(f"damaged: {key}")
    if damaged:
        raise Finished(FINDINGS)
