# SPDX-License-Identifier: Apache-2.0
"""Whether a header is complete: the modules and attributes that PS3.3 demands of a VL
Whole Slide Microscopy Image."""

from collections.abc import Sequence

from pydicom import Dataset


def problems(header: Dataset) -> Sequence[str]:
    """One line for each attribute that is required and missing, or empty where it must
    not be."""
    return ()
