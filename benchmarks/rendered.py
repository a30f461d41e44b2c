# SPDX-License-Identifier: Apache-2.0
"""Pictures over HTTP: one frame, and a slide of 16,384 x 12,288 pixels in 1,000 x 1,000.

Targets: a frame at most 60 ms, the overview at most 150 ms (medians). Each is set against
the bare codec in this process: the same tiles decoded, put together, scaled and encoded,
without server, audit trail and other processes. A stored tile by IIIF is set against the
same tile as a frame by DICOMweb.
"""

import io
import os
import platform
import statistics
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import imagecodecs
import numpy as np
from PIL import Image

from gateway.demo.svs import YCBCR, Scan, SvsWriter, TileFormat
from tests.support.make_slide import JPEG, encoded_tiles, picture
from tests.support.server import coverslip, running_server, wait_for

RUNS = 9
ROWS, COLUMNS, TILE = 12_288, 16_384, 256
FRAME_MS, OVERVIEW_MS = 60, 150
FORM = TileFormat(JPEG, YCBCR, "422", 80)


def write_slide(path: Path) -> Path:
    """Three levels, each of one patch repeated, with a little noise: tissue is not smooth."""
    generator = np.random.default_rng(7)
    patch = picture(1024, 1024).astype(np.int16) + generator.integers(-12, 12, (1024, 1024, 3))
    patch = np.clip(patch, 0, 255).astype(np.uint8)
    scan = Scan(microns_per_pixel=0.25, magnification=40, file_name=path.stem)
    tiles = list(encoded_tiles(patch, TILE, FORM))
    with SvsWriter(path, scan) as svs:
        for factor in (1, 4, 16):
            rows, columns = ROWS // factor, COLUMNS // factor
            across, down = columns // TILE, rows // TILE
            repeated = (tiles[r % 4 * 4 + c % 4] for r in range(down) for c in range(across))
            svs.level(rows, columns, TILE, FORM, repeated)
            if factor == 1:
                svs.thumbnail(patch[:256, :256])
        svs.label(picture(120, 160))
    return path


def median_ms(act: Callable[[], object]) -> float:
    act()
    times = []
    for _ in range(RUNS):
        start = time.perf_counter()
        act()
        times.append((time.perf_counter() - start) * 1000)
    return statistics.median(times)


def get(url: str, accept: str = "image/jpeg") -> bytes:
    with urllib.request.urlopen(urllib.request.Request(url, headers={"Accept": accept})) as answer:
        data: bytes = answer.read()
    return data


def bare(tiles: list[bytes], across: int, size: tuple[int, int]) -> bytes:
    """Decode, put together, scale to (columns, rows), encode."""
    decoded = [imagecodecs.jpeg8_decode(tile) for tile in tiles]
    rows = [np.concatenate(decoded[n : n + across], axis=1) for n in range(0, len(decoded), across)]
    image = Image.fromarray(np.concatenate(rows))
    if image.size != size:
        image = image.resize(size, Image.Resampling.BOX)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def main() -> int:
    print(f"{platform.platform()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    missed = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        slide = write_slide(folder / "slide.svs")
        with running_server(folder / "site") as server:
            coverslip("ingest", slide, "--data", folder / "site")
            line = wait_for(lambda: server.json("/api/slides")["slides"])[0]
            series = line["series_instance_uid"]
            base = f"/dicom-web/studies/{line['study_instance_uid']}/series/{series}"
            levels = [
                one
                for one in server.json(
                    f"{base}/instances?includefield=00480006,00080008", "application/dicom+json"
                )
                if one["00080008"]["Value"][2] == "VOLUME"
            ]
            levels.sort(key=lambda one: -one["00480006"]["Value"][0])
            urls = [f"{server.url}{base}/instances/{one['00080018']['Value'][0]}" for one in levels]
            widths = [one["00480006"]["Value"][0] for one in levels]
            print(f"levels of {', '.join(map(str, widths))} columns; medians of {RUNS}")

            def tiles(level: int, count: int) -> list[bytes]:
                accept = "image/jpeg; transfer-syntax=1.2.840.10008.1.2.4.50"
                return [get(f"{urls[level]}/frames/{n + 1}", accept) for n in range(count)]

            def row(
                what: str, act: Callable[[], object], floor: Callable[[], object], goal: float = 0
            ) -> None:
                nonlocal missed
                ours, limit = median_ms(act), median_ms(floor)
                missed += 0 < goal < ours
                wanted = f"(goal {goal:.0f})" if goal else ""
                print(f"{what:50} {ours:6.1f} ms {wanted:10}; {limit:6.1f} ms bare, {ours / limit:4.1f} x")

            (one,) = tiles(0, 1)
            row("a frame, rendered", lambda: get(f"{urls[0]}/frames/77/rendered"),
                lambda: bare([one], 1, (TILE, TILE)), FRAME_MS)  # fmt: skip
            level = next(n for n in reversed(range(len(widths))) if widths[n] >= 980)
            across = -(-widths[level] // TILE)
            used = tiles(level, across * -(-(widths[level] * ROWS // COLUMNS) // TILE))
            row(f"the slide in 1000 x 1000 ({len(used)} tiles)",
                lambda: get(f"{urls[0]}/rendered?viewport=1000,1000"),
                lambda: bare(used, across, (1000, 750)), OVERVIEW_MS)  # fmt: skip
            used = tiles(0, 64)
            row("an unaligned region of 1900 x 1900 in 1000 x 1000",
                lambda: get(f"{urls[0]}/rendered?viewport=1000,1000,5003,5001,1900,1900"),
                lambda: bare(used, 8, (1000, 1000)))  # fmt: skip
            region = f"{5 * TILE},{5 * TILE},{TILE},{TILE}/{TILE},{TILE}/0/default.jpg"
            accept = "image/jpeg; transfer-syntax=1.2.840.10008.1.2.4.50"
            ours = median_ms(lambda: get(f"{server.url}/iiif/3/{series}/{region}"))
            frame = median_ms(lambda: get(f"{urls[0]}/frames/77", accept))
            ratio = f"as a frame {frame:.1f} ms, {ours / frame:.1f} x"
            print(f"{'a stored tile by IIIF':50} {ours:6.1f} ms; {ratio}")
            kept = median_ms(lambda: get(f"{server.url}{base}/thumbnail"))
            print(f"{'the thumbnail of the series, kept':50} {kept:6.1f} ms")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
