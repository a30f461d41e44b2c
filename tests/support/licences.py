# SPDX-License-Identifier: Apache-2.0
"""Fail when an installed run-time dependency has a licence outside the list.

Walks the requirements of the distribution itself (extras of users included, of
developers not) and reads each one's metadata.
"""

import re
import sys
from importlib.metadata import PackageNotFoundError, distribution

ALLOWED = re.compile(
    r"apache|bsd|mit\b|mit license|psf|python software foundation|isc|mpl|mozilla|hpnd|historical permission"
    r"|zlib|unlicense|0bsd|cc0",
    re.IGNORECASE,
)
# Used unmodified, as separate wheels; listed in NOTICE (LGPL permits that).
LISTED = {"psycopg", "psycopg-binary"}
USER_EXTRAS = {"", "granian", "postgresql"}


def licence_of(name: str) -> str:
    metadata = distribution(name).metadata
    expression = metadata.get("License-Expression") or ""
    classifiers = [c for c in metadata.get_all("Classifier", []) if c.startswith("License ::")]
    text = (metadata.get("License") or "").strip().split("\n")[0]
    stated = "; ".join(filter(None, [expression, *classifiers, text[:80]]))
    return stated or _from_file(name)


def _from_file(name: str) -> str:
    """Of a distribution whose metadata states none: MIT by the words of its licence file."""
    for file in distribution(name).files or []:
        if file.name.upper().startswith("LICENSE"):
            words = " ".join(file.read_text().split())
            if "Permission is hereby granted, free of charge, to any person" in words:
                return "MIT (licence file)"
    return ""


def requirements(name: str, extras: set[str]) -> list[str]:
    wanted = []
    for line in distribution(name).requires or []:
        match = re.match(r"([A-Za-z0-9._-]+)", line)
        marker = re.search(r"extra\s*==\s*['\"]([^'\"]+)['\"]", line)
        if match and (marker is None or marker.group(1) in extras):
            wanted.append(match.group(1))
    return wanted


def main() -> int:
    todo, seen, wrong = requirements("coverslip", USER_EXTRAS), set(), []
    while todo:
        name = re.sub(r"[-_.]+", "-", todo.pop()).lower()
        if name in seen:
            continue
        seen.add(name)
        try:
            licence = licence_of(name)
        except PackageNotFoundError:
            continue  # for another platform or Python
        if name not in LISTED and not ALLOWED.search(licence):
            wrong.append(f"{name}: {licence or 'no licence stated'}")
        todo += requirements(name, set())
    for line in wrong:
        print(f"licence outside the list: {line}", file=sys.stderr)
    print(f"{len(seen)} dependencies, {len(wrong)} with a licence outside the list")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
