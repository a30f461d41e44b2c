# SPDX-License-Identifier: Apache-2.0
"""Absolute URLs, client addresses, and who is believed about them."""

import pytest

from dicomweb.context import check_host, check_origin
from dicomweb.errors import Forbidden
from dicomweb.settings import WebSettings
from dicomweb.urls import base_url, remote_address

SOCKET = {
    "wsgi.url_scheme": "http",
    "SERVER_NAME": "127.0.0.1",
    "SERVER_PORT": "8080",
    "REMOTE_ADDR": "127.0.0.1",
    "SCRIPT_NAME": "",
}
FORWARDED = {
    "HTTP_X_FORWARDED_PROTO": "https",
    "HTTP_X_FORWARDED_HOST": "pacs.example",
    "HTTP_X_FORWARDED_FOR": "203.0.113.9, 198.51.100.7",
}


@pytest.mark.parametrize(
    ("environ", "settings", "expected"),
    [
        # dicomweb-client sends Host without the port
        ({"HTTP_HOST": "localhost"}, {}, "http://localhost:8080"),
        ({"HTTP_HOST": "127.0.0.1:9999"}, {}, "http://127.0.0.1:8080"),
        ({"HTTP_HOST": "evil.example"}, {}, "http://127.0.0.1:8080"),
        ({}, {}, "http://127.0.0.1:8080"),
        ({"HTTP_HOST": "[::1]:8080"}, {}, "http://[::1]:8080"),
        ({"SERVER_NAME": "0.0.0.0"}, {}, "http://localhost:8080"),
        ({"SERVER_PORT": "443", "wsgi.url_scheme": "https"}, {}, "https://127.0.0.1"),
        ({"HTTP_HOST": "localhost", "SCRIPT_NAME": "/slides"}, {}, "http://localhost:8080/slides"),
        ({"HTTP_HOST": "localhost"}, {"public_url": "https://a.example/x/"}, "https://a.example/x"),
        # forwarded by a stranger, then by our own proxy
        ({"HTTP_HOST": "localhost", **FORWARDED}, {}, "http://localhost:8080"),
        (
            FORWARDED,
            {"behind_proxy": ("127.0.0.0/8",), "trusted_hosts": ("pacs.example",)},
            "https://pacs.example",
        ),
        (
            {**FORWARDED, "HTTP_X_FORWARDED_PREFIX": "/cs", "HTTP_X_FORWARDED_PORT": "8443"},
            {"behind_proxy": ("127.0.0.1/32",), "trusted_hosts": ("pacs.example",)},
            "https://pacs.example:8443/cs",
        ),
        (FORWARDED, {"behind_proxy": ("10.0.0.0/8",)}, "http://127.0.0.1:8080"),
    ],
)
def test_urls_point_to_where_the_client_stands(environ, settings, expected):
    assert base_url({**SOCKET, **environ}, WebSettings(**settings)) == expected


def test_a_proxy_is_believed_about_addresses_only_when_it_is_ours():
    assert remote_address({**SOCKET, **FORWARDED}, WebSettings()) == "127.0.0.1"
    ours = WebSettings(behind_proxy=("127.0.0.1/32", "198.51.100.0/24"))
    assert remote_address({**SOCKET, **FORWARDED}, ours) == "203.0.113.9"
    mapped = {**SOCKET, **FORWARDED, "REMOTE_ADDR": "::ffff:127.0.0.1"}
    assert remote_address(mapped, ours) == "203.0.113.9"


@pytest.mark.parametrize(
    "host", ["evil.example", "", "localhost.evil.example", "127.0.0.1.nip.io", "0.0.0.0"]
)
def test_a_foreign_host_is_refused(host):
    with pytest.raises(Forbidden):
        check_host({**SOCKET, "HTTP_HOST": host}, WebSettings())


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:8080", "127.0.0.1:1", "[::1]", "[::1]:8080", "a.example"]
)
def test_our_own_names_are_accepted(host):
    check_host({**SOCKET, "HTTP_HOST": host}, WebSettings(public_url="https://a.example"))


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        ("", True),
        ("http://localhost:8080", True),
        ("http://localhost:3000", False),
        ("https://localhost:8080", False),
        ("null", False),
        ("http://evil.example", False),
        ("https://public.example", True),
        ("https://viewer.example", True),
    ],
)
def test_state_changes_need_our_own_origin(origin, allowed):
    settings = WebSettings(public_url="https://public.example", cors_origins=("https://viewer.example",))
    environ = {**SOCKET, "HTTP_HOST": "localhost:8080", "HTTP_ORIGIN": origin, "REQUEST_METHOD": "POST"}
    if allowed:
        check_origin(environ, settings)
    else:
        with pytest.raises(Forbidden):
            check_origin(environ, settings)
    check_origin({**environ, "REQUEST_METHOD": "GET"}, settings)


@pytest.mark.parametrize("settings", [{"public_url": "pacs.example"}, {"behind_proxy": ("10.0.0.1/8",)}])
def test_settings_that_mean_nothing_are_refused(settings):
    with pytest.raises(ValueError):
        WebSettings(**settings)
