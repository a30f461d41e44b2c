# SPDX-License-Identifier: Apache-2.0
"""An empty, migrated index on each database."""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from archive.index.database import Index
from tests.support import postgres

_numbers = itertools.count()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    with postgres.server() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'coverslip.db'}"
    return postgres.new_database(request.getfixturevalue("postgres_server"), f"test_{next(_numbers)}")


@pytest.fixture
def open_index(url: str, tmp_path: Path) -> Iterator[Callable[[], Index]]:
    """Opens the same database again, as another process would; closed afterwards."""
    opened: list[Index] = []

    def again() -> Index:
        opened.append(Index.open(url, run_dir=tmp_path / "run"))
        return opened[-1]

    yield again
    for index in opened:
        index.close()


@pytest.fixture
def index(open_index: Callable[[], Index]) -> Index:
    index = open_index()
    index.migrate()
    return index
