# SPDX-License-Identifier: Apache-2.0
"""DCMTK's senders, as Debian ships them, against a running listener."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest
from pydicom.uid import ExplicitVRLittleEndian, JPEGBaseline8Bit

from archive.errors import Reason
from archive.index.query import Level, Query
from archive.service import Archive
from tests.gateway.dimse.running import AE_TITLE, Scp, running, running_process
from tests.support.archives import ASK, open_archive, store_bytes
from tests.support.instances import make_instance
from tests.support.require import require_data, require_tool

SAMPLES = "slides/dicom-wsi"
# "DIMSE Status : 0xa700: Refused ..." of a C-STORE response, as dcmsend -d prints it.
STATUS = re.compile(r"DIMSE Status\s*: (0x[0-9a-f]{4})")
STORED = {0x0000, 0xB007}  # the second where group 2 and data set disagree
# Refusals of an instance for what it is; 0x0110 would be a fault of ours.
STATED_REASONS = {
    Reason.DUPLICATE_SOP_INSTANCE,
    Reason.SOP_CLASS_NOT_SUPPORTED,
    Reason.CANNOT_UNDERSTAND,
    Reason.TRANSFER_SYNTAX_NOT_SUPPORTED,
    Reason.DATA_SET_MISMATCH,
}


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    archive = open_archive(tmp_path / "data")
    yield archive
    archive.close()


@pytest.fixture
def scp(archive: Archive) -> Iterator[Scp]:
    with running(archive) as scp:
        yield scp


def send(tool: str, port: int, *arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    """Options go before the address."""
    options = [str(one) for one in arguments if str(one).startswith(("-", "+"))]
    files = [str(one) for one in arguments if not str(one).startswith(("-", "+"))]
    return subprocess.run(
        [require_tool(tool), *options, "-aec", AE_TITLE, "127.0.0.1", str(port), *files],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def sop_uids(archive: Archive) -> set[str]:
    """Every SOP Instance UID that a search finds."""
    page = archive.find(Query(Level.INSTANCE, (), limit=1000), **ASK)
    return {row["00080018"]["Value"][0] for row in page.rows}  # type: ignore[index]


def test_echoscu_is_answered(scp: Scp) -> None:
    answer = send("echoscu", scp.port)
    assert answer.returncode == 0, answer.stderr


def test_termscu_does_not_end_the_listener(scp: Scp) -> None:
    send("termscu", scp.port)  # its private SOP class is a storage class as far as we know
    assert send("echoscu", scp.port).returncode == 0


def test_storescu_with_another_called_title_is_rejected_with_its_reason(scp: Scp) -> None:
    answer = subprocess.run(
        [require_tool("echoscu"), "-aec", "SOMEBODY", "127.0.0.1", str(scp.port)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert answer.returncode != 0
    assert "Called AE Title Not Recognized" in answer.stderr


def test_an_instance_sent_by_storescu_is_found_with_the_bytes_that_were_sent(
    scp: Scp, tmp_path: Path
) -> None:
    sent = tmp_path / "level.dcm"
    sent.write_bytes(make_instance(frames=9))
    answer = send("storescu", scp.port, "-R", "-xy", sent)
    assert answer.returncode == 0, answer.stderr
    dataset = pydicom.dcmread(sent)
    assert sop_uids(scp.archive) == {dataset.SOPInstanceUID}
    instance = scp.archive.instance(
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.SOPInstanceUID, **ASK
    )
    assert instance.transfer_syntax_uid == JPEGBaseline8Bit
    stored = b"".join(scp.archive.open(instance, **ASK).chunks)
    path = tmp_path / "stored.dcm"
    path.write_bytes(stored)
    again = pydicom.dcmread(path)
    assert again.PixelData == dataset.PixelData
    assert again == dataset


@pytest.mark.parametrize("option", ["-x=", "-xe", "-xb", "-xd", "-xi"])
def test_whatever_encoding_the_sender_prefers_the_pixels_arrive(
    scp: Scp, tmp_path: Path, option: str
) -> None:
    sent = tmp_path / "level.dcm"
    sent.write_bytes(make_instance(frames=4, native=True))
    answer = send("storescu", scp.port, "-R", option, sent)
    assert answer.returncode == 0, answer.stderr
    dataset = pydicom.dcmread(sent)
    instance = scp.archive.instance(
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.SOPInstanceUID, **ASK
    )
    frames = list(scp.archive.frames(instance, [1, 2, 3, 4], **ASK))
    assert b"".join(frames) == dataset.PixelData
    assert instance.transfer_syntax_uid in (ExplicitVRLittleEndian, "1.2.840.10008.1.2")


def test_the_same_file_by_another_way_and_then_by_dcmsend_is_success_and_there_once(
    scp: Scp, tmp_path: Path
) -> None:
    sent = tmp_path / "native.dcm"
    sent.write_bytes(make_instance(frames=4, native=True))
    first = store_bytes(scp.archive, sent.read_bytes())
    answer = send("dcmsend", scp.port, "-v", sent)  # rewrites group 2 and the transfer syntax
    assert answer.returncode == 0, answer.stderr
    assert "Status: 0x0000" in answer.stderr + answer.stdout or "with status SUCCESS  : 1" in answer.stderr
    assert sop_uids(scp.archive) == {first.sop_instance_uid}


def test_the_same_uid_with_other_pixels_is_refused_as_a_duplicate(scp: Scp, tmp_path: Path) -> None:
    identity = {"study": "2.25.1", "series": "2.25.2", "sop": "2.25.3"}
    first, second = tmp_path / "first.dcm", tmp_path / "second.dcm"
    first.write_bytes(make_instance(frames=4, **identity))
    second.write_bytes(make_instance(frames=9, **identity))
    assert send("storescu", scp.port, "-R", "-xy", first).returncode == 0
    answer = send("storescu", scp.port, "-v", "-R", "-xy", second)
    assert "Status: 0x111" in answer.stderr
    assert [one.sop_instance_uid for one in scp.archive.quarantined(**ASK)] == ["2.25.3"]


def test_every_sample_is_stored_or_refused_with_a_stated_reason(scp: Scp) -> None:
    paths = sorted(require_data(SAMPLES).glob("*.dcm"))
    assert len(paths) > 20
    stored = 0
    for path in paths:
        uid = str(pydicom.dcmread(path, stop_before_pixels=True, force=True).SOPInstanceUID)
        answer = send("dcmsend", scp.port, "-d", path)
        said = answer.stdout + answer.stderr
        statuses = {int(number, 16) for number in STATUS.findall(said)}
        assert statuses, (path.name, said)
        if statuses <= STORED:
            stored += 1
            assert uid in sop_uids(scp.archive), path.name
        else:
            assert statuses <= STATED_REASONS, (path.name, statuses)
    assert stored > len(paths) // 2


def test_a_full_disk_is_said_and_what_fits_is_still_stored(tmp_path: Path) -> None:
    large, small = tmp_path / "large.dcm", tmp_path / "small.dcm"
    large.write_bytes(make_instance(frames=5000, native=True))  # 15 MB
    small.write_bytes(make_instance(frames=4, native=True))
    data = tmp_path / "data"
    with running_process(data, file_size_limit=8 << 20) as scp:
        answer = send("storescu", scp.port, "-v", "-R", large)
        assert "Refused: OutOfResources" in answer.stderr, answer.stderr
        assert list((data / "spool").iterdir()) == []
        assert send("storescu", scp.port, "-R", small).returncode == 0
