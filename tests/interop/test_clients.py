# SPDX-License-Identifier: Apache-2.0
"""Other people's DICOMweb clients, unmodified, against the running server.

Each walks from the search to pixels the way its users do; what it decoded is compared
with the scanner's own tiles. wsidicom and the rest of dicomweb-client: test_pixels.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from dicomweb_client.api import DICOMwebClient

from tests.interop.conftest import Ingested
from tests.interop.test_pixels import levels_of, scanner_pixels, uid
from tests.support.peers import require_peer, run_client
from tests.support.require import NODE_MODULES, ROOT, require_npm_package, require_tool
from tests.support.server import Server

CLIENTS = ROOT / "tests" / "interop" / "clients"
NAME = "ycbcr"  # JPEG, drawn by the tests
SIZE = (300, 400)  # rows, columns
STORED = 'multipart/related; type="application/octet-stream"; transfer-syntax=*'


@pytest.fixture
def slide(ingested: dict[str, Ingested]) -> Ingested:
    return ingested[NAME]


def task_of(server: Server, slide: Ingested, frames: list[int]) -> dict[str, Any]:
    return {
        "url": f"{server.url}/dicom-web",
        "study": slide.study,
        "series": slide.series,
        "instance": uid(slide.volumes()[0]),
        "frames": frames,
        "size": SIZE,
    }


def assert_scanners_pixels(slide: Ingested, found: np.ndarray) -> None:
    """The top left corner of the finest level; decoders of JPEG may differ by little."""
    expected = scanner_pixels(levels_of(slide.path)[0])[: SIZE[0], : SIZE[1]]
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected).max() <= 4


def sizes(slide: Ingested) -> list[list[int]]:
    return [[level["00480007"]["Value"][0], level["00480006"]["Value"][0]] for level in slide.volumes()]


def single_frames(server: Server, slide: Ingested, numbers: list[int]) -> list[str]:
    path = f"/dicom-web/studies/{slide.study}/series/{slide.series}/instances/{uid(slide.volumes()[0])}"
    jpeg = "image/jpeg; transfer-syntax=1.2.840.10008.1.2.4.50"
    return [server.get(f"{path}/frames/{number}", jpeg).hex() for number in numbers]


def test_ez_wsi_dicomweb_reads_a_patch_a_batch_of_frames_and_the_whole_instance(
    server: Server, slide: Ingested, tmp_path: Path
) -> None:
    python = require_peer("ez-wsi")
    frames = [3, 1, 2]
    told = run_client([python, CLIENTS / "ez_wsi_client.py"], task_of(server, slide, frames), tmp_path)
    assert_scanners_pixels(slide, np.load(tmp_path / "patch.npy"))
    assert told["frames"] == single_frames(server, slide, frames)
    assert sorted(told["levels"], reverse=True)[0] == sizes(slide)[0]
    assert all(level in sizes(slide) for level in told["levels"])
    assert told["icc_profile_bytes"] > 0
    instance = pydicom.dcmread(tmp_path / "instance.dcm")
    assert instance.SOPInstanceUID == uid(slide.volumes()[0])
    assert instance.NumberOfFrames == slide.volumes()[0]["00280008"]["Value"][0]


def test_dicomslide_finds_the_slide_and_reads_a_region(
    server: Server, slide: Ingested, tmp_path: Path
) -> None:
    python = require_peer("dicomslide")
    told = run_client([python, CLIENTS / "dicomslide_client.py"], task_of(server, slide, [1]), tmp_path)
    assert_scanners_pixels(slide, np.load(tmp_path / "patch.npy"))
    assert [level for level in told["levels"] if level in sizes(slide)] == sizes(slide)
    assert (told["channels"], told["focal_planes"]) == (1, 1)
    assert told["indices"] == [[10, 20]]


def test_dicomweb_client_of_dcmjs_searches_retrieves_and_stores_under_node(
    server: Server, slide: Ingested, tmp_path: Path
) -> None:
    node = require_tool("node")
    for package in ("dicomweb-client", "xhr2"):
        require_npm_package(package)
    frames = [2, 1]
    task = task_of(server, slide, frames)
    told = run_client([node, CLIENTS / "dicomweb_client.cjs"], task, tmp_path, NODE_PATH=str(NODE_MODULES))
    assert told["studies"] == [slide.study]
    assert told["series"] == [slide.series]
    assert told["instances"] == told["whole_series"] == len(slide.instances)
    assert sorted(told["metadata"]) == sorted(map(uid, slide.instances))
    expected = single_frames(server, slide, frames)
    assert told["jpeg"] == expected
    assert told["stored_as_they_are"] == expected
    volume = slide.volumes()[0]
    assert told["native"] == [3 * volume["00280010"]["Value"][0] * volume["00280011"]["Value"][0]] * 2
    assert bytes.fromhex(told["rendered"][0])[:4] == b"\x89PNG"
    path = f"/dicom-web/studies/{slide.study}/series/{slide.series}/instances/{uid(volume)}"
    assert bytes.fromhex(told["instance"]) == server.get(path, "application/dicom; transfer-syntax=*")


def test_dicomweb_client_stores_what_it_retrieved_and_pages_through_a_search(
    server: Server, slide: Ingested
) -> None:
    web = DICOMwebClient(f"{server.url}/dicom-web")
    volume = uid(slide.volumes()[0])
    again = web.store_instances([web.retrieve_instance(slide.study, slide.series, volume)])
    assert [item.ReferencedSOPInstanceUID for item in again.ReferencedSOPSequence] == [volume]
    pages = [
        web.search_for_instances(slide.study, slide.series, limit=2, offset=offset)
        for offset in range(0, len(slide.instances) + 1, 2)
    ]
    found = [uid(instance) for page in pages for instance in page]
    assert sorted(found) == sorted(map(uid, slide.instances))
    assert web.search_for_studies(search_filters={"PatientID": "nobody at all"}) == []
    numbers = [1, 2]
    by_iterator = list(web.iter_instance_frames(slide.study, slide.series, volume, numbers))
    together = web.retrieve_instance_frames(slide.study, slide.series, volume, numbers)
    assert by_iterator == together
    thumbnail = web.retrieve_instance_rendered(
        slide.study, slide.series, uid(slide.volumes()[-1]), media_types=("image/png",)
    )
    assert thumbnail[:4] == b"\x89PNG"
    (metadata,) = web.retrieve_series_metadata(slide.study, slide.series)[:1]
    assert metadata["0020000E"]["Value"] == [slide.series]
