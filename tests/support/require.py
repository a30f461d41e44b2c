# SPDX-License-Identifier: Apache-2.0
"""What a test needs from outside: absent means skip, or fail under COVERSLIP_REQUIRE_ALL=1."""

import os
import shutil
from pathlib import Path
from typing import NoReturn

import pytest

ROOT = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("COVERSLIP_TEST_DATA", ROOT.parent / "shared" / "data"))
NODE_MODULES = Path(os.environ.get("COVERSLIP_TEST_NODE_MODULES", ROOT / ".venv" / "npm" / "node_modules"))


def absent(reason: str) -> NoReturn:
    """Skip for ``reason``; fail instead where everything is required."""
    if os.environ.get("COVERSLIP_REQUIRE_ALL") == "1":
        pytest.fail(f"required here, but {reason}")
    pytest.skip(reason)


def require_data(relative_path: str) -> Path:
    """The path of a sample below the test data folder."""
    path = DATA / relative_path
    if not path.exists():
        absent(f"sample {relative_path} is absent")
    return path


def require_tool(name: str) -> str:
    """The path of a program that a test runs."""
    found = shutil.which(name)
    if found is None:
        absent(f"program {name} is not installed")
    return found


def require_npm_package(name: str) -> Path:
    """The folder of an npm package that a test serves to a browser; CI installs it."""
    path = NODE_MODULES / name
    if not (path / "package.json").is_file():
        absent(f"npm package {name} is not installed")
    return path
