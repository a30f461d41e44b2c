# SPDX-License-Identifier: Apache-2.0
"""The web role with a toy application: ``python -m tests.gateway.toy_server DATA FD KEY=VALUE...``."""

import socket
import sys
from collections.abc import Callable, Iterable
from typing import Any

from gateway import logs, web
from gateway.settings import load, shipped_config

BIG_BYTES = 64 << 20
Start = Callable[[str, list[tuple[str, str]]], Any]


def application(environ: dict[str, Any], start: Start) -> Iterable[bytes]:
    """``/big`` is large, ``/count`` counts its body's bytes, the rest says hello."""
    path = environ["PATH_INFO"]
    if path == "/big":
        start("200 OK", [("Content-Length", str(BIG_BYTES))])
        return (bytes(1 << 18) for _ in range(BIG_BYTES >> 18))
    body = b"hello"
    if path == "/count":
        count = 0
        while data := environ["wsgi.input"].read(1 << 16):
            count += len(data)
        body = str(count).encode()
    start("200 OK", [("Content-Length", str(len(body)))])
    return [body]


def main() -> None:
    data, descriptor, *flags = sys.argv[1:]
    settings = load(shipped_config(), {"data_dir": data, **dict(flag.split("=", 1) for flag in flags)}, {})
    logs.setup("web")
    listener = socket.socket(fileno=int(descriptor))
    web.serve(settings, listener, lambda: application, lambda: print("ready", flush=True))


if __name__ == "__main__":
    main()
