# SPDX-License-Identifier: Apache-2.0
"""``coverslip delete``."""

import click

from gateway.cli.options import Given, common


@click.command("delete")
@common
@click.argument("study", metavar="STUDY")
@click.option("--series", default="", metavar="UID", help="Only this series of the study.")
@click.option("--instance", default="", metavar="UID", help="Only this instance of the study.")
@click.option("--reason", required=True, metavar="TEXT", help="Why; kept in the audit trail.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def command(given: Given, study: str, series: str, instance: str, reason: str, yes: bool) -> None:
    """Delete a study, one of its series or one instance.

    Its bytes go with the first `coverslip gc` after a day; until then nothing brings them
    back but a backup, and the same instance sent again is taken as new.

    Example: coverslip delete 2.25.1234 --reason "wrong patient" --data ./data
    """
    from gateway import compose

    if not reason.strip():
        raise click.BadParameter("say why", param_hint="--reason")
    with compose.archive(given.settings(), codecs=False) as archive:
        caller = compose.operator(archive)
        if not yes:
            below = archive.instances(study, series, **caller)
            count = sum(not instance or one.sop_instance_uid == instance for one in below)
            click.confirm(f"Delete {count} instances of study {study}?", abort=True, err=True)
        count = archive.delete(study, series, instance, reason=reason, **caller)
    click.echo(f"{count} instances deleted")
