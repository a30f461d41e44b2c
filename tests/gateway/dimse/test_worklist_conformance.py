# SPDX-License-Identifier: Apache-2.0
"""What the conformance statement says of worklist and performed steps is what the code does."""

import re

import pytest
from pydicom.datadict import keyword_for_tag
from pynetdicom.status import MODALITY_WORKLIST_SERVICE_CLASS_STATUS, PROCEDURE_STEP_STATUS

from archive import performed
from archive.index.worklist import ACTIVE, COLUMNS, KEYS
from gateway.dimse import find, mpps, services, worklist
from tests.gateway.dimse.test_conformance import STATEMENT, section

WORKLIST = section("Modality Worklist")
MPPS = section("Modality Performed Procedure Step")


def statuses(text: str) -> set[int]:
    return {int(code, 16) for code in re.findall(r"^\| `([0-9A-F]{4})` \|", text, re.MULTILINE)}


def test_the_keys_are_those_that_are_matched() -> None:
    named = dict(re.findall(r"^\| ([A-Za-z0-9 >]+) \| `([0-9A-F.]+)` \|", WORKLIST, re.MULTILINE))
    expected = {
        " > ".join(keyword_for_tag(tag) for tag in path.split(".")): path for path in {**COLUMNS, **KEYS}
    }
    assert named == expected


def test_the_statuses_of_a_worklist_query_are_those_that_are_answered() -> None:
    answered = {
        services.SUCCESS, services.PENDING, services.PENDING_WITHOUT_OPTIONAL_KEYS, worklist.CANCELLED,
        worklist.OUT_OF_RESOURCES, find.IDENTIFIER_DOES_NOT_MATCH, worklist.UNABLE_TO_PROCESS,
        services.PROCESSING_FAILURE, services.NOT_AUTHORIZED,
    }  # fmt: skip
    assert statuses(WORKLIST) == answered
    assert answered <= set(MODALITY_WORKLIST_SERVICE_CLASS_STATUS)


def test_the_statuses_of_a_performed_step_are_those_that_are_answered() -> None:
    answered = {
        services.SUCCESS, mpps.ATTRIBUTE_LIST_ERROR, performed.INVALID_VALUE, performed.PROCESSING_FAILURE,
        performed.DUPLICATE_INSTANCE, performed.NO_SUCH_INSTANCE, performed.MISSING_ATTRIBUTE,
        performed.MISSING_VALUE, services.NOT_AUTHORIZED,
    }  # fmt: skip
    assert statuses(MPPS) == answered
    assert answered <= set(PROCEDURE_STEP_STATUS)
    assert f"{performed.MAY_NO_LONGER_BE_UPDATED:04X}" in MPPS


@pytest.mark.parametrize("uid", [worklist.MODALITY_WORKLIST, mpps.MPPS, mpps.MPPS_RETRIEVE])
def test_the_sop_classes_are_named(uid: str) -> None:
    assert f"| `{uid}` | SCP |" in STATEMENT


def test_the_limits_and_states_are_named() -> None:
    assert f"more than {worklist.MAXIMUM_ITEMS} items" in WORKLIST
    for state in ACTIVE:
        assert state in WORKLIST
