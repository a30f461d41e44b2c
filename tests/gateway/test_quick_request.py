# SPDX-License-Identifier: Apache-2.0
"""Heads that the loop reads itself: exactly as gunicorn reads them, or not at all."""

import http.client
import io
from typing import Any

import pytest
from gunicorn.config import Config
from gunicorn.http.message import Request
from gunicorn.http.unreader import IterUnreader
from hypothesis import given
from hypothesis import strategies as st

from gateway.quick_request import encoded, environ_of
from tests.gateway.test_web_worker import Address, ask, toy

CLIENT, SERVER = ("10.0.0.1", 5000), ("127.0.0.1", 8080)
HEAD = b"GET /a/1.2,3 HTTP/1.1\r\nHost: x:80\r\nAccept: a/b; c=*\r\n\r\n"


def test_a_plain_get_becomes_an_environ() -> None:
    found = environ_of(HEAD, CLIENT, SERVER)
    assert found == {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/a/1.2,3",
        "QUERY_STRING": "",
        "REMOTE_ADDR": "10.0.0.1",
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "8080",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "wsgi.url_scheme": "http",
        "HTTP_HOST": "x:80",
        "HTTP_ACCEPT": "a/b; c=*",
    }


@pytest.mark.parametrize(
    "head",
    [
        HEAD.replace(b"GET", b"HEAD"),
        HEAD.replace(b"1.1\r\n", b"1.0\r\n", 1),
        HEAD.replace(b"/a/", b"/%61/"),
        HEAD.replace(b"/a/", b"/a?b=/"),
        HEAD.replace(b"/a/", b"http://x/a/"),
        HEAD.replace(b"Host: x:80\r\n", b""),
        HEAD.replace(b"Accept", b"Host"),
        HEAD.replace(b"Accept", b"X_Forwarded_For"),
        HEAD.replace(b"Accept:", b"Accept :"),
        HEAD.replace(b"\r\nAccept", b"\r\n Accept"),
        HEAD.replace(b"a/b", b"a\x00b"),
        HEAD.replace(b"a/b", b"a\nb"),
        HEAD.replace(b"a/b", b"\xff"),
        HEAD.replace(b"Accept: a/b; c=*", b"Content-Length: 0"),
        HEAD.replace(b"Accept: a/b; c=*", b"Transfer-Encoding: chunked"),
        HEAD.replace(b"Accept: a/b; c=*", b"Connection: close"),
        HEAD.replace(b"Accept: a/b; c=*", b"Expect: 100-continue"),
        HEAD.replace(b"Accept: a/b; c=*", b"Upgrade: h2c"),
        HEAD.replace(b"a/b", b"a" * 5000),
        b"\r\n" + HEAD,
        b"GET / HTTP/1.1\r\n\r\n",
    ],
)
def test_what_could_be_misread_or_asks_for_more_is_left_to_gunicorn(head: bytes) -> None:
    assert environ_of(head, CLIENT, SERVER) is None


names = st.sampled_from(["Accept", "Host", "X-A", "User-Agent", "Connection", "X_B", "Te"])
values = st.text(st.characters(codec="latin-1"), max_size=12).map(lambda text: text.encode("latin-1"))
lines = st.lists(st.tuples(names, st.sampled_from([b":", b": ", b" :", b""]), values), max_size=4)


@given(lines, st.sampled_from([b"/", b"/a", b"/a b", b"/..", b"//x", b"*"]))
def test_what_the_loop_takes_gunicorn_reads_alike(parts: Any, path: bytes) -> None:
    block = b"".join(name.encode() + colon + value + b"\r\n" for name, colon, value in parts)
    head = b"GET " + path + b" HTTP/1.1\r\nHost: x\r\n" + block + b"\r\n"
    found = environ_of(head, CLIENT, SERVER)
    if found is None:
        return
    request = Request(Config(), IterUnreader(iter([head])), CLIENT)
    assert request.method == "GET"
    assert request.path == found["PATH_INFO"]
    assert request.query == ""
    assert {f"HTTP_{name.replace('-', '_')}": value for name, value in request.headers} == {
        name: value for name, value in found.items() if name.startswith("HTTP_")
    }


def test_an_answer_is_what_a_client_reads() -> None:
    wire = encoded(("200 OK", [("Content-Length", "3"), ("X-A", "b")], b"abc"))

    class Wire(io.BytesIO):
        def makefile(self, mode: str) -> "Wire":
            return self

    answer = http.client.HTTPResponse(Wire(wire))  # type: ignore[arg-type]
    answer.begin()
    assert (answer.status, answer.headers["X-A"], answer.read()) == (200, "b", b"abc")
    assert answer.headers["Date"].endswith("GMT")


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with toy(tmp_path_factory.mktemp("toy"), http__transfer_timeout_s=2) as (found, _):
        yield found


def test_the_loop_answers_what_it_can_and_threads_the_rest_on_one_connection(address: Address) -> None:
    connection = http.client.HTTPConnection(*address, timeout=20)
    for path, body in (("/quick", b"quick"), ("/", b"hello"), ("/quick", b"quick"), ("/quick", b"quick")):
        connection.request("GET", path, headers={"Accept-Encoding": "gzip"})
        assert connection.getresponse().read() == body
    connection.close()


def test_pipelined_requests_are_answered_in_order(address: Address) -> None:
    quick = b"GET /quick HTTP/1.1\r\nHost: x\r\n\r\n"
    last = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    answer = ask(address, quick + quick + last)
    bodies = [part.rpartition(b"\r\n\r\n")[2] for part in answer.split(b"HTTP/1.1 200 OK")[1:]]
    assert bodies[-1] == b"hello"
    assert len(bodies) == 3


def test_a_large_answer_of_the_loop_reaches_a_slow_reader_whole(address: Address) -> None:
    connection = http.client.HTTPConnection(*address, timeout=20)
    connection.request("GET", "/quick/big", headers={"Accept-Encoding": "gzip"})
    answer = connection.getresponse()
    first = answer.read(10)
    connection2 = http.client.HTTPConnection(*address, timeout=20)
    connection2.request("GET", "/quick", headers={"Accept-Encoding": "gzip"})
    assert connection2.getresponse().read() == b"quick"  # nobody waits for the other
    assert len(first) + len(answer.read()) == 32 << 20
    connection.request("GET", "/", headers={"Accept-Encoding": "gzip"})
    assert connection.getresponse().read() == b"hello"
    connection.close()
    connection2.close()
