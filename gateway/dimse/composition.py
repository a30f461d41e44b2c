# SPDX-License-Identifier: Apache-2.0
"""Which services the DICOM listener has, put together."""

from gateway.dimse import echo, store
from gateway.dimse.services import Service


def services() -> tuple[Service, ...]:
    """Asked in this order which of them takes an abstract syntax."""
    return (echo.service(), store.service())
