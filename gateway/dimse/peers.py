# SPDX-License-Identifier: Apache-2.0
"""Which application entities may associate, as whom they act, and where we call them.

An association needs a calling AE title of the table, an address in one of its peer's
networks and, where the peer is bound to certificates, one of them: an AE title is no
secret. With nobody in the table anybody may associate from this machine, and nobody else.
"""

import ipaddress
import logging
import ssl
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from archive.access import Principal
from archive.errors import ArchiveError
from archive.peer import Peer
from gateway.delivery import DeliveryError
from gateway.dimse.rights import ALL_RIGHTS, Right
from gateway.settings import DimseSettings
from gateway.settings_peers import configured_peers
from gateway.settings_read import SettingsError
from gateway.tls import Secured, TlsSettings, client_context, is_bound_to, tls_settings

if TYPE_CHECKING:
    from archive.service import Archive

log = logging.getLogger(__name__)

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Source = Callable[[], Sequence[Peer]]


@dataclass(frozen=True, slots=True)
class Destination:
    """Where a peer listens; ``tls`` is how its certificate is judged, None for plain TCP."""

    ae_title: str
    host: str
    port: int
    tls: ssl.SSLContext | None = None


@dataclass(frozen=True, slots=True)
class Admitted:
    """Who associates, and what for."""

    principal: Principal
    rights: frozenset[Right]


class NotRecognized(Exception):
    """Nobody of the table; ``str()`` says why, for the log and the trail, in fixed words."""


def parse_address(text: str) -> Address:
    """An address as the socket gave it; IPv4 mapped into IPv6 becomes IPv4.

    Raises ValueError.
    """
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


class PeerTable:
    """Asks its sources at every question, so that a change counts at once. Of two peers
    with one AE title the earlier source's is the peer."""

    def __init__(self, *sources: Source, tls: TlsSettings | None = None) -> None:
        """``tls``: our certificate and whom we trust, for peers that we call by TLS."""
        self._sources = sources
        self._tls = tls or TlsSettings(None, None, None)

    def admit(self, calling_ae_title: str, address: str, secured: Secured | None = None) -> Admitted:
        """Who calls itself so and comes from there, by TLS if ``secured``. Raises NotRecognized."""
        title = calling_ae_title.strip()
        try:
            source = parse_address(address)
        except ValueError:
            raise NotRecognized("no address") from None
        peers = self._peers()
        if not peers:
            if not source.is_loopback:
                raise NotRecognized("from beyond this machine, and no peer is named")
            return Admitted(Principal(title, "dimse", str(source)), ALL_RIGHTS)
        peer = peers.get(title)
        if peer is None:
            raise NotRecognized("unknown calling AE title")
        if not any(source in network for network in peer.parsed_networks()):
            raise NotRecognized("not from that peer's networks")
        _check_certificate(peer, secured)
        if not peer.rights:
            raise NotRecognized("a peer without any right")
        principal = Principal(title, "dimse", str(source), roles=frozenset({"peer"}))
        return Admitted(principal, frozenset(map(Right, peer.rights)))

    def principal(
        self, calling_ae_title: str, address: str, secured: Secured | None = None
    ) -> Principal | None:
        """As :meth:`admit`; None where the table does not know that title from there."""
        try:
            return self.admit(calling_ae_title, address, secured).principal
        except NotRecognized:
            return None

    def rights(self, ae_title: str) -> frozenset[Right]:
        """What the peer of that title may ask for now; nothing where there is none."""
        peers = self._peers()
        if not peers:
            return ALL_RIGHTS
        peer = peers.get(ae_title.strip())
        return frozenset() if peer is None else frozenset(map(Right, peer.rights))

    def stations(self, ae_title: str) -> tuple[str, ...] | None:
        """The stations whose worklist items the peer of that title sees; None: all."""
        peer = self._peers().get(ae_title.strip())
        return peer.stations or None if peer is not None else None

    def destination(self, ae_title: str) -> Destination | None:
        """Where to call the peer of that title; None where there is none, or it has no
        address. Raises DeliveryError where our own TLS files cannot be used just now."""
        peer = self._peers().get(ae_title.strip())
        if peer is None or not peer.host:
            return None
        try:
            context = client_context(self._tls, peer) if peer.tls else None
        except SettingsError as error:
            raise DeliveryError(f"{peer.ae_title} cannot be called: {error}") from None
        return Destination(peer.ae_title, peer.host, peer.port, context)

    def ae_titles(self) -> list[str]:
        """All of them, sorted."""
        return sorted(self._peers())

    def _peers(self) -> dict[str, Peer]:
        return {peer.ae_title: peer for source in reversed(self._sources) for peer in source()}


def _check_certificate(peer: Peer, secured: Secured | None) -> None:
    if secured is None:
        if peer.needs_tls:
            raise NotRecognized("without TLS, which that peer comes by")
        return
    certificate = secured.certificate
    if certificate is not None and certificate.not_after < time.time():
        raise NotRecognized("an expired certificate")
    if not is_bound_to(peer, certificate):
        raise NotRecognized("not that peer's certificate" if certificate else "without a certificate")


class _KeptPeers:
    """The database's peers. While it does not answer, the last ones are believed: an
    archive that is busy must not forget whom it knows, nor take everybody for a friend."""

    def __init__(self, archive: "Archive") -> None:
        self._archive = archive
        self._last = archive.known_peers()

    def __call__(self) -> tuple[Peer, ...]:
        try:
            self._last = self._archive.known_peers()
        except ArchiveError as error:
            log.error("the peers of the database cannot be read: %s", error)
        return self._last


def peer_table(archive: "Archive", settings: DimseSettings) -> PeerTable:
    """The peers of the settings, of their file and of the database. Raises SettingsError,
    ArchiveError."""
    return PeerTable(configured_peers(settings), _KeptPeers(archive), tls=tls_settings(settings))
