# SPDX-License-Identifier: Apache-2.0
"""A5: a data set without end, and many of them at once: to the disk, not to memory."""

import threading
from collections.abc import Iterator
from pathlib import Path

from pydicom.uid import generate_uid

from tests.attacks.besieged import Siege, besieged, data_pdu, send_store, store_command
from tests.support.instances import WSI, make_instance

MEGABYTES = 400


def endless(total_bytes: int) -> Iterator[bytes]:
    chunk = bytes(1 << 20)
    for _ in range(total_bytes >> 20):
        yield chunk


def pour(siege: Siege, megabytes: int) -> int | None:
    with siege.associate() as connection:
        return send_store(connection, WSI, generate_uid(), endless(megabytes << 20))


def test_half_a_gigabyte_of_nothing_is_refused_and_was_never_in_memory(tmp_path: Path) -> None:
    with besieged(tmp_path / "data", audited=False) as siege:
        status = pour(siege, MEGABYTES)
        assert status is not None
        assert status >= 0xA900  # no data set at all


def test_four_floods_at_once_are_dropped_when_their_senders_leave(tmp_path: Path) -> None:
    with besieged(tmp_path / "data", audited=False) as siege:
        floods = [threading.Thread(target=pour, args=(siege, MEGABYTES // 4)) for _ in range(4)]
        for flood in floods:
            flood.start()
        for flood in floods:
            flood.join()


def test_a_sender_that_hangs_up_in_the_middle_leaves_nothing(tmp_path: Path) -> None:
    with besieged(tmp_path / "data", audited=False) as siege:
        with siege.associate() as connection:
            connection.sendall(data_pdu(1, 3, store_command(WSI, generate_uid())))
            connection.sendall(data_pdu(1, 0, make_instance(frames=1)[:8000]))
