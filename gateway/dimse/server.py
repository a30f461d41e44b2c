# SPDX-License-Identifier: Apache-2.0
"""The DICOM listener, on a socket that was opened for us."""

import contextlib
import errno
import logging
import threading
import time
from collections.abc import Callable
from socket import SHUT_RDWR
from socket import socket as Socket  # the server has an attribute of that name
from socketserver import TCPServer
from typing import TYPE_CHECKING

from pynetdicom import _config
from pynetdicom.ae import ApplicationEntity
from pynetdicom.transport import AddressInformation, AssociationServer, RequestHandler

from archive.part10.meta import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION
from gateway.dimse.admission import Admission
from gateway.dimse.association import PeerAssociation
from gateway.dimse.composition import services
from gateway.dimse.peers import peer_table
from gateway.dimse.rejected import Refusals
from gateway.dimse.store import Reception
from gateway.dimse.upper_layer import DeadlineSocket
from gateway.renewed import Renewed
from gateway.settings import DimseSettings
from gateway.tls import Secured, server_context, tls_settings
from gateway.tls_door import TlsDoor

if TYPE_CHECKING:
    from archive.service import Archive

log = logging.getLogger(__name__)

DRAIN_S = 30.0  # how long associations may go on after the listener is told to stop
_BACKLOG = 128
_OUT_OF_DESCRIPTORS_WAIT_S = 0.2
_HALF_OPEN = 16  # TLS handshakes at once, at least


class _Handler(RequestHandler):  # type: ignore[misc]
    """Starts the threads of one admitted connection."""

    server: "DimseServer"

    def handle(self) -> None:
        self.server.start_association(self.request, self.client_address)


class DimseServer(AssociationServer):  # type: ignore[misc]
    """pynetdicom's server on an inherited socket, with our associations."""

    socket: Socket

    def __init__(self, archive: "Archive", listener: Socket, settings: DimseSettings) -> None:
        _configure_library()
        self.archive = archive
        self.refusals = Refusals(archive)
        self.settings = settings
        self.peers = peer_table(archive, settings)
        self.services = services(settings, self.peers)
        self.admission = Admission(settings.maximum_associations, settings.associations_per_address)
        self._listener = listener
        self._associations: set[PeerAssociation] = set()
        self._changed = threading.Condition()
        entity = ApplicationEntity(settings.ae_title)
        entity.implementation_class_uid = IMPLEMENTATION_CLASS_UID
        entity.implementation_version_name = IMPLEMENTATION_VERSION
        entity.maximum_pdu_size = settings.maximum_pdu_bytes
        entity.acse_timeout = settings.association_timeout_s
        entity.network_timeout = settings.idle_timeout_s
        super().__init__(
            entity, listener.getsockname(), settings.ae_title.strip(), [], request_handler=_Handler
        )

    def server_bind(self) -> None:
        """Take the inherited socket in place of the one that TCPServer made."""
        self.socket.close()
        self.socket = self._listener
        # Another process may take the connection between select and accept.
        self.socket.setblocking(False)
        self.server_address = self.socket.getsockname()

    def server_activate(self) -> None:
        self.socket.listen(_BACKLOG)

    def get_request(self) -> tuple[Socket, tuple[str, int]]:
        try:
            return self.socket.accept()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                log.error("no descriptors left: a DICOM connection waits")
                time.sleep(_OUT_OF_DESCRIPTORS_WAIT_S)
            raise

    def start_association(
        self, connection: Socket, address: tuple[str, int], secured: Secured | None = None
    ) -> None:
        """Count the connection, then start its threads; before that it costs nothing."""
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
                DeadlineSocket(association, connection, self.settings.association_timeout_s)
            )
            association.acceptor.maximum_length = self.settings.maximum_pdu_bytes
            association.acceptor.ae_title = self.ae_title
            association.acceptor.address_info = AddressInformation.from_tuple(self.server_address)
            association.acceptor.implementation_class_uid = self.ae.implementation_class_uid
            association.acceptor.implementation_version_name = self.ae.implementation_version_name
            association.requestor.address_info = AddressInformation.from_tuple(address)
            with self._changed:
                self._associations.add(association)
            begun.append(association)
            association.start()
        except BaseException:
            self.admission.leave(admitted)
            _hang_up(connection)
            connection.close()
            raise

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

    def tls_door(self, listener: Socket) -> TlsDoor:
        """What accepts on a second listener, by TLS. Raises SettingsError."""
        settings, tls = self.settings, tls_settings(self.settings)
        return TlsDoor(
            listener, Renewed(tls.paths, lambda: server_context(tls)).current, self.start_association,
            lambda address, why: self.refusals.audit("", address, why),
            timeout_s=settings.association_timeout_s, limit=max(_HALF_OPEN, settings.maximum_associations),
            limit_per_address=max(_HALF_OPEN, settings.associations_per_address),
        )  # fmt: skip

    def stop_accepting(self) -> None:
        """End :meth:`serve_forever` and close the listener; associations go on."""
        TCPServer.shutdown(self)  # the library's own also wants to be in a list of its entity
        self.socket.close()

    def handle_error(self, request: object, client_address: object) -> None:
        """One connection failed to start; the server goes on."""
        log.exception("a DICOM connection could not be started")

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
    some = listener or tls_listener
    assert some is not None
    server = DimseServer(archive, some, settings)
    door = None if tls_listener is None else server.tls_door(tls_listener)
    with contextlib.ExitStack() as at_end:
        at_end.callback(server.drain, drain_s)
        if door is not None:
            door.open()
            at_end.callback(door.close)
        if listener is not None:
            threading.Thread(
                target=server.serve_forever, args=(0.2,), name="dimse-accept", daemon=True
            ).start()
            at_end.callback(server.stop_accepting)
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
