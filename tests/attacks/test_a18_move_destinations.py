# SPDX-License-Identifier: Apache-2.0
"""A18: C-MOVE to strangers, to ourselves, and in a circle: only configured peers are called."""

import socket
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from pynetdicom import AE

from tests.attacks.besieged import ATTACKER, besieged, body
from tests.gateway.dimse.running import AE_TITLE
from tests.support.instances import make_instance

STUDY_MOVE = "1.2.840.10008.5.1.4.1.2.2.2"
DESTINATION_UNKNOWN = 0xA801
LOCAL = ["127.0.0.0/8"]


@pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom finds the titles odd as well
def test_nobody_is_called_whom_the_settings_do_not_name(tmp_path: Path) -> None:
    study, sop = generate_uid(), generate_uid()
    with socket.create_server(("127.0.0.1", 0)) as elsewhere:
        elsewhere.settimeout(0.2)
        peers = [
            {"ae_title": "HONEST", "networks": LOCAL},
            {"ae_title": "SENDER", "networks": LOCAL},
            {"ae_title": "ATTACKER", "networks": LOCAL, "rights": ["move", "store"]},
        ]
        with besieged(tmp_path / "data", audited=False, peers=peers) as siege:
            assert siege.store(body(make_instance(frames=1, native=True, study=study, sop=sop)), sop) == 0
            entity = AE("ATTACKER")
            entity.add_requested_context(STUDY_MOVE)
            association = entity.associate(
                "127.0.0.1", siege.port, ae_title=AE_TITLE, bind_address=(ATTACKER, 0)
            )
            assert association.is_established
            identifier = Dataset()
            identifier.QueryRetrieveLevel, identifier.StudyInstanceUID = "STUDY", study
            address = f"127.0.0.1:{elsewhere.getsockname()[1]}"
            for title in ("NOBODY", AE_TITLE, "ATTACKER", "127.0.0.1", address[:16], "../etc/passwd", "*"):
                for _ in range(20):
                    *_, (status, _) = association.send_c_move(identifier, title, STUDY_MOVE)
                    assert status.Status == DESTINATION_UNKNOWN, title
            association.release()
        with pytest.raises(TimeoutError):
            elsewhere.accept()
