# SPDX-License-Identifier: Apache-2.0
"""Where an instance came from: kept in its record, never in a header."""

from archive.access import Principal, Scope
from archive.record import read_record
from archive.retrieve import Retriever
from archive.values import Instance, Sender


def sender_of(retriever: Retriever, instance: Instance, *, principal: Principal, scope: Scope) -> Sender:
    """See ``Archive.sender_of``."""
    handle = retriever.opened(instance, principal=principal, scope=scope)
    kept = read_record(handle.record).sender
    return Sender(kept.get("via", ""), kept.get("name", ""), kept.get("address", ""))
