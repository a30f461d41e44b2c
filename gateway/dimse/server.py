# SPDX-License-Identifier: Apache-2.0
"""The DICOM listener, on a socket that was opened for us."""

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from socket import SHUT_RDWR, SHUT_WR
from socket import socket as Socket
from typing import TYPE_CHECKING

from pynetdicom import _config
from pynetdicom.ae import ApplicationEntity
from pynetdicom.transport import AddressInformation

from archive.part10.meta import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION
from gateway.dimse.admission import Admission
from gateway.dimse.association import PeerAssociation
from gateway.dimse.composition import services
from gateway.dimse.door import Door
from gateway.dimse.peers import peer_table
from gateway.dimse.rejected import Refusals
from gateway.dimse.store import Reception
from gateway.dimse.upper_layer import DeadlineSocket
from gateway.renewed import Renewed
from gateway.settings import DimseSettings
from gateway.tls import Secured, server_context, tls_settings

if TYPE_CHECKING:
    from archive.service import Archive

log = logging.getLogger(__name__)

DRAIN_S = 30.0  # how long associations may go on after the listener is told to stop
_BACKLOG = 128
_HALF_OPEN = 64  # connections without an association request, at least


class DimseServer:
    """The associations of one process, however they came in."""

    def __init__(self, archive: "Archive", settings: DimseSettings) -> None:
        _configure_library()
        self.archive = archive
        self.refusals = Refusals(archive)
        self.settings = settings
        self.peers = peer_table(archive, settings)
        self.services = services(settings, self.peers)
        self.admission = Admission(settings.maximum_associations, settings.associations_per_address)
        self._associations: set[PeerAssociation] = set()
        self._changed = threading.Condition()
        entity = ApplicationEntity(settings.ae_title)
        entity.implementation_class_uid = IMPLEMENTATION_CLASS_UID
        entity.implementation_version_name = IMPLEMENTATION_VERSION
        entity.maximum_pdu_size = settings.maximum_pdu_bytes
        entity.acse_timeout = settings.association_timeout_s
        entity.network_timeout = settings.idle_timeout_s
        self.ae = entity
        self.ae_title = settings.ae_title.strip()

    def start_association(
        self, connection: Socket, address: tuple[str, int], secured: Secured | None, request: bytes
    ) -> None:
        """Count the connection, then start its threads. ``request``: the PDU that it began with."""
        connection.settimeout(self.settings.association_timeout_s)
        begun: list[PeerAssociation] = []

        def make_room() -> None:
            for association in begun:
                association.fault = "half-open connections: the oldest was closed"
            _hang_up(connection)

        admitted = self.admission.admit(address[0], make_room)
        if admitted is None:
            log.warning("a connection from %s refused: too many", address[0])
            connection.close()
            return
        try:
            association = PeerAssociation(self, admitted, secured)
            association.set_socket(
                DeadlineSocket(association, connection, self.settings.association_timeout_s, request)
            )
            association.acceptor.maximum_length = self.settings.maximum_pdu_bytes
            association.acceptor.ae_title = self.ae_title
            association.acceptor.address_info = AddressInformation.from_tuple(connection.getsockname())
            association.acceptor.implementation_class_uid = self.ae.implementation_class_uid
            association.acceptor.implementation_version_name = self.ae.implementation_version_name
            association.requestor.address_info = AddressInformation.from_tuple(address)
            with self._changed:
                self._associations.add(association)
            begun.append(association)
            association.start()
        except BaseException:  # also when interrupted: nothing is counted that does not run
            with self._changed:
                self._associations.difference_update(begun)
            self.admission.leave(admitted)
            _hang_up(connection)
            connection.close()
            raise

    def shutdown_request(self, connection: Socket) -> None:
        """Called by the library's association when it has nothing more to say."""
        with contextlib.suppress(OSError):
            connection.shutdown(SHUT_WR)
        connection.close()

    def ended(self, association: PeerAssociation) -> None:
        """Called by the association's thread as its last act."""
        self.admission.leave(association.admitted)
        with self._changed:
            self._associations.discard(association)
            self._changed.notify_all()

    def open_reception(
        self, *, sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str
    ) -> Reception:
        """A place in the spool for the data set that follows."""
        return Reception(
            self.archive.stage,
            sop_class_uid=sop_class_uid,
            sop_instance_uid=sop_instance_uid,
            transfer_syntax_uid=transfer_syntax_uid,
        )

    def door(self, listener: Socket, *, tls: bool) -> Door:
        """What accepts on a listener. Raises SettingsError."""
        settings, files = self.settings, tls_settings(self.settings)
        listener.listen(_BACKLOG)
        return Door(
            listener, Renewed(files.paths, lambda: server_context(files)).current if tls else None,
            self.start_association, lambda address, why: self.refusals.audit("", address, why),
            timeout_s=settings.association_timeout_s, limit=max(_HALF_OPEN, settings.maximum_associations),
            limit_per_address=max(_HALF_OPEN, settings.associations_per_address),
        )  # fmt: skip

    def drain(self, timeout_s: float) -> None:
        """Wait for running associations to end; abort those that do not."""
        deadline = time.monotonic() + timeout_s
        with self._changed:
            self._changed.wait_for(lambda: not self._associations, timeout_s)
            left = list(self._associations)
        for association in left:
            log.warning("association of %s aborted: the server stops", association.peer_address)
            association.abort(block=False)
        with self._changed:
            self._changed.wait_for(lambda: not self._associations, max(1.0, deadline - time.monotonic()))


def serve(
    archive: "Archive",
    listener: Socket | None,
    settings: DimseSettings,
    ready: Callable[[], None],
    stop: threading.Event,
    *,
    drain_s: float = DRAIN_S,
    tls_listener: Socket | None = None,
) -> None:
    """Serve DICOM on ``listener``, and by TLS on ``tls_listener`` (bound already, one of
    them at least), until ``stop`` is set.

    ``ready`` is called once peers are answered. On stop no new association is taken and
    running ones have ``drain_s`` seconds to end. Raises SettingsError.
    """
    server = DimseServer(archive, settings)
    doors = [server.door(one, tls=one is tls_listener) for one in (listener, tls_listener) if one is not None]
    with contextlib.ExitStack() as at_end:
        at_end.callback(server.drain, drain_s)
        for door in doors:
            door.open()
            at_end.callback(door.close)
        ready()
        stop.wait()


def _hang_up(connection: Socket) -> None:
    """End a connection whose threads may be reading from it: they see its end."""
    with contextlib.suppress(OSError):
        connection.shutdown(SHUT_RDWR)


def _configure_library() -> None:
    """pynetdicom's settings are of the process. Its "standard" handlers would format
    every message for a log that must not hold it."""
    _config.LOG_HANDLER_LEVEL = "none"
    _config.UNRESTRICTED_STORAGE_SERVICE = True
