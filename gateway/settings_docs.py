# SPDX-License-Identifier: Apache-2.0
"""``docs/settings.md`` and ``config/default.toml``, written from the fields of Settings.

Run ``coverslip config docs --write`` after a change; a test compares.
"""

import json
from collections.abc import Iterable
from dataclasses import fields
from itertools import groupby

from gateway.settings import KEYS, Peer
from gateway.settings_read import PREFIX, Key

TITLES = {
    "": "Where data is kept",
    "http": "Web server",
    "dimse": "DICOM network",
    "auth": "Who may do what",
    "watch": "Watched folders",
    "worker": "Worker",
    "outbox": "What is owed to others",
    "routing": "Sending on",
    "convert": "Conversion of scanners' files",
    "codecs": "Decoding",
    "limits": "Limits",
    "search": "Search",
    "log": "Log",
}


def _group(key: Key) -> str:
    return key.name.rpartition(".")[0]


def _toml(value: object) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value)


def _kind(key: Key) -> str:
    if key.choices:
        return " or ".join(f"`{choice}`" for choice in key.choices)
    if key.type == tuple[str, ...]:
        return "list of text"
    if key.type == tuple[Peer, ...]:
        return f"list of tables ({', '.join(f'`{item.name}`' for item in fields(Peer))})"
    return {str: "text", int: "whole number", float: "number", bool: "`true` or `false`"}[key.type]


def _bounds(key: Key) -> str:
    return f", at least {key.minimum:g}" if key.minimum is not None else ""


def _wrapped(text: str, width: int = 96) -> Iterable[str]:
    line = ""
    for word in text.split():
        if line and len(line) + len(word) >= width:
            yield line
            line = ""
        line = f"{line} {word}".strip()
    if line:
        yield line


def markdown() -> str:
    """The whole of docs/settings.md."""
    lines = [
        "# Settings",
        "",
        "<!-- Written by `coverslip config docs --write` from gateway/settings.py; do not edit. -->",
        "",
        "Read in this order, later ones winning: a TOML file (`--config FILE`, else `$COVERSLIP_CONFIG`,",
        "else `./coverslip.toml`, else the shipped `config/default.toml`), the variables below, flags",
        "(`--data`, `--set KEY=VALUE` and the like). An unknown key is an error. `coverslip config check`",
        "prints every value with its origin and says whether a server would start so. Lists in a variable",
        "are separated by commas, or written as in TOML.",
        "",
        "Everything binds to loopback. Beyond it the web server needs authentication and TLS (a proxy of",
        '`http.trusted_proxies`), which `auth.mode = "open"` never has; the DICOM listeners need named',
        "peers with their networks, and the one without TLS `dimse.allow_plaintext`. Otherwise the start is",
        "refused with the reason.",
    ]
    for group, members in groupby(KEYS.values(), _group):
        lines += ["", f"## {TITLES[group]}", ""]
        for key in members:
            lines += [
                f"### `{key.name}`",
                "",
                key.meaning,
                "",
                f"- {_kind(key)}{_bounds(key)}; default `{_toml(key.default)}`; variable `{key.variable}`",
            ]
            if key.example:
                lines.append(f"- for example `{key.name} = {key.example}`")
            if key.secret:
                lines.append("- never printed")
            lines.append("")
        lines.pop()
    return "\n".join(lines) + "\n"


def default_toml() -> str:
    """The whole of config/default.toml."""
    lines = [
        "# Coverslip's settings, each with its default. Copy what you change to ./coverslip.toml.",
        f"# Any of them can be given as a variable ({PREFIX}HTTP_BIND) or a flag (--set http.bind=...).",
        "# Written by `coverslip config docs --write`; docs/settings.md says more.",
    ]
    for group, members in groupby(KEYS.values(), _group):
        lines += ["", f"[{group}]"] if group else [""]
        for key in members:
            lines += [f"# {line}" for line in _wrapped(key.meaning)]
            if key.example:
                lines.append(f"# For example: {key.example}")
            lines += [f"{key.name.rpartition('.')[2]} = {_toml(key.default)}"]
    return "\n".join(lines) + "\n"
