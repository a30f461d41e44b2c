# SPDX-License-Identifier: Apache-2.0
"""C-FIND on an index of 1,000,000 instances, by one peer on an open association.

Targets: by key p50 10 ms from request to final response; broad queries 2,000 items/s with
memory that does not grow with the result; a cancelled one ends in 1 s. Beside the bare
SQL that finds the same rows. The index is the one of ``benchmarks.qido`` and takes 3 GB:
``--keep FOLDER`` keeps (and uses) it.

    benchmarks/c_find.py [--instances 1000000] [--keep FOLDER]
"""

import argparse
import multiprocessing
import random
import shutil
import socket
import statistics
import struct
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from pydicom.dataset import Dataset

from archive.index.database import Index
from benchmarks.c_store import peak_memory_mb
from benchmarks.frame_table import hardware
from benchmarks.qido import ASKED, PER_SERIES, PER_STUDY, UID, bare, fill
from gateway.dimse.association_items import Proposal, decode_acceptance, encode_request
from gateway.dimse.dial import Line
from gateway.dimse.identifiers import encode_data_set
from gateway.dimse.messages_out import C_CANCEL_RQ, encode_command, message_pdus, request_command
from gateway.dimse.pdu import data_values
from gateway.dimse.peers import Destination

STUDY_ROOT = "1.2.840.10008.5.1.4.1.2.2.1"
EXPLICIT = "1.2.840.10008.1.2.1"
KEY_GOAL_MS, ITEMS_GOAL, MEMORY_GOAL_MB, CANCEL_GOAL_S = 10.0, 2000, 150, 1.0


def serve(url: str, folder: Path, listener: socket.socket, ready: Connection) -> None:
    from archive.access import OpenPolicy
    from archive.service import Archive
    from archive.storage.local import LocalStorage
    from gateway.dimse.server import serve as serve_dimse
    from gateway.settings import DimseSettings

    index = Index.open(url, run_dir=folder / "run")
    archive = Archive(LocalStorage(folder / "store"), index, policy=OpenPolicy(), data_dir=folder)
    serve_dimse(archive, listener, DimseSettings(), lambda: ready.send("ready"), threading.Event())


class Finder:
    """An association on which queries are asked; counts what comes, and decodes no more."""

    def __init__(self, port: int) -> None:
        self._line = Line(Destination("COVERSLIP", "127.0.0.1", port), 60.0)
        request = encode_request(
            "COVERSLIP", "FINDER", [Proposal(STUDY_ROOT, (EXPLICIT,))], maximum_length=131072, roles={}
        )
        self._line.write([request])
        self._maximum = decode_acceptance(self._line.read(time.monotonic() + 10)[1]).maximum_length
        self._message = 0

    def find(self, *, cancel_after: int = 0, **keys: str) -> tuple[float, int]:
        """Seconds to the final response, and how many results came."""
        self._message += 1
        identifier = Dataset()
        for keyword, value in keys.items():
            setattr(identifier, keyword, value)
        command = request_command("C_FIND", self._message, True, AffectedSOPClassUID=STUDY_ROOT, Priority=0)
        begun = time.perf_counter()
        self._send(command, encode_data_set(identifier, EXPLICIT))
        results = 0
        for status in self._statuses():
            if status in (0xFF00, 0xFF01):  # the second: a key is not of the level
                results += 1
                if results == cancel_after:
                    begun = time.perf_counter()
                    self._send(encode_command({
                        "CommandField": C_CANCEL_RQ, "MessageIDBeingRespondedTo": self._message,
                        "CommandDataSetType": 0x0101,
                    }), None)  # fmt: skip
            elif status not in (0x0000, 0xFE00):
                raise RuntimeError(f"status {status:#06x}")
            else:
                break
        return time.perf_counter() - begun, results

    def _send(self, command: bytes, data_set: bytes | None) -> None:
        for pdu in message_pdus(1, command, None if data_set is None else [data_set], self._maximum):
            self._line.write([bytes(piece) for piece in pdu])

    def _statuses(self) -> Iterator[int]:
        while True:
            _, payload = self._line.read(time.monotonic() + 300)
            for _, control, fragment in data_values(payload):
                if control & 1:
                    yield _status(bytes(fragment))


def _status(command: bytes) -> int:
    position = 0
    while position < len(command):
        group, element, length = struct.unpack_from("<HHI", command, position)
        if element == 0x0900 and group == 0:
            return int(struct.unpack_from("<H", command, position + 8)[0])
        position += 8 + length
    raise RuntimeError("a response without a status")


def measure(url: str, folder: Path, studies: int) -> bool:
    index = Index.open(url, run_dir=folder / "run")
    plain = bare(index, studies)
    index.close()
    listener = socket.create_server(("127.0.0.1", 0))
    here, there = multiprocessing.Pipe()
    child = multiprocessing.get_context("spawn").Process(target=serve, args=(url, folder, listener, there))
    child.start()
    good = True
    try:
        here.recv()
        finder = Finder(listener.getsockname()[1])
        chance = random.Random(4)
        asked = {
            "PatientID": ("STUDY", lambda n: {"PatientID": f"P{n}"}),
            "AccessionNumber": ("STUDY", lambda n: {"AccessionNumber": f"A{n}"}),
            "StudyInstanceUID": ("STUDY", lambda n: {"StudyInstanceUID": f"{UID}0{n}"}),
            "ContainerIdentifier": ("STUDY", lambda n: {"ContainerIdentifier": f"C{n * 2 + 1}"}),
            "series of a study": ("SERIES", lambda n: {"StudyInstanceUID": f"{UID}0{n}"}),
            "images of a series": (
                "IMAGE",
                lambda n: {"StudyInstanceUID": f"{UID}0{n}", "SeriesInstanceUID": f"{UID}0{n}.1"},
            ),
        }
        returned = {"PatientName": "", "PatientID": "", "StudyDate": "", "AccessionNumber": "",
                    "ModalitiesInStudy": "", "StudyInstanceUID": ""}  # fmt: skip
        print(f"{studies * PER_STUDY * PER_SERIES:,} instances, ms in the median of {ASKED} (worst)")
        for name, (level, keys) in asked.items():
            times, rows = [], 0
            for n in chance.sample(range(1, studies), ASKED):
                seconds, count = finder.find(QueryRetrieveLevel=level, **{**returned, **keys(n)})
                times.append(seconds * 1000)
                rows += count
            median = statistics.median(times)
            good = good and median <= KEY_GOAL_MS and rows > 0
            ratio = f"   {median / plain[name]:.0f} x bare SQL" if name in plain else ""
            print(
                f"  {name:24} {median:6.1f} ({max(times):6.1f})  {rows / ASKED:.0f} rows{ratio}", flush=True
            )
        small_mb = peak_memory_mb(child.pid or 0)
        for name, keys in (
            ("all studies", {}),
            ("studies of SM", {"ModalitiesInStudy": "SM"}),
            ("names with M", {"PatientName": "M*"}),
        ):
            seconds, count = finder.find(QueryRetrieveLevel="STUDY", **{**returned, **keys})
            good = good and count / seconds >= ITEMS_GOAL
            print(f"  {name:24} {count:6,} results in {seconds:5.1f} s: {count / seconds:6,.0f}/s "
                  f"(goal {ITEMS_GOAL:,})", flush=True)  # fmt: skip
        after_mb = peak_memory_mb(child.pid or 0)
        seconds, count = finder.find(cancel_after=1000, QueryRetrieveLevel="STUDY", **returned)
        good = good and after_mb <= MEMORY_GOAL_MB and seconds <= CANCEL_GOAL_S
        print(f"  cancelled after 1,000: {count:,} results had come, ended {seconds * 1000:.0f} ms later")
        print(f"  peak memory {after_mb:.0f} MB (goal {MEMORY_GOAL_MB}), by key {small_mb:.0f}")
    finally:
        child.terminate()
        child.join()
        listener.close()
    return good


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--instances", type=int, default=1_000_000)
    parser.add_argument("--keep", type=Path)
    options = parser.parse_args()
    studies = options.instances // (PER_SERIES * PER_STUDY)
    folder = options.keep or Path(tempfile.mkdtemp(prefix="coverslip-c-find-"))
    folder.mkdir(parents=True, exist_ok=True)
    url = f"sqlite:///{folder / 'coverslip.db'}"
    print(hardware())
    try:
        index = Index.open(url, run_dir=folder / "run")
        if not index.schema_version():
            index.migrate()
            fill(index, studies)
        index.close()
        (folder / "store").mkdir(exist_ok=True)
        (folder / "store" / "store.json").write_bytes(b'{"store": 1}')
        return 0 if measure(url, folder, studies) else 1
    finally:
        if not options.keep:
            shutil.rmtree(folder)


if __name__ == "__main__":
    sys.exit(main())
