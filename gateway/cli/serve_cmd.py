# SPDX-License-Identifier: Apache-2.0
"""``coverslip serve``: everything in one process tree."""

from collections.abc import Mapping

import click

from gateway.cli.options import Given, common


@click.command("serve")
@common
@click.option("--http", metavar="HOST:PORT", help="Where the web server listens; port 0: a free one.")
@click.option("--dimse", type=click.IntRange(0, 65535), metavar="PORT", help="DICOM port; 0: a free one.")
@click.option("--demo", is_flag=True, help="Load a sample slide, drawn here, once.")
def command(given: Given, http: str | None, dimse: int | None, demo: bool) -> None:
    """Start web server, DICOM listener, worker and folder watcher; stop with Ctrl-C.

    Example: coverslip serve --data ./data --http 127.0.0.1:8080 --demo
    """
    from gateway import settings_check as check
    from gateway.cli.errors import Finished
    from gateway.supervisor import StartFailed, Supervisor, program

    settings = given.settings("supervisor", http_bind=http)
    if dimse is not None:
        host = check.host_port(settings.dimse.bind, "dimse.bind")[0] if settings.dimse.bind else "127.0.0.1"
        bind = f"[{host}]:{dimse}" if ":" in host else f"{host}:{dimse}"
        settings = given.settings("supervisor", dimse_bind=bind)
    # Children read the same file and variables, and get these very options.
    tasks = {"demo": ["demo-data", "--into-archive", *given.arguments()]} if demo else {}

    def announce(ports: Mapping[str, int]) -> None:
        host, _ = check.host_port(settings.http.bind, "http.bind")
        shown = f"[{host}]" if ":" in host else host
        click.echo(settings.http.public_url or f"http://{shown}:{ports['http']}/")

    try:
        Supervisor(settings, program(), options=given.arguments(), tasks=tasks, announce=announce).run()
    except StartFailed as error:
        if error.code <= 0:
            raise  # it was killed: nobody has said why
        raise Finished(error.code) from error  # the child has said why, in one line
