# SPDX-License-Identifier: Apache-2.0
"""DCMTK's and pynetdicom's query and retrieve tools against a running listener."""

import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest

from archive.access import OpenPolicy, Principal, Scope
from archive.index.query import Level, Query, parse_match
from archive.service import Archive
from archive.values import Stored
from gateway.dimse.peers import Destination, PeerTable
from tests.gateway.dimse.running import AE_TITLE, Scp, running
from tests.support.archives import ASK, open_archive, store_bytes
from tests.support.instances import make_instance
from tests.support.require import require_tool

STUDY = "1.2.826.0.1.3680043.8.498.11"


class Guarded(OpenPolicy):
    """GUEST sees one study only."""

    def scope(self, principal: Principal) -> Scope:
        if principal.actor == "GUEST":
            return Scope("study.study_instance_uid = ?", (STUDY,))
        return super().scope(principal)


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    archive = open_archive(tmp_path / "data", policy=Guarded())
    yield archive
    archive.close()


@pytest.fixture
def stored(archive: Archive) -> list[Stored]:
    """Two patients; three studies; levels in JPEG and one native."""
    return [
        store_bytes(
            archive,
            make_instance(
                study=study, patient_id=patient, patient_name=name, container=slide, frames=9, native=native
            ),
        )
        for study, patient, name, slide, native in (
            (STUDY, "P1", "Müller^Jörg", "S24-1", False),
            (STUDY, "P1", "Müller^Jörg", "S24-2", False),
            (STUDY, "P1", "Müller^Jörg", "S24-2", True),
            ("1.2.3.22", "P1", "Müller^Jörg", "S24-3", False),
            ("1.2.3.33", "P2", "Meyer^Anna", "S24-4", False),
        )
    ]  # fmt: skip


@pytest.fixture
def places(monkeypatch: pytest.MonkeyPatch) -> dict[str, Destination]:
    """Where peers are, by their title."""
    known: dict[str, Destination] = {}
    monkeypatch.setattr(PeerTable, "destination", lambda self, title: known.get(title))
    return known


@pytest.fixture
def scp(archive: Archive, stored: list[Stored], places: dict[str, Destination]) -> Iterator[Scp]:
    with running(archive) as scp:
        yield scp


def run(tool: str, port: int, *arguments: str, title: str = "TESTER") -> str:
    """What a DCMTK tool says; it must end well."""
    done = subprocess.run(
        [require_tool(tool), "-v", "-aet", title, "-aec", AE_TITLE, *arguments, "127.0.0.1", str(port)],
        capture_output=True, timeout=120, check=False,
    )  # fmt: skip
    said = (done.stdout + done.stderr).decode("utf-8", "replace")
    assert done.returncode == 0, said
    return said


def keys(**values: str) -> list[str]:
    return [part for name, value in values.items() for part in ("-k", f"{name}={value}" if value else name)]


def results(folder: Path) -> list[pydicom.Dataset]:
    """What findscu -X has written."""
    found = [pydicom.dcmread(path, force=True) for path in sorted(folder.glob("*.dcm"))]
    for path in folder.glob("*.dcm"):
        path.unlink()
    return found


SEARCHES = [
    {"PatientName": "M*"},
    {"PatientName": "muller^jorg"},
    {"PatientID": "P1"},
    {"StudyDate": "20200101-20301231"},
    {"StudyTime": "000000-235959"},
    {"AccessionNumber": "*"},
    {"ModalitiesInStudy": "SM"},
    {"ContainerIdentifier": "S24-2"},
    {"StudyInstanceUID": STUDY},
    {"PatientID": "nobody"},
]


@pytest.mark.parametrize("search", SEARCHES, ids=lambda search: "-".join(search))
@pytest.mark.parametrize("level", [Level.STUDY, Level.SERIES, Level.INSTANCE])
def test_whatever_is_found_over_http_is_found_by_findscu(
    archive: Archive, scp: Scp, tmp_path: Path, search: dict[str, str], level: Level
) -> None:
    ((keyword, value),) = search.items()
    tag = pydicom.datadict.tag_for_keyword(keyword)
    assert tag is not None
    path = f"{tag:08X}"
    match = parse_match(path, pydicom.datadict.dictionary_VR(tag), value)
    expected = archive.find(Query(level, (match,), limit=100), **ASK).rows
    uid, name = {
        Level.STUDY: ("StudyInstanceUID", "STUDY"),
        Level.SERIES: ("SeriesInstanceUID", "SERIES"),
        Level.INSTANCE: ("SOPInstanceUID", "IMAGE"),
    }[level]
    folder = tmp_path / "found"
    folder.mkdir()
    asked = {"QueryRetrieveLevel": name, "StudyInstanceUID": "", "SeriesInstanceUID": "",
             "SOPInstanceUID": "", "Modality": "", **search}  # fmt: skip
    found = by_hierarchy(scp, asked, folder)
    rows = {row[f"{pydicom.datadict.tag_for_keyword(uid):08X}"]["Value"][0] for row in expected}  # type: ignore[index]
    assert {str(getattr(result, uid)) for result in found} == rows
    assert len(found) == len(rows)


def by_hierarchy(scp: Scp, asked: dict[str, str], folder: Path) -> list[pydicom.Dataset]:
    """Results of a query of all studies, series or images: findscu cannot negotiate a
    relational one, so study by study and series by series."""
    level = asked["QueryRetrieveLevel"]

    def find(level: str, **more: str) -> list[pydicom.Dataset]:
        values = {**asked, "QueryRetrieveLevel": level, **more}
        if level == "STUDY" and asked["QueryRetrieveLevel"] != "STUDY":
            values = {"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": asked["StudyInstanceUID"]}
        elif level == "SERIES" and asked["QueryRetrieveLevel"] == "IMAGE":
            values = {"QueryRetrieveLevel": "SERIES", "SeriesInstanceUID": "", **more}
        run("findscu", scp.port, "-S", "-X", "-od", str(folder), *keys(**values))
        return results(folder)

    if level == "STUDY":
        return find("STUDY")
    series = [
        (study.StudyInstanceUID, one)
        for study in find("STUDY")
        for one in find("SERIES", StudyInstanceUID=study.StudyInstanceUID)
    ]
    if level == "SERIES":
        return [one for _, one in series]
    return [
        image
        for study, one in series
        for image in find("IMAGE", StudyInstanceUID=study, SeriesInstanceUID=one.SeriesInstanceUID)
    ]


def test_findscu_reads_names_in_the_character_set_that_it_asked_in(scp: Scp, tmp_path: Path) -> None:
    folder = tmp_path / "found"
    folder.mkdir()
    for character_set in ("ISO_IR 100", "ISO_IR 192"):
        run("findscu", scp.port, "-S", "-X", "-od", str(folder),
            *keys(SpecificCharacterSet=character_set, QueryRetrieveLevel="STUDY", PatientName="",
                  StudyInstanceUID=STUDY))  # fmt: skip
        (found,) = results(folder)
        assert found.SpecificCharacterSet == character_set
        assert str(found.PatientName) == "Müller^Jörg"


def test_findscu_lists_patients(scp: Scp, tmp_path: Path) -> None:
    folder = tmp_path / "found"
    folder.mkdir()
    asked = keys(QueryRetrieveLevel="PATIENT", PatientID="", PatientName="", NumberOfPatientRelatedStudies="")
    run("findscu", scp.port, "-P", "-X", "-od", str(folder), *asked)
    found = {one.PatientID: one.NumberOfPatientRelatedStudies for one in results(folder)}
    assert found == {"P1": 2, "P2": 1}
    run("findscu", scp.port, "-P", "-X", "-od", str(folder), *asked, title="GUEST")
    assert {one.PatientID: one.NumberOfPatientRelatedStudies for one in results(folder)} == {"P1": 1}


def test_pynetdicoms_findscu_finds_the_same(scp: Scp) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pynetdicom", "findscu", "127.0.0.1", str(scp.port), "-v", "-S",
         "-aec", AE_TITLE, *keys(QueryRetrieveLevel="STUDY", PatientID="P1", StudyInstanceUID="")],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = done.stdout + done.stderr
    assert f"[{STUDY}]" in said
    assert "[1.2.3.22]" in said
    assert "[1.2.3.33]" not in said


# ---- retrieving ---------------------------------------------------------------------


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def receiver(folder: Path, *options: str, tool: str = "storescp") -> Iterator[int]:
    """A storescp that writes into ``folder``; its port."""
    folder.mkdir(exist_ok=True)
    port = free_port()
    process = subprocess.Popen(
        [require_tool(tool), *options, "-od", str(folder), str(port)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        wait_for(port)
        yield port
    finally:
        process.terminate()
        process.wait(20)


def wait_for(port: int) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            assert time.monotonic() < deadline, "the receiver does not listen"
            time.sleep(0.05)


def streams(archive: Archive, stored: list[Stored]) -> dict[str, pydicom.Dataset]:
    """What the archive gives, by SOP Instance UID."""
    found = {}
    for one in stored:
        instance = archive.instance(
            one.study_instance_uid, one.series_instance_uid, one.sop_instance_uid, **ASK
        )
        data = b"".join(archive.open(instance, **ASK).chunks)
        found[one.sop_instance_uid] = pydicom.dcmread(pydicom.filebase.DicomBytesIO(data))
    return found


def arrived(folder: Path) -> dict[str, pydicom.Dataset]:
    return {one.SOPInstanceUID: one for one in map(pydicom.dcmread, folder.iterdir())}


def of_study(stored: list[Stored], study: str) -> list[Stored]:
    return [one for one in stored if one.study_instance_uid == study]


def test_movescu_makes_storescp_receive_what_the_archive_streams(
    archive: Archive, scp: Scp, stored: list[Stored], places: dict[str, Destination], tmp_path: Path
) -> None:
    folder = tmp_path / "received"
    with receiver(folder, "+xa") as port:
        places["STORESCP"] = Destination("STORESCP", "127.0.0.1", port)
        run("movescu", scp.port, "-S", "-aem", "STORESCP",
            *keys(QueryRetrieveLevel="STUDY", StudyInstanceUID=STUDY))  # fmt: skip
    assert arrived(folder) == streams(archive, of_study(stored, STUDY))
    syntaxes = {str(one.file_meta.TransferSyntaxUID) for one in arrived(folder).values()}
    assert syntaxes == {"1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.1"}  # nothing was decoded


@pytest.mark.parametrize("level", ["PATIENT", "SERIES", "IMAGE"])
def test_movescu_at_every_level(
    scp: Scp, stored: list[Stored], places: dict[str, Destination], tmp_path: Path, level: str
) -> None:
    one = stored[0]
    asked = {"QueryRetrieveLevel": level, "PatientID": "P1"}
    if level != "PATIENT":
        asked |= {"StudyInstanceUID": STUDY, "SeriesInstanceUID": one.series_instance_uid}
    if level == "IMAGE":
        asked["SOPInstanceUID"] = one.sop_instance_uid
    expected = [other for other in stored if other.study_instance_uid in (STUDY, "1.2.3.22")]
    if level != "PATIENT":
        expected = [one]
    folder = tmp_path / "received"
    with receiver(folder, "+xa") as port:
        places["STORESCP"] = Destination("STORESCP", "127.0.0.1", port)
        run("movescu", scp.port, "-P", "-aem", "STORESCP", *keys(**asked))
    assert set(arrived(folder)) == {other.sop_instance_uid for other in expected}


def test_movescu_receives_itself_where_it_is_the_destination(
    archive: Archive, scp: Scp, stored: list[Stored], places: dict[str, Destination], tmp_path: Path
) -> None:
    folder, port = tmp_path / "received", free_port()
    folder.mkdir()
    places["TESTER"] = Destination("TESTER", "127.0.0.1", port)
    run("movescu", scp.port, "-S", "+P", str(port), "+xa", "-od", str(folder),
        *keys(QueryRetrieveLevel="STUDY", StudyInstanceUID=STUDY))  # fmt: skip
    assert arrived(folder) == streams(archive, of_study(stored, STUDY))


def test_a_receiver_that_aborts_amid_or_after_a_store_fails_the_move_and_not_the_listener(
    scp: Scp, places: dict[str, Destination], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.dimse.move.RETRIES_S", (0.0,))
    for option in ("--abort-during", "--abort-after", "--refuse"):
        with receiver(tmp_path / option, "+xa", option) as port:
            places["BAD"] = Destination("BAD", "127.0.0.1", port)
            done = subprocess.run(
                [require_tool("movescu"), "-v", "-aet", "TESTER", "-aec", AE_TITLE, "-S", "-aem", "BAD",
                 *keys(QueryRetrieveLevel="STUDY", StudyInstanceUID=STUDY), "127.0.0.1", str(scp.port)],
                capture_output=True, text=True, timeout=120, check=False,
            )  # fmt: skip
            assert "0xa702" in (done.stdout + done.stderr).lower() or "Refused" in done.stderr, done.stderr
    run("echoscu", scp.port)


def test_what_was_moved_to_dcmqrscp_can_be_asked_for_there(
    scp: Scp, stored: list[Stored], places: dict[str, Destination], tmp_path: Path
) -> None:
    port, folder = free_port(), tmp_path / "qr"
    folder.mkdir()
    config = tmp_path / "dcmqrscp.cfg"
    config.write_text(
        f"NetworkTCPPort = {port}\nMaxPDUSize = 131072\nMaxAssociations = 16\nHostTable BEGIN\n"
        "HostTable END\nVendorTable BEGIN\nVendorTable END\nAETable BEGIN\n"
        f"OTHER {folder} RW (200, 1024mb) ANY\nAETable END\n"
    )
    process = subprocess.Popen(
        [require_tool("dcmqrscp"), "-c", str(config), "+xy"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        wait_for(port)
        places["OTHER"] = Destination("OTHER", "127.0.0.1", port)
        run("movescu", scp.port, "-S", "-aem", "OTHER",
            *keys(QueryRetrieveLevel="STUDY", StudyInstanceUID=STUDY))  # fmt: skip
        asked = keys(QueryRetrieveLevel="SERIES", StudyInstanceUID=STUDY, SeriesInstanceUID="")
        said = run("findscu", port, "-S", "-aec", "OTHER", *asked)
    finally:
        process.terminate()
        process.wait(20)
    for one in of_study(stored, STUDY):
        assert one.series_instance_uid in said


def test_hidden_studies_are_not_moved(scp: Scp, places: dict[str, Destination], tmp_path: Path) -> None:
    folder = tmp_path / "received"
    with receiver(folder, "+xa") as port:
        places["STORESCP"] = Destination("STORESCP", "127.0.0.1", port)
        run("movescu", scp.port, "-S", "-aem", "STORESCP",
            *keys(QueryRetrieveLevel="STUDY", StudyInstanceUID="1.2.3.33"), title="GUEST")  # fmt: skip
    assert arrived(folder) == {}


def test_getscu_gets_what_the_archive_streams(
    archive: Archive, scp: Scp, stored: list[Stored], tmp_path: Path
) -> None:
    folder = tmp_path / "received"
    folder.mkdir()
    said = run("getscu", scp.port, "-S", "+xy", "-od", str(folder),
               *keys(QueryRetrieveLevel="STUDY", StudyInstanceUID="1.2.3.33"))  # fmt: skip
    received = arrived(folder)
    if not received:
        pytest.fail(said)
    assert received == streams(archive, of_study(stored, "1.2.3.33"))


def test_pynetdicoms_getscu_and_movescu_retrieve_too(
    scp: Scp, stored: list[Stored], places: dict[str, Destination], tmp_path: Path
) -> None:
    folder = tmp_path / "received"
    folder.mkdir()
    port = free_port()
    places["TESTER"] = Destination("TESTER", "127.0.0.1", port)
    native = stored[2]  # what the tool proposes has no JPEG in it
    asked = ["-k", "QueryRetrieveLevel=IMAGE", "-k", f"StudyInstanceUID={STUDY}",
             "-k", f"SeriesInstanceUID={native.series_instance_uid}",
             "-k", f"SOPInstanceUID={native.sop_instance_uid}"]  # fmt: skip
    for app, more in (("getscu", []), ("movescu", ["-aem", "TESTER", "--store", "--store-port", str(port)])):
        done = subprocess.run(
            [sys.executable, "-m", "pynetdicom", app, "127.0.0.1", str(scp.port), "-S", "-aet", "TESTER",
             "-aec", AE_TITLE, "-od", str(folder), *more, *asked],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert set(arrived(folder)) == {native.sop_instance_uid}, (app, done.stderr, done.stdout)
        for path in folder.iterdir():
            path.unlink()
