# SPDX-License-Identifier: Apache-2.0
"""A29: the worklist asked for under AE titles that are paths, and beyond a station's own."""

import contextlib
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE
from pynetdicom.association import Association

from gateway.dimse.worklist import MODALITY_WORKLIST
from tests.attacks.besieged import ATTACKER, besieged
from tests.gateway.dimse.running import AE_TITLE
from tests.support.archives import open_archive
from tests.support.worklist import item, schedule

LOCAL = ["127.0.0.0/8"]


def associate(port: int, title: str) -> Association:
    entity = AE(title)
    entity.add_requested_context(MODALITY_WORKLIST)
    return entity.associate("127.0.0.1", port, ae_title=AE_TITLE, bind_address=(ATTACKER, 0))


def everything() -> Dataset:
    """The widest query there is."""
    identifier = Dataset()
    identifier.PatientName = "*"
    identifier.PatientID = ""
    identifier.ScheduledSpecimenSequence = []
    step = Dataset()
    step.ScheduledStationAETitle = ""
    identifier.ScheduledProcedureStepSequence = [step]
    return identifier


@pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom finds the titles odd as well
def test_strangers_see_nothing_and_stations_only_theirs(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    with contextlib.closing(open_archive(folder)) as archive:
        schedule(archive, *(item(number) for number in range(1, 4)))
    peers = [
        {"ae_title": "HONEST", "networks": LOCAL},
        {"ae_title": "OTHER", "networks": LOCAL, "rights": ["worklist"], "stations": ["OTHER"]},
    ]
    with besieged(folder, peers=peers) as siege:
        for title in ("../../etc", "..", "/", "SCANNER1", "HONES", "*", "HONEST' OR 1=1"):
            assert associate(siege.port, title).is_rejected, title
        no_right = associate(siege.port, "HONEST")
        assert [context.result for context in no_right.rejected_contexts] == [1]
        other = associate(siege.port, "OTHER")
        for _ in range(20):
            answers = list(other.send_c_find(everything(), MODALITY_WORKLIST))
            assert [status.Status for status, _ in answers] == [0]
        other.release()
