# SPDX-License-Identifier: Apache-2.0
"""Routing rules: which instances are sent on, and where to (``routing.file``, docs/routing.md).

Rules are pure: facts of an instance in, the destinations and the reasons out.
"""

import difflib
import fnmatch
import json
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any

from archive.values import Instance, Sender
from gateway.settings_read import SettingsError

# "Using substance" of a staining step (PS3.16 TID 8003), and its code before 2020.
_USING_SUBSTANCE = frozenset(("424361007", "G-C350"))
_MAX_RULES = 1000


class Facts:
    """What rules ask of one instance; what costs a look is looked up when asked for."""

    def __init__(
        self, instance: Instance, sender: Callable[[], Sender], metadata: Callable[[], bytes]
    ) -> None:
        self._instance = instance
        self._sender = sender
        self._load = metadata

    @cached_property
    def _json(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self._load())
        return found

    @cached_property
    def sender(self) -> Sender:
        """Where the instance came from."""
        return self._sender()

    def values(self, name: str) -> list[str]:
        """The values of an attribute of :class:`Rule`."""
        found: list[str] = getattr(self, f"_{name}")()
        return found

    def _modality(self) -> list[str]:
        return [self._instance.modality]

    def _sop_class(self) -> list[str]:
        return [self._instance.sop_class_uid]

    def _transfer_syntax(self) -> list[str]:
        return [self._instance.transfer_syntax_uid]

    def _image_type(self) -> list[str]:
        return list(self._instance.image_type)

    def _source(self) -> list[str]:
        return [self.sender.name]

    def _via(self) -> list[str]:
        return [self.sender.via]

    def _accession(self) -> list[str]:
        return _texts(self._json, "00080050")

    def _station(self) -> list[str]:
        return [*_texts(self._json, "00081010"), *_texts(self._json, "00081090")]

    def _protocol_study(self) -> list[str]:
        return _texts(self._json, "00120020")

    def _container(self) -> list[str]:
        return _texts(self._json, "00400512")

    def _body_site(self) -> list[str]:
        found = _texts(self._json, "00180015")
        specimens = self._json.get("00400560", {}).get("Value", [])
        for place in (self._json, *specimens):
            for tag in ("00082218", "00082228"):
                found += _codes(place, tag)
        return found

    def _stain(self) -> list[str]:
        found = []
        for specimen in self._json.get("00400560", {}).get("Value", []):
            for step in specimen.get("00400610", {}).get("Value", []):
                for item in step.get("00400612", {}).get("Value", []):
                    if _USING_SUBSTANCE & set(_codes(item, "0040A043")):
                        found += [*_codes(item, "0040A168"), *_texts(item, "0040A160")]
        return found


def _texts(item: Mapping[str, Any], tag: str) -> list[str]:
    return [str(value) for value in item.get(tag, {}).get("Value", []) if value is not None]


def _codes(item: Mapping[str, Any], tag: str) -> list[str]:
    """Code values and meanings of a code sequence, with the modifiers below it left out."""
    found = []
    for code in item.get(tag, {}).get("Value", []):
        found += [*_texts(code, "00080100"), *_texts(code, "00080119"), *_texts(code, "00080104")]
    return found


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule: all that it names must match. Of several patterns one must; ``*`` and ``?``
    stand for characters, case does not count."""

    name: str
    destinations: tuple[str, ...]
    modality: tuple[str, ...] = ()
    source: tuple[str, ...] = ()  # calling AE title, watched folder or user
    via: tuple[str, ...] = ()  # dimse, dicomweb, ingest, cli
    sop_class: tuple[str, ...] = ()
    transfer_syntax: tuple[str, ...] = ()
    image_type: tuple[str, ...] = ()
    not_image_type: tuple[str, ...] = ()
    body_site: tuple[str, ...] = ()  # code value or meaning
    stain: tuple[str, ...] = ()  # code value or meaning
    protocol_study: tuple[str, ...] = ()  # Clinical Trial Protocol ID
    accession: tuple[str, ...] = ()
    station: tuple[str, ...] = ()  # Station Name or Manufacturer's Model Name
    container: tuple[str, ...] = ()
    commit: bool = False
    delay_s: float = 0.0
    enabled: bool = True

    def why_not(self, facts: Facts) -> str | None:
        """None if the instance is this rule's, else the first reason."""
        if not self.enabled:
            return "the rule is not enabled"
        for name in _CONDITIONS:
            patterns = getattr(self, name)
            if not patterns:
                continue
            wanted = not name.startswith("not_")
            attribute = name.removeprefix("not_")
            hit = _hit(patterns, facts.values(attribute))
            if wanted and hit is None:
                return f"{attribute} is not {' or '.join(patterns)}"
            if not wanted and hit is not None:
                return f"{attribute} is {hit}"
        return None

    def receivers(self, facts: Facts) -> tuple[str, ...]:
        """The destinations; not the peer that sent it: it would go to and fro."""
        return tuple(ae for ae in self.destinations if facts.sender.via != "dimse" or ae != facts.sender.name)


_ACTIONS = {"name", "destinations", "commit", "delay_s", "enabled"}
# Cheap ones first: what needs the metadata is asked last.
_CONDITIONS = tuple(item.name for item in fields(Rule) if item.name not in _ACTIONS)


def _hit(patterns: tuple[str, ...], values: list[str]) -> str | None:
    for value in values:
        folded = value.strip().casefold()
        for pattern in patterns:
            if fnmatch.fnmatchcase(folded, pattern.casefold()):
                return pattern
    return None


@dataclass(frozen=True, slots=True)
class Rules:
    """All rules in order; every one that matches counts."""

    rules: tuple[Rule, ...] = field(default=())

    def decisions(self, facts: Facts) -> Iterator[tuple[Rule, str | None]]:
        """Each rule with the reason why it does not match, None if it does."""
        for rule in self.rules:
            yield rule, rule.why_not(facts)

    @property
    def destinations(self) -> tuple[str, ...]:
        """All AE titles that occur."""
        return tuple(dict.fromkeys(ae for rule in self.rules for ae in rule.destinations))


def load_rules(path: Path) -> Rules:
    """Raises SettingsError, naming rule and key."""
    try:
        return parse_rules(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise SettingsError(f"routing.file: {path}: {reason}") from None


def parse_rules(text: str, label: str) -> Rules:
    """Rules from TOML: ``[[rule]]`` tables. Raises SettingsError."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{label}: {error}") from None
    unknown = sorted(document.keys() - {"rule"})
    if unknown:
        raise SettingsError(f"{label}: unknown key {unknown[0]!r}; rules are [[rule]] tables")
    tables = document.get("rule", [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise SettingsError(f"{label}: rules are [[rule]] tables")
    if len(tables) > _MAX_RULES:
        raise SettingsError(f"{label}: more than {_MAX_RULES} rules")
    rules = tuple(_rule(table, f"{label}: rule {number}") for number, table in enumerate(tables, 1))
    names = [rule.name for rule in rules]
    for name in names:
        if names.count(name) > 1:
            raise SettingsError(f"{label}: two rules are named {name!r}")
    return Rules(rules)


def _rule(table: Mapping[str, object], where: str) -> Rule:
    known = {item.name for item in fields(Rule)}
    values: dict[str, Any] = {}
    name = table.get("name")
    if isinstance(name, str) and name:
        where = f"{where} ({name})"
    for key, value in table.items():
        if key not in known:
            near = difflib.get_close_matches(key, known, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise SettingsError(f"{where}: unknown key {key!r}{hint}")
        values[key] = _value(key, value, where)
    if not values.get("name"):
        raise SettingsError(f"{where}: needs a name")
    if not values.get("destinations"):
        raise SettingsError(f"{where}: needs destinations")
    for title in values["destinations"]:
        if not (0 < len(title) <= 16 and title.isascii() and title.isprintable() and "\\" not in title):
            raise SettingsError(f"{where}: {title!r} is no AE title")
    return Rule(**values)


def _value(key: str, value: object, where: str) -> object:
    if key in ("commit", "enabled"):
        if not isinstance(value, bool):
            raise SettingsError(f"{where}: {key} must be true or false")
        return value
    if key == "delay_s":
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 30 * 86400:
            raise SettingsError(f"{where}: delay_s must be a number of seconds, up to 30 days")
        return float(value)
    if key == "name":
        if not isinstance(value, str) or not 0 < len(value) <= 64 or not value.isprintable():
            raise SettingsError(f"{where}: name must be a text of up to 64 characters")
        return value
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not texts or not all(isinstance(t, str) and t for t in texts):
        raise SettingsError(f"{where}: {key} must be a text or a list of texts")
    return tuple(text.strip() for text in texts)
