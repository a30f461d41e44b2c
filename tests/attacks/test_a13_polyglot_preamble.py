# SPDX-License-Identifier: Apache-2.0
"""A13: a data set that begins like a program. What came over the network has no preamble;
the one that our files get is ours."""

import contextlib
from pathlib import Path

from pydicom.uid import generate_uid

from tests.attacks.besieged import besieged, body
from tests.support.archives import ASK, open_archive
from tests.support.instances import make_instance

PREAMBLES = {
    "PE": b"MZ".ljust(128, b"\x90"),
    "ELF": b"\x7fELF".ljust(128, b"\x90"),
    "script": b"#!/bin/sh\nrm -rf /\n".ljust(128),
    "HTML": b"<script>alert(1)</script>".ljust(128),
    "PDF": b"%PDF-1.7".ljust(128),
}


def test_a_file_in_place_of_a_data_set_is_refused(tmp_path: Path) -> None:
    sops = []
    with besieged(tmp_path / "data", audited=False) as siege:
        for name, preamble in PREAMBLES.items():
            sop = generate_uid()
            whole = make_instance(frames=1, native=True, sop=sop)
            status = siege.store(preamble + whole[128:], sop)
            assert status is not None, name
            assert status >= 0xA900, name
            assert siege.store(body(whole), sop) == 0
            sops.append(sop)
    with contextlib.closing(open_archive(tmp_path / "data")) as archive:
        for change in archive.changes(0, 10_000, **ASK):  # type: ignore[arg-type]
            if change.sop_instance_uid in sops:
                instance = archive.instance(
                    change.study_instance_uid,
                    change.series_instance_uid,
                    change.sop_instance_uid,
                    **ASK,  # type: ignore[arg-type]
                )
                stream = b"".join(archive.open(instance, **ASK).chunks)  # type: ignore[arg-type]
                assert stream[:132] == bytes(128) + b"DICM"
