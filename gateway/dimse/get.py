# SPDX-License-Identifier: Apache-2.0
"""Retrieve SCP: C-GET, which stores on the association that asked (PS3.4 C.4.3)."""

from gateway.dimse.query_keys import GET, agree_to_retrieve, sop_classes
from gateway.dimse.retrieval import suboperations
from gateway.dimse.rights import Right
from gateway.dimse.services import Request, Service


def service() -> Service:
    """C-GET in all information models."""
    return Service("Get", sop_classes(GET), Right.GET, {"C_GET": on_c_get}, extended=agree_to_retrieve)


def on_c_get(request: Request) -> None:
    """Send what the identifier names in the contexts of which the peer is the SCP."""
    association = request.association
    contexts = {
        (str(context.abstract_syntax), str(context.transfer_syntax[0])): context.context_id
        for context in association.accepted_contexts
        if context.context_id is not None and str(context.abstract_syntax) in association.peer_is_scp_of
    }
    with suboperations(request, request.principal.actor) as found:
        if found is None:
            return
        for one in list(found.left.values()):
            if request.cancelled:
                break
            prepared = found.prepare(one, contexts)
            if prepared is None:
                continue
            number, chunks = prepared
            try:
                status = association.store(number, one.sop_class_uid, one.sop_instance_uid, chunks)
            except Exception:  # half of a message is out: there is no way to go on
                association.abort(block=False)
                raise
            if status is None:
                break
            found.end(one, status)
        if request.alive:
            found.answer()
