# SPDX-License-Identifier: Apache-2.0
"""``coverslip outbox list``, ``retry`` and ``cancel``."""

import click

from gateway.cli.options import Given, as_json, common, print_json

_STATES = ("waiting", "running", "done", "failed", "cancelled")


@click.group("outbox")
def command() -> None:
    """What is owed to other nodes: sent on, told or notified, until it is done.

    Example: coverslip outbox list --state failed
    """


@command.command("list")
@common
@as_json
@click.option("--to", "receiver", metavar="AE", default="", help="Of this receiver only.")
@click.option("--state", type=click.Choice(_STATES), default=None, help="In this state only.")
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, help="Most to print.")
def show(given: Given, as_json: bool, receiver: str, state: str | None, limit: int) -> None:
    """List it, newest first: number, state, receiver, kind, attempts, when next, what was said.

    Example: coverslip outbox list --to PACS --data ./data
    """
    from dataclasses import asdict

    from gateway import compose

    with compose.archive(given.settings(), codecs=False) as archive:
        caller = compose.operator(archive)
        duties = archive.duties(receiver=receiver, state=state or "", limit=limit, **caller)
    if as_json:
        print_json([asdict(duty) for duty in duties])
        return
    for duty in duties:
        when = f"{duty.not_before:%Y-%m-%d %H:%M:%S}" if duty.not_before else "-"
        click.echo(
            f"{duty.id}\t{duty.state}\t{duty.receiver}\t{duty.kind}\t{duty.attempts}\t{when}\t{duty.message}"
        )


@command.command("retry")
@common
@click.argument("numbers", metavar="NUMBER...", type=int, nargs=-1, required=True)
def retry(given: Given, numbers: tuple[int, ...]) -> None:
    """Have it tried at once; what was given up or cancelled as well.

    Example: coverslip outbox retry 12 --data ./data
    """
    from gateway import compose
    from gateway.cli.paths import each

    with compose.archive(given.settings(), codecs=False) as archive:
        caller = compose.operator(archive)
        each(numbers, lambda number: archive.retry_duty(number, **caller))


@command.command("cancel")
@common
@click.argument("numbers", metavar="NUMBER...", type=int, nargs=-1, required=True)
@click.option("--reason", required=True, help="Why: kept in the trail.")
def cancel(given: Given, numbers: tuple[int, ...], reason: str) -> None:
    """Owe it no more.

    Example: coverslip outbox cancel 12 --reason "sent by hand" --data ./data
    """
    from gateway import compose
    from gateway.cli.paths import each

    with compose.archive(given.settings(), codecs=False) as archive:
        caller = compose.operator(archive)
        each(numbers, lambda number: archive.cancel_duty(number, reason, **caller))
