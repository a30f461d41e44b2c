# SPDX-License-Identifier: Apache-2.0
"""OpenSeadragon in a browser, served from elsewhere, on the IIIF and DeepZoom doors."""

import functools
import io
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Playwright

from tests.support.make_slide import make_svs, picture
from tests.support.require import require_npm_package, require_tool
from tests.support.server import Server, coverslip, start_server

WIDTH, HEIGHT = 900, 600  # of the page's view
ROWS, COLUMNS = 1400, 2100  # the slide's, of the same shape
PATIENCE_MS = 60_000
Site = tuple[Server, str, Browser, str]


class _Pages(SimpleHTTPRequestHandler):
    """The page and the viewer's script."""

    def __init__(self, *arguments: Any, viewer: Path) -> None:
        self.viewer = viewer
        super().__init__(*arguments)

    def translate_path(self, path: str) -> str:
        name = Path(path.partition("?")[0]).name
        return str(self.viewer / name if name else Path(__file__).with_name("openseadragon.html"))

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, driver: Playwright) -> Iterator[Site]:
    chromium = require_tool("chromium")
    viewer = require_npm_package("openseadragon") / "build" / "openseadragon"
    folder = tmp_path_factory.mktemp("openseadragon")
    pages = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Pages, viewer=viewer))
    threading.Thread(target=pages.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{pages.server_address[1]}"
    server = start_server(folder / "site", environment={"COVERSLIP_HTTP_CORS_ORIGINS": f'["{address}"]'})
    try:
        slide = make_svs(folder / "slide.svs", rows=ROWS, columns=COLUMNS)
        coverslip("ingest", slide, "--data", server.data)
        (line,) = server.json("/api/slides")["slides"]
        browser = driver.chromium.launch(
            executable_path=chromium, args=["--headless", "--no-sandbox", "--force-color-profile=srgb"]
        )
        yield server, address, browser, line["series_instance_uid"]
        browser.close()
    finally:
        server.stop()
        pages.shutdown()
        pages.server_close()


@pytest.mark.parametrize("door", ["/iiif/3/{}/info.json", "/deepzoom/{}.dzi"])
def test_the_viewer_shows_the_slide_through_either_door(site: Site, door: str) -> None:
    server, address, browser, series = site
    page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
    try:
        page.goto(f"{address}/?{urlencode({'source': server.url + door.format(series)})}")
        page.wait_for_function("() => state.full || state.error", timeout=PATIENCE_MS)
        page.wait_for_timeout(500)
        state = page.evaluate("state")
        shot = page.screenshot(clip={"x": 0, "y": 0, "width": WIDTH, "height": HEIGHT})
    finally:
        page.close()
    assert state["error"] == ""
    assert state["failed"] == 0
    assert state["drawn"] >= 4
    assert f"{COLUMNS}x{ROWS}" in state["kind"]
    seen = np.asarray(Image.open(io.BytesIO(shot)).convert("RGB")).astype(int)
    wanted = np.asarray(
        Image.fromarray(picture(ROWS, COLUMNS)).resize((WIDTH, HEIGHT), Image.Resampling.BOX)
    ).astype(int)
    assert np.abs(seen - wanted).mean() < 8
