# SPDX-License-Identifier: Apache-2.0
"""One server and one browser for all browser tests; a page of its own for each.

The server is ``coverslip serve``, a process tree of its own on an empty data folder.
"""

import io
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator

import pydicom
import pytest
from PIL import ImageCms
from playwright.sync_api import Browser, Page, Playwright, expect
from pydicom.uid import generate_uid

from tests.dicomweb.viewer.driving import COLUMNS, PATIENCE_MS, ROWS, Server, Slide
from tests.support.instances import make_instance
from tests.support.make_slide import make_svs, picture, srgb_profile
from tests.support.require import ROOT, require_tool

WIDTH, HEIGHT = 1280, 800
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--force-color-profile=srgb",
)


@pytest.fixture(scope="session")
def browser(driver: Playwright) -> Iterator[Browser]:
    program = require_tool("chromium")
    started = driver.chromium.launch(executable_path=program, args=list(FLAGS))
    yield started
    started.close()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, browser: Browser) -> Iterator[Server]:
    """Three slides, dropped into the watched folder: a large one; one without pixel spacing
    and one with a colour profile that shows, both of one study."""
    folder = tmp_path_factory.mktemp("viewer")
    data = folder / "data"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERSLIP_")}
    process = subprocess.Popen(
        [sys.executable, "-m", "gateway", "serve", "--data", data, "--http", "127.0.0.1:0", "--dimse", "0"],
        stdout=subprocess.PIPE,
        stderr=(folder / "log").open("wb"),
        cwd=folder,
        env={**environment, "PYTHONPATH": str(ROOT)},
        text=True,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline().strip()
        assert line.startswith("http://"), (folder / "log").read_text()[-2000:]
        pixels = picture(ROWS, COLUMNS, seed=11)
        pixels[::24] //= 2  # fine lines, so that a coarser level cannot pass for the finest
        pixels[:, ::24] //= 2
        started = Server(line, data, pixels)
        started.drop(
            make_svs(folder / "first.svs", pixels=pixels, levels=(1, 4, 16), icc=True, barcode="S26-0001-A")
        )
        study = generate_uid()
        second = folder / "second.dcm"
        second.write_bytes(make_instance(container="S26-0002-A", study=study, frames=4, tile=64))
        started.drop(second)
        third = folder / "third.dcm"
        coloured = pydicom.dcmread(
            io.BytesIO(make_instance(container="S26-ICC", study=study, frames=16, tile=128))
        )
        coloured.OpticalPathSequence[0].ICCProfile = swapped_profile()
        coloured.save_as(third, enforce_file_format=True)
        started.drop(third)
        page = browser.new_page()
        page.goto(started.url)
        for name in ("S26-0001-A", "S26-0002-A", "S26-ICC"):
            link = page.get_by_role("link", name=f"Open slide {name}")
            expect(link).to_be_visible(timeout=PATIENCE_MS)
            found = re.search(r"study=([\d.]+)&series=([\d.]+)", link.get_attribute("href") or "")
            assert found
            started.slides[name] = Slide(name, *found.groups())
        page.close()
        yield started
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=40)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()


def swapped_profile() -> bytes:
    """sRGB with the red and the green primary exchanged, made longer than 64 KiB."""
    profile = bytearray(srgb_profile())
    red, green = profile.index(b"rXYZ", 128), profile.index(b"gXYZ", 128)
    profile[red : red + 4], profile[green : green + 4] = b"gXYZ", b"rXYZ"
    profile += bytes(70_000 - len(profile))
    profile[:4] = len(profile).to_bytes(4, "big")
    ImageCms.ImageCmsProfile(io.BytesIO(bytes(profile)))
    return bytes(profile)


@pytest.fixture
def slide(server: Server) -> Slide:
    return server.slides["S26-0001-A"]


@pytest.fixture
def page(browser: Browser, server: Server) -> Iterator[Page]:
    """A fresh page; a script error or a breach of the policy fails the test."""
    context = browser.new_context(base_url=server.url, viewport={"width": WIDTH, "height": HEIGHT})
    opened = context.new_page()
    opened.set_default_timeout(PATIENCE_MS)
    faults: list[str] = []
    opened.on("pageerror", lambda error: faults.append(str(error)))
    opened.on(
        "console",
        lambda message: faults.append(message.text) if "Content Security Policy" in message.text else None,
    )
    yield opened
    context.close()
    assert faults == []
