# SPDX-License-Identifier: Apache-2.0
"""Transfer syntaxes (PS3.5 Annex A, PS3.6 Table A-1) by what they mean for the bytes."""

from pydicom.uid import AllTransferSyntaxes

from archive.part10.errors import UnknownTransferSyntax

IMPLICIT = "1.2.840.10008.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
DEFLATED = "1.2.840.10008.1.2.1.99"
EXPLICIT_BIG_ENDIAN = "1.2.840.10008.1.2.2"
NATIVE = frozenset((IMPLICIT, EXPLICIT, DEFLATED, EXPLICIT_BIG_ENDIAN))
"""Pixel data as one value; in every other syntax they are fragments."""

VIDEO = frozenset(
    f"1.2.840.10008.1.2.4.{n}"
    for n in ("100", "100.1", "101", "101.1", "102", "102.1", "103", "103.1", "104", "104.1",
              "105", "105.1", "106", "106.1", "107", "108")
)  # fmt: skip
"""One bit stream for all frames: they cannot be addressed."""

_ELSEWHERE = frozenset(
    ("1.2.840.10008.1.2.4.94", "1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.4.204",
     "1.2.840.10008.1.2.4.205", "1.2.840.10008.1.20", "1.2.840.10008.1.2.7.1",
     "1.2.840.10008.1.2.7.2", "1.2.840.10008.1.2.7.3", "1.2.840.10008.1.2.6.1",
     "1.2.840.10008.1.2.6.2")
)  # fmt: skip
"""JPIP and SMPTE (pixels elsewhere), Papyrus, and wrappers that are no data set's."""

_JPEG_XL = frozenset(("1.2.840.10008.1.2.4.110", "1.2.840.10008.1.2.4.111", "1.2.840.10008.1.2.4.112"))
"""In PS3.6 since 2024d, and not in pydicom 3.0."""

_KNOWN = (frozenset(map(str, AllTransferSyntaxes)) | _JPEG_XL) - _ELSEWHERE


def require_known(transfer_syntax_uid: str) -> None:
    """Raise ``UnknownTransferSyntax`` unless PS3.6 lists it and pixels come with it."""
    if transfer_syntax_uid not in _KNOWN:
        raise UnknownTransferSyntax(f"transfer syntax {transfer_syntax_uid[:64]} is not known")
