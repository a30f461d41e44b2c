# SPDX-License-Identifier: Apache-2.0
"""``coverslip send``."""

from collections import Counter
from typing import TYPE_CHECKING

import click

from gateway.cli.options import Given, as_json, common, print_json

if TYPE_CHECKING:
    from archive.service import Archive
    from gateway.compose import Caller
    from gateway.dimse.peers import Destination
    from gateway.dimse.sending import Result
    from gateway.settings import Settings


@click.command("send")
@common
@as_json
@click.argument("study", metavar="STUDY")
@click.option("--series", metavar="UID", default="", help="This series only.")
@click.option("--to", "receiver", metavar="AE", required=True, help="A peer that has an address.")
@click.option("--commit", is_flag=True, help="Ask the receiver for storage commitment afterwards.")
@click.option("--later", is_flag=True, help="Leave it to the outbox of the running server.")
@click.option("--again", is_flag=True, help="Also what the receiver has confirmed already.")
def command(
    given: Given,
    as_json: bool,
    study: str,
    series: str,
    receiver: str,
    commit: bool,
    later: bool,
    again: bool,
) -> None:
    """Send a study or series to a DICOM node by C-STORE.

    In the stored transfer syntax, or uncompressed where the receiver takes nothing else.
    What the receiver confirmed is kept: the same command again sends what is missing. Prints
    a line for each instance: outcome, SOP Instance UID, status, what was said.

    Example: coverslip send 2.25.1234 --to PACS --commit --data ./data
    """
    from archive.errors import NoSuchPeer
    from gateway import compose
    from gateway.dimse.peers import peer_table

    if later and again:
        raise click.UsageError("--again cannot be left to the outbox", click.get_current_context())
    settings = given.settings()
    with compose.archive(settings) as archive:
        caller = compose.operator(archive)
        destination = peer_table(archive, settings.dimse).destination(receiver)
        if destination is None:
            raise NoSuchPeer(receiver)
        if later:
            next(archive.instances(study, series, **caller))
            payload = {"study": study, "series": series, "commit": commit}
            duty = archive.promise(receiver, "forward", payload, key=f"send/{study}/{series}", **caller)
            print_json({"duty": duty}) if as_json else click.echo(f"{duty}\twaits in the outbox")
            return
        _send(archive, settings, destination, study, series, commit, again, caller, as_json)


def _send(
    archive: "Archive",
    settings: "Settings",
    destination: "Destination",
    study: str,
    series: str,
    commit: bool,
    again: bool,
    caller: "Caller",
    as_json: bool,
) -> None:
    from gateway.cli.errors import Finished
    from gateway.cli.exit_codes import SOME_FAILED
    from gateway.cli.progress import byte_progress
    from gateway.dimse.commitment_request import CommitmentRequest
    from gateway.dimse.sending import Outcome, Sender

    sender = Sender(archive, settings.dimse.ae_title, **caller)
    results: list[Result] = []
    total = sum(one.size_bytes for one in archive.instances(study, series, **caller))
    transactions: list[str] = []
    try:
        with byte_progress("send", total) as progress:
            for result in sender.send(
                destination,
                study,
                series,
                again=again,
                progress=lambda size_bytes: progress.done(destination.ae_title, size_bytes),
            ):
                results.append(result)
                if not as_json:
                    click.echo(_line(result))
        done = [one for one in results if one.outcome not in (Outcome.FAILED, Outcome.GONE)]
        if commit and done:
            ask = CommitmentRequest(archive, settings.dimse.ae_title, caller["principal"])
            references = [(one.sop_class_uid, one.sop_instance_uid) for one in done]
            transactions = ask(destination, references)
            if not as_json:
                for uid, known in zip(transactions, ask.results(transactions), strict=True):
                    click.echo(f"commitment\t{uid}\t{_committed(known.done, len(known.failed))}")
    finally:
        if as_json:
            print_json({"instances": [_json(one) for one in results], "commitments": transactions})
    if any(one.outcome is Outcome.FAILED for one in results):
        counted = Counter(str(one.outcome) for one in results)
        click.echo("coverslip: " + ", ".join(f"{n} {what}" for what, n in sorted(counted.items())), err=True)
        raise Finished(SOME_FAILED)


def _line(result: "Result") -> str:
    status = f"{result.status:#06x}"
    return f"{result.outcome}\t{result.sop_instance_uid}\t{status}\t{result.message}".rstrip()


def _committed(done: bool, failed: int) -> str:
    if not done:
        return "asked"
    return "committed" if not failed else f"{failed} not committed"


def _json(result: "Result") -> dict[str, object]:
    return {
        "outcome": str(result.outcome),
        "study_instance_uid": result.study_instance_uid,
        "series_instance_uid": result.series_instance_uid,
        "sop_instance_uid": result.sop_instance_uid,
        "status": result.status,
        "message": result.message,
    }
