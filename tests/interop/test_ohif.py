# SPDX-License-Identifier: Apache-2.0
"""OHIF's prebuilt app, served from elsewhere and configured as a site does, shows our slide."""

import functools
import io
import json
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Playwright

from tests.interop.test_dicom_microscopy_viewer import FLAGS
from tests.support.make_slide import make_svs
from tests.support.require import NODE_MODULES, absent, require_tool
from tests.support.server import Server, coverslip, start_server, wait_for

APP = NODE_MODULES.parent / "ohif"  # unpacked by .ci/run; its dependencies are built in
PATIENCE_MS = 90_000


class Pages(SimpleHTTPRequestHandler):
    """The app's files; its routes are all its one page; the configuration is ours."""

    config = ""

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/app-config.js":
            body = self.config.encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/javascript")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            return
        if not Path(self.translate_path(path)).is_file():
            self.path = "/index.html"
        super().do_GET()

    def log_message(self, format: str, *args: object) -> None:
        pass


def config_of(server: Server) -> str:
    root = f"{server.url}/dicom-web"
    source = {
        "namespace": "@ohif/extension-default.dataSourcesModule.dicomweb",
        "sourceName": "coverslip",
        "configuration": {
            "friendlyName": "Coverslip",
            "name": "coverslip",
            "wadoUriRoot": root,
            "qidoRoot": root,
            "wadoRoot": root,
            "qidoSupportsIncludeField": True,
            "imageRendering": "wadors",
            "thumbnailRendering": "wadors",
            "enableStudyLazyLoad": True,
            "supportsFuzzyMatching": True,
            "supportsWildcard": True,
            "bulkDataURI": {"enabled": True},
        },
    }
    settings = {
        "routerBasename": "/",
        "extensions": [],
        "modes": [],
        "customizationService": {},
        "showStudyList": True,
        "maxNumberOfWebWorkers": 1,
        "showWarningMessageForCrossOrigin": False,
        "showCPUFallbackMessage": False,
        "defaultDataSourceName": "coverslip",
        "dataSources": [source],
    }
    return f"window.config = {json.dumps(settings)};"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, str]]:
    """A server with one slide, and the address of OHIF, which is another origin."""
    if not (APP / "dist" / "index.html").is_file():
        absent("OHIF's prebuilt app is not unpacked")
    folder = tmp_path_factory.mktemp("ohif")
    # It takes thumbnails for levels, and stops where the size of one is nearly a level's.
    slide = make_svs(folder / "slide.svs", rows=1000, columns=1500, thumbnail=False)
    handler = functools.partial(Pages, directory=str(APP / "dist"))
    pages = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=pages.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{pages.server_port}"
    server = start_server(folder / "site", "--set", f"http.cors_origins={address}")
    try:
        Pages.config = config_of(server)
        coverslip("ingest", slide, "--data", server.data)
        wait_for(lambda: server.json("/api/slides")["slides"])
        yield server, address
    finally:
        server.stop()
        pages.shutdown()
        pages.server_close()


def test_ohif_lists_the_study_and_its_microscopy_mode_shows_the_slide(
    site: tuple[Server, str], driver: Playwright, tmp_path: Path
) -> None:
    server, address = site
    (slide,) = server.json("/api/slides")["slides"]
    study = slide["study_instance_uid"]
    browser = driver.chromium.launch(executable_path=require_tool("chromium"), args=list(FLAGS))
    page = browser.new_page(viewport={"width": 1200, "height": 800})
    asked: list[tuple[str, int]] = []
    page.on("response", lambda answer: asked.append((answer.url, answer.status)))
    try:
        page.goto(address)
        page.wait_for_function(
            "() => document.body.innerText.includes('Microscopy') || document.body.innerText.includes('SM')",
            timeout=PATIENCE_MS,
        )
        page.goto(f"{address}/microscopy?StudyInstanceUIDs={study}")
        for _ in range(40):
            page.wait_for_timeout(1000)
            pixels = shot(page)
            if coloured(pixels) > 0.02:
                break
        page.screenshot(path=tmp_path / "ohif.png")
    finally:
        browser.close()
    ours = [(url, status) for url, status in asked if url.startswith(server.url)]
    assert [(url, status) for url, status in ours if status >= 400] == []
    assert any("/frames/" in url for url, _ in ours)
    assert coloured(pixels) > 0.02


def shot(page) -> np.ndarray:  # type: ignore[no-untyped-def]
    return np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("RGB")).astype(int)


def coloured(pixels: np.ndarray) -> float:
    """Share of the view's middle that is neither grey nor the app's blue: the tissue."""
    middle = pixels[150:700, 300:1100]
    red, green, blue = (middle[..., channel] for channel in range(3))
    return float(((red - green > 20) & (red > blue - 20)).mean())
