# SPDX-License-Identifier: Apache-2.0
"""The pages as files: whole, self-contained, and served under a strict policy."""

import gzip
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urljoin

import pytest
from flask import Flask
from flask.testing import FlaskClient

from dicomweb.viewer import CONTENT_SECURITY_POLICY, STATIC, viewer

PAGES = {"/": STATIC / "index.html", "/viewer/": STATIC / "viewer.html"}
SCRIPTS = sorted((STATIC / "js").glob("*.js"))
STYLES = sorted((STATIC / "css").glob("*.css"))
IMPORT = re.compile(
    r"""^\s*(?:import|export)\s[^"';]*?from\s+"([^"]+)";|^\s*\}\s*from\s+"([^"]+)";""", re.MULTILINE
)


class Markup(HTMLParser):
    """What a page refers to and what it must not contain."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.references: list[str] = []
        self.ids: list[str] = []
        self.faults: list[str] = []
        self._in_script = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self._in_script = tag == "script"
        if tag == "style" or "style" in given:
            self.faults.append(f"inline style in <{tag}>")
        if tag == "script" and not given.get("src"):
            self.faults.append("inline script")
        self.faults += [f"handler {name} in <{tag}>" for name in given if name.startswith("on")]
        if tag in ("script", "img", "link"):
            self.references.append(given.get("src") or given.get("href") or "")
        if given.get("id"):
            self.ids.append(str(given["id"]))

    def handle_data(self, data: str) -> None:
        if self._in_script and data.strip():
            self.faults.append("inline script")


@pytest.fixture
def client() -> FlaskClient:
    app = Flask("pages", static_folder=None)
    app.register_blueprint(viewer)
    return app.test_client()


@pytest.mark.parametrize("address", PAGES)
def test_a_page_has_no_inline_script_or_style(address: str):
    assert Markup(PAGES[address].read_text()).faults == []


@pytest.mark.parametrize("address", [*PAGES, "/static/js/list.js", "/static/vendor/ol/ol.css"])
def test_everything_is_served_under_the_strict_policy(client: FlaskClient, address: str):
    response = client.get(address)

    assert response.status_code == 200
    assert response.headers["Content-Security-Policy"] == CONTENT_SECURITY_POLICY
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["Cache-Control"] == "no-cache"


def test_the_policy_allows_no_foreign_and_no_inline_code():
    policy = dict(rule.split(" ", 1) for rule in CONTENT_SECURITY_POLICY.split("; "))

    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert "unsafe" not in CONTENT_SECURITY_POLICY


@pytest.mark.parametrize("address", PAGES)
def test_every_file_that_a_page_refers_to_is_served(client: FlaskClient, address: str):
    references = Markup(PAGES[address].read_text()).references
    assert len(references) >= 4

    for reference in references:
        assert client.get(urljoin(address, reference)).status_code == 200, reference


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_every_module_that_a_script_imports_is_there(script: Path):
    imported = [first or second for first, second in IMPORT.findall(script.read_text())]

    for name in imported:
        assert name.startswith("./"), name
        assert (script.parent / name).is_file(), name


@pytest.mark.parametrize(("address", "entry"), [("/", "list.js"), ("/viewer/", "viewer.js")])
def test_every_element_that_a_script_looks_up_is_in_its_page(address: str, entry: str):
    ids = Markup(PAGES[address].read_text()).ids
    reached, waiting = set[Path](), [STATIC / "js" / entry]
    while waiting:
        script = waiting.pop()
        if script not in reached:
            reached.add(script)
            waiting += [script.parent / (a or b) for a, b in IMPORT.findall(script.read_text())]
    wanted = {name for path in reached for name in re.findall(r'\$\("#([\w-]+)"\)', path.read_text())}

    assert wanted
    assert wanted <= set(ids)
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("path", [*SCRIPTS, *STYLES, *PAGES.values()], ids=lambda path: path.name)
def test_nothing_is_fetched_from_elsewhere(path: Path):
    addresses = set(re.findall(r"(?:https?:)?//[\w-]+\.[\w./-]+", path.read_text()))

    assert addresses <= {"http://www.w3.org/2000/svg"}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_type_checked_and_never_write_markup(script: Path):
    text = script.read_text()

    assert text.startswith("// SPDX-License-Identifier: Apache-2.0\n// @ts-check\n")
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text
    )


def test_an_unchanged_file_is_not_sent_again(client: FlaskClient):
    first = client.get("/static/js/viewer.js")
    again = client.get("/static/js/viewer.js", headers={"If-None-Match": first.headers["ETag"]})

    assert again.status_code == 304
    assert again.data == b""


def test_a_large_script_comes_compressed_under_its_own_tag(client: FlaskClient):
    plain = client.get("/static/vendor/ol/ol.js")
    zipped = client.get("/static/vendor/ol/ol.js", headers={"Accept-Encoding": "gzip"})

    assert zipped.headers["Content-Encoding"] == "gzip"
    assert zipped.headers["Vary"] == "Accept-Encoding"
    assert zipped.headers["ETag"] != plain.headers["ETag"]
    assert len(zipped.data) < len(plain.data) / 3
    assert gzip.decompress(zipped.data) == plain.data


@pytest.mark.parametrize(
    "name",
    ["../viewer.py", "js/../../viewer.py", "%2e%2e/viewer.py", "js", "", ".hidden", "js/none.js", "a%00.js"],
)
def test_no_path_leads_out_of_the_static_files(client: FlaskClient, name: str):
    assert client.get(f"/static/{name}").status_code == 404


def test_the_viewer_address_without_slash_keeps_its_query(client: FlaskClient):
    response = client.get("/viewer?study=1.2&series=3.4")

    assert response.status_code == 308
    assert response.headers["Location"] == "/viewer/?study=1.2&series=3.4"


def test_the_pages_do_not_load_the_archive():
    code = "import sys, dicomweb.viewer; print([n for n in sys.modules if n.split('.')[0] == 'archive'])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert result.stdout.strip() == "[]"
