# SPDX-License-Identifier: Apache-2.0
"""Which services the DICOM listener has, put together."""

from gateway.dimse import commitment, echo, find, get, move, mpps, store, worklist
from gateway.dimse.peers import PeerTable
from gateway.dimse.services import Service
from gateway.settings import DimseSettings, SettingsError


def services(settings: DimseSettings | None = None, peers: PeerTable | None = None) -> tuple[Service, ...]:
    """Asked in this order which of them takes an abstract syntax. Raises SettingsError."""
    settings = settings or DimseSettings()
    try:
        storage = store.service(settings.sop_classes)
    except ValueError as error:
        raise SettingsError(f"dimse.sop_classes: {error}") from None
    return (
        echo.service(),
        storage,
        find.service(settings.ae_title),
        move.service(settings.ae_title, (peers or PeerTable()).destination),
        get.service(),
        commitment.service(),
        worklist.service((peers or PeerTable()).stations),
        mpps.service((peers or PeerTable()).stations),
        mpps.retrieve_service(),
    )
