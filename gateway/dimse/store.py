# SPDX-License-Identifier: Apache-2.0
"""Storage SCP: a C-STORE request in, a SOP Instance in the archive (PS3.4 Annex B)."""

import logging
import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from pynetdicom.events import Event

from archive.errors import ArchiveError, Reason, Unreadable
from archive.spool import SpoolFile, Staging
from archive.values import Sender
from gateway.dimse.file_meta import file_meta

if TYPE_CHECKING:
    from archive.service import Archive

log = logging.getLogger(__name__)

SUCCESS = 0x0000
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


def on_c_store(event: Event, archive: "Archive") -> int:
    """Store what the peer sent; return the C-STORE status (PS3.4 B.2.3).

    Success promises that the instance is stored, indexed and durable: the sender
    may delete its copy. Never raises: pynetdicom would answer 0xC211, which blames
    the sender.
    """
    association = event.assoc
    reception: Reception | None = event.request.reception
    if reception is None:
        return Reason.CANNOT_UNDERSTAND  # a request without a data set
    if not association.dimse.claim(reception):
        return Reason.PROCESSING_FAILURE  # nobody listens any more
    principal = association.principal
    sender = Sender("dimse", principal.actor, principal.address)
    try:
        stored = archive.store_file(
            reception.finish(), principal=principal, scope=archive.policy.scope(principal), sender=sender
        )
    except ArchiveError as refusal:
        log.warning("C-STORE from %s refused with %#06x: %s", principal.actor, refusal.reason, refusal)
        return refusal.reason
    except Exception:  # an error of ours must not be blamed on the sender, see above
        log.exception("C-STORE from %s failed", principal.actor)
        return Reason.PROCESSING_FAILURE
    finally:
        reception.discard()
    named = (str(event.request.AffectedSOPClassUID), str(event.request.AffectedSOPInstanceUID))
    if named != (stored.sop_class_uid, stored.sop_instance_uid):
        # It is stored under what the data set says; asked for by the request's UID it is not here.
        log.warning("C-STORE from %s named %s, the data set is %s", principal.actor, named[1],
                    stored.sop_instance_uid)  # fmt: skip
        return DATA_SET_DIFFERS
    return SUCCESS if stored.warning is None else stored.warning
