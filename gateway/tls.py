# SPDX-License-Identifier: Apache-2.0
"""TLS for DICOM as PS3.15 B.12 and B.13 profile it (BCP 195: RFC 8996, RFC 9325).

TLS 1.2 with ephemeral elliptic-curve keys and authenticated encryption, TLS 1.3 wherever
the other side can; RSA keys of 2048 bits at least and no SHA-1 (OpenSSL's security level 2).
Of B.13's suites OpenSSL has no Camellia-GCM, and Python cannot ask it for CCM in TLS 1.3.
"""

import contextlib
import select
import socket
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from archive.peer import Peer
from gateway.certificates import Certificate
from gateway.settings import DimseSettings
from gateway.settings_read import SettingsError

_CIPHERS = {
    "bcp195": "ECDHE+AESGCM:ECDHE+CHACHA20:@SECLEVEL=2",
    # The suites of B.13 and no others; without those whose tags have 64 bits.
    "bcp195-modified": "ECDHE+AESGCM:ECDHE+CHACHA20:ECDHE+AESCCM:!AESCCM8:@SECLEVEL=2",
}
_VERIFY = {"require": ssl.CERT_REQUIRED, "request": ssl.CERT_OPTIONAL, "none": ssl.CERT_NONE}


@dataclass(frozen=True, slots=True)
class TlsSettings:
    """Files in PEM form. ``certificate`` is ours with its chain; ``ca`` verifies others';
    ``clients``: ``require``, ``request`` or ``none`` of their certificates."""

    certificate: Path | None
    key: Path | None
    ca: Path | None
    clients: str = "require"
    profile: str = "bcp195"

    @property
    def paths(self) -> list[Path]:
        return [path for path in (self.certificate, self.key, self.ca) if path is not None]


@dataclass(frozen=True, slots=True)
class Secured:
    """The other side of a TLS connection; ``certificate`` where it showed one."""

    certificate: Certificate | None
    version: str

    @classmethod
    def of(cls, connection: ssl.SSLSocket) -> "Secured":
        return cls(Certificate.of_peer(connection), str(connection.version()))


def tls_settings(dimse: DimseSettings) -> TlsSettings:
    """What ``dimse.tls_*`` says; relative paths are from the working directory."""

    def path(text: str) -> Path | None:
        return Path(text).absolute() if text else None

    return TlsSettings(
        path(dimse.tls_certificate), path(dimse.tls_key), path(dimse.tls_ca),
        dimse.tls_client_certificate, dimse.tls_profile,
    )  # fmt: skip


def server_context(settings: TlsSettings) -> ssl.SSLContext:
    """For connections that we accept. Raises SettingsError, naming the file."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _profile(context, settings.profile)
    # A resumed session would be one whose certificate nobody looked at again.
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.num_tickets = 0
    if settings.profile == "bcp195-modified":
        context.set_ecdh_curve("prime256v1")
    _load_own(context, settings)
    context.verify_mode = _VERIFY[settings.clients]
    if settings.clients != "none":
        _load_ca(context, settings)
    return context


class PeerContext(ssl.SSLContext):
    """For connections to one peer: its certificate must be one that the peer is bound to,
    or else name the host that we called."""

    peer: Peer | None

    def wrap_socket(self, sock: socket.socket, *args: Any, **options: Any) -> ssl.SSLSocket:
        """Hands are shaken when it returns, within the socket's timeout in all. Raises
        ssl.SSLError (whose message may be shown), TimeoutError, OSError."""
        timeout_s = sock.gettimeout()
        connection = super().wrap_socket(sock, *args, **{**options, "do_handshake_on_connect": False})
        try:
            shake_hands(connection, timeout_s)
            peer = self.peer
            if peer is not None and not is_bound_to(peer, Certificate.of_peer(connection)):
                raise _not_theirs(peer)
        except BaseException:  # also when interrupted: no connection stays behind
            connection.close()
            raise
        return connection


def client_context(settings: TlsSettings, peer: Peer | None) -> PeerContext:
    """For connections to ``peer``, with our certificate if we have one; without a CA of
    ours the system's are trusted. Raises SettingsError."""
    context = PeerContext(ssl.PROTOCOL_TLS_CLIENT)
    context.peer = peer
    _profile(context, settings.profile)
    context.check_hostname = peer is None or not peer.is_bound
    if settings.certificate is not None:
        _load_own(context, settings)
    if settings.ca is None:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    else:
        _load_ca(context, settings)
    return context


def is_bound_to(peer: Peer, certificate: Certificate | None) -> bool:
    """Whether the certificate is one of the peer's, and has one of its names; True where
    the peer is bound to none."""
    if not peer.is_bound:
        return True
    if certificate is None:
        return False
    if peer.fingerprints and certificate.fingerprint not in peer.fingerprints:
        return False
    return not peer.certificate_names or any(map(certificate.has_name, peer.certificate_names))


def shake_hands(connection: ssl.SSLSocket, timeout_s: float | None) -> None:
    """The whole handshake within ``timeout_s``; a socket's own timeout is for each read."""
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    connection.setblocking(False)
    while True:
        try:
            connection.do_handshake()
        except ssl.SSLWantReadError:
            _wait(connection, select.POLLIN, deadline)
        except ssl.SSLWantWriteError:
            _wait(connection, select.POLLOUT, deadline)
        else:
            connection.settimeout(timeout_s)
            return


def _wait(connection: ssl.SSLSocket, event: int, deadline: float | None) -> None:
    poll = select.poll()
    poll.register(connection, event)
    remaining_s = None if deadline is None else deadline - time.monotonic()
    if (remaining_s is not None and remaining_s <= 0) or not poll.poll(
        None if remaining_s is None else remaining_s * 1000
    ):
        raise TimeoutError("the TLS handshake was not complete in time")


def _not_theirs(peer: Peer) -> ssl.SSLCertVerificationError:
    """The error as OpenSSL makes it where a chain is wrong."""
    error = ssl.SSLCertVerificationError(1, "certificate verify failed")
    error.verify_message = f"the certificate is not {peer.ae_title}'s"
    error.reason = "CERTIFICATE_VERIFY_FAILED"
    return error


def reason(error: OSError) -> str:
    """What OpenSSL says, in one line without addresses: ``certificate has expired``."""
    if isinstance(error, ssl.SSLError):
        text = getattr(error, "verify_message", "") or error.reason or "TLS failed"
        return str(text).lower().replace("_", " ")
    return (error.strerror or type(error).__name__).lower()


def _profile(context: ssl.SSLContext, profile: str) -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_CIPHERS[profile])
    context.options |= ssl.OP_NO_COMPRESSION
    # A site may trust an intermediate authority, or one self-made certificate, by itself.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN


def _load_own(context: ssl.SSLContext, settings: TlsSettings) -> None:
    if settings.certificate is None or settings.key is None:
        raise SettingsError("TLS needs dimse.tls_certificate and dimse.tls_key")
    certificate, key = settings.certificate, settings.key
    with _naming(f"{certificate} and {key}", settings.paths):
        context.load_cert_chain(certificate, key, password=_no_password)


def _load_ca(context: ssl.SSLContext, settings: TlsSettings) -> None:
    if settings.ca is None:
        raise SettingsError("dimse.tls_ca must name the certificates that peers' are verified with")
    with _naming(str(settings.ca), [settings.ca]):
        context.load_verify_locations(settings.ca)


class _Encrypted(Exception):
    """A key that OpenSSL wants a password for."""


def _no_password() -> NoReturn:
    raise _Encrypted  # else OpenSSL asks at the terminal, and a server waits for ever


@contextlib.contextmanager
def _naming(names: str, paths: list[Path]) -> Iterator[None]:
    """OpenSSL's and the system's errors as SettingsError with the files' names."""
    try:
        for path in paths:
            path.open("rb").close()  # OpenSSL does not say which file is absent
        yield
    except _Encrypted:
        raise SettingsError(f"{names}: the key is encrypted") from None
    except ssl.SSLError as error:
        raise SettingsError(f"{names}: {reason(error)}") from None
    except OSError as error:
        raise SettingsError(f"cannot read {error.filename or names}: {error.strerror}") from None
