# SPDX-License-Identifier: Apache-2.0
"""Messages cut into PDUs as the peer takes them (PS3.8 9.3.5, Annex E)."""

import pytest

from gateway.dimse.messages_out import LARGEST_PDU_BYTES, message_pdus, request_command
from gateway.dimse.pdu import HEADER_BYTES, data_values

COMMAND = request_command("C_ECHO", 1, False, AffectedSOPClassUID="1.2.840.10008.1.1")


def fragments(data: bytes, maximum_length: int) -> list[tuple[int, bytes]]:
    """(control header, fragment) of each PDU of the data set; the PDUs' lengths are checked."""
    found = []
    for pieces in message_pdus(3, COMMAND, [data[:100], data[100:]], maximum_length):
        pdu = b"".join(pieces)
        assert len(pdu) - HEADER_BYTES <= (maximum_length or LARGEST_PDU_BYTES)
        ((context_id, control, fragment),) = data_values(bytearray(pdu[HEADER_BYTES:]))
        assert context_id == 3
        found.append((control, bytes(fragment)))
    return [(control, fragment) for control, fragment in found if not control & 1]


@pytest.mark.parametrize("maximum_length", [0, 64, 127, 1000, 1001, 16384, 1 << 30])
def test_no_pdu_is_longer_than_the_peer_takes_and_all_arrives(maximum_length: int) -> None:
    data = bytes(range(256)) * 2000
    found = fragments(data, maximum_length)
    assert b"".join(fragment for _, fragment in found) == data
    assert [control for control, _ in found] == [0] * (len(found) - 1) + [2]
    assert all(len(fragment) % 2 == 0 for _, fragment in found)


def test_a_data_set_of_nothing_is_one_empty_last_fragment() -> None:
    assert fragments(b"", 16384) == [(2, b"")]
