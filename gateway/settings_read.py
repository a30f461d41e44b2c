# SPDX-License-Identifier: Apache-2.0
"""From TOML and text to checked values: what ``gateway.settings.load`` is made of."""

import difflib
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path

from gateway.settings import KEYS, Key, Peer, SettingsError

TRUE = ("true", "1", "yes", "on")
FALSE = ("false", "0", "no", "off")


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


def flatten(table: Mapping[str, object], where: str, prefix: str = "") -> dict[str, object]:
    """``{"http": {"bind": x}}`` as ``{"http.bind": x}``; refuses what is not a key."""
    groups = {name.rpartition(".")[0] for name in KEYS} - {""}
    found: dict[str, object] = {}
    for name, value in table.items():
        full = prefix + name
        if full in KEYS:
            found[full] = value
        elif full in groups and isinstance(value, Mapping):
            found |= flatten(value, where, f"{full}.")
        elif full in groups:
            raise SettingsError(f"{where}: {full} is a table of settings, not a value")
        else:
            raise SettingsError(f"{where}: unknown setting {full}{nearest(full, [*KEYS, *groups])}")
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
    if key.type == tuple[Peer, ...]:
        return _peers(key.name, value, where)
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


def _peers(name: str, value: object, where: str) -> tuple[Peer, ...]:
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise SettingsError(f"{where}: {name} must be a list of tables with ae_title and networks")
    peers = []
    for item in value:
        for part in item:
            if part not in ("ae_title", "networks"):
                raise SettingsError(
                    f"{where}: unknown setting {name}.{part}{nearest(part, ('ae_title', 'networks'))}"
                )
        title = item.get("ae_title", "")
        if not isinstance(title, str):
            raise SettingsError(f"{where}: {name}.ae_title must be text")
        peers.append(Peer(title, _strings(f"{name}.networks", item.get("networks", []), where)))
    return tuple(peers)
