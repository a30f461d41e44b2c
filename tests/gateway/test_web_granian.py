# SPDX-License-Identifier: Apache-2.0
"""``http.server = "granian"``: the same application, stopped and limited like every role."""

import http.client
import importlib.util
import json
import os
import signal
import socket
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from gateway.followers import Followers
from gateway.settings import HttpSettings
from gateway.settings_check import http_refusals
from gateway.web_granian import CANNOT_START, adapter
from tests.gateway.serving import Serving, run, serving
from tests.gateway.test_serve import descendants, is_taken, wait_for_end
from tests.gateway.test_web_worker import (
    Address,
    ask,
    read_nothing,
    seconds_until_closed,
    slow_body,
    slow_head,
    slow_reader,
    toy,
    wait_until_refused,
)
from tests.gateway.toy_server import BIG_BYTES, QUICK_BIG_BYTES, Toy
from tests.support.make_slide import make_svs
from tests.support.server import wait_for

JPEG = "image/jpeg; transfer-syntax=1.2.840.10008.1.2.4.50"
OWN = {"date", "server", "connection", "x-request-id"}  # of each server or request
GRANIAN = ("--set", "http.server=granian")


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Address]:
    data = tmp_path_factory.mktemp("toy")
    with toy(data, http__server="granian", http__header_timeout_s=1.0, http__transfer_timeout_s=1.0) as found:
        yield found[0]


def test_a_connection_is_kept_for_many_requests(address: Address) -> None:
    connection = http.client.HTTPConnection(*address)
    connection.connect()
    port = connection.sock.getsockname()[1]
    for size in (0, 1, 100_000, 3_000_000):
        connection.request("PUT", "/count", body=bytes(size))
        assert connection.getresponse().read() == str(size).encode()
        assert connection.sock.getsockname()[1] == port
    connection.request("HEAD", "/")
    answer = connection.getresponse()
    assert (answer.status, answer.headers["Content-Length"], answer.read()) == (200, "5", b"")
    connection.close()


def test_a_large_answer_arrives_whole(address: Address) -> None:
    connection = http.client.HTTPConnection(*address)
    connection.request("GET", "/big")
    assert len(connection.getresponse().read()) == BIG_BYTES
    connection.close()


def test_a_stream_of_known_length_that_fails_breaks_the_connection(address: Address) -> None:
    connection = http.client.HTTPConnection(*address, timeout=20)
    connection.request("GET", "/broken")
    with pytest.raises((http.client.IncompleteRead, http.client.RemoteDisconnected)):
        connection.getresponse().read()
    connection.close()


def test_an_unfinished_head_is_cut_after_its_deadline(address: Address) -> None:
    for beginning in (b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: x\r\nX-A: "):
        with socket.create_connection(address) as client:
            client.sendall(beginning)
            assert client.gettimeout() is None
            assert seconds_until_closed(client, 0.0) > 0


def test_a_reader_that_stands_still_is_cut(address: Address) -> None:
    with socket.create_connection(address, timeout=20) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.sendall(b"GET /big HTTP/1.1\r\nHost: x\r\n\r\n")
        received = len(client.recv(10))
        read_nothing(client, 4.0)
        with suppress(ConnectionResetError):
            while data := client.recv(1 << 20):
                received += len(data)
        assert received < BIG_BYTES


@pytest.mark.parametrize("slow", [slow_head, slow_body, slow_reader])
def test_slow_clients_far_beyond_the_threads_do_not_lock_others_out(
    slow: Callable[[socket.socket], None], tmp_path: Path
) -> None:
    settings = {"http__server": "granian", "http__slow_connections": 64}
    with toy(tmp_path, **settings) as (address, _), ExitStack() as clients:
        for _ in range(40):  # ten for each thread
            slow(clients.enter_context(socket.create_connection(address, timeout=20)))
        connection = http.client.HTTPConnection(*address, timeout=20)
        for _ in range(50):
            connection.request("GET", "/")
            assert connection.getresponse().read() == b"hello"
        connection.close()


def test_what_needs_no_thread_is_answered_while_every_thread_is_taken(tmp_path: Path) -> None:
    settings = {"http__server": "granian", "http__slow_connections": 16}
    with toy(tmp_path, **settings) as (address, _), ExitStack() as clients:
        for _ in range(20):
            slow_body(clients.enter_context(socket.create_connection(address, timeout=20)))
        connection = http.client.HTTPConnection(*address, timeout=20)
        for path, size in (("/quick", 5), ("/quick/big", QUICK_BIG_BYTES), ("/quick", 5)):
            connection.request("GET", path)
            assert len(connection.getresponse().read()) == size
        connection.close()


def test_connections_that_come_at_once_are_shared_by_the_processes(tmp_path: Path) -> None:
    with (
        toy(tmp_path, http__server="granian", http__workers=2) as (address, process),
        ExitStack() as clients,
    ):
        opened = [clients.enter_context(socket.create_connection(address, timeout=20)) for _ in range(64)]
        for client in opened:
            client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        for client in opened:
            assert client.recv(100).startswith(b"HTTP/1.1 200")
        shares = [open_sockets(pid) for pid in descendants(process.pid)]
        assert min(shares) > 10
        assert sum(shares) >= 64


def open_sockets(pid: int) -> int:
    count = 0
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):
            count += os.readlink(entry).startswith("socket:")
    return count


@pytest.mark.parametrize(
    "raw",
    [
        b"PUT / HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        b"PUT / HTTP/1.1\r\nContent-Length: +3\r\n\r\nabc",
        b"GET / HTTP/1.1\r\nHost : x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n",
    ],
)
def test_a_malformed_head_is_refused(address: Address, raw: bytes) -> None:
    assert ask(address, raw).startswith(b"HTTP/1.1 400")


def test_a_request_under_way_is_finished_after_the_listener_has_closed(tmp_path: Path) -> None:
    with toy(tmp_path, http__server="granian") as (address, process):
        with socket.create_connection(address, timeout=20) as client:
            slow_body(client)
            process.send_signal(signal.SIGUSR1)
            wait_until_refused(address)
            client.sendall(bytes(1000))
            answer = client.makefile("rb").read()
            assert answer.startswith(b"HTTP/1.1 200")
            assert answer.endswith(b"1000")
        assert process.wait(30) == 0


def test_a_second_stop_signal_does_not_wait_for_requests(tmp_path: Path) -> None:
    with toy(tmp_path, http__server="granian") as (address, process):
        with socket.create_connection(address, timeout=20) as client:
            slow_body(client)
            process.send_signal(signal.SIGTERM)
            wait_until_refused(address)
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0


def test_there_are_as_many_processes_as_asked_and_one_that_dies_is_replaced(tmp_path: Path) -> None:
    with toy(tmp_path, http__server="granian", http__workers=3) as (address, process):
        before = descendants(process.pid)
        assert len(before) == 3
        killed = min(before)
        os.kill(killed, signal.SIGKILL)
        assert wait_for_end(killed)
        for _ in range(20):
            assert ask(address, b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").endswith(b"hello")
        while len(descendants(process.pid)) < 3:
            read_nothing(socket.socket(), 0.05)
        assert killed not in descendants(process.pid)


class Protocol:
    """granian's end of one request."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, list[tuple[str, str]], Any]] = []

    def response_bytes(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.answers.append((status, headers, body))

    def response_iter(self, status: int, headers: list[tuple[str, str]], body: Any) -> None:
        self.answers.append((status, headers, body))


def asked(application: Any, environ: dict[str, Any]) -> Protocol:
    """A request by way of the adapter, answered."""
    protocol = Protocol()
    adapter(application, Followers(1))(protocol, environ)
    return protocol


def test_a_body_with_a_request_that_could_be_answered_at_once_is_not_left_unread_in_a_sleeping_thread() -> (
    None
):
    seen: list[str] = []

    class Counted(Toy):
        def answer_now(self, environ: dict[str, Any]) -> Any:
            seen.append(environ["PATH_INFO"])
            return super().answer_now(environ)

    assert asked(Counted(), {"PATH_INFO": "/quick"}).answers[0][2] == b"quick"
    assert asked(Counted(), {"PATH_INFO": "/quick", "CONTENT_LENGTH": "9"}).answers[0][2] == b"hello"
    assert asked(Counted(), {"PATH_INFO": "/quick", "HTTP_TRANSFER_ENCODING": "chunked"}).answers
    assert seen == ["/quick"]


def test_variables_of_the_process_are_no_headers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_X_FORWARDED_FOR", "10.0.0.1")
    seen: dict[str, Any] = {}

    def application(environ: dict[str, Any], start: Any) -> list[bytes]:
        seen.update(environ)
        start("200 OK", [])
        return [b"a", b"b"]

    protocol = asked(application, {"REQUEST_METHOD": "GET"})
    assert protocol.answers == [(200, [], b"ab")]
    assert "HTTP_X_FORWARDED_FOR" not in seen
    assert seen["SCRIPT_NAME"] == ""


def test_a_fault_of_the_application_is_a_500_and_one_of_its_stream_ends_the_stream() -> None:
    def broken(environ: dict[str, Any], start: Any) -> list[bytes]:
        raise RuntimeError

    def streams(environ: dict[str, Any], start: Any) -> Iterator[bytes]:
        start("200 OK", [])

        def body() -> Iterator[bytes]:
            yield b"a"
            raise RuntimeError

        return body()

    assert asked(broken, {}).answers[0][0] == 500
    body = asked(streams, {}).answers[0][2]
    assert next(body) == b"a"
    with pytest.raises(StopIteration):
        next(body)
    body.close()


def test_granian_that_is_not_installed_is_refused_with_what_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert list(http_refusals(HttpSettings(server="granian"), "open")) == []
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    (refusal,) = http_refusals(HttpSettings(server="granian"), "open")
    assert "pip install 'coverslip[granian]'" in refusal
    assert list(http_refusals(HttpSettings(), "open")) == []


def test_an_application_that_cannot_start_ends_the_role(tmp_path: Path) -> None:
    data = tmp_path / "data"
    ended = run("web", "--data", str(data), "--set", "http.bind=127.0.0.1:0", *GRANIAN)
    assert ended.returncode == CANNOT_START
    assert "a web process cannot start" in ended.stderr


def frame(server: Serving, accept: str, **headers: str) -> tuple[dict[str, str], bytes]:
    """Headers and body of the first frame of the first slide."""

    def ask_for(path: str, accept: str, **headers: str) -> tuple[dict[str, str], bytes]:
        request = urllib.request.Request(
            f"{server.url.rstrip('/')}{path}", headers={"Accept": accept, **headers}
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return {k.lower(): v for k, v in answer.headers.items() if k.lower() not in OWN}, answer.read()

    slide = wait_for(lambda: json.loads(server.get("/api/slides")[1])["slides"])[0]
    base = f"/dicom-web/studies/{slide['study_instance_uid']}/series/{slide['series_instance_uid']}/instances"
    uid = json.loads(ask_for(base, "application/dicom+json")[1])[0]["00080018"]["Value"][0]
    return ask_for(f"{base}/{uid}/frames/1", accept, **headers)


def test_both_servers_give_the_same_frame_and_granian_leaves_no_process_behind(tmp_path: Path) -> None:
    make_svs(tmp_path / "a.svs", rows=300, columns=500)
    data = tmp_path / "data"
    with serving(data) as server:
        assert run("ingest", str(tmp_path / "a.svs"), "--data", str(data)).returncode == 0
        by_gunicorn = frame(server, JPEG)
        assert server.stop() == 0
    proxy = ("--set", "http.behind_proxy=true", "--set", "http.trusted_proxies=127.0.0.1/32",
             "--set", "http.trusted_hosts=slides.example.org")  # fmt: skip
    with serving(data, *GRANIAN, *proxy, log_path=tmp_path / "granian.log") as server:
        assert frame(server, JPEG) == by_gunicorn
        _, body = frame(
            server,
            'multipart/related; type="application/octet-stream"; transfer-syntax=*',
            **{"X-Forwarded-Proto": "https", "X-Forwarded-Host": "slides.example.org"},
        )
        assert b"\r\nContent-Location: https://slides.example.org/dicom-web/studies/" in body
        below = descendants(server.process.pid)
        server.process.kill()
        server.process.wait(30)
        assert all(wait_for_end(pid) for pid in below)
        assert not is_taken(server.ports["http"])
