# SPDX-License-Identifier: Apache-2.0
"""Data sets of our answers, encoded as the presentation context says (PS3.5 Section 10)."""

from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

from archive.part10.encode import encode_dataset

EXPLICIT_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
IMPLICIT_LITTLE_ENDIAN = "1.2.840.10008.1.2"
EXPLICIT_BIG_ENDIAN = "1.2.840.10008.1.2.2"


def encode_data_set(data_set: Dataset, transfer_syntax_uid: str) -> bytes:
    """The bytes of an identifier or attribute list. Raises ``Malformed`` for a value that
    its VR cannot hold, ValueError for a transfer syntax that is not an uncompressed one."""
    if transfer_syntax_uid == EXPLICIT_LITTLE_ENDIAN:
        return encode_dataset(data_set)
    if transfer_syntax_uid not in (IMPLICIT_LITTLE_ENDIAN, EXPLICIT_BIG_ENDIAN):
        raise ValueError(f"no identifier is encoded in {transfer_syntax_uid}")
    buffer = DicomBytesIO()
    buffer.is_implicit_VR = transfer_syntax_uid == IMPLICIT_LITTLE_ENDIAN
    buffer.is_little_endian = transfer_syntax_uid != EXPLICIT_BIG_ENDIAN
    write_dataset(buffer, data_set)
    return buffer.getvalue()
