# SPDX-License-Identifier: Apache-2.0
"""Which program this is, and what it stands on."""

import platform
import sqlite3
from importlib import metadata

LIBRARIES = (
    "pydicom",
    "pynetdicom",
    "tifffile",
    "imagecodecs",
    "numpy",
    "pillow",
    "zxing-cpp",
    "flask",
    "gunicorn",
    "peewee",
    "psycopg",
)


def version_of(distribution: str) -> str:
    """Its version, "" where it is not installed."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return ""


def versions() -> dict[str, str]:
    found = {
        "coverslip": version_of("coverslip"),
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
    }
    return found | {name: version for name in LIBRARIES if (version := version_of(name))}
