# SPDX-License-Identifier: Apache-2.0
"""Storage SCP: a C-STORE request in, a SOP Instance in the archive (PS3.4 Annex B)."""

import logging
import re
from collections.abc import Callable, Sequence

from archive.errors import ArchiveError, Reason, Unreadable
from archive.spool import SpoolFile, Staging
from archive.values import Sender
from gateway.dimse.file_meta import file_meta
from gateway.dimse.negotiation import TRANSFER_SYNTAXES
from gateway.dimse.rights import Right
from gateway.dimse.services import SUCCESS, Request, Service
from gateway.dimse.storage_classes import EVERY, storage_classes

log = logging.getLogger(__name__)

DATA_SET_DIFFERS = 0xB007  # stored, with a warning: PS3.4 Table B.2-1
_UID = re.compile(r"[0-9]+(\.[0-9]+)*", re.ASCII)
_UID_LENGTH = 64


def is_uid(text: str) -> bool:
    """Whether this may be a UID. Leading zeros in a component, which real senders
    write, are let through (PS3.5 Section 9.1)."""
    return len(text) <= _UID_LENGTH and _UID.fullmatch(text) is not None


class Reception:
    """One data set on its way from the socket to the spool.

    Nothing here raises: a refusal (a full disk) is kept until the peer has sent all of
    the data set, because only then it listens to an answer.
    """

    def __init__(
        self,
        stage: Callable[[], Staging],
        *,
        sop_class_uid: str,
        sop_instance_uid: str,
        transfer_syntax_uid: str,
    ) -> None:
        self.refusal: ArchiveError | None = None
        self._staging: Staging | None = None
        try:
            if not (is_uid(sop_class_uid) and is_uid(sop_instance_uid)):
                raise Unreadable("the request's SOP class or instance UID is not a UID")
            self._staging = stage()
            self._staging.write(file_meta(sop_class_uid, sop_instance_uid, transfer_syntax_uid))
        except ArchiveError as refusal:
            self._refuse(refusal)

    def write(self, fragment: memoryview) -> None:
        """The next bytes; they are not copied and must not change afterwards."""
        if self._staging is None:
            return
        try:
            self._staging.write(fragment)
        except ArchiveError as refusal:
            self._refuse(refusal)

    def finish(self) -> SpoolFile:
        """The complete Part 10 file, on stable storage. Raises ArchiveError."""
        if self.refusal is not None:
            raise self.refusal
        assert self._staging is not None
        return self._staging.finish()

    def discard(self) -> None:
        """Remove what is left in the spool; harmless after the archive took it."""
        staging, self._staging = self._staging, None
        if staging is not None:
            staging.discard()

    def _refuse(self, refusal: ArchiveError) -> None:
        self.refusal = refusal
        self.discard()


def service(sop_classes: Sequence[str] = EVERY) -> Service:
    """C-STORE of storage SOP classes (PS3.4 Annex B), named as ``dimse.sop_classes`` does.
    Raises ValueError for a name that is none."""
    return Service(
        "Storage", frozenset(), Right.STORE, {"C_STORE": on_c_store}, takes=storage_classes(sop_classes),
        transfer_syntaxes=TRANSFER_SYNTAXES, we_may_be_scu=True,
    )  # fmt: skip


def on_c_store(request: Request) -> None:
    """Store what the peer sent, and answer with a status of PS3.4 B.2.3.

    Success promises that the instance is stored, indexed and durable: the sender
    may delete its copy.
    """
    reception: Reception | None = request.primitive.reception
    if reception is None:
        request.respond(Reason.CANNOT_UNDERSTAND, ErrorComment="a request without a data set")
        return
    if not request.association.dimse.claim(reception):
        return  # nobody listens any more
    if not request.service.serves(str(request.primitive.AffectedSOPClassUID)):
        reception.discard()
        request.respond(Reason.SOP_CLASS_NOT_SUPPORTED)
        return
    principal = request.principal
    sender = Sender("dimse", principal.actor, principal.address)
    try:
        stored = request.archive.store_file(
            reception.finish(), principal=principal, scope=request.scope, sender=sender
        )
    except ArchiveError as refusal:
        log.warning("C-STORE from %s refused with %#06x: %s", principal.actor, refusal.reason, refusal)
        request.respond(refusal.reason, ErrorComment=str(refusal))
        return
    finally:
        reception.discard()
    named = (str(request.primitive.AffectedSOPClassUID), str(request.primitive.AffectedSOPInstanceUID))
    if named != (stored.sop_class_uid, stored.sop_instance_uid):
        # It is stored under what the data set says; asked for by the request's UID it is not here.
        log.warning("C-STORE from %s named %s, the data set is %s", principal.actor, named[1],
                    stored.sop_instance_uid)  # fmt: skip
        request.respond(DATA_SET_DIFFERS)
        return
    request.respond(SUCCESS if stored.warning is None else stored.warning)
