# SPDX-License-Identifier: Apache-2.0
"""UIDs that we mint, and identifiers for what nobody knows: the same input, the same names.

A UID is a UUIDv5 below 2.25 (PS3.5 B.2). Its name space comes from the site's secret, so
that an outsider who has the scanner's file cannot compute the UIDs of its images; the
name holds what the object is made from.
"""

import hashlib
import hmac
import uuid
from collections.abc import Iterable

WRITER_PROFILE = 2
"""Raised whenever the same slide would give other headers or other frames."""

IMPLEMENTATION_VERSION_NAME = f"COVERSLIP_P{WRITER_PROFILE}"
SOFTWARE_VERSION = f"writer profile {WRITER_PROFILE}"

LEAST_UID = 10**37
"""From here on a UUID has 38 or 39 digits, and a UID 44 bytes; one of 34 has fewer."""

PUBLIC_SECRET = bytes(32)
"""For ``convert`` without a site: everybody gets the same UIDs from the same file."""


class Names:
    """Names for one slide: ``source_digest`` is the SHA-256 of its file (or manifest)."""

    def __init__(self, secret: bytes, source_digest: bytes) -> None:
        if len(secret) < 16 or len(source_digest) != 32:
            raise ValueError("a secret of at least 16 bytes and a SHA-256 are needed")
        space = hmac.digest(secret, b"coverslip uid name space", hashlib.sha256)
        self._space = uuid.UUID(bytes=space[:16])
        self._digest = source_digest

    def uid(self, role: str, *parts: object) -> str:
        """The UID of what ``role`` and ``parts`` name within this slide and profile."""
        return self._named(self._digest.hex(), str(WRITER_PROFILE), role, *map(str, parts))

    def shared_uid(self, role: str, *parts: str) -> str:
        """The UID of what outlives the slide and the profile: a specimen, by issuer and
        identifier."""
        return self._named("shared", role, *parts)

    def _named(self, *parts: str) -> str:
        """Always as long, with its pad: a header has its length before the digest is known."""
        again: tuple[str, ...] = ()
        while (number := uuid.uuid5(self._space, _joined((*parts, *again))).int) < LEAST_UID:
            again = (*again, "again")
        return f"2.25.{number}"

    @property
    def unknown_identifier(self) -> str:
        """``UNKNOWN-`` and 8 digits of the digest (DESIGN 4): at most 16 characters."""
        return f"UNKNOWN-{int.from_bytes(self._digest[:8]) % 10**8:08d}"


def derived_uid(uid: str, *parts: object) -> str:
    """A UID that follows from another of ours (``2.25.`` and a UUID) and from what
    ``parts`` name: as secret as that one is."""
    space = uuid.UUID(int=int(uid.removeprefix("2.25.")))
    return f"2.25.{uuid.uuid5(space, _joined(map(str, parts))).int}"


def _joined(parts: Iterable[str]) -> str:
    return "".join(f"{len(part.encode())}:{part}" for part in parts)
