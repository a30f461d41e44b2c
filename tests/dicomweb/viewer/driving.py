# SPDX-License-Identifier: Apache-2.0
"""Helpers of the browser tests: the server's slides, and waiting for what a page shows.

Nothing is waited for by time alone: only by what the page shows or asks for.
"""

import io
import json
import re
import shutil
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image
from playwright.sync_api import Page, expect

ROWS, COLUMNS = 3000, 4200
PATIENCE_MS = 30_000


@dataclass
class Slide:
    """One slide as the work list names it."""

    name: str
    study: str
    series: str

    @property
    def address(self) -> str:
        return f"viewer/?study={self.study}&series={self.series}"


@dataclass
class Server:
    """A running ``coverslip serve``."""

    url: str
    data: Path
    pixels: np.ndarray
    slides: dict[str, Slide] = field(default_factory=dict)

    def get(self, path: str, accept: str = "application/json") -> bytes:
        request = urllib.request.Request(self.url + path, headers={"Accept": accept})
        with urllib.request.urlopen(request, timeout=30) as response:
            return bytes(response.read())

    def drop(self, path: Path) -> None:
        """Put a file into the watched folder as a careful scanner does: whole, by rename."""
        hidden = self.data / path.name
        shutil.copyfile(path, hidden)
        hidden.rename(self.data / "watch" / path.name)

    def level_zero(self, slide: Slide) -> str:
        """SOP Instance UID of the finest level."""
        metadata = json.loads(
            self.get(
                f"dicom-web/studies/{slide.study}/series/{slide.series}/metadata", "application/dicom+json"
            )
        )
        volumes = [item for item in metadata if item["00080008"]["Value"][2] == "VOLUME"]
        finest = max(volumes, key=lambda item: item["00480006"]["Value"][0])
        return str(finest["00080018"]["Value"][0])


def open_slide(page: Page, slide: Slide, place: str = "") -> None:
    page.goto(f"{slide.address}{place}")
    expect(page.locator("#stage")).to_have_attribute("data-state", "ready", timeout=PATIENCE_MS)
    wait_for_tiles(page)


def wait_for_tiles(page: Page) -> None:
    """Until tiles were loaded, none is under way, and two frames were painted since."""
    page.wait_for_function(
        """() => {
            const {tilesLoaded, tilesLoading} = document.querySelector('#stage').dataset;
            return Number(tilesLoaded) > 0 && tilesLoading === '0';
        }"""
    )
    page.evaluate(
        """() => new Promise(done => {
            let frames = 24; // the last tiles fade in over 120 ms
            const paint = () => (frames-- ? requestAnimationFrame(paint) : done());
            paint();
        })"""
    )


def shown(page: Page, half: int = 90) -> np.ndarray:
    """The middle of the slide area as shown, (2 * half, 2 * half, 3)."""
    box = page.locator("#map").bounding_box()
    assert box
    x, y = round(box["x"] + box["width"] / 2) - half, round(box["y"] + box["height"] / 2) - half
    data = page.screenshot(clip={"x": x, "y": y, "width": 2 * half, "height": 2 * half})
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)


def scale(page: Page) -> float:
    """Screen pixels per pixel of the finest level."""
    return float(page.locator("#stage").get_attribute("data-scale") or "nan")


def place(page: Page) -> dict[str, float]:
    """The numbers in the address."""
    return {name: float(value) for name, value in re.findall(r"[#&]([xyzr])=([-\d.]+)", page.url)}


def wait_for_scale(page: Page, wanted: float) -> None:
    page.wait_for_function(
        "wanted => Math.abs(document.querySelector('#stage').dataset.scale / wanted - 1) < 0.005", arg=wanted
    )


def wait_for_link(page: Page, condition: str) -> None:
    """Until the numbers of the address (x, y, z, r) fulfil a JavaScript condition."""
    page.wait_for_function(
        f"""() => {{
            const q = new URLSearchParams(location.hash.slice(1));
            const [x, y, z, r] = ['x', 'y', 'z', 'r'].map(name => Number(q.get(name)));
            return q.has('x') && ({condition});
        }}"""
    )
