# SPDX-License-Identifier: Apache-2.0
"""A remote application entity: who it is, where it may come from, what it may ask for.

A value and its rules, nothing else: settings, the database and the network all make
their peers here, so that none of them holds a peer that another would refuse.
"""

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?", re.ASCII)
_MOST = 64  # networks, fingerprints or names of one peer
_MOST_CHARACTERS = 512
_SHA256_HEX = re.compile(r"[0-9a-f]{64}", re.ASCII)
NAME_KINDS = ("DNS", "IP", "URI", "email", "subject")


class Right(StrEnum):
    """A service that a peer may ask of us. MPPS is under WORKLIST."""

    ECHO = "echo"
    STORE = "store"
    FIND = "find"
    MOVE = "move"
    GET = "get"
    WORKLIST = "worklist"
    COMMIT = "commit"


DEFAULT_RIGHTS = (Right.ECHO, Right.STORE)
ALL_RIGHTS = frozenset(Right)


def is_ae_title(text: str) -> bool:
    """Whether ``text`` may be an AE title (PS3.5 Section 6.2: VR AE, not only spaces)."""
    return 1 <= len(text.strip()) <= 16 and text.isascii() and text.isprintable() and "\\" not in text


@dataclass(frozen=True, slots=True)
class Peer:
    """One application entity. Raises ValueError, one line, for what cannot be a peer.

    ``networks``: CIDR, where it may come from. ``host`` and ``port``: where we call it;
    empty and 0, never. ``tls``: by TLS in both directions. ``fingerprints`` (SHA-256 of
    the DER certificate, hexadecimal) and ``certificate_names`` (``DNS:scanner1.lab.example``,
    ``IP:…``, ``URI:…``, ``email:…``, ``subject:CN=Scanner 1,O=Lab``): it must show a
    certificate that is one of these and has one of these names; where there are any, it
    comes by TLS only. ``rights``: names of :class:`Right`. ``stations``: AE titles whose
    worklist items it sees, beside those for no station in particular; none: all items.
    """

    ae_title: str
    networks: tuple[str, ...] = ()
    host: str = ""
    port: int = 0
    tls: bool = False
    fingerprints: tuple[str, ...] = ()
    certificate_names: tuple[str, ...] = ()
    rights: tuple[str, ...] = DEFAULT_RIGHTS
    stations: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not is_ae_title(self.ae_title):
            raise ValueError(
                f"{self.ae_title[:64]!r} is not an AE title "
                "(1 to 16 printable ASCII characters, no backslash)"
            )
        put = object.__setattr__
        put(self, "ae_title", self.ae_title.strip())
        for name in ("networks", "fingerprints", "certificate_names", "rights", "stations"):
            values: tuple[str, ...] = getattr(self, name)
            if len(values) > _MOST or any(len(value) > _MOST_CHARACTERS for value in values):
                raise ValueError(
                    f"{self.ae_title}: at most {_MOST} {name} of {_MOST_CHARACTERS} characters each"
                )
        for text in self.networks:
            self._network(text)
        put(self, "fingerprints", tuple(map(self._fingerprint, self.fingerprints)))
        for name in self.certificate_names:
            self._check_name(name)
        put(self, "rights", tuple(self._right(text) for text in dict.fromkeys(self.rights)))
        if not all(map(is_ae_title, self.stations)):
            raise ValueError(f"{self.ae_title}: a station is no AE title")
        put(self, "stations", tuple(dict.fromkeys(text.strip() for text in self.stations)))
        self._check_address()

    def _network(self, text: str) -> Network:
        try:
            return ipaddress.ip_network(text, strict=False)
        except ValueError:
            raise ValueError(f"{self.ae_title}: {text!r} is not a CIDR network") from None

    def _fingerprint(self, text: str) -> str:
        digits = text.strip().lower().removeprefix("sha256:").replace(":", "")
        if not _SHA256_HEX.fullmatch(digits):
            raise ValueError(
                f"{self.ae_title}: {text!r} is not a SHA-256 fingerprint (64 hexadecimal digits)"
            )
        return digits

    def _check_name(self, text: str) -> None:
        kind, colon, value = text.partition(":")
        if not colon or kind not in NAME_KINDS or not value.strip() or not value.isprintable():
            raise ValueError(f"{self.ae_title}: {text!r} does not begin with one of {', '.join(NAME_KINDS)}:")

    def _right(self, text: str) -> Right:
        try:
            return Right(text)
        except ValueError:
            raise ValueError(
                f"{self.ae_title}: {text!r} is not a right (one of {', '.join(Right)})"
            ) from None

    def _check_address(self) -> None:
        if bool(self.host) != bool(self.port):
            raise ValueError(f"{self.ae_title}: host and port go together")
        if not 0 <= self.port <= 65535:
            raise ValueError(f"{self.ae_title}: port must be from 1 to 65535")
        if self.host and not _HOST.fullmatch(self.host):
            try:
                ipaddress.ip_address(self.host.partition("%")[0])
            except ValueError:
                raise ValueError(
                    f"{self.ae_title}: {self.host!r} is neither a host name nor an address"
                ) from None

    @property
    def is_bound(self) -> bool:
        """Whether only certain certificates are this peer."""
        return bool(self.fingerprints or self.certificate_names)

    @property
    def needs_tls(self) -> bool:
        """Whether it may come by TLS only."""
        return self.tls or self.is_bound

    def parsed_networks(self) -> tuple[Network, ...]:
        """``networks``, ready to be asked."""
        return tuple(map(self._network, self.networks))

    @classmethod
    def from_mapping(cls, table: Mapping[str, object]) -> "Peer":
        """A peer from TOML or JSON. Raises ValueError for unknown or ill-typed fields."""
        values: dict[str, object] = {}
        for name, value in table.items():
            kind = _KINDS.get(name)
            if kind is None:
                raise ValueError(f"a peer has no {name!r}")
            if kind is tuple:
                if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
                    raise ValueError(f"{name} must be a list of texts")
                value = tuple(value)
            elif type(value) is not kind:
                wanted = {str: "text", int: "a whole number", bool: "true or false"}[kind]
                raise ValueError(f"{name} must be {wanted}")
            values[name] = value
        if "ae_title" not in values:
            raise ValueError("a peer needs an ae_title")
        return cls(**values)  # type: ignore[arg-type]

    def to_mapping(self) -> dict[str, object]:
        """What :meth:`from_mapping` reads, in JSON's types."""
        found: dict[str, object] = {name: getattr(self, name) for name in _KINDS}
        return {name: [*value] if isinstance(value, tuple) else value for name, value in found.items()}


_KINDS: Mapping[str, type] = {
    "ae_title": str,
    "networks": tuple,
    "host": str,
    "port": int,
    "tls": bool,
    "fingerprints": tuple,
    "certificate_names": tuple,
    "rights": tuple,
    "stations": tuple,
}
