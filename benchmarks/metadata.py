# SPDX-License-Identifier: Apache-2.0
"""Metadata of a TILED_SPARSE instance of 20,000 frames: ``python -m benchmarks.metadata``.

Stores one by STOW-RS, each frame with its place, dimension index values and optical path,
then asks for ``/metadata`` with gzip on one kept connection. Prints medians of the whole
request as the client sees it and of the server's own processor time, bytes on the wire, and
the ratio to what an archive does that inflates the JSON it keeps and compresses it for each
client (level 1). JSON and XML of clients without gzip follow, with the server's memory.
"""

import gzip
import http.client
import io
import json
import os
import statistics
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGBaseline8Bit

from benchmarks.frame_table import hardware
from tests.support.instances import jpeg_tile, make_dataset
from tests.support.server import Server, running_server

FRAMES, ACROSS, TILE = 20_000, 200, 32
RUNS = 50
GOAL_MS, GOAL_BYTES = 10.0, 300_000
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def sparse_instance() -> bytes:
    """Part 10; two thirds of its matrix have no frame."""
    made = make_dataset(frames=FRAMES, tile=TILE)
    made.TotalPixelMatrixColumns, made.TotalPixelMatrixRows = ACROSS * TILE, 300 * TILE
    made.DimensionOrganizationType = "TILED_SPARSE"
    groups = []
    for index in range(FRAMES):
        tile = index * 3
        row, column = divmod(tile, ACROSS)
        place, content, path, group = Dataset(), Dataset(), Dataset(), Dataset()
        place.XOffsetInSlideCoordinateSystem = f"{20 - row * 0.008:.6f}"
        place.YOffsetInSlideCoordinateSystem = f"{40 - column * 0.008:.6f}"
        place.ZOffsetInSlideCoordinateSystem = "0"
        place.ColumnPositionInTotalImagePixelMatrix = column * TILE + 1
        place.RowPositionInTotalImagePixelMatrix = row * TILE + 1
        content.DimensionIndexValues = [column + 1, row + 1]
        path.OpticalPathIdentifier = "0"
        group.FrameContentSequence = [content]
        group.PlanePositionSlideSequence = [place]
        group.OpticalPathIdentificationSequence = [path]
        groups.append(group)
    made.PerFrameFunctionalGroupsSequence = groups
    made.PixelData = encapsulate([jpeg_tile(1, TILE)] * FRAMES, has_bot=True)
    made["PixelData"].VR = "OB"
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = made.SOPClassUID, made.SOPInstanceUID
    meta.TransferSyntaxUID = JPEGBaseline8Bit
    out = io.BytesIO()
    FileDataset(out, made, file_meta=meta, preamble=bytes(128)).save_as(out, enforce_file_format=True)
    return out.getvalue()


def store(server: Server, instance: bytes) -> str:
    """The path of its metadata."""
    body = b"--b\r\nContent-Type: application/dicom\r\n\r\n" + instance + b"\r\n--b--\r\n"
    kind = 'multipart/related; type="application/dicom"; boundary=b'
    headers = {"Content-Type": kind, "Accept": "application/dicom+json"}
    request = urllib.request.Request(server.url + "/dicom-web/studies", body, headers)
    with urllib.request.urlopen(request, timeout=120) as answer:
        stored = json.load(answer)["00081199"]["Value"][0]
    return stored["00081190"]["Value"][0].partition("/dicom-web")[2]


def web_workers(server: Server) -> list[int]:
    """Every process below the supervisor."""
    found, waiting = [], [server.process.pid]
    while waiting:
        pid = waiting.pop()
        found.append(pid)
        for task in Path(f"/proc/{pid}/task").iterdir():
            waiting += map(int, (task / "children").read_text().split())
    return found


def cpu_s(pids: list[int]) -> float:
    total = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICKS_PER_S


def peak_mb(pids: list[int]) -> int:
    lines = (Path(f"/proc/{pid}/status").read_text() for pid in pids)
    return max(int(text.partition("VmHWM:")[2].split()[0]) for text in lines) >> 10


def ask(connection: http.client.HTTPConnection, path: str, headers: dict[str, str]) -> tuple[float, bytes]:
    """Milliseconds and body."""
    begun = time.perf_counter()
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    body = answer.read()
    if answer.status != 200:
        raise RuntimeError(f"{path}: {answer.status}")
    return (time.perf_counter() - begun) * 1000, body


def main() -> int:
    print(hardware())
    with tempfile.TemporaryDirectory() as folder, running_server(Path(folder) / "site") as server:
        path = f"/dicom-web{store(server, sparse_instance())}/metadata"
        connection = http.client.HTTPConnection("127.0.0.1", server.http, timeout=120)
        wanted = {"Accept": "application/dicom+json", "Accept-Encoding": "gzip"}
        first_ms, body = ask(connection, path, wanted)
        text = gzip.decompress(body)
        frames = len(json.loads(text)[0]["52009230"]["Value"])
        pids = web_workers(server)
        before = cpu_s(pids)
        taken = [ask(connection, path, wanted)[0] for _ in range(RUNS)]
        cpu_ms = (cpu_s(pids) - before) * 1000 / RUNS
        naive = []
        for _ in range(5):
            begun = time.perf_counter()
            gzip.compress(gzip.decompress(body), 1)
            naive.append((time.perf_counter() - begun) * 1000)
        others = {}
        for name, accept in (
            ("JSON", wanted["Accept"]),
            ("XML", 'multipart/related; type="application/dicom+xml"'),
        ):
            others[name] = ask(connection, path, {"Accept": accept})
        peak = peak_mb(pids)
    median = statistics.median(taken)
    ratio = statistics.median(naive) / median
    print(f"{frames} frames, {len(text) / 1e6:.1f} MB of JSON, medians of {RUNS}")
    print(f"first request             {first_ms:8.1f} ms")
    print(f"request, gzip'd           {median:8.1f} ms   (goal <= {GOAL_MS:.0f})")
    print(f"processor time of it      {cpu_ms:8.1f} ms   in all processes of the server")
    print(f"on the wire               {len(body) / 1e6:8.3f} MB   (goal <= {GOAL_BYTES / 1e6})")
    print(f"inflated and compressed again, over it {ratio:6.1f}")
    for name, (ms, data) in others.items():
        print(f"{name} without gzip {'':<10} {ms:7.0f} ms   {len(data) / 1e6:.1f} MB")
    print(f"largest process           {peak:8d} MB")
    return 0 if median <= GOAL_MS and len(body) <= GOAL_BYTES and frames == FRAMES else 1


if __name__ == "__main__":
    sys.exit(main())
