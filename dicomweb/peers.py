# SPDX-License-Identifier: Apache-2.0
"""``/api/peers``: the remote application entities that DICOM associations are had with.

Peers of the settings are shown and cannot be changed here; those put here are in the
database, and the DICOM listener knows them at its next association.
"""

import json
from collections.abc import Mapping

from flask import Blueprint, Response, jsonify, request

from archive.errors import NoSuchPeer, TooLarge
from archive.peer import Peer
from dicomweb.context import archive, caller, web
from dicomweb.errors import BadRequest, Conflict

peers = Blueprint("peers", __name__, url_prefix="/api/peers")

_BODY_BYTES = 256 * 1024


@peers.get("")
def list_peers() -> Response:
    """Every peer by AE title; ``source`` is ``settings`` or ``api``."""
    kept, of_settings = _kept(), _of_settings()
    found = {**kept, **of_settings}
    return jsonify({"peers": [_shown(found[title], title in of_settings) for title in sorted(found)]})


@peers.get("/<ae_title>")
def show_peer(ae_title: str) -> Response:
    """One peer: rights, networks, address, certificates."""
    kept, of_settings = _kept(), _of_settings()
    peer = of_settings.get(ae_title) or kept.get(ae_title)
    if peer is None:
        raise NoSuchPeer(ae_title)
    return jsonify(_shown(peer, ae_title in of_settings))


@peers.put("/<ae_title>")
def put_peer(ae_title: str) -> tuple[Response, int]:
    """Name a peer or replace it: a JSON object as GET shows it. 409 for one of the settings."""
    _check_changeable(ae_title)
    peer = _peer_of_body(ae_title)
    is_new = archive().put_peer(peer, **caller())
    return jsonify(_shown(peer, False)), 201 if is_new else 200


@peers.delete("/<ae_title>")
def remove_peer(ae_title: str) -> Response:
    """Forget a peer (204). 409 for one of the settings."""
    _check_changeable(ae_title)
    archive().remove_peer(ae_title, **caller())
    return Response(status=204)


def _kept() -> dict[str, Peer]:
    return {peer.ae_title: peer for peer in archive().peers(**caller())}


def _of_settings() -> dict[str, Peer]:
    return {peer.ae_title: peer for peer in web().settings.configured_peers()}


def _check_changeable(ae_title: str) -> None:
    _kept()  # who may not ask is told nothing about the settings
    if ae_title in _of_settings():
        raise Conflict(f"{ae_title} is a peer of the settings: change it there")


def _shown(peer: Peer, of_settings: bool) -> dict[str, object]:
    return {**peer.to_mapping(), "source": "settings" if of_settings else "api"}


def _peer_of_body(ae_title: str) -> Peer:
    if (request.content_length or 0) > _BODY_BYTES:
        raise TooLarge(f"a body of more than {_BODY_BYTES} bytes")
    body = request.stream.read(_BODY_BYTES + 1)
    if len(body) > _BODY_BYTES:
        raise TooLarge(f"a body of more than {_BODY_BYTES} bytes")
    try:
        table = json.loads(body)
    except (ValueError, RecursionError):
        raise BadRequest("the body is not JSON") from None
    if not isinstance(table, Mapping):
        raise BadRequest("a peer is a JSON object")
    fields = {"ae_title": ae_title, **table}
    fields.pop("source", None)
    try:
        peer = Peer.from_mapping(fields)
    except ValueError as error:
        raise BadRequest(str(error)) from None
    if peer.ae_title != ae_title:
        raise BadRequest("the AE title is not the one of the URL")
    return peer
