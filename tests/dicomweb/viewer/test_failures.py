# SPDX-License-Identifier: Apache-2.0
"""When things go wrong: said where people look, never a blank page."""

import numpy as np
import pytest
from playwright.sync_api import Page, Request, Route, expect

from tests.dicomweb.viewer.driving import (
    Server,
    Slide,
    open_slide,
    shown,
    wait_for_tiles,
)

pytestmark = pytest.mark.xdist_group("viewer")


def test_a_slide_that_is_not_here_is_said_with_a_way_back(page: Page, server: Server):
    page.goto("viewer/?study=1.2.3&series=4.5.6")

    expect(page.get_by_role("alert")).to_contain_text("This slide is not here")
    expect(page.get_by_role("alert")).to_contain_text("HTTP 404")
    page.get_by_role("link", name="Back to the list", exact=True).click()
    expect(page.locator("#rows tr", has_text="S26-0001-A")).to_be_visible()


def test_an_address_without_a_slide_is_explained(page: Page, server: Server):
    page.goto("viewer/?study=<b>&series=")

    expect(page.get_by_role("alert")).to_contain_text("The address names no slide")


def test_failed_tiles_are_counted_marked_and_can_be_tried_again(page: Page, server: Server, slide: Slide):
    finest = server.level_zero(slide)
    pattern = f"**/instances/{finest}/frames/*"
    page.route(
        pattern, lambda route: route.fulfill(status=500, json={"error": {"message": "storage failed"}})
    )
    page.goto(f"{slide.address}#x=2000&y=1500&z=1&r=0")

    banner = page.locator("#banners .banner", has_text="tiles could not be loaded")
    expect(banner).to_contain_text("HTTP 500: storage failed")
    assert int(page.locator("#stage").get_attribute("data-tiles-failed") or 0) >= 6

    page.unroute(pattern)
    banner.get_by_role("button", name="Try again").click()
    expect(banner).to_have_count(0)
    expect(page.locator("#stage")).to_have_attribute("data-tiles-failed", "0")
    wait_for_tiles(page)
    part = server.pixels[1500 - 90 : 1500 + 90, 2000 - 90 : 2000 + 90].astype(int)
    assert np.abs(shown(page) - part).mean() < 5


def test_a_missing_colour_profile_is_said_and_the_slide_is_shown(page: Page, server: Server):
    page.route("**/bulkdata/**", lambda route: route.fulfill(status=500, json={}))
    open_slide(page, server.slides["S26-ICC"])

    expect(page.locator("#banners")).to_contain_text("HTTP 500): colours are shown as stored")
    assert shown(page).std() > 10

    page.unroute("**/bulkdata/**")
    page.locator("#banners").get_by_role("button", name="Try again").click()
    expect(page.locator("#banners .banner")).to_have_count(0)


def test_a_damaged_colour_profile_is_said(page: Page, server: Server):
    open_slide(page, server.slides["S26-0002-A"])

    expect(page.locator("#banners")).to_contain_text("the stored ICC profile is damaged")


def test_tiles_panned_away_are_aborted_and_come_when_wanted_again(page: Page, server: Server, slide: Slide):
    open_slide(page, slide)
    finest = server.level_zero(slide)
    held: list[Route] = []
    pattern = f"**/instances/{finest}/frames/*"
    aborted: list[Request] = []
    page.on("requestfailed", lambda request: aborted.append(request))
    page.route(pattern, lambda route: held.append(route))

    page.evaluate("location.hash = '#x=700&y=700&z=1&r=0'")
    page.wait_for_function("() => Number(document.querySelector('#stage').dataset.tilesLoading) >= 6")
    with page.expect_event("requestfailed", lambda request: f"/{finest}/frames/" in request.url):
        page.evaluate("location.hash = '#x=3500&y=2300&z=1&r=0'")
    page.wait_for_function("() => Number(document.querySelector('#stage').dataset.tilesAborted) >= 6")
    assert {request.failure for request in aborted} == {"net::ERR_ABORTED"}
    expect(page.locator("#banners .banner")).to_have_count(0)

    page.unroute(pattern)
    # The page writes its own place into the address once it has come to rest.
    page.wait_for_function("() => location.hash.includes('x=3500')")
    wait_for_tiles(page)
    with page.expect_response(lambda response: f"/{finest}/frames/" in response.url and response.ok):
        page.evaluate("location.hash = '#x=700&y=700&z=1&r=0'")
    wait_for_tiles(page)
    part = server.pixels[700 - 90 : 700 + 90, 700 - 90 : 700 + 90].astype(int)
    assert np.abs(shown(page) - part).mean() < 5


@pytest.mark.parametrize("size", [(1280, 800), (1024, 768), (820, 1180)])
def test_nothing_runs_over_the_edge_of_the_screen(page: Page, slide: Slide, size: tuple[int, int]):
    page.set_viewport_size({"width": size[0], "height": size[1]})
    for address in ("", slide.address):
        page.goto(address)
        page.wait_for_load_state("networkidle" if address else "load")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
