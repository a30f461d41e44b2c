# SPDX-License-Identifier: Apache-2.0
"""STOW-RS of one instance of 1 GB: memory of the web processes, and time against a copy.

Target: every process of the server under 100 MB of memory. Sent by curl, with a
Content-Length and chunked; durable when answered.
"""

import contextlib
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.support.instances import make_dataset
from tests.support.require import require_tool
from tests.support.server import Server, running_server

RUNS = 5
TILE_BYTES = 1 << 20
TILES = 1024
BOUNDARY = "coverslip-benchmark"


def write_body(path: Path, seed: int) -> int:
    """A multipart body of one instance of 1 GiB, its frames not compressed further."""
    import io

    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import JPEGBaseline8Bit

    from tests.support.instances import jpeg_tile

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


def send(url: str, body: Path, *, chunked: bool) -> float:
    headers = [
        "-H", f'Content-Type: multipart/related; type="application/dicom"; boundary={BOUNDARY}',
        "-H", "Accept: application/dicom+json", "-H", "Expect:",
    ]  # fmt: skip
    if chunked:
        headers += ["-H", "Transfer-Encoding: chunked"]
    begun = time.monotonic()
    done = subprocess.run(
        [require_tool("curl"), "-s", "-o", "/dev/null", "-w", "%{http_code}", "-X", "POST", *headers, "-T",
         str(body), f"{url}/dicom-web/studies"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    if done.stdout != "200":
        raise RuntimeError(f"the server answered {done.stdout}")
    return time.monotonic() - begun


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


def main() -> int:
    print(f"{platform.platform()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        body = folder / "body"
        times: dict[bool, list[float]] = {False: [], True: []}
        copies = []
        with running_server(folder / "site") as server:
            for run in range(RUNS):
                for chunked in (False, True):
                    size = write_body(body, run * 2 + chunked)
                    begun = time.monotonic()
                    subprocess.run(["cp", body, folder / "copy"], check=True)
                    with (folder / "copy").open("rb") as file:
                        os.fsync(file.fileno())
                    copies.append(time.monotonic() - begun)
                    (folder / "copy").unlink()
                    times[chunked].append(send(server.url, body, chunked=chunked))
            memory = peaks(server)
    floor = statistics.median(copies)
    print(f"body {size / 1e6:.0f} MB, medians of {RUNS}")
    print(f"copy and fsync           {floor:6.2f} s")
    for chunked, label in ((False, "with Content-Length"), (True, "chunked")):
        taken = statistics.median(times[chunked])
        print(f"STOW {label:<20}{taken:6.2f} s  {size / 1e6 / taken:5.0f} MB/s  ratio {taken / floor:.2f}")
    print("peak memory:", ", ".join(f"{role} {peak} MB" for role, peak in sorted(memory.items())))
    highest = max(peak for role, peak in memory.items())
    print(f"highest {highest} MB (target < 100)")
    return 0 if highest < 100 else 1


if __name__ == "__main__":
    sys.exit(main())
