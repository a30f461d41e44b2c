# SPDX-License-Identifier: Apache-2.0
"""Vendored code is the code that was published: the README's digests hold."""

import hashlib
import re

from dicomweb.viewer import STATIC

OPENLAYERS = STATIC / "vendor" / "ol"
ROW = re.compile(r"^\| `(?P<name>[\w.]+)` \| `[\w./]+` \| `(?P<digest>[0-9a-f]{64})` \|$", re.MULTILINE)


def test_every_vendored_file_has_the_digest_that_the_readme_states():
    stated = {row["name"]: row["digest"] for row in ROW.finditer((OPENLAYERS / "README.md").read_text())}
    found = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in OPENLAYERS.iterdir()
        if path.name != "README.md"
    }

    assert found == stated
    assert "ol.js" in found


def test_the_readme_names_version_and_licence():
    readme = (OPENLAYERS / "README.md").read_text()

    assert re.search(r"\| version \| \d+\.\d+\.\d+ \|", readme)
    assert "BSD-2-Clause" in readme
    assert "Redistribution and use in source and binary forms" in (OPENLAYERS / "LICENSE.md").read_text()
