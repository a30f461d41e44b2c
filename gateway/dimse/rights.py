# SPDX-License-Identifier: Apache-2.0
"""What a peer may ask of us, under the name that the DIMSE services use."""

from archive.peer import ALL_RIGHTS as ALL_RIGHTS
from archive.peer import DEFAULT_RIGHTS as DEFAULT_RIGHTS
from archive.peer import Right as Right

__all__ = ["ALL_RIGHTS", "DEFAULT_RIGHTS", "Right"]
