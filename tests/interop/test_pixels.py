# SPDX-License-Identifier: Apache-2.0
"""The same pixels at every end: the scanner's file, WADO-RS, OpenSlide and wsidicom."""

import io
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import openslide
import pydicom
import pytest
import tifffile
from dicomweb_client.api import DICOMwebClient
from numpy.typing import NDArray
from wsidicom import WsiDicom

from tests.interop.conftest import SLIDES, Ingested
from tests.support.require import require_tool
from tests.support.server import Server, coverslip

RAW = "1.2.840.10008.1.2.1"
Pixels = NDArray[np.uint8]


def levels_of(path: Path) -> "list[tifffile.TiffPage]":
    """The scanner's levels, finest first: tiled pages."""
    with tifffile.TiffFile(path) as tiff:
        pages = [p for p in tiff.pages if isinstance(p, tifffile.TiffPage) and p.is_tiled]
    return sorted(pages, key=lambda page: -page.imagewidth)


def scanner_pixels(page: "tifffile.TiffPage") -> Pixels:
    """Decoded by tifffile; tiles that the scanner left out are 0 there."""
    with tifffile.TiffFile(page.parent.filehandle.path) as tiff:
        array: Pixels = np.asarray(tiff.pages[page.index].asarray())
    return array


def entropy_coded(codestream: bytes) -> bytes:
    """A JPEG from its first SOS to EOI; a JPEG 2000 codestream whole."""
    if codestream[:2] != b"\xff\xd8":
        return codestream.rstrip(b"\0")
    start = codestream.index(b"\xff\xda")
    return codestream[start : codestream.rindex(b"\xff\xd9") + 2]


def client(server: Server) -> DICOMwebClient:
    return DICOMwebClient(f"{server.url}/dicom-web")


def uid(instance: dict[str, Any]) -> str:
    value: str = instance["00080018"]["Value"][0]
    return value


def frames_of(server: Server, slide: Ingested, instance: dict[str, Any], syntax: str) -> list[bytes]:
    count = instance["00280008"]["Value"][0]
    found: list[bytes] = []
    for first in range(1, count + 1, 100):
        numbers = list(range(first, min(first + 100, count + 1)))
        found += client(server).retrieve_instance_frames(
            slide.study, slide.series, uid(instance), numbers,
            media_types=(("application/octet-stream", syntax),),
        )  # fmt: skip
    return found


def stitched(frames: list[bytes], instance: dict[str, Any]) -> Pixels:
    """Native RGB frames of a TILED_FULL instance as one image."""
    rows, columns = instance["00280010"]["Value"][0], instance["00280011"]["Value"][0]
    height, width = instance["00480007"]["Value"][0], instance["00480006"]["Value"][0]
    across = -(-width // columns)
    image = np.zeros((-(-height // rows) * rows, across * columns, 3), np.uint8)
    for index, frame in enumerate(frames):
        y, x = index // across * rows, index % across * columns
        image[y : y + rows, x : x + columns] = np.frombuffer(frame[: rows * columns * 3], np.uint8).reshape(
            rows, columns, 3
        )
    return image[:height, :width]


@pytest.fixture(scope="session")
def exported(server: Server, ingested: dict[str, Ingested], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Folder of a slide's exported Part 10 files, by slide name."""
    folders: dict[str, Path] = {}

    def export(name: str) -> Path:
        if name not in folders:
            folders[name] = tmp_path_factory.mktemp(f"export-{name}")
            coverslip("export", ingested[name].study, "-o", folders[name], "--data", server.data)
        return folders[name]

    return export


@pytest.mark.parametrize("name", SLIDES)
def test_entropy_coded_data_are_the_scanners_tile_by_tile(
    server: Server, ingested: dict[str, Ingested], name: str
) -> None:
    slide = ingested[name]
    pages = levels_of(slide.path)
    assert len(slide.volumes()) >= len(pages)  # the rest was computed
    data = slide.path.read_bytes()
    for instance, page in zip(slide.volumes()[: len(pages)], pages, strict=True):
        frames = frames_of(server, slide, instance, "*")
        assert len(frames) == len(page.dataoffsets)
        for frame, offset, length in zip(frames, page.dataoffsets, page.databytecounts, strict=True):
            if length:
                assert entropy_coded(frame) == entropy_coded(data[offset : offset + length])


@pytest.mark.parametrize("name", SLIDES)
def test_decoded_pixels_are_equal_at_every_end(
    server: Server, ingested: dict[str, Ingested], exported: Any, name: str
) -> None:
    slide = ingested[name]
    folder = exported(name)
    pages = levels_of(slide.path)
    files = [pydicom.dcmread(f, stop_before_pixels=True) for f in folder.rglob("*.dcm")]
    paths = dict(zip([f.SOPInstanceUID for f in files], folder.rglob("*.dcm"), strict=True))
    dicom = openslide.OpenSlide(paths[uid(slide.volumes()[0])])
    with WsiDicom.open(list(folder.rglob("*.dcm"))) as wsi:
        assert dicom.level_count == len(slide.volumes()) == len(wsi.levels)
        for number, (instance, page) in enumerate(zip(slide.volumes()[: len(pages)], pages, strict=True)):
            expected = scanner_pixels(page)
            present = np.ones(expected.shape[:2], bool)
            for index, length in enumerate(page.databytecounts):
                if not length:  # what stands for a tile that the scanner left out is ours
                    across = -(-page.imagewidth // page.tilewidth)
                    y, x = index // across * page.tilelength, index % across * page.tilewidth
                    present[y : y + page.tilelength, x : x + page.tilewidth] = False
            served = stitched(frames_of(server, slide, instance, RAW), instance)
            assert np.array_equal(served[present], expected[present]), f"WADO-RS, level {number}"
            size = (page.imagewidth, page.imagelength)
            by_openslide = np.asarray(dicom.read_region((0, 0), number, size).convert("RGB"))
            assert np.array_equal(by_openslide[present], expected[present]), f"OpenSlide, level {number}"
            by_wsidicom = np.asarray(
                wsi.read_region((0, 0), list(wsi.levels)[number].level, size).convert("RGB")
            )
            assert np.array_equal(by_wsidicom[present], expected[present]), f"wsidicom, level {number}"
    dicom.close()


@pytest.mark.parametrize("name", SLIDES)
def test_get_instance_export_and_convert_write_the_same_bytes(
    server: Server, ingested: dict[str, Ingested], exported: Any, tmp_path: Path, name: str
) -> None:
    slide = ingested[name]
    coverslip("convert", slide.path, "-o", tmp_path, "--data", server.data)

    def by_uid(folder: Path) -> dict[str, bytes]:
        files = [f.read_bytes() for f in folder.rglob("*.dcm")]
        return {
            pydicom.dcmread(
                io.BytesIO(d), specific_tags=["SOPInstanceUID"], stop_before_pixels=True
            ).SOPInstanceUID: d
            for d in files
        }

    served = {
        uid(i): server.get(
            f"/dicom-web/studies/{slide.study}/series/{slide.series}/instances/{uid(i)}",
            "application/dicom; transfer-syntax=*",
        )
        for i in slide.instances
    }
    assert by_uid(tmp_path) == served == by_uid(exported(name))


@pytest.mark.parametrize("name", SLIDES)
def test_dciodvfy_reports_no_error(exported: Any, name: str) -> None:
    tool = require_tool("dciodvfy")
    for path in exported(name).rglob("*.dcm"):
        done = subprocess.run([tool, path], capture_output=True, text=True)
        errors = [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("Error")]
        assert errors == [], path.name


@pytest.mark.filterwarnings("ignore:The odd length pixel data:UserWarning")  # wsidicom cuts the padding
@pytest.mark.parametrize("name", ["cmu", "j2k"])
def test_wsidicom_opens_the_slide_over_dicomweb(
    server: Server, ingested: dict[str, Ingested], exported: Any, name: str
) -> None:
    from wsidicom import WsiDicomWebClient

    slide = ingested[name]
    web = WsiDicomWebClient(client(server))
    page = levels_of(slide.path)[0]
    with WsiDicom.open_web(web, slide.study, slide.series) as wsi:
        region = np.asarray(wsi.read_region((0, 0), 0, (512, 512)).convert("RGB"))
        label = np.asarray(wsi.read_label().convert("RGB"))
    assert np.array_equal(region, scanner_pixels(page)[:512, :512])
    with WsiDicom.open(list(exported(name).rglob("*.dcm"))) as files:
        assert np.array_equal(label, np.asarray(files.read_label().convert("RGB")))


def test_dicomweb_client_walks_from_search_to_pixels(server: Server, ingested: dict[str, Ingested]) -> None:
    slide = ingested["cmu"]
    web = client(server)
    assert slide.study in {s["0020000D"]["Value"][0] for s in web.search_for_studies()}
    (series,) = web.search_for_series(slide.study, search_filters={"Modality": "SM"})
    assert series["0020000E"]["Value"] == [slide.series]
    found = web.search_for_instances(
        search_filters={"ContainerIdentifier": slide.instances[0]["00400512"]["Value"][0]}
    )
    assert {uid(i) for i in found} == {uid(i) for i in slide.instances}
    metadata = web.retrieve_series_metadata(slide.study, slide.series)
    assert len(metadata) == len(slide.instances)
    datasets = web.retrieve_series(slide.study, slide.series)
    assert {d.SOPInstanceUID for d in datasets} == {uid(i) for i in slide.instances}
    rendered = web.retrieve_instance_frames_rendered(
        slide.study, slide.series, uid(slide.volumes()[0]), [1], media_types=("image/jpeg",)
    )
    assert rendered[:2] == b"\xff\xd8"
