# SPDX-License-Identifier: Apache-2.0
"""Modality Worklist on 1,000,000 items, over real associations.

Targets: a slide by its barcode on an open association 10 ms in the median, alone and with
50 scanners that ask at once; 2,000 items a second of broad queries. Each is beside a
limit of this machine: a C-ECHO on the same association for the round trip, and bare SQL
that reads the same rows for the rate. The index takes 3 GB: ``--keep FOLDER`` keeps (and
uses) that of SQLite.

    benchmarks/worklist.py [--database sqlite|postgresql] [--items 1000000] [--keep FOLDER]
        [--fill-only]
"""

import argparse
import contextlib
import json
import multiprocessing
import random
import re
import statistics
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from itertools import islice
from multiprocessing.connection import Connection
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from pydicom.dataset import Dataset

from archive.access import OpenPolicy
from archive.index.database import Index
from archive.service import Archive
from archive.storage.local import LocalStorage
from archive.worklist_items import Prepared, prepare
from gateway.dimse.association_items import Proposal
from gateway.dimse.echo import VERIFICATION
from gateway.dimse.identifiers import EXPLICIT_LITTLE_ENDIAN as EXPLICIT
from gateway.dimse.identifiers import encode_data_set
from gateway.dimse.messages_out import request_command
from gateway.dimse.peers import Destination
from gateway.dimse.requestor import Requestor
from gateway.dimse.services import PENDING, PENDING_WITHOUT_OPTIONAL_KEYS
from gateway.dimse.worklist import MODALITY_WORKLIST
from gateway.settings import DimseSettings
from tests.gateway.dimse.running import AE_TITLE, running
from tests.support import postgres
from tests.support.worklist import element, item

ASKED = 200
BROAD = 10_000
PART = 50_000  # rows of one transaction
STATIONS, PATIENTS_OF, DAYS = 50, 20, 400
SCANNERS = 50
SETTINGS = DimseSettings(maximum_associations=100, associations_per_address=100)


def numbered(number: int) -> dict[str, str]:
    """What differs between items."""
    case, day = number // PATIENTS_OF, number % DAYS
    return {
        "container": f"S26-{number:07d}-A", "step": f"ST{number:07d}", "patient": f"P{case:06d}",
        "name": f"Rat^No {case:06d}", "accession": f"AC{case:06d}", "study": f"2.25.9{case:06d}",
        "station": f"SCANNER{number % STATIONS:02d}",
        "date": f"{2026 + day // 336}{day // 28 % 12 + 1:02d}{day % 28 + 1:02d}",
    }  # fmt: skip


def template() -> tuple[Prepared, str]:
    """An item with marks in place of what differs, as it is kept."""
    marks = {name: f"{name.upper():X<8}" for name in numbered(0)}
    value = item(
        1,
        t00100020=element("LO", marks["patient"]), t00100010=element("PN", {"Alphabetic": marks["name"]}),
        t00080050=element("SH", marks["accession"]), t0020000D=element("UI", "9.9.9"),
        t00401001=element("SH", marks["accession"]), s00400001=element("AE", marks["station"]),
        s00400002=element("DA", "19990101"), s00400009=element("SH", marks["step"]),
    )  # fmt: skip
    container = value["00400500"]["Value"][0]
    container["00400512"] = element("LO", marks["container"])
    described = container["00400560"]["Value"][0]
    described["00400551"] = element("LO", marks["container"] + "-1")
    described["00400554"] = element("UI", "9.9.8")
    prepared = prepare(value, now=datetime(2026, 1, 1, tzinfo=UTC))
    text = json.dumps(prepared.content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return prepared, text


def fill(index: Index, count: int) -> None:
    """Rows as the archive would have written them, their indexes made at the end."""
    prepared, text = template()
    marks = {f"{name.upper():X<8}": name for name in numbered(0)}
    marks |= {f"{name.upper():X<8}".casefold(): name for name in numbered(0)}
    marks |= {"19990101": "date", "9.9.9": "study", "9.9.8": "specimen"}
    pattern = re.compile("|".join(map(re.escape, marks)))
    database, mark = index.database, index.database.param

    def filled(value: str, values: dict[str, str]) -> str:
        return pattern.sub(lambda found: values[marks[found[0]]], value)

    def values_of(number: int) -> dict[str, str]:
        return {**numbered(number), "specimen": f"2.25.8{number:07d}"}

    def place(number: int, values: dict[str, str]) -> int:
        return (int(values["date"]) << 36) + number + 1

    def insert(statement: str, rows: Iterable[tuple[object, ...]]) -> None:
        """In parts, so that the log does not grow to the size of the table."""
        several = iter(rows)
        while part := list(islice(several, PART)):
            with database.atomic():
                database.connection().cursor().executemany(statement, part)
            if index.dialect == "sqlite":
                database.execute_sql("PRAGMA wal_checkpoint(TRUNCATE)")

    columns = [
        *prepared.columns, "item_id", "place", "active", "identifier", "status", "sensitivity", "source",
        "revision", "content", "created", "updated",
    ]  # fmt: skip
    fixed = {name for name, value in prepared.columns.items() if not pattern.search(str(value))}

    def rows() -> Iterator[tuple[object, ...]]:
        for number in range(count):
            values = values_of(number)
            own = [
                value if name in fixed else filled(value, values).casefold()
                if name == "patient_name_folded" else filled(value, values)
                for name, value in prepared.columns.items()
            ]  # fmt: skip
            content = zlib.compress(filled(text, values).encode(), 1)
            yield (
                *own, number + 1, place(number, values), 1, f"{values['study']}|{values['step']}",
                "SCHEDULED", 0, "fill", 0, content, 0, 0,
            )  # fmt: skip

    def keys(value: str) -> list[tuple[str, int]]:
        """In the order of the table, which is its own index."""
        found = ((filled(value, v), place(n, v)) for n in range(count) for v in (values_of(n),))
        return sorted(found)

    with index.read():
        if index.dialect == "sqlite":
            found = database.execute_sql(
                "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL "
                "AND tbl_name IN ('worklist_item', 'worklist_key')"
            ).fetchall()
        else:
            found = database.execute_sql(
                "SELECT indexname, indexdef FROM pg_indexes WHERE tablename IN ('worklist_item', "
                "'worklist_key') AND indexdef NOT LIKE '%%(identifier)%%' AND indexname NOT LIKE '%%pkey'"
            ).fetchall()
            database.execute_sql("SET statement_timeout = 0")
        for name, _ in found:
            database.execute_sql(f"DROP INDEX {name}")
        marked = ", ".join([mark] * len(columns))
        insert(f"INSERT INTO worklist_item ({', '.join(columns)}) VALUES ({marked})", rows())
        for path, value, position in sorted(prepared.keys):
            several = keys(value)
            insert(
                f"INSERT INTO worklist_key VALUES ({', '.join([mark] * 5)})",
                ((path, own, 1, at, position) for own, at in several),
            )
        for _, sql in found:
            database.execute_sql(sql.replace("%", "%%") if index.dialect != "sqlite" else sql)
            if index.dialect == "sqlite":
                database.execute_sql("PRAGMA wal_checkpoint(TRUNCATE)")
        if index.dialect == "postgresql":
            database.execute_sql("ANALYZE")


class Scanner(Requestor):
    """A client that costs little: it counts answers and does not decode them."""

    def find(self, identifier: bytes) -> int:
        number = self.context_of(MODALITY_WORKLIST)
        self._message_id = self._message_id % 0xFFFF + 1
        command = request_command(
            "C_FIND", self._message_id, True, AffectedSOPClassUID=MODALITY_WORKLIST, Priority=0
        )
        self._send(number, command, [identifier])
        deadline = time.monotonic() + 60
        count = 0
        while True:
            answer, _, data = self._message(*self._line.read(deadline), deadline)
            if answer.status not in (PENDING, PENDING_WITHOUT_OPTIONAL_KEYS):
                return count
            assert data
            count += 1


def associated(port: int) -> Scanner:
    return Scanner.connect(
        Destination(AE_TITLE, "127.0.0.1", port),
        [Proposal(uid, (EXPLICIT,)) for uid in (MODALITY_WORKLIST, VERIFICATION)],
        calling_ae_title="SCANNER01",
    )


def query(**keys: str) -> bytes:
    """What a slide scanner asks for; ``keys`` by keyword, of the step by ``step_``."""
    found, step = Dataset(), Dataset()
    for keyword in ("PatientID", "PatientName", "AccessionNumber", "StudyInstanceUID", "BarcodeValue"):
        setattr(found, keyword, keys.get(keyword, ""))
    for keyword in ("Modality", "ScheduledStationAETitle", "ScheduledProcedureStepStartDate",
                    "ScheduledProcedureStepStartTime", "ScheduledProcedureStepID"):  # fmt: skip
        setattr(step, keyword, keys.get(f"step_{keyword}", ""))
    step.ScheduledProtocolCodeSequence = []
    found.ScheduledSpecimenSequence = []
    if "container" in keys:
        inner = Dataset()
        inner.ContainerIdentifier = keys["container"]
        inner.SpecimenDescriptionSequence = []
        found.ScheduledSpecimenSequence = [inner]
    found.ScheduledProcedureStepSequence = [step]
    return encode_data_set(found, EXPLICIT)


def times(call: Callable[[int], object], asked: int = ASKED) -> list[float]:
    found = []
    for number in range(asked):
        start = time.perf_counter()
        call(number)
        found.append(time.perf_counter() - start)
    return found


def told(what: str, seconds: list[float], beside: str = "", ratio: float = 0.0) -> None:
    ordered = sorted(seconds)
    median, p99 = statistics.median(ordered) * 1e3, ordered[int(len(ordered) * 0.99)] * 1e3
    print(
        f"{what:46} p50 {median:7.2f} ms   p99 {p99:7.2f} ms{f'   {ratio:.2f} x {beside}' if beside else ''}"
    )


def serve(url: str, folder: Path, ends: Connection) -> None:
    """The listener, in a process of its own."""
    archive = Archive(
        LocalStorage(folder / "store"),
        Index.open(url, run_dir=folder / "run"),
        policy=OpenPolicy(),
        data_dir=folder,
    )
    with running(archive, SETTINGS) as scp:
        ends.send(scp.port)
        ends.recv()
    archive.close()


@contextlib.contextmanager
def listener(url: str, folder: Path) -> Iterator[int]:
    spawn = multiprocessing.get_context("spawn")
    here, there = spawn.Pipe()
    process = spawn.Process(target=serve, args=(url, folder, there))
    process.start()
    yield here.recv()
    here.send(None)
    process.join(30)


def measure(index: Index, url: str, folder: Path, count: int) -> None:
    chance = random.Random(1)

    def barcode(_: int) -> bytes:
        return query(BarcodeValue=numbered(chance.randrange(count))["container"])

    kinds: dict[str, Callable[[int], bytes]] = {
        "barcode": barcode,
        "container in the specimen sequence": lambda _: query(
            container=numbered(chance.randrange(count))["container"]
        ),
        "accession (20 items)": lambda _: query(
            AccessionNumber=numbered(chance.randrange(count))["accession"]
        ),
        "patient (20 items)": lambda _: query(PatientID=numbered(chance.randrange(count))["patient"]),
        "name with * (200 items)": lambda _: query(
            PatientName=numbered(chance.randrange(count))["name"][:-1] + "*"
        ),
        "barcode, station, modality, day": lambda _: everything(chance.randrange(count)),
        f"station and day ({count // DAYS} items)": lambda _: station_day(chance.randrange(count)),
    }
    with listener(url, folder) as port, associated(port) as association:
        echo = times(lambda _: association.c_echo())
        told("C-ECHO", echo)
        for name, make in kinds.items():
            identifiers = [make(number) for number in range(ASKED)]
            assert association.find(identifiers[0]) > 0, name
            got = times(lambda n, some=identifiers: association.find(some[n]))
            told(name, got, "C-ECHO", statistics.median(got) / statistics.median(echo))
        rate(index, port)
        scanners(port, count)


def everything(number: int) -> bytes:
    values = numbered(number)
    return query(
        BarcodeValue=values["container"], step_ScheduledStationAETitle=values["station"],
        step_Modality="SM", step_ScheduledProcedureStepStartDate=values["date"],
    )  # fmt: skip


def station_day(number: int) -> bytes:
    values = numbered(number)
    return query(
        step_ScheduledStationAETitle=values["station"], step_ScheduledProcedureStepStartDate=values["date"]
    )


def rate(index: Index, port: int) -> None:
    """Items a second of a query that matches very many; raw: findscu only counts them."""
    with index.read() as database:
        start = time.perf_counter()
        found = database.execute_sql(
            f"SELECT content FROM worklist_item WHERE active = 1 ORDER BY place LIMIT {BROAD}"
        ).fetchall()
        for row in found:
            json.loads(zlib.decompress(bytes(row[0])))
        bare = len(found) / (time.perf_counter() - start)
    for name, identifier in (
        ("modality", query(step_Modality="SM")),
        ("station", query(step_ScheduledStationAETitle="SCANNER01")),
        ("days", query(step_ScheduledProcedureStepStartDate="20260101-")),
        ("no key", query()),
    ):
        with associated(port) as association:
            start = time.perf_counter()
            count = association.find(identifier)
            per_s = count / (time.perf_counter() - start)
        print(f"{count} items by {name:31} {per_s:7.0f} items/s   {per_s / bare:.2f} x bare SQL and JSON")


def scanners(port: int, count: int) -> None:
    """Many scanners, each with its own association, that ask one after the other."""
    results: list[float] = []
    lock, gate = threading.Lock(), threading.Barrier(SCANNERS)

    def scanner(seed: int) -> None:
        chance = random.Random(seed)
        with associated(port) as association:
            gate.wait(60)
            time.sleep(chance.random())
            for _ in range(10):
                identifier = query(BarcodeValue=numbered(chance.randrange(count))["container"])
                start = time.perf_counter()
                association.find(identifier)
                with lock:
                    results.append(time.perf_counter() - start)
                time.sleep(1.0)

    threads = [threading.Thread(target=scanner, args=(seed,)) for seed in range(SCANNERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    told(f"barcode, {SCANNERS} scanners, one query a second each", results)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--fill-only", action="store_true")
    given = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = given.keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(parents=True, exist_ok=True)
        url = f"sqlite:///{(folder / 'worklist.db').absolute()}"
        if given.database == "postgresql":
            url = postgres.new_database(stack.enter_context(postgres.server()), "worklist")
        index = Index.open(url, run_dir=folder / "run")
        index.migrate()
        with index.read() as database:
            is_new = database.execute_sql("SELECT 1 FROM worklist_item LIMIT 1").fetchone() is None
        if is_new:
            start = time.perf_counter()
            fill(index, given.items)
            print(f"{given.items} items written in {time.perf_counter() - start:.0f} s")
        if not given.fill_only:
            print(f"{given.database}, {given.items} items")
            measure(index, url, folder, given.items)
        index.close()


if __name__ == "__main__":
    main()
