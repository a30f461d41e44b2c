# SPDX-License-Identifier: Apache-2.0
"""DCMTK with TLS, as Debian ships it, against a whole server; and as whom we call."""

import json
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest

from archive.peer import Peer
from archive.values import ByteStream
from gateway.delivery import DeliveryError
from gateway.dimse.data_sets import data_set_chunks
from gateway.dimse.peers import PeerTable
from gateway.dimse.requestor import Proposal, Requestor
from gateway.tls import TlsSettings
from tests.gateway.dimse.running import AE_TITLE
from tests.gateway.serving import Serving, serving
from tests.support.certificates import Authority, Identity
from tests.support.instances import make_instance
from tests.support.require import require_tool

SLIDES, JPEG = "1.2.840.10008.5.1.4.1.1.77.1.6", "1.2.840.10008.1.2.4.50"
VERIFICATION, EXPLICIT = "1.2.840.10008.1.1", "1.2.840.10008.1.2.1"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def ours(authority: Authority) -> Identity:
    return authority.issue("archive")


@pytest.fixture(scope="module")
def scanner(authority: Authority) -> Identity:
    return authority.issue("scanner", rsa_bits=2048)


@pytest.fixture(scope="module")
def server(
    tmp_path_factory: pytest.TempPathFactory, authority: Authority, ours: Identity, scanner: Identity
) -> Iterator[Serving]:
    """SCANNER1 is of the peers' file, known by its certificate."""
    folder = tmp_path_factory.mktemp("served")
    peers = folder / "peers.toml"
    peers.write_text(
        f'[[peers]]\nae_title = "SCANNER1"\nnetworks = ["127.0.0.0/8"]\n'
        f'fingerprints = ["{scanner.fingerprint}"]\n'
    )
    options = {
        "tls_bind": "127.0.0.1:0", "tls_certificate": ours.certificate, "tls_key": ours.key,
        "tls_ca": authority.certificate, "peers_file": peers,
    }  # fmt: skip
    flags = [text for name, value in options.items() for text in ("--set", f"dimse.{name}={value}")]
    with serving(folder / "data", *flags) as made:
        yield made


def tool(
    name: str, port: int, title: str, shown: Identity | None, authority: Authority, *more: str | Path
) -> "subprocess.CompletedProcess[str]":
    """An SCU of DCMTK by TLS, without a certificate of its own where ``shown`` is None."""
    by = ["+tla"] if shown is None else ["+tls", str(shown.key), str(shown.certificate)]
    options = [str(one) for one in more if str(one).startswith(("-", "+"))]
    files = [str(one) for one in more if not str(one).startswith(("-", "+"))]
    return subprocess.run(
        [require_tool(name), *by, "+cf", str(authority.certificate), *options, "-aet", title,
         "-aec", AE_TITLE, "127.0.0.1", str(port), *files],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("profile", ["+py", "+px", "+pz"])
def test_echoscu_is_answered_by_every_profile_that_it_has(
    server: Serving, authority: Authority, scanner: Identity, profile: str
) -> None:
    answer = tool("echoscu", server.ports["dimse_tls"], "SCANNER1", scanner, authority, profile)
    assert answer.returncode == 0, answer.stderr


def test_the_retired_aes_profile_is_refused(server: Serving, authority: Authority, scanner: Identity) -> None:
    answer = tool("echoscu", server.ports["dimse_tls"], "SCANNER1", scanner, authority, "+pa")
    assert answer.returncode != 0
    assert "TLS" in answer.stderr


def test_storescu_stores_by_tls(
    server: Serving, authority: Authority, scanner: Identity, tmp_path: Path
) -> None:
    sent = tmp_path / "level.dcm"
    sent.write_bytes(make_instance(frames=100))
    answer = tool("storescu", server.ports["dimse_tls"], "SCANNER1", scanner, authority, "-R", "-xy", sent)
    assert answer.returncode == 0, answer.stderr
    study = pydicom.dcmread(sent).StudyInstanceUID
    _, body = server.get("/api/slides")
    assert study in [slide["study_instance_uid"] for slide in json.loads(body)["slides"]]


def test_without_a_certificate_with_a_foreign_one_or_under_another_title_there_is_no_association(
    server: Serving, authority: Authority, scanner: Identity, tmp_path: Path
) -> None:
    port = server.ports["dimse_tls"]
    foreign = Authority(tmp_path / "foreign", "Another authority").issue("scanner")
    assert tool("echoscu", port, "SCANNER1", None, authority).returncode != 0
    assert tool("echoscu", port, "SCANNER1", foreign, authority).returncode != 0
    assert tool("echoscu", port, "SCANNER1", authority.issue("ended", days=-1), authority).returncode != 0
    another = tool("echoscu", port, "SCANNER1", authority.issue("another"), authority)
    assert "Calling AE Title Not Recognized" in another.stderr
    stranger = tool("echoscu", port, "STRANGER", scanner, authority)
    assert "Calling AE Title Not Recognized" in stranger.stderr
    plain = subprocess.run(
        [require_tool("echoscu"), "-aet", "SCANNER1", "-aec", AE_TITLE, "-to", "10", "127.0.0.1", str(port)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert plain.returncode != 0


def test_a_peer_named_over_http_may_associate_at_once_and_no_longer_once_it_is_forgotten(
    server: Serving, authority: Authority
) -> None:
    port, shown = server.ports["dimse_tls"], authority.issue("newcomer")

    def echo() -> "subprocess.CompletedProcess[str]":
        return tool("echoscu", port, "NEWCOMER", shown, authority)

    assert "Calling AE Title Not Recognized" in echo().stderr
    peer = {"networks": ["127.0.0.0/8"], "certificate_names": ["subject:CN=newcomer,O=Lab"]}
    ask(server, "PUT", "NEWCOMER", peer)
    assert echo().returncode == 0
    ask(server, "PUT", "NEWCOMER", {**peer, "rights": ["store"]})
    assert "No Acceptable Presentation Contexts" in echo().stderr
    ask(server, "DELETE", "NEWCOMER")
    assert "Calling AE Title Not Recognized" in echo().stderr
    status, body = server.get("/api/peers/SCANNER1")
    assert (status, json.loads(body)["source"]) == (200, "settings")


def ask(server: Serving, method: str, title: str, body: object = None) -> None:
    request = urllib.request.Request(
        f"{server.url}api/peers/{title}",
        method=method,
        data=None if body is None else json.dumps(body).encode(),
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        assert answer.status in (200, 201, 204)


@pytest.fixture
def storescp(authority: Authority, tmp_path: Path) -> Iterator[tuple[int, Identity, Path]]:
    """DCMTK's receiver with TLS: its port, its certificate, where it stores."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    shown, folder = authority.issue("pacs"), tmp_path / "received"
    folder.mkdir()
    process = subprocess.Popen(
        [require_tool("storescp"), "+tls", str(shown.key), str(shown.certificate), "+cf",
         str(authority.certificate), "-rc", "+xa", "-od", str(folder), "-aet", "PACS", str(port)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.05)
    yield port, shown, folder
    process.kill()
    process.wait()


def called(port: int, authority: Authority, shown: Identity | None, **bound: object) -> Requestor:
    peer = Peer.from_mapping({"ae_title": "PACS", "host": "127.0.0.1", "port": port, "tls": True, **bound})
    tls = TlsSettings(shown and shown.certificate, shown and shown.key, authority.certificate)
    destination = PeerTable(lambda: [peer], tls=tls).destination("PACS")
    assert destination is not None
    proposals = [Proposal(VERIFICATION, (EXPLICIT,)), Proposal(SLIDES, (JPEG,))]
    return Requestor.connect(destination, proposals, calling_ae_title=AE_TITLE, timeout_s=10.0)


def test_we_send_to_storescp_by_tls_with_certificates_on_both_sides(
    storescp: tuple[int, Identity, Path], authority: Authority, ours: Identity
) -> None:
    port, shown, folder = storescp
    instance = make_instance(frames=60, sop="2.25.1")
    body = data_set_chunks(ByteStream(len(instance), iter([instance])))
    with called(port, authority, ours, fingerprints=[shown.fingerprint]) as requestor:
        assert requestor.c_echo() == 0
        status, _ = requestor.c_store(requestor.accepted[SLIDES, JPEG], SLIDES, "2.25.1", body)
        assert status == 0
    (received,) = folder.iterdir()
    sent = pydicom.dcmread(pydicom.filebase.DicomBytesIO(instance))
    assert pydicom.dcmread(received).PixelData == sent.PixelData


def test_we_do_not_call_whoever_answers_with_another_certificate_nor_go_without_ours(
    storescp: tuple[int, Identity, Path], authority: Authority, ours: Identity, tmp_path: Path
) -> None:
    port, _, folder = storescp
    other = Authority(tmp_path / "other", "Another authority")
    with pytest.raises(DeliveryError, match="not PACS's"):
        called(port, authority, ours, fingerprints=["ab" * 32])
    with pytest.raises(DeliveryError, match="certificate"):
        called(port, other, None)
    with pytest.raises(DeliveryError):
        called(port, authority, None).c_echo()
    assert list(folder.iterdir()) == []
