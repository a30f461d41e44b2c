# SPDX-License-Identifier: Apache-2.0
"""``coverslip reject``."""

import click

from archive.rejected import EXPIRED, QUALITY, SAFETY, WORKLIST_ENTRY
from gateway.cli.options import Given, common

_CODES = {"quality": QUALITY, "safety": SAFETY, "worklist": WORKLIST_ENTRY, "expired": EXPIRED}


@click.command("reject")
@common
@click.argument("study", metavar="STUDY")
@click.argument("series", metavar="[SERIES", default="")
@click.argument("instance", metavar="[INSTANCE]]", default="")
@click.option(
    "--code",
    type=click.Choice([*_CODES, *_CODES.values()]),
    help="Why, as rejection notes say it: poor quality, a risk for the patient, a wrong worklist "
    "entry, or retention is over (that one cannot be taken back).",
)
@click.option("--reason", default="", metavar="TEXT", help="Why, in words.")
@click.option("--undo", is_flag=True, help="Take back what was rejected.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def command(
    given: Given, study: str, series: str, instance: str, code: str | None, reason: str, undo: bool, yes: bool
) -> None:
    """Reject a study, one of its series or one instance by a rejection note (IHE IOCM).

    The note is stored in the study. What it names answers 410 and is found no more; its bytes
    stay, so that --undo brings it back as it was, unless the code is "expired".

    Example: coverslip reject 2.25.1234 2.25.5678 --code quality --reason "out of focus"
    """
    from gateway import compose

    if undo is (code is not None):
        raise click.UsageError("give either --code or --undo")
    if undo and not reason.strip():
        raise click.BadParameter("say why", param_hint="--reason")
    named = instance or series or study
    with compose.archive(given.settings(), codecs=False) as archive:
        caller = compose.operator(archive)
        if code is None:
            count = archive.readmit(study, series, instance, reason=reason, **caller)
            click.echo(f"{count} instances are here again")
            return
        if not yes:
            click.confirm(f"Reject all instances of {named}?", abort=True, err=True)
        dicom_code = _CODES.get(code, code)
        note, count = archive.reject(study, series, instance, code=dicom_code, reason=reason, **caller)
    click.echo(f"{count} instances rejected by {note.sop_instance_uid}")
