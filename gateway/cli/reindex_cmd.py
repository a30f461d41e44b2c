# SPDX-License-Identifier: Apache-2.0
"""``coverslip reindex``."""

import click

from gateway.cli.options import Given, common


@click.command("reindex")
@common
def command(given: Given) -> None:
    """Rebuild the index of studies, series and instances from storage.

    Users, jobs and the audit trail are not in storage: they come from a backup.
    Nothing else may write meanwhile: stop the server first.

    Example: coverslip reindex --data ./data
    """
    from gateway import compose
    from gateway.settings_check import check
    from gateway.supervisor import lock_data

    settings = given.settings()
    check(settings)
    lock_data(settings.run_dir)  # held until this process ends
    with compose.archive(settings, codecs=False, migrate=True) as archive:
        count = archive.reindex(**compose.operator(archive))
    click.echo(f"{count} instances")
