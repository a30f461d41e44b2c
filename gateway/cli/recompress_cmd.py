# SPDX-License-Identifier: Apache-2.0
"""``coverslip recompress``."""

from dataclasses import asdict
from threading import Lock
from typing import TYPE_CHECKING

import click

from gateway.cli.options import Given, as_json, common, print_json
from gateway.cli.progress import byte_progress

if TYPE_CHECKING:
    from archive.values import Recompressed


@click.command("recompress")
@common
@as_json
@click.argument("study", metavar="STUDY")
@click.option("--series", default="", metavar="UID", help="Only this series of the study.")
@click.option("--undo", is_flag=True, help="Store the JPEG frames as they came again.")
@click.option("--reason", default="", metavar="TEXT", help="Why; kept in the journal and the audit trail.")
def command(given: Given, as_json: bool, study: str, series: str, undo: bool, reason: str) -> None:
    """Store a study's JPEG frames as JPEG XL, about a fifth smaller, bit for bit reversible.

    Every way out gives the same bytes as before: frames are turned back when they are
    read, which costs processor time. Each instance is proven before it is changed; the
    space is free after the first `coverslip gc` a day later. Left as they are: slides
    whose frames lie in the scanner's own file, holds, GLP studies, other compressions.
    Interrupted, run it again: it goes on where it was.

    Example: coverslip recompress 2.25.1234 --data ./data
    """
    from archive.values import Recompression
    from gateway import compose
    from gateway.cli.errors import Finished
    from gateway.cli.exit_codes import SOME_FAILED

    told: list[Recompressed] = []
    with compose.archive(given.settings()) as archive:
        caller = compose.operator(archive)
        total = sum(one.size_bytes for one in archive.instances(study, series, **caller))
        with byte_progress("expand" if undo else "recompress", total) as progress:
            turn = Lock()

            def done(name: str, size_bytes: int) -> None:
                with turn:
                    progress.done(name, size_bytes)

            changed = archive.recompress(
                study,
                series,
                undo=undo,
                reason=reason.strip() or ("recompression undone" if undo else "to save space"),
                progress=done,
                **caller,
            )
            try:
                for one in changed:
                    told.append(one)
                    if not as_json:
                        click.echo(_line(one))
            finally:
                if as_json:
                    print_json([asdict(one) for one in told])
    if not as_json:
        click.echo(_summary(told))
    if any(one.outcome is Recompression.FAILED for one in told):
        raise Finished(SOME_FAILED)


def _line(one: "Recompressed") -> str:
    if one.reason:
        return f"{one.sop_instance_uid}\t{one.outcome}: {one.reason}"
    return f"{one.sop_instance_uid}\t{one.outcome}\t{one.size_before_bytes} -> {one.size_after_bytes} bytes"


def _summary(told: "list[Recompressed]") -> str:
    changed = [one for one in told if one.size_after_bytes != one.size_before_bytes]
    before = sum(one.size_before_bytes for one in changed)
    if not before:
        return f"0 of {len(told)} instances changed"
    after = sum(one.size_after_bytes for one in changed)
    share = f"{abs(before - after) / before:.1%} {'less' if after < before else 'more'}"
    return f"{len(changed)} of {len(told)} instances changed: {before} -> {after} bytes, {share}"
