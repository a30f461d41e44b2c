# SPDX-License-Identifier: Apache-2.0
"""A running server: palettes and protocols by HTTP, by DCMTK and by ``coverslip ingest``; a
rejection from the command line, seen over HTTP; a commitment by study."""

import json
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.instances import make_instance
from tests.support.non_patient import ROOT, hanging_protocol, palette, written
from tests.support.require import require_tool
from tests.support.server import Server, coverslip, running_server, wait_for

JSON = "application/dicom+json"
TAGS = {"study": "0020000D", "series": "0020000E", "instance": "00080018", "class": "00080016"}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server(tmp_path_factory.mktemp("npi") / "site") as started:
        yield started


def post(server: Server, path: str, data: bytes, content_type: str) -> tuple[int, Any]:
    request = urllib.request.Request(
        server.url + path, data, {"Accept": JSON, "Content-Type": content_type}, method="POST"
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        body = answer.read()
        return answer.status, json.loads(body) if body else None


def listed(server: Server, path: str) -> list[str]:
    return [row[TAGS["instance"]]["Value"][0] for row in server.json(path, JSON)]


def test_palettes_come_in_by_every_door_and_go_out_as_they_came(site: Server, tmp_path: Path) -> None:
    data = written(palette())
    assert post(site, "/dicom-web/color-palettes", data, "application/dicom")[0] == 200
    file = tmp_path / "protocol.dcm"
    file.write_bytes(written(hanging_protocol()))
    dcmsend = require_tool("dcmsend")
    subprocess.run(
        [dcmsend, "-aec", "COVERSLIP", "127.0.0.1", str(site.dimse), str(file)],
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    (tmp_path / "palette.dcm").write_bytes(written(palette(4, "COOL")))
    coverslip("ingest", "--data", site.data, tmp_path / "palette.dcm")
    wait_for(lambda: len(listed(site, "/dicom-web/color-palettes")) == 2)
    assert listed(site, "/dicom-web/color-palettes?ContentLabel=HOT*") == [f"{ROOT}.1"]
    assert listed(site, "/dicom-web/hanging-protocols?HangingProtocolLevel=SITE") == [f"{ROOT}.2"]
    accept = "application/dicom; transfer-syntax=*"
    assert site.get(f"/dicom-web/color-palettes/{ROOT}.1", accept) == data
    assert "failed" not in [job["state"] for job in site.json("/api/jobs")["jobs"]]


def test_a_rejection_from_the_command_line_holds_at_once_and_so_does_its_end(
    site: Server, tmp_path: Path
) -> None:
    (tmp_path / "slide.dcm").write_bytes(make_instance())
    coverslip("ingest", "--data", site.data, tmp_path / "slide.dcm")
    (row,) = wait_for(lambda: site.json("/dicom-web/instances", JSON))
    uids = {name: row[tag]["Value"][0] for name, tag in TAGS.items()}
    place = f"/dicom-web/studies/{uids['study']}/series/{uids['series']}/instances/{uids['instance']}"
    frame = site.get(f"{place}/frames/1")
    coverslip(
        "reject", uids["study"], "--code", "quality", "--reason", "blurred", "--yes", "--data", site.data
    )
    with pytest.raises(urllib.error.HTTPError) as gone:
        site.get(f"{place}/frames/1")
    assert gone.value.code == 410
    note = json.loads(gone.value.read())["error"]["describedby"]
    assert site.json(f"{note.removeprefix(site.url)}/metadata", JSON)[0]["00080060"]["Value"] == ["KO"]
    coverslip("reject", uids["study"], "--undo", "--reason", "it is not", "--data", site.data)
    assert site.get(f"{place}/frames/1") == frame

    inner = {
        "00081150": {"vr": "UI", "Value": [uids["class"]]},
        "0008114A": {"vr": "SQ", "Value": [{"00081155": {"vr": "UI", "Value": [uids["instance"]]}}]},
    }
    series = {"0020000E": {"vr": "UI", "Value": [uids["series"]]}, "00081112": {"vr": "SQ", "Value": [inner]}}
    study = {"0020000D": {"vr": "UI", "Value": [uids["study"]]}, "00081115": {"vr": "SQ", "Value": [series]}}
    body = {"00081110": {"vr": "SQ", "Value": [study]}}
    url = "/dicom-web/commitment-requests/2.25.77"
    assert post(site, url, json.dumps(body).encode(), JSON) == (202, None)
    assert wait_for(lambda: site.json(url, JSON)) == body
