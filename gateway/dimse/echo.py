# SPDX-License-Identifier: Apache-2.0
"""Verification SCP (PS3.4 Annex A)."""

from gateway.dimse.rights import Right
from gateway.dimse.services import SUCCESS, Service

VERIFICATION = "1.2.840.10008.1.1"


def service() -> Service:
    """C-ECHO: we are here; the peer was checked at association."""
    return Service(
        "Verification",
        frozenset({VERIFICATION}),
        Right.ECHO,
        {"C_ECHO": lambda request: request.respond(SUCCESS)},
    )
