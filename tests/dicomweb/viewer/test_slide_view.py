# SPDX-License-Identifier: Apache-2.0
"""The slide view in a browser: the right pixels at the right place, by mouse, keys and link."""

import io

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, Request, expect

from tests.dicomweb.viewer.driving import (
    COLUMNS,
    ROWS,
    Server,
    Slide,
    open_slide,
    place,
    scale,
    shown,
    wait_for_link,
    wait_for_scale,
    wait_for_tiles,
)
from tests.support.instances import jpeg_tile

pytestmark = pytest.mark.xdist_group("viewer")


def test_a_click_opens_the_slide_with_its_own_pixels_in_their_own_colours(
    page: Page, server: Server, slide: Slide
):
    page.goto("?search=S26-0001")
    page.get_by_role("link", name="Open slide S26-0001-A").click()
    expect(page.locator("#stage")).to_have_attribute("data-state", "ready")
    wait_for_tiles(page)

    expect(page.locator("#identity")).to_have_text("S26-0001-A")
    picture_shown = shown(page)
    factor = 1 / scale(page)
    half = round(90 * factor)
    part = server.pixels[ROWS // 2 - half : ROWS // 2 + half, COLUMNS // 2 - half : COLUMNS // 2 + half]
    expected = np.asarray(Image.fromarray(part).resize((180, 180), Image.Resampling.BOX)).astype(int)
    assert picture_shown.std() > 10
    assert np.abs(picture_shown.mean((0, 1)) - expected.mean((0, 1))).max() < 4
    assert np.abs(picture_shown - expected).mean() < 9


def test_full_resolution_loads_the_finest_level_pixel_by_pixel(page: Page, server: Server, slide: Slide):
    finest = server.level_zero(slide)
    asked: list[Request] = []
    page.on("request", lambda request: asked.append(request) if finest in request.url else None)
    open_slide(page, slide)
    assert not [request for request in asked if "/frames/" in request.url]

    page.get_by_role("button", name="20×").click()
    wait_for_scale(page, 1)
    wait_for_tiles(page)

    frames = [request for request in asked if "/frames/" in request.url]
    assert len(frames) >= 6
    assert all(
        request.headers["accept"] == "image/jpeg; transfer-syntax=1.2.840.10008.1.2.4.50"
        for request in frames
    )
    part = server.pixels[ROWS // 2 - 90 : ROWS // 2 + 90, COLUMNS // 2 - 90 : COLUMNS // 2 + 90].astype(int)
    assert np.abs(shown(page) - part).mean() < 5
    expect(page.locator("#power")).to_have_text("20×")
    expect(page.locator("#rule-text")).to_have_text("50 µm")
    assert page.locator("#rule-bar").evaluate("bar => bar.getBoundingClientRect().width") == pytest.approx(
        100, abs=1
    )


def test_the_wheel_zooms_at_the_pointer(page: Page, slide: Slide):
    open_slide(page, slide)
    box = page.locator("#map").bounding_box()
    assert box
    before = scale(page)

    page.mouse.move(box["x"] + 150, box["y"] + 150)
    page.mouse.wheel(0, -600)

    wait_for_link(page, f"z > {before * 1.2} && x < {COLUMNS / 2 - 20} && y < {ROWS / 2 - 20}")


def test_keys_move_zoom_and_turn_the_slide(page: Page, slide: Slide):
    open_slide(page, slide)

    page.keyboard.press("4")
    wait_for_scale(page, 0.5)
    wait_for_link(page, f"z === 0.5 && Math.abs(x - {COLUMNS / 2}) < 2")
    page.keyboard.press("ArrowRight")
    wait_for_link(page, f"x > {COLUMNS / 2 + 100} && Math.abs(y - {ROWS / 2}) < 2")
    page.keyboard.press("ArrowUp")
    wait_for_link(page, f"y < {ROWS / 2 - 100}")
    page.keyboard.press("+")
    wait_for_scale(page, 0.5 * 2**0.5)
    page.keyboard.press("r")
    wait_for_link(page, "r === 90")
    expect(page.locator("#angle")).to_have_text("90°")
    turned = place(page)
    page.keyboard.press("ArrowRight")  # the slide's upper edge is on the right now
    wait_for_link(page, f"y < {turned['y'] - 60} && Math.abs(x - {turned['x']}) < 2")
    page.keyboard.press("Shift+R")
    wait_for_link(page, "r === 0")
    page.keyboard.press("0")
    wait_for_link(page, f"z < 0.3 && Math.abs(x - {COLUMNS / 2}) < 2 && Math.abs(y - {ROWS / 2}) < 2")
    expect(page.locator("[data-preset=fit]")).to_have_attribute("aria-pressed", "true")


def test_a_turned_slide_shows_turned_pixels(page: Page, server: Server, slide: Slide):
    open_slide(page, slide, f"#x={COLUMNS / 2}&y={ROWS / 2}&z=1&r=90")

    part = server.pixels[ROWS // 2 - 90 : ROWS // 2 + 90, COLUMNS // 2 - 90 : COLUMNS // 2 + 90].astype(int)
    assert np.abs(shown(page) - np.rot90(part, k=-1)).mean() < 6


def test_a_deep_link_restores_the_place_and_a_reload_keeps_it(page: Page, server: Server, slide: Slide):
    open_slide(page, slide, "#x=1200&y=900&z=0.8&r=30")

    assert scale(page) == pytest.approx(0.8)
    assert page.locator("#stage").get_attribute("data-rotation") == "30"
    page.keyboard.press("ArrowDown")
    wait_for_link(page, "Math.hypot(x - 1200, y - 900) > 110")  # a tap moves 90 screen pixels in all
    there = place(page)
    page.reload()
    expect(page.locator("#stage")).to_have_attribute("data-state", "ready")
    wait_for_link(page, f"Math.abs(x - {there['x']}) <= 1 && Math.abs(y - {there['y']}) <= 1 && r === 30")

    page.evaluate("location.hash = '#x=2000&y=1000&z=1&r=0'")
    wait_for_scale(page, 1)
    wait_for_tiles(page)
    part = server.pixels[1000 - 90 : 1000 + 90, 2000 - 90 : 2000 + 90].astype(int)
    assert np.abs(shown(page) - part).mean() < 5


def test_label_and_overview_are_shown_and_the_label_turns(page: Page, slide: Slide):
    open_slide(page, slide)
    label = page.locator("#label-picture img")

    expect(label).to_be_visible()
    assert label.evaluate("image => image.naturalWidth") > 50
    expect(page.locator("#overview-picture img")).to_be_visible()
    page.get_by_role("button", name="Rotate the label").click()
    assert label.evaluate("image => image.style.transform") == "rotate(90deg)"


def test_the_details_name_scanner_and_spacing_but_no_vendor_text(page: Page, slide: Slide):
    open_slide(page, slide)
    details = page.locator("#details")

    for text in ("S26-0001-A", "SS7777", "0.5 µm/px", "4,200 × 3,000 px", "2026-03-14", "Lossy JPEG"):
        expect(details).to_contain_text(text)
    assert "AppMag" not in details.inner_text()


def test_a_slide_without_spacing_says_that_it_has_no_scale(page: Page, server: Server):
    open_slide(page, server.slides["S26-0002-A"])

    expect(page.locator("#unscaled")).to_be_visible()
    expect(page.locator("#rule")).to_be_hidden()


def test_the_tray_leads_to_the_other_slides_of_the_study(page: Page, server: Server):
    open_slide(page, server.slides["S26-0002-A"])
    links = page.locator("#tray-list a")

    expect(links).to_have_count(2)
    expect(page.locator("#tray-list a[aria-current]")).to_contain_text("S26-0002-A")
    page.get_by_role("link", name="Open S26-ICC").click()
    expect(page.locator("#identity")).to_have_text("S26-ICC")


def test_a_slide_alone_in_its_study_has_no_tray(page: Page, slide: Slide):
    open_slide(page, slide)

    expect(page.locator("#toggle-tray")).to_be_hidden()


def test_the_mini_map_takes_one_there(page: Page, slide: Slide):
    open_slide(page, slide, f"#x={COLUMNS / 2}&y={ROWS / 2}&z=1&r=0")
    box = page.locator("#minimap-canvas").bounding_box()
    assert box

    page.mouse.click(box["x"] + box["width"] * 0.25, box["y"] + box["height"] * 0.75)

    wait_for_link(page, f"Math.abs(x - {COLUMNS * 0.25}) < 40 && Math.abs(y - {ROWS * 0.75}) < 40")


def test_the_slides_own_colour_profile_is_applied_and_can_be_switched_off(page: Page, server: Server):
    """The profile exchanges red and green, and is too large for one JPEG segment."""
    open_slide(page, server.slides["S26-ICC"], "#x=256&y=256&z=1&r=0")
    tiles = [np.asarray(Image.open(io.BytesIO(jpeg_tile(n, 128))).convert("RGB")) for n in (5, 6, 9, 10)]
    four = np.vstack((np.hstack(tiles[:2]), np.hstack(tiles[2:])))
    stored = four[128 - 90 : 128 + 90, 128 - 90 : 128 + 90].astype(int)
    managed = shown(page)

    page.get_by_role("button", name="Colour management").click()
    expect(page.locator("#colour")).to_have_attribute("aria-pressed", "false")
    wait_for_tiles(page)

    assert np.abs(shown(page) - stored).mean() < 5
    assert np.abs(managed - stored).mean() > 20
    assert np.abs(managed[..., [1, 0, 2]] - stored).mean() < 8
