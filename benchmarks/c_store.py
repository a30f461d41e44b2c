# SPDX-License-Identifier: Apache-2.0
"""C-STORE against DCMTK's receiver: ``python -m benchmarks.c_store``.

The same stock ``storescu`` sends, in turns, one instance of 330 MB and 100 small ones to
our listener (hashed, fsynced, indexed, audited before the answer) and to ``storescp``
with PDUs of 128 KiB (which writes and does not sync), both on loopback and on the file
system of the temporary folder. Prints medians of five, their ratio and our peak memory;
exits 1 when a goal is missed or an instance is not found afterwards.
"""

import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from archive.index.query import Level, Query
from benchmarks.frame_table import hardware, make_file
from tests.gateway.dimse.running import AE_TITLE, running_process
from tests.support.archives import ASK, open_archive
from tests.support.instances import make_instance

RUNS = 5
SMALL = 100
BIG_GOAL = 0.5  # of storescp's speed
# Never slower, whatever the load: storescp waits 80 ms for each small instance, idle, because
# of Nagle's algorithm; ours computes, and syncs nine times. On a quiet machine several times.
SMALL_GOAL = 1.0
MEMORY_GOAL_MB = 150


def seconds_to_send(port: int, title: str, files: list[Path]) -> float:
    """Wall seconds of one stock sender; every run has SOP Instance UIDs of its own."""
    command = ["storescu", "-R", "-xy", "+II", "-aec", title, "127.0.0.1", str(port), *map(str, files)]
    started = time.perf_counter()
    # It complains on stderr about each attribute that it would number as well.
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - started


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def wait_for(port: int) -> None:
    """Until somebody accepts connections on the port."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except ConnectionRefusedError:
            time.sleep(0.02)
    raise TimeoutError("storescp does not listen")


def peak_memory_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("no VmHWM")


def number_stored(data: Path) -> int:
    archive = open_archive(data)
    try:
        return len(archive.find(Query(Level.INSTANCE), **ASK).rows)
    finally:
        archive.close()


def main() -> int:
    missing = [tool for tool in ("storescu", "storescp") if shutil.which(tool) is None]
    if missing:
        print(f"not installed: {', '.join(missing)}")
        return 1
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        big = folder / "big.dcm"
        make_file(big)
        small = [folder / f"small-{number:03}.dcm" for number in range(SMALL)]
        for path in small:
            path.write_bytes(make_instance(frames=1))
        theirs = folder / "storescp"
        theirs.mkdir()
        port = free_port()
        receiver = subprocess.Popen(
            ["storescp", "+xa", "-pdu", "131072", "-od", str(theirs), str(port)],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        kinds = (("big", [big]), ("small", small))
        times: dict[str, list[float]] = {
            f"{who} {kind}": [] for who in ("ours", "theirs") for kind, _ in kinds
        }
        try:
            wait_for(port)
            with running_process(folder / "data") as scp:
                for _ in range(RUNS):
                    for kind, files in kinds:
                        times[f"ours {kind}"].append(seconds_to_send(scp.port, AE_TITLE, files))
                        times[f"theirs {kind}"].append(seconds_to_send(port, "ANY", files))
                        for path in theirs.iterdir():
                            path.unlink()
                memory_mb = peak_memory_mb(scp.process.pid)
        finally:
            receiver.terminate()
            receiver.wait()
        big_mb = big.stat().st_size / 1e6
        stored = number_stored(folder / "data")
    medians = {key: statistics.median(values) for key, values in times.items()}
    ratio, small_ratio = (medians[f"theirs {kind}"] / medians[f"ours {kind}"] for kind in ("big", "small"))
    print(hardware())
    print(f"one instance of {big_mb:.0f} MB and {SMALL} small ones by stock storescu, medians of {RUNS}")
    for who, label in (("ours", "ours, fsynced"), ("theirs", "storescp, 128 KiB")):
        seconds, many = medians[f"{who} big"], medians[f"{who} small"]
        print(f"{label:<20} {seconds:6.2f} s  {big_mb / seconds:6.0f} MB/s   {SMALL / many:6.0f} small/s")
    print(f"{'ratio':<20} {ratio:.2f} (goal {BIG_GOAL})          {small_ratio:.1f} (goal {SMALL_GOAL})")
    print(f"{'our peak memory':<20} {memory_mb:.0f} MB (goal {MEMORY_GOAL_MB})")
    expected = RUNS * (1 + SMALL)
    if stored != expected:
        print(f"{stored} of {expected} instances were found afterwards")
        return 1
    return 0 if ratio >= BIG_GOAL and small_ratio >= SMALL_GOAL and memory_mb < MEMORY_GOAL_MB else 1


if __name__ == "__main__":
    sys.exit(main())
