# SPDX-License-Identifier: Apache-2.0
"""Verification SCP (PS3.4 Annex A)."""

from pynetdicom.events import Event

SUCCESS = 0x0000


def on_c_echo(event: Event) -> int:
    """Answer that we are here; the peer was checked at association."""
    return SUCCESS
