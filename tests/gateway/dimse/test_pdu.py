# SPDX-License-Identifier: Apache-2.0
"""What is refused before anything is allocated (attacks A1 and A4)."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dimse.pdu import (
    PduRefused,
    PduType,
    check_association_request,
    data_values,
    read_header,
)

MAXIMUM_LENGTH = 131072
FIXED = struct.pack(">HH", 1, 0) + b"COVERSLIP".ljust(16) + b"SENDER".ljust(16) + bytes(32)


def item(kind: int, value: bytes) -> bytes:
    return struct.pack(">BxH", kind, len(value)) + value


def context(context_id: int, transfer_syntaxes: int = 1) -> bytes:
    names = item(0x30, b"1.2.840.10008.1.1") + item(0x40, b"1.2.840.10008.1.2") * transfer_syntaxes
    return item(0x20, bytes([context_id, 0, 0, 0]) + names)


def value(context_id: int, control: int, fragment: bytes) -> bytes:
    return struct.pack(">IBB", len(fragment) + 2, context_id, control) + fragment


def header(kind: int, length: int) -> bytes:
    return struct.pack(">BxI", kind, length)


@pytest.mark.parametrize("kind", list(PduType))
def test_a_pdu_of_four_gigabytes_is_refused_whatever_its_type(kind: PduType) -> None:
    with pytest.raises(PduRefused, match="the limit is"):
        read_header(header(kind, 0xFFFFFFFF), MAXIMUM_LENGTH)


def test_a_data_pdu_may_be_as_long_as_was_announced_and_no_longer() -> None:
    assert read_header(header(4, MAXIMUM_LENGTH), MAXIMUM_LENGTH) == (PduType.DATA, MAXIMUM_LENGTH)
    with pytest.raises(PduRefused):
        read_header(header(4, MAXIMUM_LENGTH + 7), MAXIMUM_LENGTH)


def test_an_unknown_pdu_type_is_refused() -> None:
    with pytest.raises(PduRefused, match="unknown PDU type"):
        read_header(header(0x48, 4), MAXIMUM_LENGTH)  # "H" of an HTTP request, say


def test_a_request_with_all_the_contexts_the_standard_allows_passes() -> None:
    contexts = b"".join(context(number, 20) for number in range(1, 256, 2))
    check_association_request(FIXED + item(0x10, b"1.2.840.10008.3.1.1.1") + contexts)


@pytest.mark.parametrize(
    ("what", "items"),
    [
        ("more than 128 presentation contexts", context(1) * 129),
        ("too many sub-items", context(1, 3000) * 4),
        ("too many sub-items", item(0x50, item(0x54, b"") * 12000)),
        ("longer than its PDU", struct.pack(">BxH", 0x20, 4000) + bytes(8)),
        ("cut off", b"\x20\x00"),
        ("unknown item", item(0x99, b"")),
        ("cut off", item(0x20, b"\x01")),
    ],
)
def test_a_request_beyond_the_standard_is_refused(what: str, items: bytes) -> None:
    with pytest.raises(PduRefused, match=what):
        check_association_request(FIXED + items)


def test_a_request_without_its_fixed_part_is_refused() -> None:
    with pytest.raises(PduRefused, match="cut off"):
        check_association_request(FIXED[:-1])


@given(st.lists(st.tuples(st.integers(1, 255), st.integers(0, 3), st.binary(max_size=50)), min_size=1))
def test_values_come_out_as_they_went_in(values: list[tuple[int, int, bytes]]) -> None:
    payload = b"".join(value(*one) for one in values)
    assert [(a, b, bytes(c)) for a, b, c in data_values(payload)] == values


@given(st.binary(max_size=200))
def test_any_bytes_are_values_or_a_refusal(payload: bytes) -> None:
    try:
        values = data_values(payload)
    except PduRefused:
        return
    assert b"".join(value(a, b, bytes(c)) for a, b, c in values) == payload


@given(st.binary(max_size=300))
def test_any_association_request_passes_or_is_refused(payload: bytes) -> None:
    try:
        check_association_request(payload)
    except PduRefused:
        return
