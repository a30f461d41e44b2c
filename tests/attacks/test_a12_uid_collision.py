# SPDX-License-Identifier: Apache-2.0
"""A12: the SOP Instance UID of another's instance, with other pixels or another patient."""

import contextlib
from pathlib import Path

from pydicom.uid import generate_uid

from tests.attacks.besieged import besieged, body
from tests.support.archives import ASK, open_archive
from tests.support.instances import make_instance


def test_the_first_stays_and_the_second_waits_for_a_person(tmp_path: Path) -> None:
    sop, study, series = generate_uid(), generate_uid(), generate_uid()
    known = {"sop": sop, "study": study, "series": series, "frames": 1, "native": True}
    mine = body(make_instance(**known))  # type: ignore[arg-type]
    other_patient = body(make_instance(**known, patient_id="P2", patient_name="Mallory"))  # type: ignore[arg-type]
    other_pixels = mine[:-1] + b"\x55"
    with besieged(tmp_path / "data", audited=False) as siege:
        assert siege.store(mine, sop) == 0
        assert siege.store(other_pixels, sop) == 0x0111
        assert siege.store(other_patient, sop) == 0xB006  # docs/adr/0016: the first is kept
        assert siege.store(mine, sop) == 0
    with contextlib.closing(open_archive(tmp_path / "data")) as archive:
        instance = archive.instance(study, series, sop, **ASK)  # type: ignore[arg-type]
        assert archive.frame(instance, 1, **ASK)[-1:] != b"\x55"  # type: ignore[arg-type]
        assert b"Mallory" not in archive.metadata(instance, **ASK)  # type: ignore[arg-type]
        waiting = archive.quarantined(limit=10, **ASK)  # type: ignore[arg-type]
        assert {entry.sop_instance_uid for entry in waiting} == {sop}
        assert len(waiting) == 2
