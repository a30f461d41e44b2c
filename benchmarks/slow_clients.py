# SPDX-License-Identifier: Apache-2.0
"""A viewer served beside 200 slow clients: latency of single frames with and without them.

Half of the slow clients ask for a whole instance and read a few bytes a second; the other
half send their request line a byte at a time. Prints p50 and p99 of the viewer's frames
alone and beside them, and the ratio of the p50.
"""

import http.client
import os
import platform
import socket
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.support.make_slide import big_svs
from tests.support.server import Server, coverslip, running_server, wait_for

SLOW = 200
FRAMES = 400
ACCEPT = "image/jpeg; transfer-syntax=1.2.840.10008.1.2.4.50"


def view(server: Server, path: str, count: int) -> list[float]:
    """Milliseconds of each of ``count`` frame requests on one kept connection."""
    connection = http.client.HTTPConnection("127.0.0.1", server.http, timeout=30)
    taken = []
    for number in range(FRAMES):
        begun = time.monotonic()
        connection.request("GET", f"{path}/frames/{number % count + 1}", headers={"Accept": ACCEPT})
        answer = connection.getresponse()
        answer.read()
        if answer.status != 200:
            raise RuntimeError(f"frame {number}: {answer.status}")
        taken.append((time.monotonic() - begun) * 1000)
    connection.close()
    return taken


def slow_reader(server: Server, path: str, stop: threading.Event) -> None:
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        s.connect(("127.0.0.1", server.http))
        s.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept: application/dicom\r\n\r\n".encode())
        while not stop.wait(1):
            try:
                if not s.recv(16):
                    return
            except OSError:
                return


def slow_sender(server: Server, path: str, stop: threading.Event) -> None:
    with socket.socket() as s:
        s.connect(("127.0.0.1", server.http))
        for byte in f"GET {path} HTTP/1.1\r\nHost: localhost\r\nX: {'x' * 500}".encode():
            if stop.wait(1):
                return
            try:
                s.send(bytes([byte]))
            except OSError:
                return


def main() -> int:
    print(f"{platform.platform()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        slide = big_svs(folder / "slide.svs", 100 << 20)
        with running_server(folder / "site") as server:
            coverslip("ingest", "--create", slide, "--data", folder / "site")
            line = wait_for(lambda: server.json("/api/slides")["slides"])[0]
            series = f"/dicom-web/studies/{line['study_instance_uid']}/series/{line['series_instance_uid']}"
            found = server.json(f"{series}/instances", "application/dicom+json")
            largest = max(found, key=lambda i: i["00280008"]["Value"][0])
            count = largest["00280008"]["Value"][0]
            path = f"{series}/instances/{largest['00080018']['Value'][0]}"
            view(server, path, count)
            alone = view(server, path, count)
            stop = threading.Event()
            threads = [
                threading.Thread(
                    target=slow_reader if n % 2 else slow_sender, args=(server, path, stop), daemon=True
                )
                for n in range(SLOW)
            ]
            for thread in threads:
                thread.start()
            time.sleep(3)
            beside = view(server, path, count)
            stop.set()
    for label, taken in (("alone", alone), (f"beside {SLOW} slow clients", beside)):
        p99 = sorted(taken)[int(len(taken) * 0.99)]
        print(f"{label:<24} p50 {statistics.median(taken):6.2f} ms  p99 {p99:7.2f} ms")
    ratio = statistics.median(beside) / statistics.median(alone)
    print(f"ratio of the p50         {ratio:6.2f}")
    return 0 if ratio < 10 else 1


if __name__ == "__main__":
    sys.exit(main())
