# SPDX-License-Identifier: Apache-2.0
"""STOW-RS of one instance of 1 GB: memory of the web processes, time against a copy and
against Debian's Orthanc.

Sent by curl into an empty archive each time, with a Content-Length and chunked; durable
when answered.
"""

import contextlib
import io
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import JPEGBaseline8Bit

from benchmarks.orthanc import MEMORY_BYTES, missing, running_orthanc
from tests.support.instances import jpeg_tile, make_dataset
from tests.support.require import require_tool
from tests.support.server import Server, running_server

RUNS = 5
PEER_RUNS = 3
LIMIT_S = 40
TILE_BYTES = 1 << 20
TILES = 1024
BOUNDARY = "coverslip-benchmark"


def write_body(path: Path, seed: int) -> int:
    """A multipart body of one instance of 1 GiB, its frames not compressed further."""
    dataset = make_dataset(frames=TILES, tile=32)
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = JPEGBaseline8Bit
    head = io.BytesIO()
    FileDataset(head, dataset, file_meta=meta, preamble=bytes(128)).save_as(head, enforce_file_format=True)
    tile = jpeg_tile(seed)
    padding = os.urandom(TILE_BYTES - len(tile))
    item = b"\xfe\xff\x00\xe0" + TILE_BYTES.to_bytes(4, "little") + tile + padding
    with path.open("wb") as out:
        out.write(f"--{BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n".encode())
        out.write(head.getvalue())
        out.write(b"\xe0\x7f\x10\x00OB\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\0\0\0\0")
        for _ in range(TILES):
            out.write(item)
        out.write(b"\xfe\xff\xdd\xe0\0\0\0\0" + f"\r\n--{BOUNDARY}--\r\n".encode())
    return path.stat().st_size


def send(url: str, body: Path, *, chunked: bool, limit_s: int = 0) -> float | None:
    """Seconds until it was answered; None if that took longer than ``limit_s``."""
    headers = [
        "-H", f'Content-Type: multipart/related; type="application/dicom"; boundary={BOUNDARY}',
        "-H", "Accept: application/dicom+json", "-H", "Expect:",
    ]  # fmt: skip
    if chunked:
        headers += ["-H", "Transfer-Encoding: chunked"]
    begun = time.monotonic()
    done = subprocess.run(
        [require_tool("curl"), "-s", "-o", "/dev/null", "-w", "%{http_code}", "-X", "POST", *headers,
         *(["--max-time", str(limit_s)] if limit_s else []), "-T", str(body), f"{url}/dicom-web/studies"],
        capture_output=True, text=True,
    )  # fmt: skip
    taken = time.monotonic() - begun
    if limit_s and done.returncode == 28:
        return None
    if done.stdout != "200":
        raise RuntimeError(f"the server answered {done.stdout}")
    return taken


def peaks(server: Server) -> dict[str, int]:
    """Highest memory of each process of the server, in MB, by what it runs."""
    found: dict[str, int] = {}
    tree = [server.process.pid]
    while tree:
        pid = tree.pop()
        with contextlib.suppress(OSError):
            tree += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
            command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
            status = Path(f"/proc/{pid}/status").read_text()
            peak = next(int(row.split()[1]) >> 10 for row in status.splitlines() if row.startswith("VmHWM"))
            role = command.split("gateway ", 1)[-1].split()[0] if "gateway " in command else command[:30]
            found[role] = max(found.get(role, 0), peak)
    return found


def copied(body: Path, target: Path) -> float:
    begun = time.monotonic()
    subprocess.run(["cp", body, target], check=True)
    with target.open("rb") as file:
        os.fsync(file.fileno())
    taken = time.monotonic() - begun
    target.unlink()
    return taken


def ours(folder: Path, body: Path, *, chunked: bool, memory: dict[str, int]) -> float:
    """One body into an empty archive; peaks of the server's processes go into ``memory``."""
    with running_server(folder) as server:
        taken = send(server.url, body, chunked=chunked)
        for role, peak in peaks(server).items():
            memory[role] = max(memory.get(role, 0), peak)
    shutil.rmtree(folder)
    assert taken is not None
    return taken


def theirs(folder: Path, body: Path, *, chunked: bool) -> tuple[float | None, int, str]:
    """The same into an empty Orthanc, which does not flush to the medium."""
    with running_orthanc(folder) as orthanc:
        taken = send(orthanc.url, body, chunked=chunked, limit_s=LIMIT_S)
        peak = orthanc.peak_mb()
    shutil.rmtree(folder)
    return taken, peak, orthanc.version


def main() -> int:
    print(f"{platform.platform()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    memory: dict[str, int] = {}
    times: dict[bool, list[float]] = {False: [], True: []}
    copies, peers, absent = [], [], missing()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        body = folder / "body"
        size = write_body(body, 1)
        for run in range(RUNS):
            copies.append(copied(body, folder / "copy"))
            for chunked in (False, True):
                times[chunked].append(ours(folder / "site", body, chunked=chunked, memory=memory))
            if not absent and run < PEER_RUNS:
                peers.append(theirs(folder / "orthanc", body, chunked=False))
        slow = None if absent else theirs(folder / "orthanc", body, chunked=True)
    floor = statistics.median(copies)
    print(f"body {size / 1e6:.0f} MB, medians of {RUNS}")
    print(f"copy and fsync           {floor:6.2f} s")
    for chunked, label in ((False, "with Content-Length"), (True, "chunked")):
        taken = statistics.median(times[chunked])
        print(f"STOW {label:<20}{taken:6.2f} s  {size / 1e6 / taken:5.0f} MB/s  ratio {taken / floor:.2f}")
    print(f"chunked over Content-Length: {ratio(times[True], times[False]):.2f}")
    if slow is None:
        print(absent)
    else:
        answered = [taken for taken, _, _ in peers if taken is not None]
        print(f"Orthanc {slow[2]}, no fsync, limited to {MEMORY_BYTES >> 30} GiB")
        print(f"  with Content-Length: {', '.join(f'{taken:.1f} s' for taken in answered)}, "
              f"peak {max(peak for _, peak, _ in peers)} MB")  # fmt: skip
        print("  chunked: " + (f"{slow[0]:.1f} s" if slow[0] else f"more than {LIMIT_S} s"))
        print(f"  over ours: {ratio(answered, times[False]):.1f} (goal 2)")
    print("peak memory:", ", ".join(f"{role} {peak} MB" for role, peak in sorted(memory.items())))
    highest = max(memory.values())
    print(f"highest {highest} MB (goal 150)")
    return 0 if highest <= 150 else 1


def ratio(above: list[float], below: list[float]) -> float:
    return statistics.median(above) / statistics.median(below)


if __name__ == "__main__":
    sys.exit(main())
