# SPDX-License-Identifier: Apache-2.0
"""Which application entities may associate, and as whom they act.

With a table of peers an association needs a calling AE title of the table *and* an
address in one of its networks: an AE title is no secret. Without a table anybody may
associate, which the settings allow on loopback only.
"""

import ipaddress
import ssl
from collections.abc import Sequence
from dataclasses import dataclass

from archive.access import Principal
from gateway.settings import Peer

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True)
class Destination:
    """Where a peer listens; ``tls`` is how its certificate is judged, None for plain TCP."""

    ae_title: str
    host: str
    port: int
    tls: ssl.SSLContext | None = None


def parse_address(text: str) -> Address:
    """An address as the socket gave it; IPv4 mapped into IPv6 becomes IPv4.

    Raises ValueError.
    """
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


class PeerTable:
    """The peers of the settings, ready to be asked. Raises ValueError for a bad network."""

    def __init__(self, peers: Sequence[Peer]) -> None:
        self._peers = [
            (peer.ae_title.strip(), [ipaddress.ip_network(text, strict=False) for text in peer.networks])
            for peer in peers
        ]

    def principal(self, calling_ae_title: str, address: str) -> Principal | None:
        """Who associates, or None where the table does not know that title from there."""
        title = calling_ae_title.strip()
        try:
            source = parse_address(address)
        except ValueError:
            return None
        if not self._peers:
            return Principal(title, "dimse", str(source)) if source.is_loopback else None
        for known_title, networks in self._peers:
            if known_title == title and any(source in network for network in networks):
                return Principal(title, "dimse", str(source), roles=frozenset({"peer"}))
        return None
