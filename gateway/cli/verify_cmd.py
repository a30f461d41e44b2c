# SPDX-License-Identifier: Apache-2.0
"""``coverslip verify``."""

import click

from gateway.cli.exit_codes import FINDINGS
from gateway.cli.options import Given, as_json, common, print_findings


@click.command("verify")
@common
@as_json
@click.option("--repair", is_flag=True, help="Mend what can be mended from what is there.")
def command(given: Given, as_json: bool, repair: bool) -> None:
    """Re-hash everything and compare it with the index; exit code 40 if something is wrong.

    Example: coverslip verify --data ./data
    """
    from gateway import compose
    from gateway.cli.errors import Finished

    with compose.archive(given.settings()) as archive:
        found = print_findings(archive.verify(repair=repair, **compose.operator(archive)), as_json)
    if any(not finding.repaired for finding in found):
        raise Finished(FINDINGS)
