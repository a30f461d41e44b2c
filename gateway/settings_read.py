# SPDX-License-Identifier: Apache-2.0
"""From TOML and text to checked values: what ``gateway.settings.load`` is made of."""

import difflib
import tomllib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, get_args

PREFIX = "COVERSLIP_"
TRUE = ("true", "1", "yes", "on")
FALSE = ("false", "0", "no", "off")


class SettingsError(Exception):
    """A setting is unknown, of the wrong type, or not allowed; ``str()`` is one line."""


@dataclass(frozen=True, slots=True)
class Key:
    """One leaf of ``gateway.settings.Settings``: ``http.bind``."""

    name: str
    type: Any  # a class, tuple[str, ...], or a tuple of a dataclass such as Peer
    default: object
    meaning: str
    choices: tuple[str, ...]
    minimum: float | None
    secret: bool
    example: str

    @property
    def variable(self) -> str:
        return PREFIX + self.name.replace(".", "_").upper()


def toml_file(path: Path) -> dict[str, object]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path} is not UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{path} is not TOML: {error}") from error


def nearest(name: str, known: Iterable[str]) -> str:
    """`` (did you mean X?)`` for the known name that is nearest, always one.

    The whole name decides; of equals, the one whose last part is nearest.
    """

    def likeness(other: str) -> float:
        last = difflib.SequenceMatcher(None, name.rpartition(".")[2], other.rpartition(".")[2]).ratio()
        return difflib.SequenceMatcher(None, name, other).ratio() + 0.5 * last

    best = max(known, key=likeness, default=None)
    return f" (did you mean {best}?)" if best else ""


def flatten(
    table: Mapping[str, object], where: str, keys: Collection[str], prefix: str = ""
) -> dict[str, object]:
    """``{"http": {"bind": x}}`` as ``{"http.bind": x}``; refuses what is not of ``keys``."""
    groups = {name.rpartition(".")[0] for name in keys} - {""}
    found: dict[str, object] = {}
    for name, value in table.items():
        full = prefix + name
        if full in keys:
            found[full] = value
        elif full in groups and isinstance(value, Mapping):
            found |= flatten(value, where, keys, f"{full}.")
        elif full in groups:
            raise SettingsError(f"{where}: {full} is a table of settings, not a value")
        else:
            raise SettingsError(f"{where}: unknown setting {full}{nearest(full, [*keys, *groups])}")
    return found


def from_text(key: Key, text: str, where: str) -> object:
    """The value that a variable or flag means. Lists: comma-separated, or TOML."""
    text = text.strip()
    if key.type is bool:
        if text.lower() in TRUE:
            return True
        if text.lower() in FALSE:
            return False
        raise SettingsError(f"{where}: {key.name} must be true or false, not {text!r}")
    if key.type is int or key.type is float:
        try:
            return key.type(text)
        except ValueError:
            kind = "a whole number" if key.type is int else "a number"
            raise SettingsError(f"{where}: {key.name} must be {kind}, not {text!r}") from None
    if key.type is str:
        return text
    if text.startswith("["):
        try:
            return tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError as error:
            raise SettingsError(f"{where}: {key.name} is not a TOML list: {error}") from error
    return [part.strip() for part in text.split(",") if part.strip()]


def checked(key: Key, value: object, where: str) -> object:
    """``value`` in its key's own type; SettingsError names the key and ``where`` it stood."""
    if key.type is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if key.type == tuple[str, ...]:
        return _strings(key.name, value, where)
    if (item := next(iter(get_args(key.type)), None)) is not None and is_dataclass(item):
        return _tables(item, key.name, value, where)
    if type(value) is not key.type:
        wanted = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}[key.type]
        raise SettingsError(f"{where}: {key.name} must be {wanted}, not {type(value).__name__}")
    if key.choices and value not in key.choices:
        raise SettingsError(f"{where}: {key.name} must be one of {', '.join(key.choices)}")
    if key.minimum is not None and isinstance(value, (int, float)) and not value >= key.minimum:
        raise SettingsError(f"{where}: {key.name} must be at least {key.minimum:g}")
    return value


def _strings(name: str, value: object, where: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise SettingsError(f"{where}: {name} must be a list of texts")
    return tuple(value)


def _tables(of: Any, name: str, value: object, where: str) -> tuple[object, ...]:
    """A list of tables as objects of the dataclass ``of``, whose fields have the types of their
    defaults: texts, tuples of them, whole numbers, true or false."""
    known = {item.name: type(item.default) for item in fields(of)}
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise SettingsError(f"{where}: {name} must be a list of tables with {' and '.join(known)}")
    made = []
    for table in value:
        parts: dict[str, object] = {}
        for part, given in table.items():
            if part not in known:
                raise SettingsError(f"{where}: unknown setting {name}.{part}{nearest(part, known)}")
            if known[part] is tuple:
                given = _strings(f"{name}.{part}", given, where)
            elif type(given) is not known[part]:
                wanted = {str: "text", int: "a whole number", bool: "true or false"}[known[part]]
                raise SettingsError(f"{where}: {name}.{part} must be {wanted}")
            parts[part] = given
        made.append(of(**parts))
    return tuple(made)
