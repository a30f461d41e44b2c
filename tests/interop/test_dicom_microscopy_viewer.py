# SPDX-License-Identifier: Apache-2.0
"""dicom-microscopy-viewer, the viewer behind Slim and OHIF, on slides that we converted.

It runs in a browser, is served from elsewhere (so the requests are cross-origin) and
decodes the frames itself. It shows one pyramid of one focal plane: of a series with
several regions the page gives it those of one PyramidUID.
"""

import functools
import io
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Playwright

from tests.support.make_slide import make_svs, picture, srgb_profile
from tests.support.require import require_npm_package, require_tool
from tests.support.server import Server, coverslip, start_server
from tests.support.slides.leica_scn import Region, write_leica_scn
from tests.support.slides.mrxs import write_mrxs
from tests.support.slides.ndpi import write_ndpi
from tests.support.slides.ome_tiff import write_lunaphore

WIDTH, HEIGHT = 900, 600  # of the page's view
PATIENCE_MS = 60_000
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--force-color-profile=srgb",
    "--use-gl=angle",  # the viewer draws with WebGL, in software here
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--ignore-gpu-blocklist",
)
REGIONS = (Region(), Region(rows=700, columns=1500, offset_nm=(30_000_000, 10_000_000), seed=5))


@dataclass
class Site:
    """A server with slides, a place where the viewer's page is, and a browser."""

    server: Server
    page_url: str
    browser: Browser
    slides: dict[str, dict[str, Any]] = field(default_factory=dict)


@dataclass
class Opened:
    """What the viewer did: its page's ``window.state``, the frames asked for as (SOP
    Instance UID, number), and the view as shown, (rows, columns, 3)."""

    state: dict[str, Any]
    frames: list[tuple[str, int]]
    pixels: np.ndarray


class _Pages(SimpleHTTPRequestHandler):
    """The page, and the files of the viewer and of its DICOMweb client."""

    def __init__(self, *arguments: Any, viewer: Path, client: Path) -> None:
        self.folders = {"viewer": viewer, "client": client}
        super().__init__(*arguments)

    def translate_path(self, path: str) -> str:
        folder, _, name = path.partition("?")[0].strip("/").partition("/")
        if not folder:
            return str(Path(__file__).with_name("dicom_microscopy_viewer.html"))
        return str(self.folders.get(folder, Path("absent")) / Path(name).name)

    def log_message(self, *_: object) -> None:
        pass


def profile_of_a_scanner() -> bytes:
    """sRGB, as long as scanners' profiles are: too long to stand in the metadata."""
    profile = bytearray(srgb_profile()) + bytes(140_000)
    profile[:4] = len(profile).to_bytes(4, "big")
    return bytes(profile)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, driver: Playwright) -> Iterator[Site]:
    chromium = require_tool("chromium")
    viewer = require_npm_package("dicom-microscopy-viewer") / "dist" / "dynamic-import"
    client = require_npm_package("dicomweb-client") / "build"
    folder = tmp_path_factory.mktemp("viewer")
    pages = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Pages, viewer=viewer, client=client))
    threading.Thread(target=pages.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{pages.server_address[1]}"
    server = start_server(folder / "site", environment={"COVERSLIP_HTTP_CORS_ORIGINS": f'["{address}"]'})
    try:
        files = [
            make_svs(folder / "bright.svs", rows=1000, columns=1500, icc=profile_of_a_scanner()),
            make_svs(folder / "j2k.svs", rows=600, columns=900, compression=33005),
            write_leica_scn(folder, regions=REGIONS),
            write_lunaphore(folder),
            write_ndpi(folder, planes_nm=(-1000, 0, 1000)),
            write_mrxs(folder, present={0, 1, 4}),
        ]
        coverslip("ingest", *files, "--data", server.data)
        slides = {one["file_name"]: one for one in server.json("/api/slides?limit=100")["slides"]}
        browser = driver.chromium.launch(executable_path=chromium, args=list(FLAGS))
        yield Site(server, address, browser, slides)
        browser.close()
    finally:
        server.stop()
        pages.shutdown()
        pages.server_close()


def opened(site: Site, file_name: str, **options: str | int) -> Opened:
    """Open a slide in the viewer and wait until every frame that it asked for is drawn."""
    slide = site.slides[file_name]
    query = {
        "service": f"{site.server.url}/dicom-web",
        "study": slide["study_instance_uid"],
        "series": slide["series_instance_uid"],
        **options,
    }
    page = site.browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
    frames: list[tuple[str, int]] = []

    def note(url: str) -> None:
        before, found, number = url.partition("/frames/")
        if found:
            frames.append((before.rpartition("/")[2], int(number)))

    try:
        page.on("request", lambda request: note(request.url))
        page.goto(f"{site.page_url}/?{urlencode(query)}")
        page.wait_for_function("() => state.opened || state.error", timeout=PATIENCE_MS)
        if not page.evaluate("state.error"):
            page.wait_for_function(
                """() => {
                    const now = `${state.started} ${state.drawn} ${state.failed}`;
                    if (now !== window.before) [window.before, window.since] = [now, performance.now()];
                    const done = state.drawn + state.failed;
                    return done && done >= state.started && performance.now() - window.since > 800;
                }""",
                timeout=PATIENCE_MS,
            )
        shot = page.screenshot(clip={"x": 0, "y": 0, "width": WIDTH, "height": HEIGHT})
        pixels = np.asarray(Image.open(io.BytesIO(shot)).convert("RGB")).astype(int)
        return Opened(page.evaluate("state"), frames, pixels)
    finally:
        page.close()


def likeness(found: Opened, pixels: np.ndarray) -> float:
    """Correlation of the middle of the view with the image fitted into it, turned by 180
    degrees as the viewer turns an image whose label is at the left."""
    rows, columns = pixels.shape[:2]
    scale = min(WIDTH / columns, HEIGHT / rows)
    size = (round(columns * scale), round(rows * scale))
    fitted = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BOX))[::-1, ::-1]
    middle = fitted[size[1] // 2 - 120 : size[1] // 2 + 120, size[0] // 2 - 120 : size[0] // 2 + 120]
    seen = found.pixels[HEIGHT // 2 - 120 : HEIGHT // 2 + 120, WIDTH // 2 - 120 : WIDTH // 2 + 120]
    return float(np.corrcoef(seen.ravel(), middle.ravel())[0, 1])


def assert_all_drawn(found: Opened) -> None:
    assert found.state["error"] == ""
    assert found.state["failed"] == 0
    assert found.state["drawn"] >= 1
    assert found.pixels[200:400, 350:550].std() > 10


def test_a_slide_opens_with_its_own_pixels_and_a_large_colour_profile(site: Site) -> None:
    found = opened(site, "bright.svs")
    assert_all_drawn(found)
    assert likeness(found, picture(1000, 1500)) > 0.95


def test_jpeg_2000_is_decoded_by_the_viewer(site: Site) -> None:
    found = opened(site, "j2k.svs")
    assert_all_drawn(found)
    assert likeness(found, picture(600, 900)) > 0.95


def test_each_region_of_a_series_opens_as_a_pyramid_of_its_own(site: Site) -> None:
    found = [opened(site, "slide.scn", pyramid=number) for number in range(2)]
    for one in found:
        assert_all_drawn(one)
        assert len(one.state["pyramids"]) == 2
    instances = [{instance for instance, _ in one.frames} for one in found]
    assert not instances[0] & instances[1]
    wanted = [picture(region.rows, region.columns, region.seed) for region in REGIONS]
    match = np.array([[likeness(one, pixels) for pixels in wanted] for one in found])
    assert sorted(match.argmax(axis=1)) == [0, 1]
    assert (match.max(axis=1) > 0.9).all()


def test_every_channel_of_16_bits_is_found_by_its_optical_path(site: Site) -> None:
    shown = {path: opened(site, "slide.ome.tiff", path=path) for path in ("1", "3")}
    frames: dict[str, set[tuple[str, int]]] = {}
    for path, found in shown.items():
        assert found.state["error"] == ""
        assert found.state["failed"] == 0
        assert found.state["drawn"] >= 1
        assert found.pixels[200:400, 350:550].std() > 3  # the viewer starts with all of 16 bits
        assert len(found.state["paths"]) == 5
        assert "DAPI" in found.state["paths"][0]
        frames[path] = set(found.frames)
    tiles = 4 * 4  # of the finest level, 900 x 1000 pixels in tiles of 256
    finest = max(frames["1"], key=lambda frame: len([f for f in frames["1"] if f[0] == frame[0]]))[0]
    numbers = {path: {number for one, number in frames[path] if one == finest} for path in frames}
    assert numbers["1"] <= set(range(1, tiles + 1))
    assert numbers["3"] == {number + 2 * tiles for number in numbers["1"]}


def test_of_a_stack_of_focal_planes_the_first_is_shown(site: Site) -> None:
    found = opened(site, "slide.ndpi")
    assert_all_drawn(found)
    assert likeness(found, picture(1008, 2048)) > 0.9


def test_a_sparse_level_opens_with_white_where_nothing_was_scanned(site: Site) -> None:
    found = opened(site, "scan.mrxs")
    assert_all_drawn(found)
    assert (found.pixels[HEIGHT // 2 - 250 : HEIGHT // 2 + 250, 250:650] > 225).all(axis=2).mean() > 0.1
