# SPDX-License-Identifier: Apache-2.0
"""``web``, ``dimse``, ``worker``, ``watch``: one role each, alone or under ``serve``."""

import socket
from collections.abc import Callable
from typing import Any

import click

from gateway import process
from gateway.cli.options import Given, common
from gateway.settings import Settings, SettingsError
from gateway.settings_check import check


def _role(name: str, help_: str) -> Callable[[Callable[..., None]], click.Command]:
    """A command for a role: its settings checked, ``ready`` and ``--fd`` for the supervisor."""

    def make(function: Callable[..., None]) -> click.Command:
        @click.option("--ready-fd", type=int, hidden=True, help="Pipe to say ready on.")
        @click.option("--fd", type=int, hidden=True, help="Inherited listening socket.")
        @common
        def command(given: Given, ready_fd: int | None, fd: int | None, **rest: Any) -> None:
            process.open_many_files()
            settings = given.settings(name)
            check(settings)
            settings.run_dir.mkdir(parents=True, exist_ok=True)
            function(settings, fd, process.Ready(ready_fd), **rest)

        return click.command(name, help=help_)(command)

    return make


def _listener(fd: int | None, bind: str, key: str) -> socket.socket:
    from gateway.supervisor import listen

    return listen(bind, key) if fd is None else socket.socket(fileno=fd)


@_role("web", "Serve DICOMweb, the API and the viewer.\n\nExample: coverslip web --data ./data")
def web(settings: Settings, fd: int | None, ready: Callable[[], None]) -> None:
    from gateway import compose
    from gateway import web as server

    listener = _listener(fd, settings.http.bind, "http.bind")
    server.serve(settings, listener, lambda: compose.web_app(settings), ready)


@click.option("--tls-fd", type=int, hidden=True, help="Inherited listening socket for TLS.")
@_role("dimse", "Listen for DICOM associations.\n\nExample: coverslip dimse --data ./data")
def dimse(settings: Settings, fd: int | None, ready: Callable[[], None], tls_fd: int | None = None) -> None:
    from gateway import compose
    from gateway.dimse import server

    bind, tls_bind = settings.dimse.bind, settings.dimse.tls_bind
    if not bind and not tls_bind:
        raise SettingsError("dimse.bind and dimse.tls_bind are empty: there is nothing to listen on")
    listener = _listener(fd, bind, "dimse.bind") if bind else None
    tls_listener = _listener(tls_fd, tls_bind, "dimse.tls_bind") if tls_bind else None
    with compose.archive(settings) as archive:
        server.serve(
            archive, listener, settings.dimse, ready, process.stop_event(), tls_listener=tls_listener
        )


@_role("worker", "Do the jobs that wait: conversions, thumbnails.\n\nExample: coverslip worker --data ./data")
def worker(settings: Settings, fd: int | None, ready: Callable[[], None]) -> None:
    from gateway import compose
    from gateway.ingest import worker as loop
    from gateway.maintenance import Maintenance
    from gateway.outgoing import outgoing

    stop = process.stop_event()
    with (
        compose.archive(settings) as archive,
        Maintenance(archive, stop),
        outgoing(archive, settings, stop),
        compose.converter(settings) as converter,
    ):
        loop.work(archive, settings.worker, compose.site_secret(settings), ready, stop, converter)


@_role("watch", "Take in what appears in the watched folders.\n\nExample: coverslip watch --data ./data")
def watch(settings: Settings, fd: int | None, ready: Callable[[], None]) -> None:
    from gateway import compose
    from gateway.ingest import watch as watcher

    for folder in settings.watch_folders:
        if folder.is_relative_to(settings.data):
            folder.mkdir(parents=True, exist_ok=True)
    with compose.archive(settings, codecs=False) as archive:
        secret = compose.site_secret(settings)
        watcher.watch(archive, compose.watch_settings(settings), secret, ready, process.stop_event())
