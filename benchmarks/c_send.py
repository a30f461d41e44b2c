# SPDX-License-Identifier: Apache-2.0
"""Sending against DCMTK's ``storescu``: ``python -m benchmarks.c_send``.

``coverslip send`` from an archive (start of the interpreter, audit and confirmations
included) and ``storescu`` with PDUs of 128 KiB from a file send the same three levels of 1 GB in
turns to ``storescp``, which throws it away. All on loopback. Prints medians, their ratio and
our peak memory; exits 1 when a goal is missed.
"""

import contextlib
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from archive.peer import Peer
from benchmarks.c_store import free_port, peak_memory_mb, wait_for
from benchmarks.frame_table import hardware
from tests.support.archives import ASK, open_archive, store_bytes
from tests.support.instances import make_instance
from tests.support.require import require_tool

RUNS = 3
STUDY = "1.2.1"
LEVELS, TILES, TILE_BYTES = 3, 83, 4_000_000  # 1 GB
GOAL = 0.5  # of storescu's speed
MEMORY_GOAL_MB = 150


def ours(data: Path, study: str) -> tuple[float, float]:
    """Wall seconds and peak memory in MB of ``coverslip send``."""
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "gateway", "send", study, "--to", "PEER", "--again", "--data", str(data)],
        stdout=subprocess.DEVNULL,
    )
    peak = 0.0
    # Not by wait4: that counts what we had in memory when the process was made.
    while process.poll() is None:
        with contextlib.suppress(OSError, RuntimeError):
            peak = max(peak, peak_memory_mb(process.pid))
        time.sleep(0.02)
    if process.returncode:
        raise RuntimeError(f"coverslip send failed with exit code {process.returncode}")
    return time.perf_counter() - started, peak


def theirs(port: int, files: list[Path]) -> float:
    started = time.perf_counter()
    subprocess.run(
        ["storescu", "-R", "-xy", "-pdu", "131072", "-aec", "PEER", "127.0.0.1", str(port), *map(str, files)],
        env={**os.environ, "TCP_NODELAY": "1"}, check=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    return time.perf_counter() - started


def main() -> int:
    for tool in ("storescu", "storescp"):
        require_tool(tool)
    print(hardware())
    with tempfile.TemporaryDirectory() as name:
        return compare(Path(name))


def compare(folder: Path) -> int:
    rng = random.Random(1)
    tiles = [b"\xff\xd8" + rng.randbytes(TILE_BYTES) + b"\xff\xd9"] * TILES
    big = []
    for number in range(LEVELS):
        big.append(folder / f"level-{number}.dcm")
        big[-1].write_bytes(make_instance(study=STUDY, frames=TILES, tiles=tiles))
    archive = open_archive(folder / "data")
    for path in big:
        store_bytes(archive, path.read_bytes())
    port = free_port()
    archive.put_peer(Peer("PEER", host="127.0.0.1", port=port), **ASK)  # type: ignore[arg-type]
    archive.close()
    receiver = subprocess.Popen(
        ["storescp", "+xa", "-pdu", "131072", "--ignore", str(port)],
        env={**os.environ, "TCP_NODELAY": "1"}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        wait_for(port)
        mine, peers, memory = [], [], 0.0
        for _ in range(RUNS):
            peers.append(theirs(port, big))
            seconds, peak = ours(folder / "data", STUDY)
            mine.append(seconds)
            memory = max(memory, peak)
    finally:
        receiver.terminate()
        receiver.wait()
    ratio = statistics.median(peers) / statistics.median(mine)
    size_mb = sum(path.stat().st_size for path in big) / 1e6
    print(
        f"{size_mb:.0f} MB: storescu {statistics.median(peers):.2f} s, "
        f"ours {statistics.median(mine):.2f} s: {ratio:.2f} of its speed, peak {memory:.0f} MB"
    )
    return int(ratio < GOAL or memory > MEMORY_GOAL_MB)


if __name__ == "__main__":
    sys.exit(main())
