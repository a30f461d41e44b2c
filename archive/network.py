# SPDX-License-Identifier: Apache-2.0
"""The peers that an operator named while the server runs: kept here, audited as
configuration of network and security (PS3.15 A.5.3.12)."""

import functools
import json
import logging

from archive.access import Principal, Scope
from archive.audit import SECURITY_ALERT, AuditRecord
from archive.core import Core
from archive.errors import BadQuery, NoSuchPeer
from archive.peer import Peer

log = logging.getLogger(__name__)

# Event type codes of a security alert, PS3.16 CID 403.
NETWORK_CONFIGURATION = "110128"
SECURITY_CONFIGURATION = "110129"

MOST_PEERS = 1000
_KEY = "dimse_peers"
_OF_THE_NETWORK = ("ae_title", "networks", "host", "port")


def known_peers(core: Core) -> tuple[Peer, ...]:
    """All of them by AE title; for who must know whom to answer, not for a caller."""
    model = core.index.models.Setting
    with core.index.read():
        row = model.get_or_none(model.key == _KEY)
    return _parsed("{}" if row is None else row.value)


def peers(core: Core, *, principal: Principal, scope: Scope) -> tuple[Peer, ...]:
    core.operate(principal, scope, "peers")
    return known_peers(core)


def put_peer(core: Core, peer: Peer, *, principal: Principal, scope: Scope) -> bool:
    """Keep ``peer``; whether its AE title is new. Raises BadQuery beyond 1,000 peers."""
    core.operate(principal, scope, "peers")

    def verb() -> bool:
        tables = _tables(core)
        before = tables.get(peer.ae_title)
        if before is None and len(tables) >= MOST_PEERS:
            raise BadQuery(f"there are {MOST_PEERS} peers already")
        tables[peer.ae_title] = peer.to_mapping()
        _keep(core, tables, peer.ae_title, before, principal)
        return before is None

    return core.index.write(verb)


def remove_peer(core: Core, ae_title: str, *, principal: Principal, scope: Scope) -> None:
    """Forget a peer. Raises NoSuchPeer."""
    core.operate(principal, scope, "peers")

    def verb() -> None:
        tables = _tables(core)
        before = tables.pop(ae_title, None)
        if before is None:
            raise NoSuchPeer(ae_title)
        _keep(core, tables, ae_title, before, principal)

    core.index.write(verb)


def _tables(core: Core) -> dict[str, dict[str, object]]:
    """What is kept, by AE title; within a write."""
    model = core.index.models.Setting
    row = model.get_or_none(model.key == _KEY)
    found: dict[str, dict[str, object]] = {} if row is None else json.loads(row.value)
    return found


def _keep(
    core: Core,
    tables: dict[str, dict[str, object]],
    ae_title: str,
    before: dict[str, object] | None,
    principal: Principal,
) -> None:
    after = tables.get(ae_title)
    if before == after:
        return
    core.put_setting(_KEY, tables)
    changed = {
        name for name in {**(before or {}), **(after or {})} if _value(before, name) != _value(after, name)
    }
    types = []
    if changed & set(_OF_THE_NETWORK):
        types.append(NETWORK_CONFIGURATION)
    if changed - set(_OF_THE_NETWORK):
        types.append(SECURITY_CONFIGURATION)
    detail: dict[str, object] = {"event_types": types, "peer": ae_title, "before": before, "after": after}
    core.add_audit(AuditRecord(SECURITY_ALERT, "E", principal, detail=detail))


def _value(table: dict[str, object] | None, name: str) -> object:
    return None if table is None else table.get(name)


@functools.lru_cache(maxsize=4)
def _parsed(text: str) -> tuple[Peer, ...]:
    found = []
    for ae_title, table in sorted(json.loads(text).items()):
        try:
            found.append(Peer.from_mapping(table))
        except ValueError as error:  # another release's: it is nobody here, the others are not affected
            log.error("the peer %s is left out: %s", ae_title, error)
    return tuple(found)
