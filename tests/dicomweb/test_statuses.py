# SPDX-License-Identifier: Apache-2.0
"""One table of refusals, two protocols, no gap."""

import inspect
import json

import pytest
from pynetdicom.status import STORAGE_SERVICE_CLASS_STATUS

from archive import errors as archive_errors
from archive.errors import ArchiveError, Reason
from dicomweb.errors import HTTP_STATUS, RequestRefused, refusal, status_of
from dicomweb.media import MixedMediaTypes, NotAcceptable

EXPECTED = {
    "NoSuchInstance": 404,
    "NoSuchFrame": 404,
    "Gone": 410,
    "NotAllowed": 403,
    "Held": 409,
    "DuplicateInstance": 409,
    "StudyMismatch": 409,
    "CannotTranscode": 406,
    "TooLarge": 413,
    "StorageFull": 413,
    "StorageFailed": 503,
    "Busy": 503,
    "BadQuery": 400,
    "Unreadable": 400,
    "Damaged": 500,
}


def make(kind):
    """An error of a class without calling its constructor."""
    error = kind.__new__(kind)
    error.args = ("said so",)
    return error


def test_every_reason_has_a_valid_dimse_and_an_http_status():
    assert set(HTTP_STATUS) == set(Reason)
    assert set(Reason) <= set(STORAGE_SERVICE_CLASS_STATUS)


@pytest.mark.parametrize(("name", "status"), EXPECTED.items())
def test_classes_that_say_more_than_their_reason_have_their_own_status(name, status):
    assert status_of(make(getattr(archive_errors, name))) == status


def test_every_refusal_of_the_archive_has_a_status_and_the_one_shape():
    kinds = [
        kind
        for _, kind in inspect.getmembers(archive_errors, inspect.isclass)
        if issubclass(kind, ArchiveError)
    ]
    assert len(kinds) > 15
    for kind in kinds:
        made = refusal(make(kind), "r1")
        error = json.loads(made.body)["error"]
        assert error["status"] == made.status >= 400
        assert error["kind"] == kind.__name__
        assert error["message"] == "said so"
        assert int(error["reason"], 16) in set(Reason)
        assert ("Retry-After" in made.headers) == (made.status == 503)


def test_what_nobody_foresaw_is_a_500_that_says_nothing():
    made = refusal(ValueError("/srv/secret/PATIENT^NAME"), "r1")
    assert made.status == 500
    assert b"PATIENT" not in made.body
    assert json.loads(made.body)["error"]["request_id"] == "r1"


def test_negotiation_errors_are_406_and_400():
    assert status_of(NotAcceptable()) == 406
    assert status_of(MixedMediaTypes()) == 400
    assert status_of(RequestRefused()) == 400
