# SPDX-License-Identifier: Apache-2.0
"""A11: UIDs that are paths, too long, empty, or no UIDs at all; in the command and in the
data set."""

from pathlib import Path

from pydicom.uid import generate_uid

from tests.attacks.besieged import besieged, body
from tests.support.instances import make_instance

HOSTILE = {
    "a path": "../../../../etc/cron.d/x",
    "an absolute path": "/etc/passwd",
    "a NUL": "1.2.3\0/../../x",
    "too long": "1." + "2" * 80,
    "empty": "",
    "letters": "1.2.\u00e9\u4e2d",
    "SQL": "1.2'; DROP TABLE study; --",
    "a line break": "1.2.3\r\nContent-Type: text/html",
}


def test_a_uid_that_is_none_goes_nowhere(tmp_path: Path) -> None:
    folder = tmp_path / "jail" / "data"
    with besieged(folder) as siege:
        for name, text in HOSTILE.items():
            honest = generate_uid()
            data = body(make_instance(frames=1, native=True, sop=honest))
            room = len(honest) + len(honest) % 2
            hostile = (text.encode("utf-8") + b"\0" * 100)[:room]
            changed = data.replace(honest.encode().ljust(room, b"\0"), hostile)
            assert changed != data
            # A command set that cannot be read ends the association: None.
            in_command = siege.store(data, text)
            assert in_command is None or in_command >= 0xA900, name
            in_both = siege.store(changed, text)
            assert in_both is None or in_both >= 0xA900, name
            # A text that was cut to a UID's length may be one; then it is stored as what it says.
            in_data_set = siege.store(changed, honest)
            assert in_data_set is not None, name
            assert in_data_set >= 0xA900 or in_data_set == 0xB007, name
    assert [path.name for path in (tmp_path / "jail").iterdir()] == ["data"]
