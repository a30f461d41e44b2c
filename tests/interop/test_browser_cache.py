# SPDX-License-Identifier: Apache-2.0
"""A browser's cache between a page and the server: one URL, several Accept headers.

Chromium keeps answers by what ``Vary`` and ``Cache-Control`` allow, and asks again with the
ETag it has. Whatever it gives a page must be what the server gives for that Accept header.
"""

import itertools
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, Playwright

from tests.interop.conftest import Ingested
from tests.interop.test_pixels import uid
from tests.support.require import require_tool
from tests.support.server import Server

JPEG = "1.2.840.10008.1.2.4.50"
FRAMES = (
    'multipart/related; type="application/octet-stream"; transfer-syntax=*',
    f'multipart/related; type="image/jpeg"; transfer-syntax={JPEG}',
    "multipart/related; type=application/octet-stream; transfer-syntax=1.2.840.10008.1.2.1",
    f"image/jpeg; transfer-syntax={JPEG}",
    "application/octet-stream",
    "image/gif",  # none: 406, and nothing of the others
)
DATA_SETS = ("application/dicom+json", 'multipart/related; type="application/dicom+xml"')
PICTURES = ("image/jpeg", "image/png", "image/gif", "application/dicom+json")
INSTANCE = (
    "application/dicom; transfer-syntax=*",
    "application/dicom; transfer-syntax=1.2.840.10008.1.2.1",
    'multipart/related; type="application/dicom"; transfer-syntax=*',
)
RESOURCES = {
    "/frames/1": FRAMES,
    "/frames/1,2": FRAMES,
    "/frames/1/rendered": PICTURES,
    "/metadata": DATA_SETS,
    "/rendered": PICTURES,
    "/thumbnail": PICTURES,
    "": INSTANCE,
}
ASK = """async ([url, accept, cache]) => {
    const answer = await fetch(url, {headers: {Accept: accept}, cache});
    const boundary = /boundary="?([^";]+)/.exec(answer.headers.get("Content-Type") || "");
    const body = new Uint8Array(await answer.arrayBuffer());
    let text = "";
    for (let i = 0; i < body.length; i += 4096) text += String.fromCharCode(...body.subarray(i, i + 4096));
    let type = answer.headers.get("Content-Type");
    if (boundary) {  // of some answers it is drawn by lot
        text = text.replaceAll(boundary[1], "");
        type = type.replace(boundary[1], "");
    }
    if (answer.status >= 400) text = "";  // names the request
    const digest = await crypto.subtle.digest("SHA-256", Uint8Array.from(text, c => c.charCodeAt(0)));
    return [answer.status, type, Array.from(new Uint8Array(digest)).join(" ")];
}"""
FROM_CACHE = """url => performance.getEntriesByType("resource")
    .filter(e => e.name === url && e.transferSize === 0 && e.decodedBodySize > 0).length"""


@pytest.fixture(scope="module")
def browser(driver: Playwright) -> Iterator[Browser]:
    found = driver.chromium.launch(
        executable_path=require_tool("chromium"), args=["--headless", "--no-sandbox"]
    )
    yield found
    found.close()


@pytest.fixture
def page(server: Server, browser: Browser) -> Iterator[Page]:
    """An empty page of the server's own origin, with a cache of its own."""
    opened = browser.new_page()
    opened.goto(f"{server.url}/healthz")
    yield opened
    opened.close()


@pytest.mark.parametrize("resource", RESOURCES)
def test_a_cached_answer_is_never_that_of_another_accept_header(
    page: Page, server: Server, ingested: dict[str, Ingested], resource: str
) -> None:
    slide = ingested["ycbcr"]
    instance = uid(slide.volumes()[-1 if resource in ("/rendered", "/thumbnail") else 0])
    url = f"{server.url}/dicom-web/studies/{slide.study}/series/{slide.series}/instances/{instance}{resource}"
    accepts = RESOURCES[resource]
    right = {accept: page.evaluate(ASK, [url, accept, "no-store"]) for accept in accepts}
    assert {status for status, _, _ in right.values()} <= {200, 406}
    assert sum(status == 200 for status, _, _ in right.values()) >= 2
    bodies = [(kind, digest) for status, kind, digest in right.values() if status == 200]
    assert len(set(bodies)) == len(bodies), "two Accept headers with the same answer prove nothing"
    for first, second in itertools.permutations(accepts, 2):
        for accept in (first, first, second, first):
            assert page.evaluate(ASK, [url, accept, "default"]) == right[accept], (first, second)
    if resource.startswith("/frames/") and not resource.endswith("rendered"):
        assert page.evaluate(FROM_CACHE, url) > 0, "immutable frames never came from the cache"
