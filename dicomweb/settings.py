# SPDX-License-Identifier: Apache-2.0
"""What the HTTP edge must be told; composed by ``gateway``, never read from the environment."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from urllib.parse import urlsplit

from archive.peer import Peer

LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True)
class WebSettings:
    """Every number here bounds what one request can cost."""

    public_url: str = ""
    """Scheme, host, port and prefix that clients reach us by, ``https://pacs.example/coverslip``.
    Empty: the address of the socket the request came in by."""

    auth_mode: str = "open"
    """Shown by ``/api/system``. In ``open`` mode the Host header must name this machine."""

    trusted_hosts: tuple[str, ...] = ()
    """Further names accepted in Host, without port."""

    behind_proxy: tuple[str, ...] = ()
    """CIDR ranges whose X-Forwarded-* and X-Request-Id are believed."""

    cors_origins: tuple[str, ...] = ()
    """Origins (``https://viewer.example``) of viewers served elsewhere. Empty: no CORS at all."""

    service_name: str = "Coverslip"
    version: str = ""
    watch_folders: tuple[str, ...] = ()
    """Names of the watched folders, as the page shows them."""

    configured_peers: Callable[[], Sequence[Peer]] = tuple
    """The DICOM peers that the settings name, as they are now."""

    metrics_dir: Path | None = None
    """Where several processes share their counters (prometheus-client's mmap files).
    None: this process alone."""

    unhealthy_file: Path | None = None
    """There (and says why) while other processes of this server keep failing."""

    frames_per_request: int = 2_000
    results_default: int = 1_000
    """QIDO rows when ``limit`` is absent; the rest is announced by Warning 299."""

    results_limit: int = 10_000
    parts_per_request: int = 10_000
    rendered_pixels: int = 4_096
    """Largest rows or columns of one rendered image."""

    proxies: tuple[IPv4Network | IPv6Network, ...] = field(init=False)
    hosts: frozenset[str] = field(init=False)
    """Names that Host may carry."""

    def __post_init__(self) -> None:
        """Raises ValueError for a network or URL that is none."""
        object.__setattr__(self, "proxies", tuple(ip_network(cidr) for cidr in self.behind_proxy))
        names = {name.lower() for name in self.trusted_hosts} | LOCAL_NAMES
        if self.public_url:
            public = urlsplit(self.public_url)
            if public.scheme not in ("http", "https") or not public.hostname:
                raise ValueError(f"public_url must be an http or https URL, not {self.public_url!r}")
            names.add(public.hostname)
        object.__setattr__(self, "hosts", frozenset(names))
