# SPDX-License-Identifier: Apache-2.0
"""One frame in another transfer syntax over HTTP: ``python -m benchmarks.transcode``.

A level of 256 x 256 pixels a tile, drawn like tissue, stored once in each of the syntaxes
that scanners write; single frames are asked for in every syntax that can be given. Prints the
median of each pair as the client sees it, and the ratio to the bare codec's work in this
process: what the pool of processes, HTTP and audit add.
"""

import http.client
import json
import statistics
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.frame_table import hardware
from converters.codecs import encode
from converters.codecs.render import FrameFormat
from converters.codecs.transcode import transcode
from converters.codecs.transfer_syntax import (
    DEFLATED_LE,
    EXPLICIT_BE,
    EXPLICIT_LE,
    FAMILY,
    HTJ2K_LOSSLESS,
    IMPLICIT_LE,
    JPEG2000_LOSSLESS,
    JPEG_BASELINE,
    JPEG_LS_LOSSLESS,
    JPEGXL_RECOMPRESSION,
    can_transcode,
    photometric_after,
)
from tests.support.instances import make_dataset
from tests.support.make_slide import picture
from tests.support.part10_file import part10
from tests.support.server import Server, running_server

TILE, FRAMES, RUNS = 256, 16, 16
GOAL_MS = 60.0
SOURCES = (
    JPEG_BASELINE,
    JPEGXL_RECOMPRESSION,
    JPEG2000_LOSSLESS,
    HTJ2K_LOSSLESS,
    JPEG_LS_LOSSLESS,
    EXPLICIT_LE,
)
TARGETS = sorted(
    set(FAMILY) - {IMPLICIT_LE, DEFLATED_LE, EXPLICIT_BE}, key=lambda uid: [int(n) for n in uid.split(".")]
)
FORM = {
    uid: FrameFormat(uid, TILE, TILE, 3, 8, 8, 0, photometric_after("YBR_FULL_422", uid)) for uid in SOURCES
}


def frames_of(syntax: str) -> list[bytes]:
    """Sixteen different tiles."""
    whole = picture(4 * TILE, 4 * TILE)
    tiles = [
        whole[r : r + TILE, c : c + TILE] for r in range(0, 4 * TILE, TILE) for c in range(0, 4 * TILE, TILE)
    ]
    if syntax == JPEGXL_RECOMPRESSION:
        return [transcode(encode(tile, JPEG_BASELINE), FORM[JPEG_BASELINE], syntax) for tile in tiles]
    return [encode(tile, syntax) for tile in tiles]


def store(server: Server, frames: list[bytes], syntax: str) -> str:
    """The path of the instance."""
    made = make_dataset(frames=FRAMES, tile=TILE)
    made.PhotometricInterpretation = FORM[syntax].photometric_interpretation
    instance = part10(made, syntax, frames)
    body = b"--b\r\nContent-Type: application/dicom\r\n\r\n" + instance + b"\r\n--b--\r\n"
    kind = 'multipart/related; type="application/dicom"; boundary=b'
    headers = {"Content-Type": kind, "Accept": "application/dicom+json"}
    request = urllib.request.Request(server.url + "/dicom-web/studies", body, headers)
    with urllib.request.urlopen(request, timeout=120) as answer:
        stored = json.load(answer)["00081199"]["Value"][0]
    return "/dicom-web" + str(stored["00081190"]["Value"][0]).partition("/dicom-web")[2]


def accept_of(target: str) -> str:
    names = {"1.2.840.10008.1.2.1": "application/octet-stream", "1.2.840.10008.1.2.5": "image/dicom-rle"}
    last = int(target.rpartition(".")[2])
    by_number = (
        (80, "image/jpeg"),
        (90, "image/jls"),
        (92, "image/jp2"),
        (113, "image/jxl"),
        (204, "image/jphc"),
    )
    kind = names.get(target) or next(name for below, name in by_number if last < below)
    return f"{kind}; transfer-syntax={target}"


def measured(connection: http.client.HTTPConnection, path: str, target: str) -> float:
    """Median milliseconds of single frames, another one each time."""
    taken = []
    for number in range(RUNS + 2):
        begun = time.perf_counter()
        url = f"{path}/frames/{number % FRAMES + 1}"
        connection.request("GET", url, headers={"Accept": accept_of(target)})
        answer = connection.getresponse()
        answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{target}: {answer.status}")
        taken.append((time.perf_counter() - begun) * 1000)
    return statistics.median(taken[2:])


def bare(frames: list[bytes], source: str, target: str) -> float:
    taken = []
    for frame in frames:
        begun = time.perf_counter()
        transcode(frame, FORM[source], target)
        taken.append((time.perf_counter() - begun) * 1000)
    return statistics.median(taken)


def short(uid: str) -> str:
    return "native" if uid == EXPLICIT_LE else "RLE" if uid.endswith(".5") else "." + uid.rpartition(".")[2]


def main() -> int:
    print(hardware())
    print(f"one frame of {TILE} x {TILE} in colour, ms as the client sees it, medians of {RUNS};")
    print("in brackets over the bare codec in this process")
    worst = 0.0
    with tempfile.TemporaryDirectory() as folder, running_server(Path(folder) / "site") as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.http, timeout=60)
        stored = {source: frames_of(source) for source in SOURCES}
        paths = {source: store(server, frames, source) for source, frames in stored.items()}
        print("to".ljust(8) + "".join(("from " + short(source)).rjust(15) for source in SOURCES))
        for target in TARGETS:
            line = short(target).ljust(8)
            for source in SOURCES:
                if source == target or not can_transcode(source, target):
                    line += "-".rjust(15)
                    continue
                ms, codec_ms = (
                    measured(connection, paths[source], target),
                    bare(stored[source], source, target),
                )
                worst = max(worst, ms)
                line += f"{ms:.1f} ({ms / max(codec_ms, 0.01):.1f})".rjust(15)
            if line.replace("-", "").strip() != short(target):
                print(line)
    print(f"slowest pair {worst:.1f} ms (goal <= {GOAL_MS:.0f})")
    return 0 if worst <= GOAL_MS else 1


if __name__ == "__main__":
    sys.exit(main())
