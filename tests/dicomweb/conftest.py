# SPDX-License-Identifier: Apache-2.0
"""A real archive behind a real application; parts of a multipart answer, taken apart."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from flask import Flask
from werkzeug.test import Client, TestResponse

from archive.access import OpenPolicy, Policy
from archive.index.database import Index
from archive.service import Archive
from archive.storage.local import LocalStorage
from dicomweb.app import create_app
from dicomweb.multipart import MultipartReader, PartBegin, PartData, boundary_of, closing, part_head
from dicomweb.settings import WebSettings
from gateway.codec_pool import CodecPool
from tests.dicomweb import samples

WEB = "/dicom-web"
LEVEL = f"{WEB}/studies/{samples.STUDY}/series/{samples.SERIES}/instances/{samples.SERIES}.1"
REVERSIBLE = f"{WEB}/studies/{samples.STUDY}/series/{samples.SERIES}/instances/{samples.SERIES}.2"
LABEL = f"{WEB}/studies/{samples.STUDY}/series/{samples.SERIES}/instances/{samples.SERIES}.3"
ANNOTATIONS = f"{WEB}/studies/{samples.STUDY}/series/{samples.ROOT}.1.2/instances/{samples.ROOT}.1.2.1"


@dataclass(frozen=True)
class Part:
    headers: dict[str, str]
    data: bytes


def parts_of(response: TestResponse) -> list[Part]:
    """The parts of a multipart response; its Content-Length, if given, must be true."""
    body = response.get_data()
    if response.content_length is not None:
        assert response.content_length == len(body)
    reader = MultipartReader(boundary_of(response.headers["Content-Type"]))
    found: list[tuple[dict[str, str], bytearray]] = []
    for event in reader.feed(body):
        if isinstance(event, PartBegin):
            found.append((event.headers, bytearray()))
        elif isinstance(event, PartData):
            found[-1][1].extend(event.data)
    reader.close()
    for headers, data in found:
        assert int(headers.get("content-length", len(data))) == len(data)
    return [Part(headers, bytes(data)) for headers, data in found]


def store_body(*files: bytes, boundary: str = "x-y", content_type: str = "application/dicom") -> bytes:
    head = part_head(boundary, [("Content-Type", content_type)])
    return b"".join(head + data + b"\r\n" for data in files) + closing(boundary)


def store(
    client: Client, *files: bytes, study: str = "", accept: str = "application/dicom+json"
) -> TestResponse:
    """STOW of files in one request."""
    return client.post(
        f"{WEB}/studies/{study}".rstrip("/"),
        data=store_body(*files),
        headers={"Accept": accept},
        content_type='multipart/related; type="application/dicom"; boundary=x-y',
    )


@pytest.fixture(scope="session")
def codec() -> Iterator[CodecPool]:
    pool = CodecPool(workers=1, timeout_s=30)
    yield pool
    pool.close()


def open_archive(folder: Path, codec: CodecPool | None = None, policy: Policy | None = None) -> Archive:
    """A new archive in ``folder``; the caller closes it."""
    (folder / "run").mkdir(parents=True)
    (folder / "store").mkdir()
    index = Index.open(f"sqlite:///{folder}/coverslip.db", run_dir=folder / "run")
    index.migrate()
    return Archive(
        LocalStorage(folder / "store"), index, policy=policy or OpenPolicy(), data_dir=folder, codec=codec
    )


@pytest.fixture
def archive(tmp_path: Path, codec: CodecPool) -> Iterator[Archive]:
    made = open_archive(tmp_path / "data", codec)
    yield made
    made.close()


@pytest.fixture
def app(archive: Archive) -> Flask:
    return create_app(archive, WebSettings(version="1.2.3"))


@pytest.fixture
def client(app: Flask) -> Client:
    return app.test_client()


@pytest.fixture(scope="session")
def shared_archive(tmp_path_factory: pytest.TempPathFactory, codec: CodecPool) -> Iterator[Archive]:
    """Four instances of one study, for tests that only read."""
    made = open_archive(tmp_path_factory.mktemp("shared") / "data", codec)
    app = create_app(made, WebSettings())
    response = store(
        app.test_client(), samples.volume(), samples.lossless(), samples.label(), samples.annotations()
    )
    assert response.status_code == 200, response.get_data()
    yield made
    made.close()


@pytest.fixture(scope="session")
def reader(shared_archive: Archive) -> Client:
    """A client of the archive that holds the four instances."""
    return create_app(shared_archive, WebSettings()).test_client()
