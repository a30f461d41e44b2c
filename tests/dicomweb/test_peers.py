# SPDX-License-Identifier: Apache-2.0
"""Peers over HTTP: named, shown, forgotten; those of the settings stay as they are."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from werkzeug.test import Client

from archive.access import Action, OpenPolicy, Principal
from archive.peer import Peer
from dicomweb.app import create_app
from dicomweb.settings import WebSettings
from tests.dicomweb.conftest import open_archive

CONFIGURED = Peer("PACS", ("10.1.1.5/32",), host="10.1.1.5", port=104, rights=("echo", "find"))
SCANNER = {"networks": ["10.1.2.0/24"], "rights": ["echo", "store"], "fingerprints": ["ab" * 32]}


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    with contextlib.closing(open_archive(tmp_path)) as archive:
        yield create_app(archive, WebSettings(configured_peers=lambda: (CONFIGURED,))).test_client()


def test_a_peer_is_named_shown_replaced_and_forgotten(client):
    made = client.put("/api/peers/SCANNER1", json=SCANNER)
    assert made.status_code == 201
    shown = client.get("/api/peers/SCANNER1").get_json()
    assert shown == made.get_json()
    assert (shown["ae_title"], shown["source"], shown["fingerprints"]) == ("SCANNER1", "api", ["ab" * 32])
    # What GET gives may be sent back.
    again = client.put("/api/peers/SCANNER1", json={**shown, "rights": ["echo"]})
    assert again.status_code == 200
    assert client.get("/api/peers/SCANNER1").get_json()["rights"] == ["echo"]
    assert client.delete("/api/peers/SCANNER1").status_code == 204
    assert client.get("/api/peers/SCANNER1").status_code == 404
    assert client.delete("/api/peers/SCANNER1").status_code == 404


def test_the_list_has_the_peers_of_the_settings_and_these_win(client):
    client.application.extensions["coverslip"].archive.put_peer(
        Peer("PACS"), principal=Principal("tester", "cli"), scope=OpenPolicy().scope(Principal("t", "cli"))
    )
    client.put("/api/peers/SCANNER1", json=SCANNER)
    listed = client.get("/api/peers").get_json()["peers"]
    assert [(peer["ae_title"], peer["source"]) for peer in listed] == [
        ("PACS", "settings"),
        ("SCANNER1", "api"),
    ]
    assert listed[0]["port"] == 104
    assert client.get("/api/peers/PACS").get_json() == listed[0]


@pytest.mark.parametrize("method", ["put", "delete"])
def test_a_peer_of_the_settings_is_not_changed_here(client, method):
    answer = getattr(client, method)("/api/peers/PACS", **({"json": SCANNER} if method == "put" else {}))
    assert answer.status_code == 409
    assert "settings" in answer.get_json()["error"]["message"]


@pytest.mark.parametrize(
    ("body", "status", "complaint"),
    [
        (b"{", 400, "not JSON"),
        (b"[" * 100_000, 400, "not JSON"),
        (b"[]", 400, "JSON object"),
        (b'{"rights": ["all"]}', 400, "not a right"),
        (b'{"ae_title": "OTHER"}', 400, "not the one of the URL"),
        (b'{"nickname": "x"}', 400, "has no 'nickname'"),
        (b" " * 300_000, 413, "more than"),
    ],
)
def test_a_body_that_is_no_peer_is_refused_with_what_is_wrong(client, body, status, complaint):
    answer = client.put("/api/peers/SCANNER1", data=body)
    assert answer.status_code == status
    assert complaint in answer.get_json()["error"]["message"]
    assert client.get("/api/peers/SCANNER1").status_code == 404


def test_a_name_that_is_no_ae_title_is_refused(client):
    assert client.put("/api/peers/MORE_THAN_SIXTEEN_", json={}).status_code == 400
    assert client.put("/api/peers/%5C", json={}).status_code == 400


class OnlyReading(OpenPolicy):
    """A policy without the right to operate."""

    def allows(self, principal: Principal, action: Action) -> bool:
        return action is not Action.OPERATE


def test_without_the_right_to_operate_there_is_nothing_to_see_or_change(tmp_path):
    with contextlib.closing(open_archive(tmp_path, policy=OnlyReading())) as archive:
        client = create_app(archive, WebSettings(configured_peers=lambda: (CONFIGURED,))).test_client()
        for answer in (
            client.get("/api/peers"), client.get("/api/peers/PACS"), client.put("/api/peers/PACS", json={}),
            client.delete("/api/peers/PACS"), client.put("/api/peers/NEW", json={}),
        ):  # fmt: skip
            assert answer.status_code == 403
