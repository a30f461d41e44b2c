# SPDX-License-Identifier: Apache-2.0
"""The web server against slow, greedy and malformed clients."""

import http.client
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest
from gunicorn.http.body import LengthReader
from gunicorn.http.unreader import SocketUnreader

from gateway.web_worker import SizedBody
from tests.gateway.toy_server import BIG_BYTES

ROOT = Path(__file__).resolve().parents[2]
Address = tuple[str, int]


@contextmanager
def toy(data: Path, **settings: object) -> Iterator[tuple[Address, "subprocess.Popen[str]"]]:
    """One process of the web role, ready."""
    flags = {"http.workers": 1, "http.threads": 4, **{k.replace("__", "."): v for k, v in settings.items()}}
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
        address = listener.getsockname()
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "tests.gateway.toy_server",
                str(data),
                str(listener.fileno()),
                *(f"{name}={value}" for name, value in flags.items()),
            ],
            cwd=ROOT,
            pass_fds=[listener.fileno()],
            stdout=subprocess.PIPE,
            text=True,
        )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "ready\n"
        yield address, process
    finally:
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGTERM)
        process.wait(30)
        process.stdout.close()


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Address]:
    with toy(tmp_path_factory.mktemp("toy"), http__header_timeout_s=1.5) as (found, _):
        yield found


def ask(address: Address, raw: bytes) -> bytes:
    """All that is answered to ``raw`` until the server closes."""
    with socket.create_connection(address, timeout=20) as client:
        client.sendall(raw)
        received = b""
        while data := client.recv(65536):
            received += data
    return received


def wait_until_refused(address: Address) -> None:
    """Until nobody listens at ``address`` any more: connect, and wait to be thrown out."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(address):
                return
            probe.settimeout(1)
            with suppress(OSError):
                probe.recv(1)
    pytest.fail("the listener stayed open")


def seconds_until_closed(client: socket.socket, started: float) -> float:
    client.settimeout(20)
    assert client.recv(100) == b""
    return time.monotonic() - started


def test_a_connection_is_kept_for_many_requests(address: Address) -> None:
    connection = http.client.HTTPConnection(*address)
    connection.connect()
    port = connection.sock.getsockname()[1]
    for size in (0, 1, 100_000, 3_000_000):
        connection.request("PUT", "/count", body=bytes(size))
        assert connection.getresponse().read() == str(size).encode()
        assert connection.sock.getsockname()[1] == port
    connection.close()


def test_requests_sent_at_once_are_answered_in_order(address: Address) -> None:
    one = b"PUT /count HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s"
    last = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    answer = ask(address, one % (3, b"abc") + one % (5, b"abcde") + last)
    assert [part.rpartition(b"\r\n\r\n")[2] for part in answer.split(b"HTTP/1.1 200 OK")[1:]] == [
        b"3",
        b"5",
        b"hello",
    ]


class Source:
    """A socket that gives ``data`` in pieces of up to ``piece`` bytes."""

    def __init__(self, data: bytes, piece: int) -> None:
        self.data, self.piece = data, piece

    def recv(self, size: int) -> bytes:
        size = min(size, self.piece)
        found, self.data = self.data[:size], self.data[size:]
        return found


@pytest.mark.parametrize("held", [0, 3, 20])
@pytest.mark.parametrize("sizes", [[1, 2, 3, 10], [None], [-1], [100], [0, 4, 4, 4]])
def test_a_body_is_read_to_its_length_and_what_follows_is_left(held: int, sizes: list[int | None]) -> None:
    data = b"0123\n56789" + b"GET / HTTP"
    for piece in (1, 4, 100):
        source = Source(data[held:], piece)
        unreader = SocketUnreader(source)
        unreader.unread(data[:held])
        body = SizedBody(LengthReader(unreader, 10))
        assert b"".join(body.read(size) for size in sizes) + body.read() == data[:10]
        assert body.read(5) == b""
        assert unreader.take_buffered() + source.data == data[10:]


def test_lines_and_bytes_of_a_body_can_be_mixed() -> None:
    body = SizedBody(LengthReader(SocketUnreader(Source(b"ab\ncdefgh\nXX", 4)), 10))
    assert [body.read(1), body.readline(), body.read(2), body.read(), body.read()] == [
        b"a",
        b"b\n",
        b"cd",
        b"efgh\n",
        b"",
    ]


def test_a_body_that_ends_early_is_short_and_one_that_breaks_says_so() -> None:
    body = SizedBody(LengthReader(SocketUnreader(Source(b"abc", 2)), 10))
    assert [body.read(10), body.read(10)] == [b"abc", b""]

    class Broken(Source):
        def recv(self, size: int) -> bytes:
            raise ConnectionResetError

    body = SizedBody(LengthReader(SocketUnreader(Broken(b"", 1)), 10))
    with pytest.raises(ConnectionResetError):
        body.read(10)
    assert body.failed


def test_a_head_split_anywhere_is_understood(address: Address) -> None:
    head = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    for cut in (1, len(head) - 3, len(head) - 1):
        with socket.create_connection(address, timeout=20) as client:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            client.sendall(head[:cut])
            client.sendall(head[cut:])
            assert client.makefile("rb").read().endswith(b"hello")


def test_a_chunked_body_is_read(address: Address) -> None:
    head = b"PUT /count HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert ask(address, head + b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n").endswith(b"\r\n\r\n5")


def test_an_unfinished_head_is_cut_after_its_deadline(address: Address) -> None:
    for beginning in (b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: x\r\nX-A: "):
        with socket.create_connection(address) as client:
            started = time.monotonic()
            client.sendall(beginning)
            assert 1.0 < seconds_until_closed(client, started) < 10


def test_a_head_that_grows_byte_by_byte_does_not_extend_its_deadline(address: Address) -> None:
    with socket.create_connection(address, timeout=0.2) as client:
        client.sendall(b"GET / HTTP/1.1\r\nX-A: ")
        started = time.monotonic()
        while time.monotonic() - started < 20:
            try:
                if client.recv(1) == b"":
                    break
            except TimeoutError:
                client.sendall(b"a")
        assert time.monotonic() - started < 10


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"GET / HTTP/1.1\r\n" + b"X-A: %s\r\n" % (b"a" * 70_000) + b"\r\n", b"431"),
        (b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 200 + b"\r\n", b"431"),
        (b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 100_000 + b"\r\n", b"431"),
        (b"GET /%s HTTP/1.1\r\n\r\n" % (b"a" * 9000), b"414"),
        (b"PUT / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", b"400"),
        (b"PUT / HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", b"400"),
        (b"PUT / HTTP/1.1\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n", b"400"),
        (b"PUT / HTTP/1.1\r\nContent-Length: +3\r\n\r\nabc", b"400"),
        (b"GET / HTTP/1.1\r\nHost : x\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\n folded: x\r\n\r\n", b"400"),
        (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", b"400"),
    ],
)
def test_a_malformed_or_greedy_head_is_refused(address: Address, raw: bytes, status: bytes) -> None:
    try:
        answer = ask(address, raw)
    except ConnectionResetError:
        answer = b""  # it closed while we were still sending: refused as well
        assert len(raw) > 65536
    assert answer.startswith(b"HTTP/1.1 " + status) or not answer


def slow_head(client: socket.socket) -> None:
    client.sendall(b"GET / HTTP/1.1\r\nHo")


def slow_body(client: socket.socket) -> None:
    client.sendall(b"PUT /count HTTP/1.1\r\nContent-Length: 1000\r\nExpect: 100-continue\r\n\r\n")
    assert client.recv(100).startswith(b"HTTP/1.1 100")  # a thread has it


def slow_reader(client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.sendall(b"GET /big HTTP/1.1\r\n\r\n")
    assert client.recv(10) == b"HTTP/1.1 2"


@pytest.mark.parametrize("slow", [slow_head, slow_body, slow_reader])
def test_slow_clients_far_beyond_the_threads_do_not_lock_others_out(
    slow: Callable[[socket.socket], None], tmp_path: Path
) -> None:
    with toy(tmp_path, http__slow_connections=64) as (address, _), ExitStack() as clients:
        for _ in range(40):  # ten for each thread
            slow(clients.enter_context(socket.create_connection(address, timeout=20)))
        connection = http.client.HTTPConnection(*address, timeout=20)
        for _ in range(50):
            connection.request("GET", "/")
            assert connection.getresponse().read() == b"hello"
        connection.close()


def test_a_transfer_without_progress_is_cut(tmp_path: Path) -> None:
    with toy(tmp_path, http__transfer_timeout_s=0.5) as (address, _):
        with socket.create_connection(address, timeout=20) as client:
            slow_body(client)
            assert 0.3 < seconds_until_closed(client, time.monotonic()) < 10
        with socket.create_connection(address, timeout=20) as client:
            client.sendall(b"GET /big HTTP/1.1\r\n\r\n")
            received = len(client.recv(10))
            read_nothing(client, 1.5)
            with suppress(ConnectionResetError):
                while data := client.recv(1 << 20):
                    received += len(data)
            assert received < BIG_BYTES


def read_nothing(client: socket.socket, seconds: float) -> None:
    """What a stalled client does, for longer than is allowed."""
    poll = select.poll()
    poll.register(client, select.POLLPRI)  # urgent data: never comes
    poll.poll(seconds * 1000)


def test_one_address_cannot_take_all_connections(tmp_path: Path) -> None:
    with (
        toy(tmp_path, http__connections_per_address=8, http__header_timeout_s=60) as (address, _),
        ExitStack() as clients,
    ):
        for _ in range(8):
            client = clients.enter_context(socket.create_connection(address, timeout=20))
            client.sendall(b"GET / HTTP/1.1\r\n\r\n")
            assert client.recv(100).startswith(b"HTTP/1.1 200")
        with socket.create_connection(address, timeout=20) as one_too_many:
            assert one_too_many.recv(10) == b""
        elsewhere = socket.create_connection(address, timeout=20, source_address=("127.0.0.2", 0))
        clients.enter_context(elsewhere).sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert elsewhere.recv(100).startswith(b"HTTP/1.1 200")


def test_when_connections_run_out_the_longest_idle_one_makes_room(tmp_path: Path) -> None:
    with toy(tmp_path, http__connections=24) as (address, _), ExitStack() as clients:
        opened = []
        for _ in range(40):
            client = clients.enter_context(socket.create_connection(address, timeout=20))
            client.sendall(b"GET / HTTP/1.1\r\n\r\n")
            assert client.recv(100).startswith(b"HTTP/1.1 200")
            opened.append(client)
        assert opened[0].makefile("rb").read().endswith(b"") is True
        opened[-1].sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert opened[-1].recv(200)


def test_a_request_under_way_is_finished_after_the_listener_has_closed(tmp_path: Path) -> None:
    with toy(tmp_path) as (address, process), socket.create_connection(address, timeout=20) as client:
        slow_body(client)
        process.send_signal(signal.SIGUSR1)
        wait_until_refused(address)
        client.sendall(bytes(1000))
        answer = client.makefile("rb").read()
        assert answer.startswith(b"HTTP/1.1 200")
        assert answer.endswith(b"1000")
        assert process.wait(30) == 0
