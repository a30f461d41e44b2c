# SPDX-License-Identifier: Apache-2.0
"""A4: association requests of thousands of contexts, sub-items, and huge user information."""

import struct
from pathlib import Path

import pytest

from tests.attacks.besieged import besieged
from tests.gateway.dimse.test_pdu import FIXED, context, header, item

APPLICATION = item(0x10, b"1.2.840.10008.3.1.1.1")

REQUESTS = {
    "129 contexts": FIXED + APPLICATION + context(1) * 129,
    "a context of 2,000 syntaxes": FIXED + APPLICATION + context(1, 2000) * 10,
    "12,000 user items": FIXED + APPLICATION + context(1) + item(0x50, item(0x54, b"") * 12_000),
    "nested nonsense": FIXED + APPLICATION + item(0x50, item(0x58, b"\x07" * 60_000)),
    "items that overlap": FIXED + APPLICATION + struct.pack(">BxH", 0x20, 0xFFFF) + bytes(60_000),
    "half a megabyte of contexts": FIXED + APPLICATION + context(1, 600) * 32,
}


@pytest.mark.parametrize("name", REQUESTS)
def test_a_swollen_request_is_refused_or_answered_cheaply(tmp_path: Path, name: str) -> None:
    with besieged(tmp_path / "data", audited=False, association_timeout_s=3.0) as siege:
        for _ in range(10):
            with siege.connect() as connection:
                connection.sendall(header(1, len(REQUESTS[name])) + REQUESTS[name])
                connection.recv(1)


def test_a_request_longer_than_any_honest_one_leaves_a_trace(tmp_path: Path) -> None:
    with besieged(tmp_path / "data") as siege, siege.connect() as connection:
        connection.sendall(header(1, 1 << 20) + bytes(65536))
        assert connection.recv(1) in (b"", b"\x07")
