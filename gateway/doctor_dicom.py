# SPDX-License-Identifier: Apache-2.0
"""What ``coverslip doctor`` says of DICOM's listeners: who speaks without TLS, and whose
certificate ends soon."""

import ssl
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from archive.peer import Peer
from gateway.certificates import read_certificates, validity
from gateway.settings import DimseSettings
from gateway.settings_check import host_port, is_loopback
from gateway.settings_peers import read_peers
from gateway.tls import client_context, server_context, tls_settings

SOON = timedelta(days=30)

Finding = tuple[str, str, str]
"""What was looked at; ``ok``, ``note`` or ``bad``; in words."""


def examine_dicom(dimse: DimseSettings) -> Iterator[Finding]:
    """Raises SettingsError."""
    if not dimse.bind and not dimse.tls_bind:
        return
    peers = read_peers(dimse)
    if dimse.bind:
        if is_loopback(host_port(dimse.bind, "dimse.bind")[0]):
            yield "DICOM", "ok", "without TLS, loopback only"
        else:
            yield from _without_tls(peers)
    for peer in peers:
        if peer.host and not peer.tls:
            yield f"peer {peer.ae_title}", "note", f"is called without TLS at {peer.host}:{peer.port}"
    yield from _tls(dimse)


def _without_tls(peers: tuple[Peer, ...]) -> Iterator[Finding]:
    for peer in peers:
        if peer.networks and not peer.needs_tls:
            yield (
                f"peer {peer.ae_title}", "note",
                f"may speak DICOM without TLS from {', '.join(peer.networks)}",
            )  # fmt: skip


def _tls(dimse: DimseSettings) -> Iterator[Finding]:
    settings = tls_settings(dimse)
    if dimse.tls_bind:
        server_context(settings)
        yield "DICOM TLS", "ok", f"{dimse.tls_bind}, profile {settings.profile}, {ssl.OPENSSL_VERSION}"
        if settings.clients != "require":
            yield "DICOM TLS", "note", "peers need not show a certificate"
    elif settings.certificate is not None:
        client_context(settings, None)
    if settings.certificate is not None:
        yield from _ends("our certificate", settings.certificate)
    if settings.ca is not None:
        yield from _ends("dimse.tls_ca", settings.ca)
    if settings.key is not None and settings.key.exists() and settings.key.stat().st_mode & 0o077:
        yield "dimse.tls_key", "note", f"{settings.key} can be read by others: chmod 600"


def _ends(name: str, path: Path) -> Iterator[Finding]:
    """The first end among the certificates of a file."""
    now = datetime.now(UTC)
    ends = []
    for encoded in read_certificates(path):
        try:
            before, after = validity(encoded)
        except ValueError:
            yield name, "bad", f"{path} holds a certificate that cannot be read"
            return
        if before > now:
            yield name, "bad", f"{path} is valid from {before:%Y-%m-%d} on"
            return
        ends.append(after)
    end = min(ends)
    if end <= now:
        yield name, "bad", f"{path} ended on {end:%Y-%m-%d}"
    else:
        state = "note" if end - now < SOON else "ok"
        yield name, state, f"{path} ends on {end:%Y-%m-%d}"
