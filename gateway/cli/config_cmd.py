# SPDX-License-Identifier: Apache-2.0
"""``coverslip config check`` and ``config docs``."""

from pathlib import Path

import click

from gateway.cli.options import Given, as_json, common, print_json


@click.group("config")
def command() -> None:
    """Look at the settings.

    Example: coverslip config check --json
    """


@command.command("check")
@common
@as_json
def check_settings(given: Given, as_json: bool) -> None:
    """Print each setting with its origin, and whether a server may start so (else code 3).

    Without --json also what may start and should be known: peers without TLS, certificates
    that end soon.

    Example: coverslip config check --config /etc/coverslip.toml
    """
    from gateway.doctor_dicom import examine_dicom
    from gateway.settings import KEYS, value_of
    from gateway.settings_check import check

    settings = given.settings()
    shown = {
        name: "***" if key.secret and value_of(settings, name) else value_of(settings, name)
        for name, key in KEYS.items()
    }
    if as_json:
        print_json(
            {
                name: {"value": _plain(value), "origin": settings.origins[name]}
                for name, value in shown.items()
            }
        )
    else:
        width = max(map(len, shown))
        for name, value in shown.items():
            click.echo(f"{name:{width}}  {_plain(value)!r}  ({settings.origins[name]})")
    check(settings)
    if not as_json:
        for name, state, detail in examine_dicom(settings.dimse):
            if state != "ok":
                click.echo(f"{state}: {name}: {detail}")


@command.command("docs")
@click.option("--write", is_flag=True, help="Write the three files of this checkout instead.")
def docs(write: bool) -> None:
    """Print docs/settings.md; --write renews it, docs/errors.md and config/default.toml.

    Example: coverslip config docs --write
    """
    from gateway import settings_docs
    from gateway.cli import exit_codes

    if not write:
        click.echo(settings_docs.markdown(), nl=False)
        return
    root = Path(__file__).resolve().parents[2]
    for name, text in {
        "docs/settings.md": settings_docs.markdown(),
        "docs/errors.md": exit_codes.markdown(),
        "config/default.toml": settings_docs.default_toml(),
    }.items():
        (root / name).write_text(text, encoding="utf-8")
        click.echo(name)


def _plain(value: object) -> object:
    """Peers and tuples as JSON has them."""
    from dataclasses import asdict, is_dataclass

    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    return value
