# SPDX-License-Identifier: Apache-2.0
"""Which settings may be used together: what binds where, and where data may live.

DESIGN §3: everything binds to loopback unless what guards it is named.
"""

import importlib.util
import ipaddress
from collections.abc import Callable, Iterator
from pathlib import Path

from gateway.settings import DimseSettings, HttpSettings, Settings, SettingsError

UNBUILT_AUTH = ("local", "oidc")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def host_port(bind: str, name: str = "bind") -> tuple[str, int]:
    """``("127.0.0.1", 8080)`` of ``127.0.0.1:8080``, ``[::1]:8080`` or ``localhost:8080``.

    Host names are refused (one that resolves elsewhere tomorrow would undo the
    rules), ``localhost`` excepted, which is 127.0.0.1.
    """
    host, colon, port = bind.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise SettingsError(f"{name}: {bind!r} is not ADDRESS:PORT")
    host = host.removeprefix("[").removesuffix("]") if host.startswith("[") else host
    if host == "localhost":
        host = "127.0.0.1"
    try:
        ipaddress.ip_address(host)
    except ValueError:
        raise SettingsError(f"{name}: {host!r} is not an IP address") from None
    return host, int(port)


def plain_address(host: str) -> Address:
    """The address, an IPv4 one mapped into IPv6 as IPv4."""
    address = ipaddress.ip_address(host)
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def is_loopback(host: str) -> bool:
    return plain_address(host).is_loopback


def _is_loopback_network(found: Network) -> bool:
    """Whether every address of the network is loopback, IPv4 ones mapped into IPv6 too."""
    first, last = (plain_address(str(address)) for address in (found[0], found[-1]))
    return first.version == last.version and first.is_loopback and last.is_loopback


def network(text: str, name: str) -> Network:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise SettingsError(f"{name}: {text!r} is not a CIDR network") from None


def http_refusals(http: HttpSettings, auth_mode: str) -> Iterator[str]:
    """Why the web server may not start so."""
    host, _ = host_port(http.bind, "http.bind")
    for text in http.trusted_proxies:
        network(text, "http.trusted_proxies")
    if auth_mode in UNBUILT_AUTH:
        yield f'auth.mode = "{auth_mode}" is not part of this release; only "open" is, on loopback'
    if http.server == "granian" and importlib.util.find_spec("granian") is None:
        yield "http.server = \"granian\" needs granian: pip install 'coverslip[granian]'"
    if http.public_url and not http.public_url.startswith(("http://", "https://")):
        yield "http.public_url must start with http:// or https://"
    if http.behind_proxy and not http.trusted_proxies:
        yield "http.behind_proxy needs the proxies' networks in http.trusted_proxies"
    if http.behind_proxy and auth_mode == "open":
        for text in http.trusted_proxies:
            if not _is_loopback_network(network(text, "http.trusted_proxies")):
                yield (
                    f'http.trusted_proxies = "{text}" is beyond loopback, where auth.mode = "open" '
                    "would give everybody behind that proxy everything: put the proxy beside this server, "
                    "at 127.0.0.1 (docs/adr/0007)"
                )
    if is_loopback(host):
        return
    if auth_mode == "open":
        yield (
            f'http.bind = "{http.bind}" reaches beyond loopback, where auth.mode = "open" would give '
            "everybody everything: bind to 127.0.0.1"
        )
    elif not http.behind_proxy:
        yield f'http.bind = "{http.bind}" reaches beyond loopback without TLS: set http.behind_proxy'


def dimse_refusals(dimse: DimseSettings) -> Iterator[str]:
    """Why the DICOM listeners may not start so."""
    # Not above, see storage_refusals.
    from archive.peer import is_ae_title
    from gateway.settings_peers import read_peers

    if not dimse.bind and not dimse.tls_bind:
        return
    reaches_out = False
    for name, bind in (("dimse.bind", dimse.bind), ("dimse.tls_bind", dimse.tls_bind)):
        if bind and not is_loopback(host_port(bind, name)[0]):
            reaches_out = True
            if not dimse.peers and not dimse.peers_file:
                yield f'{name} = "{bind}" reaches beyond loopback: name the peers in dimse.peers or a file'
    if not is_ae_title(dimse.ae_title):
        yield (
            f"dimse.ae_title: {dimse.ae_title!r} is not an AE title "
            "(1 to 16 printable ASCII characters, no backslash)"
        )
    peers = read_peers(dimse)
    for peer in peers:
        if reaches_out and not peer.networks and not peer.host:
            yield f"dimse.peers {peer.ae_title}: beyond loopback a peer needs its networks (CIDR)"
        if peer.needs_tls and peer.networks and peer.rights and not dimse.tls_bind:
            yield f"dimse.peers {peer.ae_title} comes by TLS only: set dimse.tls_bind"
        if peer.is_bound and peer.networks and dimse.tls_bind and dimse.tls_client_certificate == "none":
            yield (
                f"dimse.peers {peer.ae_title} is known by its certificate, "
                'which dimse.tls_client_certificate = "none" never asks for'
            )
    if dimse.bind and not is_loopback(host_port(dimse.bind)[0]) and not dimse.allow_plaintext:
        yield (
            f'dimse.bind = "{dimse.bind}" reaches beyond loopback without TLS: '
            "set dimse.allow_plaintext = true to accept that"
        )
    if dimse.tls_bind or any(peer.tls and peer.host for peer in peers):
        yield from _tls_refusals(dimse)


def _tls_refusals(dimse: DimseSettings) -> Iterator[str]:
    """Whether OpenSSL can use the files that are named."""
    from gateway.tls import client_context, server_context, tls_settings

    settings = tls_settings(dimse)
    try:
        if dimse.tls_bind:
            server_context(settings)
        else:
            client_context(settings, None)
    except SettingsError as error:
        yield str(error)


def storage_refusals(settings: Settings, kind_of: Callable[[Path], str] | None = None) -> Iterator[str]:
    """Why data may not be kept so."""
    # Not above: the supervisor loads this module, and nothing of the archive but this leaf.
    from archive.index.file_systems import network_file_system

    kind_of = kind_of or network_file_system
    url = settings.database
    if not url.startswith(("sqlite:///", "postgresql://")):
        yield "database_url must start with sqlite:/// or postgresql://"
    if settings.storage_url and not settings.storage_url.startswith("file:///"):
        yield "storage_url must start with file:/// in this release"
    database = settings.sqlite_path
    if database is None:
        return
    # A relative database path is below data_dir: one file system for both in practice,
    # but the write lock stands in data_dir whatever the database's place.
    for name, path in (("data_dir", settings.data), ("database_url", database.parent)):
        if kind := kind_of(path):
            yield (
                f"{name} is on {kind}, where SQLite's locks do not hold: "
                "use a local disk, or PostgreSQL in database_url"
            )
            return


def routing_refusals(file: str) -> Iterator[str]:
    """Why nothing can be routed so."""
    from gateway.routing import load_rules

    if file:
        try:
            load_rules(Path(file))
        except SettingsError as error:
            yield str(error)


def refusals(settings: Settings) -> list[str]:
    """Every reason not to start with these settings; empty when all is well."""
    found: list[str] = []
    parts: list[Iterator[str]] = [
        http_refusals(settings.http, settings.auth.mode),
        dimse_refusals(settings.dimse),
        storage_refusals(settings),
        routing_refusals(settings.routing.file),
    ]
    for part in parts:
        try:
            found.extend(part)
        except SettingsError as error:
            found.append(str(error))
    return found


def check(settings: Settings) -> None:
    """SettingsError with the first refusal, if any."""
    for reason in refusals(settings):
        raise SettingsError(reason)
