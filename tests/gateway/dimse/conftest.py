# SPDX-License-Identifier: Apache-2.0
"""A real archive for each test of this folder."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from archive.service import Archive
from tests.support.archives import open_archive


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    archive = open_archive(tmp_path / "data")
    yield archive
    archive.close()
