# SPDX-License-Identifier: Apache-2.0
"""The conformance statement says what the code does."""

import re

import pytest
from pynetdicom.status import STORAGE_SERVICE_CLASS_STATUS

from archive.commitment import CommitmentFailure
from archive.errors import Reason, StoreWarning
from archive.part10.meta import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION
from gateway.dimse import association, availability, commitment, find, query_keys, retrieval, sending, store
from gateway.dimse.echo import VERIFICATION
from gateway.dimse.negotiation import TRANSFER_SYNTAXES
from gateway.dimse.rights import Right
from gateway.tls import TlsSettings, client_context
from tests.support.require import ROOT

STATEMENT = (ROOT / "docs" / "conformance-dimse.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    return STATEMENT.partition(f"## {title}\n")[2].partition("\n## ")[0]


def test_the_transfer_syntaxes_are_those_that_are_accepted() -> None:
    named = re.findall(r"^\| `([0-9.]+)` \|", section("Presentation contexts"), re.MULTILINE)
    assert len(named) == len(set(named))
    assert set(named) == TRANSFER_SYNTAXES


def test_the_statuses_are_those_that_a_store_may_answer() -> None:
    named = {
        int(code, 16) for code in re.findall(r"^\| `([0-9A-F]{4})` \|", section("C-STORE"), re.MULTILINE)
    }
    possible = {store.SUCCESS, store.DATA_SET_DIFFERS, *StoreWarning, *Reason}
    possible -= {Reason.NO_SUCH_SOP_INSTANCE, StoreWarning.COERCION}  # nothing is coerced
    assert named == possible
    assert named <= set(STORAGE_SERVICE_CLASS_STATUS)


def codes(title: str, heading: str) -> set[int]:
    """The codes of one of a section's tables."""
    table = section(title).partition(f"| {heading} |")[2].partition("\n\n")[0]
    return {int(code, 16) for code in re.findall(r"^\| `([0-9A-F]{4})` \|", table, re.MULTILINE)}


def test_the_statuses_and_reasons_of_storage_commitment_are_those_of_the_code() -> None:
    assert codes("Storage commitment", "N-ACTION status") == commitment.N_ACTION_STATUSES
    assert codes("Storage commitment", "Failure Reason") == set(CommitmentFailure)
    assert codes("Storage commitment", "N-EVENT-REPORT status") == commitment.N_EVENT_REPORT_STATUSES
    for text in (commitment.SOP_CLASS, commitment.WELL_KNOWN_INSTANCE, availability.SOP_CLASS):
        assert f"`{text}`" in STATEMENT


def test_query_and_retrieve_are_told_as_they_are() -> None:
    named = set(
        re.findall(
            r"^\|[^|]*\| `(1\.2\.840\.10008\.5\.1\.4\.1\.2\.[0-9.]+)` \| SCP \|", STATEMENT, re.MULTILINE
        )
    )
    operations = (query_keys.FIND, query_keys.MOVE, query_keys.GET)
    assert named == frozenset().union(*map(query_keys.sop_classes, operations))
    assert codes("Query (C-FIND)", "C-FIND status") == find.STATUSES
    assert codes("Retrieve (C-MOVE, C-GET)", "retrieve status") == retrieval.STATUSES
    negotiated = re.findall(r"^\| (\d) \|[^|]*\| (\d) \|", section("Query (C-FIND)"), re.MULTILINE)
    assert [int(number) for number, _ in negotiated] == list(range(1, 8))
    assert bytes(int(answer) for _, answer in negotiated) == query_keys.agree(b"\1" * 7)
    for number in (query_keys.MAX_KEYS, query_keys.MAX_DEPTH):
        assert f" {number} " in section("Query (C-FIND)")
    assert f"{retrieval.MOST_INSTANCES:,}" in section("Retrieve (C-MOVE, C-GET)")


def test_the_rejections_are_those_that_are_given() -> None:
    rows = re.findall(
        r"^\| (\d)[^|]*\| (\d)[^|]*\| (\d)[^|]*\|", section("Association rejection"), re.MULTILINE
    )
    given = {
        association.APPLICATION_CONTEXT_NOT_SUPPORTED,
        association.CALLING_AE_TITLE_NOT_RECOGNIZED,
        association.CALLED_AE_TITLE_NOT_RECOGNIZED,
        association.LOCAL_LIMIT_EXCEEDED,
    }
    assert {tuple(map(int, row)) for row in rows} == given


def test_the_rights_are_those_that_a_peer_may_have() -> None:
    named = re.findall(r"^\| `([a-z]+)` \|", section("Peers and their rights"), re.MULTILINE)
    assert named == list(Right)


@pytest.mark.parametrize(("profile", "column"), [("bcp195", 0), ("bcp195-modified", 1)])
def test_the_cipher_suites_are_those_that_are_offered(profile: str, column: int) -> None:
    rows = re.findall(
        r"^\| `(TLS_\w+)` \| 1\.\d \| (yes|no) \| (yes|no) \|", section("Security"), re.MULTILINE
    )
    named = {suite for suite, *offered in rows if offered[column] == "yes"}
    context = client_context(TlsSettings(None, None, None, profile=profile), None)
    assert {_openssl_name(suite) for suite in named} == {one["name"] for one in context.get_ciphers()}
    assert f"`{profile}`" in section("Security")


def _openssl_name(suite: str) -> str:
    """OpenSSL's name of a suite, which it calls by its own before TLS 1.3."""
    if "_WITH_" not in suite:
        return suite
    name = suite.removeprefix("TLS_").replace("_WITH_", "-").replace("AES_", "AES").replace("_", "-")
    return name.replace("POLY1305-SHA256", "POLY1305")


def test_what_we_make_of_a_receivers_status_is_as_stated() -> None:
    rows = re.findall(r"^\| `([0-9A-F]{4})` \| (\w+) \|", section("Storage as SCU"), re.MULTILINE)
    stated = {int(code, 16): kind for code, kind in rows}
    judged = {status: sending.judge(status) for status in stated}
    for kind, outcome in (("failure", sending.Outcome.FAILED), ("warning", sending.Outcome.WARNING)):
        assert {s for s in stated if stated[s] == kind} == {s for s in judged if judged[s][0] is outcome}
    assert {s for s, (_, final) in judged.items() if final} == {0x0118, 0x0122, 0xA900}


def test_the_implementation_is_named() -> None:
    for text in (IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION, VERIFICATION):
        assert f"`{text}`" in STATEMENT
