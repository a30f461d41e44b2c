# SPDX-License-Identifier: Apache-2.0
"""Who may associate, and as whom."""

import pytest

from archive.access import Principal
from gateway.dimse.peers import PeerTable, parse_address
from gateway.settings import Peer

SCANNER = Peer("SCANNER1", ("10.1.2.0/24", "2001:db8::/32"))


def test_a_known_title_from_its_network_is_a_principal_of_that_name() -> None:
    principal = PeerTable([SCANNER]).principal("SCANNER1", "10.1.2.77")
    assert principal == Principal("SCANNER1", "dimse", "10.1.2.77", roles=frozenset({"peer"}))


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
    assert PeerTable([SCANNER]).principal(title, address) is None


def test_an_ipv4_address_mapped_into_ipv6_is_that_ipv4_address() -> None:
    assert str(parse_address("::ffff:10.1.2.77")) == "10.1.2.77"
    assert PeerTable([SCANNER]).principal("SCANNER1", "::ffff:10.1.2.77") is not None


def test_an_ipv6_network_matches() -> None:
    assert PeerTable([SCANNER]).principal("SCANNER1", "2001:db8::5%eth0") is not None


def test_one_title_may_come_from_two_machines() -> None:
    table = PeerTable([SCANNER, Peer("SCANNER1", ("10.9.0.0/16",))])
    assert table.principal("SCANNER1", "10.9.1.1") is not None


def test_without_a_table_anybody_may_associate_from_this_machine_only() -> None:
    table = PeerTable([])
    assert table.principal("ANYBODY", "127.0.0.1") is not None
    assert table.principal("ANYBODY", "::1") is not None
    assert table.principal("ANYBODY", "10.1.2.77") is None


def test_a_network_that_is_none_is_an_error_at_start() -> None:
    with pytest.raises(ValueError):
        PeerTable([Peer("SCANNER1", ("10.1.2.0/33",))])
