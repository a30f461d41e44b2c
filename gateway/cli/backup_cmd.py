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
@click.option("--verify", is_flag=True, help="Read every earlier copy again; replace what is damaged.")
def command(given: Given, folder: Path, verify: bool) -> None:
    """Copy database, storage and the site's secret to FOLDER, beside a running server too.

    A second backup into the same folder copies only what is new; it trusts the copies that
    are there by name and size, or by their digest with --verify. The folder holds patient
    data and the secret, neither encrypted: keep it as safe as the archive.

    Example: coverslip backup --data ./data /backup/coverslip --verify
    """
    from gateway import compose
    from gateway.backup import backup
    from gateway.cli.errors import Finished

    settings = given.settings()
    with byte_progress("backup") as progress:
        count, damaged = backup(settings, compose.storage(settings), folder, progress.done, verify=verify)
    click.echo(f"{count} objects in {folder}")
    click.echo(
        "The site's secret and the patients' data in it are not encrypted: keep it as safe as the archive"
    )
    for key in damaged:
        click.echo(f"damaged: {key}")
    if damaged:
        raise Finished(FINDINGS)
