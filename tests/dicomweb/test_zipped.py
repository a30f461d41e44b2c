# SPDX-License-Identifier: Apache-2.0
"""A study in one ZIP file: what was stored, in constant memory."""

import io
import subprocess
import zipfile

import pytest

from dicomweb.zipped import zip_stream
from tests.dicomweb import samples
from tests.dicomweb.conftest import LEVEL, WEB
from tests.support.require import require_tool

STUDY = f"{WEB}/studies/{samples.STUDY}"
ZIP = {"Accept": "application/zip"}


@pytest.mark.parametrize(("path", "count"), [(STUDY, 4), (f"{STUDY}/series/{samples.SERIES}", 3), (LEVEL, 1)])
def test_every_instance_is_there_as_it_was_stored(reader, path, count):
    response = reader.get(path, headers=ZIP)
    assert response.status_code == 200
    assert response.headers["Content-Type"] == "application/zip"
    assert response.headers["Content-Disposition"].endswith('.zip"')
    with zipfile.ZipFile(io.BytesIO(response.get_data())) as file:
        assert file.testzip() is None
        assert len(file.namelist()) == count
        name = f"{samples.STUDY}/{samples.SERIES}/{samples.SERIES}.1.dcm"
        assert file.read(name) == samples.volume()
        assert {info.compress_type for info in file.infolist()} == {zipfile.ZIP_STORED}


def test_another_program_reads_it(reader, tmp_path):
    (tmp_path / "study.zip").write_bytes(reader.get(STUDY, headers=ZIP).get_data())
    subprocess.run([require_tool("unzip"), "-tq", tmp_path / "study.zip"], check=True, capture_output=True)


@pytest.mark.parametrize(
    ("accept", "zipped"),
    [
        ("application/zip, */*;q=0.5", True),
        ("*/*", False),
        ('multipart/related; type="application/dicom"; transfer-syntax=*, application/zip;q=0.5', False),
        ('multipart/related; type="application/dicom";q=0.1; transfer-syntax=*, application/zip', True),
    ],
)
def test_only_who_likes_it_best_gets_it(reader, accept, zipped):
    response = reader.get(LEVEL, headers={"Accept": accept})
    assert response.status_code == 200
    assert (response.headers["Content-Type"] == "application/zip") == zipped


def test_the_accept_parameter_of_a_link_is_enough(reader):
    response = reader.get(f"{STUDY}?accept=application/zip", headers={"Accept": "text/html,*/*;q=0.8"})
    assert response.headers["Content-Type"] == "application/zip"


def test_what_is_not_there_is_404(reader):
    assert reader.get(f"{WEB}/studies/1.2.3", headers=ZIP).status_code == 404


class Named:
    study_instance_uid = series_instance_uid = "1.2"

    def __init__(self, sop):
        self.sop_instance_uid = sop


def test_nothing_is_held_back_while_it_is_written():
    read = []

    def chunks(instance):
        for number in range(64):
            read.append(number)
            yield bytes(1 << 16)

    written = 0
    for piece in zip_stream([Named("1"), Named("2")], chunks):
        written += len(piece)
        assert len(piece) < 1 << 17
        assert written + (1 << 17) > (len(read) << 16)
    assert written > 128 << 16
