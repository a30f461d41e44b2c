# SPDX-License-Identifier: Apache-2.0
"""``coverslip routing explain``."""

from pathlib import Path

import click

from gateway.cli.options import Given, as_json, common, print_json


@click.group("routing")
def command() -> None:
    """Look at the routing rules (docs/routing.md).

    Example: coverslip routing explain 2.25.1234
    """


@command.command("explain")
@common
@as_json
@click.argument("study", metavar="STUDY")
@click.option(
    "--rules", "file", type=click.Path(path_type=Path), metavar="FILE", help="Other rules than routing.file."
)
def explain(given: Given, as_json: bool, study: str, file: Path | None) -> None:
    """Say of each instance of a study which rules match, where it would go, and why not.
    Nothing is sent.

    Example: coverslip routing explain 2.25.1234 --rules ./routing.toml --data ./data
    """
    from gateway import compose
    from gateway.router import facts_of
    from gateway.routing import load_rules
    from gateway.settings import SettingsError

    settings = given.settings()
    path = file or (Path(settings.routing.file) if settings.routing.file else None)
    if path is None:
        raise SettingsError("routing.file is not set, and no --rules are given")
    rules = load_rules(path)
    rows = []
    with compose.archive(settings, codecs=False) as archive:
        caller = compose.operator(archive)
        for instance in archive.instances(study, **caller):
            facts = facts_of(archive, instance, caller)
            for rule, why_not in rules.decisions(facts):
                rows.append(
                    {
                        "sop_instance_uid": instance.sop_instance_uid,
                        "rule": rule.name,
                        "destinations": [] if why_not else list(rule.receivers(facts)),
                        "why_not": why_not or "",
                    }
                )
    if as_json:
        print_json(rows)
        return
    for row in rows:
        said = row["why_not"] or "goes to " + (", ".join(row["destinations"]) or "nobody: it came from there")
        click.echo(f"{row['sop_instance_uid']}\t{row['rule']}\t{said}")
