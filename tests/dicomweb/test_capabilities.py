# SPDX-License-Identifier: Apache-2.0
"""Capabilities say what the route table has, and the route table what they say."""

import re
from xml.etree import ElementTree

import pytest
from werkzeug.exceptions import MethodNotAllowed, NotFound

from dicomweb.app import create_app
from dicomweb.settings import WebSettings
from tests.dicomweb.conftest import LEVEL, WEB

WADL = "application/vnd.sun.wadl+xml"
NS = "{http://wadl.dev.java.net/2009/02}"
VALUES = {"numbers": "1", "path": "00420011"}


def stated(response):
    """(path, method) of a description, either form."""
    if response.headers["Content-Type"] == WADL:
        root = ElementTree.fromstring(response.get_data())
        assert len({m.get("id") for m in root.iter(f"{NS}method")}) == len(list(root.iter(f"{NS}method")))
        return {
            (resource.get("path"), method.get("name"))
            for resource in root.iter(f"{NS}resource")
            for method in resource.iter(f"{NS}method")
        }
    listed = response.get_json(force=True)["application"]["resources"]["resource"]
    return {(resource["path"], method["name"]) for resource in listed for method in resource["methods"]}


def routed(app):
    return {
        (re.sub(r"<(?:[^:<>]+:)?([^<>]+)>", r"{\1}", rule.rule).removeprefix(f"{WEB}/"), method)
        for rule in app.url_map.iter_rules()
        if rule.rule.startswith(f"{WEB}/")
        for method in rule.methods - {"HEAD", "OPTIONS"}
    }


@pytest.mark.parametrize("accept", [WADL, "application/json", "*/*", None])
@pytest.mark.parametrize("path", [f"{WEB}/", WEB])
def test_the_description_has_every_route_and_no_other(app, client, accept, path):
    headers = {"Accept": accept} if accept else {}
    response = client.options(path, headers=headers)
    assert response.status_code == 200
    assert response.headers["Content-Type"] == (accept if accept and accept != "*/*" else WADL)
    assert stated(response) == routed(app)


def test_every_described_method_is_answered_by_the_route_table(app, client):
    adapter = app.url_map.bind("localhost")
    described = stated(client.options(f"{WEB}/", headers={"Accept": "application/json"}))
    assert len(described) > 30
    for path, method in described:
        filled = re.sub(r"{([^}]+)}", lambda m: VALUES.get(m[1], "1.2.3"), path)
        try:
            adapter.match(f"{WEB}/{filled}", method=method)
        except (NotFound, MethodNotAllowed) as error:
            raise AssertionError(f"{method} {path}") from error


def test_a_resource_describes_itself_and_what_is_below(app, client):
    response = client.options(f"{WEB}/studies/1.2.3/series/1.2", headers={"Accept": "application/json"})
    found = stated(response)
    below = "studies/{study}/series/{series}"
    assert found == {(p, m) for p, m in routed(app) if p == below or p.startswith(f"{below}/")}
    assert set(response.headers["Allow"].split(", ")) == {
        method for path, method in found if path == below
    } | {"HEAD", "OPTIONS"}


def test_base_is_where_the_client_reached_us(client):
    response = client.options(f"{WEB}/", headers={"Accept": WADL})
    root = ElementTree.fromstring(response.get_data())
    assert root.find(f"{NS}resources").get("base") == f"http://localhost{WEB}/"


def test_every_retrieve_search_and_store_names_its_media_types(client):
    listed = client.options(f"{WEB}/", headers={"Accept": "application/json"}).get_json(force=True)
    for resource in listed["application"]["resources"]["resource"]:
        for method in resource["methods"]:
            if method["name"] == "GET":
                assert method["response"]["mediaTypes"], resource["path"]
            if method["name"] == "POST":
                assert method["request"]["mediaTypes"], resource["path"]


def test_another_media_type_is_406(client):
    assert client.options(f"{WEB}/", headers={"Accept": "image/png"}).status_code == 406


def test_a_path_that_is_none_is_404(client):
    assert client.options(f"{WEB}/nothing", headers={"Accept": WADL}).status_code == 404


def test_capabilities_are_for_those_who_are_known(archive):
    client = create_app(archive, WebSettings(), authenticate=lambda environ: None).test_client()
    assert client.options(f"{WEB}/").status_code == 401
    assert client.options(LEVEL).status_code == 401


PREFLIGHT = {"Origin": "https://viewer.example", "Access-Control-Request-Method": "DELETE"}


@pytest.mark.parametrize("path", [f"{WEB}/", f"{WEB}/studies", LEVEL])
def test_a_preflight_is_no_request_for_capabilities(archive, path):
    settings = WebSettings(cors_origins=("https://viewer.example",))
    client = create_app(archive, settings, authenticate=lambda environ: None).test_client()
    response = client.options(path, headers=PREFLIGHT)
    assert (response.status_code, response.get_data()) == (204, b"")
    assert response.headers["Access-Control-Allow-Origin"] == "https://viewer.example"
    assert response.headers["Access-Control-Allow-Credentials"] == "true"
    assert "DELETE" in response.headers["Access-Control-Allow-Methods"]
    assert {"authorization", "accept", "content-type", "range", "if-none-match"} <= set(
        response.headers["Access-Control-Allow-Headers"].split(", ")
    )
    assert "Origin" in response.headers["Vary"]
    stranger = client.options(path, headers={**PREFLIGHT, "Origin": "https://evil.example"})
    assert stranger.status_code == 204
    assert not [name for name, _ in stranger.headers if name.startswith("Access-Control")]


def test_credentials_never_come_with_a_star_and_answers_vary_by_origin(archive):
    settings = WebSettings(cors_origins=("https://viewer.example",))
    client = create_app(archive, settings).test_client()
    for headers in ({}, {"Origin": "https://viewer.example"}, {"Origin": "https://evil.example"}):
        for response in (
            client.get(f"{WEB}/studies", headers={"Accept": "*/*", **headers}),
            client.get(f"{WEB}/studies/1.2", headers={"Accept": "*/*", **headers}),
            client.options(f"{WEB}/", headers=headers),
        ):
            assert response.headers.get("Access-Control-Allow-Origin") != "*"
            assert "Origin" in response.headers["Vary"]
            named = response.headers.get("Access-Control-Allow-Origin") == "https://viewer.example"
            assert named == (headers.get("Origin") == "https://viewer.example")
            if named:
                assert {"ETag", "Warning", "Location", "Retry-After", "Content-Location",
                        "Content-Range"} <= set(
                    response.headers["Access-Control-Expose-Headers"].split(", ")
                )  # fmt: skip
