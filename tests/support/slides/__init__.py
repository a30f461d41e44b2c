# SPDX-License-Identifier: Apache-2.0
"""Slides of every vendor, drawn and written for tests: no sample data needed."""

from collections.abc import Callable
from pathlib import Path

BASES: dict[str, Callable[[Path], Path]] = {}
"""What the damage corpus starts from: a name, and what writes that slide into a folder."""
