# SPDX-License-Identifier: Apache-2.0
"""QIDO-RS over HTTP on an index of 1,000,000 instances: 50,000 studies, 100,000 series.

Targets: first page of each indexed key, and paging on, 10 ms in the median; a random deep
offset 300 ms; a guest who sees 10 studies within 1.5 of one who sees all. Each is asked
with values that nothing was cached for, beside the bare SQL that finds the same rows. The
index takes 3 GB: ``--keep FOLDER`` keeps (and uses) that of SQLite.

    benchmarks/qido.py [--database sqlite|postgresql] [--instances 1000000] [--keep FOLDER]
"""

import argparse
import contextlib
import http.client
import multiprocessing
import os
import platform
import random
import shutil
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from archive.access import EVERYTHING, Action, Principal, Scope
from archive.index.database import Index
from archive.index.sounds import name_sounds
from archive.index.text import fold_name
from tests.support import postgres

PER_SERIES, PER_STUDY = 10, 2
ASKED = 31  # requests of a kind
PAGE = 25
FAMILY = [
    "Müller",
    "Meyer",
    "Schmidt",
    "Jansen",
    "Nowak",
    "Rossi",
    "Dubois",
    "García",
    "Olsen",
    "Novák",
    "Kowalski",
    "Smith",
    "Okafor",
]
GIVEN = [
    "Anna",
    "Jörg",
    "Maria",
    "Piotr",
    "Zoë",
    "Karl",
    "Ingrid",
    "Luca",
    "Chloé",
    "José",
    "Aisha",
    "Kenji",
    "Olga",
    "Emma",
    "Noah",
]
SUFFIX = [a + b + c for a in "bdfglmnrst" for b in "aeiou" for c in "lnrs"]
UID = "2.25.18446744073709551616"

STUDY = (
    "INSERT INTO study (id, study_instance_uid, place, study_date, study_time, study_time_key, patient_id, "
    "patient_name, patient_name_folded, patient_birth_date, accession_number, referring_physician_name, "
    "referring_physician_name_folded, study_id, modalities, number_of_series, number_of_instances, "
    "protocol_study_id, created, updated) VALUES ({marks})"
)
SERIES = """
INSERT INTO series (id, study_id, place, series_instance_uid, modality, series_number,
  performed_procedure_step_start_date, device_serial_number, number_of_instances, container_identifier,
  created, updated)
SELECT s.id * 2 + k.n, s.id, s.place, s.study_instance_uid || '.' || k.n,
  CASE WHEN s.id % 50 = 0 AND k.n = 1 THEN 'ANN' ELSE 'SM' END, k.n + 1, s.study_date,
  'D' || (s.id % 40), {per_series}, 'C' || (s.id * 2 + k.n), 0, 0
FROM study s CROSS JOIN (SELECT 0 AS n UNION ALL SELECT 1) k ORDER BY s.id
"""
INSTANCE = """
INSERT INTO instance (id, study_id, series_id, place, sop_instance_uid, sop_class_uid, transfer_syntax_uid,
  instance_number, modality, number_of_frames, rows, columns, bits_allocated, photometric_interpretation,
  total_pixel_matrix_rows, total_pixel_matrix_columns, content_date, base_digest, dataset_digest,
  content_digest, pixel_digest, has_pixel_data, stored)
SELECT e.id * 10 + k.n, e.study_id, e.id, e.place, e.series_instance_uid || '.' || k.n,
  '1.2.840.10008.5.1.4.1.1.77.1.6', '1.2.840.10008.1.2.4.50', k.n, e.modality, 100, 256, 256, 8,
  'YBR_FULL_422', 1000 + (e.id * 10 + k.n) % 90000, 1000 + (e.id * 10 + k.n) % 80000,
  e.performed_procedure_step_start_date, {digest}, {digest}, {digest}, {digest}, {true}, 0
FROM series e CROSS JOIN ({numbers}) k ORDER BY e.id
"""
ATTRIBUTES = {  # path -> column, value of instance i
    "00080008": ("folded", "CASE WHEN i.instance_number = 9 THEN 'LABEL' ELSE 'VOLUME' END"),
    "00080008 ": ("folded", "CASE WHEN i.instance_number > 0 THEN 'DERIVED' ELSE 'ORIGINAL' END"),
    "00080019": ("folded", f"'{UID}1' || i.series_id"),
    "00200052": ("folded", f"'{UID}2' || i.series_id"),
    "00209311": ("folded", "CASE WHEN i.id % 997 = 0 THEN 'TILED_SPARSE' ELSE 'TILED_FULL' END"),
    "00209161": ("folded", f"CASE WHEN i.id % 50 = 0 THEN '{UID}3' || i.id ELSE '' END"),
    "00400512": ("folded", "'C' || i.series_id"),
    "00400560.00400551": ("folded", "'S' || i.series_id || '-A'"),
    "00400560.00400554": ("folded", f"'{UID}4' || i.series_id"),
    "00400560.00400610.00400612.0040A168.00080100": ("folded", "'12710' || (i.series_id % 300)"),
    "00480105.00480112": ("num", "CASE WHEN i.series_id % 3 = 0 THEN 40.0 ELSE 20.0 END"),
}
MATRIX = "TotalPixelMatrixColumns"


def fill(index: Index, studies: int) -> None:
    """Rows straight into the tables; indexes are made behind them."""
    sqlite = index.dialect == "sqlite"
    mark = "?" if sqlite else "%s"
    chance = random.Random(1)
    database = index.database
    catalogue = (
        "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL AND tbl_name IN {}"
        if sqlite
        else "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public' AND tablename IN {} "
        "AND indexname NOT LIKE '%%_pkey' AND indexname NOT LIKE '%%_key'"
    ).format("('study', 'series', 'instance', 'attribute', 'name_sound')")

    def execute(sql: str) -> None:
        database.execute_sql(sql if sqlite else sql.replace("%", "%%"))

    with index.read():
        indexes = database.execute_sql(catalogue).fetchall()
        if sqlite:
            database.execute_sql("PRAGMA synchronous = off")
        else:
            database.execute_sql("SET statement_timeout = 0")
            database.execute_sql("SET maintenance_work_mem = '256MB'")
        with database.atomic():
            for name, _ in indexes:
                database.execute_sql(f"DROP INDEX {name}")
            rows, sounds = [], []
            for n in range(1, studies + 1):
                day = chance.randrange(4800)
                date = f"{2007 + day // 240}{1 + day % 240 // 20:02}{1 + day % 20:02}"
                name = f"{FAMILY[n % 13]}{SUFFIX[n % 200]}^{chance.choice(GIVEN)}"
                rows.append((
                    n, f"{UID}0{n}", (int(date) << 36) + n, date, "103000", "103000.000000", f"P{n}", name,
                    fold_name(name)[0], "19500101", f"A{n}", f"Doc{n % 500}", f"doc{n % 500}", f"ID{n}",
                    "ANN\\SM" if n % 50 == 0 else "SM", PER_STUDY, PER_STUDY * PER_SERIES, None, 0, 0,
                ))  # fmt: skip
                sounds += [(n, "00100010", key) for key in name_sounds(name)]
            cursor = database.connection().cursor()
            cursor.executemany(STUDY.format(marks=", ".join([mark] * len(rows[0]))), rows)
            cursor.executemany(
                f"INSERT INTO name_sound (study_id, path, sound) VALUES ({mark}, {mark}, {mark})", sounds
            )
            execute(SERIES.format(per_series=PER_SERIES))
            execute(INSTANCE.format(
                numbers=" UNION ALL ".join(f"SELECT {n} AS n" for n in range(PER_SERIES)),
                digest=f"X'{'ab' * 32}'" if sqlite else f"'\\x{'ab' * 32}'::bytea",
                true="1" if sqlite else "TRUE",
            ))  # fmt: skip
            for path, (column, value) in ATTRIBUTES.items():
                execute(
                    f"INSERT INTO attribute (instance_id, place, series_id, path, {column}) SELECT * FROM "
                    f"(SELECT i.id, i.place, i.series_id, '{path.strip()}', {value} AS v FROM instance i) q "
                    + ("WHERE v <> ''" if column == "folded" else "")
                )
            for _, sql in indexes:
                database.execute_sql(sql)
        if sqlite:
            database.execute_sql("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        else:  # what autovacuum does by itself
            database.connection().commit()
            database.connection().autocommit = True
            database.execute_sql("VACUUM ANALYZE")


# ---- serving ------------------------------------------------------------------------


class Sees:
    """A policy of one scope."""

    def __init__(self, scope: Scope) -> None:
        self._scope = scope

    def scope(self, principal: Principal) -> Scope:
        return self._scope

    def allows(self, principal: Principal, action: Action) -> bool:
        return True


def serve(url: str, folder: Path, scope: Scope, listener: socket.socket) -> None:
    from archive.service import Archive
    from archive.storage.local import LocalStorage
    from dicomweb.app import create_app
    from dicomweb.settings import WebSettings
    from gateway import web
    from gateway.settings import HttpSettings, Settings

    def app() -> Any:
        index = Index.open(url, run_dir=folder / "run")
        archive = Archive(LocalStorage(folder / "store"), index, policy=Sees(scope), data_dir=folder)
        return create_app(archive, WebSettings())

    settings = Settings(data_dir=str(folder), http=HttpSettings(workers=1, threads=4))
    web.serve(settings, listener, app, lambda: None)


@contextlib.contextmanager
def server(url: str, folder: Path, scope: Scope) -> Iterator[Callable[[str], tuple[float, int]]]:
    """Asks a path and query; milliseconds, and how many results came."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # we connect before gunicorn sets it
    child = multiprocessing.get_context("spawn").Process(target=serve, args=(url, folder, scope, listener))
    child.start()
    connection = http.client.HTTPConnection("127.0.0.1", listener.getsockname()[1], timeout=120)

    def ask(path: str) -> tuple[float, int]:
        begun = time.perf_counter()
        connection.request("GET", f"/dicom-web{path}", headers={"Accept": "application/dicom+json"})
        answer = connection.getresponse()
        body = answer.read()
        taken = (time.perf_counter() - begun) * 1000
        if answer.status not in (200, 204):
            raise RuntimeError(f"{answer.status}: {body[:200]!r}")
        return taken, body.count(b'"00081190"')

    try:
        ask("/studies?limit=1")
        yield ask
    finally:
        connection.close()
        child.terminate()
        child.join()
        listener.close()


# ---- what is asked ------------------------------------------------------------------


def keys(studies: int) -> Iterator[tuple[str, str, Callable[[int], str]]]:
    """(resource, key, value of study n) of every kind of key."""
    series = lambda n: n * 2 + 1  # noqa: E731
    for resource in ("/studies", "/series", "/instances"):
        yield resource, "", lambda n: ""
    yield "/studies", "PatientID", lambda n: f"P{n}"
    yield "/studies", "PatientName", lambda n: f"{FAMILY[n % 13]}{SUFFIX[n % 200]}*"
    yield (
        "/studies",
        "fuzzymatching=true&PatientName",
        lambda n: f"{GIVEN[n % 15]} {FAMILY[n % 13]}{SUFFIX[n % 200]}",
    )
    yield "/studies", "AccessionNumber", lambda n: f"A{n}"
    yield "/studies", "StudyID", lambda n: f"ID{n}"
    yield "/studies", "StudyInstanceUID", lambda n: f"{UID}0{n}"
    yield "/studies", "ReferringPhysicianName", lambda n: f"Doc{n % 500}"
    yield "/studies", "StudyDate", lambda n: f"{2007 + n % 20}0105-{2007 + n % 20}0308"
    yield "/studies", "StudyTime", lambda n: f"{n % 10:02}-11"
    yield "/studies", "ModalitiesInStudy", lambda n: ("SM", "ANN", f"X{n}")[n % 3]
    yield "/series", "Modality", lambda n: ("SM", "ANN", f"X{n}")[n % 3]
    yield "/series", "SeriesInstanceUID", lambda n: f"{UID}0{n}.1"
    yield "/series", "SeriesNumber", lambda n: str(1 + n % 3)
    yield "/series", "PerformedProcedureStepStartDate", lambda n: f"{2007 + n % 20}0105"
    yield "/series", "DeviceSerialNumber", lambda n: f"D{n % 40}"
    yield "/instances", "SOPClassUID", lambda n: ("1.2.840.10008.5.1.4.1.1.77.1.6", f"1.2.{n}")[n % 2]
    yield "/instances", "SOPInstanceUID", lambda n: f"{UID}0{n}.1.3"
    yield "/instances", "InstanceNumber", lambda n: str(n % 12)
    for resource in ("/studies", "/series", "/instances"):
        yield resource, "ContainerIdentifier", lambda n: f"C{series(n)}"
        yield resource, "SpecimenDescriptionSequence.SpecimenIdentifier", lambda n: f"S{series(n)}-A"
        yield resource, "00400560.00400610.00400612.0040A168.00080100", lambda n: f"12710{n % 310}"
        yield resource, "ImageType", lambda n: ("LABEL", "VOLUME", f"X{n}")[n % 3]
        yield resource, MATRIX, lambda n: str(1000 + n)
        yield resource, "DimensionOrganizationType", lambda n: ("TILED_SPARSE", "TILED_FULL", f"X{n}")[n % 3]
    yield "/instances", "ContainerIdentifier", lambda n: f"C{series(n)}*"
    yield "/instances", "TotalPixelMatrixRows", lambda n: str(1000 + n)
    yield "/instances", "SpecimenDescriptionSequence.SpecimenUID", lambda n: f"{UID}4{series(n)}"
    yield "/instances", "FrameOfReferenceUID", lambda n: f"{UID}2{series(n)}"
    yield "/instances", "PyramidUID", lambda n: f"{UID}1{series(n)}"
    yield "/instances", "ConcatenationUID", lambda n: f"{UID}3{series(n) * 10 // 50 * 50}"
    yield "/instances", "OpticalPathSequence.ObjectiveLensPower", lambda n: ("20", "40", "2.5")[n % 3]
    yield "/instances", "ImageType=LABEL&Modality=SM&ContainerIdentifier", lambda n: f"C{series(n)}"


def bare(index: Index, studies: int) -> dict[str, float]:
    """Milliseconds of plain SQL on a kept connection, for the ratio."""
    mark = "?" if index.dialect == "sqlite" else "%s"
    statements = {
        "PatientID": (f"SELECT * FROM study WHERE patient_id = {mark}", lambda n: f"P{n}"),
        "ContainerIdentifier": (
            "SELECT i.*, e.*, s.* FROM attribute a JOIN instance i ON i.id = a.instance_id "
            "JOIN series e ON e.id = i.series_id JOIN study s ON s.id = i.study_id "
            f"WHERE a.path = '00400512' AND a.folded = {mark}",
            lambda n: f"C{n * 2 + 1}",
        ),
        "": (
            "SELECT i.*, e.*, s.* FROM instance i JOIN series e ON e.id = i.series_id "
            f"JOIN study s ON s.id = i.study_id WHERE i.id > {mark} ORDER BY i.id LIMIT 26",
            lambda n: n,
        ),
    }
    found = {}
    with index.read() as database:
        for key, (sql, value) in statements.items():
            times = []
            for n in random.Random(3).sample(range(1, studies), ASKED):
                begun = time.perf_counter()
                database.execute_sql(sql, (value(n),)).fetchall()
                times.append((time.perf_counter() - begun) * 1000)
            found[key] = statistics.median(times)
    return found


def measure(url: str, folder: Path, studies: int) -> None:
    chance = random.Random(2)
    index = Index.open(url, run_dir=folder / "run")
    plain = bare(index, studies)
    instances = studies * PER_STUDY * PER_SERIES
    worst = 0.0
    with server(url, folder, EVERYTHING) as ask:
        print(f"{index.dialect}: {instances:,} instances, ms in the median of {ASKED} (worst)", flush=True)
        for resource, key, value in keys(studies):
            times, pages, rows = [], [], 0
            for n in chance.sample(range(1, studies), ASKED):
                path = f"{resource}?limit={PAGE}" + (f"&{key}={quote(value(n))}" if key else "")
                taken, count = ask(path)
                times.append(taken)
                rows += count
                if count == PAGE:
                    pages.append(ask(f"{path}&offset={PAGE}")[0])
            line = f"{statistics.median(times):6.1f} ({max(times):6.1f})"
            if pages:
                line += f"   next page {statistics.median(pages):6.1f} ({max(pages):6.1f})"
            if (resource, key) in (
                ("/studies", "PatientID"),
                ("/instances", "ContainerIdentifier"),
                ("/instances", ""),
            ):
                line += f"   {statistics.median(times) / plain[key]:.0f} x bare SQL"
            print(f"  {resource:10} {key or '(no key)':62} {line}  {rows / ASKED:.0f} rows", flush=True)
            worst = max([worst, statistics.median(times)] + ([statistics.median(pages)] if pages else []))
        print(f"  worst median: {worst:.1f} ms, target 10")
        anywhere = [
            ask(f"/studies?limit={PAGE}&PatientName=*{SUFFIX[n]}^{quote(GIVEN[n % 15])}")[0]
            for n in range(ASKED)
        ]
        print(f"  /studies   PatientName=*any^Name, which no index serves: {statistics.median(anywhere):.1f}")
        for resource, total in (("/studies", studies), ("/series", studies * 2), ("/instances", instances)):
            offset, times = chance.randrange(total // 2), []
            for _ in range(ASKED):
                times.append(ask(f"{resource}?limit={PAGE}&offset={offset}")[0])
                offset += PAGE
            deep = [ask(f"{resource}?limit={PAGE}&offset={chance.randrange(total)}")[0] for _ in range(9)]
            print(
                f"  {resource:10} page after page {statistics.median(times[1:]):6.1f} (target 10), "
                f"random offset {statistics.median(deep):6.1f} ({max(deep):6.1f}; target 300)", flush=True
            )  # fmt: skip
    few = chance.sample(range(1, studies), 10)
    guest = Scope(f"study.id IN ({', '.join('?' * len(few))})", tuple(few))
    asked = [
        "/studies?limit=10", "/instances?limit=25", "/series?Modality=SM&limit=10",
        "/instances?ImageType=LABEL&limit=10",
    ]  # fmt: skip
    with server(url, folder, EVERYTHING) as ask, server(url, folder, guest) as ask_as_guest:
        for path in [*asked, f"/studies?PatientID=P{few[0]}"]:
            pairs = [(ask(path)[0], ask_as_guest(path)[0]) for _ in range(ASKED)]  # in turn
            all_ms, guest_ms = map(statistics.median, zip(*pairs, strict=True))
            print(f"  a guest of 10 studies: {path:32} {guest_ms:5.1f} against {all_ms:5.1f}: "
                  f"{guest_ms / all_ms:.2f} (target 1.5)", flush=True)  # fmt: skip
    index.close()


def run(url: str, folder: Path, studies: int) -> None:
    index = Index.open(url, run_dir=folder / "run")
    made = index.schema_version() != 0
    begun = time.monotonic()
    if not made:
        index.migrate()
        fill(index, studies)
        print(f"index of {studies:,} studies made in {time.monotonic() - begun:.0f} s", flush=True)
    index.close()
    (folder / "store").mkdir(exist_ok=True)
    (folder / "store" / "store.json").write_bytes(b'{"store": 1}')
    measure(url, folder, studies)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--database", choices=("sqlite", "postgresql"))
    parser.add_argument("--instances", type=int, default=1_000_000)
    parser.add_argument("--keep", type=Path)
    options = parser.parse_args()
    studies = options.instances // (PER_SERIES * PER_STUDY)
    load = os.getloadavg()[0]
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, load {load:.1f}, Python {platform.python_version()}"
    )
    if options.database != "postgresql":
        folder = options.keep or Path(tempfile.mkdtemp(prefix="coverslip-qido-"))
        folder.mkdir(parents=True, exist_ok=True)
        try:
            run(f"sqlite:///{folder / 'coverslip.db'}", folder, studies)
        finally:
            if not options.keep:
                shutil.rmtree(folder)
    if options.database != "sqlite":
        with postgres.server() as url, tempfile.TemporaryDirectory(prefix="coverslip-qido-") as folder:
            run(postgres.new_database(url, "qido"), Path(folder), studies)


if __name__ == "__main__":
    main()
