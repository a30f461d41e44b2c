# SPDX-License-Identifier: Apache-2.0
"""What the indexes of searching cost when small instances are stored.

The same small instances, each of a study of its own, go into an archive with all indexes,
and into one without those that queries need (``archive.index.migrations.v3``'s: one for
each key, and the attributes'); turn by turn, durable each. Prints processor time, which
other work disturbs less, and time, as ratios. The index is SQLite's and starts empty, so
an index of a million rows, whose pages do not fit the cache, costs more than is seen here.
"""

import os
import platform
import re
import statistics
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from archive.access import OpenPolicy
from archive.index.database import Index
from archive.index.migrations import v3
from archive.service import Archive
from archive.storage.local import LocalStorage
from tests.support.archives import store_bytes
from tests.support.instances import make_instance

RUNS = 5
INSTANCES = 150


def store(folder: Path, bodies: list[bytes], *, indexed: bool) -> tuple[float, float]:
    """Milliseconds of processor and of time for each instance."""
    folder.mkdir()
    index = Index.open(f"sqlite:///{folder / 'coverslip.db'}", run_dir=folder / "run")
    index.migrate()
    if not indexed:
        with index.read() as database:
            for statement in v3._INDEXES:
                found = re.match(r"CREATE INDEX (\w+_by_\w+) ON", statement)
                if found is not None:
                    database.execute_sql(f"DROP INDEX {found[1]}")
    archive = Archive(LocalStorage(folder / "store"), index, policy=OpenPolicy(), data_dir=folder)
    cpu, begun = time.process_time(), time.perf_counter()
    for body in bodies:
        store_bytes(archive, body)
    spent, taken = time.process_time() - cpu, time.perf_counter() - begun
    archive.close()
    return spent / len(bodies) * 1000, taken / len(bodies) * 1000


def main() -> int:
    print(f"{platform.platform()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    found: dict[bool, list[tuple[float, float]]] = {True: [], False: []}
    for run in range(RUNS):
        bodies = [make_instance(frames=1, patient_name=f"P{n}^{run}") for n in range(INSTANCES)]
        for indexed in (False, True):
            with tempfile.TemporaryDirectory() as name:
                found[indexed].append(store(Path(name) / "data", bodies, indexed=indexed))
    for place, label in enumerate(("processor", "time")):
        without, with_all = (statistics.median(one[place] for one in found[key]) for key in (False, True))
        print(f"{label:<10} without {without:6.2f} ms, with {with_all:6.2f} ms an instance"
              f"  ratio {with_all / without:.2f}")  # fmt: skip
    print(f"load at the end {os.getloadavg()[0]:.1f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
