# SPDX-License-Identifier: Apache-2.0
"""The listener with TLS: who gets in, who does not, and that nobody keeps others out."""

import contextlib
import json
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pydicom
import pytest
from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    ModalityWorklistInformationFind,
    Verification,
    VLWholeSlideMicroscopyImageStorage,
)

from archive.peer import Peer as KnownPeer
from archive.service import Archive
from gateway.dimse.association_items import Proposal, encode_request
from gateway.dimse.pdu import PduType
from gateway.dimse.peers import PeerTable
from gateway.dimse.server import serve
from gateway.settings import DimseSettings, Peer
from gateway.tls import TlsSettings, client_context
from tests.gateway.dimse.running import AE_TITLE, Scp, listen, running
from tests.support.archives import ASK
from tests.support.certificates import Authority, Identity
from tests.support.instances import make_instance
from tests.support.require import require_tool

SCANNER = "SCANNER1"
ANYWHERE = ("127.0.0.0/8",)
ECHO = Proposal(Verification, ("1.2.840.10008.1.2",))


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def ours(authority: Authority) -> Identity:
    return authority.issue("archive")


@pytest.fixture(scope="module")
def scanner(authority: Authority) -> Identity:
    return authority.issue("scanner", alternative="DNS:scanner1.lab.example")


@pytest.fixture
def settings(authority: Authority, ours: Identity, scanner: Identity) -> DimseSettings:
    """SCANNER1 is known by its certificate; PLAIN has none and every right."""
    return DimseSettings(
        tls_bind="127.0.0.1:0", tls_certificate=str(ours.certificate), tls_key=str(ours.key),
        tls_ca=str(authority.certificate), association_timeout_s=2.0,
        peers=(
            Peer(SCANNER, ANYWHERE, fingerprints=(scanner.fingerprint,)),
            Peer("SCANNER2", ANYWHERE, certificate_names=("DNS:scanner2.lab.example",)),
            Peer("NOTHING", ANYWHERE, rights=()),
            Peer("PLAIN", ANYWHERE, rights=("echo", "worklist")),
        ),
    )  # fmt: skip


@pytest.fixture
def scp(archive: Archive, settings: DimseSettings) -> Iterator[Scp]:
    with running(archive, settings) as scp:
        yield scp


def client(authority: Authority, shown: Identity | None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(authority.certificate))
    if shown is not None:
        context.load_cert_chain(shown.certificate, shown.key)
    return context


@contextlib.contextmanager
def associated(
    port: int, ae_title: str, context: ssl.SSLContext | None, *, called: str = AE_TITLE
) -> Iterator[Association]:
    """pynetdicom as the peer; the association may have been refused."""
    ae = AE(ae_title)
    for sop_class in (Verification, VLWholeSlideMicroscopyImageStorage, ModalityWorklistInformationFind):
        ae.add_requested_context(sop_class)
    association = ae.associate(
        "127.0.0.1", port, ae_title=called, tls_args=(context, "localhost") if context else None
    )
    try:
        yield association
    finally:
        association.release() if association.is_established else association.abort()


def rejection(association: Association) -> tuple[int, int, int] | None:
    """(result, source, reason) of an A-ASSOCIATE-RJ, if that was the answer."""
    answer = association.acceptor.primitive
    if not association.is_rejected or answer is None:
        return None
    return answer.result, answer.result_source, answer.diagnostic


def alerts(archive: Archive) -> list[str]:
    """The reasons of all refusals in the trail (110113)."""
    model = archive._core.index.models.AuditEvent
    with archive._core.index.read():
        rows = list(model.select().where(model.code == "110113").order_by(model.id))
    return [str(json.loads(row.event)["detail"].get("reason", "")) for row in rows]


def eventually(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 20
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


def test_a_peer_with_its_certificate_echoes_and_stores_and_gets_no_more(
    scp: Scp, authority: Authority, scanner: Identity
) -> None:
    with associated(scp.tls_port, SCANNER, client(authority, scanner)) as association:
        assert association.is_established
        assert association.send_c_echo().Status == 0
        accepted = {context.abstract_syntax for context in association.accepted_contexts}
        assert accepted == {Verification, VLWholeSlideMicroscopyImageStorage}
        refused = {context.abstract_syntax: context.result for context in association.rejected_contexts}
        assert refused[ModalityWorklistInformationFind] == 1  # by the user, PS3.8 Table 9-18


@pytest.mark.parametrize(
    ("ae_title", "called", "reason"),
    [
        ("SCANNER2", AE_TITLE, 3),  # a good certificate of the lab, but not SCANNER2's
        ("STRANGER", AE_TITLE, 3),
        ("NOTHING", AE_TITLE, 3),
        (SCANNER, "SOMEBODY", 7),
    ],
)
def test_a_certificate_is_good_for_its_own_ae_title_only(
    scp: Scp, authority: Authority, scanner: Identity, ae_title: str, called: str, reason: int
) -> None:
    with associated(scp.tls_port, ae_title, client(authority, scanner), called=called) as association:
        assert rejection(association) == (1, 1, reason)
    assert any(text.startswith("association rejected: ") for text in alerts(scp.archive))


def test_a_peer_known_by_its_certificate_does_not_come_without_tls(scp: Scp) -> None:
    with associated(scp.port, SCANNER, None) as association:
        assert rejection(association) == (1, 1, 3)
    with associated(scp.port, "PLAIN", None) as association:
        assert association.is_established
    assert "association rejected: without TLS, which that peer comes by" in alerts(scp.archive)


def test_no_certificate_a_foreign_one_and_an_ended_one_are_refused_in_the_handshake(
    scp: Scp, authority: Authority, tmp_path: Path
) -> None:
    foreign = Authority(tmp_path / "foreign", "Another authority").issue("scanner")
    ended = authority.issue("ended", days=-1)
    for shown, why in (
        (None, "peer did not return a certificate"),
        (foreign, "unable to get local issuer certificate"),
        (ended, "certificate has expired"),
    ):
        with associated(scp.tls_port, SCANNER, client(authority, shown)) as association:
            assert not association.is_established
        assert eventually(lambda why=why: any(why in text for text in alerts(scp.archive))), why


@pytest.mark.parametrize(
    ("clients", "shown", "ae_title", "enters"),
    [
        ("request", False, "PLAIN", True),
        ("request", False, SCANNER, False),
        ("request", True, SCANNER, True),
        ("none", False, "PLAIN", True),
        ("none", True, SCANNER, False),  # never asked for it
    ],
)
def test_where_certificates_are_not_required_bound_peers_must_still_show_theirs(
    archive: Archive, settings: DimseSettings, authority: Authority, scanner: Identity,
    clients: str, shown: bool, ae_title: str, enters: bool,
) -> None:  # fmt: skip
    with running(archive, replace(settings, tls_client_certificate=clients)) as scp:
        with associated(scp.tls_port, ae_title, client(authority, scanner if shown else None)) as association:
            assert association.is_established == enters
            assert (rejection(association) == (1, 1, 3)) != enters


@pytest.mark.parametrize("version", ["-tls1", "-tls1_1"])
def test_tls_1_0_and_1_1_are_refused(scp: Scp, scanner: Identity, version: str) -> None:
    said = s_client(scp.tls_port, scanner, version, "-cipher", "ALL:@SECLEVEL=0")
    assert "alert protocol version" in said
    assert "Cipher is (NONE)" in said


@pytest.mark.parametrize("cipher", ["AES128-SHA", "AES256-GCM-SHA384", "ECDHE-RSA-AES256-SHA384", "NULL"])
def test_ciphers_without_forward_secrecy_or_authenticated_encryption_are_refused(
    archive: Archive, settings: DimseSettings, authority: Authority, scanner: Identity, cipher: str
) -> None:
    rsa = authority.issue("archive-rsa", rsa_bits=2048)
    settings = replace(settings, tls_certificate=str(rsa.certificate), tls_key=str(rsa.key))
    with running(archive, settings) as scp:
        said = s_client(scp.tls_port, scanner, "-tls1_2", "-cipher", f"{cipher}:@SECLEVEL=0")
        assert "Cipher is (NONE)" in said
        good = s_client(scp.tls_port, scanner, "-tls1_2", "-cipher", "ECDHE-RSA-AES128-GCM-SHA256")
        assert "Cipher is ECDHE-RSA-AES128-GCM-SHA256" in good


@pytest.mark.parametrize(
    ("profile", "key"), [("bcp195", "X25519, 253 bits"), ("bcp195-modified", "ECDH, prime256v1, 256 bits")]
)
def test_tls_1_2_and_1_3_are_spoken_and_1_3_is_preferred(
    archive: Archive, settings: DimseSettings, scanner: Identity, profile: str, key: str
) -> None:
    with running(archive, replace(settings, tls_profile=profile)) as scp:
        for version, spoken in (("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3"), ("-no_tls1", "TLSv1.3")):
            said = s_client(scp.tls_port, scanner, version, "-groups", "X25519:P-256")
            assert f"New, {spoken}, Cipher is " in said
            assert f"Server Temp Key: {key}" in said


def s_client(port: int, shown: Identity, *options: str) -> str:
    done = subprocess.run(
        [require_tool("openssl"), "s_client", "-connect", f"127.0.0.1:{port}", *options,
         "-cert", str(shown.certificate), "-key", str(shown.key)],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    return done.stdout + done.stderr


def test_a_plain_client_on_the_tls_port_is_refused_and_a_tls_client_on_the_plain_port_too(
    scp: Scp, authority: Authority, scanner: Identity
) -> None:
    with associated(scp.tls_port, "PLAIN", None) as association:
        assert not association.is_established
    assert eventually(lambda: any("TLS refused: " in text for text in alerts(scp.archive)))
    with associated(scp.port, SCANNER, client(authority, scanner)) as association:
        assert not association.is_established
    with associated(scp.tls_port, SCANNER, client(authority, scanner)) as association:
        assert association.is_established


def test_slow_handshakes_keep_nobody_out_and_end(
    archive: Archive, settings: DimseSettings, authority: Authority, scanner: Identity
) -> None:
    """Hundreds that say nothing, one byte, or half a ClientHello, without a thread for any."""
    with (
        running(archive, replace(settings, association_timeout_s=5.0)) as scp,
        contextlib.ExitStack() as held,
    ):
        threads = threading.active_count()
        for start in (b"", b"\x16", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03") * 100:
            slow = held.enter_context(socket.create_connection(("127.0.0.1", scp.tls_port)))
            slow.sendall(start)
        assert threading.active_count() < threads + 5  # those of the archive's writer
        with associated(scp.tls_port, SCANNER, client(authority, scanner)) as association:
            assert association.send_c_echo().Status == 0
        with associated(scp.port, "PLAIN", None) as association:
            assert association.send_c_echo().Status == 0
        slow.settimeout(20)
        assert slow.recv(1024) == b"" or slow.recv(1024) == b""  # an alert may come first
        assert eventually(lambda: any("not complete in time" in text for text in alerts(archive)))


def test_a_handshake_that_trickles_ends_at_its_deadline(scp: Scp) -> None:
    """Progress buys no time."""
    with socket.create_connection(("127.0.0.1", scp.tls_port)) as slow:
        slow.settimeout(0.2)
        cut = False
        for byte in b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200):
            try:
                slow.sendall(bytes([byte]))
                cut = slow.recv(1) == b""
            except TimeoutError:
                continue
            except OSError:
                cut = True
            if cut:
                break
        assert cut


def test_a_new_certificate_is_shown_without_a_restart_and_a_broken_one_is_not_used(
    archive: Archive, settings: DimseSettings, authority: Authority, ours: Identity, scanner: Identity,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("gateway.renewed.CHECK_S", 0.0)
    certificate, key = tmp_path / "own.pem", tmp_path / "own.key"
    shutil.copy(ours.certificate, certificate)
    shutil.copy(ours.key, key)
    settings = replace(settings, tls_certificate=str(certificate), tls_key=str(key))
    newer = authority.issue("newer")

    def shown(port: int) -> str:
        context = client(authority, scanner)
        with socket.create_connection(("127.0.0.1", port)) as plain:
            with context.wrap_socket(plain, server_hostname="localhost") as connection:
                subject = dict(part[0] for part in connection.getpeercert()["subject"])  # type: ignore[index]
                return str(subject["commonName"])

    with running(archive, settings) as scp:
        assert shown(scp.tls_port) == "archive"
        shutil.copy(newer.certificate, certificate)  # the key does not fit yet
        assert shown(scp.tls_port) == "archive"
        shutil.copy(newer.key, key)
        assert shown(scp.tls_port) == "newer"
        certificate.unlink()
        assert shown(scp.tls_port) == "newer"


def test_a_store_over_tls_arrives_whole(
    scp: Scp, authority: Authority, scanner: Identity, tmp_path: Path
) -> None:
    path = tmp_path / "level.dcm"
    path.write_bytes(make_instance(frames=400, native=True))  # many PDUs
    dataset = pydicom.dcmread(path)
    with associated(scp.tls_port, SCANNER, client(authority, scanner)) as association:
        assert association.send_c_store(dataset).Status == 0
    instance = scp.archive.instance(
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.SOPInstanceUID, **ASK
    )
    assert b"".join(scp.archive.frames(instance, range(1, 401), **ASK)) == dataset.PixelData


def test_a_tls_record_that_brings_no_pdu_yet_does_not_end_the_association(
    archive: Archive, settings: DimseSettings, authority: Authority, scanner: Identity
) -> None:
    """New keys, or part of a record: only a PDU that began has a deadline."""
    settings = replace(settings, association_timeout_s=0.5)
    with running(archive, settings) as scp, socket.create_connection(("127.0.0.1", scp.tls_port)) as plain:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = client(authority, scanner).wrap_bio(incoming, outgoing, server_hostname="localhost")

        def exchange(step: Callable[[], object]) -> object:
            while True:
                try:
                    return step()
                except ssl.SSLWantReadError:
                    plain.sendall(outgoing.read())
                    incoming.write(plain.recv(65536))

        exchange(tls.do_handshake)
        tls.write(encode_request(AE_TITLE, SCANNER, [ECHO], maximum_length=0, roles={}))
        assert exchange(lambda: tls.read(1)) == bytes([PduType.ASSOCIATE_AC])
        while tls.pending():
            tls.read(65536)
        tls.write(bytes([PduType.RELEASE_RQ, 0, 0, 0, 0, 4, 0, 0, 0, 0]))
        record = outgoing.read()
        plain.sendall(record[:9])
        time.sleep(3 * settings.association_timeout_s)
        plain.sendall(record[9:])
        assert exchange(lambda: tls.read(1)) == bytes([PduType.RELEASE_RP])


def test_only_the_tls_listener_may_be_there(
    archive: Archive, settings: DimseSettings, authority: Authority, scanner: Identity
) -> None:
    listener, ready, stop = listen(), threading.Event(), threading.Event()
    port = listener.getsockname()[1]
    thread = threading.Thread(
        target=serve, args=(archive, None, settings, ready.set, stop), kwargs={"tls_listener": listener}
    )
    thread.start()
    assert ready.wait(10)
    with associated(port, SCANNER, client(authority, scanner)) as association:
        assert association.is_established
    stop.set()
    thread.join(20)
    assert not thread.is_alive()


class Calling:
    """One TLS server for us to call."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        self.shown: bytes | None = None

    @contextlib.contextmanager
    def listening(self) -> Iterator[int]:
        with socket.create_server(("127.0.0.1", 0)) as listener:

            def answer() -> None:
                with contextlib.suppress(OSError):
                    plain, _ = listener.accept()
                    with self._context.wrap_socket(plain, server_side=True) as connection:
                        self.shown = connection.getpeercert(binary_form=True)
                        connection.recv(1)

            thread = threading.Thread(target=answer)
            thread.start()
            yield listener.getsockname()[1]
            thread.join(10)


@pytest.mark.parametrize(
    ("bound", "host", "refusal"),
    [
        ({}, "127.0.0.1", None),
        ({}, "localhost", None),
        ({}, "127.0.0.2", "IP address mismatch"),
        ({"certificate_names": ["DNS:localhost"]}, "127.0.0.2", None),  # bound: the host need not be named
        ({"certificate_names": ["DNS:other.example"]}, "127.0.0.1", "not PACS's"),
        ({"fingerprints": ["ab" * 32]}, "127.0.0.1", "not PACS's"),
    ],
)
def test_whom_we_call_must_show_its_certificate_and_sees_ours(
    authority: Authority, ours: Identity, scanner: Identity,
    bound: dict[str, list[str]], host: str, refusal: str | None,
) -> None:  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(ours.certificate, ours.key)
    context.load_verify_locations(authority.certificate)
    context.verify_mode = ssl.CERT_REQUIRED
    called = Calling(context)
    with called.listening() as port:
        peer = KnownPeer.from_mapping({"ae_title": "PACS", "host": host, "port": port, "tls": True, **bound})
        tls = TlsSettings(scanner.certificate, scanner.key, authority.certificate)
        destination = PeerTable(lambda: [peer], tls=tls).destination("PACS")
        assert destination is not None
        assert destination.tls is not None
        with socket.create_connection(("127.0.0.1", port), 10) as plain:
            if refusal is None:
                with destination.tls.wrap_socket(plain, server_hostname=host) as connection:
                    connection.sendall(b"x")
            else:
                with pytest.raises(ssl.SSLCertVerificationError) as refused:
                    destination.tls.wrap_socket(plain, server_hostname=host)
                assert refusal in refused.value.verify_message
    if refusal is None:
        assert called.shown == ssl.PEM_cert_to_DER_cert(scanner.certificate.read_text())


def test_whom_we_call_and_who_does_not_shake_hands_is_given_up_in_time(authority: Authority) -> None:
    context = client_context(
        TlsSettings(None, None, authority.certificate), KnownPeer("PACS", host="localhost", port=1, tls=True)
    )
    with socket.create_server(("127.0.0.1", 0)) as silent:
        with socket.create_connection(silent.getsockname(), 0.3) as plain, pytest.raises(TimeoutError):
            context.wrap_socket(plain, server_hostname="localhost")
