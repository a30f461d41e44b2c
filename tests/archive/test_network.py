# SPDX-License-Identifier: Apache-2.0
"""Peers that operators name: kept, shown, and audited as configuration."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from archive.errors import NoSuchPeer
from archive.peer import Peer, Right
from archive.service import Archive
from tests.support.archives import ASK, open_archive

SCANNER = Peer("SCANNER1", ("10.1.2.0/24",), rights=("echo", "store", "worklist"))


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    opened = open_archive(tmp_path)
    yield opened
    opened.close()


def audited(archive: Archive) -> list[dict[str, object]]:
    """The details of every alert about configuration, oldest first."""
    model = archive._core.index.models.AuditEvent
    with archive._core.index.read():
        rows = list(model.select().where(model.code == "110113").order_by(model.id))
    return [{**json.loads(row.event)["detail"], "outcome": row.outcome} for row in rows]


def test_a_peer_that_was_put_is_there_after_a_restart(archive: Archive, tmp_path: Path) -> None:
    assert archive.put_peer(SCANNER, **ASK)
    assert not archive.put_peer(SCANNER, **ASK)
    archive.close()
    again = open_archive(tmp_path)
    assert again.known_peers() == again.peers(**ASK) == (SCANNER,)
    again.remove_peer("SCANNER1", **ASK)
    assert again.known_peers() == ()
    with pytest.raises(NoSuchPeer):
        again.remove_peer("SCANNER1", **ASK)
    again.close()


def test_every_change_is_audited_with_what_it_changed(archive: Archive) -> None:
    archive.put_peer(SCANNER, **ASK)
    archive.put_peer(Peer("SCANNER1", ("10.1.3.0/24",), rights=SCANNER.rights), **ASK)
    archive.put_peer(Peer("SCANNER1", ("10.1.3.0/24",), rights=("echo",)), **ASK)
    archive.put_peer(Peer("SCANNER1", ("10.1.3.0/24",), rights=("echo",)), **ASK)  # nothing new
    archive.remove_peer("SCANNER1", **ASK)
    both = ["110128", "110129"]
    found = audited(archive)
    assert [event["event_types"] for event in found] == [both, ["110128"], ["110129"], both]
    assert {event["peer"] for event in found} == {"SCANNER1"}
    assert {event["outcome"] for event in found} == {"0"}
    assert found[0]["before"] is None
    assert found[0]["after"] == SCANNER.to_mapping()
    assert found[3]["after"] is None


def test_a_peer_of_another_release_is_left_out_and_the_others_are_not(archive: Archive) -> None:
    archive.put_peer(SCANNER, **ASK)
    core = archive._core
    tables = {"SCANNER1": SCANNER.to_mapping(), "NEWER": {"ae_title": "NEWER", "quantum": True}}
    core.index.write(lambda: core.put_setting("dimse_peers", tables))
    assert archive.known_peers() == (SCANNER,)


@pytest.mark.parametrize(
    ("table", "complaint"),
    [
        ({}, "needs an ae_title"),
        ({"ae_title": ""}, "not an AE title"),
        ({"ae_title": "A\\B"}, "not an AE title"),
        ({"ae_title": "A" * 17}, "not an AE title"),
        ({"ae_title": "A", "aet": "B"}, "has no 'aet'"),
        ({"ae_title": "A", "port": "104"}, "port must be a whole number"),
        ({"ae_title": "A", "port": True, "host": "x"}, "port must be a whole number"),
        ({"ae_title": "A", "tls": 1}, "tls must be true or false"),
        ({"ae_title": "A", "networks": "10.0.0.0/8"}, "networks must be a list of texts"),
        ({"ae_title": "A", "networks": ["10.0.0.0/33"]}, "not a CIDR network"),
        ({"ae_title": "A", "rights": ["everything"]}, "not a right"),
        ({"ae_title": "A", "fingerprints": ["12:34"]}, "not a SHA-256 fingerprint"),
        ({"ae_title": "A", "certificate_names": ["scanner1"]}, "does not begin with"),
        ({"ae_title": "A", "certificate_names": ["DNS:"]}, "does not begin with"),
        ({"ae_title": "A", "host": "10.1.2.3"}, "go together"),
        ({"ae_title": "A", "port": 104}, "go together"),
        ({"ae_title": "A", "host": "10.1.2.3", "port": 70000}, "1 to 65535"),
        ({"ae_title": "A", "host": "no host", "port": 104}, "neither a host name nor an address"),
        ({"ae_title": "A", "networks": ["10.0.0.0/8"] * 65}, "at most 64 networks"),
    ],
)
def test_what_cannot_be_a_peer_is_none(table: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Peer.from_mapping(table)


def test_a_peer_is_the_same_however_it_is_written() -> None:
    digits = "AB" * 32
    peer = Peer.from_mapping(
        {"ae_title": " SCANNER1 ", "fingerprints": [":".join(["ab"] * 32), f"sha256:{digits}"],
         "host": "2001:db8::5", "port": 104, "rights": ["store", "store"]}
    )  # fmt: skip
    assert peer.ae_title == "SCANNER1"
    assert peer.fingerprints == (digits.lower(),) * 2
    assert peer.rights == (Right.STORE,)
    assert Peer.from_mapping(peer.to_mapping()) == peer
    assert peer.needs_tls
    assert not SCANNER.needs_tls
