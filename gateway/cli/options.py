# SPDX-License-Identifier: Apache-2.0
"""Options that every command has, and the settings they lead to."""

import json
import logging
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from functools import update_wrapper
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gateway import logs
from gateway.settings import Settings, load

if TYPE_CHECKING:
    from archive.values import Finding


@dataclass(slots=True)
class Given:
    """What the command line says about settings."""

    data: Path | None = None
    config: Path | None = None
    flags: dict[str, str] = field(default_factory=dict)

    def settings(self, role: str = "cli", **more: str | None) -> Settings:
        """Settings with these flags and ``more`` (``http_bind="..."`` is http.bind), and
        the log set up for ``role``. A command of a person says what went wrong in its one
        line: what libraries remark on a damaged file is left out, ours below ERROR too."""
        for name, value in more.items():
            if value is not None:
                self.flags[name.replace("_", ".", 1)] = value
        settings = load(self.config, self.flags)
        if role == "cli":
            logs.setup(role, "error", logging.CRITICAL)
        else:
            logs.setup(role, settings.log.level)
        return settings

    def arguments(self) -> list[str]:
        """The same, as arguments for another command of ours."""
        found = [] if self.config is None else ["--config", str(self.config.absolute())]
        for name, value in self.flags.items():
            found += ["--set", f"{name}={value}"]
        return found


def _flag(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise click.BadParameter(f"{text!r} is not KEY=VALUE", param_hint="--set")
    return name.strip(), value


def common(function: Callable[..., None]) -> Callable[..., None]:
    """Add --data, --config and --set; the command gets them as its first argument, a Given."""
    return click.option(
        "--set",
        "set_",
        metavar="KEY=VALUE",
        multiple=True,
        help="Any setting, for example --set watch.settle_s=5; may be repeated.",
    )(located(function))


def located(function: Callable[..., None]) -> Callable[..., None]:
    """:func:`common` for a command whose --set is something else."""

    def command(data: Path | None, config: Path | None, set_: tuple[str, ...] = (), **rest: Any) -> None:
        given = Given(data, config, dict(_flag(text) for text in set_))
        if data is not None:
            given.flags["data_dir"] = str(data)
        function(given, **rest)

    update_wrapper(command, function)
    for option in (
        click.option(
            "--config", type=click.Path(path_type=Path), metavar="FILE", help="A TOML settings file."
        ),
        click.option("--data", type=click.Path(path_type=Path), metavar="DIR", help="The data folder."),
    ):
        command = option(command)
    return command


as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")


def print_json(value: object) -> None:
    click.echo(json.dumps(value, ensure_ascii=False, default=str))


def print_findings(findings: "Iterable[Finding]", as_json: bool) -> "list[Finding]":
    """Print findings as they come (a list when JSON); return them all."""
    found = []
    for finding in findings:
        found.append(finding)
        if not as_json:
            mended = " (mended)" if finding.repaired else ""
            click.echo(f"{finding.kind}\t{finding.subject}\t{finding.detail}{mended}")
    if as_json:
        print_json([asdict(finding) for finding in found])
    return found
