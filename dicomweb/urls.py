# SPDX-License-Identifier: Apache-2.0
"""Absolute URLs that work where the client stands, and never repeat what a client claims.

The base is, in this order: the configured ``public_url``; X-Forwarded-* of a trusted
proxy; else the scheme and port of the socket with a name of ours. The Host header alone
decides nothing: dicomweb-client sends it without the port, attackers with anything.
"""

from collections.abc import Mapping
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Any
from urllib.parse import urlsplit

from dicomweb.settings import WebSettings

ROOT = "/dicom-web"
_DEFAULT_PORTS = {"http": "80", "https": "443"}
_WILDCARD_BINDS = frozenset({"0.0.0.0", "::", ""})

Environ = Mapping[str, Any]


@lru_cache(maxsize=1024)
def split_host(value: str) -> tuple[str, str]:
    """Host header -> (name without brackets in lower case, port or "")."""
    value = value.strip().lower()
    if value.startswith("["):
        name, _, rest = value[1:].partition("]")
        return name, rest.removeprefix(":")
    name, _, port = value.partition(":")
    return name, port


@lru_cache(maxsize=4096)
def _is_within(address: str, networks: tuple[IPv4Network | IPv6Network, ...]) -> bool:
    try:
        parsed = ip_address(address)
    except ValueError:
        return False
    if isinstance(parsed, IPv6Address) and parsed.ipv4_mapped is not None:
        parsed = parsed.ipv4_mapped
    return any(parsed.version == network.version and parsed in network for network in networks)


def is_from_proxy(environ: Environ, settings: WebSettings) -> bool:
    """Whether the peer of this connection is a proxy that we believe."""
    return bool(settings.proxies) and _is_within(environ.get("REMOTE_ADDR", ""), settings.proxies)


def _last(environ: Environ, name: str) -> str:
    """The last member of a list header: the one that our own proxy wrote."""
    return str(environ.get(name, "")).rpartition(",")[2].strip()


def remote_address(environ: Environ, settings: WebSettings) -> str:
    """The client's address: the socket's, or the nearest untrusted one a proxy reports."""
    address = str(environ.get("REMOTE_ADDR", ""))
    if is_from_proxy(environ, settings):
        hops = [hop.strip() for hop in str(environ.get("HTTP_X_FORWARDED_FOR", "")).split(",") if hop.strip()]
        for hop in reversed(hops):
            address = split_host(hop)[0] if hop.count(":") < 2 or hop.startswith("[") else hop
            if not _is_within(address, settings.proxies):
                break
    return address


def requested_host(environ: Environ, settings: WebSettings) -> str:
    """The host that the client named, as our proxy saw it, with port if it gave one."""
    if is_from_proxy(environ, settings):
        forwarded = _last(environ, "HTTP_X_FORWARDED_HOST")
        if forwarded:
            return forwarded
    return str(environ.get("HTTP_HOST", ""))


def scheme_of(environ: Environ, settings: WebSettings) -> str:
    if is_from_proxy(environ, settings):
        forwarded = _last(environ, "HTTP_X_FORWARDED_PROTO").lower()
        if forwarded in _DEFAULT_PORTS:
            return forwarded
    return str(environ.get("wsgi.url_scheme", "http"))


@lru_cache(maxsize=1024)
def _join(scheme: str, name: str, port: str, prefix: str) -> str:
    shown = f"[{name}]" if ":" in name else name
    if port and port != _DEFAULT_PORTS[scheme]:
        shown = f"{shown}:{port}"
    return f"{scheme}://{shown}{prefix.rstrip('/')}"


def base_url(environ: Environ, settings: WebSettings) -> str:
    """Scheme, host, port and prefix, without a slash at the end.

    The name in Host is used when it is one of ours, since a browser treats ``localhost``
    and ``127.0.0.1`` as two origins; its port never is.
    """
    if settings.public_url:
        return settings.public_url.rstrip("/")
    scheme = scheme_of(environ, settings)
    prefix = str(environ.get("SCRIPT_NAME", ""))
    name, port = split_host(requested_host(environ, settings))
    if is_from_proxy(environ, settings) and environ.get("HTTP_X_FORWARDED_HOST"):
        port = _last(environ, "HTTP_X_FORWARDED_PORT") or port
        prefix = _last(environ, "HTTP_X_FORWARDED_PREFIX") or prefix
        if port and not port.isdigit():
            port = ""
    else:
        port = str(environ.get("SERVER_PORT", ""))
    if name not in settings.hosts:
        name = str(environ.get("SERVER_NAME", "localhost")).lower()
        if name in _WILDCARD_BINDS:
            name = "localhost"
    return _join(scheme, name, port, prefix)


def origins(environ: Environ, settings: WebSettings) -> frozenset[str]:
    """Origins from which a state change is our own page's."""
    own = {f"{scheme_of(environ, settings)}://{requested_host(environ, settings).lower()}"}
    if settings.public_url:
        public = urlsplit(settings.public_url)
        own.add(f"{public.scheme}://{public.netloc}".lower())
    return frozenset(own)


def study_path(study: str) -> str:
    return f"{ROOT}/studies/{study}"


def series_path(study: str, series: str) -> str:
    return f"{ROOT}/studies/{study}/series/{series}"


def instance_path(study: str, series: str, instance: str) -> str:
    return f"{ROOT}/studies/{study}/series/{series}/instances/{instance}"


def non_patient_path(category: str, instance: str) -> str:
    return f"{ROOT}/{category}/{instance}"
