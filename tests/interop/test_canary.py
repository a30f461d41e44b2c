# SPDX-License-Identifier: Apache-2.0
"""No value of a patient or a slide reaches a log or a metric: every value is a canary."""

import contextlib
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import pytest

from tests.support.instances import make_instance
from tests.support.make_slide import make_svs
from tests.support.require import require_tool
from tests.support.server import coverslip, running_server, wait_for

CANARY = "Kanarienvogel"


def test_no_value_reaches_a_log_or_a_metric(tmp_path: Path) -> None:
    values = {"patient_name": f"{CANARY}^Name", "patient_id": f"{CANARY}1", "container": f"{CANARY}2"}
    data = make_instance(**values)  # type: ignore[arg-type]
    good = tmp_path / f"{CANARY}.dcm"
    good.write_bytes(data)
    truncated = tmp_path / f"{CANARY}-broken.dcm"
    truncated.write_bytes(data[:-200])
    slide = make_svs(
        tmp_path / f"{CANARY}.svs", rows=300, columns=300, barcode=CANARY, scanscope_id=CANARY,
        extra=(("User", CANARY), ("Title", CANARY)),
    )  # fmt: skip
    with running_server(tmp_path / "site") as server:
        watched = server.data / "watch"
        for file in (good, truncated, slide):
            (watched / file.name).write_bytes(file.read_bytes())
        (watched / f"{CANARY}.txt").write_text(CANARY)
        wait_for(lambda: len(server.json("/api/slides")["slides"]) == 2)
        wait_for(lambda: server.json("/api/quarantine")["quarantined"])
        dimse = (require_tool("storescu"), "-R", "-xs", "127.0.0.1", str(server.dimse))
        subprocess.run([*dimse, str(good)], check=False, capture_output=True)
        subprocess.run([*dimse, str(truncated)], check=False, capture_output=True)
        for path in (
            f"/dicom-web/studies?PatientName={CANARY}*",
            f"/dicom-web/studies?StudyDate={CANARY}",
            f"/dicom-web/studies/{CANARY}",
            f"/{CANARY}",
            f"/api/slides?search={CANARY}",
        ):
            with contextlib.suppress(urllib.error.HTTPError):
                server.get(path, "application/dicom+json")
        request = urllib.request.Request(
            f"{server.url}/dicom-web/studies",
            data=b"--x\r\nContent-Type: application/dicom\r\n\r\n" + data[:-300] + b"\r\n--x--\r\n",
            headers={
                "Content-Type": 'multipart/related; type="application/dicom"; boundary=x',
                "Accept": "*/*",
            },
        )
        with pytest.raises(urllib.error.HTTPError):
            urllib.request.urlopen(request)
        line = server.json("/api/slides")["slides"][0]
        series = f"/dicom-web/studies/{line['study_instance_uid']}/series/{line['series_instance_uid']}"
        server.get(f"{series}/thumbnail", "image/jpeg")
        server.get(f"{series}/metadata", "application/dicom+json")
        metrics = server.get("/metrics").decode()
        coverslip("find", "--data", server.data, check=False)
        server.stop()
        log = server.log.read_text()
    assert len(log.splitlines()) > 5
    for line_ in (*log.splitlines(), *metrics.splitlines()):
        assert CANARY.lower() not in line_.lower()
