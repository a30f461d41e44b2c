# SPDX-License-Identifier: Apache-2.0
"""C-STORE against DCMTK's receiver and Orthanc: ``python -m benchmarks.c_store``.

The same ``storescu`` sends in turns to our listener (hashed, fsynced, indexed, audited
before the answer), to ``storescp`` with PDUs of 128 KiB (which writes and does not sync)
and, where it is installed, to Debian's Orthanc (as shipped): one instance of 330 MB, then
small ones, by the stock sender and by one without Nagle's algorithm (for which there is a
``storescp`` without it, too); last 16 associations at once, to us only. All on loopback
and on the file system of the temporary folder. Prints medians, ratios and our peak memory;
exits 1 when a goal is missed or an instance is not found afterwards.
"""

import contextlib
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from archive.index.query import Level, Query
from benchmarks.frame_table import hardware, make_file
from benchmarks.orthanc import missing, running_orthanc
from tests.gateway.dimse.running import AE_TITLE, running_process
from tests.support.archives import ASK, open_archive
from tests.support.instances import make_instance

RUNS = 3
SMALL = 1000
STALLED = 50  # small ones to receivers that wait 80 ms for each
PARALLEL = 16
PARALLEL_FRAMES = 10_000  # 30 MB each

BIG_GOAL = 0.6  # of storescp's speed
BIG_ORTHANC_GOAL = 2.0
SMALL_GOAL = 10.0  # stock sender, of storescp
SMALL_NODELAY_GOAL = 0.15
MEMORY_GOAL_MB = 150

Case = tuple[str, list[Path], bool]
"""Name, files, and whether the sender has TCP_NODELAY."""


def seconds_to_send(port: int, title: str, files: list[Path], nodelay: bool) -> float:
    """Wall seconds of one sender; every run has SOP Instance UIDs of its own."""
    started = time.perf_counter()
    # It complains on stderr about each attribute that it would number as well.
    process = start_sender(port, title, files, nodelay)
    if process.wait():
        raise RuntimeError(f"storescu failed with exit code {process.returncode}")
    return time.perf_counter() - started


def start_sender(port: int, title: str, files: list[Path], nodelay: bool) -> "subprocess.Popen[bytes]":
    command = ["storescu", "-R", "-xy", "+II", "-aec", title, "127.0.0.1", str(port), *map(str, files)]
    environment = {**os.environ, "TCP_NODELAY": "1"} if nodelay else None
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


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
        return len(archive.find(Query(Level.INSTANCE), **ASK).rows)  # type: ignore[arg-type]
    finally:
        archive.close()


@contextlib.contextmanager
def storescp(folder: Path, nodelay: bool = False) -> Iterator[int]:
    """Its port; ``nodelay``: it answers without Nagle's algorithm."""
    folder.mkdir(exist_ok=True)
    port = free_port()
    receiver = subprocess.Popen(
        ["storescp", "+xa", "-pdu", "131072", "-od", str(folder), str(port)],
        env={**os.environ, "TCP_NODELAY": "1"} if nodelay else None,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        wait_for(port)
        yield port
    finally:
        receiver.terminate()
        receiver.wait()


def main() -> int:
    lacking = [tool for tool in ("storescu", "storescp") if shutil.which(tool) is None]
    if lacking:
        print(f"not installed: {', '.join(lacking)}")
        return 1
    with tempfile.TemporaryDirectory() as name:
        return compare(Path(name))


def compare(folder: Path) -> int:
    big = folder / "big.dcm"
    make_file(big)
    small = [folder / f"small-{number:04}.dcm" for number in range(SMALL)]
    for path in small:
        path.write_bytes(make_instance(frames=1))
    cases: list[Case] = [("big", [big], False), ("stock", small, False), ("nodelay", small, True)]
    rates: dict[tuple[str, str], list[float]] = {}
    expected = 0
    with contextlib.ExitStack() as stack:
        theirs = folder / "storescp"
        scp = stack.enter_context(running_process(folder / "data"))
        receivers = {"ours": (scp.port, AE_TITLE), "storescp": (stack.enter_context(storescp(theirs)), "ANY")}
        quick_port = stack.enter_context(storescp(theirs, nodelay=True))
        if not missing():
            orthanc = stack.enter_context(running_orthanc(folder / "orthanc", dicom=True))
            receivers["orthanc"] = (orthanc.dicom_port, "ORTHANC")
        for _ in range(RUNS):
            for case, files, nodelay in cases:
                for who, (port, title) in receivers.items():
                    stalls = case != "big" and (who == "orthanc" or (who == "storescp" and not nodelay))
                    number = STALLED if stalls else len(files)
                    if who == "storescp" and nodelay:
                        port = quick_port
                    seconds = seconds_to_send(port, title, files[:number], nodelay)
                    rates.setdefault((who, case), []).append(number / seconds)
                    expected += number if who == "ours" else 0
                for path in theirs.iterdir():
                    path.unlink()
        alone_mb = peak_memory_mb(scp.process.pid)
        medium = folder / "medium.dcm"
        medium.write_bytes(make_instance(frames=PARALLEL_FRAMES, native=True))
        medium_mb = medium.stat().st_size / 1e6
        started = time.perf_counter()
        senders = [start_sender(scp.port, AE_TITLE, [medium], True) for _ in range(PARALLEL)]
        failures = [sender.wait() for sender in senders]
        if any(failures):
            print("a parallel sender failed")
            return 1
        parallel_s = time.perf_counter() - started
        expected += PARALLEL
        memory_mb = peak_memory_mb(scp.process.pid)
    return report(
        rates, big.stat().st_size / 1e6, alone_mb, memory_mb, PARALLEL * medium_mb / parallel_s,
        number_stored(folder / "data") == expected,
    )  # fmt: skip


def report(
    rates: dict[tuple[str, str], list[float]],
    big_mb: float,
    alone_mb: float,
    memory_mb: float,
    parallel_mb_s: float,
    all_found: bool,
) -> int:
    median = {key: statistics.median(values) for key, values in rates.items()}
    print(hardware())
    print(f"one instance of {big_mb:.0f} MB, and small ones, by storescu; medians of {RUNS}")
    labels = {"ours": "ours, fsynced", "storescp": "storescp, 128 KiB", "orthanc": "Orthanc, as shipped"}
    for who, label in labels.items():
        if (who, "big") in median:
            print(
                f"{label:<20} {median[who, 'big'] * big_mb:6.0f} MB/s"
                f"   {median[who, 'stock']:6.0f} small/s   {median[who, 'nodelay']:6.0f} with TCP_NODELAY"
            )
    goals = [
        ("330 MB of storescp", median["ours", "big"] / median["storescp", "big"], BIG_GOAL),
        ("small, stock, of storescp", median["ours", "stock"] / median["storescp", "stock"], SMALL_GOAL),
        (
            "small, TCP_NODELAY, of storescp",
            median["ours", "nodelay"] / median["storescp", "nodelay"],
            SMALL_NODELAY_GOAL,
        ),
    ]
    if ("orthanc", "big") in median:
        goals.append(
            ("330 MB of Orthanc", median["ours", "big"] / median["orthanc", "big"], BIG_ORTHANC_GOAL)
        )
    else:
        print(missing())
    for label, found, goal in goals:
        print(f"{label:<34} {found:6.2f} (goal {goal})")
    print(f"{PARALLEL} associations at once: {parallel_mb_s:.0f} MB/s")
    print(f"peak memory {alone_mb:.0f} MB, with {PARALLEL} {memory_mb:.0f} MB (goal {MEMORY_GOAL_MB})")
    if not all_found:
        print("not all instances were found afterwards")
    reached = all(found >= goal for _, found, goal in goals)
    return 0 if reached and all_found and memory_mb < MEMORY_GOAL_MB else 1


if __name__ == "__main__":
    sys.exit(main())
