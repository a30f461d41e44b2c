# SPDX-License-Identifier: Apache-2.0
"""C-MOVE of a 1 GB study against DCMTK's sender: ``python -m benchmarks.c_move``.

Stock ``movescu`` asks our listener to send three instances of 330 MB to ``storescp``
with PDUs of 128 KiB; in turns stock ``storescu`` sends the same files to the same
``storescp``. Both on loopback, read from and written to the file system of the temporary
folder. Prints medians of three, their ratio and our peak memory; exits 1 when a goal is
missed or what arrived differs from what was stored.
"""

import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from pydicom import dcmread

from archive.peer import Peer
from benchmarks.c_store import free_port, peak_memory_mb, wait_for
from benchmarks.frame_table import hardware
from tests.gateway.dimse.running import AE_TITLE, running_process
from tests.support.archives import ASK, open_archive, store_bytes
from tests.support.instances import make_instance

RUNS = 3
STUDY = "1.2.826.0.1.3680043.8.498.99"
INSTANCES, FRAMES, FRAME_BYTES = 3, 5476, 60_000
GOAL = 0.5  # of storescu's speed
MEMORY_GOAL_MB = 150


def make_files(folder: Path) -> list[Path]:
    """Instances of one study; frames of noise between the marks of a JPEG."""
    noise = random.Random(1).randbytes(FRAME_BYTES + FRAMES)
    paths = []
    for number in range(INSTANCES):
        tiles = [
            b"\xff\xd8" + noise[n : n + FRAME_BYTES - 4].replace(b"\xff", b"\xfe") + b"\xff\xd9"
            for n in range(FRAMES)
        ]
        paths.append(folder / f"{number}.dcm")
        paths[-1].write_bytes(make_instance(study=STUDY, frames=FRAMES, tiles=tiles, number=number))
    return paths


def seconds_to_run(*command: str) -> float:
    begun = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - begun


def emptied(folder: Path) -> list[Path]:
    """The files that arrived, which are removed but for their names."""
    found = sorted(folder.iterdir())
    for path in found:
        path.unlink()
    return found


def main() -> int:
    missing = [tool for tool in ("movescu", "storescu", "storescp") if shutil.which(tool) is None]
    if missing:
        print(f"not installed: {', '.join(missing)}")
        return 1
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = make_files(folder)
        port = free_port()
        archive = open_archive(folder / "data")
        for path in paths:
            store_bytes(archive, path.read_bytes())
        archive.put_peer(Peer("STORESCP", host="127.0.0.1", port=port), **ASK)
        archive.put_peer(Peer("MOVESCU", networks=("127.0.0.0/8",), rights=("move",)), **ASK)
        archive.close()
        received = folder / "received"
        received.mkdir()
        receiver = subprocess.Popen(
            ["storescp", "+xa", "-pdu", "131072", "-od", str(received), str(port)],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        ours, theirs, good = [], [], True
        try:
            wait_for(port)
            with running_process(folder / "data") as scp:
                for run in range(RUNS):
                    ours.append(seconds_to_run(
                        "movescu", "-S", "-aec", AE_TITLE, "-aem", "STORESCP",
                        "-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={STUDY}",
                        "127.0.0.1", str(scp.port),
                    ))  # fmt: skip
                    if run == 0:
                        sent = {str(one.SOPInstanceUID): one for one in map(dcmread, paths)}
                        for one in map(dcmread, received.iterdir()):
                            good = good and sent.pop(str(one.SOPInstanceUID)) == one
                        good = good and not sent
                        del sent
                    good = good and len(emptied(received)) == INSTANCES
                    theirs.append(seconds_to_run(
                        "storescu", "-R", "-xy", "-pdu", "131072", "127.0.0.1", str(port), *map(str, paths)
                    ))  # fmt: skip
                    good = good and len(emptied(received)) == INSTANCES
                memory_mb = peak_memory_mb(scp.process.pid)
        finally:
            receiver.terminate()
            receiver.wait()
        size_mb = sum(path.stat().st_size for path in paths) / 1e6
    moved, stored = statistics.median(ours), statistics.median(theirs)
    print(hardware())
    print(f"a study of {INSTANCES} instances, {size_mb:.0f} MB, to the same storescp, medians of {RUNS}")
    print(f"{'ours, by movescu':<20} {moved:6.2f} s  {size_mb / moved:6.0f} MB/s")
    print(f"{'storescu':<20} {stored:6.2f} s  {size_mb / stored:6.0f} MB/s")
    print(f"{'ratio':<20} {stored / moved:6.2f} (goal {GOAL})")
    print(f"{'our peak memory':<20} {memory_mb:6.0f} MB (goal {MEMORY_GOAL_MB})")
    if not good:
        print("what arrived is not what was stored")
    return 0 if good and stored / moved >= GOAL and memory_mb < MEMORY_GOAL_MB else 1


if __name__ == "__main__":
    sys.exit(main())
