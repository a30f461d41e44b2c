# SPDX-License-Identifier: Apache-2.0
"""Requests that a server's loop answers by itself: parsed and answered without a thread.

Only heads that cannot be misread are taken: a GET without a body, a path without escapes
and query, each header once, of letters, digits and hyphens. All others, and whatever the
application cannot answer at once, go the ordinary way.
"""

import re
import time
from collections.abc import Callable
from functools import lru_cache
from typing import Any

Answer = tuple[str, list[tuple[str, str]], bytes]
AnswerNow = Callable[[dict[str, Any]], Answer | None]

HEAD_BYTES = 4096
_LINE = re.compile(rb"GET (/[A-Za-z0-9._~,/-]*) HTTP/1\.1\r\n")
_NAME = re.compile(rb"[A-Za-z0-9-]+")
_VALUE = re.compile(r"[\t -~]*")
# What asks for more than an answer, or announces a body.
_NOT_QUICK = frozenset(
    {
        "CONTENT_LENGTH", "CONTENT_TYPE", "TRANSFER_ENCODING", "EXPECT", "UPGRADE", "TE", "TRAILER",
        "PROXY", "PROXY_CONNECTION", "KEEP_ALIVE", "HTTP2_SETTINGS", "RANGE", "IF_RANGE", "ORIGIN",
    }
)  # fmt: skip


@lru_cache(maxsize=1024)
def _headers(block: bytes) -> dict[str, str] | None:
    """The header lines of a request as environ has them, None if not quick; a client's are
    the same for all its requests."""
    found: dict[str, str] = {}
    for line in block.split(b"\r\n"):
        raw_name, colon, raw_value = line.partition(b":")
        value = raw_value.decode("latin-1")
        if not colon or not _NAME.fullmatch(raw_name) or not _VALUE.fullmatch(value):
            return None
        name = raw_name.decode("ascii").upper().replace("-", "_")
        value = value.strip(" \t")
        if name in _NOT_QUICK or f"HTTP_{name}" in found:
            return None
        if name == "CONNECTION" and value.lower() != "keep-alive":
            return None
        found[f"HTTP_{name}"] = value
    return found if found.get("HTTP_HOST") else None


def environ_of(head: bytes, client: tuple[Any, ...], server: tuple[Any, ...]) -> dict[str, Any] | None:
    """The WSGI environ of a whole head (blank line included), as far as ``answer_now`` needs
    it; None for one that is not quick."""
    if len(head) > HEAD_BYTES:
        return None
    line = _LINE.match(head)
    if line is None:
        return None
    headers = _headers(head[line.end() : -4])
    if headers is None:
        return None
    return {
        **headers,
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": line[1].decode("ascii"),
        "QUERY_STRING": "",
        "REMOTE_ADDR": client[0],
        "SERVER_NAME": server[0],
        "SERVER_PORT": str(server[1]),
        "SERVER_PROTOCOL": "HTTP/1.1",
        "wsgi.url_scheme": "http",
    }


@lru_cache(maxsize=2)
def _stamp(second: int) -> str:
    return time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(second))


def encoded(answer: Answer) -> bytes:
    """What goes over the wire, connection kept."""
    status, headers, body = answer
    lines = "".join([f"{name}: {value}\r\n" for name, value in headers])
    head = (
        f"HTTP/1.1 {status}\r\nServer: gunicorn\r\nDate: {_stamp(int(time.time()))}\r\n"
        f"Connection: keep-alive\r\n{lines}\r\n"
    )
    return head.encode("latin-1") + body
