# SPDX-License-Identifier: Apache-2.0
"""DCMTK's findscu asks for the worklist; its wlmscpfs, with the same items, answers the same.

Not compared: keys that wlmscpfs does not support (specimens, barcodes), Specific Character
Set, and the order of items.
"""

import contextlib
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset

from archive.service import Archive
from tests.gateway.dimse.running import AE_TITLE, Scp, running
from tests.gateway.serving import run
from tests.support.archives import open_archive
from tests.support.require import require_tool
from tests.support.worklist import element, item, schedule

RETURNED = """
(0008,0050) SH
(0010,0010) PN
(0010,0020) LO
(0010,0030) DA
(0010,0040) CS
(0020,000d) UI
(0032,1060) LO
(0040,1001) SH
"""
STEP_RETURNED = """
(0008,0060) CS
(0040,0001) AE
(0040,0002) DA
(0040,0003) TM
(0040,0006) PN
(0040,0007) LO
(0040,0009) SH
"""


def items() -> list[dict[str, object]]:
    names = ["Albers^Anna", "Albers^Bert", "Berg^Carla", "Dorn^Dora"]
    return [
        item(
            number,
            t00100010=element("PN", {"Alphabetic": name}),
            t00100020=element("LO", f"A-{number}"),
            s00400001=element("AE", "SCANNER1" if number % 2 else "SCANNER2"),
            s00400002=element("DA", f"2026112{number}"),
            s00400003=element("TM", f"{8 + number:02d}3000"),
            s00400006=element("PN", {"Alphabetic": "Tech^Tom"}),
        )
        for number, name in enumerate(names, 1)
    ]


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    opened = open_archive(tmp_path / "data")
    yield opened
    opened.close()


@pytest.fixture
def scp(archive: Archive) -> Iterator[Scp]:
    schedule(archive, *items())
    with running(archive) as scp:
        yield scp


def dump(keys: dict[str, str], step: dict[str, str]) -> str:
    """A query as dump2dcm reads it; keys by the line they fill in."""

    def filled(lines: str, values: dict[str, str]) -> list[str]:
        left = dict(values)
        found = []
        for line in lines.split("\n"):
            tag = line.partition(" ")[0].strip("()")
            if line:
                found.append(f"{line} [{left.pop(tag, '')}]" if tag else line)
        return sorted(found + [f"({tag}) {value}" for tag, value in left.items()])

    inner = "\n".join(filled(STEP_RETURNED, step))
    outer = filled(RETURNED, keys)
    sequence = f"(0040,0100) SQ\n(fffe,e000) -\n{inner}\n(fffe,e00d) -\n(fffe,e0dd) -"
    before = [line for line in outer if line < "(0040,0100)"]
    after = [line for line in outer if line > "(0040,0100)"]
    return "\n".join([*before, sequence, *after]) + "\n"


def query_file(folder: Path, text: str) -> Path:
    source, target = folder / "query.dump", folder / "query.dcm"
    source.write_text(text)
    made = subprocess.run(
        [require_tool("dump2dcm"), str(source), str(target)], capture_output=True, text=True, check=False
    )
    assert made.returncode == 0, made.stderr
    return target


def find(port: int, query: Path, *options: str) -> list[Dataset]:
    """What findscu writes of each answer."""
    folder = query.parent / f"answers-{port}"
    folder.mkdir()
    done = subprocess.run(
        [require_tool("findscu"), "-W", "-X", "-od", str(folder), *options, "-aet", "SCANNER1", "-aec",
         AE_TITLE, "127.0.0.1", str(port), str(query)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Failed" not in done.stderr
    return [pydicom.dcmread(path) for path in sorted(folder.iterdir())]


@contextlib.contextmanager
def wlmscpfs(folder: Path) -> Iterator[int]:
    """DCMTK's worklist server over the same items."""
    database = folder / "wl" / AE_TITLE
    database.mkdir(parents=True)
    (database / "lockfile").touch()
    for number, one in enumerate(items()):
        content = Dataset.from_json(one)
        content.SpecificCharacterSet = "ISO_IR 192"
        meta = FileMetaDataset()
        meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        meta.MediaStorageSOPClassUID = "1.2.276.0.7230010.3.1.0.1"
        meta.MediaStorageSOPInstanceUID = f"2.25.{number + 1}"
        file = FileDataset("", content, file_meta=meta, preamble=bytes(128))
        file.save_as(database / f"item{number}.wl", enforce_file_format=True)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [require_tool("wlmscpfs"), "-dfp", str(folder / "wl"), "-csk", str(port)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        until = time.monotonic() + 10
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except ConnectionRefusedError:
                assert time.monotonic() < until
                assert server.poll() is None
                time.sleep(0.05)
        yield port
    finally:
        server.terminate()
        server.wait(10)


def plain(answers: list[Dataset]) -> list[str]:
    for one in answers:
        one.pop("SpecificCharacterSet", None)
    return sorted(one.to_json() for one in answers)


@pytest.mark.parametrize(
    ("keys", "step", "number"),
    [
        ({}, {}, 4),
        ({"0010,0020": "A-3"}, {}, 1),
        ({"0008,0050": "P26-2"}, {}, 1),
        ({"0010,0010": "Albers*"}, {}, 2),
        ({"0010,0010": "*^?o*"}, {}, 1),
        ({"0010,0020": "A-9"}, {}, 0),
        ({}, {"0040,0001": "SCANNER1"}, 2),
        ({}, {"0040,0001": "SCANNER2", "0008,0060": "SM"}, 2),
        ({}, {"0008,0060": "CT"}, 0),
        ({}, {"0040,0002": "20261122"}, 1),
        ({}, {"0040,0002": "20261122-20261123"}, 2),
        ({}, {"0040,0002": "20261123-"}, 2),
        ({}, {"0040,0002": "-20261122"}, 2),
        ({"0010,0010": "Albers*"}, {"0040,0001": "SCANNER1", "0040,0002": "20261120-20261130"}, 1),
    ],
    ids=str,
)
def test_findscu_gets_from_us_what_wlmscpfs_answers(
    scp: Scp, tmp_path: Path, keys: dict[str, str], step: dict[str, str], number: int
) -> None:
    query = query_file(tmp_path, dump(keys, step))
    ours = find(scp.port, query)
    with wlmscpfs(tmp_path) as port:
        theirs = find(port, query)
    assert len(ours) == number
    assert plain(ours) == plain(theirs)


def test_findscu_finds_a_slide_by_its_container(scp: Scp, tmp_path: Path) -> None:
    specimens = "(fffe,e000) -\n(0040,0512) LO [S26-2-A]\n(0040,0560) SQ\n(fffe,e0dd) -\n(fffe,e00d) -"
    text = dump({}, {}).replace("(0040,1001)", f"(0040,0500) SQ\n{specimens}\n(fffe,e0dd) -\n(0040,1001)")
    (answer,) = find(scp.port, query_file(tmp_path, text))
    (container,) = answer.ScheduledSpecimenSequence
    assert {one.keyword for one in container} == {"ContainerIdentifier", "SpecimenDescriptionSequence"}
    assert container.SpecimenDescriptionSequence[0].SpecimenIdentifier == "S26-2-A-1"


def test_findscu_reads_an_answer_to_a_barcode_in_its_character_set(scp: Scp, tmp_path: Path) -> None:
    text = "(0008,0005) CS [ISO_IR 100]\n(0040,0500) SQ\n(fffe,e0dd) -\n(2200,0005) LT [S26-2-A]\n"
    (answer,) = find(scp.port, query_file(tmp_path, text))
    described = answer.ScheduledSpecimenSequence[0].SpecimenDescriptionSequence[0]
    assert answer.SpecificCharacterSet == "ISO_IR 100"
    assert described.SpecimenShortDescription == "Leber, Männchen"


@pytest.mark.parametrize("option", ["-xi", "-xe", "-xb"])
def test_findscu_is_answered_in_each_transfer_syntax(scp: Scp, tmp_path: Path, option: str) -> None:
    assert len(find(scp.port, query_file(tmp_path, dump({}, {})), option)) == 4


def test_findscu_may_cancel(archive: Archive, tmp_path: Path) -> None:
    schedule(archive, *(item(number) for number in range(1, 1001)))
    with running(archive) as scp:
        got = find(scp.port, query_file(tmp_path, dump({}, {})), "--cancel", "3")
    assert 3 <= len(got) < 1000


def test_items_of_dcmtks_samples_are_imported_and_found(tmp_path: Path) -> None:
    """As wlmscpfs keeps them: a folder of .wl files made by dump2dcm."""
    folder = tmp_path / "wlistdb" / "OFFIS"
    folder.mkdir(parents=True)
    for number, one in enumerate(items()):
        content = Dataset.from_json(one)
        content.SpecificCharacterSet = "ISO_IR 192"
        content.save_as(folder / f"{number}.dcm", implicit_vr=False, little_endian=True)
        text = subprocess.run(
            [require_tool("dcmdump"), "-f", "+L", str(folder / f"{number}.dcm")],
            capture_output=True, check=True,
        ).stdout  # fmt: skip
        (tmp_path / "item.dump").write_bytes(text)
        made = subprocess.run(
            [require_tool("dump2dcm"), str(tmp_path / "item.dump"), str(folder / f"{number}.wl")],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert made.returncode == 0, made.stderr
        (folder / f"{number}.dcm").unlink()
    data = tmp_path / "data"
    assert run("migrate", "--data", str(data)).returncode == 0
    done = run("worklist", "import", "--data", str(data), str(folder.parent))
    assert (done.returncode, done.stdout.count("\tadded\t")) == (0, 4), done.stdout + done.stderr
    archive = open_archive(data)
    with contextlib.closing(archive), running(archive) as scp:
        (answer,) = find(scp.port, query_file(tmp_path, dump({"0010,0020": "A-4"}, {})))
    assert str(answer.PatientName) == "Dorn^Dora"
