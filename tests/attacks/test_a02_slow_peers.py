# SPDX-License-Identifier: Apache-2.0
"""A2: three bytes, then silence, on more connections than there may be associations."""

from pathlib import Path

from tests.attacks.besieged import besieged


def test_half_open_connections_keep_nobody_out(tmp_path: Path) -> None:
    with besieged(
        tmp_path / "data", association_timeout_s=2.0, maximum_associations=6, associations_per_address=4
    ) as siege:
        attackers = [siege.connect(f"127.0.0.{number % 100 + 100}") for number in range(60)]
        for attacker in attackers:
            attacker.sendall(b"\x01\x00\x00")
        assert siege.honest.stores(3), siege.honest.failures
        for attacker in attackers:
            attacker.settimeout(15)
            assert attacker.recv(1) == b"", "the connection is still open"
            attacker.close()
