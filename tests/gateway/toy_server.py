# SPDX-License-Identifier: Apache-2.0
"""The web role with a toy application: ``python -m tests.gateway.toy_server DATA FD KEY=VALUE...``."""

import os
import socket
import sys
from collections.abc import Callable, Iterable
from typing import Any

from gateway import logs, web
from gateway.settings import load, shipped_config

BIG_BYTES = 64 << 20
QUICK_BIG_BYTES = 32 << 20
Start = Callable[[str, list[tuple[str, str]]], Any]


def application(environ: dict[str, Any], start: Start) -> Iterable[bytes]:
    """``/big`` is large, ``/broken`` breaks after some bytes of its length, ``/count`` counts
    its body's bytes, the rest says hello."""
    path = environ["PATH_INFO"]
    if path == "/big":
        start("200 OK", [("Content-Length", str(BIG_BYTES))])
        return (bytes(1 << 18) for _ in range(BIG_BYTES >> 18))
    if path == "/broken":
        start("200 OK", [("Content-Length", "100")])
        return broken()
    body = b"hello"
    if path == "/count":
        count = 0
        while data := environ["wsgi.input"].read(1 << 16):
            count += len(data)
        body = str(count).encode()
    start("200 OK", [("Content-Length", str(len(body)))])
    return [body]


def broken() -> Iterable[bytes]:
    yield b"hello"
    raise RuntimeError


class Toy:
    """The application, and what it answers at once: ``/quick``, and ``/quick/big``, larger
    than a socket takes."""

    def __call__(self, environ: dict[str, Any], start: Start) -> Iterable[bytes]:
        return application(environ, start)

    @property
    def wsgi_app(self) -> "Toy":  # where Flask has its middleware
        return self

    def answer_now(self, environ: dict[str, Any]) -> tuple[str, list[tuple[str, str]], bytes] | None:
        if not environ["PATH_INFO"].startswith("/quick"):
            return None
        body = bytes(QUICK_BIG_BYTES) if environ["PATH_INFO"].endswith("big") else b"quick"
        return "200 OK", [("Content-Length", str(len(body)))], body


def ready() -> None:
    os.write(1, b"ready\n")  # whole: several processes may say so at once


def main() -> None:
    data, descriptor, *flags = sys.argv[1:]
    settings = load(shipped_config(), {"data_dir": data, **dict(flag.split("=", 1) for flag in flags)}, {})
    logs.setup("web")
    listener = socket.socket(fileno=int(descriptor))
    web.serve(settings, listener, Toy, ready)


if __name__ == "__main__":
    main()
