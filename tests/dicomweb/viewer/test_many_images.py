# SPDX-License-Identifier: Apache-2.0
"""Slides that are more than one image: regions, channels of 16 bits, focal planes."""

import re
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, Request, expect

from tests.dicomweb.viewer.driving import PATIENCE_MS, Server, Slide, open_slide, shown, wait_for_tiles
from tests.support.slides.leica_scn import Region, write_leica_scn
from tests.support.slides.ndpi import write_ndpi
from tests.support.slides.ome_tiff import Image, write_ome

pytestmark = pytest.mark.xdist_group("viewer")

RAMP = (1000, 9000)  # least and greatest stored value: an eighth of what 16 bits hold


def ramp() -> np.ndarray:
    """Two tiles side by side, ever brighter to the right; the second channel to the left."""
    across = np.linspace(*RAMP, 1024).astype(np.uint16)
    return np.stack([np.tile(across, (512, 1)), np.tile(across[::-1], (512, 1))])[None, :, None]


def kept(server: Server, page: Page, path: Path) -> Slide:
    """The slide of a file that was dropped, once the work list shows it."""
    server.drop(path)
    row = page.locator("tr", has_text=path.name)
    expect(row).to_be_visible(timeout=PATIENCE_MS)
    address = row.get_by_role("link").get_attribute("href") or ""
    found = re.search(r"study=([\d.]+)&series=([\d.]+)", address)
    assert found
    return Slide(path.name, *found.groups())


@pytest.fixture(scope="module")
def slides(server: Server, browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Slide]:
    folder = tmp_path_factory.mktemp("many")
    channels = ('Name="DAPI"', 'Name="CD3"')
    written = {
        "regions": write_leica_scn(
            folder, regions=(Region(columns=700), Region(offset_nm=(30_000_000, 10_000_000), seed=5))
        ),
        "channels": write_ome(folder, [Image(ramp(), channels=channels, form={"tile": (512, 512)})]),
        "stack": write_ndpi(folder, planes_nm=(-1000, 0, 1000)),
    }
    page = browser.new_page()
    page.goto(server.url)
    found = {name: kept(server, page, path) for name, path in written.items()}
    page.close()
    return found


def test_the_largest_region_opens_first_and_the_others_can_be_chosen(page: Page, slides: dict[str, Slide]):
    open_slide(page, slides["regions"])
    choice = page.get_by_label("Scanned region")
    expect(choice.locator("option")).to_have_count(2)
    assert "1100 × 900" in choice.locator("option").nth(0).inner_text()
    expect(page.locator("#details")).to_contain_text("1,100 × 900 px")
    first = shown(page)

    choice.select_option(index=1)

    expect(page.locator("#details")).to_contain_text("700 × 900 px")
    wait_for_tiles(page)
    second = shown(page)
    assert first.std() > 10
    assert second.std() > 10
    assert np.abs(first - second).mean() > 20


def test_tiles_of_16_bits_share_one_window_so_that_no_seam_shows(page: Page, slides: dict[str, Slide]):
    asked: set[str] = set()
    page.on("request", lambda r: asked.add(r.url.partition("window=")[2]) if "/rendered?" in r.url else None)
    open_slide(page, slides["channels"], "#x=512&y=256&z=1&r=0")

    levels = shown(page).mean((0, 2))  # the middle of the image is where the two tiles meet
    steps = np.diff(levels)
    rise = 255 / 1024
    assert np.abs(steps).max() < 4
    assert levels[-1] - levels[0] == pytest.approx(179 * rise, abs=6)
    assert levels.mean() == pytest.approx(127, abs=6)
    assert len({one for one in asked if "linear-exact" in one}) == 1


def test_another_channel_is_shown_with_a_window_of_its_own(page: Page, slides: dict[str, Slide]):
    open_slide(page, slides["channels"], "#x=512&y=256&z=1&r=0")
    before = shown(page).mean((0, 2))
    choice = page.get_by_label("Optical path")
    expect(choice.locator("option")).to_have_text([re.compile("DAPI"), re.compile("CD3")])

    choice.select_option(index=1)
    page.wait_for_function("() => location.hash.includes('o=')")
    wait_for_tiles(page)

    after = shown(page).mean((0, 2))
    assert before[-1] > before[0] + 30
    assert after[0] > after[-1] + 30


def test_the_focus_slider_and_keys_go_through_the_focal_planes(page: Page, slides: dict[str, Slide]):
    asked: set[tuple[str, int]] = set()

    def note(request: Request) -> None:
        if found := re.search(r"/instances/([\d.]+)/frames/(\d+)", request.url):
            asked.add((found[1], int(found[2])))

    page.on("request", note)
    open_slide(page, slides["stack"])
    expect(page.locator("#plane-text")).to_have_text("1/3")
    lowest = set(asked)
    asked.clear()

    page.keyboard.press("]")

    expect(page.locator("#plane-text")).to_have_text("2/3")
    page.wait_for_function("() => location.hash.includes('f=1')")
    wait_for_tiles(page)
    tiles = {instance: max(n for one, n in lowest if one == instance) for instance, _ in lowest}
    assert len(asked) >= 8
    assert asked == {(instance, n + tiles[instance]) for instance, n in lowest}


def test_every_slide_has_a_picture_in_the_list(server: Server, slides: dict[str, Slide]):
    for slide in slides.values():
        series = f"dicom-web/studies/{slide.study}/series/{slide.series}"
        assert server.get(f"{series}/thumbnail", "image/jpeg")[:2] == b"\xff\xd8", slide.name
