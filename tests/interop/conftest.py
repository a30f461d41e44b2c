# SPDX-License-Identifier: Apache-2.0
"""One running server for the interop tests, filled by ``coverslip ingest`` as a user would."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.make_slide import make_svs
from tests.support.require import require_data
from tests.support.server import Server, coverslip, running_server, wait_for

GENERATED = {
    "j2k.svs": {"compression": 33005},
    "ycbcr.svs": {"photometric": "YCBCR", "subsampling": "422"},
    "holes.svs": {"missing_tiles": (1, 5)},
}
SAMPLES = {
    "cmu": "slides/svs/CMU-1-Small-Region.svs",
    "small": "slides/svs/openslide-small.svs",
    "scanscope": "slides/synthetic/aperio_scanscope.svs",
}
SLIDES = [*SAMPLES, *(name.removesuffix(".svs") for name in GENERATED)]


@dataclass(frozen=True)
class Ingested:
    """A slide that went in, and what became of it."""

    name: str
    path: Path
    study: str
    series: str
    instances: list[dict[str, Any]]  # QIDO-RS results with all attributes

    def volumes(self) -> list[dict[str, Any]]:
        """The levels, finest first."""
        levels = [i for i in self.instances if i["00080008"]["Value"][2] == "VOLUME"]
        return sorted(levels, key=lambda i: -i["00480006"]["Value"][0])


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server(tmp_path_factory.mktemp("interop") / "site") as started:
        yield started


@pytest.fixture(scope="session")
def slide_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("slides")
    files = {}
    for name, options in GENERATED.items():
        files[name.removesuffix(".svs")] = folder / name
        make_svs(folder / name, rows=600, columns=900, **options)  # type: ignore[arg-type]
    return files


@pytest.fixture(scope="session")
def ingested(server: Server, slide_files: dict[str, Path]) -> "dict[str, Ingested]":
    """All slides, by name; those whose sample is absent are missing (or fail the run)."""
    return _Lazy(server, slide_files)


class _Lazy(dict):  # type: ignore[type-arg]
    def __init__(self, server: Server, files: dict[str, Path]) -> None:
        super().__init__()
        self._server, self._files = server, files

    def __missing__(self, name: str) -> Ingested:
        path = self._files.get(name) or require_data(SAMPLES[name])
        before = {s["series_instance_uid"] for s in self._server.json("/api/slides?limit=500")["slides"]}
        coverslip("ingest", path, "--data", self._server.data)

        def added() -> Any:
            slides = self._server.json("/api/slides?limit=500")["slides"]
            return [s for s in slides if s["series_instance_uid"] not in before]

        line = wait_for(added)[0]
        study, series = line["study_instance_uid"], line["series_instance_uid"]
        instances = self._server.json(
            f"/dicom-web/studies/{study}/series/{series}/instances?includefield=all", "application/dicom+json"
        )
        self[name] = Ingested(name, path, study, series, instances)
        return self[name]
