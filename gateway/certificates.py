# SPDX-License-Identifier: Apache-2.0
"""X.509 certificates (RFC 5280) as far as we look into them: who it is, and until when.

Chains are verified by OpenSSL; here a verified certificate is compared with what the
settings expect.
"""

import hashlib
import ipaddress
import re
import ssl
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from gateway.settings_read import SettingsError

_PEM = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
_UTC_TIME, _GENERALIZED_TIME, _VERSION = 0x17, 0x18, 0xA0

# Attribute types of a subject by the name that OpenSSL gives them (RFC 4514 Section 3).
_SHORT = {
    "commonName": "CN", "organizationName": "O", "organizationalUnitName": "OU", "countryName": "C",
    "localityName": "L", "stateOrProvinceName": "ST", "domainComponent": "DC", "userId": "UID",
    "streetAddress": "STREET",
}  # fmt: skip
_KINDS = {"DNS": "DNS", "IP Address": "IP", "URI": "URI", "email": "email"}


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate that was verified. ``names``: ``DNS:…``, ``IP:…``, ``URI:…`` and
    ``email:…`` of its subject alternative names; ``subject``: (attribute, value) pairs;
    ``not_after``: seconds since the epoch."""

    fingerprint: str
    names: frozenset[str]
    subject: frozenset[tuple[str, str]]
    not_after: float

    @classmethod
    def of_peer(cls, connection: ssl.SSLSocket) -> "Certificate | None":
        """Of the other side; None where it showed none, or none was asked for."""
        encoded = connection.getpeercert(binary_form=True)
        decoded = connection.getpeercert()
        if encoded is None or not decoded:
            return None
        alternative: Iterable[tuple[str, str]] = decoded.get("subjectAltName", ())  # type: ignore[assignment]
        relative: Iterable[Iterable[tuple[str, str]]] = decoded.get("subject", ())  # type: ignore[assignment]
        return cls(
            fingerprint=fingerprint(encoded),
            names=frozenset(
                _normal(f"{_KINDS[kind]}:{value}") for kind, value in alternative if kind in _KINDS
            ),
            subject=frozenset((_SHORT.get(name, name), value) for part in relative for name, value in part),
            not_after=ssl.cert_time_to_seconds(str(decoded["notAfter"])),
        )

    def has_name(self, name: str) -> bool:
        """Whether it goes by ``DNS:…`` and the like, or its subject has every attribute of
        ``subject:CN=…,O=…``."""
        if name.startswith("subject:"):
            wanted = frozenset(_attributes(name.removeprefix("subject:")))
            return bool(wanted) and wanted <= self.subject
        return _normal(name) in self.names


def fingerprint(encoded: bytes) -> str:
    """SHA-256 of the DER form, hexadecimal."""
    return hashlib.sha256(encoded).hexdigest()


def _normal(name: str) -> str:
    kind, _, value = name.partition(":")
    value = value.strip()
    if kind == "DNS":
        return f"DNS:{value.lower().rstrip('.')}"
    if kind == "IP":
        try:
            return f"IP:{ipaddress.ip_address(value)}"
        except ValueError:
            return name
    return f"{kind}:{value}"


def _attributes(text: str) -> Iterator[tuple[str, str]]:
    r"""``CN=Scanner 1,O=Lab\, Ltd.`` as pairs (RFC 4514, backslash before a comma)."""
    for part in re.split(r"(?<!\\),", text):
        name, _, value = part.partition("=")
        yield name.strip(), re.sub(r"\\(.)", r"\1", value.strip())


def read_certificates(path: Path) -> list[bytes]:
    """The DER form of each certificate in a PEM file. Raises SettingsError."""
    try:
        text = path.read_text(encoding="ascii", errors="replace")
    except OSError as error:
        raise SettingsError(f"cannot read {path}: {error.strerror}") from None
    try:
        found = [ssl.PEM_cert_to_DER_cert(block) for block in _PEM.findall(text)]
    except ValueError:
        found = []
    if not found or not all(found):
        raise SettingsError(f"{path} holds no certificate in PEM form")
    return found


def validity(encoded: bytes) -> tuple[datetime, datetime]:
    """notBefore and notAfter of a DER certificate (RFC 5280 Section 4.1.2.5).

    Raises ValueError.
    """
    certificate = [*_elements(encoded), (0, b"")][0][1]
    to_be_signed = [*_elements(certificate), (0, b"")][0][1]
    fields = [value for kind, value in _elements(to_be_signed) if kind != _VERSION]
    # Serial number, signature algorithm and issuer stand before it.
    times = list(_elements(fields[3])) if len(fields) > 3 else []
    if len(times) != 2:
        raise ValueError("no validity")
    before, after = (_time(*one) for one in times)
    return before, after


def _elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(tag, value) of each DER element; tags of one byte only."""
    while data:
        if len(data) < 2:
            raise ValueError("cut off")
        tag, length, start = data[0], data[1], 2
        if length & 0x80:
            start += length & 0x7F
            length = int.from_bytes(data[2:start], "big")
        if len(data) < start + length:
            raise ValueError("cut off")
        yield tag, data[start : start + length]
        data = data[start + length :]


def _time(tag: int, value: bytes) -> datetime:
    text = value.decode("ascii")
    if tag == _UTC_TIME:
        text = ("20" if text[:2] < "50" else "19") + text
    elif tag != _GENERALIZED_TIME:
        raise ValueError("not a time")
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)
