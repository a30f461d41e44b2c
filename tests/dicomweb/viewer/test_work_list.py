# SPDX-License-Identifier: Apache-2.0
"""The work list in a browser: what a person sees and does."""

import json
import re
from pathlib import Path

import pytest
from playwright.sync_api import Page, Route, expect

from tests.dicomweb.viewer.driving import (
    PATIENCE_MS,
    Server,
    Slide,
)
from tests.support.make_slide import make_svs

pytestmark = pytest.mark.xdist_group("viewer")


def test_the_list_shows_a_slide_with_a_decoded_thumbnail(page: Page, server: Server):
    page.goto("")
    row = page.locator("#rows tr", has_text="S26-0001-A")

    expect(row).to_contain_text("Unmatched")
    expect(row).to_contain_text("4,200 × 3,000 px")
    expect(row).to_contain_text("Aperio SVS")
    image = row.locator("img.shown")
    expect(image).to_be_visible()
    assert image.evaluate("image => image.naturalWidth") >= 100
    spread = image.evaluate(
        """image => {
            const canvas = document.createElement('canvas');
            [canvas.width, canvas.height] = [32, 32];
            const context = canvas.getContext('2d');
            context.drawImage(image, 0, 0, 32, 32);
            const reds = [...context.getImageData(0, 0, 32, 32).data].filter((_, index) => index % 4 === 0);
            return Math.max(...reds) - Math.min(...reds);
        }"""
    )
    assert spread > 60


def test_a_new_slide_appears_by_itself_and_the_drop_hint_names_the_folder(
    page: Page, server: Server, tmp_path: Path
):
    page.goto("")
    expect(page.locator("#drop")).to_contain_text(str(server.data / "watch"))
    expect(page.locator("#rows tr", has_text="S26-0001-A")).to_be_visible()

    server.drop(make_svs(tmp_path / "third.svs", barcode="S26-0003-A", seed=5))

    arrived = page.locator("#rows tr.fresh", has_text="S26-0003-A")
    expect(arrived).to_be_visible(timeout=PATIENCE_MS)
    expect(page.locator("#rows tr").first).to_contain_text("S26-0003-A")


def test_what_cannot_be_taken_in_is_shown_with_its_reason(page: Page, server: Server, tmp_path: Path):
    page.goto("")
    broken = tmp_path / "broken.svs"
    broken.write_bytes(b"this is no slide" * 100)

    server.drop(broken)

    entry = page.locator("#quarantine li", has_text="broken.svs")
    expect(entry).to_be_visible(timeout=PATIENCE_MS)
    expect(entry).to_contain_text("no reader knows this file")


def test_searching_narrows_the_list_on_the_server(page: Page, server: Server):
    page.goto("")
    expect(page.locator("#rows tr", has_text="S26-0002-A")).to_be_visible()

    page.keyboard.press("/")
    with page.expect_response(lambda response: "search=S26-0001" in response.url):
        page.keyboard.type("S26-0001")

    expect(page.locator("#rows tr")).to_have_count(1)
    expect(page.locator("#rows tr")).to_contain_text("S26-0001-A")

    page.keyboard.type("-none-such")
    expect(page.locator("#empty-title")).to_have_text("No slide matches")

    page.keyboard.press("Escape")
    expect(page.locator("#rows tr", has_text="S26-0002-A")).to_be_visible()


def test_the_list_works_by_keyboard_alone(page: Page, server: Server, slide: Slide):
    page.goto("?search=S26-0001")
    expect(page.locator("#rows tr")).to_have_count(1)

    page.keyboard.press("/")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")

    page.wait_for_url(f"**/{slide.address}*")
    expect(page.locator("#stage")).to_have_attribute("data-state", "ready")


def test_a_lost_server_is_said_and_the_list_stays(page: Page, server: Server):
    page.goto("")
    expect(page.locator("#rows tr", has_text="S26-0001-A")).to_be_visible()
    page.route("**/api/**", lambda route: route.abort())

    expect(page.locator("#banners")).to_contain_text("connection to the server is lost")
    expect(page.locator("#rows tr", has_text="S26-0001-A")).to_be_visible()

    page.unroute("**/api/**")
    expect(page.locator("#banners .banner")).to_have_count(0)


def test_a_list_that_fails_says_why_and_can_be_tried_again(page: Page, server: Server):
    page.route(
        "**/api/slides*",
        lambda route: route.fulfill(status=503, json={"error": {"message": "the index is busy"}}),
    )
    page.goto("")

    expect(page.get_by_role("alert")).to_contain_text("HTTP 503: the index is busy")

    page.unroute("**/api/slides*")
    page.get_by_role("button", name="Try again").click()
    expect(page.locator("#rows tr", has_text="S26-0001-A")).to_be_visible()


def test_a_long_list_goes_on_while_scrolling(page: Page, server: Server):
    summaries = [
        json.loads(server.get("api/slides?limit=1"))["slides"][0] | {"series_instance_uid": f"2.25.{number}"}
        for number in range(1, 76)
    ]

    def answer(route: Route) -> None:
        after = re.search(r"after=(\d+)", route.request.url)
        start = int(after[1]) if after else 0
        rest = summaries[start : start + 50]
        route.fulfill(json={"slides": rest, "next": str(start + 50) if start + 50 < len(summaries) else None})

    page.route("**/api/slides*", answer)
    page.goto("")
    expect(page.locator("#count")).to_contain_text("50+")

    page.mouse.wheel(0, 20_000)

    expect(page.locator("#rows tr")).to_have_count(75)
    expect(page.locator("#count")).to_have_text("75 in the archive")


def test_the_way_back_keeps_the_search(page: Page, server: Server, slide: Slide):
    page.goto("?search=S26-0001")
    page.get_by_role("link", name="Open slide S26-0001-A").click()
    expect(page.locator("#stage")).to_have_attribute("data-state", "ready")

    page.get_by_role("link", name="Back to the list of slides").click()

    expect(page.locator("#search")).to_have_value("S26-0001")
    expect(page.locator("#rows tr")).to_have_count(1)
