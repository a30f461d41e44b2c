# SPDX-License-Identifier: Apache-2.0
"""``coverslip send`` and forwarding to DCMTK's and pynetdicom's receivers."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pydicom
import pytest

from archive.peer import Peer
from archive.service import Archive
from archive.values import Stored
from tests.gateway.dimse.scripted_peer import Dialogue, scripted, well_behaved
from tests.support.archives import ASK, open_archive, store_bytes
from tests.support.instances import make_instance
from tests.support.require import ROOT, require_tool

STUDY = "1.2.88"


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    opened = open_archive(tmp_path / "data")
    yield opened
    opened.close()


def filled(archive: Archive) -> list[Stored]:
    return [
        store_bytes(archive, make_instance(study=STUDY, frames=9)),
        store_bytes(archive, make_instance(study=STUDY, frames=9)),
        store_bytes(archive, make_instance(study=STUDY, frames=4, native=True)),
    ]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def until(condition: Callable[[], object], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


def is_listening(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


@contextlib.contextmanager
def receiver(*command: str, port: int) -> Iterator[None]:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT)
    try:
        until(lambda: is_listening(port))
        yield
    finally:
        process.kill()
        process.wait()


def coverslip(data: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "gateway", *arguments, "--data", str(data)],
        cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def name(archive: Archive, port: int, ae_title: str = "PEER") -> None:
    archive.put_peer(Peer(ae_title, host="127.0.0.1", port=port), **ASK)


def received(folder: Path) -> dict[str, pydicom.Dataset]:
    found = [pydicom.dcmread(path) for path in folder.rglob("*") if path.is_file()]
    return {str(dataset.SOPInstanceUID): dataset for dataset in found}


@pytest.mark.parametrize("kind", ["storescp", "storescp-small-pdu", "pynetdicom"])
def test_a_study_arrives_whole_and_unchanged(archive: Archive, tmp_path: Path, kind: str) -> None:
    stored = filled(archive)
    folder, port = tmp_path / "received", free_port()
    folder.mkdir()
    name(archive, port)
    if kind == "pynetdicom":
        command = [sys.executable, "-m", "pynetdicom", "storescp", str(port), "-od", str(folder), "-q"]
    else:
        tool = require_tool("storescp")
        options = ["--max-pdu", "4096"] if kind == "storescp-small-pdu" else ["--max-pdu", "131072"]
        command = [tool, "+xa", *options, "-od", str(folder), str(port)]
    with receiver(*command, port=port):
        sent = coverslip(tmp_path / "data", "send", STUDY, "--to", "PEER", "--json")
        assert sent.returncode == 0, sent.stderr
        again = coverslip(tmp_path / "data", "send", STUDY, "--to", "PEER")
        assert [line.split("\t")[0] for line in again.stdout.splitlines()] == ["already"] * 3
    results = json.loads(sent.stdout)["instances"]
    assert [one["outcome"] for one in results] == ["sent"] * 3
    arrived = received(folder)
    assert set(arrived) == {one.sop_instance_uid for one in stored}
    for one in stored:
        ours = archive.instance(one.study_instance_uid, one.series_instance_uid, one.sop_instance_uid, **ASK)
        path = tmp_path / "ours.dcm"
        path.write_bytes(b"".join(archive.open(ours, **ASK).chunks))
        mine, theirs = pydicom.dcmread(path), arrived[one.sop_instance_uid]
        assert theirs.file_meta.TransferSyntaxUID == mine.file_meta.TransferSyntaxUID
        assert theirs == mine


def test_what_dcmqrscp_took_it_can_be_asked_for(archive: Archive, tmp_path: Path) -> None:
    stored = filled(archive)
    port, folder = free_port(), tmp_path / "qr"
    folder.mkdir()
    config = tmp_path / "dcmqrscp.cfg"
    config.write_text(
        f"NetworkTCPPort = {port}\nMaxPDUSize = 131072\nMaxAssociations = 16\nHostTable BEGIN\n"
        "HostTable END\nVendorTable BEGIN\nVendorTable END\nAETable BEGIN\n"
        f"PEER {folder} RW (200, 1024mb) ANY\nAETable END\n"
    )
    name(archive, port)
    with receiver(require_tool("dcmqrscp"), "-c", str(config), "+xy", port=port):
        sent = coverslip(tmp_path / "data", "send", STUDY, "--to", "PEER")
        assert sent.returncode == 0, sent.stdout + sent.stderr
        asked = subprocess.run(
            [require_tool("findscu"), "-S", "-k", "QueryRetrieveLevel=IMAGE",
             "-k", f"StudyInstanceUID={STUDY}", "-k", "SOPInstanceUID",
             "-k", f"SeriesInstanceUID={stored[0].series_instance_uid}",
             "-aec", "PEER", "127.0.0.1", str(port)],
            capture_output=True, text=True, timeout=60, check=True,
        )  # fmt: skip
    for one in stored:
        if one.series_instance_uid == stored[0].series_instance_uid:
            assert one.sop_instance_uid in asked.stdout + asked.stderr


@pytest.mark.parametrize(("option", "syntax"), [("+xe", "1.2.840.10008.1.2.1"), ("+xi", "1.2.840.10008.1.2")])
def test_a_receiver_that_takes_uncompressed_only_gets_what_can_be_given_so(
    archive: Archive, tmp_path: Path, option: str, syntax: str
) -> None:
    stored = filled(archive)
    folder, port = tmp_path / "received", free_port()
    folder.mkdir()
    name(archive, port)
    # +xe: Explicit VR Little Endian preferred; +xi: Implicit only; neither takes compressed ones
    with receiver(require_tool("storescp"), option, "-od", str(folder), str(port), port=port):
        sent = coverslip(tmp_path / "data", "send", STUDY, "--to", "PEER")
    assert sent.returncode == 0, sent.stdout + sent.stderr
    arrived = received(folder)
    assert set(arrived) == {one.sop_instance_uid for one in stored}
    assert {d.file_meta.TransferSyntaxUID for d in arrived.values()} == {syntax}
    for one in stored:
        uids = (one.study_instance_uid, one.series_instance_uid, one.sop_instance_uid)
        ours = archive.instance(*uids, **ASK)
        if ours.transfer_syntax_uid == "1.2.840.10008.1.2.1":
            path = tmp_path / "ours.dcm"
            path.write_bytes(b"".join(archive.open(ours, **ASK).chunks))
            mine, theirs = pydicom.dcmread(path), arrived[one.sop_instance_uid]
            assert theirs.PixelData == mine.PixelData
            del theirs.PixelData, mine.PixelData  # whose VR Implicit VR leaves open
            assert theirs == mine


def test_nobody_there_is_one_line_and_a_code_of_its_own(archive: Archive, tmp_path: Path) -> None:
    filled(archive)
    name(archive, free_port())
    sent = coverslip(tmp_path / "data", "send", STUDY, "--to", "PEER")
    assert sent.returncode == 44
    assert sent.stderr.splitlines() == ["coverslip: PEER cannot be reached (Connection refused)"]
    unknown = coverslip(tmp_path / "data", "send", STUDY, "--to", "NOBODY")
    assert unknown.returncode == 6
    absent = coverslip(tmp_path / "data", "send", "1.2.3", "--to", "PEER")
    assert absent.returncode == 6


def test_a_refused_instance_is_listed_and_the_rest_is_sent(archive: Archive, tmp_path: Path) -> None:
    filled(archive)

    def script(dialogue: Dialogue) -> None:
        dialogue.read_request()
        dialogue.accept()
        number, command = dialogue.read_command()
        dialogue.read_data()
        dialogue.respond(number, command, 0xA700, ErrorComment="disk full")
        dialogue.serve()

    with scripted(script) as (destination, _):
        name(archive, destination.port)
        sent = coverslip(tmp_path / "data", "send", STUDY, "--to", "PEER")
    assert sent.returncode == 41
    outcomes = [line.split("\t") for line in sent.stdout.splitlines()]
    assert [one[0] for one in outcomes] == ["failed", "sent", "sent"]
    assert outcomes[0][2:] == ["0xa700", "PEER refused it with status 0xa700 (disk full)"]


@contextlib.contextmanager
def worker(data: Path, *options: str) -> Iterator["subprocess.Popen[bytes]"]:
    process = subprocess.Popen(
        [sys.executable, "-m", "gateway", "worker", "--data", str(data), *options],
        cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def test_a_worker_killed_amid_a_forward_leaves_nothing_undone(archive: Archive, tmp_path: Path) -> None:
    stored = filled(archive)
    amid, gone = threading.Event(), threading.Event()

    def stuck(dialogue: Dialogue) -> None:
        """One instance is taken; in the next the worker is killed."""
        dialogue.read_request()
        dialogue.accept()
        number, command = dialogue.read_command()
        dialogue.read_data()
        dialogue.respond(number, command)
        dialogue.read_command()
        amid.set()
        gone.wait(60)

    with scripted(stuck, well_behaved) as (destination, dialogues):
        name(archive, destination.port)
        later = coverslip(tmp_path / "data", "send", STUDY, "--to", "PEER", "--later")
        assert later.returncode == 0, later.stderr
        with worker(tmp_path / "data") as doomed:
            assert amid.wait(60)
            os.kill(doomed.pid, signal.SIGKILL)
            doomed.wait()
        gone.set()
        (duty,) = archive.duties(**ASK)
        assert duty.state == "running"
        model = archive._core.index.models.Duty
        archive._core.index.write(lambda: model.update(lease_until=0).execute())  # as after a minute
        with worker(tmp_path / "data"):
            until(lambda: archive.duties(**ASK)[0].state == "done")
    arrived = [uid for dialogue in dialogues[1:] for uid, _, _ in dialogue.stored]
    uids = {one.sop_instance_uid for one in stored}
    assert len(arrived) == len(set(arrived))
    assert set(arrived) <= uids
    assert set(archive.delivered("PEER", sorted(uids))) == uids


def test_a_rule_sends_on_what_is_stored_while_the_worker_runs(archive: Archive, tmp_path: Path) -> None:
    rules = tmp_path / "routing.toml"
    rules.write_text('[[rule]]\nname = "all"\nmodality = "SM"\ndestinations = ["PEER"]\n')
    with scripted(well_behaved) as (destination, dialogues):
        name(archive, destination.port)
        with worker(tmp_path / "data", "--set", f"routing.file={rules}"):
            until(lambda: archive.followed("routing") is not None)
            stored = filled(archive)
            until(lambda: sum(len(d.stored) for d in dialogues) == 3)
            until(lambda: {duty.state for duty in archive.duties(**ASK)} == {"done"})
        explained = coverslip(tmp_path / "data", "routing", "explain", STUDY, "--rules", str(rules))
        assert (
            explained.stdout.splitlines()
            == sorted(f"{one.sop_instance_uid}\tall\tgoes to PEER" for one in stored)
            or len(explained.stdout.splitlines()) == 3
        )
    listed = coverslip(tmp_path / "data", "outbox", "list", "--state", "done")
    assert len(listed.stdout.splitlines()) == len(archive.duties(**ASK))
