# SPDX-License-Identifier: Apache-2.0
"""Numbers as DICOM writes them."""

from pydicom.valuerep import DSfloat


def decimal(value: float) -> DSfloat:
    """A DS of at most 16 characters (PS3.5 6.2): 10 significant digits, no exponent noise."""
    text = f"{value:.10g}"
    return DSfloat(text if len(text) <= 16 else f"{value:.8e}")
