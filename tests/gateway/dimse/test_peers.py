# SPDX-License-Identifier: Apache-2.0
"""Who may associate, as whom, for what, and where we call them."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from archive.access import Principal
from archive.errors import Busy
from archive.peer import Peer
from archive.service import Archive
from gateway.certificates import Certificate
from gateway.dimse.peers import Destination, NotRecognized, PeerTable, parse_address, peer_table
from gateway.dimse.rights import ALL_RIGHTS, Right
from gateway.renewed import Renewed
from gateway.settings import DimseSettings
from gateway.settings import Peer as Written
from gateway.settings_peers import configured_peers, read_peers
from gateway.settings_read import SettingsError
from gateway.tls import Secured
from tests.support.archives import ASK, open_archive

SCANNER = Peer("SCANNER1", ("10.1.2.0/24", "2001:db8::/32"))
CERTIFICATE = Certificate(
    "ab" * 32, frozenset({"DNS:scanner1.lab.example", "IP:10.1.2.3"}),
    frozenset({("CN", "Scanner 1"), ("O", "Lab, Ltd.")}), time.time() + 3600,
)  # fmt: skip
BY_TLS = Secured(CERTIFICATE, "TLSv1.3")


def table(*peers: Peer) -> PeerTable:
    return PeerTable(lambda: peers)


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    opened = open_archive(tmp_path / "data")
    yield opened
    opened.close()


def test_a_known_title_from_its_network_is_a_principal_of_that_name() -> None:
    admitted = table(SCANNER).admit("SCANNER1 ", "10.1.2.77")
    assert admitted.principal == Principal("SCANNER1", "dimse", "10.1.2.77", roles=frozenset({"peer"}))
    assert admitted.rights == {Right.ECHO, Right.STORE}


@pytest.mark.parametrize(
    ("title", "address"),
    [
        ("SCANNER1", "10.1.3.1"),  # the title alone is no secret
        ("SCANNER2", "10.1.2.77"),
        ("scanner1", "10.1.2.77"),
        ("", "10.1.2.77"),
        ("SCANNER1", "127.0.0.1"),
        ("SCANNER1", "not an address"),
    ],
)
def test_an_unknown_title_or_network_is_nobody(title: str, address: str) -> None:
    assert table(SCANNER).principal(title, address) is None


def test_an_ipv4_address_mapped_into_ipv6_is_that_ipv4_address() -> None:
    assert str(parse_address("::ffff:10.1.2.77")) == "10.1.2.77"
    assert table(SCANNER).principal("SCANNER1", "::ffff:10.1.2.77") is not None


def test_an_ipv6_network_matches() -> None:
    assert table(SCANNER).principal("SCANNER1", "2001:db8::5%eth0") is not None


def test_without_a_table_anybody_may_do_everything_from_this_machine_only() -> None:
    assert table().admit("ANYBODY", "127.0.0.1").rights == ALL_RIGHTS
    assert table().rights("ANYBODY") == ALL_RIGHTS
    assert table().principal("ANYBODY", "::1") is not None
    assert table().principal("ANYBODY", "10.1.2.77") is None


def test_a_peer_without_any_right_is_nobody() -> None:
    with pytest.raises(NotRecognized, match="without any right"):
        table(Peer("SCANNER1", ("10.1.2.0/24",), rights=())).admit("SCANNER1", "10.1.2.77")


@pytest.mark.parametrize(
    ("bound", "secured", "complaint"),
    [
        ({"fingerprints": ("ab" * 32,)}, BY_TLS, None),
        ({"fingerprints": ("cd" * 32, "AB" * 32)}, BY_TLS, None),
        ({"fingerprints": ("cd" * 32,)}, BY_TLS, "not that peer's certificate"),
        ({"fingerprints": ("ab" * 32,)}, None, "without TLS"),
        ({"fingerprints": ("ab" * 32,)}, Secured(None, "TLSv1.3"), "without a certificate"),
        ({"tls": True}, None, "without TLS"),
        ({"tls": True}, Secured(None, "TLSv1.3"), None),
        ({"certificate_names": ("DNS:Scanner1.Lab.Example.",)}, BY_TLS, None),
        ({"certificate_names": ("DNS:scanner2.lab.example", "IP:10.1.2.3")}, BY_TLS, None),
        ({"certificate_names": ("DNS:lab.example",)}, BY_TLS, "not that peer's"),
        ({"certificate_names": ("subject:CN=Scanner 1",)}, BY_TLS, None),
        ({"certificate_names": (r"subject:O=Lab\, Ltd., CN=Scanner 1",)}, BY_TLS, None),
        ({"certificate_names": ("subject:CN=Scanner 1,OU=Other",)}, BY_TLS, "not that peer's"),
        ({"certificate_names": ("URI:Scanner 1",)}, BY_TLS, "not that peer's"),
        # Both kinds: one of each must be right.
        ({"fingerprints": ("ab" * 32,), "certificate_names": ("DNS:x",)}, BY_TLS, "not that peer's"),
        ({"fingerprints": ("cd" * 32,), "certificate_names": ("IP:10.1.2.3",)}, BY_TLS, "not that peer's"),
    ],
)
def test_a_bound_peer_shows_its_certificate_or_is_nobody(
    bound: dict[str, object], secured: Secured | None, complaint: str | None
) -> None:
    peers = table(Peer("SCANNER1", ("10.1.2.0/24",), **bound))  # type: ignore[arg-type]
    if complaint is None:
        assert peers.admit("SCANNER1", "10.1.2.77", secured).principal.actor == "SCANNER1"
    else:
        with pytest.raises(NotRecognized, match=complaint):
            peers.admit("SCANNER1", "10.1.2.77", secured)


def test_a_certificate_that_expired_since_the_handshake_it_came_from_is_nobodys() -> None:
    old = Certificate("ab" * 32, frozenset(), frozenset(), time.time() - 1)
    with pytest.raises(NotRecognized, match="expired"):
        table(SCANNER).admit("SCANNER1", "10.1.2.77", Secured(old, "TLSv1.2"))


def test_who_has_an_address_can_be_called() -> None:
    peers = table(Peer("PACS", host="pacs.lab.example", port=104), SCANNER)
    assert peers.destination("PACS ") == Destination("PACS", "pacs.lab.example", 104)
    assert peers.destination("SCANNER1") is None
    assert peers.destination("NOBODY") is None
    by_tls = table(Peer("PACS", host="pacs.lab.example", port=2762, tls=True)).destination("PACS")
    assert by_tls is not None
    assert by_tls.tls is not None
    assert by_tls.tls.check_hostname


def test_a_peer_put_into_the_database_counts_at_once_and_the_settings_win(archive: Archive) -> None:
    settings = DimseSettings(peers=(Written("PACS", ("10.1.1.0/24",)),))
    peers = peer_table(archive, settings)
    assert peers.principal("SCANNER1", "10.1.2.77") is None
    archive.put_peer(SCANNER, **ASK)
    archive.put_peer(Peer("PACS", ("10.0.0.0/8",), rights=("find",)), **ASK)
    assert peers.principal("SCANNER1", "10.1.2.77") is not None
    assert peers.rights("PACS") == {Right.ECHO, Right.STORE}
    assert peers.principal("PACS", "10.2.0.1") is None
    archive.remove_peer("SCANNER1", **ASK)
    assert peers.principal("SCANNER1", "10.1.2.77") is None


def test_while_the_database_does_not_answer_the_peers_are_those_it_named_last(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive.put_peer(SCANNER, **ASK)
    peers = peer_table(archive, DimseSettings())

    def busy() -> None:
        raise Busy("later")

    monkeypatch.setattr(archive, "known_peers", busy)
    assert peers.principal("SCANNER1", "10.1.2.77") is not None
    assert peers.principal("ANYBODY", "127.0.0.1") is None


def test_a_changed_file_of_peers_is_read_again_and_a_broken_one_is_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.renewed.CHECK_S", 0.0)
    path = tmp_path / "peers.toml"
    path.write_text('[[peers]]\nae_title = "SCANNER1"\nnetworks = ["10.1.2.0/24"]\n')
    current = configured_peers(DimseSettings(peers_file=str(path)))
    assert [peer.ae_title for peer in current()] == ["SCANNER1"]
    path.write_text('[[peers]]\nae_title = "SCANNER2"\nhost = "10.1.2.4"\nport = 104\n')
    assert [peer.ae_title for peer in current()] == ["SCANNER2"]
    path.write_text("[[peers]]\nae_title = ")
    assert [peer.ae_title for peer in current()] == ["SCANNER2"]
    path.unlink()
    assert [peer.ae_title for peer in current()] == ["SCANNER2"]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('[[peers]]\nae_title = "A"\nrights = ["all"]', "'all' is not a right"),
        ('[[peers]]\nae_title = "A"\n[[peers]]\nae_title = "A"', "named twice"),
        ('[[peers]]\nae_title = "INLINE"', "named twice"),
        ('[[peer]]\nae_title = "A"', "unknown peer"),
        ('peers = ["A"]', r"\[\[peers\]\] tables"),
        ("x", "not TOML"),
    ],
)
def test_a_file_of_peers_that_cannot_be_meant_is_refused(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "peers.toml"
    path.write_text(text)
    with pytest.raises(SettingsError, match=complaint):
        read_peers(DimseSettings(peers=(Written("INLINE"),), peers_file=str(path)))


def test_what_is_made_of_files_is_made_again_only_when_one_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.renewed.CHECK_S", 0.0)
    path, made = tmp_path / "file", []
    renewed = Renewed([path], lambda: made.append(1) or len(made))
    assert [renewed.current(), renewed.current()] == [1, 1]
    path.write_text("there")
    assert [renewed.current(), renewed.current()] == [2, 2]
