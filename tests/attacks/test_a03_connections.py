# SPDX-License-Identifier: Apache-2.0
"""A3: thousands of TCP connections: a thread is not made for each."""

import contextlib
from pathlib import Path

from tests.attacks.besieged import besieged


def threads(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


def test_three_thousand_connections_do_not_make_as_many_threads(tmp_path: Path) -> None:
    with besieged(
        tmp_path / "data", association_timeout_s=2.0, maximum_associations=6, associations_per_address=4
    ) as siege:
        before, most = threads(siege.pid), 0
        open_connections = []
        for number in range(3000):
            with contextlib.suppress(OSError):
                open_connections.append(siege.connect(f"127.0.0.{number % 100 + 100}"))
            if number % 50 == 0:
                most = max(most, threads(siege.pid) - before)
            if len(open_connections) > 400:
                open_connections.pop(0).close()
        assert siege.honest.stores(3), siege.honest.failures
        assert most <= 2 * 18 + 8  # two for each that is established, waits, or is just ending
        for connection in open_connections:
            connection.close()
