# SPDX-License-Identifier: Apache-2.0
"""What tests of several folders share in one process."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Playwright, sync_playwright


@pytest.fixture(scope="session")
def driver() -> Iterator[Playwright]:
    """What starts browsers: a process can have only one."""
    with sync_playwright() as started:
        yield started
