# SPDX-License-Identifier: Apache-2.0
"""C-STORE of non-patient instances (PS3.4 Annex GG): they land where DICOMweb finds them."""

import io

import pydicom
import pytest
from pynetdicom import AE

from archive.non_patient import NonPatientQuery
from archive.non_patient_classes import CATEGORY_OF
from archive.service import Archive
from tests.gateway.dimse.running import AE_TITLE, running
from tests.support.archives import ASK
from tests.support.non_patient import (
    HANGING,
    INVENTORY,
    PALETTE,
    hanging_protocol,
    inventory,
    palette,
    written,
)

EXPLICIT, IMPLICIT = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT])
@pytest.mark.parametrize(
    ("sop_class", "made"), [(PALETTE, palette()), (HANGING, hanging_protocol()), (INVENTORY, inventory())]
)
def test_what_is_sent_is_kept_once_and_found(
    archive: Archive, sop_class: str, made: pydicom.Dataset, syntax: str
) -> None:
    entity = AE("SENDER")
    entity.add_requested_context(sop_class, [syntax])
    with running(archive) as scp:
        association = entity.associate("127.0.0.1", scp.port, ae_title=AE_TITLE)
        sent = pydicom.dcmread(io.BytesIO(written(made, syntax)))
        assert [int(association.send_c_store(sent).Status) for _ in range(2)] == [0, 0]
        sent.InstanceCreationDate = "19990101"
        assert int(association.send_c_store(sent).Status) == 0x0111
        association.release()
    (row,) = archive.find_non_patient(NonPatientQuery(CATEGORY_OF[sop_class]), **ASK).rows
    assert row["00080018"] == {"vr": "UI", "Value": [made.SOPInstanceUID]}
    assert row["00083002"] == {"vr": "UI", "Value": [syntax]}
    assert [f.detail for f in archive.verify(**ASK)] == []
