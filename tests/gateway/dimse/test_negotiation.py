# SPDX-License-Identifier: Apache-2.0
"""Which contexts are accepted, and in which transfer syntax."""

import pytest
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
)
from pynetdicom import ALL_TRANSFER_SYNTAXES, build_context
from pynetdicom.presentation import AllStoragePresentationContexts, PresentationContext

from gateway.dimse.composition import services
from gateway.dimse.negotiation import choose_transfer_syntax, is_storage, negotiate
from gateway.dimse.rights import Right

EVERYTHING = frozenset(Right)


def answered(
    proposed: list[PresentationContext], rights: frozenset[Right] = EVERYTHING
) -> list[PresentationContext]:
    return negotiate(proposed, services(), rights)


JPIP = "1.2.840.10008.1.2.4.94"
WSI = "1.2.840.10008.5.1.4.1.1.77.1.6"


@pytest.mark.parametrize(
    "uid",
    [
        WSI,
        "1.2.840.10008.5.1.4.1.1.66.4",  # Segmentation
        "1.2.840.10008.5.1.4.1.1.91.1",  # Microscopy Bulk Simple Annotations
        "1.2.840.10008.5.1.4.1.1.6",  # retired Ultrasound Image Storage
        "1.2.826.0.1.3680043.9.1",  # private
        "1.2.840.10008.5.1.4.1.1.999",  # of a later edition
    ],
)
def test_every_storage_class_is_one(uid: str) -> None:
    assert is_storage(uid)


@pytest.mark.parametrize(
    "uid",
    [
        "1.2.840.10008.1.1",  # Verification
        "1.2.840.10008.5.1.4.1.2.2.1",  # Study Root FIND
        "1.2.840.10008.5.1.4.31",  # Modality Worklist
        "1.2.840.10008.1.20.1",  # Storage Commitment
        "1.2.840.10008.3.1.2.1.1",  # retired Detached Patient Management
        "1.2.840.10008.1.3.10",  # Media Storage Directory
    ],
)
def test_other_services_are_no_storage(uid: str) -> None:
    assert not is_storage(uid)


def test_all_storage_classes_are_accepted_in_explicit_little_endian() -> None:
    proposed = [
        build_context(context.abstract_syntax, [ExplicitVRLittleEndian])
        for context in AllStoragePresentationContexts
    ]
    for number, context in enumerate(proposed):
        context.context_id = 2 * number % 256 + 1
    assert {answer.result for answer in answered(proposed)} == {0}


@pytest.mark.parametrize(
    "uid",
    [
        uid
        for uid in ALL_TRANSFER_SYNTAXES
        if uid not in (JPIP, "1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.4.204", "1.2.840.10008.1.2.4.205")
        and not uid.startswith("1.2.840.10008.1.2.7.")
    ],
)
def test_every_transfer_syntax_with_its_pixels_inside_is_accepted(uid: str) -> None:
    assert choose_transfer_syntax([uid]) == uid


def test_the_senders_first_choice_is_taken() -> None:
    assert choose_transfer_syntax([JPEG2000Lossless, JPEGBaseline8Bit]) == JPEG2000Lossless
    assert choose_transfer_syntax([JPEGBaseline8Bit, ExplicitVRLittleEndian]) == JPEGBaseline8Bit
    assert choose_transfer_syntax([ExplicitVRLittleEndian, JPEGBaseline8Bit]) == ExplicitVRLittleEndian


@pytest.mark.parametrize(
    "worse", [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian]
)
def test_explicit_little_endian_is_preferred_to_an_encoding_that_loses_or_costs(worse: str) -> None:
    assert choose_transfer_syntax([worse, ExplicitVRLittleEndian]) == ExplicitVRLittleEndian
    assert choose_transfer_syntax([worse]) == worse


def test_refusals_say_whether_class_or_transfer_syntax_is_not_supported() -> None:
    wrong_class = build_context("1.2.840.10008.5.1.4.34.6.1", [ExplicitVRLittleEndian])
    wrong_syntax = build_context(WSI, [JPIP])
    wrong_class.context_id, wrong_syntax.context_id = 3, 1
    assert [(answer.context_id, answer.result) for answer in answered([wrong_class, wrong_syntax])] == [
        (1, 4),
        (3, 3),
    ]


def test_a_service_without_its_right_is_refused_by_the_user() -> None:
    echo = build_context("1.2.840.10008.1.1")
    storage = build_context(WSI, [ExplicitVRLittleEndian])
    for number, context in enumerate((echo, storage)):
        context.context_id = 2 * number + 1
    assert [answer.result for answer in answered([echo, storage], frozenset({Right.STORE}))] == [1, 0]


def test_who_may_get_may_be_sent_what_it_may_not_store() -> None:
    storage = build_context(WSI, [ExplicitVRLittleEndian])
    storage.context_id = 1
    for rights, asked, result in (
        ({Right.GET}, {WSI}, 0),
        ({Right.GET}, set(), 1),
        ({Right.FIND}, {WSI}, 1),
    ):
        (answer,) = negotiate([storage], services(), rights, asked)
        assert answer.result == result
