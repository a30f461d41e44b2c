# SPDX-License-Identifier: Apache-2.0
"""``coverslip demo-data``."""

import os
from pathlib import Path

import click

from gateway.cli.options import Given, common
from gateway.settings import Settings

NAME = "demo-slide.svs"


@click.command("demo-data")
@common
@click.argument("folder", metavar="[DIR]", required=False, type=click.Path(path_type=Path, file_okay=False))
@click.option("--into-archive", is_flag=True, help="Draw it into the data folder, and load it, once.")
def command(given: Given, folder: Path | None, into_archive: bool) -> None:
    """Draw a sample slide as a scanner would write it: an Aperio SVS with label and overview.

    Example: coverslip demo-data ./samples
    """
    if into_archive:
        _load(given.settings("demo"))
    elif folder is None:
        raise click.UsageError("name a folder", click.get_current_context())
    else:
        click.echo(str(_draw(folder)))


def _draw(folder: Path) -> Path:
    """The slide in ``folder``; it appears there when it is complete."""
    from gateway.demo.slide import write_demo_slide

    folder.mkdir(parents=True, exist_ok=True)
    path, unfinished = folder / NAME, folder / f".{NAME}"
    if not path.exists():
        write_demo_slide(unfinished)
        unfinished.rename(path)
    return path


def _load(settings: Settings) -> None:
    """Give the drawn slide to the worker, unless that was done before."""
    from gateway import compose
    from gateway.ingest.worker import INGEST, IngestJob

    os.nice(10)  # whoever works with the server comes first
    folder = settings.data / "demo"
    done = folder / "loaded"
    if done.exists():
        return
    path = _draw(folder)
    with compose.archive(settings, codecs=False) as archive:
        job = IngestJob(path=str(path), name=NAME)
        archive.enqueue(INGEST, job.payload(), key="demo", **compose.operator(archive))
    done.touch()
