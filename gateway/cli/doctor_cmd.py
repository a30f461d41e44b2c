# SPDX-License-Identifier: Apache-2.0
"""``coverslip doctor``."""

import click

from gateway.cli.exit_codes import FINDINGS
from gateway.cli.options import Given, as_json, common, print_json


@click.command("doctor")
@common
@as_json
def command(given: Given, as_json: bool) -> None:
    """Examine this machine: codecs, libraries, ports, disk, clock, TLS, plaintext peers.

    Exit code 40 if something would keep a server from working.

    Example: coverslip doctor --data ./data
    """
    from dataclasses import asdict

    from gateway.cli.errors import Finished
    from gateway.doctor import State, examine

    checks = []
    for check in examine(given.settings()):
        checks.append(check)
        if not as_json:
            click.echo(f"{check.state:5} {check.name}: {check.detail}")
    if as_json:
        print_json([asdict(check) for check in checks])
    if any(check.state is State.BAD for check in checks):
        raise Finished(FINDINGS)
