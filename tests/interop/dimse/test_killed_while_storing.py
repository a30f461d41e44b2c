# SPDX-License-Identifier: Apache-2.0
"""kill -9 of the DICOM listener amid 200 stores by four senders at once."""

import subprocess
import threading
from pathlib import Path

import pydicom
import pytest

from archive.index.query import Level, Query
from tests.gateway.dimse.running import AE_TITLE, ScpProcess, running_process
from tests.support.archives import ASK, open_archive
from tests.support.instances import make_instance
from tests.support.require import require_tool

STORES = 200
SENDERS = 4


class _Killer:
    """Kills the listener with the answer of a number."""

    def __init__(self, scp: ScpProcess, after: int) -> None:
        self._scp = scp
        self._left = after
        self._lock = threading.Lock()

    def answered(self) -> None:
        with self._lock:
            self._left -= 1
            if self._left == 0:
                self._scp.kill()


def send(port: int, files: list[Path], killer: _Killer, acknowledged: set[str]) -> None:
    """Send files as storescu does; those answered with success go to ``acknowledged``."""
    sender = subprocess.Popen(
        [require_tool("storescu"), "-v", "-R", "-xy", "-aec", AE_TITLE, "127.0.0.1", str(port),
         *map(str, files)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    assert sender.stdout is not None
    current = ""
    for line in sender.stdout:
        if "Sending file:" in line:
            current = line.partition("Sending file:")[2].strip()
        elif "Received Store Response (Success)" in line:
            acknowledged.add(current)
            killer.answered()
    sender.wait(30)


@pytest.mark.parametrize("after", [10, 150])
def test_all_that_was_acknowledged_before_a_kill_is_there_and_nothing_half(
    tmp_path: Path, after: int
) -> None:
    folder, data = tmp_path / "files", tmp_path / "data"
    folder.mkdir()
    files = [folder / f"{number:03}.dcm" for number in range(STORES)]
    sent = {}
    for number, path in enumerate(files):
        path.write_bytes(make_instance(frames=1, sop=f"2.25.{1000 + number}"))
        sent[f"2.25.{1000 + number}"] = pydicom.dcmread(path).PixelData
    acknowledged: set[str] = set()
    with running_process(data) as scp:
        killer = _Killer(scp, after)
        threads = [
            threading.Thread(target=send, args=(scp.port, files[n::SENDERS], killer, acknowledged))
            for n in range(SENDERS)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert after <= len(acknowledged) < STORES
    archive = open_archive(data)
    try:
        archive.recover()
        assert list(archive.verify(**ASK)) == []  # type: ignore[arg-type]
        assert list((data / "spool").iterdir()) == []
        rows = archive.find(Query(Level.INSTANCE, (), limit=1000), **ASK).rows  # type: ignore[arg-type]
        found = {row["00080018"]["Value"][0]: row for row in rows}  # type: ignore[index]
        promised = {pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID for path in acknowledged}
        assert promised <= set(found)
        for sop, row in found.items():
            study, series = (row[tag]["Value"][0] for tag in ("0020000D", "0020000E"))  # type: ignore[index]
            instance = archive.instance(study, series, sop, **ASK)  # type: ignore[arg-type]
            (frame,) = archive.frames(instance, [1], **ASK)  # type: ignore[arg-type]
            assert frame in sent[sop]
    finally:
        archive.close()
